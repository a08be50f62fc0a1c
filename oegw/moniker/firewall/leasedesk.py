"""The gateway's end of the lease protocol: hosts behind it ask for ports to be opened (MK-18)."""

from __future__ import annotations

import asyncio
import itertools
import os
from asyncio import StreamReader, StreamWriter
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from oegw.moniker import wire
from oegw.moniker.daemon.limits import Crowd
from oegw.moniker.firewall import handshake
from oegw.moniker.firewall.book import full_name, plain
from oegw.moniker.firewall.handshake import LeaseProtocolError
from oegw.moniker.firewall.interface import Gate
from oegw.moniker.firewall.messages import (
    Alive,
    EndPort,
    Message,
    NotOpened,
    Opened,
    OpenPort,
    Question,
    Told,
)
from oegw.moniker.firewall.stream import GONE_SECONDS, HANDSHAKE_SECONDS, LeaseStream
from oegw.moniker.interface import IPAddress, Lease, LeaseRefused
from oegw.moniker.rules import Asked, decide
from oegw.moniker.settings import HostSettings, ServiceRule
from oegw.moniker.sources import Sources
from oegw.moniker.wire import NO_NONCE, Code, Refusal
from oegw.sst.allowance import Allowance
from oegw.sst.statickey import StaticKey, key_id
from oegw.trace import Trace

# Our choices.
AT_ONCE = 64  # requests of one host; more of them wait in its connection
MAX_ASKED = 64  # questions to one host that it has not answered
ASK_SECONDS = 4.0
MESSAGES_A_SECOND, MESSAGES_AT_ONCE = 300.0, 1000.0  # of one host; more of them wait
STRANGERS, STRANGERS_OF_A_SOURCE = 64, 4  # connections whose other end has not proven its key
BEGINNINGS_PER_SECOND = 5.0  # of one source, with ten times as many at once
CATEGORY = "moniker"

_OVER = (OSError, EOFError, TimeoutError, LeaseProtocolError)


class _Link:
    """A host's connection."""

    def __init__(self, host: HostSettings, stream: LeaseStream) -> None:
        self.host = host
        self.stream = stream
        self.room = asyncio.Semaphore(AT_ONCE)
        self.tasks: set[asyncio.Task[None]] = set()
        self.asked: dict[int, asyncio.Future[str]] = {}


