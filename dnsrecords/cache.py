"""Answers, kept for as long as their TTL allows.  It is told the time."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

from dnsrecords.question import Answer, Question, Status


class AnswerCache:
    """At most ``entries`` answers; the one kept longest goes first.

    Negative answers are kept as well (RFC 2308); answers without a lifetime,
    and the lack of any, are not.
    """

    def __init__(self, entries: int) -> None:
        self._entries = entries
        self._kept: OrderedDict[Question, tuple[float, Answer]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def store(self, answer: Answer, now: float) -> None:
        """Keep ``answer`` until ``now`` plus its TTL."""
        if answer.status is Status.UNANSWERED or answer.ttl <= 0:
            return
        self._kept.pop(answer.question, None)
        self._kept[answer.question] = (now + answer.ttl, answer)
        while len(self._kept) > self._entries:
            self._kept.popitem(last=False)

    def find(self, question: Question, now: float) -> Answer | None:
        """The answer to ``question`` with what is left of its TTL, or None."""
        if (kept := self._kept.get(question)) is None:
            return None
        expires, answer = kept
        if expires <= now:
            del self._kept[question]
            return None
        return replace(answer, ttl=expires - now)

    def forget(self) -> None:
        """Drop everything."""
        self._kept.clear()
