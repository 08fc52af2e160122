"""The receiver's half of a link: authorises it, stores its batches in order, answers, ends it."""
