"""Fields that the name of a file gives to its records: the name itself, and what Kubernetes writes into it. No I/O."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import lru_cache

import msgspec

from logfwd.sources.settings import FileSource

_MOST_KNOWN_NAMES = 65_536
_POD = re.compile(r"/pods/(?P<namespace>[^/_]+)_(?P<pod>[^/_]+)_(?P<uid>[^/_]+)/(?P<container>[^/]+)/[0-9]+\.log$")
_CONTAINER = re.compile(
    r"/containers/(?P<pod>[^/_]+)_(?P<namespace>[^/_]+)_(?P<container>[^/]+)-(?P<container_id>[0-9a-f]{64})\.log$"
)
_encode = msgspec.json.Encoder().encode


def fields_by_name(settings: FileSource) -> Callable[[str], bytes] | None:
    """From a file's name to members of a JSON object, without its braces; None if the source adds none."""
    path_field, kubernetes = settings.path_field, settings.kubernetes
    if path_field is None and not kubernetes:
        return None

    @lru_cache(_MOST_KNOWN_NAMES)
    def fields(name: str) -> bytes:
        found: dict[str, object] = {}
        if path_field is not None:
            found[path_field] = os.fsencode(name).decode(errors="replace")
        if kubernetes and (known := in_kubernetes(name)):
            found["kubernetes"] = known
        return _encode(found)[1:-1]

    return fields


def in_kubernetes(name: str) -> dict[str, str]:
    """What the name of a log below /var/log/pods or /var/log/containers says; nothing of any other name."""
    found = _POD.search(name) or _CONTAINER.search(name)
    if found is None:
        return {}
    named = {key: os.fsencode(text).decode(errors="replace") for key, text in found.groupdict().items()}
    order = ("namespace", "pod", "uid", "container", "container_id")
    return {key: named[key] for key in order if key in named}
