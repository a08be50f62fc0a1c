"""The only module of this room that talks: questions to a resolver, by UDP and TCP.

A stub (RFC 1034 section 5.3.1): the servers asked do the recursion.  Each query
has a socket, hence a source port, and an ID of its own (RFC 5452 section 4).
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any, Protocol, TypeVar

import dns.exception
import dns.name
import dns.rdatatype

from dnsrecords.cache import AnswerCache
from dnsrecords.errors import RecordError
from dnsrecords.message import MalformedResponse
from dnsrecords.outcome import IPAddress, Malformed
from dnsrecords.question import Answer, Question, Status
from dnsrecords.response import (
    MAX_ALIASES,
    MismatchedResponse,
    Response,
    Verdict,
    query_octets,
    read_response,
)
from dnsrecords.trust import Trust

# Specification: resolv.conf(5).
MAX_SYSTEM_RESOLVERS = 3

# Our choices.
MAX_UNDER_WAY = 256  # questions; each may hold a socket
MAX_DATAGRAM = 65535  # what a server sends although we announced 1232

Listener = Callable[[str, dict[str, Any]], None]
OutcomeT = TypeVar("OutcomeT", covariant=True)

_STATUS = {
    Verdict.ANSWERED: Status.ANSWERED,
    Verdict.NO_DATA: Status.NO_DATA,
    Verdict.NO_NAME: Status.NO_NAME,
    Verdict.BOGUS: Status.UNANSWERED,
}


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


class Resolver:
    """Asks ``servers``, in turn, and remembers what they said.

    ``timeout`` is for one try, ``deadline`` for one question with all its
    tries, CNAMEs and TCP connections, both in seconds; each server is tried
    ``tries`` times.  ``mark`` is set on every socket (SO_MARK, needs
    CAP_NET_ADMIN), so that the gateway's own questions pass its own traps.
    ``trusted`` says that the path to the servers is safe and that they
    validate: their AD flag then makes an answer SECURE, and their report of a
    failed validation makes it BOGUS.

    ``listener`` hears "query", "answer", "dropped" and "note", each with its
    fields.  "dropped" and "note" have a ``trigger``.
    """

    def __init__(
        self,
        servers: Sequence[IPAddress],
        *,
        timeout: float = 1.0,
        tries: int = 3,
        deadline: float = 5.0,
        mark: int | None = None,
        port: int = 53,
        trusted: bool = False,
        cache_entries: int = 10000,
        listener: Listener | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not servers:
            raise ValueError("a resolver needs at least one server")
        self._servers = tuple(servers)
        self._timeout = timeout
        self._tries = tries
        self._deadline = deadline
        self._mark = mark
        self._port = port
        self._trusted = trusted
        self._cache = AnswerCache(cache_entries)
        self._listener = listener
        self._clock = clock
        self._under_way: dict[Question, _UnderWay] = {}
        self._closed = False

    async def run(self, lookup: Lookup[OutcomeT]) -> OutcomeT:
        """Ask what ``lookup`` wants to know, until it has a result."""
        while (question := lookup.next_question()) is not None:
            lookup.receive_answer(await self.ask(question))
        for trigger, detail in lookup.notes:
            self._tell("note", trigger=trigger, detail=detail)
        result = lookup.result
        if result is None:
            raise RuntimeError("the look-up neither asks nor has a result")
        if isinstance(result, Malformed):
            self._tell("dropped", trigger="dns_record_malformed", detail=result.detail)
        return result

    async def ask(self, question: Question) -> Answer:
        """The answer, from memory or from a server; never raises for what the DNS does.

        Those who ask the same at the same time share one query.  It ends with
        the last of them that is cancelled.
        """
        if self._closed:
            return _unanswered(question, "resolver is closed")
        if (kept := self._cache.find(question, self._clock())) is not None:
            self._tell_answer(kept, 0.0, cached=True)
            return kept
        under_way = self._under_way.get(question)
        if under_way is None:
            if len(self._under_way) >= MAX_UNDER_WAY:
                self._tell_dropped("dns_too_many_lookups", question)
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

    def forget(self) -> None:
        """Drop all remembered answers."""
        self._cache.forget()

    def close(self) -> None:
        """Give up what is under way; those who wait get an answer that says so."""
        self._closed = True
        for each in list(self._under_way.values()):
            each.task.cancel()

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
        aliases, ttl, authentic = 0, float("inf"), True
        while True:
            response = await self._ask_servers(question, name, rdtype)
            aliases += response.aliases
            ttl = min(ttl, response.ttl)
            authentic = authentic and response.authentic
            if aliases > MAX_ALIASES:
                return _unanswered(question, f"more than {MAX_ALIASES} CNAMEs")
            if response.verdict is not Verdict.ALIAS:
                break
            name = response.name
        status = _STATUS.get(response.verdict)
        if status is None:
            return _unanswered(question, response.detail)
        trust = Trust.SECURE if authentic else Trust.INSECURE
        if response.verdict is Verdict.BOGUS:
            trust = Trust.BOGUS
        return Answer(question, status, response.records, ttl, trust, response.detail)

    async def _ask_servers(
        self, question: Question, name: dns.name.Name, rdtype: dns.rdatatype.RdataType
    ) -> Response:
        """What the first server says that knows."""
        without_edns: set[IPAddress] = set()
        response = Response(Verdict.FAILED, name, detail="no server asked")
        for attempt in range(self._tries * len(self._servers)):
            server = self._servers[attempt % len(self._servers)]
            query = _Query(self, question, server, name, rdtype, server not in without_edns)
            try:
                response = await query.ask_by("udp")
                if response.verdict is Verdict.TRUNCATED:
                    response = await query.ask_by("tcp")
            except TimeoutError:
                response = replace(response, verdict=Verdict.FAILED, detail="no answer in time")
            except (OSError, EOFError, RecordError) as error:
                response = replace(response, verdict=Verdict.FAILED, detail=f"{server}: {error}")
            if response.verdict is Verdict.UNSUPPORTED:
                without_edns.add(server)
            elif response.verdict not in (Verdict.FAILED, Verdict.TRUNCATED):
                return response
        return replace(response, verdict=Verdict.FAILED)

    def _tell(self, event: str, **fields: Any) -> None:
        if self._listener is not None:
            self._listener(event, fields)

    def _tell_dropped(self, trigger: str, question: Question, **fields: Any) -> None:
        self._tell("dropped", trigger=trigger, name=question.name, rdtype=question.rdtype, **fields)

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


class _Query:
    """One question to one server."""

    def __init__(
        self,
        resolver: Resolver,
        question: Question,
        server: IPAddress,
        name: dns.name.Name,
        rdtype: dns.rdatatype.RdataType,
        edns: bool,
    ) -> None:
        self._resolver = resolver
        self._question = question
        self._server = server
        self._name = name
        self._rdtype = rdtype
        self._edns = edns
        self._id = 0

    async def ask_by(self, transport: str) -> Response:
        """Send and wait.  Raises TimeoutError, OSError and, by TCP, EOFError and RecordError."""
        resolver = self._resolver
        self._id = secrets.randbelow(1 << 16)
        octets = query_octets(
            self._name, self._rdtype, self._id, edns=self._edns, authentic=resolver._trusted
        )
        resolver._tell(
            "query",
            name=str(self._name),
            rdtype=self._question.rdtype,
            server=str(self._server),
            transport=transport,
        )
        async with asyncio.timeout(resolver._timeout):
            if transport == "udp":
                return await self._exchange_by_udp(octets)
            return await self._exchange_by_tcp(octets)

    async def _exchange_by_udp(self, octets: bytes) -> Response:
        loop = asyncio.get_running_loop()
        with self._socket(socket.SOCK_DGRAM) as sock:
            # Connected, so that the kernel keeps other senders' datagrams away
            # and picks a random source port.
            sock.connect((str(self._server), self._resolver._port))
            await loop.sock_sendall(sock, octets)
            while True:
                received = await loop.sock_recv(sock, MAX_DATAGRAM)
                try:
                    return self._read(received)
                except RecordError:
                    continue  # a forger must not be able to end the wait for the true response

    async def _exchange_by_tcp(self, octets: bytes) -> Response:
        loop = asyncio.get_running_loop()
        with self._socket(socket.SOCK_STREAM) as sock:
            await loop.sock_connect(sock, (str(self._server), self._resolver._port))
            await loop.sock_sendall(sock, len(octets).to_bytes(2, "big") + octets)
            length = int.from_bytes(await _receive_exactly(sock, 2), "big")
            return self._read(await _receive_exactly(sock, length))

    def _read(self, octets: bytes) -> Response:
        try:
            return read_response(
                octets, self._name, self._rdtype, self._id, trusted=self._resolver._trusted
            )
        except (MismatchedResponse, MalformedResponse) as error:
            self._resolver._tell_dropped(
                error.trigger, self._question, server=str(self._server), detail=str(error)
            )
            raise

    def _socket(self, kind: socket.SocketKind) -> socket.socket:
        family = socket.AF_INET6 if isinstance(self._server, IPv6Address) else socket.AF_INET
        sock = socket.socket(family, kind | socket.SOCK_NONBLOCK)
        try:
            if self._resolver._mark is not None:
                mark = struct.pack("=I", self._resolver._mark)  # all 32 bits
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        except OSError:
            sock.close()
            raise
        return sock


async def _receive_exactly(sock: socket.socket, count: int) -> bytes:
    loop = asyncio.get_running_loop()
    received = bytearray()
    while len(received) < count:
        piece = await loop.sock_recv(sock, count - len(received))
        if not piece:
            raise EOFError("server closed the connection")
        received += piece
    return bytes(received)


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
