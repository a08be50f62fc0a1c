"""BIND: a socket for one peer that is named, and the peer that comes (RFC 1928 section 4)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from oegw.socks5.codes import ReplyCode
from oegw.socks5.interface import TCP, Demand, Refused
from oegw.socks5.preference import bound_address, peer_address
from oegw.socks5.rules import BIND
from oegw.socks5.server.failures import refusal
from oegw.socks5.server.finding import (
    Found,
    Way,
    admitted,
    find,
    judge,
    judge_unknown,
    versions_of,
)
from oegw.socks5.server.listening import EXHAUSTED, EXHAUSTED_SECONDS
from oegw.socks5.server.outgoing import address_of
from oegw.socks5.server.patience import Patience
from oegw.socks5.session import Requested
from oegw.socks5.wire import Address, AddressId, IPAddress, Reply, plain

if TYPE_CHECKING:
    from oegw.socks5.server.conversation import Conversation

Arrival = tuple[socket.socket, IPAddress, int]


@dataclass(frozen=True, slots=True)
class _Peers:
    """Who may come, if the rules allow it then.  ``addresses``: none: anybody.  ``port``: what the
    rules see of the peer's; None: its own.  ``demand``: the strictest of theirs: the socket that
    waits has one mark for all."""

    found: Found | None
    addresses: tuple[IPAddress, ...]
    port: int | None
    demand: Demand


async def bind(conversation: Conversation, asked: Requested) -> bool:
    """Two replies (SK-5).  Raises Refused, after the first as well."""
    common = conversation.common
    limits = common.settings.limits
    async with Patience(conversation.input, limits.connect, half_closed=True):
        peers = await _peers(conversation, asked)
        versions = versions_of(peers.addresses) or _of_anybody(conversation)
        try:
            waiting = common.outgoing.waiting(versions, peers.addresses, peers.demand)
        except OSError as error:
            raise refusal(error) from error
    try:
        address = _first_address(conversation, asked, peers, waiting)
        port = waiting[0].getsockname()[1]
        conversation.session.reply(Reply(ReplyCode.SUCCEEDED, address, port))
        async with Patience(conversation.input, limits.bind, half_closed=True):
            await conversation.flush()
            common.places.answered(conversation.place)
            common.stages["binding"] += 1
            try:
                sock, peer, port = await _Arrivals(conversation, peers, waiting).first()
            finally:
                common.stages["binding"] -= 1
    finally:
        for each in waiting:
            each.close()
    try:
        # The guard may have gone since.
        await admitted(common, [Way(peer, peers.demand)], port, TCP, 1)
        address = _second_address(conversation, asked, peers, peer)
        conversation.session.reply(Reply(ReplyCode.SUCCEEDED, address, port))
    except BaseException:
        sock.close()
        raise
    await conversation.relay(sock)
    return True


async def _peers(conversation: Conversation, asked: Requested) -> _Peers:
    """Raises Refused."""
    common, client = conversation.common, conversation.client
    if not isinstance(asked.address, str | AddressId) and asked.address.is_unspecified:
        if asked.command.associates:
            raise Refused(ReplyCode.INVALID_ADDRESS, "nothing_to_associate")
        demand = judge_unknown(common, client, BIND)
        await admitted(common, [Way(asked.address, demand)], 0, TCP, 1)
        return _Peers(None, (), None, demand)
    found = await find(common, client, asked.address, BIND)
    conversation.holding.hold(found.entry)
    port = asked.port if found.port is None else found.port
    ways = judge(common, client, found, BIND, port or None)
    ways = await admitted(common, ways, port, TCP, len(ways))
    encrypted = any(way.demand.encrypted for way in ways)
    return _Peers(found, tuple(way.address for way in ways), port or None, Demand(encrypted))


def _of_anybody(conversation: Conversation) -> list[int]:
    """The families by which we can be reached, the client's own first."""
    own = conversation.client.here.version
    others = [each for each in (4, 6) if each != own]
    reachable = conversation.common.outgoing.towards
    return [own, *(each for each in others if reachable(None, each) is not None)]


def _first_address(
    conversation: Conversation, asked: Requested, peers: _Peers, waiting: Sequence[socket.socket]
) -> Address:
    """Where the peer is to connect to.  Raises Refused."""
    if peers.found is not None:
        return conversation.told(asked, peers.found, _here(conversation, peers, waiting))
    client = conversation.client
    return bound_address(
        conversation.preference(asked.flag, None),
        client.here,
        _here(conversation, peers, waiting),
        conversation.common.settings.advertise,
    )


def _here(conversation: Conversation, peers: _Peers, waiting: Sequence[socket.socket]) -> IPAddress:
    """Our address that the peer can reach, of the family that is waited for first."""
    bound = address_of(waiting[0].getsockname())
    if not bound.is_unspecified:
        return bound
    peer = next((each for each in peers.addresses if each.version == bound.version), None)
    towards = conversation.common.outgoing.towards(peer, bound.version)
    return towards or conversation.client.here


def _second_address(
    conversation: Conversation, asked: Requested, peers: _Peers, peer: IPAddress
) -> Address:
    """Who has come: the ID of it, or its address.  Raises Refused."""
    if asked.command.associates:  # SK-29
        return conversation.identified(Found(peer, (peer,)))
    preference = conversation.preference(asked.flag, peers.found)
    return peer_address(preference, conversation.client.here, peer)


class _Arrivals:
    """Who comes is let in if it is one of ``peers``; others are sent away, and counted."""

    def __init__(
        self, conversation: Conversation, peers: _Peers, waiting: Sequence[socket.socket]
    ) -> None:
        self._conversation = conversation
        self._peers = peers
        self._waiting = waiting
        self._loop = asyncio.get_running_loop()
        self._come: asyncio.Future[Arrival] = self._loop.create_future()

    async def first(self) -> Arrival:
        for sock in self._waiting:
            self._loop.add_reader(sock, self._readable, sock)
        try:
            return await self._come
        except BaseException:
            if self._come.done() and not self._come.cancelled():
                self._come.result()[0].close()  # in the moment in which we gave up
            raise
        finally:
            for sock in self._waiting:
                self._loop.remove_reader(sock)

    def _readable(self, waiting: socket.socket) -> None:
        if self._come.done():
            return
        try:
            sock, sockaddr = waiting.accept()
        except OSError as error:
            if error.errno in EXHAUSTED:  # it would be readable all the time
                self._loop.remove_reader(waiting)
                self._loop.call_later(EXHAUSTED_SECONDS, self._go_on, waiting)
            return  # else it has left already
        peer = plain(address_of(sockaddr))
        if not self._may(peer, sockaddr[1]):
            self._conversation.common.tally.drop("bind_other_peer", peer=str(peer))
            sock.close()
            return
        sock.setblocking(False)
        self._come.set_result((sock, peer, sockaddr[1]))

    def _go_on(self, waiting: socket.socket) -> None:
        if not self._come.done():
            self._loop.add_reader(waiting, self._readable, waiting)

    def _may(self, peer: IPAddress, port: int) -> bool:
        conversation, peers = self._conversation, self._peers
        if peers.addresses and peer not in peers.addresses:
            return False
        found = Found(peers.found.destination if peers.found else peer, (peer,))
        try:
            (way,) = judge(
                conversation.common, conversation.client, found, BIND, peers.port or port
            )
        except Refused:
            return False
        # The socket that waits has its mark from the beginning.
        return peers.demand.encrypted or not way.demand.encrypted
