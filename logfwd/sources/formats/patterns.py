"""Patterns that users write, searched in lines that anybody may have written.

They run on google-re2, whose time is linear in the line: no line can stop a stream, or the interpreter. Only the first
8 KiB of a line are looked at.
"""

from __future__ import annotations

from collections.abc import Callable

SEARCHED_CHARACTERS = 8192


def compile_pattern(pattern: str) -> Callable[[str], bool]:
    """A search for the pattern; raises ValueError if it is not one."""
    import re2  # takes 3 MB: only for those who have patterns

    options = re2.Options()
    options.log_errors = False
    try:
        found = re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0].decode() if isinstance(error.args[0], bytes) else str(error)
        raise ValueError(
            f"{pattern!r} is not a pattern of RE2 ({reason}); see https://github.com/google/re2/wiki/Syntax"
        ) from error
    return lambda line: found.search(line[:SEARCHED_CHARACTERS]) is not None


def check_pattern(pattern: str) -> None:
    """Raise ValueError for what is not a pattern."""
    if not pattern:
        raise ValueError("is empty; write a regular expression, as in '^\\d{4}-'")
    compile_pattern(pattern)
