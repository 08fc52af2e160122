"""Stream files: what each mistake is answered with, and that all mistakes of a file are found at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logfwd.definition import BatchLimits, Stream, check, check_twin_of, members
from logfwd.sources.settings import FileSource, StdinSource
from streams.config import toml
from streams.config.units import DURATIONS, MIB, SIZES, parse_duration, parse_size, show_duration, show_size
from streams.errors import ConfigError, Problem

SOURCE = '[source]\ntype = "file"\npaths = ["a.log"]\n'


def read(tmp_path: Path, text: str) -> tuple[Stream | None, dict[str, str]]:
    """The stream, and its problems by key."""
    path = tmp_path / "http.toml"
    path.write_text(text)
    problems: list[Problem] = []
    table = toml.parse(path)
    stream = toml.convert(table, Stream, path=path, base=tmp_path, problems=problems)
    if stream is not None:
        toml.add(problems, path, check(stream, table))
    assert all(problem.path == path for problem in problems)
    return stream, {problem.key: problem.message for problem in problems}


def good(tmp_path: Path, text: str) -> Stream:
    stream, problems = read(tmp_path, text)
    assert not problems
    assert stream is not None
    return stream


def test_a_stream_needs_a_name_and_a_source_and_has_sane_defaults(tmp_path: Path) -> None:
    stream = good(tmp_path, f'name = "http"\n{SOURCE}')
    source = FileSource(paths=(str(tmp_path / "a.log"),))
    assert stream == Stream(name="http", source=source)
    assert (stream.security, stream.batch.linger_seconds, stream.window) == ("hybrid", 0.2, 5)


def test_sizes_and_durations_are_read_with_units(tmp_path: Path) -> None:
    stream = good(
        tmp_path,
        f'name = "http"\n{SOURCE}scan = "1m"\nrotated_wait = 2.5\n'
        '[batch]\nmax_batch_bytes = "1MiB"\nmax_record_bytes = "64kB"\nlinger = "50ms"\n'
        "[spool]\nmax_spool_bytes = 16777216\n",
    )
    assert isinstance(stream.source, FileSource)
    assert (stream.source.scan_seconds, stream.source.rotated_wait_seconds) == (60.0, 2.5)
    assert stream.batch == BatchLimits(max_batch_bytes=MIB, max_record_bytes=64_000, linger_seconds=0.05)
    assert stream.spool.max_spool_bytes == 16 * MIB


def test_relative_globs_start_at_the_configurations_directory_and_absolute_ones_stay(tmp_path: Path) -> None:
    text = 'name = "http"\n[source]\ntype = "file"\npaths = ["in/*.log", "/var/log/*.log"]\nexclude = ["in/old*"]\n'
    source = good(tmp_path, text).source
    assert isinstance(source, FileSource)
    assert source.paths == (str(tmp_path / "in/*.log"), "/var/log/*.log")
    assert source.exclude == (str(tmp_path / "in/old*"),)


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ("nam = 1\n", "nam", "is not known here; did you mean 'name'?"),
        ("zzz = 1\n", "zzz", "is not known here; known are: name, mirror_of"),
        ("linger = 1\n", "linger", "it belongs to [batch]"),
        ("[batch]\nlinger_seconds = 1\n", "batch.linger_seconds", 'write batch.linger = "200ms"'),
        ("[batch]\nlinger = true\n", "batch.linger", 'True is not a duration such as "200ms"'),
        ('[batch]\nlinger = "5 parsecs"\n', "batch.linger", "'5 parsecs' is not a duration"),
        ("[batch]\nlinger = nan\n", "batch.linger", "is not a duration"),
        ("[batch]\nlinger = -1\n", "batch.linger", "is not a duration"),
        ("[batch]\nlinger = 0\n", "batch.linger", "is 0s; it must be at least 1ms"),
        ('[batch]\nlinger = "61s"\n', "batch.linger", "is 61s; it must be at most 1m"),
        ('[batch]\nmax_batch_bytes = "1MIB"\n', "batch.max_batch_bytes", "'1MIB' is not a size"),
        ('[batch]\nmax_batch_bytes = "9MiB"\n', "batch.max_batch_bytes", "is 9MiB; it must be at most 8MiB"),
        ("[batch]\nmax_batch_records = 1.5\n", "batch.max_batch_records", "1.5 is not a whole number"),
        ("[batch]\nmax_batch_records = true\n", "batch.max_batch_records", "True is not a whole number"),
        ('[batch]\nmax_record_bytes = "1MiB"\n', "batch.max_record_bytes", "is more than batch.max_batch_bytes"),
        (
            '[spool]\nmax_dead_letter_bytes = "1KiB"\n',
            "spool.max_dead_letter_bytes",
            "must be at least 1MiB",
        ),
        ("[spool]\nmax_waiting_batches = 10\n", "spool.max_waiting_batches", "is 10; it must be at least 1000"),
        ('[spool]\nmax_spool_bytes = "1MiB"\n', "spool.max_spool_bytes", "is 1MiB; it must be at least 16MiB"),
        (
            '[spool]\nwhen_full = "drop-oldest"\n',
            "spool.when_full",
            'write "block" or "drop_oldest"; did you mean \'drop_oldest\'?',
        ),
        ("window = 0\n", "window", "is 0; it must be at least 1"),
        ("window = 6\n", "window", "is 6; it must be at most 5"),
        (
            'security = "hybird"\n',
            "security",
            "unknown mode 'hybird'; the modes are: classical-tls12, classical, hybrid",
        ),
        ('topic = "a b"\n', "topic", "'a b' is not a valid Kafka topic name"),
        ('topic = ".."\n', "topic", "'..' is not a valid Kafka topic name"),
        ('server_name = ""\n', "server_name", "is empty"),
        ('receivers = "a:1"\n', "receivers", 'is not a list; write receivers = ["…"]'),
        ('receivers = ["a:1", "b"]\n', "receivers[1]", "'b' is not HOST:PORT"),
        ('receivers = [":7443"]\n', "receivers[0]", "needs a host and a port"),
        ('receivers = ["a:0"]\n', "receivers[0]", "needs a host and a port"),
        ('receivers = ["::1:7443"]\n', "receivers[0]", "write an IPv6 address in brackets"),
        ("receivers = [1]\n", "receivers[0]", "1 is not a text"),
        ("batch = 3\n", "batch", "3 is not a table; write [batch]"),
        ("mirror_of = 3\n", "mirror_of", "3 is not a text"),
    ],
)
def test_a_mistake_is_named_with_its_key_and_a_remedy(tmp_path: Path, text: str, key: str, message: str) -> None:
    head, table = (text, "") if not text.startswith("[") else ("", text)
    _, problems = read(tmp_path, f'name = "http"\n{head}{table}{SOURCE}')
    assert list(problems) == [key]
    assert message in problems[key]


@pytest.mark.parametrize(
    ("source", "key", "message"),
    [
        ("", "source", "is missing; add [source]"),
        ("source = false\n", "source", "is missing; add [source]"),
        ("[source]\npaths = []\n", "source.type", 'is missing; write "file" or "stdin"'),
        (
            '[source]\ntype = "fil"\n',
            "source.type",
            '\'fil\' is not known; write "file" or "stdin" or "http" or "syslog"; did you mean \'file\'?',
        ),
        ('[source]\ntype = "file"\n', "source.paths", "is missing; add source.paths = […]"),
        ('[source]\ntype = "file"\npaths = []\n', "source.paths", "is empty; name at least one"),
        ('[source]\ntype = "file"\npaths = [""]\n', "source.paths[0]", "is empty; write a path"),
        ('[source]\ntype = "file"\npaths = ["a\\u0000b"]\n', "source.paths[0]", "holds a NUL"),
        ('[source]\ntype = "stdin"\npaths = ["a"]\n', "source.paths", "is not known here"),
        ('[source]\ntype = "file"\npaths = ["a"]\nscan = 0\n', "source.scan", "it must be at least 10ms"),
    ],
)
def test_a_source_that_cannot_be_is_named_once(tmp_path: Path, source: str, key: str, message: str) -> None:
    _, problems = read(tmp_path, f'name = "http"\n{source}')
    assert list(problems) == [key]
    assert message in problems[key]


@pytest.mark.parametrize("name", ["", "Http", "-a", ".a", "a b", "a/b", "../a", "ä", "a\\n", "a" * 129])
def test_an_invalid_stream_name_is_rejected(tmp_path: Path, name: str) -> None:
    _, problems = read(tmp_path, f'name = "{name}"\n{SOURCE}')
    assert "is not a valid stream name" in problems["name"]


@pytest.mark.parametrize("name", ["a", "0", "pq-stream", "a.b_c-d", "a" * 128])
def test_a_stream_name_is_taken(tmp_path: Path, name: str) -> None:
    assert good(tmp_path, f'name = "{name}"\n{SOURCE}').name == name


def test_all_problems_of_a_file_are_found_at_once(tmp_path: Path) -> None:
    _, problems = read(
        tmp_path,
        'name = "A"\nsecurity = "x"\nreceivers = ["b", "c"]\ntypo = 1\n[batch]\nlinger = "x"\nmax_batch_records = 0\n',
    )
    assert set(problems) == {
        "name",
        "security",
        "receivers[0]",
        "receivers[1]",
        "typo",
        "batch.linger",
        "batch.max_batch_records",
        "source",
    }


# -- twins -------------------------------------------------------------------------------------------------------


def test_a_twin_names_only_what_differs(tmp_path: Path) -> None:
    twin = good(tmp_path, 'name = "pq"\nmirror_of = "http"\nsecurity = "hybrid"\n[spool]\nmax_spool_bytes = "32MiB"\n')
    assert (twin.mirror_of, twin.source) == ("http", None)


def test_what_a_twin_has_from_its_original_cannot_be_set_even_to_the_default(tmp_path: Path) -> None:
    _, problems = read(
        tmp_path,
        'name = "pq"\nmirror_of = "http"\ninvalid = "wrap"\ncodec = "zstd"\n[batch]\n[spool]\nwhen_full = "block"\n'
        + SOURCE,
    )
    assert set(problems) == {"source", "batch", "invalid", "codec", "spool.when_full"}
    assert problems["batch"] == "comes from the original 'http'; remove it from the twin"


def test_a_twins_original_must_not_be_a_twin() -> None:
    original = Stream(name="http", source=StdinSource())
    twin = Stream(name="pq", mirror_of="http")
    known: dict[str, Stream | None] = {"http": original, "pq": twin}

    def fault(mirror_of: str) -> str:
        faults = check_twin_of(Stream(name="t", mirror_of=mirror_of), {**known, "t": None})
        return faults[0][1] if faults else ""

    assert fault("http") == ""
    assert fault("htp") == "there is no stream 'htp'; existing streams: http, pq"
    assert fault("pq") == "'pq' is a twin itself; name its original 'http'"
    assert fault("t") == "names the stream itself; name its original"


def test_an_original_whose_file_has_problems_still_counts_as_a_stream() -> None:
    assert check_twin_of(Stream(name="pq", mirror_of="http"), {"http": None}) == []


# -- files that are not configurations ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is blank"),
        (b"\n# only a comment\n", "is blank"),
        (b"a = " + b"1" * 5000, "is not TOML"),
        (b"a = 1\nb = [\n", "is not TOML"),
        (b"a = 1\na = 2\n", "is not TOML: Cannot overwrite a value (at line 2"),
        (b"a = 1\nb = '\xff'\n", "is not UTF-8 (line 2)"),
        (b"a = " + b"[" * 20_000 + b"]" * 20_000, "is nested too deeply"),
        (b"#" * (1024 * 1024 + 1), "is larger than 1 MiB"),
    ],
)
def test_a_file_that_is_not_a_configuration_is_rejected(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "some.toml"
    path.write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        toml.parse(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read: No such file or directory; .* --config"):
        toml.parse(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("kind", "key"), [("http", "address"), ("http", "socket_mode"), ("syslog", "socket_mode"), ("file", "encoding")]
)
def test_what_logs_show_of_a_source_does_not_come_from_a_file(tmp_path: Path, kind: str, key: str) -> None:
    (tmp_path / "secret").write_text("hunter2")
    _, problems = read(tmp_path, f'name = "http"\n[source]\ntype = "{kind}"\n{key} = "${{file:secret}}"\n')
    assert "cannot come from a file" in problems[f"source.{key}"]
    assert "hunter2" not in str(problems)


# -- constant fields ---------------------------------------------------------------------------------------------


def test_constant_fields_are_texts_numbers_and_booleans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBER", "7")
    stream = good(
        tmp_path, f'name = "http"\n{SOURCE}[add]\nhost = "h"\nn = 1\nx = 0.5\nlive = true\n"a b" = "${{NUMBER}}"\n'
    )
    assert stream.add == {"host": "h", "n": 1, "x": 0.5, "live": True, "a b": "7"}
    assert members(stream.add) == b'"host":"h","n":1,"x":0.5,"live":true,"a b":"7"'


@pytest.mark.parametrize(
    ("text", "key", "problem"),
    [
        ("[add]\nx = [1]\n", "add.x", "[1] is not a text, a number, or true or false"),
        ("[add]\nx = 2026-01-01\n", "add.x", "is not a text, a number, or true or false"),
        ("[add.x]\na = 1\n", "add.x", "{'a': 1} is not a text, a number, or true or false"),
        ("[add]\nx = nan\n", "add.x", "nan is not a number that JSON has; write it as a text"),
        ("[add]\nx = 9223372036854775808\n", "add.x", "is not a number that JSON has"),
        ('[add]\nx = "${NONE_SUCH}"\n', "add.x", "the environment has no variable NONE_SUCH"),
        ('[add]\nx = "${file:none}"\n', "add.x", "none cannot be read"),
        (f'[add]\nx = "{"y" * 300}"\n[batch]\nmax_record_bytes = 512\n', "add", "takes 307 bytes of every record"),
    ],
)
def test_what_cannot_be_a_constant_field_is_named(tmp_path: Path, text: str, key: str, problem: str) -> None:
    _, problems = read(tmp_path, f'name = "http"\n{SOURCE}{text}')
    assert set(problems) == {key}
    assert problem in problems[key]


def test_add_is_a_table(tmp_path: Path) -> None:
    _, problems = read(tmp_path, f'name = "http"\nadd = "host"\n{SOURCE}')
    assert problems == {"add": "'host' is not a table; write [add]"}


def test_a_twin_takes_the_constant_fields_of_its_original(tmp_path: Path) -> None:
    _, problems = read(tmp_path, 'name = "http"\nmirror_of = "a"\n[add]\nhost = "h"\n')
    assert "comes from the original 'a'" in problems["add"]


@pytest.mark.parametrize(
    ("text", "key", "problem"),
    [
        (
            "kubernetes = true\n",
            "source.kubernetes",
            "needs files below a directory pods or containers; name /var",
        ),
        ('path_field = ""\n', "source.path_field", "is empty"),
        ('path_field = "x"\nformat = "raw"\n', "source.path_field", 'cannot be used with source.format = "raw"'),
        ('path_field = "x"\n[add]\nx = 1\n', "add.x", "is a field that [source] adds, too; choose another name"),
        ('path_field = "x"\n[batch]\nmax_record_bytes = "8KiB"\n', "batch.max_record_bytes", "raise it to 64KiB more"),
    ],
)
def test_a_field_from_the_name_of_a_file_must_be_possible(tmp_path: Path, text: str, key: str, problem: str) -> None:
    _, problems = read(tmp_path, f'name = "http"\n{SOURCE}{text}')
    assert set(problems) == {key}
    assert problem in problems[key]


def test_the_field_of_kubernetes_has_a_name_of_its_own(tmp_path: Path) -> None:
    pods = f'name = "http"\n{SOURCE.replace("a.log", "/var/log/pods/*/*/*.log")}kubernetes = true\n'
    assert good(tmp_path, pods).source == FileSource(paths=("/var/log/pods/*/*/*.log",), kubernetes=True)
    _, problems = read(tmp_path, f'{pods}path_field = "kubernetes"\n')
    assert "choose another name" in problems["source.path_field"]
    _, problems = read(tmp_path, f"{pods}[add]\nkubernetes = 1\n")
    assert "choose another name" in problems["add.kubernetes"]


# -- keys and headers --------------------------------------------------------------------------------------------


def test_headers_are_texts_and_a_key_field_is_a_name(tmp_path: Path) -> None:
    stream = good(tmp_path, f'name = "http"\nkey_field = "client ip"\n{SOURCE}[headers]\nhost = "h"\n"a b" = ""\n')
    assert (stream.headers, stream.key_field) == ({"host": "h", "a b": ""}, "client ip")


@pytest.mark.parametrize(
    ("text", "key", "problem"),
    [
        ("[headers]\nx = 1\n", "headers.x", '1 is not a text; write "…"'),
        ("headers = false\n", "headers", "False is not a table; write [headers]"),
        (f'[headers]\nx = "{"y" * 4096}"\n', "headers", "takes 4097 bytes of every record; shorten it to 4096"),
        ('key_field = ""\n', "key_field", "is empty"),
        ("key_field = 1\n", "key_field", "1 is not a text"),
    ],
)
def test_what_cannot_be_a_header_or_a_key_is_named(tmp_path: Path, text: str, key: str, problem: str) -> None:
    before, after = (text, "") if "key_field" in text or "false" in text else ("", text)
    _, problems = read(tmp_path, f'name = "http"\n{before}{SOURCE}{after}')
    assert set(problems) == {key}
    assert problem in problems[key]


@pytest.mark.parametrize("text", ['key_field = "a"\n', '[headers]\na = "b"\n'])
def test_a_twin_takes_keys_and_headers_of_its_original(tmp_path: Path, text: str) -> None:
    _, problems = read(tmp_path, f'name = "http"\nmirror_of = "a"\n{text}')
    assert "comes from the original 'a'" in "".join(problems.values())


# -- any table at all --------------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.one_of(st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.sampled_from(["file", "stdin", "5s"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["type", "paths", "linger", "max_batch_bytes", "x"]), inner, max_size=3),
    ),
    max_leaves=8,
)
KEYS = st.sampled_from([*Stream.__struct_fields__, "x"])


@given(st.dictionaries(KEYS, VALUES, max_size=8))
def test_whatever_a_table_holds_is_a_stream_or_has_problems(table: dict[str, Any]) -> None:
    problems: list[Problem] = []
    stream = toml.convert(table, Stream, path=Path("t.toml"), base=Path("/b"), problems=problems)
    assert (stream is not None) or problems
    if stream is not None:
        check(stream, table)


# -- units -------------------------------------------------------------------------------------------------------


@given(st.integers(0, 10**6), st.sampled_from(sorted(SIZES)))
def test_a_size_is_its_number_times_its_unit_and_can_be_read_back(number: int, unit: str) -> None:
    assert parse_size(f"{number}{unit}") == number * SIZES[unit]
    assert parse_size(show_size(number * SIZES[unit])) == number * SIZES[unit]


@given(st.integers(0, 100_000), st.sampled_from(sorted(DURATIONS)))
def test_a_duration_is_its_number_times_its_unit_and_can_be_read_back(number: int, unit: str) -> None:
    assert parse_duration(f"{number} {unit}") == pytest.approx(number * DURATIONS[unit])
    assert parse_duration(show_duration(number)) == number


@pytest.mark.parametrize(
    ("text", "seconds"), [("200ms", 0.2), ("5s", 5.0), ("1.5h", 5400.0), ("1d", 86_400.0), (3, 3.0), (0.25, 0.25)]
)
def test_durations_as_people_write_them(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "s", "5", "5S", "-5s", "1e3s", "5s\n", "٥s", "5 s ", None, True, [], float("inf"), 10**40, "9" * 40 + "s"],
)
def test_an_invalid_duration_is_rejected(text: object) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["1.5B", 0.5, "9999999TiB"])
def test_a_size_is_a_whole_number_of_bytes(text: object) -> None:
    with pytest.raises(ValueError, match="not a whole number of bytes"):
        parse_size(text)
