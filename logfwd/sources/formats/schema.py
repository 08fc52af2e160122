"""The JSON Schema of the records that the forwarder makes, for their consumers (docs/records.md)."""

from __future__ import annotations

from typing import Any

RECORD: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "A record made by logfwd",
    "description": "Fields of a record whose line was not a JSON object, and fields that the forwarder adds. Other "
    "fields are those of the line itself, of [add] and of source.path_field.",
    "type": "object",
    "properties": {
        "message": {"type": "string", "description": "The text of the line, or of a part of it."},
        "message_base64": {
            "type": "string",
            "contentEncoding": "base64",
            "description": 'With format = "json": the bytes of a line that is not UTF-8, or of a part of it.',
        },
        "time": {
            "type": "string",
            "description": 'With format = "cri" or "docker": when the container wrote the line, or its first part.',
        },
        "stream": {"type": "string", "description": 'With format = "cri" or "docker": stdout or stderr.'},
        "attrs": {"type": "object", "description": 'With format = "docker": what the driver adds to each line.'},
        "invalid": {"const": True, "description": "The line is not what the format says."},
        "part": {"type": "integer", "minimum": 1, "description": "The number of this part of a line."},
        "parts": {"type": "integer", "minimum": 1, "description": "How many parts the line has."},
        "kubernetes": {
            "type": "object",
            "description": "With source.kubernetes: what the name of the log file says.",
            "properties": {key: {"type": "string"} for key in ("namespace", "pod", "uid", "container", "container_id")},
            "required": ["namespace", "pod", "container"],
        },
        "line_id": {
            "type": "string",
            "pattern": "^[0-9a-f]{16}$",
            "description": "Common to the parts of one line, and to no other line of the stream.",
        },
    },
    "dependentRequired": {"part": ["line_id"], "parts": ["part"], "line_id": ["part"]},
}
