"""An audit record for every stored batch, and what these add up to: sent, stored, missing, duplicated."""
