"""A reload of several workers: each prepares it, then all take it, or none does.

The parent asks, a line of JSON at a time, over a pair of sockets to each worker. A worker that refuses, ends or does
not answer while it prepares has the others keep what they use. After that nothing can be refused: a worker that ends
meanwhile starts again with what the others have taken.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterable, Mapping
from itertools import count
from typing import Any

import structlog

from streams import descriptors

PREPARE_SECONDS = 30.0
TAKE_SECONDS = 15.0
QUESTION_SECONDS = 5.0
READ_BYTES = 65536
AGAIN = "reload again"
NO_ANSWER = "it did not answer"
NOT_AWAITED = "its answer was not awaited"
HAS_ENDED = "it ended meanwhile, and starts again"

ROW = ("outcome", "digest", "in_use", "links", "ends", "reason")
"""What an answer says of each worker."""

Answer = dict[str, Any]

log = structlog.get_logger("logreceiver")


class _Channel:
    """The parent's end of the connection to one worker."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock, self.unread = sock, b""
        self.is_ready = False
        """Whether it serves links, with a configuration."""

    def say(self, words: Mapping[str, object]) -> None:
        try:
            self.sock.sendall(json.dumps(words).encode() + b"\n")
        except OSError:  # it has ended, or reads nothing: then it gives no answer either
            return

    def hear(self) -> list[Answer] | None:
        """What it has said; None when it has ended."""
        try:
            data = self.sock.recv(READ_BYTES)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        *lines, self.unread = (self.unread + data).split(b"\n")
        return [json.loads(line) for line in lines] if data else None


class Together:
    """The workers that run, by number. `wanted`: a reload is to be made as soon as there is a worker for it."""

    def __init__(self) -> None:
        self._channels: dict[int, _Channel] = {}
        self._numbers = count(1)
        self._in_use = ""
        """Digest of what was taken last; "" before the first reload."""
        self._seen: set[int] = set()
        self.wanted = False

    def add(self, number: int, sock: socket.socket) -> None:
        self._channels[number] = _Channel(sock)

    def remove(self, number: int) -> None:
        if (channel := self._channels.pop(number, None)) is not None:
            channel.sock.close()

    def sockets(self) -> list[socket.socket]:
        return [channel.sock for channel in self._channels.values()]

    def hear(self) -> None:
        """Take note of what workers say without being asked."""
        self._hear(0, {})

    def reload_if_wanted(self) -> None:
        """What SIGHUP asks for, or the worker that watches the files."""
        if self.wanted and self._ready():
            self.wanted = False
            self.reload()

    def answer(self, asked: Mapping[str, Any]) -> Answer:
        """What an operator asks for."""
        return self.reload(check=bool(asked.get("check")), confirm=str(asked.get("confirm", "")))

    def question(self, act: str, _: Mapping[str, Any]) -> Answer:
        """How they do: what each worker answers, and who does not."""
        answers = self._ask(self._ready(), QUESTION_SECONDS, act=act)
        said = {number: answer for number, answer in answers.items() if answer.get("outcome") != "unknown"}
        silent = sorted(self._channels.keys() - said.keys())
        return {"workers": [{"worker": number, **answer} for number, answer in said.items()], "silent": silent}

    def reload(self, *, check: bool = False, confirm: str = "") -> Answer:
        """The answer of all workers as one, with a row for each in `workers`."""
        numbers = self._ready()
        prepared = self._ask(numbers, PREPARE_SECONDS, until_refused=True, act="prepare", check=check, confirm=confirm)
        if refusal := _refusal(prepared):
            self._tell(numbers, act="drop", check=check, reason=refusal["reason"], remedy=refusal["remedy"])
            return _as_one(refusal, prepared)
        if check:
            return _as_one({}, prepared)
        taken = self._ask(numbers, TAKE_SECONDS, act="take")
        late = [number for number, answer in taken.items() if answer["outcome"] != "taken"]
        for number in set(numbers) - set(late):
            self._in_use = taken[number]["in_use"]
        if not late:
            return _as_one({}, taken)
        log.error("config taken by some workers", workers=late, remedy="see why they do not answer; reload again")
        return _as_one({"outcome": "partly", "remedy": AGAIN}, taken)

    def _ready(self) -> list[int]:
        return sorted(number for number, channel in self._channels.items() if channel.is_ready)

    def _tell(self, numbers: Iterable[int], **words: object) -> None:
        for number in numbers:
            if number in self._channels:
                self._channels[number].say(words)

    def _ask(
        self, numbers: list[int], seconds: float, *, until_refused: bool = False, **words: object
    ) -> dict[int, Answer]:
        """What each of these workers answers within this time, or why it does not. `until_refused`: by one of them."""
        question, answers = next(self._numbers), dict[int, Answer]()
        self._tell(numbers, question=question, **words)
        deadline, why = time.monotonic() + seconds, NO_ANSWER
        while (missing := [number for number in numbers if number not in answers]) and time.monotonic() < deadline:
            if until_refused and any(answer["outcome"] in ("refused", "unknown") for answer in answers.values()):
                why = NOT_AWAITED
                break
            socks = [self._channels[number].sock for number in missing]
            descriptors.wait_readable(socks, max(deadline - time.monotonic(), 0.0))
            self._hear(question, answers)
        return {number: answers.get(number, _unknown(why)) for number in numbers}

    def _hear(self, question: int, answers: dict[int, Answer]) -> None:
        for number, channel in self._channels.items():
            said = channel.hear()
            if said is None:
                channel.is_ready = False
                answers.setdefault(number, _unknown(HAS_ENDED))
            for words in said or ():
                if words.get("question") == question:
                    answers[number] = words["answer"]
                elif "ready" in words:
                    channel.is_ready = True
                    self.wanted = self.wanted or self._has_missed(number, words)
                self.wanted = self.wanted or "wanted" in words

    def _has_missed(self, number: int, words: Mapping[str, Any]) -> bool:
        """Whether a worker that is ready now began before the others took something, or did not watch meanwhile."""
        began_again = number in self._seen
        self._seen.add(number)
        return self._in_use not in ("", words["ready"]) or (words["watches"] and began_again)


