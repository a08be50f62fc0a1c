"""Answers questions for exported services by unicast DNS (RFC 6763, RFC 2782), by UDP and TCP.

By UDP no answer is longer than its question (MK-27): the others say that they are to be had by TCP,
which each resolver then uses.  Who may ask: the gateways of `ExportSettings.peers`, by their key
and from their address; with ``public`` everybody.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv6Address, ip_address
from typing import Any, cast

from dnsrecords.dnssd import (
    MAX_QUESTION_OCTETS,
    MAX_REPLY_OCTETS,
    Code,
    Labels,
    MalformedQuestion,
    Question,
    Reply,
    read_question,
    readdressed,
    reply_octets,
)
from dnsrecords.errors import RecordError
from dnsrecords.published import TsigKey
from oegw.moniker.daemon.limits import Crowd
from oegw.moniker.discovery.browsing import Neighbours, Peer
from oegw.moniker.discovery.zone import Zone
from oegw.moniker.interface import IPAddress
from oegw.moniker.names import MonikerError
from oegw.moniker.sources import Sources
from oegw.trace import Trace

# Our choices.
IDLE_SECONDS = 10.0  # of a connection (RFC 7766 section 6.2.3: a few seconds)
MAX_CONNECTIONS = 64
MAX_CONNECTIONS_OF_ONE = 16
MAX_UNDER_WAY = 32  # questions for which neighbours are asked
PER_SECOND = 20.0  # questions of one source
MAX_KEPT = 128  # replies to strangers, each at most 64 kB


class NotListening(MonikerError):  # noqa: N818  (it names the fact)
    """The responder's address is taken, or not ours."""


