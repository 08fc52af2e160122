"""How fast and at what cost: one question per command."""
