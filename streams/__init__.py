"""What both ends share; it imports neither of them."""
