"""UDP ASSOCIATE: the sockets of an association, and its control channel (RFC 1928 section 7)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from oegw.socks5.association import (
    Association,
    Dropped,
    Open,
    SendOut,
    SendToClient,
    Step,
    declared_port,
)
from oegw.socks5.codes import Flag, ReplyCode
from oegw.socks5.interface import UDP, Demand, Refused
from oegw.socks5.preference import bound_address, relay_address
from oegw.socks5.rules import UDP as UDP_COMMAND
from oegw.socks5.server.common import Common
from oegw.socks5.server.failures import refusal
from oegw.socks5.server.finding import (
    Found,
    Way,
    admitted,
    destination_of,
    find,
    judge,
    judge_unknown,
    lead,
)
from oegw.socks5.server.outgoing import address_of, family_of
from oegw.socks5.server.patience import Patience
from oegw.socks5.session import ControlRequested, Ended, Requested
from oegw.socks5.wire import Address, Reply, plain

if TYPE_CHECKING:
    from oegw.socks5.server.conversation import Conversation

# Our choices.
DATAGRAM_OCTETS = 65535
AT_A_TIME = 32  # datagrams of one socket before others have their turn
RECEIVE_BUFFER = 1 << 20  # octets; the kernel cuts that down to its own limit
ADDRESS_SECONDS = 3600.0  # after which rules and dialler are asked again for an address
EXPIRE_SECONDS = 15.0
LEAST_PORT = 1024  # ports below are those of services of this box, which may not have started yet


async def associate(conversation: Conversation, asked: Requested) -> None:
    """Until the TCP connection ends (SK-6).  Raises Refused, until the reply."""
    common, client = conversation.common, conversation.client
    found = None
    async with Patience(conversation.input, common.settings.limits.connect):
        if asked.command.associates:  # SK-30: DST.ADDR is a destination, DST.PORT the client's
            found = await find(common, client, asked.address, UDP_COMMAND, UDP)
            conversation.holding.hold(found.entry)
            judge(common, client, found, UDP_COMMAND, found.port)
            port = asked.port or None
        else:
            judge_unknown(common, client, UDP_COMMAND)
            port = declared_port(client.address, asked.address, asked.port)
    common.places.associated(conversation.place)
    relay = Relaying(conversation, port, bool(asked.flag & Flag.USE_CLIENT_PORT))
    try:
        address: Address = relay_address(client.here, common.settings.advertise)
        if found is not None:
            address = conversation.identified(found)
        conversation.session.reply(Reply(ReplyCode.SUCCEEDED, address, relay.port))
        relay.begin()
        common.stages["associations"] += 1
        try:
            await conversation.flush()
            common.places.answered(conversation.place)
            await _control(conversation, relay)
        finally:
            common.stages["associations"] -= 1
    finally:
        relay.close()


async def _control(conversation: Conversation, relay: Relaying) -> None:
    """The UDP control channel (SK-43), which is the association's life as well."""
    while True:
        event = await conversation.next_event()
        if isinstance(event, Ended):
            await conversation.flush()
            return
        if isinstance(event, ControlRequested):
            try:
                reply = await _interface(conversation, relay, event)
            except Refused as refused:
                client = conversation.client
                conversation.common.refused(refused, client.address, client.user)
                conversation.session.refuse(refused.code, refused.reason)
            else:
                conversation.session.reply(reply)
            await asyncio.sleep(0)  # others have their turn, however many it sends at once


async def _interface(conversation: Conversation, relay: Relaying, asked: ControlRequested) -> Reply:
    """Our address and port towards a destination.  Raises Refused."""
    common, client = conversation.common, conversation.client
    async with Patience(conversation.input, common.settings.limits.connect):
        found = await find(common, client, asked.address, UDP_COMMAND, UDP)
    port = asked.port if found.port is None else found.port
    way = _nearest(common, judge(common, client, found, UDP_COMMAND, port))[0]
    here = common.outgoing.towards(way.address, way.address.version)
    if here is None:
        raise Refused(ReplyCode.NETWORK_UNREACHABLE, "no_route")
    outside = relay.outside(way.address.version, way.demand)
    preference = conversation.preference(asked.flag, found)
    address = bound_address(preference, client.here, here, common.settings.advertise)
    return Reply(ReplyCode.SUCCEEDED, address, outside.getsockname()[1])


