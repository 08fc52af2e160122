"""The receiver: accepts links, checks who may write what, and hands batches to a sink unopened."""
