"""The server's side (RFC 8446 sections 2 and 4).

ClientHello (→ HelloRetryRequest, once → ClientHello) → ServerHello, EncryptedExtensions; then the way to
authenticate takes over (signature.py, kemtls.py).
"""

from __future__ import annotations

import msgspec

from streams.security.tls13 import extensions as ext
from streams.security.tls13.alerts import Abort, Alert, illegal
from streams.security.tls13.groups import GROUPS, HYBRID
from streams.security.tls13.handshake import Handshake, KeyLog
from streams.security.tls13.messages import ClientHello, ServerHello, encode_encrypted_extensions, parse_client_hello
from streams.security.tls13.names import RETRY_RANDOM, SSL3, TLS13, Extension, HandshakeType
from streams.security.tls13.records import RecordReader, RecordWriter
from streams.security.tls13.settings import Chance, Settings, pick
from streams.security.tls13.suites import SUITES, Suite

_MAY_CHANGE = frozenset({Extension.KEY_SHARE, Extension.EARLY_DATA, Extension.PRE_SHARED_KEY, Extension.PADDING})
"""The extensions that a second ClientHello may change (section 4.1.2); no cookie, since none was sent."""


class Choice(msgspec.Struct, frozen=True):
    """The server's selection from a client's offer. Without a share, the client is asked for one."""

    suite: Suite
    group: int
    share: bytes | None
    alpn: bytes | None


def choose(hello: ClientHello, settings: Settings) -> Choice:
    """Judge an offer (sections 4.1.2, 4.2 and 9.2); raises Abort if there is no common ground."""
    offered = hello.extensions
    _check_version(hello)
    groups = ext.parse_numbers(ext.required(offered, Extension.SUPPORTED_GROUPS), "supported_groups")
    shares = ext.parse_shares(ext.required(offered, Extension.KEY_SHARE))
    if not shares.keys() <= set(groups):
        raise illegal("a key share for a group that is not among the supported ones")
    if Extension.SERVER_NAME in offered:
        ext.check_server_name(offered[Extension.SERVER_NAME])
    if Extension.PRE_SHARED_KEY in offered:
        _check_place_of_psk(offered)
    suite = pick(settings.suites, hello.suites)
    if suite is None:
        raise Abort(Alert.HANDSHAKE_FAILURE, "no cipher suite in common with the client", "no_shared_group")
    group = _choose_group(settings.groups, groups, shares)
    return Choice(SUITES[suite], group, shares.get(group), _choose_alpn(settings, offered))


def _check_version(hello: ClientHello) -> None:
    versions = hello.extensions.get(Extension.SUPPORTED_VERSIONS)
    if hello.version <= SSL3 or versions is None or TLS13 not in ext.parse_offered_versions(versions):
        raise Abort(Alert.PROTOCOL_VERSION, "the client does not speak TLS 1.3", "protocol_version")
    if hello.compression != b"\0":
        raise illegal("the client offers compression")


def _check_place_of_psk(offered: dict[int, bytes]) -> None:
    """Section 4.2.11: pre_shared_key comes last. This stack takes none."""
    if next(reversed(offered)) != Extension.PRE_SHARED_KEY:
        raise illegal("pre_shared_key is not the last extension")
    ext.required(offered, Extension.PSK_KEY_EXCHANGE_MODES)


def _choose_group(ours: tuple[int, ...], theirs: tuple[int, ...], shares: dict[int, bytes]) -> int:
    """A hybrid group before a classical one, even if the client must be asked again; then one with a share."""
    common = [group for group in ours if group in theirs]
    if not common:
        raise Abort(Alert.HANDSHAKE_FAILURE, "no key-exchange group in common with the client", "no_shared_group")
    best = [group for group in common if group in HYBRID] or common
    return pick(best, tuple(shares)) or best[0]


def _choose_alpn(settings: Settings, offered: dict[int, bytes]) -> bytes | None:
    body, ours = offered.get(Extension.ALPN), settings.alpn
    names = ext.parse_protocols(body) if body is not None else ()
    if ours is not None and ours not in names:
        if not settings.alpn_required:
            return None
        raise Abort(Alert.NO_APPLICATION_PROTOCOL, f"the peer does not speak {ours.decode()}", "alpn")
    return ours


