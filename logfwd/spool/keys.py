"""Idempotency keys: which requests from clients are in the spool already, and how much of each.

A client that gets no answer sends its request again. So that nothing is stored twice, every transaction that holds part
of a request appends a row to the table `keys`: the offset in the decoded body up to which the request is durable, and
the digest of the body up to that offset. The newest row of a key is the valid one. A repeated request that starts with
the same bytes continues after that offset.

Rows are appended, and deleted from the front, in the order of their ids; inserting them in random order would write 40
times as many bytes. An index in memory maps the first 8 bytes of a key's hash to the newest row that starts with them;
it is rebuilt when the spool is opened. A wrong match would lose records, so `read_key` compares the whole hash with the
row on disk, and searches the table if a newer key with the same first bytes hides the wanted one.

A key is kept until it expires, or until there are more than `max_keys` rows or their bytes exceed their share of the
spool's budget: then the oldest are evicted, and counted. This module decides; it does no I/O and reads no clock.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Protocol

from logfwd.sources.keys import Key

MAX_KEYS = 200_000
"""Most rows. A request that is spread over several transactions has a row for each."""
ROW_BYTES = 80
"""Approximate size of a row in the file: hash and digest of 16 bytes each, numbers, and SQLite's own bytes."""
BUDGET_SHARE = 10
"""Keys may take up to 1/BUDGET_SHARE of `max_spool_bytes`; the rest is for batches."""
MOST_DELETED = 1000
"""Most rows that one transaction deletes."""
EXPIRY_STEP_SECONDS = 1.0
"""Rows that expire within this time of each other are deleted together."""

_PREFIX_BYTES = 8


class Changes(Protocol):
    """Notes for one transaction."""

    def put_key(self, row_id: int, key_hash: bytes, key: Key) -> None: ...
    def delete_keys(self, through: int) -> None: ...


class Keys:
    """The index of one spool's keys: which row to read for a key, and which rows to delete."""

    def __init__(self) -> None:
        self.max_keys = MAX_KEYS
        self.max_bytes = MAX_KEYS * ROW_BYTES
        self.evicted = 0
        """Keys that were deleted before they expired, since the spool was opened."""
        self._newest: dict[int, int] = {}  # prefix of the hash → row id; in the order of ids
        self._expiries: deque[tuple[int, float]] = deque()  # last id of some rows, and when the first of them expires
        self._first, self._last = 1, 0

    def __len__(self) -> int:
        """Rows in the file."""
        return self._last - self._first + 1

    @property
    def byte_count(self) -> int:
        """How much of the spool's budget the rows take."""
        return len(self) * ROW_BYTES

    def adopt(self, row_id: int, key_hash: bytes, expires: float) -> None:
        """Add a row that was read from the disk; rows come in the order of their ids."""
        if not self:
            self._first = row_id
        self._last = row_id
        prefix = _prefix(key_hash)
        self._newest.pop(prefix, None)  # so that the order of entries is that of their rows
        self._newest[prefix] = row_id
        if self._expiries and expires <= self._expiries[-1][1] + EXPIRY_STEP_SECONDS:
            self._expiries[-1] = (row_id, self._expiries[-1][1])
        else:
            self._expiries.append((row_id, expires))

    def put(self, key_hash: bytes, key: Key, changes: Changes) -> None:
        """Record how much of a request is durable with this transaction. Hand `changes` in before the next await."""
        row_id = self._last + 1
        self.adopt(row_id, key_hash, key.expires)
        changes.put_key(row_id, key_hash, key)

    def find(self, key_hash: bytes) -> int | None:
        """The row that may hold the key; None if the spool does not have it."""
        return self._newest.get(_prefix(key_hash))

    def trim(self, now: float, changes: Changes) -> bool:
        """Delete expired and surplus rows, oldest first, at most MOST_DELETED. True if there were any."""
        limit = self._first + MOST_DELETED - 1
        expired = self._first - 1
        for last, expires in self._expiries:
            if expires + EXPIRY_STEP_SECONDS > now or expired >= limit:
                break
            expired = last
        excess = len(self) - min(self.max_keys, self.max_bytes // ROW_BYTES)
        through = min(max(expired, self._first - 1 + excess), limit)
        if through < self._first:
            return False
        for prefix, row_id in list(islice(self._newest.items(), MOST_DELETED)):
            if row_id > through:
                break
            del self._newest[prefix]
            self.evicted += row_id > expired
        while self._expiries and self._expiries[0][0] <= through:
            self._expiries.popleft()
        self._first = through + 1
        changes.delete_keys(through)
        return True


def _prefix(key_hash: bytes) -> int:
    return int.from_bytes(key_hash[:_PREFIX_BYTES], "big")