def _unknown(reason: str) -> Answer:
    empty = {"digest": "", "in_use": "", "links": 0, "ends": 0, "ending": [], "taken": [], "waits": [], "problems": []}
    return {"outcome": "unknown", "reason": reason, **empty}


def _refusal(prepared: Mapping[int, Answer]) -> Answer:
    """Why this cannot be taken; empty if it can."""
    if not prepared:
        return {"outcome": "refused", "reason": "no worker is running yet", "problems": [], "remedy": AGAIN}
    for answer in prepared.values():
        if answer["outcome"] == "refused":
            return answer
    for number, answer in prepared.items():
        if answer["outcome"] == "unknown" and answer["reason"] != NOT_AWAITED:
            reason = f"worker {number}: {answer['reason']}"
            return {"outcome": "refused", "reason": reason, "remedy": AGAIN}
    if len({answer["digest"] for answer in prepared.values()}) > 1:
        return {"outcome": "refused", "reason": "the files have changed meanwhile", "remedy": AGAIN}
    return {}


def _as_one(verdict: Mapping[str, Any], answers: Mapping[int, Answer]) -> Answer:
    """The first answer that says something, what overrides it, and every worker's own in short."""
    said = [answer for answer in answers.values() if answer["outcome"] != "unknown"]
    first = next(iter(said or answers.values()), {})
    rows = [{"worker": number} | {name: answer[name] for name in ROW} for number, answer in answers.items()]
    sums = {name: sum(answer[name] for answer in answers.values()) for name in ("links", "ends")}
    ending = sorted({row for answer in answers.values() for row in answer["ending"]})
    return {**first, **verdict, **sums, "ending": ending, "workers": rows}
