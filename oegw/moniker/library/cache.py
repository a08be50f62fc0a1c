"""Answers for as long as they hold (MK-30).  Without IO, and without a lock: a child may be forked
at any moment, so each step is one that other threads see whole."""

from __future__ import annotations

from dataclasses import dataclass

from oegw.moniker.interface import IPAddress
from oegw.moniker.names import ServiceName
from oegw.moniker.wire import Answer

# Our choices.
MAX_ANSWERS = 1024
MAX_SECONDS = 3600
MARGIN = 0.1  # of its time an answer is not used at the end: the connection needs some too


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked, of whom."""

    address: IPAddress
    port: int
    name: ServiceName
    transport: str | None


@dataclass(frozen=True, slots=True)
class Remembered:
    answer: Answer
    encrypted: bool
    until: float


class Cache:
    """Oldest out first, where there are too many."""

    def __init__(self, most: int = MAX_ANSWERS) -> None:
        self._most = most
        self._answers: dict[Asked, Remembered] = {}

    def __len__(self) -> int:
        return len(self._answers)

    def find(self, asked: Asked, now: float) -> Remembered | None:
        found = self._answers.get(asked)
        if found is not None and now >= found.until:
            self.forget(asked)
            return None
        return found

    def remember(self, asked: Asked, answer: Answer, *, encrypted: bool, now: float) -> None:
        """An answer with a TTL of 0 is not remembered."""
        if answer.ttl > 0:
            seconds = min(answer.ttl, MAX_SECONDS) * (1 - MARGIN)
            self._answers.pop(asked, None)  # so that it is the youngest
            self._answers[asked] = Remembered(answer, encrypted, now + seconds)
            while len(self._answers) > self._most:
                self._answers.pop(next(iter(tuple(self._answers))), None)

    def forget(self, asked: Asked) -> None:
        self._answers.pop(asked, None)

    def forget_all(self) -> None:
        self._answers.clear()