class Server:
    """One handshake as a server."""

    def __init__(
        self,
        settings: Settings,
        reader: RecordReader,
        writer: RecordWriter,
        *,
        chance: Chance | None = None,
        key_log: KeyLog | None = None,
    ) -> None:
        self.shake = Handshake(reader, writer, key_log=key_log)
        self._settings = settings
        self._chance = chance or Chance()
        self._first: ClientHello | None = None
        self._first_choice: Choice
        self._half = settings.authentication.server(self.shake, settings)

    def start(self) -> None:
        """Wait for the ClientHello."""
        self.shake.expect({HandshakeType.CLIENT_HELLO: self._client_hello})

    # -- hellos ------------------------------------------------------------------------------------------------

    def _client_hello(self, body: bytes, raw: bytes) -> None:
        shake, hello = self.shake, parse_client_hello(body)
        shake.reader.accept_change_cipher_spec = True
        shake.client_random = hello.random
        choice = choose(hello, self._settings)
        self._half.judge(hello.extensions)
        if self._first is None:
            shake.begin(choice.suite)
        else:
            self._check_second(self._first, hello, choice)
        self._take(hello, raw, choice)
        if choice.share is None:
            self._retry(hello, choice)
        else:
            self._answer(hello, choice, choice.share)

    def _take(self, hello: ClientHello, raw: bytes, choice: Choice) -> None:
        agreed = self.shake.agreed
        self.shake.transcript.add(raw)
        agreed.suite, agreed.group, agreed.alpn = choice.suite, choice.group, choice.alpn

    def _check_second(self, first: ClientHello, second: ClientHello, choice: Choice) -> None:
        """Only what was asked for may differ (section 4.1.2)."""
        same = (
            (first.version, first.random, first.session_id, first.suites)
            == (second.version, second.random, second.session_id, second.suites)
        ) and _fixed(first) == _fixed(second)
        shares = ext.parse_shares(second.extensions[Extension.KEY_SHARE])
        if not same or list(shares) != [self._first_choice.group] or choice.suite != self._first_choice.suite:
            raise illegal("the second client_hello differs from the first in what it may not")

    def _retry(self, hello: ClientHello, choice: Choice) -> None:
        """Ask for a share of the better group (section 4.1.4)."""
        shake = self.shake
        shake.refuse_excess()
        self._first, self._first_choice = hello, choice
        shake.transcript.replace_first_hello()
        answered: dict[int, bytes] = {
            Extension.SUPPORTED_VERSIONS: TLS13.to_bytes(2),
            Extension.KEY_SHARE: choice.group.to_bytes(2),
        }
        retry = ServerHello(
            random=RETRY_RANDOM, session_id=hello.session_id, suite=choice.suite.code, extensions=answered
        )
        shake.send(retry.encode())
        shake.flush()
        if hello.session_id:
            shake.writer.change_cipher_spec()

    # -- our flight --------------------------------------------------------------------------------------------

    def _answer(self, hello: ClientHello, choice: Choice, share: bytes) -> None:
        shake = self.shake
        ours, secret = GROUPS[choice.group].respond(share)
        server_hello = ServerHello(
            random=self._chance.bytes(32),
            session_id=hello.session_id,
            suite=choice.suite.code,
            extensions=self._hello_extensions(choice, ours),
        )
        shake.send(server_hello.encode())
        shake.flush()
        if hello.session_id and self._first is None:
            shake.writer.change_cipher_spec()
        shake.protect(secret)
        shake.write_with(shake.server_secret)
        shake.read_with(shake.client_secret, keep_previous=True)
        shake.send(encode_encrypted_extensions(_encrypted_extensions(choice)))
        self._half.begin()

    def _hello_extensions(self, choice: Choice, share: bytes) -> dict[int, bytes]:
        return {
            Extension.SUPPORTED_VERSIONS: TLS13.to_bytes(2),
            Extension.KEY_SHARE: ext.encode_share(choice.group, share),
        }


def _encrypted_extensions(choice: Choice) -> dict[int, bytes]:
    return {} if choice.alpn is None else {Extension.ALPN: ext.encode_protocols([choice.alpn])}


def _fixed(hello: ClientHello) -> list[tuple[int, bytes]]:
    """The extensions that a second hello must repeat, in the same order."""
    return [(kind, body) for kind, body in hello.extensions.items() if kind not in _MAY_CHANGE]
