"""Handshakes under way at a listener: how many there may be, and who has to make room for the next. No I/O.

While there is room everybody is let in. Then whoever has been waited for a while goes first, said it nothing or half of
something, and after them the slowest of the source with the most handshakes: so a source cannot keep out the others.
Many good peers may share a source (a proxy, a NAT): then the newest of them has to come again, but costs none of the
others its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Generic, Protocol, TypeVar

SILENT_SECONDS = 1.0
"""Who sends nothing for so long may have to make room for others."""
PREFIX_BITS = 64
"""A host may have any address of such an IPv6 network."""

Network = IPv4Network | IPv6Network


class Peer(Protocol):
    """A connection whose handshake is under way."""

    @property
    def host(self) -> str:
        """Its address, without the port."""

    @property
    def heard_bytes(self) -> int:
        """What it has sent so far."""

    @property
    def heard_at(self) -> float:
        """Since when it is waited for; infinite while it waits for us."""


P = TypeVar("P", bound=Peer)


class Pending(Generic[P]):
    """The table of a listener."""

    def __init__(self, most: int, trusted: Sequence[Network] = ()) -> None:
        """`trusted`: peers of these networks need no room."""
        self._most, self._trusted = most, trusted
        self._since: dict[P, tuple[float, str]] = {}
        """When each came and from which source, the oldest first."""
        self._by_source: dict[str, dict[P, None]] = {}

    def limit(self, most: int, trusted: Sequence[Network]) -> None:
        """Use other bounds for peers that come from now on."""
        self._most, self._trusted = most, trusted

    def __len__(self) -> int:
        return len(self._since)

    def enter(self, peer: P, now: float) -> P | None:
        """Let a peer in; returns who has to go for that, if anybody: maybe the peer itself."""
        source = source_of(peer.host, self._trusted)
        if source is None:
            return None
        leaving = None
        if len(self._since) >= self._most:
            leaving = self._silent(now) or self._slowest(source, now)
            if leaving is None:
                return peer
            self.leave(leaving)
        self._since[peer] = now, source
        self._by_source.setdefault(source, {})[peer] = None
        return leaving

    def leave(self, peer: P) -> None:
        """Its handshake is over."""
        if (found := self._since.pop(peer, None)) is not None:
            peers = self._by_source[found[1]]
            del peers[peer]
            if not peers:
                del self._by_source[found[1]]

    def _silent(self, now: float) -> P | None:
        """Who has been there longest of those that are waited for."""
        for peer, (since, _) in self._since.items():
            if now - since < SILENT_SECONDS:
                return None
            if now - peer.heard_at >= SILENT_SECONDS:
                return peer
        return None

    def _slowest(self, newcomer: str, now: float) -> P | None:
        """Who has sent least for its time, of the largest source; None if the newcomer's is as large."""
        peers = max(self._by_source.values(), key=len)
        if len(peers) <= len(self._by_source.get(newcomer, ())) + 1:
            return None
        return min(peers, key=lambda peer: peer.heard_bytes / (now - self._since[peer][0] + 1))


def source_of(host: str, trusted: Sequence[Network] = ()) -> str | None:
    """Who is at this address: all that may be one host. None for a trusted one."""
    address = _address(host)
    if address is None:
        return host
    if is_within(host, trusted):
        return None
    return str(IPv6Network((address, PREFIX_BITS), strict=False)) if address.version == 6 else str(address)


def is_within(host: str, networks: Sequence[Network]) -> bool:
    """Whether an address is in one of these networks."""
    address = _address(host)
    return address is not None and any(address.version == each.version and address in each for each in networks)


def _address(host: str) -> IPv4Address | IPv6Address | None:
    """As one of IPv4 where it stands for one; None for a Unix socket."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
