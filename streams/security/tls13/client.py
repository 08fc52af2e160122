"""The client's side (RFC 8446 sections 2 and 4).

ClientHello (→ HelloRetryRequest, once → ClientHello) → ServerHello → EncryptedExtensions; then the way to
authenticate takes over (signature.py, kemtls.py).
"""

from __future__ import annotations

from streams.security.tls13 import extensions as ext
from streams.security.tls13.alerts import Abort, Alert, illegal
from streams.security.tls13.groups import KeyPair
from streams.security.tls13.handshake import Handshake, KeyLog
from streams.security.tls13.messages import ClientHello, ServerHello, parse_encrypted_extensions, parse_server_hello
from streams.security.tls13.names import DOWNGRADE_SENTINELS, SSL3, TLS12, TLS13, Extension, HandshakeType
from streams.security.tls13.records import RecordReader, RecordWriter
from streams.security.tls13.settings import Chance, Settings
from streams.security.tls13.suites import SUITES, Suite

_IN_RETRY: frozenset[int] = frozenset({Extension.SUPPORTED_VERSIONS, Extension.KEY_SHARE, Extension.COOKIE})
_NOT_IN_ENCRYPTED_EXTENSIONS = frozenset(
    {
        Extension.STATUS_REQUEST,
        Extension.SIGNATURE_ALGORITHMS,
        Extension.SIGNED_CERTIFICATE_TIMESTAMP,
        Extension.PADDING,
        Extension.PRE_SHARED_KEY,
        Extension.SUPPORTED_VERSIONS,
        Extension.COOKIE,
        Extension.PSK_KEY_EXCHANGE_MODES,
        Extension.POST_HANDSHAKE_AUTH,
        Extension.SIGNATURE_ALGORITHMS_CERT,
        Extension.KEY_SHARE,
    }
)


