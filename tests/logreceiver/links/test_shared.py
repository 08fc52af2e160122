"""What sessions share: the boots of forwarders, and the memory that windows are cut from."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from logreceiver.config import Limits
from logreceiver.links.grants import Grants
from logreceiver.links.shared import Boots, Shared
from logreceiver.metrics import ReceiverMetrics
from streams.errors import Code
from streams.telemetry.metrics import CollectorRegistry
from tests.logreceiver.links.test_storing import CONFIG
from tests.support.sinks import ModelHarness

KEY = ("spiffe://site/host", "forwarder", "http")


def test_a_restarted_forwarder_is_not_a_clone_and_one_that_takes_turns_is() -> None:
    boots = Boots()
    assert [boots.alternate(KEY, boot) for boot in "AABBCC"] == [False] * 6
    assert [boots.alternate(KEY, boot) for boot in "DCDD"] == [False, True, True, False]


def test_forwarders_of_other_streams_are_not_clones() -> None:
    boots = Boots()
    other = (*KEY[:2], "dns")
    assert not any(boots.alternate(key, boot) for key, boot in [(KEY, "A"), (other, "B"), (KEY, "A"), (other, "B")])


def test_what_is_remembered_is_bounded() -> None:
    boots = Boots()
    boots.MAX_KEYS = 10
    for number in range(100):
        boots.alternate(("id", str(number), "http"), "A")
    assert len(boots._seen) == 10


class Session:
    def end(self, code: Code, text: str) -> None: ...


@pytest.mark.parametrize(("links", "window"), [(0, 5), (2, 5), (3, 4), (7, 2), (15, 1), (99, 1)])
def test_all_links_together_stay_within_the_memory_limit_with_at_least_one_batch_each(links: int, window: int) -> None:
    config = replace(CONFIG, limits=Limits(max_memory_bytes=16 << 20))
    shared = Shared(config, ModelHarness().sink, Grants({"1": b"k" * 16}), ReceiverMetrics(CollectorRegistry()))
    shared.sessions = {("identity", str(number), "http"): Session() for number in range(links)}
    assert shared.window(1 << 20) == window
