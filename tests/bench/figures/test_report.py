"""What the measuring commands share: failures and wrong options are messages, never tracebacks."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from bench.figures import report
from bench.lab.kafkatools import KafkaFailed
from bench.lab.processes import StartFailed
from bench.speed.backlog import backlog
from bench.speed.latency import latency
from bench.speed.links import links
from bench.speed.sustained import ramp


@pytest.mark.parametrize("failure", [StartFailed("logfwd: ended with 78"), KafkaFailed("run `uv sync --group kafka`")])
def test_a_program_that_does_not_start_is_a_message(failure: Exception) -> None:
    with pytest.raises(click.ClickException, match=str(failure)), report.workplace(as_json=False) as (directory, _):
        raise failure
    assert not directory.exists()


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        (latency, "--percent", "ten"),
        (latency, "--percent", "0"),
        (ramp, "--percent", "50,"),
        (links, "--links", "0"),
        (links, "--links", "1;10"),
        (backlog, "--size", "much"),
    ],
)
def test_a_wrong_number_is_refused_before_anything_starts(command: click.Command, option: str, value: str) -> None:
    answer = CliRunner().invoke(command, [option, value])
    assert (answer.exit_code, option in answer.output) == (2, True)
