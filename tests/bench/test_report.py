"""What the measuring commands share: a failure is a message with exit code 1, never a traceback."""

from __future__ import annotations

import click
import pytest

from bench import report
from bench.kafkatools import KafkaFailed
from bench.processes import StartFailed


@pytest.mark.parametrize("failure", [StartFailed("logfwd: ended with 78"), KafkaFailed("run `uv sync --group kafka`")])
def test_a_program_that_does_not_start_is_a_message(failure: Exception) -> None:
    with pytest.raises(click.ClickException, match=str(failure)), report.workplace(as_json=False) as (directory, _):
        raise failure
    assert not directory.exists()
