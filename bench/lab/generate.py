"""`logbench generate`: realistic HTTP request records, the same for the same seed, each one different.

A record has 577 bytes on average and zstd level 1 compresses it to about an eighth, like the request logs that the
design was measured with; shorter ones (331 and 100 bytes) leave fields out, longer ones (4096) add headers. The number
`n` rises by one from 0, so missing and duplicate records can be counted. Clients and requests come from tables built
once: a record costs one formatting operation, so the generator is faster than the pipeline that it feeds.
"""

from __future__ import annotations

import ipaddress
import random
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import click

START = datetime(2026, 1, 1, tzinfo=UTC)
BLOCK_RECORDS = 1000
CLIENTS = REQUESTS = 1024  # ten bits choose one

AGENTS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Safari/605.1.15",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
    "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
    "Mozilla/5.0 (Linux; Android 15; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0 Mobile",
    "curl/8.17.0",
)
HOSTS = ("www.example.com", "api.example.com", "static.example.net", "shop.example.org")
SITES = ("", "https://www.example.com/", "https://search.example.org/results", "https://shop.example.org/basket")
COLOS = ("AMS", "CDG", "FRA", "GRU", "IAD", "JNB", "LHR", "NRT", "SIN", "SYD")
COUNTRIES = ("NL", "FR", "DE", "BR", "US", "ZA", "GB", "JP", "SG", "AU")
PLACES = ("products", "articles", "users", "images", "assets", "search", "v2/orders", "v2/events")
KINDS = ("html", "json", "js", "png")
QUERIES = ("", "page=2", "q=lamp&sort=price", "utm_source=newsletter&utm_medium=email", "lang=en")
METHODS, METHOD_WEIGHTS = ("GET", "POST", "HEAD", "PUT"), (88, 8, 3, 1)
STATUSES, STATUS_WEIGHTS = (200, 304, 404, 301, 500, 503), (80, 9, 5, 4, 1, 1)
CACHE = (b"hit", b"hit", b"miss", b"dynamic")
TLS = (
    '"tls_version":"TLSv1.3","tls_cipher":"TLS_AES_128_GCM_SHA256","tls_group":"X25519MLKEM768"',
    '"tls_version":"TLSv1.3","tls_cipher":"TLS_AES_128_GCM_SHA256","tls_group":"X25519"',
    '"tls_version":"TLSv1.2","tls_cipher":"ECDHE-ECDSA-AES128-GCM-SHA256","tls_group":"secp256r1"',
)
TLS_WEIGHTS = (52, 44, 4)
RECORD = (
    b'{"n":%d,"timestamp":"%b.%06dZ",%b,"client_port":%d,"request_id":"%024x",%b,"bytes":%d,"duration_ms":%d.%d,'
    b'"cache_status":"%b"}'
)
SMALL_RECORD = b'{"n":%d,"timestamp":"%b.%06dZ","client_port":%d,"bytes":%d,"duration_ms":%d.%d}'
RECORD_BYTES = (100, 331, 577, 4096)
HEADERS = ("accept", "accept-encoding", "cookie", "forwarded", "if-none-match", "priority", "sec-ch-ua", "traceparent")
HEADERS_EACH = 24
HEADER_PARTS = (
    "text/html,application/xhtml+xml;q=0.9",
    "gzip, deflate, br, zstd",
    "max-age=0",
    "session",
    "same-origin",
)


def generate_http(records: int, seed: int, *, record_bytes: int = 577) -> Iterator[bytes]:
    """Records of about `record_bytes`, without a newline. The first ones are the same for every count."""
    for block in _blocks(records, seed, record_bytes):
        yield from block


def _blocks(records: int, seed: int, record_bytes: int) -> Iterator[list[bytes]]:
    choose = random.Random(seed)
    clients, requests = _clients(choose), _requests(choose)
    if record_bytes == 331:
        clients = [row.partition(b',"user_agent"')[0] for row in clients]
        requests = [row.partition(b',"query"')[0] + row[row.rindex(b",") :] for row in requests]
    headers = _headers(choose) if record_bytes == 4096 else []
    now = int(START.timestamp()) * 1_000_000
    for first in range(0, records, BLOCK_RECORDS):
        numbers = range(first, min(first + BLOCK_RECORDS, records))
        now, block = _block(choose, clients, requests, numbers, now, small=record_bytes == 100)
        yield [b'%b,"headers":{%b}}' % (record[:-1], choose.choice(headers)) for record in block] if headers else block


