"""Syslog clients: one of our own for the contract of sources, and programs that others wrote.

Debian's packages are unpacked into a directory; nothing is installed.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from logfwd.sources.front import Front
from logfwd.sources.syslog.counts import Counters
from logfwd.sources.syslog.server import SyslogServer
from logfwd.sources.syslog.settings import Served, SyslogSource
from streams.addresses import split_address
from streams.security.endpoint import Credentials


class Counted:
    """What a server has counted, by reason."""

    def __init__(self) -> None:
        self.dropped: dict[str, int] = {}
        self.ended: dict[str, int] = {}

    @property
    def counters(self) -> Counters:
        return Counters(self._drop, self._end)

    def _drop(self, _: str, reason: str, messages: int) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + messages

    def _end(self, _: str, reason: str) -> None:
        self.ended[reason] = self.ended.get(reason, 0) + 1


class SyslogClient:
    """Sends lines, as messages with octet counting, to a listener of stream "s" on a front without a forwarder."""

    def __init__(self, front: Front) -> None:
        self._server = SyslogServer(front, Counted().counters)
        self._writer: asyncio.StreamWriter | None = None

    async def send(self, lines: bytes) -> None:
        if self._writer is None:
            await self._server.serve([Served("s", SyslogSource(tcp=("127.0.0.1:0",)))])
            host, port = split_address(self._server.address("s", "tcp"))
            _, self._writer = await asyncio.open_connection(host, port)
        messages = [line for line in lines.split(b"\n") if line]
        self._writer.write(b"".join(b"%d %b" % (len(message), message) for message in messages))
        await self._writer.drain()

    async def close(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()
        await self._server.stop()


async def logger(*arguments: str, stdin: bytes = b"") -> None:
    """logger(1) of util-linux."""
    process = await asyncio.create_subprocess_exec("logger", *arguments, stdin=asyncio.subprocess.PIPE)
    await process.communicate(stdin)
    assert process.returncode == 0


def counted(messages: Sequence[bytes]) -> bytes:
    """Messages with octet counting."""
    return b"".join(b"%d %b" % (len(message), message) for message in messages)


RSYSLOG = ("rsyslog", "rsyslog-openssl", "libestr0", "libfastjson4", "liblognorm5")
SYSLOG_NG = (
    *("syslog-ng-core", "libivykis0", "libnet1", "libpcre3", "libjson-c5", "libwrap0", "libglib2.0-0", "libcap2"),
)
NGINX = ("nginx", "nginx-common")

_RSYSLOG = """\
global(workDirectory="{work}" maxMessageSize="64k" {tls_files})
main_queue(queue.type="LinkedList" queue.size="200000")
module(load="imfile")
input(type="imfile" File="{input}" Tag="app:")
action(type="omfwd" target="{host}" port="{port}" protocol="tcp" template="{template}" {options}
       action.resumeRetryCount="-1" action.resumeInterval="1" queue.type="LinkedList" queue.size="200000")
"""
_TLS_FILES = (
    'defaultNetstreamDriver="ossl" defaultNetstreamDriverCAFile="{ca}" defaultNetstreamDriverCertFile="{certificate}" '
    'defaultNetstreamDriverKeyFile="{key}"'
)
_OVER_TLS = (
    'streamDriver="ossl" streamDriverMode="1" streamDriverAuthMode="x509/name" streamDriverPermittedPeers="localhost"'
)
_SYSLOG_NG = """\
@version: 3.38
options {{ keep-hostname(yes); stats-freq(0); time-reopen(1); }};
source s_file {{ file("{input}" follow-freq(0.1) flags(no-parse)); }};
destination d_logfwd {{ {driver} }};
log {{ source(s_file); destination(d_logfwd); flags(flow-control); }};
"""
_NGINX = """\
daemon off; master_process off; user root; pid {work}/pid; error_log stderr;
events {{}}
http {{
  client_body_temp_path {work}/b; proxy_temp_path {work}/p; fastcgi_temp_path {work}/f; uwsgi_temp_path {work}/u;
  scgi_temp_path {work}/s;
  access_log syslog:server={server},tag=nginx,severity=info combined;
  server {{ listen 127.0.0.1:{port}; location / {{ return 204; }} }}
}}
"""


class Sender:
    """A program that runs until it is stopped, and its log."""

    def __init__(self, argv: Sequence[str], work: Path, root: Path) -> None:
        libraries = [str(path.parent) for pattern in ("*.so", "*.so.*") for path in root.rglob(pattern)]
        environment = {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(dict.fromkeys(libraries))}
        self.log = work / "log"
        with self.log.open("wb") as out:
            self._process = subprocess.Popen(argv, cwd=work, env=environment, stdout=out, stderr=out)

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def sending(sender: Sender) -> Iterator[Sender]:
    """A program that is stopped at the end of the block."""
    try:
        yield sender
    finally:
        sender.stop()


def rsyslog(
    root: Path, work: Path, source: Path, address: str, *, files: Credentials | None = None, counted: bool = True
) -> Sender:
    """rsyslog, which sends the lines of a file over TCP or TLS: RFC 5424 with octet counting, or RFC 3164 by lines."""
    work.mkdir()
    host, port = split_address(address)
    options = 'tcp_framing="octet-counted"' if counted else ""
    names = {
        "work": work,
        "input": source,
        "host": host,
        "port": port,
        "template": "RSYSLOG_SyslogProtocol23Format" if counted else "RSYSLOG_TraditionalForwardFormat",
        "options": options if files is None else f"{options} {_OVER_TLS}",
        "tls_files": ""
        if files is None
        else _TLS_FILES.format(ca=files.ca, certificate=files.certificate, key=files.key),
    }
    (work / "conf").write_text(_RSYSLOG.format(**names))
    modules = next(root.glob("usr/lib/*/rsyslog"))
    argv = ["-n", "-f", str(work / "conf"), "-i", str(work / "pid"), "-M", str(modules)]
    return Sender([str(root / "usr/sbin/rsyslogd"), *argv], work, root)


def syslog_ng(root: Path, work: Path, source: Path, driver: str) -> Sender:
    """syslog-ng, which sends the lines of a file by the driver given."""
    work.mkdir()
    (work / "conf").write_text(_SYSLOG_NG.format(input=source, driver=driver))
    modules = next(root.glob("usr/lib/syslog-ng/*/"))
    argv = ["-F", "--no-caps", "-f", "conf", "-R", "persist", "-p", "pid", "-c", "ctl", f"--module-path={modules}"]
    return Sender([str(root / "usr/sbin/syslog-ng"), *argv], work, root)


def syslog_ng_driver(address: str, files: Credentials | None = None) -> str:
    """RFC 5424 with octet counting, over TCP or TLS."""
    host, port = split_address(address)
    if files is None:
        return f'syslog("{host}" transport("tcp") port({port}));'
    names = f'ca-file("{files.ca}") cert-file("{files.certificate}") key-file("{files.key}")'
    return f'syslog("{host}" transport("tls") port({port}) tls({names} peer-verify(required-trusted)));'


def nginx(root: Path, work: Path, server: str, port: int) -> Sender:
    """nginx, whose access log goes to a syslog server."""
    work.mkdir()
    (work / "conf").write_text(_NGINX.format(work=work, server=server, port=port))
    return Sender([str(root / "usr/sbin/nginx"), "-p", str(work), "-c", str(work / "conf")], work, root)


def answers(port: int) -> bool:
    """Whether a server listens there."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


def get(port: int, path: str) -> int:
    """The status of one request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()
