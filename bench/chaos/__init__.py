"""Faults on a schedule that a seed determines, against running programs, and the count of what was lost or repeated."""
