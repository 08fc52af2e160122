"""What the ledger says about a stream: sent, stored, missing, twice; and under which group it travelled. No I/O.

What is stored follows from the sequences of each run (ledger_coverage.py) and, where records are unaccounted for, from
what the sink itself has at a run's end (`Tails`). A forwarder's reports say how much it sent. Acknowledged records that
are not stored are *missing*; records stored beyond those sent are stored *twice*. Where the ledger does not reach back
to the beginning, neither can be known, and the answer says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from logreceiver.ledger.coverage import Coverage, Intervals, RunKey
from logreceiver.ledger.records import Entry, ReportEntry
from logreceiver.sinks import Held, RunState

OVERLAP_MS = 60_000
"""A late batch of an earlier boot may still be stored for about this long."""

Place = tuple[str, int]
"""Topic and partition."""
Tails = Mapping[tuple[str, int, int], RunState | None]
"""The sink's state for (topic, partition, producer id); None if it does not know the producer."""


class Share(msgspec.Struct, frozen=True):
    """The ledgered batches that travelled under one TLS setting."""

    mode: str
    group: str
    tls_version: str
    authentication: str
    batches: int
    records: int
    bytes: int
    records_percent: float
    bytes_percent: float


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One forwarder's stream. None means unknown; `notes` say why. All numbers except resets are records."""

    stream: str
    twin_of: str
    identity: str
    forwarder_id: str
    sent: int | None
    stored: int
    missing: int | None
    twice: int
    waiting: int | None
    dropped: int | None
    dead_lettered: int | None
    resets: int | None
    not_in_ledger: int
    first_ms: int
    last_ms: int
    reported_ms: int | None
    shares: tuple[Share, ...]
    notes: tuple[str, ...]


