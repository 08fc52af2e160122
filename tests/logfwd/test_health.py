"""What /readyz, status and the page say is wrong with a forwarder's streams comes from one function."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from logfwd import health
from logfwd.links.failure import Failure


def pipeline(
    *,
    connected: bool = False,
    unlinked: float = 0.0,
    failure: tuple[str, str] | None = None,
    failed_ago: float = 1.0,
    rotation: str = "",
    unreadable: dict[str, str] | None = None,
) -> Any:
    last = None if failure is None else Failure(*failure, at=time.time() - failed_ago)
    sender = SimpleNamespace(
        stream=SimpleNamespace(name="app"),
        connected=connected,
        unlinked_seconds=unlinked,
        rotation_failed=rotation,
        backlog=None,
        delivery=SimpleNamespace(last_failure=last),
    )
    return SimpleNamespace(
        original=SimpleNamespace(name="app"), senders=[sender], unreadable=lambda: dict(unreadable or {})
    )


def said(oldest: float = 0.0, **state: Any) -> Any:
    metrics: Any = SimpleNamespace(oldest_seconds=lambda _: oldest)
    return health.degraded([pipeline(**state)], metrics)


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"connected": True}, None),
        ({"unlinked": 29.0, "failure": ("disconnected", "Connection refused")}, None),
        ({"unlinked": 31.0, "failure": ("disconnected", "refused")}, "no link for 31 s: refused"),
        ({"unlinked": 31.0, "failure": ("disconnected", "old"), "failed_ago": 900.0}, "no link for 31 s"),
        ({"unlinked": 2.0, "failure": ("not_allowed", "may not write 'app'")}, "refused for 2 s: may not write 'app'"),
        ({"connected": True, "rotation": "key values mismatch"}, "no new link can be made, the old one is in use: "),
        ({"connected": True, "oldest": 40.0, "failure": ("topic_missing", "topic app: the topic does not exist")},
         "nothing of it was stored for 40 s: topic app: the topic does not exist"),
        ({"connected": True, "oldest": 40.0}, None),
    ],
)  # fmt: skip
def test_a_link_is_told_of_when_an_operator_can_do_something_about_it(
    state: dict[str, Any], reason: str | None
) -> None:
    found = said(**state)
    assert found == {} if reason is None else found["app/link"].startswith(reason)


def test_files_that_cannot_be_read_are_told_of_with_one_of_them_and_a_count() -> None:
    found = said(connected=True, unreadable={"/var/log/a": "Permission denied", "/var/log/b": "Permission denied"})
    assert found == {"app/source": "cannot be read: /var/log/a: Permission denied, and 1 more"}
