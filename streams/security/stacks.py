"""The one place that knows which TLS stack serves which mode.

A stack is a module with `client`, `foreign`, `server` and `check`. It is imported when a mode needs it: a program that
uses one stack does not pay for the others. One port serves one stack, because the first bytes of a connection are the
same in all of them.
"""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from streams.errors import ConfigError, HandshakeFailed, LinkError, Problem
from streams.security import modes
from streams.security.endpoint import Credentials, Party
from streams.security.modes import Mode


def client(mode: Mode, credentials: Credentials) -> Party:
    """The connecting side, in one mode. ConfigError if the files cannot be used."""
    party: Party = _stack(mode.stack).client(mode, credentials)
    return party


def server(served: Iterable[Mode], credentials: Credentials) -> Party:
    """The accepting side, in several modes. ConfigError if the files cannot be used, or the modes share no stack."""
    together = list(served)
    party: Party = _stack(common_stack(together)).server(together, credentials)
    return party


def ssl_context(mode: Mode, credentials: Credentials) -> ssl.SSLContext:
    """A client context for libraries that connect to servers of their own (aiokafka): one mode, names always checked.

    It has our certificate for servers that ask for one, and accepts whatever kind of key their CA signed.
    """
    from streams.security.sslcontext import PartyContext

    towards = modes.foreign(mode)
    return PartyContext.of(towards, _stack(mode.stack).foreign(towards, credentials))


def common_stack(served: Iterable[Mode]) -> str:
    """The stack of all these modes. ConfigError if they have several: one port serves one stack."""
    stacks = {mode.stack: mode.name for mode in served}
    if len(stacks) > 1:
        examples = " and ".join(f"{name!r} ({stack})" for stack, name in sorted(stacks.items()))
        text = f"{examples} need different TLS stacks, which cannot share a port; give each its own [[listener]]"
        raise ConfigError([Problem(Path("listener"), "modes", text)])
    return next(iter(stacks))


def check(credentials: Credentials, used: Iterable[Mode]) -> None:
    """Raise ConfigError for files that no link in these modes could use."""
    for stack in sorted({mode.stack for mode in used}):
        _stack(stack).check(credentials)


def self_test(used: Iterable[Mode]) -> None:
    """Make a handshake with ourselves in each mode and check its result; ConfigError if a mode does not work here."""
    from streams.security import pki

    with tempfile.TemporaryDirectory(prefix="logfwd-self-test-") as name:
        directory = Path(name)
        authority = pki.create_authority(directory)
        files = authority.issue(identities=["self-test"], hosts=["localhost"], days=1, out=directory / "leaf")
        credentials = Credentials(files.certificate, files.key, directory / "ca.pem")
        for mode in used:
            try:
                _shake_hands(mode, credentials)
            except (HandshakeFailed, LinkError, ValueError) as error:
                text = f"self-test: {error}; reinstall the versions of cryptography and pyOpenSSL pinned in uv.lock"
                raise ConfigError([Problem(Path(mode.name), "mode", text)]) from error


def _shake_hands(mode: Mode, credentials: Credentials) -> None:
    near, far = client(mode, credentials).endpoint("localhost"), server([mode], credentials).endpoint()
    for _ in range(8):
        for one, other in ((near, far), (far, near)):
            if not one.complete:
                one.handshake()
            for part in one.take():
                other.feed(part)
        if near.complete and far.complete:
            modes.check(mode, near.facts())
            modes.check(mode, far.facts())
            return
    raise HandshakeFailed("self_test", "the handshake does not end")


def _stack(name: str) -> ModuleType:
    match name:
        case "openssl":
            from streams.security.openssl import party

            return party
    raise AssertionError(f"no TLS stack is called {name!r}")
