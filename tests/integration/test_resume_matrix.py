"""The resume rule against real brokers, whole: whatever was stored of a window, each record is there once in the end.

Every combination of 1 to 5 unanswered batches, 0 to 5 of them stored, acknowledgements before them committed or lost,
across a clean restart of the broker, kill -9 of it, and a change of leader. All combinations of one event are streams
of one agent: one event, one drain.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.kafka import Kafka
from tests.support import topics
from tests.support.crashed import Crash
from tests.support.deliveries import crash_all, delivering, drained, stored, without_input
from tests.support.installation import Installation

pytestmark = pytest.mark.kafka
LEADER = 2


def matrix(event: str) -> list[Crash]:
    return [
        Crash(sent, stored, acknowledgements_committed=committed, event=event)
        for sent in range(1, 6)
        for stored in range(sent + 1)
        for committed in (True, False)
    ]


async def finish(crashes: list[Crash], installation: Installation, kafka: Kafka) -> None:
    """Let an agent and a receiver go on; then every record must be there once, in order, without a reset."""
    async with delivering(installation, kafka, without_input(installation, crashes)) as agent:
        await drained(agent)
        resets = {row["stream"]: row["resets"] for row in agent.describe()}
    assert resets == {crash.stream: 0 for crash in crashes}
    for crash in crashes:
        assert await stored(kafka, crash.stream) == crash.records, crash


@pytest.mark.parametrize("event", ["clean-restart", "kill-9"])
async def test_every_window_is_finished_after_a_restart_of_the_broker(
    installation: Installation, kafka: Kafka, event: str
) -> None:
    crashes = matrix(event)
    topics.create(kafka, [crash.stream for crash in crashes])
    await crash_all(crashes, installation, kafka)
    kafka.restart(clean=event == "clean-restart")
    await finish(crashes, installation, kafka)


async def test_every_window_is_finished_after_a_change_of_leader(installation: Installation, tmp_path: Path) -> None:
    crashes = matrix("leader-change")
    async with Kafka(tmp_path / "kafka", brokers=3) as kafka:
        names = [crash.stream for crash in crashes]
        topics.create(kafka, names, replicas=[LEADER, 3, 1], settings={"min.insync.replicas": "2"})
        await crash_all(crashes, installation, kafka)
        kafka.kill(LEADER)
        await finish(crashes, installation, kafka)