class Responder:
    """``zone``: what there is now.  ``clock``: monotonic seconds."""

    def __init__(
        self,
        listen: Sequence[tuple[IPAddress, int]],
        zone: Callable[[], Zone],
        peers: Sequence[Peer],
        trace: Trace,
        *,
        public: bool,
        clock: Callable[[], float],
    ) -> None:
        self._listen = tuple(listen)
        self._zone = zone
        self._peers = tuple(peers)
        self._neighbours = Neighbours(peers, lambda text: self._drop("peer_unusable", reason=text))
        self._trace = trace
        self._public = public
        self._clock = clock
        self._sources = Sources(PER_SECOND)
        self._crowd = Crowd(MAX_CONNECTIONS, MAX_CONNECTIONS_OF_ONE)
        self._under_way = 0
        self._kept_zone: Zone | None = None
        self._kept: dict[tuple[Labels, str, bool], bytes] = {}
        self._questions = 0
        self._servers: list[asyncio.Server] = []
        self._datagrams: list[asyncio.DatagramTransport] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Raises NotListening; then nothing is left behind."""
        loop = asyncio.get_running_loop()
        for address, port in self._listen:
            try:
                server = await asyncio.start_server(
                    self._serve_stream, str(address), port, limit=MAX_QUESTION_OCTETS + 2
                )
                self._servers.append(server)
                taken = server.sockets[0].getsockname()[1]  # for port 0, in tests
                transport, _ = await loop.create_datagram_endpoint(
                    lambda: _Datagrams(self._datagram_received), local_addr=(str(address), taken)
                )
                self._datagrams.append(transport)
            except OSError as error:
                await self.close()
                # asyncio's own text has the address in it, once more.
                text = os.strerror(error.errno) if error.errno else error
                raise NotListening(
                    f"moniker.export.listen: {address} port {port}: {text}"
                ) from None

    @property
    def places(self) -> list[tuple[IPAddress, int]]:
        """Where it listens."""
        names = [server.sockets[0].getsockname() for server in self._servers]
        return [(ip_address(name[0].partition("%")[0]), name[1]) for name in names]

    async def close(self) -> None:
        """Stop listening; questions under way are given up."""
        for transport in self._datagrams:
            transport.close()
        for server in self._servers:
            server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._datagrams, self._servers = [], []

    def snapshot(self) -> dict[str, Any]:
        """For ``oegw moniker status``."""
        where = ", ".join(f"{address} port {port}" for address, port in self.places)
        return {"dns": where, "questions": self._questions, "connections": len(self._crowd)}

    # One question.

    async def answer(self, octets: bytes, source: IPAddress, *, by_udp: bool) -> bytes | None:
        """The reply to a question, None: silence.  Never raises for what a stranger sent."""
        if not self._sources.take(source, not by_udp, self._clock()):
            self._drop("discovery_rate", source=str(source))
            return None
        room = len(octets) if by_udp else MAX_REPLY_OCTETS
        try:
            question = read_question(octets, self._keys(source))
        except MalformedQuestion as error:
            self._drop(error.trigger, source=str(source), reason=str(error))
            return error.reply if error.reply and len(error.reply) <= room else None
        self._questions += 1
        if (refused := self._refused(question, source)) is not None:
            return self._octets(question, refused, room)
        zone = self._zone()
        if by_udp:  # the source may be forged: it is not worth much
            brief = zone.reply(question.name, question.rdtype, brief=True)
            return self._octets(question, brief, room if question.key is None else 0)
        if question.key is None:
            return self._kept_octets(zone, question)
        return self._octets(question, await self._of_all(zone, question, source), room)

    def _keys(self, source: IPAddress) -> list[TsigKey]:
        """One of each name: that of a peer at ``source``, if it has one, for `tsig-keygen` calls
        all of them the same."""
        by_name = {peer.key.name: peer.key for peer in self._peers}
        by_name |= {p.key.name: p.key for p in self._peers if p.found.address == source}
        return list(by_name.values())

    def _refused(self, question: Question, source: IPAddress) -> Reply | None:
        if question.key is not None:
            if self._neighbours.of_key(question.key, source) is not None:
                return None
            self._drop("discovery_key_misplaced", source=str(source), key=question.key)
        elif self._public or source.is_loopback:
            return None
        else:
            self._drop("discovery_stranger", source=str(source))
        return Reply(Code.REFUSED)

    def _kept_octets(self, zone: Zone, question: Question) -> bytes | None:
        """What our zone says, by TCP.  Strangers ask, so what was written once is kept."""
        if zone is not self._kept_zone:
            self._kept_zone = zone
            self._kept.clear()
        octets = self._kept.get(question.same)
        if octets is not None:
            return readdressed(octets, question)
        reply = zone.reply(question.name, question.rdtype)
        octets = self._octets(question, reply, MAX_REPLY_OCTETS)
        if octets is not None and reply.answers:
            if len(self._kept) >= MAX_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[question.same] = octets
        return octets

    async def _of_all(self, zone: Zone, question: Question, source: IPAddress) -> Reply:
        """What our zone and neighbours say to one of them."""
        own = zone.reply(question.name, question.rdtype)
        asker = self._neighbours.of_key(question.key or "", source)
        if asker is None or not question.recursion:
            return own
        if self._under_way >= MAX_UNDER_WAY:
            self._drop("discovery_busy", source=str(source))
            return own
        self._under_way += 1
        try:
            more = await self._neighbours.asked(asker, zone.domain, question.name, question.rdtype)
        finally:
            self._under_way -= 1
        return own if more is None or not more.answers else _both(own, more)

    def _octets(self, question: Question, reply: Reply, room: int) -> bytes | None:
        for said in (reply, replace(reply, additional=()), Reply(Code.SERVFAIL)):
            try:
                return reply_octets(question, said, room)
            except RecordError as error:  # of a peer's, or more than a message holds
                self._drop("discovery_reply_unwritable", reason=str(error))
        return None

    def _drop(self, trigger: str, **fields: Any) -> None:
        self._trace.drop("moniker", trigger, **fields)

    # Sockets.

    def _datagram_received(
        self, transport: asyncio.DatagramTransport, octets: bytes, sender: Any
    ) -> None:
        if len(self._tasks) >= MAX_CONNECTIONS + MAX_UNDER_WAY:
            self._drop("discovery_busy", source=str(sender[0]))
            return

        async def serve() -> None:
            reply = await self.answer(octets, _source(sender), by_udp=True)
            if reply is not None and not transport.is_closing():
                transport.sendto(reply, sender)

        task = asyncio.get_running_loop().create_task(serve())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve_stream(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        source = _source(writer.get_extra_info("peername") or ("::",))
        number = self._crowd.enter(source, writer.transport.abort)
        if number is None:
            self._drop("discovery_connections", source=str(source))
            writer.transport.abort()
            return
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._tasks.add(task)
        try:
            while True:
                async with asyncio.timeout(IDLE_SECONDS):
                    length = int.from_bytes(await reader.readexactly(2), "big")
                    if length > MAX_QUESTION_OCTETS:
                        self._drop("dnssd_question_malformed", source=str(source))
                        return
                    octets = await reader.readexactly(length)
                    reply = await self.answer(octets, source, by_udp=False)
                    if reply is None:
                        return
                    writer.write(len(reply).to_bytes(2, "big") + reply)
                    await writer.drain()
        except (TimeoutError, OSError, EOFError):
            pass  # gone, or silent for too long
        finally:
            self._tasks.discard(task)
            self._crowd.left(number)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


def _both(own: Reply, more: Reply) -> Reply:
    answers = dict.fromkeys((*own.answers, *more.answers))
    additional = dict.fromkeys((*own.additional, *more.additional))
    return Reply(
        Code.NOERROR, tuple(answers), (), tuple(each for each in additional if each not in answers)
    )


def _source(sender: Any) -> IPAddress:
    address = ip_address(str(sender[0]).partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, received: Callable[[asyncio.DatagramTransport, bytes, Any], None]) -> None:
        self._received = received
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if self._transport is not None:
            self._received(self._transport, data, addr)
