"""Rotated names: a whole configured name, then an index, a date or "old"; nothing else is one."""

from __future__ import annotations

import pytest

from logfwd.sources.file.names import age_order, bases, matches


@pytest.mark.parametrize(
    "ending",
    [
        ".1",
        "-1",
        ".999",
        ".old",
        "-old",
        "-20260131",
        ".2026-01-31",
        "-2026013114",
        "-20260131.1",
        ".2026-01-31T14:30:05Z",
        ".2026-01-31_14-30",
        ".20260131-143005",
        ".2026-01",
        "-1769868000",
        "-20260131-1769868000",
        "-20260131.gz",
        ".1.zst",
        ".gz",
    ],
)
@pytest.mark.parametrize("name", ["/logs/access.log", "/logs/worker-1", "/logs/1"])
def test_a_rotated_name_leads_back_to_the_whole_name(name: str, ending: str) -> None:
    assert name in list(bases(name + ending))


@pytest.mark.parametrize(
    "path",
    [
        "/logs/access.log",
        "/logs/worker1",
        "/logs/worker_1",
        "/logs/worker-1000",
        "/logs/worker-123456",
        "/logs/worker-20261331",
        "/logs/worker-20260132",
        "/logs/app.1.log",
        "/logs/app.log.1.zip",
        "/logs/app.older",
        "/logs.1/app",
        "/logs/.1",
    ],
)
def test_other_names_lead_nowhere(path: str) -> None:
    assert list(bases(path)) == []


def test_a_name_may_be_the_rotation_of_several_and_the_longest_comes_first() -> None:
    assert list(bases("/logs/app-20260131.1")) == ["/logs/app-20260131", "/logs/app"]
    assert list(bases("/logs/worker-1.1")) == ["/logs/worker-1"]


@pytest.mark.parametrize(
    ("path", "pattern", "expected"),
    [
        ("/logs/app", "/logs/app", True),
        ("/logs/app-1", "/logs/app", False),
        ("/logs/app.log", "/logs/*.log", True),
        ("/logs/x/app.log", "/logs/*.log", False),
        ("/logs/worker-3", "/logs/worker-[0-9]", True),
        ("/logs/worker", "/logs/worker-[0-9]", False),
        ("/logs/app.log", "/logs/**/*.log", True),
        ("/logs/x/y/app.log", "/logs/**/*.log", True),
        ("/logs/x/y/app.txt", "/logs/**/*.log", False),
        ("/logs/x/y", "/logs/**", True),
        ("/other/x", "/logs/**", False),
    ],
)
def test_a_pattern_matches_what_its_glob_would_find(path: str, pattern: str, expected: bool) -> None:
    assert matches(path, pattern) is expected


def test_files_with_equal_times_are_ordered_by_index_and_the_live_one_is_last() -> None:
    paths = ["/logs/app", "/logs/app.10", "/logs/app.2"]
    assert sorted(paths, key=lambda path: age_order(path, "/logs/app", 5)) == [
        "/logs/app.10",
        "/logs/app.2",
        "/logs/app",
    ]
    assert age_order("/logs/app", "/logs/app", 1) > age_order("/logs/app.1", "/logs/app", 9)
    assert age_order("/logs/app.1", "/logs/app", 1) < age_order("/logs/app.2", "/logs/app", 9)
