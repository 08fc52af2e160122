"""Fields that the name of a file gives to its records: the name that matched, whatever rotation and links do."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from logfwd.sources.file.metadata import fields_by_name, in_kubernetes
from logfwd.sources.position import Block
from logfwd.sources.settings import FileSource
from tests.logfwd.sources.file.follow_harness import Reader, append

ID = "0123456789abcdef" * 4
UID = "3f0a2c1e-9f6a-4a52-8e0a-4f5d0c7b9a11"


def fields(block: Block) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(b"{" + block.fields + b"}")
    return found


def names(reader: Reader, since: int = 0) -> list[str]:
    """The names of the files of the blocks that were read, in order."""
    return [fields(block)["file"] for block in reader.blocks[since:] if block.data]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (
            f"/var/log/pods/kube-system_coredns-1_{UID}/coredns/0.log",
            {"namespace": "kube-system", "pod": "coredns-1", "uid": UID, "container": "coredns"},
        ),
        (
            f"/host/var/log/pods/a_b_{UID}/c-d/17.log",
            {"namespace": "a", "pod": "b", "uid": UID, "container": "c-d"},
        ),
        (
            f"/var/log/containers/web-0_default_nginx-sidecar-{ID}.log",
            {"namespace": "default", "pod": "web-0", "container": "nginx-sidecar", "container_id": ID},
        ),
        (f"/var/log/pods/a_b_{UID}/c/0.log.20260101-000000", {}),
        (f"/var/log/pods/a_b_{UID}/c/0.txt", {}),
        ("/var/log/pods/a_b/c/0.log", {}),
        ("/var/log/containers/web_default_nginx-short.log", {}),
        ("/var/log/app.log", {}),
    ],
)
def test_the_names_of_the_kubelet_s_files_are_understood(name: str, found: dict[str, str]) -> None:
    assert in_kubernetes(name) == found


def test_a_source_that_adds_nothing_has_no_fields() -> None:
    assert fields_by_name(FileSource(paths=("a",))) is None


def test_both_kinds_of_fields_are_members_of_an_object_and_bytes_that_are_not_utf_8_are_replaced() -> None:
    of = fields_by_name(FileSource(paths=("a",), path_field='my "file"', kubernetes=True))
    assert of is not None
    pods = f"/var/log/pods/a_b_{UID}/c/0.log"
    assert json.loads(b"{" + of(pods) + b"}") == {'my "file"': pods, "kubernetes": in_kubernetes(pods)}
    assert json.loads(b"{" + of(os.fsdecode(b"/tmp/\xff.log")) + b"}") == {'my "file"': "/tmp/\ufffd.log"}
    only = fields_by_name(FileSource(paths=("a",), kubernetes=True))
    assert only is not None
    assert only("/tmp/a.log") == b""


def test_a_record_keeps_the_name_that_matched_across_rotation_and_restart(tmp_path: Path) -> None:
    live = tmp_path / "app.log"
    reader = Reader(live, path_field="file", block_bytes=64)
    append(live, b"1\n2\n")
    reader.turn()
    append(live, b"3\n")
    live.rename(tmp_path / "app.log.1")
    append(live, b"4\n")
    assert reader.turn() == [b"3", b"4"]
    append(tmp_path / "app.log.1", b"5\n")
    reader.restart()
    assert reader.turn() == [b"5"]
    assert set(names(reader)) == {str(live)}


def test_of_a_symbolic_link_its_own_name_counts(tmp_path: Path) -> None:
    target = tmp_path / "pods" / f"a_b_{UID}" / "c" / "0.log"
    target.parent.mkdir(parents=True)
    append(target, b"1\n")
    link = tmp_path / "containers" / f"b_a_c-{ID}.log"
    link.parent.mkdir()
    link.symlink_to(target)
    reader = Reader(tmp_path / "containers" / "*.log", path_field="file", kubernetes=True)
    reader.turn()
    assert fields(reader.blocks[-1]) == {
        "file": str(link),
        "kubernetes": {"namespace": "a", "pod": "b", "container": "c", "container_id": ID},
    }
    both = Reader(tmp_path / "containers" / "*.log", target, path_field="file")
    both.turn()
    assert set(names(both)) == {str(target)}, "its own name is configured, too"


def test_of_several_links_the_first_in_sorted_order_counts(tmp_path: Path) -> None:
    append(tmp_path / "target", b"1\n")
    for name in ("c.log", "a.log", "b.log"):
        (tmp_path / f"soft-{name}").symlink_to(tmp_path / "target")
        os.link(tmp_path / "target", tmp_path / f"hard-{name}")
    for pattern, first in (("soft-*", "soft-a.log"), ("hard-*", "hard-a.log")):
        reader = Reader(tmp_path / pattern, path_field="file")
        reader.turn()
        assert names(reader) == [str(tmp_path / first)]
