"""A file that is not what it should be is named with what it is."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from streams.errors import ConfigError
from streams.security import pem
from streams.security.openssl.context import check_files
from tests.support.tls import Parties


def as_der(data: bytes) -> bytes:
    return ssl.PEM_cert_to_DER_cert(data.decode())


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (as_der, "DER, not PEM; convert it: openssl x509 -inform DER"),
        (lambda _: b"", "it is empty"),
        (lambda _: b"hello", "there is no PEM in it"),
        (lambda data: data.replace(b"CERTIFICATE", b"EC PRIVATE KEY"), "it holds EC PRIVATE KEY and no CERTIFICATE"),
    ],
)
@pytest.mark.parametrize("name", ["certificate", "ca"])
def test_a_file_without_a_certificate_is_named_with_what_it_is(
    tmp_path: Path, changed: Callable[[bytes], bytes], why: str, name: str
) -> None:
    files = Parties(tmp_path / "pki").receiver
    path: Path = getattr(files, name)
    path.write_bytes(changed(path.read_bytes()))
    with pytest.raises(ConfigError) as caught:
        check_files(files)
    (problem,) = caught.value.problems
    assert (problem.path, problem.key) == (path, f"tls.{name}")
    assert why in problem.message


def test_what_holds_the_right_thing_has_no_fault_here(tmp_path: Path) -> None:
    files = Parties(tmp_path / "pki").receiver
    assert pem.fault(files.certificate, pem.CERTIFICATE) == pem.fault(files.key, pem.PRIVATE_KEY) == ""
    assert pem.fault(files.key, pem.CERTIFICATE) == "it holds PRIVATE KEY and no CERTIFICATE"
    assert pem.fault(tmp_path / "none", pem.PRIVATE_KEY) == "No such file or directory"
