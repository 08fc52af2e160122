"""kill -9 of both programs with streams in post-quantum modes, certificates renewed meanwhile: once, and in order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.lab.generate import generate_http
from bench.lab.processes import wait_until
from bench.lab.site import Site
from logreceiver.sinks.log.sink import read_records

PARTS, PART = 5, 2_000
MODES = ("pq-auth", "kemtls", "kemtls-pdk")
STREAMS = {f"http-{mode}" if number else "http": mode for number, mode in enumerate(MODES)}
SINK = 'type = "log"\ndirectory = "log"'


def renew(site: Site) -> None:
    """New leaves for both programs, and the receiver's new key where the forwarder has stored the old one."""
    for name in ("receiver", "forwarder"):
        site.leaves.issue(name)


def test_kill_9_and_renewed_certificates_lose_and_repeat_nothing(tmp_path: Path) -> None:
    records = [bytes(line) for line in generate_http(PARTS * PART, seed=3)]
    with Site(tmp_path) as site:
        site.make_pki()
        site.write_receiver(SINK, listeners=[("localhost:0", f'["{mode}"]') for mode in MODES])
        addresses = site.start_receiver(listeners=len(MODES))
        fixed = [(address, f'["{mode}"]') for address, mode in zip(addresses, MODES, strict=True)]
        site.write_receiver(SINK, listeners=fixed)  # the same ports after a restart
        site.write_forwarder(addresses[:1])
        log = tmp_path / "http.log"
        log.touch()
        for (name, mode), address in zip(STREAMS.items(), addresses, strict=True):
            rest = '[source]\ntype = "file"\npaths = ["http.log"]\n' if name == "http" else 'mirror_of = "http"\n'
            site.write_stream(name, f'security = "{mode}"\nreceivers = ["{address}"]\n{rest}')
        site.start_forwarder()

        def kill_receiver() -> None:
            site.receiver.kill()
            site.start_receiver(listeners=len(MODES))

        def kill_forwarder() -> None:
            site.forwarder.kill()
            site.start_forwarder()

        strikes: list[Callable[[], None]] = [kill_receiver, lambda: renew(site), kill_forwarder, kill_receiver]
        for number in range(PARTS):
            with log.open("ab") as out:
                out.write(b"".join(line + b"\n" for line in records[number * PART : (number + 1) * PART]))
            assert wait_until(lambda: stored(tmp_path) > number * PART, 60, every_seconds=0.02), site.forwarder.tail()  # noqa: B023
            if number < len(strikes):
                strikes[number]()
        assert site.wait_until_drained(list(STREAMS), seconds=90), site.streams()
        rows = site.streams()
        site.stop()
    assert {name: row["resets"] for name, row in rows.items()} == dict.fromkeys(STREAMS, 0)
    for name in STREAMS:
        assert [record.value for record in read_records(tmp_path / "log", name)] == records, name


def stored(directory: Path) -> int:
    """Records of the stream in mode kemtls that the receiver has stored."""
    try:
        return sum(1 for _ in read_records(directory / "log", "http-kemtls"))
    except FileNotFoundError:
        return 0