class Account:
    """Everything that the ledger holds about one stream of one forwarder."""

    def __init__(self, entry: Entry) -> None:
        self.stream, self.twin_of = entry.stream, entry.twin_of
        self.identity, self.forwarder_id = entry.identity, entry.forwarder_id
        self.runs: dict[RunKey, Coverage] = {}
        self._numbers: set[int] = set()
        """The forwarder's numbers of the runs that entries belong to; it counts them from 1."""
        self._boots: dict[str, tuple[int, int]] = {}
        """Times of the first and the last entry of each boot, in milliseconds."""
        self._report: ReportEntry | None = None
        """The newest one."""
        self._first_ms = entry.time_ms
        self._last_ms = 0
        self._last_batch_ms = 0
        self._begins: dict[Place, int] = {}
        """Where the log begins of which older records were deleted."""
        self._unreadable: dict[Place, Intervals] = {}
        """Offsets of stored records that are damaged."""
        self._shares: Counter[tuple[str, str, str, str, str]] = Counter()
        """By mode, group, TLS version, authentication, and what is counted: batches, records, bytes."""

    # -- taking entries ----------------------------------------------------------------------------------------

    def add(self, entry: Entry) -> None:
        """Take an entry; a run's entries may come in any order, reports go by their time."""
        self._first_ms = min(self._first_ms, entry.time_ms)
        self._last_ms = max(self._last_ms, entry.time_ms)
        self._note_boot(entry)
        if isinstance(entry, ReportEntry):
            if self._report is None or entry.time_ms >= self._report.time_ms:
                self._report = entry
            return
        self._last_batch_ms = max(self._last_batch_ms, entry.time_ms)
        self._numbers.add(entry.run)
        key = RunKey(entry.topic, entry.partition, entry.producer_id, entry.producer_epoch)
        records = self.runs.setdefault(key, Coverage()).add(entry)
        if records:
            setting = (entry.mode, entry.group, entry.tls_version, entry.authentication)
            self._shares[*setting, "batches"] += 1
            self._shares[*setting, "records"] += records
            self._shares[*setting, "bytes"] += entry.bytes * records // entry.records

    def compare(self, entry: Entry, held: Mapping[Place, Held]) -> None:
        """Take an entry once more, to see which of its records the sink can still show."""
        if isinstance(entry, ReportEntry) or entry.first_offset < 0:
            return
        place = (entry.topic, entry.partition)
        found = held.get(place, Held())
        if entry.first_offset < found.begins_at:
            self._begins[place] = found.begins_at
        for since, until in found.lacking:
            start, end = max(since, entry.first_offset), min(until, entry.last_offset + 1)
            if start < end:
                self._unreadable.setdefault(place, Intervals()).add(start, end)

    def _note_boot(self, entry: Entry) -> None:
        first, last = self._boots.get(entry.boot_id, (entry.time_ms, entry.time_ms))
        self._boots[entry.boot_id] = (min(first, entry.time_ms), max(last, entry.time_ms))

    # -- answering ---------------------------------------------------------------------------------------------

    def answer(self, tails: Tails | None = None) -> Answer:
        """`tails` is None where the sink was not asked; an account that is `in_doubt` needs them."""
        self._take_tails(tails or {})
        coverages = self.runs.values()
        stored = sum(one.stored for one in coverages)
        twice = sum(one.twice for one in coverages)
        report = self._report
        lost = sum(one.lost for one in coverages)
        gone = self._gone()
        missing, surplus, notes = self._balance(stored + lost, tails)
        if gone:
            missing = (missing or 0) + gone
            notes.append(f"{gone} records that were stored are no longer in the sink, or cannot be read there")
        for (topic, partition), offset in sorted(self._begins.items()):
            notes.append(f"the log of {topic}-{partition} begins at offset {offset}: older records were deleted")
        if not_in_ledger := sum(one.holes + one.tail for one in coverages):
            text = f"{not_in_ledger} records are stored but not in the ledger: a receiver was killed before it wrote "
            notes.insert(0, text + "their entries, or the ledger could not be written, or was turned on later")
        return Answer(
            stream=self.stream,
            twin_of=self.twin_of,
            identity=self.identity,
            forwarder_id=self.forwarder_id,
            sent=None if report is None else report.accepted,
            stored=stored + lost - gone - surplus,
            missing=missing,
            twice=twice + surplus,
            waiting=None if report is None else _waiting(report),
            dropped=None if report is None else report.dropped,
            dead_lettered=None if report is None else report.dead_lettered,
            resets=None if report is None else report.resets,
            not_in_ledger=not_in_ledger,
            first_ms=self._first_ms,
            last_ms=self._last_ms,
            reported_ms=None if report is None else report.time_ms,
            shares=tuple(self._show_shares()),
            notes=tuple(notes),
        )

    def _gone(self) -> int:
        """Records that were stored and cannot be read. A tail that is lost may be damage that is known, too."""
        lost = Counter[Place]()
        for key, coverage in self.runs.items():
            lost[key.topic, key.partition] += coverage.lost
        damaged = {place: offsets.total for place, offsets in self._unreadable.items()}
        return sum(max(lost[place], damaged.get(place, 0)) for place in lost.keys() | damaged.keys())

    @property
    def in_doubt(self) -> bool:
        """True if the entries alone leave records unaccounted for, so that the sink has to be asked."""
        return self._report is not None and self._report.acknowledged > sum(one.stored for one in self.runs.values())

    def _take_tails(self, tails: Tails) -> None:
        for key, coverage in self.runs.items():
            state = tails.get(key[:3])
            if state is not None and _is_newest(key, state):
                coverage.reaches(state.last_sequence)

    def _balance(self, stored: int, tails: Tails | None) -> tuple[int | None, int, list[str]]:
        """Missing, stored twice beyond what sequences show, and notes on why either is unknown."""
        report = self._report
        if report is None:
            return (
                None,
                0,
                [
                    "how much was sent is unknown: the forwarder has not reported yet (it reports every 10 s and "
                    "when it stops)"
                ],
            )
        notes = []
        if waiting := _waiting(report):
            notes.append(f"{waiting} records were waiting at the forwarder when it last reported; they are not missing")
        if self._boots_overlap():
            return (
                None,
                0,
                [
                    *notes,
                    "two boots of the forwarder ran at the same time: its state directory may have "
                    "been copied, so its totals cannot be trusted",
                ],
            )
        short = report.acknowledged - stored
        if short > 0:
            missing, why = self._judge_short(short, tails)
            return missing, 0, [*notes, *why]
        if self._last_batch_ms > report.time_ms:
            notes.append(
                "batches arrived after the last report: the forwarder is running, or ended without one; they "
                "are not counted in `sent` yet"
            )
            return 0, 0, notes
        surplus = max(-short - waiting, 0)
        if surplus:
            notes.append(
                f"{surplus} more records are stored than were sent: a reset sent batches in doubt again, or "
                "the state directory was copied"
            )
        return 0, surplus, notes

    def _boots_overlap(self) -> bool:
        """True if two boots ran at the same time; boots follow each other unless a state directory was copied."""
        last_of_all = None
        for first, last in sorted(self._boots.values()):
            if last_of_all is not None and min(last, last_of_all) - first > OVERLAP_MS:
                return True
            last_of_all = max(last, last_of_all or last)
        return False

    def _judge_short(self, short: int, tails: Tails | None) -> tuple[int | None, list[str]]:
        """More is acknowledged than is known to be stored: the missing records, or None and why that is unknown."""
        lacking = sorted(set(range(1, max(self._numbers, default=1) + 1)) - self._numbers)
        if self._report is not None and self._report.run not in self._numbers:
            return None, [f"{short} acknowledged records are not in the ledger, nor is the run that they may belong to"]
        if lacking:
            return None, [
                f"{short} acknowledged records are not in the ledger, which has no entry of runs "
                f"{_ranges(lacking)}: it does not reach back that far, or they were dropped"
            ]
        if any(run.begins_late for run in self.runs.values()):
            return None, [f"{short} acknowledged records are not in the ledger, which begins in the middle of a run"]
        if tails is None:
            return None, [f"{short} acknowledged records are not in the ledger, and the sink was not asked"]
        unknown = [key for key in self.runs if not _is_newest(key, tails.get(key[:3]))]
        if unknown or not self.runs:
            return None, [
                f"{short} acknowledged records are not in the ledger, and the sink no longer knows "
                f"{len(unknown)} of {len(self.runs)} runs"
            ]
        return short, []

    def _show_shares(self) -> Iterator[Share]:
        records = sum(count for key, count in self._shares.items() if key[4] == "records")
        size = sum(count for key, count in self._shares.items() if key[4] == "bytes")
        for setting in sorted({key[:4] for key in self._shares}):
            batches, *amounts = (self._shares[*setting, what] for what in ("batches", "records", "bytes"))
            percents = [_percent(part, whole) for part, whole in zip(amounts, (records, size), strict=True)]
            yield Share(*setting, batches, *amounts, *percents)