class LeaseDesk:
    """Serves the hosts' connections.  The daemon's TCP listener reads a connection's first line;
    if `handshake.is_hello` says that it is a host's, it hands the connection over."""

    def __init__(
        self,
        key: StaticKey,
        hosts: Sequence[HostSettings],
        firewall: Gate,
        *,
        trace: Trace,
        rules: Sequence[ServiceRule] = (),
    ) -> None:
        self._key = key
        self._firewall = firewall
        self._trace = trace
        self._links: dict[str, _Link] = {}
        self._measures: dict[str, Allowance] = {}
        self._gone: dict[str, asyncio.Task[None]] = {}
        self._tags = itertools.count(1)
        self._hosts: dict[bytes, HostSettings] = {}
        self._own_network: Mapping[IPAddress, IPAddress] = {}
        self._rules: Sequence[ServiceRule] = ()
        self._strangers = Crowd(STRANGERS, STRANGERS_OF_A_SOURCE)
        self._sources = Sources(BEGINNINGS_PER_SECOND)
        self._take(hosts, rules)

    async def serve(self, line: str, reader: StreamReader, writer: StreamWriter) -> None:
        """A connection whose first line was ``line`` (without CRLF), until it ends.

        Never raises; closes the writer.
        """
        link = None
        silent = False
        stranger = self._stranger(writer)
        if stranger is None:
            self._trace.drop(CATEGORY, "lease_crowd")
            writer.close()
            return
        try:
            link = await self._admitted(line, reader, writer)
            self._strangers.left(stranger)
            while True:
                await self._received(link, await link.stream.receive())
                await self._in_measure(link.host)
        except _OVER as error:
            silent = isinstance(error, TimeoutError)
            if isinstance(error, LeaseProtocolError):
                self._trace.drop(CATEGORY, error.trigger, text=str(error))
        finally:
            self._strangers.left(stranger)
            if link is None:
                writer.close()
            else:
                link.stream.abort()  # what it does not read must not keep the connection
                self._ended(link, silent=silent)

    def _stranger(self, writer: StreamWriter) -> int | None:
        """A place among those who have not proven their key: the keys of hosts are in the DNS, so
        anybody can begin, and each beginning costs us two Diffie-Hellmans.  None: too many."""
        name = writer.get_extra_info("peername")
        source = ip_address(name[0].partition("%")[0]) if name else IPv4Address(0)
        source = plain(source)
        source = self._own_network.get(source, source)
        if not self._sources.take(source, True, asyncio.get_running_loop().time()):
            return None
        return self._strangers.enter(source, writer.transport.abort)

    async def close(self) -> None:
        """All connections end; leases live until the firewall's end."""
        links = list(self._links.values())
        self._links.clear()
        for link in links:
            link.stream.abort()
        tasks = [*self._gone.values(), *(task for link in links for task in link.tasks)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def reload(
        self,
        hosts: Sequence[HostSettings],
        rules: Sequence[ServiceRule] = (),
        key: StaticKey | None = None,
    ) -> None:
        """Connections of hosts that changed or are gone end.

        ``key``: another one of ours, for the connections that begin from now on.
        """
        self._take(hosts, rules)
        self._key = key or self._key
        for link in list(self._links.values()):
            if link.host not in self._hosts.values():
                link.stream.abort()

    def connected(self) -> list[str]:
        """The names of the hosts that have a connection, for the status."""
        return sorted(self._links)

    async def ask(
        self, host: HostSettings, address: IPAddress, line: str, client: IPAddress, encrypted: bool
    ) -> str | None:
        """Put a client's question to a host over its connection; None if there is no answer.

        ``address``: of the host, for which the answer is to be.
        """
        link = self._links.get(host.name)
        if link is None or len(link.asked) >= MAX_ASKED:
            return None
        tag = next(self._tags)
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        link.asked[tag] = answer
        link.stream.send(Question(tag, client, address, line, encrypted))
        try:
            async with asyncio.timeout(ASK_SECONDS):
                return await answer
        except (TimeoutError, ConnectionError):
            return None
        finally:
            link.asked.pop(tag, None)

    def judge(self, lease: Lease) -> None:
        """The policy by service name.  Raises LeaseRefused."""
        asked = Asked(lease.service, lease.namespace, lease.client, lease.host, lease.encrypted)
        verdict = decide(self._rules, asked)
        if not verdict.allowed:
            code = verdict.code or Code.DENIED
            raise LeaseRefused(code.value, "denied by the gateway's policy")

    def _take(self, hosts: Sequence[HostSettings], rules: Sequence[ServiceRule]) -> None:
        self._hosts = {key_id(host.key): host for host in hosts if host.key is not None}
        self._rules = rules
        # Of strangers a /64 is one source.  All hosts of a network may be in one, and none of them
        # shall keep off another: each has one for itself, that nobody outside can have.
        addresses = (a for host in hosts for a in host.addresses if a.version == 6)
        self._own_network = {a: IPv6Address(n << 64) for n, a in enumerate(addresses, 1)}

    async def _in_measure(self, host: HostSettings) -> None:
        """Who says too much is read more slowly, whatever it is and by which connection."""
        measure = self._measures.setdefault(
            host.name, Allowance(MESSAGES_A_SECOND, MESSAGES_AT_ONCE)
        )
        while not measure.take(asyncio.get_running_loop().time()):
            await asyncio.sleep(1 / MESSAGES_A_SECOND)

    async def _admitted(self, line: str, reader: StreamReader, writer: StreamWriter) -> _Link:
        """The handshake.  Raises one of _OVER."""
        their_id, e_h = handshake.read_hello(line)
        host = self._hosts.get(their_id)
        if host is None or host.key is None:
            refusal = wire.text(Refusal(NO_NONCE, Code.KEY, "no host with this key"))
            writer.write(refusal.encode() + b"\r\n")
            raise LeaseProtocolError("lease_key_unknown", f"no host with key {their_id.hex()}")
        ephemeral = StaticKey(os.urandom(handshake.KEY_OCTETS))
        keys = handshake.keys_of_gateway(self._key, ephemeral, host.key, e_h)
        writer.write(handshake.welcome(ephemeral).encode() + b"\r\n")
        stream = LeaseStream(reader, writer, receiving=keys.to_gateway, sending=keys.to_host)
        first = await stream.receive(HANDSHAKE_SECONDS)  # what opens proves the key
        link = _Link(host, stream)
        if (old := self._links.get(host.name)) is not None:
            old.stream.abort()  # its host has begun anew
        if (gone := self._gone.pop(host.name, None)) is not None:
            gone.cancel()
        self._links[host.name] = link
        self._trace.event(CATEGORY, "host_connected", host=host.name)
        await self._received(link, first)
        return link

    async def _received(self, link: _Link, message: Message) -> None:
        match message:
            case OpenPort():
                await link.room.acquire()
                task = asyncio.create_task(self._open(link, message))
                link.tasks.add(task)
                task.add_done_callback(link.tasks.discard)
            case EndPort():
                await asyncio.sleep(0)  # what was asked for before it has begun by then
                await self._end(link, message)
            case Told(tag, line):
                answer = link.asked.get(tag)
                if answer is not None and not answer.done():
                    answer.set_result(line)
            case Alive():
                link.stream.send(Alive())
            case _:
                self._trace.drop(CATEGORY, "lease_unexpected", message=type(message).__name__)

    async def _open(self, link: _Link, message: OpenPort) -> None:
        try:
            lease = message.lease
            self._check_host(link.host, lease)
            self.judge(lease)
            opening = await self._firewall.open(lease)
        except LeaseRefused as refused:
            link.stream.send(NotOpened(message.tag, refused.code, str(refused)))
            self._trace.drop(
                CATEGORY,
                f"lease_asked_{refused.code}",
                asking=link.host.name,
                service=full_name(message.lease),
                client=str(message.lease.client),
                text=str(refused),
            )
        else:
            link.stream.send(Opened(message.tag, opening.port, opening.seconds))
        finally:
            link.room.release()

    async def _end(self, link: _Link, message: EndPort) -> None:
        addresses = link.host.addresses
        if message.host is not None:
            if plain(message.host) not in addresses:
                self._trace.drop(CATEGORY, "lease_of_another_host", asking=link.host.name)
                return
            addresses = (plain(message.host),)
        for address in addresses:
            await self._firewall.end_of(address, message.transport, message.port)

    def _check_host(self, host: HostSettings, lease: Lease) -> None:
        """Nobody opens a port of another host.  Raises LeaseRefused."""
        if plain(lease.host) not in host.addresses:
            self._trace.drop(
                CATEGORY, "lease_of_another_host", asking=host.name, host=str(lease.host)
            )
            raise LeaseRefused(Code.DENIED.value, f"{lease.host} is not an address of this host")

    def _ended(self, link: _Link, *, silent: bool) -> None:
        for answer in link.asked.values():
            if not answer.done():
                answer.set_exception(ConnectionError("the host is gone"))
                answer.exception()  # who waited may have given up: then nobody else looks
        name = link.host.name
        if self._links.get(name) is not link:
            return  # another connection has taken its place, or we are closed
        del self._links[name]
        self._trace.event(CATEGORY, "host_lost", host=name)
        if name not in self._gone:
            self._gone[name] = asyncio.create_task(
                self._await_return(link.host, 0 if silent else GONE_SECONDS)
            )

    async def _await_return(self, host: HostSettings, seconds: float) -> None:
        """Its leases end when it has been away too long."""
        await asyncio.sleep(seconds)
        del self._gone[host.name]
        await self._firewall.end_all_of(host)