def _block(
    choose: random.Random, clients: list[bytes], requests: list[bytes], numbers: range, now: int, *, small: bool
) -> tuple[int, list[bytes]]:
    """The time in microseconds after these records, and the records."""
    block, second, day = [], -1, b""
    for n in numbers:
        noise = choose.getrandbits(192)
        now += noise & 0x3FF
        if now // 1_000_000 != second:
            second = now // 1_000_000
            day = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()
        if small:
            duration_ms = noise >> 47 & 0x3F, noise >> 53 & 0x7
            block.append(
                SMALL_RECORD
                % (n, day, now % 1_000_000, 1024 + (noise >> 58 & 0x7FFF), noise >> 30 & 0xFFF, *duration_ms)
            )
            continue
        block.append(
            RECORD
            % (
                n,
                day,
                now % 1_000_000,
                clients[noise >> 10 & 0x3FF],
                1024 + (noise >> 58 & 0x7FFF),
                noise >> 96,
                requests[noise >> 20 & 0x3FF],
                (noise >> 30 & 0x3FFF) * (noise >> 44 & 0x7),
                noise >> 47 & 0x3F,
                noise >> 53 & 0x7,
                CACHE[noise >> 56 & 0x3],
            )
        )
    return now, block


def _clients(choose: random.Random) -> list[bytes]:
    """The clients. Addresses are from the ranges reserved for benchmarks and documentation (RFC 2544, RFC 3849)."""
    rows = []
    for _ in range(CLIENTS):
        v4 = ipaddress.IPv4Address(0xC6120000 + choose.getrandbits(17))
        v6 = ipaddress.IPv6Address((0x20010DB8 << 96) + choose.getrandbits(64))
        place = choose.randrange(len(COLOS))
        rows.append(
            f'"client_ip":"{v6 if choose.random() < 0.3 else v4}","country":"{COUNTRIES[place]}",'
            f'"asn":{choose.randrange(64496, 64512)},"edge_colo":"{COLOS[place]}",'
            f'"user_agent":"{choose.choice(AGENTS)}",{choose.choices(TLS, TLS_WEIGHTS)[0]}'.encode()
        )
    return rows


def _requests(choose: random.Random) -> list[bytes]:
    """The requests, and the status of their answers."""
    return [
        (
            f'"method":"{choose.choices(METHODS, METHOD_WEIGHTS)[0]}","host":"{choose.choice(HOSTS)}",'
            f'"path":"/{choose.choice(PLACES)}/{choose.randrange(100_000)}.{choose.choice(KINDS)}",'
            f'"query":"{choose.choice(QUERIES)}","referer":"{choose.choice(SITES)}",'
            f'"status":{choose.choices(STATUSES, STATUS_WEIGHTS)[0]}'
        ).encode()
        for _ in range(REQUESTS)
    ]


def _headers(choose: random.Random) -> list[bytes]:
    """Request headers, about 3500 bytes per record, as compressible as the rest of it."""
    return [
        ",".join(
            f'"{choose.choice(HEADERS)}-{number}":"{choose.choice(HEADER_PARTS)}; {choose.choice(AGENTS)}; '
            f'id={choose.getrandbits(80):020x}"'
            for number in range(HEADERS_EACH)
        ).encode()
        for _ in range(REQUESTS)
    ]


def write_http(out: BinaryIO, records: int, seed: int, *, rate: float | None = None, record_bytes: int = 577) -> None:
    """Write the records, one per line, at most `rate` per second."""
    started = time.monotonic()
    lines = generate_http(records, seed, record_bytes=record_bytes)
    written = 0
    step = BLOCK_RECORDS if rate is None else max(min(int(rate / 20), BLOCK_RECORDS), 1)
    while some := list(islice(lines, step)):
        out.write(b"\n".join(some) + b"\n")
        written += len(some)
        if rate is not None:
            out.flush()
            time.sleep(max(started + written / rate - time.monotonic(), 0))
    out.flush()


@click.group()
def generate() -> None:
    """Generate records to feed the pipeline."""


@generate.command()
@click.option(
    "--records", type=click.IntRange(min=1), default=100_000, show_default=True, help="Number of records to write."
)
@click.option("--seed", default=1, show_default=True, help="The same seed gives the same records.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="File to write instead of stdout.")
@click.option(
    "--record-bytes",
    type=click.Choice([str(size) for size in RECORD_BYTES]),
    default="577",
    show_default=True,
    help="Approximate record size in bytes; compressibility matches real logs.",
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    help="Write at most this many records per second, a steady load.  [default: as fast as possible]",
)
def http(records: int, seed: int, out: Path | None, record_bytes: str, rate: float | None) -> None:
    """Write HTTP request records, one JSON object per line.

    Every record is different; `n` counts them from 0, so that missing and duplicate records can be found later.
    """
    if out is None:
        try:
            write_http(sys.stdout.buffer, records, seed, rate=rate, record_bytes=int(record_bytes))
        except BrokenPipeError:
            sys.stderr.close()
        return
    with out.open("wb") as file:
        write_http(file, records, seed, rate=rate, record_bytes=int(record_bytes))
