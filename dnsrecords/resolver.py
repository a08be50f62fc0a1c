"""Questions to name servers, with all that can go wrong: the shell of this room.

A stub (RFC 1034 section 5.3.1): the servers asked do the recursion, and the validation.  Those on
a trusted path may say what DNSSEC makes of an answer; what others say is INSECURE, always.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import Any, Protocol, TypeVar

import dns.exception
import dns.name
import dns.rdatatype

from dnsrecords.budget import Budget
from dnsrecords.cache import AnswerCache
from dnsrecords.errors import RecordError
from dnsrecords.exchange import Exchange
from dnsrecords.outcome import IPAddress, Malformed
from dnsrecords.question import Answer, Question, Status
from dnsrecords.response import MAX_ALIASES, Response, Verdict
from dnsrecords.trust import Trust, weakest
from dnsrecords.upstream import ServerReport, Standing, Upstream, in_order

# Specification: resolv.conf(5).
MAX_SYSTEM_RESOLVERS = 3

Listener = Callable[[str, dict[str, Any]], None]
OutcomeT = TypeVar("OutcomeT", covariant=True)

_STATUS = {
    Verdict.ANSWERED: Status.ANSWERED,
    Verdict.NO_DATA: Status.NO_DATA,
    Verdict.NO_NAME: Status.NO_NAME,
    Verdict.BOGUS: Status.UNANSWERED,
}
# What a server says if it has something to say about the name.
_KNOWS = (Verdict.ANSWERED, Verdict.NO_DATA, Verdict.NO_NAME, Verdict.ALIAS)


class Lookup(Protocol[OutcomeT]):
    """What `Resolver.run` drives: see dnsrecords.lookup."""

    notes: list[tuple[str, str]]

    @property
    def result(self) -> OutcomeT | None: ...

    def next_question(self) -> Question | None: ...

    def receive_answer(self, answer: Answer) -> None: ...


@dataclass(slots=True)
class _UnderWay:
    """A question being asked, and how many wait for its answer."""

    task: asyncio.Task[Answer]
    waiting: int = 0


@dataclass(slots=True)
class _Try:
    """One server being asked; ``counted``: it took too long, and the server's books say so."""

    upstream: Upstream
    began: float
    counted: bool = False


