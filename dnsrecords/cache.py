"""Answers, kept for as long as their TTL allows.  It is told the time."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

from dnsrecords.question import Answer, Question, Status

# Our choice: of all answers together.  A stranger's zone may have one of 64 kilobytes for each name
# that he has us ask for.
MAX_OCTETS = 16 << 20


class AnswerCache:
    """At most ``entries`` answers, and ``octets`` of records; the one kept longest goes first.

    Negative answers are kept as well (RFC 2308); answers without a lifetime,
    and the lack of any, are not.
    """

    def __init__(self, entries: int, octets: int = MAX_OCTETS) -> None:
        self._entries = entries
        self._most_octets = octets
        self._octets = 0
        self._kept: OrderedDict[Question, tuple[float, Answer]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def store(self, answer: Answer, now: float) -> None:
        """Keep ``answer`` until ``now`` plus its TTL."""
        if answer.status is Status.UNANSWERED or answer.ttl <= 0:
            return
        self._drop(answer.question)
        self._kept[answer.question] = (now + answer.ttl, answer)
        self._octets += _size(answer)
        while len(self._kept) > self._entries or self._octets > self._most_octets:
            self._drop(next(iter(self._kept)))

    def _drop(self, question: Question) -> None:
        if (kept := self._kept.pop(question, None)) is not None:
            self._octets -= _size(kept[1])

    def find(self, question: Question, now: float) -> Answer | None:
        """The answer to ``question`` with what is left of its TTL, or None."""
        if (kept := self._kept.get(question)) is None:
            return None
        expires, answer = kept
        if expires <= now:
            self._drop(question)
            return None
        return replace(answer, ttl=expires - now)

    def forget(self) -> None:
        """Drop everything."""
        self._kept.clear()
        self._octets = 0


def _size(answer: Answer) -> int:
    return sum(map(len, answer.records))
