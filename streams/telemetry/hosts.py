"""Which host a request to the admin address may name. No I/O.

A web page can let a name of its own resolve to any address, and then reads there what its visitor can reach (DNS
rebinding). What it cannot do is to send another name than its own, so names are checked where they are known: on a
loopback address, and wherever `hosts` lists them. Elsewhere nobody knows them.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from urllib.parse import urlsplit


class Hosts:
    """The hosts of one admin address."""

    def __init__(self, bound: str, configured: str, names: Iterable[str] = ()) -> None:
        """`bound`: the address that is listened on; `configured`: the host that it was given as; `names`: further."""
        self._is_local = ip_address(bound).is_loopback
        further = {name.lower() for name in names}
        self._names = {"localhost", configured.lower(), *further} - {""} if self._is_local or further else None

    def allow(self, header: str) -> bool:
        """Whether the `Host` of a request is one of them. The port may be a forwarded one, so it is ignored.

        An address cannot be made to resolve to another one, so all pass; on loopback only its own can be meant.
        """
        if self._names is None:
            return True
        try:
            host = urlsplit(f"//{header}").hostname or ""
            return host.removesuffix(".") in self._names or ip_address(host).is_loopback or not self._is_local
        except ValueError:
            return False
