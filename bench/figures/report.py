"""What the measuring commands share around a measurement: options, a scratch directory, tables, JSON."""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import shutil
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from bench.lab.generate import RECORD_BYTES
from bench.lab.load import Base, split_records
from bench.lab.processes import StartFailed
from streams.config.units import parse_size
from streams.security.modes import MODES

Row = Mapping[str, Any]


class Numbers(click.ParamType[list[float]]):
    """Numbers separated by commas, each within a range."""

    name = "numbers"

    def __init__(self, least: float, most: float) -> None:
        self._least, self._most = least, most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[float]:
        try:
            numbers = [float(part) for part in str(value).split(",")]
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers separated by commas, such as 1,10", param, ctx)
        if not all(self._least <= number <= self._most for number in numbers):
            self.fail(f"each number must be from {self._least:g} to {self._most:g}", param, ctx)
        return numbers


class Size(click.ParamType[int]):
    """A number of bytes, with a unit if need be."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return parse_size(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Modes(click.ParamType[list[str]]):
    """Names of security modes, separated by commas, or all of them; each once."""

    name = "modes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        names = list(MODES) if value == "all" else list(dict.fromkeys(str(value).split(",")))
        if unknown := sorted(set(names) - set(MODES)):
            self.fail(f"unknown: {', '.join(unknown)}; write all, or some of {', '.join(MODES)}", param, ctx)
        return names


as_json_option = click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print JSON to stdout instead of a table, with more figures and no rounding.",
)
seed_option = click.option("--seed", default=1, show_default=True, help="Seed of the generated records.")
sink_option = click.option(
    "--sink",
    type=click.Choice(["log", "kafka"]),
    default="kafka",
    show_default=True,
    help="log: the receiver's embedded log; kafka: a real broker, started for this run.",
)
maximum_records_option = click.option(
    "--records", default=500_000, show_default=True, help="Records used to measure the maximum."
)
record_bytes_option = click.option(
    "--record-bytes",
    type=click.Choice([str(size) for size in RECORD_BYTES]),
    default="577",
    show_default=True,
    callback=lambda _, __, value: int(value),
    help="Approximate record size in bytes; compressibility matches real logs.",
)


@contextlib.contextmanager
def workplace(as_json: bool) -> Iterator[tuple[Path, Console]]:
    """A directory that is removed afterwards, and a console that leaves stdout to JSON; failures become exit code 1."""
    directory = Path(tempfile.mkdtemp(prefix="logbench-"))
    try:
        yield directory, Console(stderr=as_json)
    except StartFailed as error:
        raise click.ClickException(str(error)) from error
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def base_file(
    directory: Path, console: Console, records: int, *, seed: int, record_bytes: int = 577
) -> tuple[Base, int]:
    """The generated file, and how often to read it for this many records."""
    size, copies = split_records(records, record_bytes)
    with console.status(f"generating {size} records"):
        return Base.generate(directory / "data.jsonl", size, seed=seed, record_bytes=record_bytes), copies


def machine() -> dict[str, Any]:
    """The machine and versions that figures depend on. The package `cryptography` brings the OpenSSL that links use.

    An optimized Python was built with the help of profiles (PGO), as those of distributions are.
    """
    return {
        "logfwd": version("logfwd"),
        "python": platform.python_version(),
        "python_is_optimized": "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or ""),
        "cryptography": version("cryptography"),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
    }


def limit_note(limits: Sequence[float]) -> str:
    """This machine's own limit before and after the measurement."""
    return f"machine limit (validate + frame + zstd-1) before / after: {limits[0]:.0f} / {limits[1]:.0f} MB/s"


Column = tuple[str, Callable[[Row], str]]


def table(title: str, columns: Sequence[Column], rows: Sequence[Row], *, upright: bool = False) -> Table:
    """Rows as a table, rounded for people; `upright` makes a column of each row."""
    lines = [[name for name, _ in columns], *([value(row) for _, value in columns] for row in rows)]
    if upright:
        lines = [list(line) for line in zip(*lines, strict=True)]
    shown = Table(title=title, title_justify="left")
    for number, name in enumerate(lines[0]):
        shown.add_column(name, justify="right" if number else "left")
    for line in lines[1:]:
        shown.add_row(*line)
    return shown


def show(
    console: Console,
    title: str,
    columns: Sequence[Column],
    rows: Sequence[Row],
    notes: Sequence[str] = (),
    *,
    upright: bool = False,
) -> None:
    """Print rows as a table, with notes and the machine below it."""
    console.print(table(title, columns, rows, upright=upright))
    for note in notes:
        console.print(note, soft_wrap=True)
    about = machine()
    console.print(
        f"{about['cpus']} CPUs, load {about['load_average']}, Python {about['python']} "
        f"({'with' if about['python_is_optimized'] else 'without'} PGO), cryptography {about['cryptography']}",
        style="dim",
    )


def emit(command: str, rows: Sequence[Row], **more: Any) -> None:
    """Print {"command", "machine", "rows", …} as JSON; numbers that are not finite become null."""
    click.echo(dumps({"command": command, "machine": machine(), "rows": rows, **more}))


def dumps(values: Mapping[str, Any]) -> str:
    """JSON text; numbers that are not finite become null."""
    return json.dumps(_finite(values), indent=2)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
