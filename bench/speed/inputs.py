"""The inputs that `logbench sources` compares: the table of a stream for each, and who sends to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.lab import forms
from bench.lab.clients import Copies, Posts, Sender, Syslog
from bench.lab.load import JSON_LINES, Base, Form
from bench.lab.rig import Forwarder

LARGE_BODY_CONNECTIONS = 8
ONE_RECORD_CONNECTIONS = 16


@dataclass(frozen=True)
class Input:
    """One way in. `more`: TOML of its stream, after the type of its source, `{directory}` being the installation's."""

    stream: str
    title: str
    kind: Literal["file", "http", "syslog"]
    more: str = ""
    form: Form = JSON_LINES
    share: int = 1
    """It is given 1/share of the records, because it is slower."""
    most: float | None = None
    """The goal: at most this many times the CPU of a file of JSON."""
    loses: bool = False
    """What the forwarder has no room for is lost."""

    def toml(self, directory: Path) -> str:
        """The stream's tables, in an installation in this directory."""
        paths = f'paths = ["in/{self.stream}/*.log*"]\n' if self.kind == "file" else ""
        return f'[source]\ntype = "{self.kind}"\n{paths}{self.more.format(directory=directory)}'


_ADDRESS = 'address = "127.0.0.1:0"\n'
_ADD = '[add]\nhost = "web-1.example.net"\ncluster = "test"\n'
_HEADERS = '[headers]\nhost = "web-1.example.net"\ncluster = "test"\n'

INPUTS = (
    Input("json", "file, json", "file"),
    Input("add", "file, json, [add]", "file", _ADD, most=1.10),
    Input("headers", "file, json, [headers]", "file", _HEADERS, most=1.02),
    Input("path", "file, json, path_field", "file", 'path_field = "file"\n'),
    Input("raw", "file, raw", "file", 'format = "raw"\n'),
    Input("text", "file, text", "file", 'format = "text"\n', forms.TEXT),
    Input("cri", "file, cri: JSON", "file", 'format = "cri"\n', forms.CRI),
    Input("cri-text", "file, cri: text", "file", 'format = "cri"\n', forms.CRI_TEXT),
    Input("docker", "file, docker: JSON", "file", 'format = "docker"\n', forms.DOCKER),
    Input("docker-text", "file, docker: text", "file", 'format = "docker"\n', forms.DOCKER_TEXT),
    Input("http", "http, large bodies", "http", _ADDRESS, most=1.50),
    Input("http-key", "http, large bodies, keys", "http", _ADDRESS, most=1.50),
    Input("http-gzip", "http, large bodies, gzip", "http", _ADDRESS),
    Input("http-one", "http, one record each", "http", _ADDRESS, share=50),
    Input("tcp", "syslog, tcp", "syslog", 'tcp = ["127.0.0.1:0"]\n', forms.SYSLOG, share=5),
    Input("udp", "syslog, udp", "syslog", 'udp = ["127.0.0.1:0"]\n', forms.SYSLOG, share=5, loses=True),
    Input("unix", "syslog, unix", "syslog", 'unix = ["{directory}/log"]\n', forms.SYSLOG, share=5, loses=True),
)
PLAIN = INPUTS[0]


def inputs_of(chosen: Sequence[str]) -> list[Input]:
    """Those with these names, or all; the one that the others are compared with comes first."""
    return [each for each in INPUTS if each is PLAIN or not chosen or each.stream in chosen]


class Supply:
    """The records in every form that is needed, made once."""

    def __init__(self, directory: Path, base: Base, body_bytes: int) -> None:
        self._directory, self._base, self._body_bytes = directory, base, body_bytes
        self._files: dict[tuple[Form, int], Base] = {}

    def file(self, wanted: Input) -> Base:
        """A file with the records of one run of this input."""
        key = wanted.form, wanted.share
        if key not in self._files:
            some = self._base.first(max(self._base.records // wanted.share, 1))
            path = self._directory / f"{wanted.stream}.log"
            self._files[key] = some if wanted.form == JSON_LINES else some.written(path, wanted.form)
        return self._files[key]

    def sender(self, wanted: Input, forwarder: Forwarder) -> Sender:
        """Who sends this input's records to a running forwarder."""
        file = self.file(wanted)
        if wanted.kind == "file":
            return Copies(file, forwarder.input(wanted.stream))
        listening = forwarder.program.wait_for(f"{wanted.kind} listening")
        found = next(event for event in listening if event.get("stream", wanted.stream) == wanted.stream)
        if wanted.kind == "syslog":
            return Syslog(found["transport"], found["address"], file)
        is_large = wanted.stream != "http-one"
        return Posts(
            found["address"],
            wanted.stream,
            file,
            least_bytes=self._body_bytes if is_large else 0,
            connections=LARGE_BODY_CONNECTIONS if is_large else ONE_RECORD_CONNECTIONS,
            keyed=wanted.stream == "http-key",
            gzipped=wanted.stream == "http-gzip",
        )
