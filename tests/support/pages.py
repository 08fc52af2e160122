"""Both programs under a steady load, for a browser.

`python -m tests.support.pages DIRECTORY` writes the pictures of docs/live-page.md there, after two minutes of load.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.lab.feeder import Feeder
from bench.lab.kafka import free_ports
from bench.lab.site import Site

PICTURES = {"live-page.png": (1200, False), "live-page-dark.png": (1200, True), "live-page-phone.png": (375, False)}
LOAD_SECONDS = 130.0


@dataclass
class Installed:
    """Where the pages of both programs are."""

    site: Site
    forwarder: str
    receiver: str


@contextlib.contextmanager
def steady_load(directory: Path) -> Iterator[Installed]:
    """An original and its hybrid twin at 3 000 records a second into an embedded log; the receiver keeps its ports."""
    with Site(directory) as site:
        site.make_pki()
        sink, modes = 'type = "log"\ndirectory = "log"', '["hybrid", "classical"]'
        address, receiver = (
            f"{host}:{port}" for host, port in zip(("localhost", "127.0.0.1"), free_ports(2), strict=True)
        )
        site.write_receiver(sink, listeners={address: modes})
        config = site.directory / "logreceiver.toml"
        config.write_text(config.read_text().replace("127.0.0.1:0", receiver))
        site.start_receiver()
        site.write_forwarder([address])
        source = '[batch]\nlinger = "200ms"\n[source]\ntype = "file"\npaths = ["http.log"]\nscan = "50ms"\n'
        site.write_stream("http", f'security = "classical"\n{source}')
        site.write_stream("pq-stream", 'security = "hybrid"\nmirror_of = "http"\n')
        feeder = Feeder(site.directory / "http.log", "http", seed=1)
        feeder.start()
        site.start_forwarder()
        yield Installed(site, site.admin_address, receiver)
        feeder.stop()


def main(directory: Path) -> None:
    """Make the pictures."""
    from tests.support.browser import chromium, visit

    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory())
        installed = stack.enter_context(steady_load(Path(scratch)))
        browser = stack.enter_context(chromium())
        pages = {
            name: stack.enter_context(visit(browser, installed.forwarder, width=width, dark=dark))
            for name, (width, dark) in PICTURES.items()
        }
        time.sleep(LOAD_SECONDS)
        for name, page in pages.items():
            page.screenshot(path=directory / name, full_page=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
