"""A reload of several workers is taken by all of them or by none, whatever one of them does meanwhile."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from logreceiver import together
from logreceiver.together import Together
from tests.support.installation import found

NEW = {"outcome": "checked", "digest": "new", "in_use": "old", "taken": ["deny"], "waits": []} | {
    "links": 2,
    "ends": 1,
    "ending": ["host-1, stream s: why"],
    "reason": "",
    "problems": [],
    "remedy": "",
}
REFUSED = NEW | {"outcome": "refused", "reason": "invalid", "problems": ["allow: is missing"], "remedy": "mend it"}
TAKEN = NEW | {"outcome": "taken", "in_use": "new"}

Answers = Callable[[dict[str, Any]], dict[str, Any] | None]


class Workers:
    """Threads at the other ends; each answers as its script says, and ends where that says None."""

    def __init__(self) -> None:
        self.together = Together()
        self.heard: dict[int, list[str]] = {}
        self._threads: list[threading.Thread] = []
        self._ends: list[socket.socket] = []

    def add(
        self, prepare: dict[str, Any] | None = NEW, take: dict[str, Any] | None = TAKEN, *, uses: str = "old"
    ) -> None:
        number = len(self.heard)
        ours, its = socket.socketpair()
        self.together.add(number, ours)
        self.heard[number] = []
        its.sendall(json.dumps({"ready": uses, "watches": False}).encode() + b"\n")
        script = {"prepare": prepare, "take": take}
        self._threads.append(threading.Thread(target=self._work, args=(its, script, self.heard[number])))
        self._threads[-1].start()
        self._ends.append(ours)
        self.together.hear()

    @staticmethod
    def _work(sock: socket.socket, script: dict[str, dict[str, Any] | None], heard: list[str]) -> None:
        with sock, sock.makefile("rb") as lines:
            for line in lines:
                asked = json.loads(line)
                heard.append(asked["act"])
                if asked["act"] == "drop":
                    continue
                answer = script[asked["act"]]
                if answer is None:
                    return
                sock.sendall(json.dumps({"question": asked["question"], "answer": answer}).encode() + b"\n")

    def close(self) -> None:
        """Returns when each worker has heard all that it was told; a slow one may still have an answer to give."""
        for sock in self._ends:
            with contextlib.suppress(OSError):  # it has been closed already
                sock.shutdown(socket.SHUT_WR)
        for thread in self._threads:
            thread.join()
        for sock in self._ends:
            sock.close()


@pytest.fixture
def workers() -> Iterator[Workers]:
    made = Workers()
    yield made
    made.close()


def outcomes(answer: dict[str, Any]) -> list[str]:
    return [row["outcome"] for row in answer["workers"]]


def test_all_take_what_all_have_prepared(workers: Workers) -> None:
    workers.add()
    workers.add()
    answer = workers.together.reload()
    assert (answer["outcome"], answer["links"], answer["ends"], answer["taken"]) == ("taken", 4, 2, ["deny"])
    assert [(row["worker"], row["in_use"]) for row in answer["workers"]] == [(0, "new"), (1, "new")]
    workers.close()
    assert workers.heard == {0: ["prepare", "take"], 1: ["prepare", "take"]}


@pytest.mark.parametrize(
    ("other", "reason", "problems"),
    [
        (REFUSED, "invalid", ["allow: is missing"]),
        (NEW | {"digest": "newer"}, "the files have changed meanwhile", []),
        (None, "worker 1: it ended meanwhile, and starts again", []),
    ],
)
def test_what_one_does_not_prepare_none_takes(
    workers: Workers, other: dict[str, Any] | None, reason: str, problems: list[str]
) -> None:
    workers.add()
    workers.add(prepare=other)
    answer = workers.together.reload()
    assert (answer["outcome"], answer["reason"], answer["problems"]) == ("refused", reason, problems)
    workers.close()
    assert workers.heard[0] == ["prepare", "drop"]
    assert "take" not in workers.heard[1]


def test_one_that_is_silent_is_not_waited_for(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "PREPARE_SECONDS", 0.05)
    ours, silent = socket.socketpair()
    workers.together.add(7, ours)
    silent.sendall(b'{"ready": "old", "watches": false}\n')
    workers.add()
    answer = workers.together.reload()
    assert (answer["outcome"], answer["reason"]) == ("refused", "worker 7: it did not answer")
    assert sorted(outcomes(answer)) == ["checked", "unknown"]
    silent.close()
    ours.close()


def test_one_that_ends_while_it_takes_is_named(workers: Workers) -> None:
    workers.add()
    workers.add(take=None)
    with capture_logs() as events:
        answer = workers.together.reload()
    assert (answer["outcome"], outcomes(answer)) == ("partly", ["taken", "unknown"])
    assert found(events, "config taken by some workers")[0]["workers"] == [1]


def test_a_check_is_neither_taken_nor_dropped(workers: Workers) -> None:
    workers.add()
    answer = workers.together.reload(check=True)
    assert (answer["outcome"], outcomes(answer)) == ("checked", ["checked"])
    workers.close()
    assert workers.heard[0] == ["prepare"]


def test_without_a_worker_nothing_is_taken_and_a_signal_is_remembered(workers: Workers) -> None:
    assert workers.together.reload()["reason"] == "no worker is running yet"
    workers.together.wanted = True
    workers.together.reload_if_wanted()
    workers.add()
    workers.together.reload_if_wanted()
    workers.close()
    assert workers.heard[0] == ["prepare", "take"]
    assert not workers.together.wanted


def test_one_that_began_before_the_others_took_something_has_them_reload_again(workers: Workers) -> None:
    workers.add()
    workers.together.reload()
    workers.add(uses="new")
    assert not workers.together.wanted
    workers.add(uses="old")
    assert workers.together.wanted
