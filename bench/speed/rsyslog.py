"""rsyslog at both ends: file → omrelp with TLS → imrelp → omkafka with acks=all, idempotence and zstd.

Its Debian packages are unpacked into a directory; nothing is installed.
"""

from __future__ import annotations

import os
from pathlib import Path

from bench.lab.kafka import free_ports
from bench.lab.site import Program
from bench.speed.peer import Peer

PACKAGES = (
    *("rsyslog", "rsyslog-relp", "rsyslog-kafka", "rsyslog-openssl"),
    *("librelp0", "libestr0", "libfastjson4", "liblognorm5", "librdkafka1"),
)
_TLS = (
    'tls="on" tls.caCert="{pki}/ca.pem" tls.myCert="{pki}/{name}.pem" tls.myPrivKey="{pki}/{name}.key" '
    'tls.authMode="certvalid"'
)
_SENDER = """\
global(workDirectory="{work}" maxMessageSize="64k")
main_queue(queue.type="LinkedList" queue.size="100000" queue.dequeueBatchSize="1024" queue.workerThreads="1")
module(load="imfile")
module(load="omrelp" tls.tlslib="openssl")
template(name="raw" type="string" string="<13>1 - - x - - - %msg%")
input(type="imfile" File="{input}" Tag="x")
action(type="omrelp" target="localhost" port="{port}" template="raw" windowSize="1024" {tls})
"""
_RECEIVER = """\
global(workDirectory="{work}" maxMessageSize="64k")
main_queue(queue.type="LinkedList" queue.size="100000" queue.dequeueBatchSize="1024" queue.workerThreads="1")
module(load="imrelp" tls.tlslib="openssl")
module(load="omkafka")
template(name="record" type="string" string="%msg%")
input(type="imrelp" port="{port}" maxDataSize="64k" {tls})
action(type="omkafka" broker=["{broker}"] topic="{topic}" template="record" resubmitOnFailure="on"
  confParam=["acks=all", "enable.idempotence=true", "compression.codec=zstd", "linger.ms=200", "batch.size=1000000"])
"""


class Rsyslog(Peer):
    """Both ends as programs, unpacked in `root`."""

    promise = (
        "rsyslog: queues in memory (lost in a crash), TLS with OpenSSL's defaults, at least once between the relays."
    )

    def __init__(self, root: Path, directory: Path, *, pki: Path, broker: str, topic: str) -> None:
        super().__init__(directory)
        (port,) = free_ports(1)
        names = {"input": self.input, "broker": broker, "topic": topic, "port": port}
        self.receiver = self._program(root, directory / "receiver", _RECEIVER, pki, **names)
        self.sender = self._program(root, directory / "forwarder", _SENDER, pki, **names)

    @staticmethod
    def _program(root: Path, work: Path, text: str, pki: Path, **names: object) -> Program:
        work.mkdir()
        config = work / "rsyslog.conf"
        tls = _TLS.format(pki=pki, name=work.name)
        config.write_text(text.format(work=work, tls=tls, **names))
        modules = next(root.glob("usr/lib/*/rsyslog"))
        argv = [str(root / "usr/sbin/rsyslogd"), "-n", "-f", str(config), "-i", str(work / "pid"), "-M", str(modules)]
        libraries = os.pathsep.join([str(modules.parent), os.environ.get("LD_LIBRARY_PATH", "")]).rstrip(os.pathsep)
        return Program(argv, work / "log", {"LD_LIBRARY_PATH": libraries})
