"""A syslog message, RFC 5424 or RFC 3164 → a JSON object. No I/O, no clock; never raises for any bytes.

    {"facility":"daemon","severity":"err","timestamp":"2026-11-29T19:00:00.003Z","host":"web1","app":"nginx",
     "procid":"411","msgid":"ID47","structured_data":{"origin@32473":{"ip":"10.0.0.7"}},"message":"worker exited"}

A field that the message does not have is absent. Which of the two it is, is guessed for each message: one with version
1 and a date or "-" after the priority is RFC 5424, every other one RFC 3164, which says little of what has to be there.

    timestamp         as it was sent. RFC 3164 knows no year: the one that brings it closest to now is added, as in
                      2026-11-29T19:00:00, in the sender's time zone, which is not sent either
    structured_data   an object for each element; a parameter that occurs several times is an array
    message_base64    instead of `message`, if that is not UTF-8; elsewhere such bytes become U+FFFD

Every pattern here takes time linear in the message: each is tried at one place, and none repeats what can be cut in
different ways.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

FACILITIES = (
    *("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp"),
    *("ntp", "audit", "alert", "clock"),
    *(f"local{number}" for number in range(8)),
)
"""By number (RFC 5424 §6.2.1); the names are those of syslog(3), and of RFC 5424 where it has none."""
SEVERITIES = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")

BOM = "\ufeff"
_DAY = timedelta(days=1)
_ESCAPED = "surrogateescape"

_PRIORITY = re.compile(rb"<(0|[1-9][0-9]{0,2})>")
_IS_5424 = re.compile(r"1 (?:-|[0-9]{4}-)")
_5424 = re.compile(r"1 (\S+) (\S+) (\S+) (\S+) (\S+) (?=[-\[])")
_HEADER = ("timestamp", "host", "app", "procid", "msgid")
_ELEMENT = re.compile(
    r'\[([^\s=\]"]+)((?: +[^\s=\]"]+="[^"\\\]]*(?:\\.[^"\\\]]*)*")*) *\]',
    re.DOTALL,
)
_PARAMETER = re.compile(r' +([^\s=\]"]+)="([^"\\\]]*(?:\\.[^"\\\]]*)*)"', re.DOTALL)
_ESCAPE = re.compile(r'\\(["\\\]])')

_TIMESTAMP = re.compile(
    r"(?:(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) ([ 0-3]?[0-9])(?: ([0-9]{4}))? ([0-9:]{8}(?:\.[0-9]{1,9})?)"
    r"|([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}[^\s:]*(?::[0-9]{2})?)):? "
)
_TAG = re.compile(r"([^\s:\[]{1,64})(?:\[([^\s\]]{1,128})\])?: ?")
_HOST = re.compile(r"([^\s:\[]+|[0-9A-Fa-f:.]*[0-9A-Fa-f](?:%[^\s:\[]+)?) ")
"""A name, IPv4 or IPv6 address: not a tag, which ends in a colon."""
_MONTHS = {
    name: number
    for number, name in enumerate("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), 1)  # noqa: SIM905
}

_NONE: Mapping[str, Any] = {}

_encode = msgspec.json.Encoder().encode


class Malformed(Exception):
    """Not a syslog message: the start of RFC 5424 and not the rest of it."""


def to_json(message: bytes, now: float, *, local: bool = False, defaults: Mapping[str, Any] = _NONE) -> bytes | None:
    """One message as one JSON object on one line; None if it is not a syslog message.

    `now`: wall-clock seconds. `local`: it was sent by a program on this host: syslog(3) sends no host name, nginx does.
    `defaults`: fields that stand in front of the message's own, where it has none of that name.
    """
    priority = _PRIORITY.match(message)
    if priority is None or (number := int(priority[1])) >= len(FACILITIES) * 8:
        return None
    try:
        text = message.decode()
        whole = True
    except UnicodeDecodeError:
        text = message.decode(errors=_ESCAPED)
        whole = False
    try:
        fields = _parse(text, priority.end(), number, now, local)
    except Malformed:
        return None
    if not whole:
        fields = _repaired(fields)
    if defaults:
        fields = {name: value for name, value in defaults.items() if name not in fields} | fields
    return _encode(fields)


def _parse(text: str, start: int, priority: int, now: float, local: bool) -> dict[str, Any]:
    fields: dict[str, Any] = {"facility": FACILITIES[priority >> 3], "severity": SEVERITIES[priority & 7]}
    if _IS_5424.match(text, start):
        _add_5424(fields, text, start)
    else:
        _add_3164(fields, text, start, now, local)
    return fields


# -- RFC 5424 ------------------------------------------------------------------------------------------------------


def _add_5424(fields: dict[str, Any], text: str, start: int) -> None:
    header = _5424.match(text, start)
    if header is None:
        raise Malformed
    fields |= {name: value for name, value in zip(_HEADER, header.groups(), strict=True) if value != "-"}
    end = header.end()
    if text[end] == "-":
        end += 1
    else:
        fields["structured_data"], end = _structured_data(text, end)
    if end < len(text):
        if text[end] != " ":
            raise Malformed
        fields["message"] = _trimmed(text[end + 1 :].removeprefix(BOM))


def _structured_data(text: str, start: int) -> tuple[dict[str, Any], int]:
    """The elements that begin here, by their ids, and where they end."""
    elements: dict[str, Any] = {}
    while start < len(text) and text[start] == "[":
        element = _ELEMENT.match(text, start)
        if element is None or element[1] in elements:  # RFC 5424 §6.3.2: no id twice
            raise Malformed
        elements[element[1]] = _parameters(element[2])
        start = element.end()
    return elements, start


def _parameters(text: str) -> dict[str, Any]:
    pairs: list[tuple[str, str]] = _PARAMETER.findall(text)
    if "\\" in text:
        pairs = [(name, _unescaped(sent) if "\\" in sent else sent) for name, sent in pairs]
    parameters: dict[str, Any] = dict(pairs)
    if len(parameters) < len(pairs):
        values: dict[str, list[str]] = {name: [] for name in parameters}
        for name, value in pairs:
            values[name].append(value)
        parameters = {name: each if len(each) > 1 else each[0] for name, each in values.items()}
    return parameters


def _unescaped(sent: str) -> str:
    if "\\\\" in sent:
        return _ESCAPE.sub(r"\1", sent)
    return sent.replace('\\"', '"').replace("\\]", "]")  # several times as fast


# -- RFC 3164 ------------------------------------------------------------------------------------------------------


def _add_3164(fields: dict[str, Any], text: str, start: int, now: float, local: bool) -> None:
    timestamp = _TIMESTAMP.match(text, start)
    if timestamp is not None:
        fields["timestamp"] = timestamp[5] or _with_year(timestamp, now)
        start = timestamp.end()
        if (host := _HOST.match(text, start)) and (not local or _TAG.match(text, host.end())):
            fields["host"] = host[1]
            start = host.end()
    if tag := _TAG.match(text, start):
        fields["app"] = tag[1]
        if tag[2] is not None:
            fields["procid"] = tag[2]
        start = tag.end()
    fields["message"] = _trimmed(text[start:].removeprefix(BOM))


def _with_year(timestamp: re.Match[str], now: float) -> str:
    """The date in ISO 8601, without a time zone. A date more than a day ahead is last year's."""
    month, day, sent_year, clock = timestamp.group(1, 2, 3, 4)
    tomorrow = datetime.fromtimestamp(now, UTC) + _DAY
    number, this = _MONTHS[month], int(day)
    year = sent_year or tomorrow.year - ((number, this) > (tomorrow.month, tomorrow.day))
    return f"{year}-{number:02}-{this:02}T{clock}"


# -- both ----------------------------------------------------------------------------------------------------------


def _trimmed(text: str) -> str:
    """Without the end of line, or the NUL, that many senders add."""
    return text.rstrip("\n\r\0")


def _repaired(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields of a message that is not UTF-8 throughout."""
    repaired: dict[str, Any] = {}
    for name, value in fields.items():
        if name == "message" and not _is_utf8(value):
            repaired["message_base64"] = base64.b64encode(value.encode(errors=_ESCAPED)).decode()
        else:
            repaired[name] = _replaced(value)
    return repaired


def _replaced(value: Any) -> Any:
    if isinstance(value, dict):
        return {_replaced(name): _replaced(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_replaced(each) for each in value]
    return value.encode(errors=_ESCAPED).decode(errors="replace")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
