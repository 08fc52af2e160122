"""The import rules of the design, enforced: directions, no circles, one door for each third party, pure cores.

Imports are read from the source (`ast`), including those inside functions and under TYPE_CHECKING: they do no harm at
run time, but a reader of one of the two modules still has to know the other.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from functools import cache
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

from streams import errors

ROOT = Path(__file__).parent.parent
PACKAGES = ("streams", "logfwd", "logreceiver", "bench")

MAY_NOT_IMPORT = {
    "streams": ("logfwd", "logreceiver", "bench", "tests"),
    "logfwd": ("logreceiver", "bench", "tests"),
    "logreceiver": ("logfwd", "bench", "tests"),
    "bench": ("tests",),
    "streams.wire": ("streams.security", "streams.telemetry"),
    "streams.security": ("streams.wire", "streams.telemetry"),
    "streams.telemetry": ("streams.security", "streams.wire"),
}
EXCEPTIONS = {"streams.telemetry.metrics": "streams.security.endpoint"}  # it counts handshakes: Facts is plain data

DOORS = {
    "OpenSSL": ("streams.security.openssl.*",),
    "aiokafka": ("logreceiver.sinks.kafka.*", "bench.figures.limit"),  # the limit is the library's own
    "sqlite3": (
        "logfwd.spool.*",
        "logfwd.commands.spool",
        "logfwd.commands.spools",
    ),
    "prometheus_client": ("streams.telemetry.*",),
    "blake3": ("logfwd.sources.http.body",),
    "h11": ("logfwd.sources.http.connection", "streams.telemetry.httpserver"),
    "aiohappyeyeballs": ("streams.security.connecting",),
    # every stack is behind a seam, as a library is
    "streams.security.openssl": ("streams.security.stacks", "streams.security.openssl.*", "bench.handshakes.parties"),
    "streams.security.tls13": (
        "streams.security.stacks",
        "streams.security.tls13.*",
        "bench.handshakes.*",
        "bench.chaos.attacker",  # says what no stack would
        "bench.chaos.floods",
    ),
}

CORES = (
    "streams.addresses",
    "streams.columns",
    "streams.errors",
    "streams.pace",
    "logfwd.intake.jsonlines",
    "streams.config.kinds",
    "streams.records.batch",
    "streams.records.body",
    "streams.records.walk",
    "streams.security.arriving",
    "streams.security.authentication",
    "streams.security.endpoint",
    "streams.security.modes",
    "streams.security.openssl.groups",
    "streams.security.pending",
    "streams.security.proxied",
    "streams.config.units",
    "streams.security.tls13.alerts",
    "streams.security.tls13.authentication",
    "streams.security.tls13.client",
    "streams.security.tls13.codec",
    "streams.security.tls13.delegated",
    "streams.security.tls13.extensions",
    "streams.security.tls13.groups",
    "streams.security.tls13.handshake",
    "streams.security.tls13.kem",
    "streams.security.tls13.kemtls",
    "streams.security.tls13.key_schedule",
    "streams.security.tls13.messages",
    "streams.security.tls13.names",
    "streams.security.tls13.pdk",
    "streams.security.tls13.records",
    "streams.security.tls13.schemes",
    "streams.security.tls13.server",
    "streams.security.tls13.settings",
    "streams.security.tls13.signature",
    "streams.security.tls13.suites",
    "streams.telemetry.hosts",
    "streams.wire",
    "streams.wire.*",
    "logfwd.spool.backlog",
    "logfwd.spool.beyond",
    "logfwd.spool.blobs",
    "logfwd.spool.rows",
    "logfwd.intake.batcher",
    "logfwd.definition",
    "logfwd.openfiles",
    "logfwd.links.recoveries",
    "logfwd.links.resume",
    "logfwd.links.rounds",
    "logfwd.spool.keys",
    "logfwd.sources.http.answers",
    "logfwd.sources.http.body",
    "logfwd.sources.http.coding",
    "logfwd.sources.http.settings",
    "logfwd.intake.rawlines",
    "logfwd.sources.formats",
    "logfwd.sources.formats.*",
    "logfwd.sources.file.pace",
    "logfwd.sources.file.which",
    "logfwd.sources.position",
    "logfwd.sources.settings",
    "logfwd.sources.syslog.framing",
    "logfwd.sources.syslog.message",
    "logfwd.sources.syslog.settings",
    "logfwd.sources.terms",
    "logfwd.sources.zstdframes",
    "logreceiver.links.authorisation",
    "logreceiver.links.conduct",
    "logreceiver.links.entries",
    "logreceiver.links.meanwhile",
    "logreceiver.taking",
    "logreceiver.weighing",
    "logreceiver.ledger.answer",
    "logreceiver.ledger.coverage",
    "logreceiver.ledger.records",
    "logreceiver.posture",
    "logreceiver.sinks.kafka.errors",
    "logreceiver.sinks.log.producers",
    "logreceiver.sinks.kafka.topic_check",
)
NOT_IN_A_CORE = ("asyncio", "time", "socket", "structlog", "logging", "select", "selectors")


@cache
def modules() -> dict[str, Path]:
    """Every module of the product by its dotted name."""
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def imports_of(source: str, module: str) -> Iterator[str]:
    """Dotted names of what a module imports; `from a import b` counts as a and as a.b."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute here"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports(module: str) -> set[str]:
    return set(imports_of(modules()[module].read_text(), module))


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def test_the_reader_of_imports_finds_every_form() -> None:
    source = "import a.b\nfrom c import d\ndef f():\n    import e\nif TYPE_CHECKING:\n    from g.h import i\n"
    assert set(imports_of(source, "m")) == {"a.b", "c", "c.d", "e", "g.h", "g.h.i"}
    assert len(modules()) > 20