class Resolver:
    """Asks ``servers``, in turn, and remembers what they said.

    ``trusted`` are those of them that validate, with nobody in between: their AD flag makes an
    answer SECURE, and what they refuse to validate is BOGUS.

    A server is asked at most ``tries`` times: the second and each further time after twice the wait
    of the one before, the first of which is ``timeout``.  All tries are listened to until the
    first that knows, so that a slow server's answer counts; a dead one is tried once, and later
    than the others.  ``deadline`` is for one question with all its tries, CNAMEs and TCP
    connections.  All are in seconds.  ``mark`` is set on every socket (SO_MARK, needs
    CAP_NET_ADMIN), so that the gateway's own questions pass its own traps.

    ``listener`` hears "query", "answer", "dropped", "note" and "server", each with its fields.
    "dropped" and "note" have a ``trigger``; "server" tells that one of them has become slow or
    dead, or is well again.
    """

    def __init__(
        self,
        servers: Sequence[IPAddress],
        *,
        trusted: Collection[IPAddress] = (),
        timeout: float = 1.0,
        tries: int = 3,
        deadline: float = 5.0,
        mark: int | None = None,
        port: int = 53,
        cache_entries: int = 10000,
        budget: Budget | None = None,
        listener: Listener | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not servers:
            raise ValueError("a resolver needs at least one server")
        self._upstreams = [
            Upstream(each, trusted=each in trusted, timeout=timeout)
            for each in dict.fromkeys(servers)
        ]
        self._timeout = timeout
        self._tries = tries
        self._deadline = deadline
        self._mark = mark
        self._port = port
        self._cache = AnswerCache(cache_entries)
        self._budget = budget or Budget()
        self._listener = listener
        self._clock = clock
        self._under_way: dict[Question, _UnderWay] = {}
        self._probes: set[asyncio.Task[None]] = set()
        self._closed = False

    async def run(self, lookup: Lookup[OutcomeT], *, ours: bool = False) -> OutcomeT:
        """Ask what ``lookup`` wants to know, all at the same time, until it has a result."""
        asked: set[asyncio.Task[Answer]] = set()
        try:
            while True:
                while (question := lookup.next_question()) is not None:
                    asked.add(asyncio.create_task(self.ask(question, ours=ours)))
                if (result := lookup.result) is not None or not asked:
                    break
                done, asked = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
                for each in done:
                    lookup.receive_answer(each.result())
        finally:
            for each in asked:
                each.cancel()
        for trigger, detail in lookup.notes:
            self._tell("note", trigger=trigger, detail=detail)
        if result is None:
            raise RuntimeError("the look-up neither asks nor has a result")
        if isinstance(result, Malformed):
            self._tell("dropped", trigger="dns_record_malformed", detail=result.detail)
        return result

    async def ask(self, question: Question, *, ours: bool = False) -> Answer:
        """The answer, from memory or from a server; never raises for what the DNS does.

        Those who ask the same at the same time share one query.  It ends with
        the last of them that is cancelled.  ``ours``: it may use the part of the budget that is
        kept from what strangers cause.
        """
        if self._closed:
            return _unanswered(question, "resolver is closed")
        now = self._clock()
        if (kept := self._cache.find(question, now)) is not None:
            self._tell_answer(kept, 0.0, cached=True)
            return kept
        under_way = self._under_way.get(question)
        if under_way is None:
            refusal = self._budget.refusal(len(self._under_way), now, ours=ours)
            if refusal is not None:
                self._tell_dropped(refusal, question)
                return _unanswered(question, "too many look-ups")
            under_way = self._start(question)
        under_way.waiting += 1
        try:
            await asyncio.wait([under_way.task])
        finally:
            under_way.waiting -= 1
            if not under_way.waiting and not under_way.task.done():
                under_way.task.cancel()
                # Whoever asks from now on must not join what is being given up.
                self._end(question, under_way)
        if under_way.task.cancelled():
            return _unanswered(question, "resolver is closed")
        return under_way.task.result()

    def servers(self) -> list[ServerReport]:
        """How each server does, in the order given."""
        return [each.report() for each in self._upstreams]

    def forget(self) -> None:
        """Drop all remembered answers."""
        self._cache.forget()

    def close(self) -> None:
        """Give up what is under way; those who wait get an answer that says so."""
        self._closed = True
        for each in list(self._under_way.values()):
            each.task.cancel()
        for probe in self._probes:
            probe.cancel()

    def _start(self, question: Question) -> _UnderWay:
        task = asyncio.get_running_loop().create_task(self._answer(question))
        under_way = self._under_way[question] = _UnderWay(task)
        task.add_done_callback(lambda _: self._end(question, under_way))
        return under_way

    def _end(self, question: Question, under_way: _UnderWay) -> None:
        if self._under_way.get(question) is under_way:
            del self._under_way[question]

    async def _answer(self, question: Question) -> Answer:
        """Ask, and ask again for what a CNAME points to."""
        started = self._clock()
        try:
            async with asyncio.timeout(self._deadline):
                answer = await self._follow(question)
        except TimeoutError:
            answer = _unanswered(question, f"no answer within {self._deadline:g} s")
        now = self._clock()
        self._cache.store(answer, now)
        self._tell_answer(answer, now - started, cached=False)
        return answer

    async def _follow(self, question: Question) -> Answer:
        try:
            name = dns.name.from_text(question.name)
            rdtype = dns.rdatatype.from_text(question.rdtype)
        except (dns.exception.DNSException, UnicodeError) as error:
            return _unanswered(question, f"can't be asked: {type(error).__name__}")
        aliases, ttl, trust = 0, float("inf"), Trust.SECURE
        while True:
            response = await self._ask_servers(question, name, rdtype)
            aliases += response.aliases
            ttl = min(ttl, response.ttl)
            trust = weakest(trust, response.trust)  # each link of a chain may be forged
            if aliases > MAX_ALIASES:
                return _unanswered(question, f"more than {MAX_ALIASES} CNAMEs")
            if response.verdict is not Verdict.ALIAS:
                break
            name = response.name
        status = _STATUS.get(response.verdict)
        if status is None:
            return _unanswered(question, response.detail)
        return Answer(question, status, response.records, ttl, trust, response.detail)

    # One question, several tries.

    async def _ask_servers(
        self, question: Question, name: dns.name.Name, rdtype: dns.rdatatype.RdataType
    ) -> Response:
        """What the first server says that knows."""
        without_edns: set[Upstream] = set()
        response = Response(Verdict.FAILED, name, detail="no answer in time")
        tries: dict[asyncio.Task[Response], _Try] = {}
        upstreams = in_order(self._upstreams)
        self._probe(question, name, rdtype, upstreams)
        try:
            for number in range(self._tries * len(upstreams)):
                upstream = upstreams[number % len(upstreams)]
                turn = number // len(upstreams)
                if turn and upstream.standing is Standing.DEAD:
                    continue
                edns = upstream not in without_edns
                newest = asyncio.create_task(self._try(question, name, rdtype, upstream, edns=edns))
                tries[newest] = _Try(upstream, self._clock())
                end = self._clock() + self._timeout * 2**turn
                while not newest.done() and (left := end - self._clock()) > 0:
                    done, _ = await asyncio.wait(
                        [each for each in tries if not each.done()],
                        timeout=left,
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                    for each in done:
                        response = each.result()
                        if response.verdict is Verdict.UNSUPPORTED:
                            without_edns.add(tries[each].upstream)
                        elif response.verdict in _KNOWS or response.verdict is Verdict.BOGUS:
                            return response
                if not newest.done():
                    self._gave_up(tries[newest])
        finally:
            for each, attempt in tries.items():
                if not each.done():
                    each.cancel()
                    if self._clock() - attempt.began >= self._timeout:
                        self._gave_up(attempt)
        return replace(response, verdict=Verdict.FAILED)

    def _gave_up(self, attempt: _Try) -> None:
        if not attempt.counted:
            attempt.counted = True
            before = attempt.upstream.standing
            attempt.upstream.timed_out(self._clock())
            self._tell_standing(attempt.upstream, before)

    async def _try(
        self,
        question: Question,
        name: dns.name.Name,
        rdtype: dns.rdatatype.RdataType,
        upstream: Upstream,
        *,
        edns: bool,
    ) -> Response:
        """What one server says.  What a trusted one can't validate is asked for without (CD)."""
        try:
            response = await self._query(question, name, rdtype, upstream, edns=edns)
            if response.verdict is not Verdict.UNVALIDATED:
                return response
            unchecked = await self._query(
                question, name, rdtype, upstream, edns=edns, unchecked=True
            )
        except (OSError, EOFError, RecordError) as error:
            detail = f"{upstream.address}: {error}"
            return Response(Verdict.FAILED, name, detail=detail)
        if unchecked.verdict not in _KNOWS:  # it is not to be had at all: nobody knows
            return replace(response, verdict=Verdict.FAILED)
        if response.trust is Trust.INDETERMINATE:
            return replace(unchecked, trust=Trust.INDETERMINATE, detail=response.detail)
        return replace(response, verdict=Verdict.BOGUS)

    async def _query(
        self,
        question: Question,
        name: dns.name.Name,
        rdtype: dns.rdatatype.RdataType,
        upstream: Upstream,
        *,
        edns: bool,
        unchecked: bool = False,
    ) -> Response:
        """By UDP, and by TCP if that is too small.  Raises OSError, EOFError, RecordError."""

        def refused(error: RecordError) -> None:
            upstream.refused += 1
            self._tell_dropped(
                error.trigger, question, server=str(upstream.address), detail=str(error)
            )

        exchange = Exchange(
            upstream,
            name,
            rdtype,
            port=self._port,
            mark=self._mark,
            edns=edns,
            unchecked=unchecked,
            refused=refused,
        )
        for transport in ("udp", "tcp"):
            fields = {"unchecked": True} if unchecked else {}
            self._tell(
                "query",
                name=str(name),
                rdtype=question.rdtype,
                server=str(upstream.address),
                transport=transport,
                **fields,
            )
            before, began = upstream.standing, self._clock()
            upstream.asked(began)
            try:
                response = await exchange.ask_by(transport)
            except OSError:  # nobody is at that port, or the way to it is closed
                upstream.timed_out(self._clock())
                self._tell_standing(upstream, before)
                raise
            upstream.answered(self._clock(), self._clock() - began)
            self._tell_standing(upstream, before)
            if response.verdict is not Verdict.TRUNCATED:
                break
        return response

    def _probe(
        self,
        question: Question,
        name: dns.name.Name,
        rdtype: dns.rdatatype.RdataType,
        upstreams: Sequence[Upstream],
    ) -> None:
        """Ask those as well that have become slow or dead, now and then: they may be well again."""
        for upstream in upstreams:
            if upstream.probe_due(self._clock()):
                probe = asyncio.create_task(self._find_out(question, name, rdtype, upstream))
                self._probes.add(probe)
                probe.add_done_callback(self._probes.discard)

    async def _find_out(
        self,
        question: Question,
        name: dns.name.Name,
        rdtype: dns.rdatatype.RdataType,
        upstream: Upstream,
    ) -> None:
        try:
            async with asyncio.timeout(self._deadline):
                await self._try(question, name, rdtype, upstream, edns=True)
        except TimeoutError:
            before = upstream.standing
            upstream.timed_out(self._clock())
            self._tell_standing(upstream, before)

    # What the listener hears.

    def _tell(self, event: str, **fields: Any) -> None:
        if self._listener is not None:
            self._listener(event, fields)

    def _tell_dropped(self, trigger: str, question: Question, **fields: Any) -> None:
        self._tell("dropped", trigger=trigger, name=question.name, rdtype=question.rdtype, **fields)

    def _tell_standing(self, upstream: Upstream, before: Standing) -> None:
        now = upstream.standing
        if now is not before:
            self._tell(
                "server",
                server=str(upstream.address),
                old=before.value,
                new=now.value,
                timeouts=upstream.timeouts,
                smoothed=None if upstream.smoothed is None else round(upstream.smoothed, 3),
            )

    def _tell_answer(self, answer: Answer, seconds: float, *, cached: bool) -> None:
        self._tell(
            "answer",
            name=answer.question.name,
            rdtype=answer.question.rdtype,
            status=answer.status.value,
            records=len(answer.records),
            ttl=answer.ttl,
            seconds=seconds,
            cached=cached,
            trust=answer.trust.value,
            detail=answer.detail,
        )


def _unanswered(question: Question, detail: str) -> Answer:
    return Answer(question, Status.UNANSWERED, detail=detail)


def system_resolvers(path: str = "/etc/resolv.conf") -> list[IPAddress]:
    """The servers that resolv.conf(5) names: the first three that are addresses.

    Without any, or without the file, it is the host itself, as the manual page says.
    """
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        text = ""
    servers: list[IPAddress] = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                servers.append(ip_address(words[1]))
            except ValueError:
                continue  # the C library skips it too
    return servers[:MAX_SYSTEM_RESOLVERS] or [IPv4Address("127.0.0.1")]
