"""What the lines of a file or of standard input mean: encodings, and formats whose lines become JSON in the source."""