@pytest.mark.parametrize("package", MAY_NOT_IMPORT)
def test_imports_point_one_way(package: str) -> None:
    breaches = [
        f"{module} imports {name}"
        for module in modules()
        if within(module, package)
        for name in imports(module)
        if any(within(name, other) for other in MAY_NOT_IMPORT[package])
        and not (module in EXCEPTIONS and within(name, EXCEPTIONS[module]))
    ]
    assert not breaches


# -- circles -------------------------------------------------------------------------------------------------------


def needs_of(source: str) -> Iterator[str]:
    """Modules of the product that a source needs: those that it imports, and commands that it loads by name later."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules())
        elif isinstance(node, ast.ImportFrom):
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (name if name in modules() else node.module or "" for name in names)
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ELSEWHERE":
            yield from ast.literal_eval(node.value).values()


@cache
def product() -> Mapping[str, set[str]]:
    """The modules that each module needs."""
    return {
        module: {name for name in needs_of(path.read_text()) if name in modules()} - {module}
        for module, path in modules().items()
    }


def room(module: str, folder: str) -> str | None:
    """The child of a folder that holds a module: a module itself or a subfolder; None for a module elsewhere.

    The folder `""` has the packages as its rooms. A package's `__init__` is a room of its own.
    """
    if folder and not within(module, folder):
        return None
    inside = module.removeprefix(folder).removeprefix(".")
    return inside.partition(".")[0] or "__init__"


def rooms(folder: str, graph: Mapping[str, set[str]]) -> dict[str, dict[str, str]]:
    """For each room of a folder, the rooms that it imports, each with an import that shows it."""
    found: dict[str, dict[str, str]] = {}
    for module, others in graph.items():
        here = room(module, folder)
        for other in sorted(others):
            there = room(other, folder)
            if here is not None and there is not None and here != there:
                found.setdefault(here, {}).setdefault(there, f"{module} imports {other}")
    return found


def circle(folder: str, graph: Mapping[str, set[str]]) -> list[str]:
    """The imports that lead from a room of this folder back to it; none if each imports from lower levels only."""
    found = rooms(folder, graph)
    try:
        TopologicalSorter(found).prepare()
    except CycleError as error:
        around = error.args[1][::-1]  # graphlib lists a node after the nodes that it depends on
        return [found[here][there] for here, there in pairwise(around)]
    return []


FOLDERS = ("", *sorted({module.rpartition(".")[0] for module in modules()} - {""}))


def test_circles_are_found_between_modules_and_between_folders() -> None:
    straight = {"p.a": {"p.b", "p.sub.x"}, "p.b": {"p.sub.y"}, "p.sub.x": {"p.sub.y"}, "p.sub.y": set[str]()}
    assert [circle(folder, straight) for folder in ("", "p", "p.sub")] == [[], [], []]
    assert set(circle("p", straight | {"p.sub.y": {"p.a"}})) == {"p.a imports p.sub.x", "p.sub.y imports p.a"}
    assert set(circle("p.sub", straight | {"p.sub.y": {"p.sub.x"}})) == {
        "p.sub.x imports p.sub.y",
        "p.sub.y imports p.sub.x",
    }
    assert circle("", straight | {"p.b": {"q.c"}, "q.c": {"p.a"}}) == ["p.b imports q.c", "q.c imports p.a"]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder or "packages")
def test_no_imports_form_a_circle(folder: str) -> None:
    """The modules and subfolders of a folder have levels: none imports, even indirectly, from a level above its own.

    As this holds in every folder, no modules form a circle either, wherever they are.
    """
    found = circle(folder, product())
    assert not found, "\n".join(found)


@pytest.mark.parametrize("library", DOORS)
def test_each_third_party_has_one_door(library: str) -> None:
    users = [module for module in modules() if any(within(name, library) for name in imports(module))]
    strangers = [user for user in users if not any(fnmatchcase(user, door) for door in DOORS[library])]
    assert users, f"nobody imports {library}: is it still a dependency?"
    assert not strangers


def test_values_are_structs_whose_classes_are_made_in_a_fraction_of_the_time_of_dataclasses() -> None:
    users = [module for module in modules() if not within(module, "bench") and "dataclasses" in imports(module)]
    assert users == ["logreceiver.links.shared"]  # one that computes an attribute


def test_cores_read_no_clock_do_no_io_and_log_nothing() -> None:
    cores = [module for module in modules() if any(fnmatchcase(module, core) for core in CORES)]
    assert len(cores) >= len(CORES)
    breaches = [
        f"{core} imports {name}"
        for core in cores
        for name in imports(core)
        if any(within(name, other) for other in NOT_IN_A_CORE)
    ]
    assert not breaches


def errors_of(source: str) -> Iterator[tuple[str, str]]:
    """Classes that end up as exceptions, by their spelling, and what each derives from."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef):
            for base in map(ast.unparse, node.bases):
                if base == "Exception" or base in vars(errors) or base.endswith(("Error", "Exception")):
                    yield node.name, base


def test_every_error_stands_in_the_tree_or_is_named_as_control_flow() -> None:
    tree, control_flow = (errors.__doc__ or "").split("Exceptions outside this tree")
    found = {
        name: base
        for module, path in modules().items()
        if not within(module, "bench")
        for name, base in errors_of(path.read_text())
    }
    assert len(found) > 20
    outside = {name for name, base in found.items() if base == "Exception"} - {"PipelineError"}
    drawn = set(re.findall(r"^ {4}[│├└─ ]*(\w+)", tree, re.MULTILINE))
    assert drawn == set(found) - outside
    assert outside == {name for name in outside if re.search(rf"\b{name}\b", control_flow)}


def test_every_module_is_on_the_map() -> None:
    """ARCHITECTURE.md names each file, below the folder that it is in."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    tree = text.split("## Rooms", 1)[1].split("\n## ", 1)[0]
    names = {path.relative_to(ROOT) for path in modules().values() if path.name != "__init__.py"}
    assert not sorted(str(name) for name in names if name.name not in tree)
    assert not sorted(str(folder) for folder in {name.parent for name in names} if f"{folder.name}/" not in tree)
