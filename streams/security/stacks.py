"""The one place that knows which TLS stack serves which mode.

A stack is a module with `client`, `foreign`, `server`, `foreign_server`, `check` and `verify`. It is imported when a
mode needs it: a program that uses one stack does not pay for the others. One port serves one stack, because the first
bytes of a connection are the same in all of them.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import ssl
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import msgspec
import structlog

from streams.errors import ConfigError, HandshakeFailed, LinkError, Problem
from streams.files import file_in_memory
from streams.security import modes
from streams.security.endpoint import DelegatedFiles, Files, HasFiles, MlDsaFiles, MlKemFiles, Party, PostQuantumFiles
from streams.security.modes import Mode

if TYPE_CHECKING:
    from streams.security.openssl.look import Look

log = structlog.get_logger("streams.security")

SECTIONS = {files.section: files for files in (Files, MlDsaFiles, MlKemFiles)}


def client(mode: Mode, credentials: HasFiles, *, key_log: Path | None = None) -> Party:
    """The connecting side, in one mode. ConfigError if the files cannot be used.

    `key_log` gets the TLS secrets of its links (SSLKEYLOGFILE's format); only the bench asks for it.
    """
    mode = demanded(mode, credentials)
    party: Party = _stack(mode.stack).client(mode, *_fit_files([mode], credentials), key_log=key_log)
    return party


def look(mode: Mode, credentials: HasFiles | None) -> Look:
    """A party that looks at what a server shows, without judging it; by OpenSSL. ConfigError as for `client`."""
    from streams.security.openssl.look import Look

    return Look(mode, None if credentials is None else _fit_files([mode], credentials)[0])


def server(served: Iterable[Mode], credentials: HasFiles) -> Party:
    """The accepting side, in several modes. ConfigError if the files cannot be used, or the modes share no stack."""
    together = [demanded(mode, credentials) for mode in served]
    party: Party = _stack(common_stack(together)).server(together, *_fit_files(together, credentials))
    return party


def foreign_server(
    served: Iterable[Mode], *, section: str, certificate: Path, key: Path, ca: Path | None, alpn: bytes
) -> Party:
    """The accepting side towards clients that are not ours, in several modes, whatever kind of key they have.

    They get `alpn` if they offer it, and must have a certificate that leads to `ca` if one is given. Each link is to be
    judged by `modes.check_foreign`. ConfigError, under `section`, if the files cannot be used.
    """
    together = [modes.foreign(mode) for mode in served]
    stack = _stack(common_stack(together))
    party: Party = stack.foreign_server(together, section, certificate, key, ca, alpn)
    return party


def _fit_files(used: Iterable[Mode], credentials: HasFiles) -> list[Files]:
    """The files of these modes, each once. ConfigError for post-quantum ones that every peer would refuse.

    For the other modes this is left to `check`: a link in them has to cost as little as it can.
    """
    by_files: dict[Files, list[Mode]] = {}
    for mode in used:
        by_files.setdefault(files_for(mode, credentials), []).append(mode)
    for files, modes_ in by_files.items():
        if isinstance(files, PostQuantumFiles):
            from streams.security import chains

            if problems := list(chains.wrong_kinds(files, modes_)):
                raise ConfigError(problems)
    return list(by_files)


def files_for(mode: Mode, credentials: HasFiles) -> Files:
    """The files that a mode uses. ConfigError if there are none."""
    sections = credentials.sections()
    files = {each.section: each for each in sections}
    if mode.takes_delegated:
        files |= {each.stands_for: each for each in sections if each.stands_for}
    if mode.section not in files:
        raise ConfigError([Problem(Path(mode.name), mode.section, f"is missing; {remedy_for(mode)}")])
    return files[mode.section]


def digest_of_files(mode: Mode, credentials: HasFiles) -> bytes:
    """A hash over what a mode's files hold now; empty if one cannot be read."""
    digest = hashlib.sha256()
    try:
        for path in files_for(mode, credentials).paths():
            data = path.read_bytes()
            digest.update(len(data).to_bytes(8) + data)
    except (OSError, ConfigError):
        return b""
    return digest.digest()


def demanded(mode: Mode, credentials: HasFiles) -> Mode:
    """The mode as this party's configuration wants it: a classical chain, delegated credentials may be allowed.

    OpenSSL does not know the latter. So where one is shown or accepted for a signing key, all modes that could have one
    are served by our own stack: they go on to share ports.
    """
    sections = credentials.sections()
    if mode.takes_delegated and (credentials.accept_delegated or any(map(_delegates_signing, sections))):
        mode = msgspec.structs.replace(mode, stack="tls13")
    for files in sections:
        serves = mode.section in (files.section, files.stands_for)
        if serves and isinstance(files, PostQuantumFiles) and files.allow_classical_chain:
            return msgspec.structs.replace(mode, classical_chain=True)
    return mode


def _delegates_signing(files: Files) -> bool:
    return bool(files.stands_for) and files.stands_for != MlKemFiles.section


def named(names: Iterable[str], credentials: HasFiles) -> list[Mode]:
    """The modes of these names, each once and in their order, as this party's configuration wants them."""
    return [demanded(modes.MODES[name], credentials) for name in dict.fromkeys(names)]


def remedy_for(mode: Mode) -> str:
    """What a mode needs, for a configuration that lacks it."""
    files = SECTIONS[mode.section]
    if files.authority_kind == files.leaf_kind:
        commands = f"`logfwd pki init` and `logfwd pki issue`, both with --key {files.leaf_kind}"
    else:
        commands = f"`logfwd pki init --key {files.authority_kind}` and `logfwd pki issue --key {files.leaf_kind}`"
    return f"mode {mode.name} needs [{mode.section}] with certificate, key and ca; create them with {commands}"


def ssl_context(mode: Mode, files: Files) -> ssl.SSLContext:
    """A client context for libraries that connect to servers of their own (aiokafka): one mode, names always checked.

    It has our certificate for servers that ask for one, and accepts whatever kind of key their CA signed.
    """
    from streams.security.sslcontext import PartyContext

    towards = modes.foreign(mode)
    return PartyContext.of(towards, _stack(mode.stack).foreign(towards, files))


def anonymous_context(mode: Mode, section: str, ca: Path) -> ssl.SSLContext:
    """The same without a certificate of ours. ConfigError, under `section`, if the CA's file cannot be used."""
    from streams.security.openssl import party
    from streams.security.sslcontext import PartyContext

    towards = modes.foreign(mode)
    return PartyContext.of(towards, party.anonymous(towards, section, ca))


def common_stack(served: Iterable[Mode]) -> str:
    """The stack of all these modes. ConfigError if they have several handshakes: one port serves one."""
    groups = by_port(served)
    if len(groups) > 1:
        examples = " and ".join(f"{group[-1].name!r} ({_way(group[-1])})" for group in sorted(groups, key=_ways))
        stacks = "TLS stacks" if len({group[0].stack for group in groups}) > 1 else "handshakes"
        text = f"{examples} need different {stacks}, which cannot share a port; give each its own [[listener]]"
        raise ConfigError([Problem(Path("listener"), "modes", text)])
    return groups[0][0].stack


def by_port(served: Iterable[Mode]) -> list[list[Mode]]:
    """The modes in as few groups as possible, each of which one port can serve."""
    groups: dict[str, list[Mode]] = {}
    for mode in served:
        groups.setdefault(_way(mode), []).append(mode)
    return list(groups.values())


def _way(mode: Mode) -> str:
    return f"{mode.stack} with stored keys" if mode.stored_key else mode.stack


def _ways(group: list[Mode]) -> str:
    return _way(group[0])


def check(credentials: HasFiles, used: Iterable[Mode], *, accepting: bool) -> None:
    """Raise ConfigError for files that no link in these modes could use, with every problem found.

    Chains are verified by OpenSSL and by cryptography, whatever the mode: the two demand different things, and a file
    that only one of them accepts would fail as soon as a stream takes another mode. A KEM's leaf, which OpenSSL has no
    use for, is left to its own stack.
    """
    by_files: dict[Files, list[Mode]] = {}
    problems: list[Problem] = []
    for mode in used:
        try:
            by_files.setdefault(files_for(mode, credentials), []).append(demanded(mode, credentials))
        except ConfigError as error:
            problems += error.problems
    for files, modes_ in by_files.items():
        problems += _problems_of(files, modes_, accepting=accepting)
    if problems:
        raise ConfigError(problems)


def _problems_of(files: Files, used: list[Mode], *, accepting: bool) -> list[Problem]:
    from streams.security import chains

    try:
        check_foreign(files, used)
    except ConfigError as error:
        return error.problems
    if wrong := list(chains.wrong_kinds(files, used)):
        return wrong
    stacks = {mode.stack for mode in used} | (
        {"openssl"} if not isinstance(files, MlKemFiles | DelegatedFiles) else set()
    )
    verifiers = [chains.refusals, *(_stack(name).verify for name in sorted(stacks))]
    found = (list(verify(files, accepting=accepting)) for verify in verifiers)
    return next(filter(None, found), [])


def check_foreign(files: Files, used: Iterable[Mode]) -> None:
    """Raise ConfigError for files that cannot be loaded; servers of somebody else's judge our chain by their rules."""
    for stack in sorted({mode.stack for mode in used}):
        _stack(stack).check(files)


def delegate(
    certificate: Path, key: Path, out: Path, *, kind: str, accepting: bool, hours: float, force: bool
) -> datetime.datetime:
    """Write a key and its delegated credential, for the stack that knows them; returns the credential's end.

    `kind`: one of `pki.DELEGATES`. PkiError says what is wrong.
    """
    from streams.security.tls13 import delegated_files
    from streams.security.tls13.delegated import CLIENT, SERVER

    side, lifetime = SERVER if accepting else CLIENT, datetime.timedelta(hours=hours)
    return delegated_files.delegate(certificate, key, out, kind=kind, side=side, lifetime=lifetime, force=force)


def self_test(used: Iterable[Mode]) -> None:
    """Make a handshake with ourselves in each mode and check its result; ConfigError if a mode does not work here."""
    together = list(used)
    for mode in together:
        if mode.experimental:
            remedy = "use hybrid or pq-auth, over OpenSSL, where protection matters; see docs/kemtls.md"
            log.warning(
                "experimental mode", mode=mode.name, reason="our own TLS, which nobody has audited", remedy=remedy
            )
    with contextlib.ExitStack() as held:
        near, far = _Made(), _Made()
        for section in {mode.section for mode in together}:
            _make(SECTIONS[section], near, far, held)
        for mode in together:
            try:
                _shake_hands(mode, near, far)
            except (HandshakeFailed, LinkError, ValueError) as error:
                text = f"self-test: {error}; reinstall the versions of cryptography and pyOpenSSL pinned in uv.lock"
                raise ConfigError([Problem(Path(mode.name), "mode", text)]) from error


class _Made(list[Files]):
    """The files of one side of a self-test, in which the modes are given as they are to be."""

    accept_delegated = False

    def sections(self) -> list[Files]:
        return self


def _make(kind: type[Files], near: _Made, far: _Made, held: contextlib.ExitStack) -> None:
    """In memory, for as long as `held`: there may be no directory to write to."""
    from cryptography import x509

    from streams.security import pki, stored_keys

    authority = pki.Authority.new(Path(), name="self-test", kind=kind.authority_kind)
    for side, name, hosts in ((near, "near", []), (far, "far", ["localhost"])):
        leaf = authority.leaf(identities=[name], hosts=hosts, days=1, kind=kind.leaf_kind)
        parts = (leaf.certificate, leaf.key, authority.pem())
        side.append(kind(*(held.enter_context(file_in_memory(part)) for part in parts)))
    if isinstance(near[-1], MlKemFiles):
        stored = stored_keys.of(x509.load_pem_x509_certificate(leaf.certificate)).encode()
        path = held.enter_context(file_in_memory(stored.encode()))
        near[-1] = msgspec.structs.replace(near[-1], stored_keys=(path,))


def _shake_hands(mode: Mode, connecting: HasFiles, accepting: HasFiles) -> None:
    near, far = client(mode, connecting).endpoint("localhost"), server([mode], accepting).endpoint()
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
        case "tls13":
            from streams.security.tls13 import party as tls13

            return tls13
    raise AssertionError(f"no TLS stack is called {name!r}")
