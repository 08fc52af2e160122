"""What a look at a sink finds, for `logreceiver validate --connect`; and the look at an embedded log's directory."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from typing import NamedTuple

from logreceiver.sinks.settings import LogSink
from streams.config.units import MIB


class Finding(NamedTuple):
    """One sentence; `is_fault` if streams would be refused because of it."""

    text: str
    is_fault: bool = False


async def of_log(settings: LogSink) -> AsyncIterator[Finding]:
    """Whether the directory can be used, also while a receiver uses it. Its topics are made as they are needed."""
    directory = settings.directory.absolute()
    there = next(each for each in (directory, *directory.parents) if each.exists())
    if not there.is_dir():
        yield Finding(f"{there} is not a directory", True)
    elif not os.access(there, os.R_OK | os.W_OK | os.X_OK):
        yield Finding(f"{there} cannot be written to by this user", True)
    else:
        state = "can be written to" if there == directory else "will be made"
        yield Finding(f"{directory} {state}; {shutil.disk_usage(there).free // MIB} MiB are free")
