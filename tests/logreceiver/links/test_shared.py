"""What sessions share: the boots of forwarders."""

from __future__ import annotations

from logreceiver.links.shared import Boots

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
