"""How well links are protected: what ran under which group, TLS version and authentication; no I/O, no clock.

A receiver keeps an account for each (stream, identity, group, version, authentication, algorithm of the certificate's
key) from its start. It keeps at most
`MAX_ACCOUNTS`: the one whose last link was opened longest ago is forgotten first, and the report counts it; one with an
open link is reported as long as the link lives. Open links are taken from the sessions themselves. Reports of several
workers can be merged (`merge`), as they consist of the same kind of rows. `SinkConnections` has the next hop: what
protects the sink's own connections to its servers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from streams.security.endpoint import Facts

MAX_ACCOUNTS = 10_000
_NEVER = datetime.max.replace(tzinfo=UTC)


class Account(msgspec.Struct, eq=False):
    """One way in which one identity sent one stream. `bytes` counts batches, stored or not."""

    stream: str
    identity: str
    group: str
    version: str
    authentication: str
    certificate_algorithm: str
    links: int = 0
    bytes: int = 0
    certificate_expires: datetime | None = None
    """Of the link opened last."""


class OpenLink(NamedTuple):
    """A link that is open now."""

    account: Account
    age_seconds: float
    certificate_expires: datetime | None


# -- the report -------------------------------------------------------------------------------------------------


class Share(msgspec.Struct, kw_only=True):
    """Links and bytes of one way; shares are fractions of 1."""

    group: str
    version: str
    authentication: str
    certificate_algorithm: str
    links: int = 0
    open_links: int = 0
    bytes: int = 0
    oldest_open_link_seconds: float | None = None
    share_of_links: float = 0.0
    share_of_bytes: float = 0.0

    def add(self, other: Share) -> None:
        self.links += other.links
        self.open_links += other.open_links
        self.bytes += other.bytes
        ages = [age for each in (self, other) if (age := each.oldest_open_link_seconds) is not None]
        self.oldest_open_link_seconds = max(ages, default=None)


class StreamPosture(msgspec.Struct, kw_only=True):
    """One stream of one identity; most used way first."""

    stream: str
    identity: str
    links: int
    open_links: int
    bytes: int
    oldest_open_link_seconds: float | None
    shares: list[Share]


class Certificate(msgspec.Struct, kw_only=True):
    """A forwarder's certificate: one that an open link uses, otherwise the identity's last to expire."""

    identity: str
    algorithm: str
    expires: datetime | None
    days_left: float | None = None
    open_links: int = 0


class Report(msgspec.Struct, kw_only=True):
    """The answer of `/api/v1/posture`. Figures exclude `forgotten` accounts; certificates: soonest to expire first."""

    since: datetime
    now: datetime
    forgotten: int
    links: int
    open_links: int
    bytes: int
    shares: list[Share]
    streams: list[StreamPosture]
    certificates: list[Certificate]
    sink: list[Share] = []
    """The next hop: connections that the sink made to its servers, by how the server protected them."""


Row = tuple[str, str, Share]
"""Stream, identity, and the share to add to them."""


class Posture:
    """The accounts of a receiver."""

    def __init__(self, most: int = MAX_ACCOUNTS) -> None:
        self._most = most
        self._accounts: dict[tuple[str, ...], Account] = {}
        """In the order in which their last links were opened."""
        self.forgotten = 0

    def opened(self, stream: str, identity: str, facts: Facts) -> Account:
        """Count a link; its session adds the bytes to the account returned."""
        key = (stream, identity, facts.group, facts.version, facts.authentication, facts.certificate_algorithm)
        account = self._accounts.pop(key, None) or Account(*key)
        account.links += 1
        account.certificate_expires = facts.certificate_expires
        self._accounts[key] = account
        if len(self._accounts) > self._most:
            del self._accounts[next(iter(self._accounts))]
            self.forgotten += 1
        return account

    @property
    def accounts(self) -> list[Account]:
        """A copy of the list, for a report that is built on another thread."""
        return list(self._accounts.values())


class SinkConnection:
    """A connection of the sink to one of its servers, while it is open; whoever sends adds to `bytes`."""

    def __init__(self, facts: Facts, opened_at: float) -> None:
        self.way = (facts.group, facts.version, facts.authentication, facts.certificate_algorithm)
        self.opened_at = opened_at
        self.bytes = 0


class SinkConnections:
    """Connections that the sink made, by the way in which their server protected them; bytes are those of batches."""

    def __init__(self) -> None:
        self._ended: dict[tuple[str, ...], Share] = {}
        self._open: set[SinkConnection] = set()

    def opened(self, facts: Facts, opened_at: float) -> SinkConnection:
        """One was made, and its server has taken a request; `opened_at`, like `now`, is by a clock that never steps."""
        connection = SinkConnection(facts, opened_at)
        self._open.add(connection)
        return connection

    def closed(self, connection: SinkConnection) -> None:
        """From now on it counts only in the sums."""
        self._open.discard(connection)
        known = self._ended.setdefault(connection.way, _of_way(connection.way))
        known.add(_of_way(connection.way, links=1, bytes=connection.bytes))

    def shares(self, now: float) -> list[Share]:
        """Most bytes first."""
        opened = [
            _of_way(
                each.way,
                links=1,
                open_links=1,
                bytes=each.bytes,
                oldest_open_link_seconds=round(now - each.opened_at, 3),
            )
            for each in self._open
        ]
        return _shares([*self._ended.values(), *opened])[1]


def report(
    accounts: Iterable[Account],
    open_links: Sequence[OpenLink],
    *,
    since: datetime,
    now: datetime,
    forgotten: int = 0,
    sink: Iterable[Share] = (),
) -> Report:
    """Counts since the start, and open links. Slow with thousands of accounts: do not call it on an event loop."""
    rows: list[Row] = []
    certificates: list[Certificate] = []
    for account in dict.fromkeys((*accounts, *(link.account for link in open_links))):
        rows.append(_row(account, links=account.links, size=account.bytes))
        certificates.append(_certificate(account, account.certificate_expires, 0))
    for link in open_links:
        rows.append(_row(link.account, open_links=1, age_seconds=round(link.age_seconds, 3)))
        certificates.append(_certificate(link.account, link.certificate_expires, 1))
    return _report(rows, certificates, since=since, now=now, forgotten=forgotten, sink=sink)


def merge(reports: Sequence[Report]) -> Report:
    """One report of all workers."""
    return _report(
        [(each.stream, each.identity, share) for report in reports for each in report.streams for share in each.shares],
        [certificate for report in reports for certificate in report.certificates],
        since=min(report.since for report in reports),
        now=max(report.now for report in reports),
        forgotten=sum(report.forgotten for report in reports),
        sink=[share for report in reports for share in report.sink],
    )


# -- adding up ---------------------------------------------------------------------------------------------------


def _row(
    account: Account, *, links: int = 0, open_links: int = 0, size: int = 0, age_seconds: float | None = None
) -> Row:
    way = (account.group, account.version, account.authentication, account.certificate_algorithm)
    share = _of_way(way, links=links, open_links=open_links, bytes=size, oldest_open_link_seconds=age_seconds)
    return account.stream, account.identity, share


def _certificate(account: Account, expires: datetime | None, open_links: int) -> Certificate:
    return Certificate(
        identity=account.identity, algorithm=account.certificate_algorithm, expires=expires, open_links=open_links
    )


def _report(
    rows: Sequence[Row],
    certificates: Iterable[Certificate],
    *,
    since: datetime,
    now: datetime,
    forgotten: int,
    sink: Iterable[Share],
) -> Report:
    of_streams: defaultdict[tuple[str, str], list[Share]] = defaultdict(list)
    for stream, identity, share in rows:
        of_streams[stream, identity].append(share)
    streams = []
    for (stream, identity), found in sorted(of_streams.items()):
        sum_, shares = _shares(found)
        streams.append(
            StreamPosture(
                stream=stream,
                identity=identity,
                links=sum_.links,
                open_links=sum_.open_links,
                bytes=sum_.bytes,
                oldest_open_link_seconds=sum_.oldest_open_link_seconds,
                shares=shares,
            )
        )
    sum_, shares = _shares([share for _, _, share in rows])
    return Report(
        since=since,
        now=now,
        forgotten=forgotten,
        links=sum_.links,
        open_links=sum_.open_links,
        bytes=sum_.bytes,
        shares=shares,
        streams=streams,
        certificates=_expiring(certificates, now),
        sink=_shares(sink)[1],
    )


def _of_way(way: tuple[str, ...], **counts: Any) -> Share:
    group, version, authentication, algorithm = way
    return Share(group=group, version=version, authentication=authentication, certificate_algorithm=algorithm, **counts)


def _shares(found: Iterable[Share]) -> tuple[Share, list[Share]]:
    """Their sum, and one share for each way, most bytes first."""
    total = _of_way(("", "", "", ""))
    ways: dict[tuple[str, ...], Share] = {}
    for share in found:
        total.add(share)
        way = (share.group, share.version, share.authentication, share.certificate_algorithm)
        ways.setdefault(way, _of_way(way)).add(share)
    for share in ways.values():
        share.share_of_links = share.links / total.links if total.links else 0.0
        share.share_of_bytes = share.bytes / total.bytes if total.bytes else 0.0
    return total, sorted(ways.values(), key=lambda share: (-share.bytes, -share.links, share.group))


def _expiring(found: Iterable[Certificate], now: datetime) -> list[Certificate]:
    """Those in use; for an identity without an open link the last to expire, as older ones were replaced."""
    by_identity: defaultdict[str, dict[tuple[str, datetime], int]] = defaultdict(lambda: defaultdict(int))
    for each in found:
        by_identity[each.identity][each.algorithm, each.expires or _NEVER] += each.open_links
    kept = []
    for identity, uses in by_identity.items():
        used = {key: count for key, count in uses.items() if count} or {max(uses, key=lambda key: key[1]): 0}
        for (algorithm, expires), count in used.items():
            known = expires != _NEVER
            kept.append(
                Certificate(
                    identity=identity,
                    algorithm=algorithm,
                    expires=expires if known else None,
                    days_left=round((expires - now) / timedelta(days=1), 2) if known else None,
                    open_links=count,
                )
            )
    return sorted(kept, key=lambda each: (each.expires or _NEVER, each.identity))
