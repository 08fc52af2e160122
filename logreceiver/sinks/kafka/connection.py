"""A connection to a broker: counted by how it is protected, and replaced before its SASL session ends.

A broker with `connections.max.reauth.ms` cuts off a client that goes on beyond its session without authenticating
again, and what was under way is then uncertain. aiokafka cannot authenticate again; so a connection takes no further
request once most of its session is over, and its users open another one.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable
from typing import Any

from aiokafka.conn import AIOKafkaConnection
from aiokafka.protocol.admin import SaslAuthenticateRequest

from logreceiver.posture import SinkConnection
from logreceiver.sinks import SinkWitness
from streams.security.plain import NO_TLS

USED_SHARE = 0.8
"""How much of a session is used. The rest is for requests that began in it."""


class Connection(AIOKafkaConnection):  # type: ignore[misc]
    """`connected` is also false once it is to be replaced; what is under way is still answered."""

    _used_until: float | None = None
    """Monotonic seconds; None if the session does not end."""
    _counted: SinkConnection | None = None

    def count(self, witness: SinkWitness) -> None:
        """Have it counted from now on until it is closed. Only for one that is connected, and once."""
        tls = self._writer.get_extra_info("ssl_object")
        counted = self._counted = witness.opened(NO_TLS if tls is None else tls.endpoint.facts(), time.monotonic())
        self._on_close_cb = lambda *_: witness.closed(counted)

    def carries(self, size: int) -> None:
        """Bytes of batches were handed over."""
        if self._counted is not None:
            self._counted.bytes += size

    @property
    def is_used_up(self) -> bool:
        return self._used_until is not None and time.monotonic() > self._used_until

    def connected(self) -> bool:
        return bool(super().connected()) and not self.is_used_up

    def send(self, request: Any, expect_response: bool = True) -> Awaitable[Any]:
        answer: Awaitable[Any] = super().send(request, expect_response)
        return self._authenticated(answer) if isinstance(request, SaslAuthenticateRequest) else answer

    async def _authenticated(self, answer: Awaitable[Any]) -> Any:
        said = await answer
        if (lifetime_ms := getattr(said, "session_lifetime_ms", 0)) > 0:
            self._used_until = time.monotonic() + USED_SHARE * lifetime_ms / 1000
        return said
