"""New links as a forwarder makes them, one by one and in turns, to time their handshakes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from streams.security import stacks
from streams.security.connecting import connect
from streams.security.endpoint import Credentials, Facts, MlDsaFiles, MlKemFiles
from streams.security.modes import MODES


class Turn(NamedTuple):
    """One turn: a stream, its mode, and the address of a receiver that serves the mode."""

    stream: str
    mode: str
    address: str


def credentials(pki: Path, name: str) -> Credentials:
    """One party's files as bench/lab/site.py creates them."""
    return Credentials(
        *_files(pki, name),
        mldsa=MlDsaFiles(*_files(pki / "mldsa", name)),
        mlkem=MlKemFiles(*_files(pki / "mldsa", f"{name}-kem"), stored_keys=(pki / "mldsa" / "receiver.pdk",)),
    )


def _files(pki: Path, name: str) -> tuple[Path, Path, Path]:
    return pki / f"{name}.pem", pki / f"{name}.key", pki / "ca.pem"


def shake_hands(pki: Path, turns: Iterable[Turn]) -> dict[str, list[Facts]]:
    """Open and close a link for each turn; returns the facts of the handshakes by stream."""
    return asyncio.run(_shake_hands(credentials(pki, "forwarder"), turns))


async def _shake_hands(own: Credentials, turns: Iterable[Turn]) -> dict[str, list[Facts]]:
    found: dict[str, list[Facts]] = {}
    for turn in turns:
        link = await connect(
            turn.address,
            stacks.client(MODES[turn.mode], own),
            server_name="localhost",
            connect_timeout=5,
            handshake_timeout=5,
        )
        found.setdefault(turn.stream, []).append(link.facts)
        await link.close()
    return found
