"""The questions of a look-up: which are still to be asked, and which are under way."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from dnsrecords.question import Answer, Question

PurposeT = TypeVar("PurposeT")


class Questions(Generic[PurposeT]):
    """Each question is asked once, for any number of purposes; answers come in any order."""

    def __init__(self) -> None:
        self._waiting: deque[Question] = deque()
        self._purposes: dict[Question, list[PurposeT]] = {}  # of all that are not answered

    def __bool__(self) -> bool:
        """Whether there are any, asked or not."""
        return bool(self._purposes)

    def add(self, question: Question, purpose: PurposeT) -> None:
        if question not in self._purposes:
            self._purposes[question] = []
            self._waiting.append(question)
        self._purposes[question].append(purpose)

    def next(self) -> Question | None:
        """One that was not asked yet."""
        return self._waiting.popleft() if self._waiting else None

    def answered(self, answer: Answer) -> list[PurposeT]:
        """What the answer is for.  Raises RuntimeError if its question is not under way."""
        question = answer.question
        if question not in self._purposes or question in self._waiting:
            raise RuntimeError(f"answer to {question}, which is not under way")
        return self._purposes.pop(question)

    def drop(self) -> None:
        """No answer matters any more."""
        self._waiting.clear()
        self._purposes.clear()