class Relaying:
    """The sockets: one towards the client, at the server's address of its TCP connection, and
    towards destinations one for each family and demand, made when it is needed."""

    def __init__(self, conversation: Conversation, port: int | None, use_client_port: bool) -> None:
        """Raises Refused."""
        self._conversation = conversation
        self._common = common = conversation.common
        self._client = conversation.client
        self._loop = asyncio.get_running_loop()
        self._core = Association(
            self._client.address, self._client.scope, common.settings.udp, common.ids, port
        )
        self._use_client_port = use_client_port
        self._outside: dict[tuple[int, Demand], socket.socket] = {}
        self._opening: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        try:
            self._inside = self._made()
        except OSError as error:
            raise refusal(error) from error
        self.port: int = self._inside.getsockname()[1]

    def _made(self) -> socket.socket:
        """Raises OSError."""
        here = self._conversation.sock.getsockname()
        interface = self._conversation.listener.interface
        sock = socket.socket(family_of(self._client.here), socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            if sock.family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if interface is not None:
                # As its listener: nobody outside can pretend to be the client.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            sock.bind((here[0], 0, *here[2:]))
        except OSError:
            sock.close()
            raise
        self._peer_rest = self._conversation.sock.getpeername()[2:]  # flow and zone, of IPv6
        return sock

    def begin(self) -> None:
        self._loop.add_reader(self._inside, self._from_client)
        self._common.associations.add(self)
        self._timer = self._loop.call_later(EXPIRE_SECONDS, self._expire)

    def close(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._common.associations.discard(self)
        for task in self._opening:
            task.cancel()
        for sock in (self._inside, *self._outside.values()):
            self._loop.remove_reader(sock)
            sock.close()
        self._core.close(self._common.now())

    def reconsider(self) -> None:
        """The rules have changed."""
        self._core.reconsider()

    def outside(self, version: int, demand: Demand) -> socket.socket:
        """Raises Refused."""
        key = version, demand
        sock = self._outside.get(key)
        if sock is None:
            port = self._core.port if self._use_client_port else None
            if port is not None and port < LEAST_PORT:
                port = None
            try:
                sock = self._common.outgoing.datagrams(version, demand, port)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            except OSError as error:
                raise refusal(error) from error
            self._outside[key] = sock
            self._loop.add_reader(sock, self._from_outside, sock)
        return sock

    # ------------------------------------------------------------ datagrams

    def _from_client(self) -> None:
        for octets, sockaddr in _datagrams(self._inside):
            source = plain(address_of(sockaddr))
            self._take(self._core.from_client(octets, source, sockaddr[1], self._common.now()))

    def _from_outside(self, sock: socket.socket) -> None:
        for octets, sockaddr in _datagrams(sock):
            source = plain(address_of(sockaddr))
            step = self._core.from_outside(octets, source, sockaddr[1], self._common.now())
            self._take((step,))

    def _take(self, steps: tuple[Step, ...]) -> None:
        for step in steps:
            match step:
                case SendOut():
                    self._send_out(step)
                case SendToClient(port, octets):
                    to = (str(self._client.address), port, *self._peer_rest)
                    self._send(self._inside, octets, to)
                    self._common.octets["udp_to_client"] += len(octets)
                case Open():
                    task = asyncio.ensure_future(self._open(step))
                    self._opening.add(task)
                    task.add_done_callback(self._opened)
                case Dropped(trigger):
                    self._common.tally.drop(trigger, client=str(self._client.address))

    def _send_out(self, step: SendOut) -> None:
        try:
            sock = self.outside(step.address.version, step.demand)
        except Refused as refused:
            self._common.tally.drop("udp_not_sent", detail=refused.reason)
            return
        self._send(sock, step.payload, (str(step.address), step.port))
        self._common.octets["udp_to_destination"] += len(step.payload)

    def _send(self, sock: socket.socket, octets: bytes, sockaddr: tuple[Any, ...]) -> None:
        try:
            sock.sendto(octets, sockaddr)
        except OSError as error:  # datagrams may get lost; nobody is told
            self._common.tally.drop("udp_not_sent", detail=error.strerror)

    # ------------------------------------------------------------ where datagrams go

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._opening.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._common.broke(error)

    async def _open(self, step: Open) -> None:
        """Find out where a destination is, and whether it may be sent to (SK-23)."""
        common, place = self._common, step.place
        try:
            async with asyncio.timeout(common.settings.limits.connect):
                destination = destination_of(step.destination)
                found = await lead(common, self._client, destination, UDP_COMMAND, UDP, step.entry)
                port = place.port if found.port is None else found.port
                ways = _nearest(common, judge(common, self._client, found, UDP_COMMAND, port))
                (way,) = await admitted(common, ways, port, UDP, 1)
        except Refused as refused:
            steps = self._core.refused(place, refused.reason, common.now())
        except TimeoutError:
            steps = self._core.refused(place, "timeout", common.now())
        else:
            steps = self._core.opened(
                place, way.address, port, _seconds(found), common.now(), way.demand
            )
        if not self._closed:
            self._take(steps)

    def _expire(self) -> None:
        self._core.expire(self._common.now())
        self._timer = self._loop.call_later(EXPIRE_SECONDS, self._expire)


def _datagrams(sock: socket.socket) -> Iterator[tuple[bytes, Any]]:
    for _ in range(AT_A_TIME):
        try:
            yield sock.recvfrom(DATAGRAM_OCTETS)
        except OSError:
            return


def _nearest(common: Common, ways: list[Way]) -> list[Way]:
    """Those first to which there is a route: nobody is told that a datagram did not leave."""
    return sorted(
        ways, key=lambda way: common.outgoing.towards(way.address, way.address.version) is None
    )


def _seconds(found: Found) -> float:
    if found.resolved is None:
        return ADDRESS_SECONDS
    return max(1.0, found.resolved.seconds)
