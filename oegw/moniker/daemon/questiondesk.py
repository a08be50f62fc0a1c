"""From a question's octets to the answer's: what the core wants done on the way is done here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Protocol

from oegw.moniker import wire
from oegw.moniker.answering import Answering
from oegw.moniker.daemon.ports import Ports
from oegw.moniker.interface import Lease, LeaseRefused, Opener, Opening
from oegw.moniker.steps import AskHost, HandOver, OpenPort, Reply, Silence, Source, Step
from oegw.moniker.wire import Answer, Code, Refusal
from oegw.sst.allowance import Allowance
from oegw.trace import Trace

# Our choices: lines of the trace about what was told, whatever is asked.
LINES_PER_SECOND = 20.0
LINES_AT_ONCE = 100.0

OTHERS_TRIED = 3  # instances, after one whose port was given back

GOOD = ("moniker_answered", "moniker_listed")
"""Steps after which the asker has what it asked for."""


class Directory(Protocol):
    """The site directory: asks the hosts behind us (MK-14)."""

    async def ask(self, step: AskHost, seconds: int) -> tuple[Answer | Refusal, Opening | None]:
        """What the host said, and what was opened for an Answer.  Raises LeaseRefused."""
        ...


class QuestionDesk:
    """``counters``: what became of questions, by the core's names of it.

    ``given_back``: whether an entry is no more, or its port has been given back.
    """

    def __init__(
        self,
        answering: Answering,
        given_back: Callable[[int], bool],
        ports: Ports,
        opener: Opener,
        directory: Directory | None,
        trace: Trace,
        *,
        clock: Callable[[], float],
        lease: int,
    ) -> None:
        self._answering = answering
        self._given_back = given_back
        self._ports = ports
        self._opener = opener
        self._directory = directory
        self._trace = trace
        self._clock = clock
        self.lease = lease
        self.counters: Counter[str] = Counter()
        self._lines = Allowance(LINES_PER_SECOND, LINES_AT_ONCE)

    def asked(self, octets: bytes, source: Source, *, busy: bool) -> Step:
        """What is to be done about a question, counted.  Never raises."""
        step = self._answering.asked(octets, source, self._clock(), busy=busy)
        for _ in range(OTHERS_TRIED):
            if not (isinstance(step, OpenPort) and self._given_back(step.entry.number)):
                break
            step = self._answering.asked(octets, source, self._clock(), busy=busy)
        self._count(step, source)
        return step

    async def reply(self, step: OpenPort | AskHost) -> Reply | Silence:
        """The answer, when the port is open or is not.  Never raises."""
        if isinstance(step, OpenPort):
            reply = await self._open(step)
        else:
            reply = await self._ask_host(step)
        self._count(reply, step.question.source)
        return reply

    async def _open(self, step: OpenPort) -> Reply | Silence:
        service = step.entry.service
        try:
            opening = await self._opener.open(step.lease)
        except LeaseRefused as refused:
            return self._answering.not_opened(step, refused)
        if self._given_back(step.entry.number):  # it ended while its port was opened
            self._ports.opened_late(service.place)
            ended = LeaseRefused(Code.UNKNOWN.value, "no such service")
            return self._answering.not_opened(step, ended)
        self._leased(step.lease, opening)
        return self._answering.opened(step, opening)

    async def _ask_host(self, step: AskHost) -> Reply | Silence:
        if self._directory is None:
            refused = LeaseRefused(Code.UNKNOWN.value, "no such service")
            return self._answering.not_opened(step, refused)
        try:
            said, opening = await self._directory.ask(step, self.lease)
        except LeaseRefused as refused:
            return self._answering.not_opened(step, refused)
        if isinstance(said, Answer) and opening is not None:
            self._leased(step.lease(said, self.lease), opening)
        return self._answering.forwarded(step, said, opening)

    def _leased(self, lease: Lease, opening: Opening) -> None:
        """A line of the trace (MK-32), as far as there is room for it."""
        if not self._lines.take(self._clock()):
            self._trace.drop("moniker", "told_unwritten", service=lease.service)
            return
        self._trace.event(
            "moniker", "told", client=lease.client, host=lease.host, service=lease.service,
            namespace=lease.namespace or wire.SYSTEM_FIELD, transport=lease.transport,
            port=lease.port, told=opening.port, seconds=opening.seconds,
        )  # fmt: skip

    def _count(self, step: Step, source: Source) -> None:
        """Refusals are drops of the trace, a few lines a second; answers are only counted."""
        self.counters[step.trigger] += 1
        if isinstance(step, Reply | Silence) and step.trigger not in GOOD:
            self._trace.drop("moniker", step.trigger, source=source.address, asked=source.asked)

    def handed_over(self, step: HandOver) -> None:
        """A line of the trace: the server has the connection."""
        service = step.entry.service
        if not self._lines.take(self._clock()):
            self._trace.drop("moniker", "handed_over_unwritten", service=service.service)
            return
        self._trace.event(
            "moniker", "handed_over", client=step.question.source.address,
            service=service.service, namespace=service.namespace or wire.SYSTEM_FIELD,
            port=service.port, pid=step.entry.owner.pid,
        )  # fmt: skip
