"""The DNS of a town: zones that a test writes, asked in virtual time.

What real resolvers do is the real code's: `dnsrecords.lookup` asks, `dnsrecords.cache` remembers.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa

from dnsrecords.cache import AnswerCache
from dnsrecords.delegation import Delegation
from dnsrecords.key import HostKey
from dnsrecords.question import Answer, Question, Status
from dnsrecords.reverse import reverse_name
from dnsrecords.trust import Trust

IPAddress = IPv4Address | IPv6Address
Later = Callable[[float, Callable[[], None]], None]


def owner(name: IPAddress | str) -> str:
    return name.lower().rstrip(".") + "." if isinstance(name, str) else reverse_name(name)


@dataclass
class Zones:
    """What is published.  ``ttl`` and ``minimum`` in seconds; ``delay`` of each answer."""

    ttl: float = 3600.0
    minimum: float = 300.0
    delay: float = 0.005
    records: dict[Question, list[bytes]] = field(default_factory=dict)
    trust: dict[str, Trust] = field(default_factory=dict)  # by name
    silent: set[str] = field(default_factory=set)  # names that nobody answers for
    dead: bool = False  # whether nothing is answered

    def publish(self, name: IPAddress | str, rdtype: str, rdata: bytes) -> None:
        self.records.setdefault(Question(owner(name), rdtype), []).append(rdata)

    def withdraw(self, name: IPAddress | str, rdtype: str) -> None:
        self.records.pop(Question(owner(name), rdtype), None)

    def publish_key(self, name: IPAddress | str, key: rsa.RSAPublicKey) -> None:
        self.publish(name, "KEY", HostKey(key).serialize())

    def delegate(
        self,
        client: IPAddress,
        gateway: IPAddress | str,
        key: rsa.RSAPublicKey | None = None,
        precedence: int = 10,
    ) -> None:
        named = isinstance(gateway, str)
        record = Delegation(precedence, None if named else gateway, gateway if named else None, key)
        self.publish(client, "TXT", record.serialize())

    def answer(self, question: Question) -> Answer | None:
        """None: silence."""
        if self.dead or question.name in self.silent:
            return None
        trust = self.trust.get(question.name, Trust.INSECURE)
        if trust is Trust.BOGUS:
            return Answer(question, Status.UNANSWERED, trust=trust, detail="bogus")
        records = self.records.get(question)
        if records:
            return Answer(question, Status.ANSWERED, tuple(records), self.ttl, trust)
        known = any(q.name == question.name and r for q, r in self.records.items())
        status = Status.NO_DATA if known else Status.NO_NAME
        return Answer(question, status, (), self.minimum, trust, "no such record")


class Stub:
    """One gateway's resolver: memory, shared questions, time-outs; it counts what it asks."""

    def __init__(self, zones: Zones, later: Later, now: Callable[[], float], seed: str) -> None:
        self.zones = zones
        self.asked: list[Question] = []
        self.notes: Counter[str] = Counter()
        self.timeout = 3.0
        self._later = later
        self._now = now
        self._cache = AnswerCache(10000)
        self._waiting: dict[Question, list[Callable[[Answer], None]]] = {}
        self.shuffle = random.Random(seed).shuffle

    def forget(self) -> None:
        self._cache.forget()

    def run(self, lookup: Any, done: Callable[[Any], None]) -> None:
        """Ask what ``lookup`` wants to know; ``done`` is called once, with its result."""
        finished = False

        def go_on(answer: Answer | None = None) -> None:
            nonlocal finished
            if finished:
                return
            if answer is not None:
                lookup.receive_answer(answer)
            while (question := lookup.next_question()) is not None:
                self._ask(question, go_on)
            if lookup.result is not None:
                finished = True
                self.notes.update(trigger for trigger, _ in lookup.notes)
                self._later(0.0, lambda: done(lookup.result))

        go_on()

    def _ask(self, question: Question, heard: Callable[[Answer], None]) -> None:
        kept = self._cache.find(question, self._now())
        if kept is not None:
            self._later(0.0, lambda: heard(kept))
            return
        if question in self._waiting:
            self._waiting[question].append(heard)
            return
        self._waiting[question] = [heard]
        self.asked.append(question)
        answer = self.zones.answer(question)
        if answer is None:
            silence = Answer(question, Status.UNANSWERED, detail="no answer in time")
            self._later(self.timeout, lambda: self._answered(silence))
        else:
            there = replace(answer)
            self._later(self.zones.delay, lambda: self._answered(there))

    def _answered(self, answer: Answer) -> None:
        self._cache.store(answer, self._now())
        for heard in self._waiting.pop(answer.question, []):
            heard(answer)