class Books:
    """The accounts of a stream and its twins."""

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._accounts: dict[tuple[str, str, str], Account] = {}

    def add(self, entries: Iterable[Entry]) -> None:
        """Take entries; those of other streams are skipped."""
        for entry in entries:
            if self._stream in (entry.stream, entry.twin_of):
                key = (entry.identity, entry.stream, entry.forwarder_id)
                if (account := self._accounts.get(key)) is None:
                    account = self._accounts[key] = Account(entry)
                account.add(entry)

    def compare(self, entry: Entry, held: Mapping[Place, Held]) -> None:
        """Take an entry once more, now that it is known what the sink can show of each partition."""
        account = self._accounts.get((entry.identity, entry.stream, entry.forwarder_id))
        if account is not None:
            account.compare(entry, held)

    def accounts(self) -> list[Account]:
        """Original before twins, then by identity."""
        order = sorted(self._accounts.items(), key=lambda item: (item[0][1] != self._stream, item[0]))
        return [account for _, account in order]


def is_wrong(answers: Iterable[Answer]) -> bool:
    """True if anything is known to be missing or twice."""
    return any(answer.missing or answer.twice for answer in answers)


def as_builtins(answers: Iterable[Answer]) -> list[dict[str, Any]]:
    return [msgspec.to_builtins(answer) for answer in answers]


def _waiting(report: ReportEntry) -> int:
    return report.accepted - report.acknowledged - report.dropped - report.dead_lettered


def _is_newest(key: RunKey, state: RunState | None) -> bool:
    """True if the sink's state is of this very run, and not of a later epoch of its producer."""
    return state is not None and state.producer_epoch == key.producer_epoch


def _percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 2) if whole else 0.0


def _ranges(numbers: list[int]) -> str:
    """1–3, 7"""
    shown: list[list[int]] = []
    for number in numbers:
        if shown and shown[-1][1] == number - 1:
            shown[-1][1] = number
        else:
            shown.append([number, number])
    return ", ".join(f"{low}–{high}" if high > low else str(low) for low, high in shown)