class Client:
    """One handshake as a client; `host` is verified against the server's certificate, `sni` is sent."""

    in_server_hello: frozenset[int] = frozenset({Extension.SUPPORTED_VERSIONS, Extension.KEY_SHARE})

    def __init__(
        self,
        settings: Settings,
        reader: RecordReader,
        writer: RecordWriter,
        *,
        host: str,
        sni: bytes | None,
        chance: Chance | None = None,
        key_log: KeyLog | None = None,
    ) -> None:
        self.shake = Handshake(reader, writer, key_log=key_log)
        self._settings, self._sni = settings, sni
        self._chance = chance or Chance()
        self._pairs: dict[int, KeyPair] = {}
        self._hello: ClientHello
        self._first = b""
        """The first hello as it was sent."""
        self._retry_suite: int | None = None
        self._half = settings.authentication.client(self.shake, settings, host)

    def start(self) -> None:
        """Send the ClientHello."""
        shake = self.shake
        shake.reader.accept_change_cipher_spec = True
        shake.writer.first_version = b"\x03\x01"  # for middleboxes (section 5.1)
        self._hello = self.first_hello()
        shake.client_random = self._hello.random
        self._first = self._hello.encode()
        shake.writer.write(22, self._first)
        shake.expect({HandshakeType.SERVER_HELLO: self._server_hello})

    # -- hellos ------------------------------------------------------------------------------------------------

    def first_hello(self) -> ClientHello:
        """Everything that this side offers, with a session id for middleboxes (appendix D.4)."""
        settings = self._settings
        self._pairs = {group: self._chance.pair(group) for group in settings.shares or settings.groups[:1]}
        offered: dict[int, bytes] = {}
        if self._sni is not None:
            offered[Extension.SERVER_NAME] = ext.encode_server_name(self._sni)
        offered[Extension.SUPPORTED_GROUPS] = ext.encode_numbers(settings.groups)
        offered |= settings.authentication.offered()
        if settings.alpn is not None:
            offered[Extension.ALPN] = ext.encode_protocols([settings.alpn])
        offered[Extension.SUPPORTED_VERSIONS] = ext.encode_offered_versions([TLS13])
        offered[Extension.KEY_SHARE] = self._shares()
        return ClientHello(
            random=self._chance.bytes(32),
            session_id=self._chance.bytes(32),
            suites=settings.suites,
            extensions=offered,
        )

    def second_hello(self, retry: ServerHello) -> ClientHello:
        """The same hello with what the HelloRetryRequest asked for (section 4.1.2)."""
        changed = dict(self._hello.extensions)
        if Extension.KEY_SHARE in retry.extensions:
            changed[Extension.KEY_SHARE] = self._shares()
        if Extension.COOKIE in retry.extensions:
            changed[Extension.COOKIE] = retry.extensions[Extension.COOKIE]
        return ClientHello(
            random=self._hello.random,
            session_id=self._hello.session_id,
            suites=self._hello.suites,
            extensions=changed,
        )

    def _shares(self) -> bytes:
        return ext.encode_shares((group, pair.share) for group, pair in self._pairs.items())

    def _server_hello(self, body: bytes, raw: bytes) -> None:
        hello = parse_server_hello(body)
        self._check(hello)
        if hello.retry:
            self._retry(hello, raw)
            return
        shake = self.shake
        group, answer = ext.parse_share(ext.required(hello.extensions, Extension.KEY_SHARE))
        pair = self._pairs.get(group)
        if pair is None:
            raise illegal(f"a key share for group {group:#06x}, for which none was sent")
        suite = SUITES[hello.suite]
        shake.agreed.suite, shake.agreed.group = suite, group
        if self._retry_suite is None:
            self._begin_transcript(suite)
        elif self._retry_suite != hello.suite:
            raise illegal("the cipher suite is not that of the hello_retry_request")
        shake.transcript.add(raw)
        self._protect(pair.agree(answer))
        shake.expect({HandshakeType.ENCRYPTED_EXTENSIONS: self._encrypted_extensions})

    def _begin_transcript(self, suite: Suite) -> None:
        """The suite's hash is known."""
        self.shake.begin(suite)
        self.shake.transcript.add(self._first)

    def _check(self, hello: ServerHello) -> None:
        """The rules for a ServerHello and a HelloRetryRequest alike (section 4.1.3)."""
        version = hello.extensions.get(Extension.SUPPORTED_VERSIONS)
        if version is None or hello.version <= SSL3:
            if hello.random.endswith(DOWNGRADE_SENTINELS):
                raise illegal("the server speaks TLS 1.3 and yet chose less: somebody is downgrading")
            raise Abort(Alert.PROTOCOL_VERSION, "the server does not speak TLS 1.3", "protocol_version")
        if ext.parse_number(version, "supported_versions") != TLS13 or hello.version != TLS12:
            raise illegal("the server chose a version that was not offered")
        if hello.session_id != self._hello.session_id:
            raise illegal("the server echoes another session id")
        if hello.suite not in self._hello.suites or hello.suite not in SUITES:
            raise illegal(f"the server chose cipher suite {hello.suite:#06x}, which was not offered")
        if hello.compression:
            raise illegal("the server chose a compression method")
        self._refuse_unasked(hello.extensions, _IN_RETRY if hello.retry else self.in_server_hello)

    def _refuse_unasked(self, answered: dict[int, bytes], allowed: frozenset[int]) -> None:
        """An answer to what was not offered is an unsupported_extension, one out of place illegal (section 4.2)."""
        for kind in answered:
            if kind not in allowed:
                if kind in self._hello.extensions:
                    raise illegal(f"extension {kind} out of place")
                raise Abort(Alert.UNSUPPORTED_EXTENSION, f"extension {kind} answers nothing that was offered")

    def _retry(self, retry: ServerHello, raw: bytes) -> None:
        """Section 4.1.4. A second one, or one that asks for nothing new, is refused."""
        shake = self.shake
        shake.refuse_excess()
        if self._retry_suite is not None:
            raise Abort(Alert.UNEXPECTED_MESSAGE, "a second hello_retry_request")
        share = retry.extensions.get(Extension.KEY_SHARE)
        if share is None and Extension.COOKIE not in retry.extensions:
            raise illegal("a hello_retry_request that asks for nothing")
        if Extension.COOKIE in retry.extensions:
            ext.parse_cookie(retry.extensions[Extension.COOKIE])
        if share is not None:
            group = ext.parse_number(share, "key_share")
            if group not in self._settings.groups or group in self._pairs:
                raise illegal(f"a hello_retry_request for group {group:#06x}")
            self._pairs = {group: self._chance.pair(group)}
        self._retry_suite = retry.suite
        self._begin_transcript(SUITES[retry.suite])
        shake.transcript.replace_first_hello()
        shake.transcript.add(raw)
        self._hello = self.second_hello(retry)
        if self._hello.session_id:
            shake.writer.change_cipher_spec()
        shake.send(self._hello.encode())

    def _protect(self, secret: bytes) -> None:
        """From here on everything but change_cipher_spec is protected, alerts of ours included."""
        shake = self.shake
        self._pairs.clear()
        shake.protect(secret)
        shake.read_with(shake.server_secret)
        if self._hello.session_id and self._retry_suite is None and not shake.writer.protected:
            shake.writer.change_cipher_spec_before_sealed()
        shake.write_with(shake.client_secret)

    def _encrypted_extensions(self, body: bytes, raw: bytes) -> None:
        answered = parse_encrypted_extensions(body)
        allowed = frozenset(self._hello.extensions) - _NOT_IN_ENCRYPTED_EXTENSIONS
        self._refuse_unasked(answered, allowed)
        if Extension.SERVER_NAME in answered:
            ext.check_empty(answered[Extension.SERVER_NAME], "server_name")
        if Extension.SUPPORTED_GROUPS in answered:
            ext.parse_numbers(answered[Extension.SUPPORTED_GROUPS], "supported_groups")
        self._take_alpn(answered.get(Extension.ALPN))
        self.shake.transcript.add(raw)
        self._half.begin()

    def _take_alpn(self, body: bytes | None) -> None:
        """The server must have chosen our protocol: OpenSSL goes on without one if it knows none of them."""
        wanted = self._settings.alpn
        chosen = ext.parse_protocols(body) if body is not None else ()
        if body is not None and (len(chosen) != 1 or chosen[0] != wanted):
            raise illegal("the server chose a protocol that was not offered")
        if wanted is not None and not chosen:
            text = f"the peer does not speak {wanted.decode()}"
            raise Abort(Alert.NO_APPLICATION_PROTOCOL, text, "alpn")
        self.shake.agreed.alpn = chosen[0] if chosen else None
