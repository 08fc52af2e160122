"""Commands of `logfwd` other than run, validate and schema; each is imported only when it is called."""
