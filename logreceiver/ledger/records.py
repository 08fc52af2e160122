"""What the ledger holds: one JSON object per stored batch, and the totals that forwarders report.

Unknown numbers are −1. `identity` comes from the forwarder's certificate; its other fields are its own claims.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from streams.decoding import MALFORMED


class BatchEntry(msgspec.Struct, frozen=True, tag="batch", tag_field="kind", kw_only=True):
    """A batch is stored: appended now ("stored"), or recognised as stored before ("duplicate")."""

    time_ms: int
    stream: str
    twin_of: str
    identity: str
    forwarder_id: str
    boot_id: str
    run: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    records: int
    bytes: int
    topic: str
    partition: int
    first_offset: int
    last_offset: int
    outcome: Literal["stored", "duplicate"]
    mode: str
    group: str
    tls_version: str
    session_id: str
    authentication: str = ""
    peer: str = ""
    """Where the forwarder is. Both are empty in entries of versions that did not record them."""


class ReportEntry(msgspec.Struct, frozen=True, tag="report", tag_field="kind", kw_only=True):
    """A forwarder's own totals of a stream, in records (resets: in runs), since its spool was created.

    `run` is the newest run that its link has opened: everything acknowledged belongs to it or to earlier ones. It is
    −1 on a link that has opened none.
    """

    time_ms: int
    stream: str
    twin_of: str
    identity: str
    forwarder_id: str
    boot_id: str
    run: int
    accepted: int
    acknowledged: int
    dropped: int
    dead_lettered: int
    resets: int


Entry = BatchEntry | ReportEntry

encode = msgspec.json.Encoder().encode
_decoder: msgspec.json.Decoder[Entry] = msgspec.json.Decoder(Entry)


def decode(value: bytes) -> Entry | None:
    """The entry in a record; None for anything else (of a later version, or of another writer)."""
    try:
        return _decoder.decode(value)
    except MALFORMED:
        return None
