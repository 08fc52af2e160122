"""What `logfwd validate` says of files that would not be read."""

from __future__ import annotations

import bz2
import gzip
from pathlib import Path

from structlog.testing import capture_logs

from logfwd.sources.file.preview import unread
from logfwd.sources.settings import FileSource, StdinSource


def test_each_path_that_would_not_be_read_is_named_with_its_reason_and_nothing_is_logged(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_bytes(b"{}\n")
    (tmp_path / "b.log").symlink_to("nothing")
    (tmp_path / "c.log").write_bytes(gzip.compress(b"{}\n"))
    (tmp_path / "d.log").write_bytes(bz2.compress(b"{}\n"))
    (tmp_path / "e\nf.log").symlink_to("nothing")
    patterns = (f"{tmp_path}/*.log", f"{tmp_path}/*.json", str(tmp_path))
    with capture_logs() as logs:
        said = [sentence.replace(f"{tmp_path}/", "") for sentence in unread(FileSource(paths=patterns))]
    assert logs == []
    assert said == [
        "no file found for *.json: check the name, unless the file is still to come: it is read as soon as it is there",
        f"'{tmp_path}' is not read: is a directory",
        "'b.log' is not read: symbolic link: No such file or directory",
        "'c.log' is not read: it is a file of gzip; "
        'source.compressed = "read" reads it, else only what is missing of a file is read',
        "'d.log' is not read: it is a file of bzip2",
        "'e\\nf.log' is not read: symbolic link: No such file or directory",
    ]
    reads = unread(FileSource(paths=(f"{tmp_path}/c.log",), compressed="read"))
    assert (list(reads), list(unread(StdinSource()))) == ([], [])
