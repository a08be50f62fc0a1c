"""A small DNS server on the loopback address, with verbs for what goes wrong in the Internet.

    async with DnsServer({"b.example.": {"TXT": ['"hello"']}}) as server:
        server.next("b.example.", Delay(0.2), Drop())

Behaviours queue per name and are used once, in order; after them the server is honest.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import cast

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset

LOOPBACK = "127.0.0.1"
Records = Mapping[str, Mapping[str, Sequence[str]]]


class Drop:
    """Say nothing."""


class Truncate:
    """Set TC and leave the answer out; by TCP this does nothing."""


class CutShort:
    """By TCP: close after half of the response."""


@dataclass(frozen=True)
class Delay:
    seconds: float


@dataclass(frozen=True)
class Fail:
    """Answer with this response code, and with extended errors (RFC 8914) if given."""

    code: int = dns.rcode.SERVFAIL
    extended: int | Sequence[int] = ()


@dataclass(frozen=True)
class Garble:
    """Send these octets first: a function makes them of the right response."""

    make: Callable[[bytes], bytes]


def wrong_id(octets: bytes) -> bytes:
    return bytes([octets[0] ^ 0xFF]) + octets[1:]


def not_a_response(octets: bytes) -> bytes:
    return octets[:2] + bytes([octets[2] & 0x7F]) + octets[3:]


def wrong_question(octets: bytes) -> bytes:
    """The first label's first letter becomes another."""
    return octets[:13] + bytes([octets[13] ^ 0x01]) + octets[14:]


def cut_in_half(octets: bytes) -> bytes:
    return octets[: len(octets) // 2]


def too_many_records(octets: bytes) -> bytes:
    return octets[:6] + b"\xff\xff" + octets[8:]


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        assert self._transport is not None
        transport = self._transport
        self._server.start(
            self._server.serve(data, "udp", lambda octets: transport.sendto(octets, addr))
        )


class DnsServer:
    """Serves ``records`` (name -> type -> RDATA in presentation form) by UDP and TCP."""

    def __init__(
        self,
        records: Records,
        *,
        ttl: int = 300,
        soa: tuple[str, int, int] | None = ("example.", 600, 120),  # owner, TTL, MINIMUM
        recursive: bool = True,
        authentic: bool = False,
        chase: bool = True,
        host: str = LOOPBACK,
        port: int = 0,  # one that is free
    ) -> None:
        self.records = {dns.name.from_text(name): dict(types) for name, types in records.items()}
        self.ttl = ttl
        self.soa = soa
        self.recursive = recursive
        self.authentic = authentic
        self.chase = chase  # put what a CNAME points to into the same message
        self.queries: list[tuple[str, dns.message.Message]] = []  # transport, query
        self.host = host
        self.port = port
        self._planned: dict[dns.name.Name, deque[object]] = defaultdict(deque)
        self._tasks: set[asyncio.Task[None]] = set()

    def next(self, name: str, *behaviours: object) -> None:
        self._planned[dns.name.from_text(name)].extend(behaviours)

    async def __aenter__(self) -> DnsServer:
        loop = asyncio.get_running_loop()
        self._tcp = await asyncio.start_server(self._serve_stream, self.host, self.port)
        self.port = self._tcp.sockets[0].getsockname()[1]
        self._udp, _ = await loop.create_datagram_endpoint(
            lambda: _Datagrams(self), local_addr=(self.host, self.port)
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._udp.close()
        self._tcp.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._tcp.wait_closed()

    def start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def serve(self, data: bytes, transport: str, send: Callable[[bytes], object]) -> None:
        query = dns.message.from_wire(data)
        self.queries.append((transport, query))
        planned = self._planned[query.question[0].name]
        behaviour = planned.popleft() if planned else None
        if isinstance(behaviour, Drop):
            return
        if isinstance(behaviour, Delay):
            await asyncio.sleep(behaviour.seconds)
        response = self.respond(query)
        if isinstance(behaviour, Fail):
            response = dns.message.make_response(query)
            response.set_rcode(dns.rcode.Rcode.make(behaviour.code))
            codes = behaviour.extended
            codes = [codes] if isinstance(codes, int) else codes
            if codes:
                options = [dns.edns.EDEOption(dns.edns.EDECode.make(code)) for code in codes]
                response.use_edns(0, options=options)
        if isinstance(behaviour, Truncate) and transport == "udp":
            response.answer.clear()
            response.flags |= dns.flags.TC
        octets = response.to_wire(max_size=65535)
        if isinstance(behaviour, Garble):
            send(behaviour.make(octets))
        if isinstance(behaviour, CutShort):
            octets = cut_in_half(octets)
        send(octets)

    def respond(self, query: dns.message.Message) -> dns.message.Message:
        response = dns.message.make_response(query, recursion_available=self.recursive)
        if self.authentic:
            response.flags |= dns.flags.AD
        question = query.question[0]
        name = question.name
        for _ in range(20):  # a loop of CNAMEs goes round a few times, as servers do
            types = self.records.get(name, {})
            rdtype = dns.rdatatype.to_text(question.rdtype)
            kind = rdtype if rdtype in types else "CNAME"
            if kind not in types:
                break
            rrset = dns.rrset.from_text_list(name, self.ttl, "IN", kind, list(types[kind]))
            response.answer.append(rrset)
            if kind == rdtype or not self.chase:
                return response
            name = rrset[0].target
        if name not in self.records:
            response.set_rcode(dns.rcode.NXDOMAIN)
        if self.soa is not None:
            owner, ttl, minimum = self.soa
            text = f"ns.example. hostmaster.example. 1 2 3 4 {minimum}"
            response.authority.append(dns.rrset.from_text(owner, ttl, "IN", "SOA", text))
        return response

    async def _serve_stream(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        def send(octets: bytes) -> None:
            # The length is that of the whole, so that a response cut short is seen as such.
            writer.write(max(len(octets), self._tcp_length).to_bytes(2, "big") + octets)

        try:
            length = int.from_bytes(await reader.readexactly(2), "big")
            data = await reader.readexactly(length)
            self._tcp_length = 0
            planned = self._planned[dns.message.from_wire(data).question[0].name]
            if planned and isinstance(planned[0], CutShort):
                self._tcp_length = 60000
            await self.serve(data, "tcp", send)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
