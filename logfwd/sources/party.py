"""The accepting side of a listener for clients that are not ours."""

from __future__ import annotations

from logfwd.sources.terms import ListenerTls
from streams.security import stacks
from streams.security.endpoint import Party
from streams.security.modes import MODES
from streams.security.plain import PlainParty


def party_of(tls: ListenerTls | None, alpn: bytes) -> Party:
    """What `[source.tls]` describes, or a party without TLS; ConfigError if its files cannot be used.

    `alpn`: for clients that offer it.
    """
    if tls is None:
        return PlainParty()
    served = [MODES[name] for name in tls.modes]
    return stacks.foreign_server(
        served, section="source.tls", certificate=tls.certificate, key=tls.key, ca=tls.ca, alpn=alpn
    )
