"""The generated records as other programs write them: plain text, lines of container runtimes, syslog messages."""

from __future__ import annotations

import msgspec

from bench.lab.load import Form

_TIME = b"2026-01-01T00:00:00.123456789"
_TO_TEXT = bytes.maketrans(b'":,', b"'= ")
_encode = msgspec.json.Encoder().encode


def plain_text(record: bytes) -> bytes:
    """The record as a line of text: no JSON, and about as long."""
    return b"request " + record[1:-1].translate(_TO_TEXT)


def cri_line(content: bytes) -> bytes:
    """As containerd and CRI-O write it: a whole line of standard output."""
    return _TIME + b"Z stdout F " + content


def docker_line(content: bytes) -> bytes:
    """As Docker's json-file driver writes it."""
    return _encode({"log": content.decode() + "\n", "stream": "stdout", "time": _TIME.decode() + "Z"})


def syslog_message(content: bytes) -> bytes:
    """A message of RFC 5424."""
    return b"<134>1 " + _TIME[:26] + b"Z web-1 shop 411 - - " + content


def counted(message: bytes) -> bytes:
    """A message with its length before it (RFC 6587, octet counting)."""
    return b"%d " % len(message) + message


TEXT = Form(plain_text)
CRI = Form(line=cri_line)
CRI_TEXT = Form(plain_text, cri_line)
DOCKER = Form(line=docker_line)
DOCKER_TEXT = Form(plain_text, docker_line)
SYSLOG = Form(plain_text, syslog_message)
