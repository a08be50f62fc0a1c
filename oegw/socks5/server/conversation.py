"""One client, from its first octet until its octets are the relay's."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

from oegw.socks5.codes import Command, Method, ReplyCode
from oegw.socks5.interface import Refused, Scope
from oegw.socks5.limits import Place
from oegw.socks5.preference import (
    Preference,
    bound_address,
    louder,
    preference_of,
    unspecified,
)
from oegw.socks5.rules import CONNECT
from oegw.socks5.server import associating, binding, identifying
from oegw.socks5.server.common import Common
from oegw.socks5.server.connecting import connect
from oegw.socks5.server.finding import Client, Found, find, judge
from oegw.socks5.server.holding import Holding
from oegw.socks5.server.outgoing import address_of
from oegw.socks5.server.patience import ClientGone, Patience
from oegw.socks5.server.waiting import Input, sent
from oegw.socks5.session import AuthenticationWanted, Ended, Event, Requested, Session
from oegw.socks5.settings import Listener
from oegw.socks5.wire import Address, IPAddress, Reply

# Our choices, seconds.
BETWEEN_REQUESTS = 300.0  # after an ADDRESS ASSOCIATE, until the next request (SK-31)
FAREWELL = 2.0  # for a client to read its last reply before the connection is reset

FAREWELL_OCTETS = 256 * 1024  # that a client may still send us then

# Our choice: reads from a client that say nothing yet, before others have their turn.
ROUNDS = 2


class Conversation:
    """``lineage``: the number of its connection, where ADDRESS IDs are scoped by that."""

    def __init__(
        self,
        common: Common,
        sock: socket.socket,
        client: IPAddress,
        listener: Listener,
        place: Place,
        lineage: int,
    ) -> None:
        here = address_of(sock.getsockname())
        with_password = listener.authentication == "password"
        self.common = common
        self.sock = sock
        self.input = Input(sock)
        self.listener = listener
        self.place = place
        self.session = Session(
            (Method.PASSWORD if with_password else Method.NONE,), unspecified(here)
        )
        by_connection = common.settings.ids.scope == "connection"
        scope = Scope(client, "", lineage if by_connection else None)
        self.client = Client(client, here, scope, "", listener.encrypted)
        self.holding = Holding(common, place, scope)
        self._relayed = False
        self._identified = False

    async def run(self) -> None:
        """Until the octets are the relay's, or the connection has ended."""
        try:
            self._relayed = await self._talk()
        except TimeoutError:
            self.common.tally.drop("handshake_timeout", client=str(self.client.address))
        except (ClientGone, OSError) as error:
            self.common.tally.drop("client_gone", detail=str(error))

    def leave(self) -> None:
        """After `run`, or in its place if that was cancelled before it began."""
        if not self._relayed:
            self.input.release()
            self.sock.close()
            self.holding.release()

    # ------------------------------------------------------------ from event to event

    async def _talk(self) -> bool:
        """Whether it is the relay's now."""
        until = self.common.now() + self.common.settings.limits.handshake
        while True:
            async with asyncio.timeout_at(until):
                event = await self.next_event()
                if isinstance(event, AuthenticationWanted):
                    await self._authenticate(event)
                    continue
            if isinstance(event, Ended):
                await self._farewell(event.reason)
                return False
            assert isinstance(event, Requested)
            self.common.places.requested(self.place)
            try:
                relayed = await self._serve(event)
            except Refused as refused:
                self.common.refused(refused, self.client.address, self.client.user)
                self.session.refuse(refused.code, refused.reason)
                continue
            if event.command is not Command.ASSOCIATE:
                return relayed
            until = self.common.now() + BETWEEN_REQUESTS
            # Who sends one request after the other never has us wait, nor anybody else served.
            await asyncio.sleep(0)

    async def next_event(self) -> Event:
        """Raises OSError."""
        session, rounds = self.session, 0
        while True:
            await self.flush()
            event = session.next_event()
            if event is not None:
                return event
            rounds += 1
            if rounds > ROUNDS:
                await asyncio.sleep(0)
            octets = await self.input.receive(session.room())
            if octets:
                session.receive(octets)
            else:
                session.end_of_input()

    async def flush(self) -> None:
        octets = self.session.octets_to_send()
        if octets:
            await sent(self.sock, octets)

    async def _authenticate(self, wanted: AuthenticationWanted) -> None:
        user = await self.common.user_of(wanted.credentials, self.client.address)
        if user is not None:
            old = self.client
            scope = Scope(old.scope.address, user.name, old.scope.lineage)
            self.client = Client(
                old.address, old.here, scope, user.name, old.encrypted or user.encrypted
            )
            self.holding.scope = scope
        self.session.authenticated(user is not None)

    async def _farewell(self, reason: str) -> None:
        """The last reply is sent already.  What the client still sends would reset the connection,
        and the reply with it."""
        self.common.places.answered(self.place)
        self.common.tally.event(f"ended_{reason}")
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(FAREWELL):
                self.sock.shutdown(socket.SHUT_WR)
                left = FAREWELL_OCTETS
                while left > 0 and (octets := await self.input.receive(16384)):
                    left -= len(octets)

    # ------------------------------------------------------------ what is asked for

    async def _serve(self, asked: Requested) -> bool:
        """Raises Refused, until the reply that says that it has succeeded."""
        if asked.flag and asked.unknown_flags:
            self.common.tally.drop("unknown_flags")  # SK-40: ignored, and counted
        if self.client.user and not self._identified:
            self._identified = True
            self.common.places.identified(self.place, self.client.user)
        self.common.tally.event(asked.command.name.lower())
        match asked.command.base:
            case Command.CONNECT:
                return await self._connect(asked)
            case Command.BIND:
                return await binding.bind(self, asked)
            case Command.UDP_ASSOCIATE:
                await associating.associate(self, asked)
                return False
        await identifying.identify(self, asked)
        return False

    async def _connect(self, asked: Requested) -> bool:
        async with Patience(self.input, self.common.settings.limits.connect):
            found, sock = await self._reach(asked)
        try:
            outgoing = sock.getsockname()
            address = self.told(asked, found, address_of(outgoing))
            self.session.reply(Reply(ReplyCode.SUCCEEDED, address, outgoing[1]))
        except BaseException:
            sock.close()
            raise
        await self.relay(sock)
        return True

    async def _reach(self, asked: Requested) -> tuple[Found, socket.socket]:
        found = await find(self.common, self.client, asked.address, CONNECT)
        self.holding.hold(found.entry)
        port = asked.port if found.port is None else found.port
        ways = judge(self.common, self.client, found, CONNECT, port)
        return found, await connect(self.common, ways, port)

    # ------------------------------------------------------------ for all commands

    def preference(self, flag: int, found: Found | None) -> Preference:
        """Said by the request, or stored with the ID that it uses."""
        entry = found.entry if found is not None else None
        if not flag and entry is None:
            return Preference.UNSAID
        stored = entry.preference if entry is not None else None
        return louder(flag, preference_of(0, stored or 0))

    def told(self, asked: Requested, found: Found, outgoing: IPAddress) -> Address:
        """BND.ADDR for ``outgoing``, an address of ours.  Raises Refused."""
        if asked.command.associates:
            return self.identified(found)
        return bound_address(
            self.preference(asked.flag, found),
            self.client.here,
            outgoing,
            self.common.settings.advertise,
        )

    def identified(self, found: Found) -> Address:
        """The ID of what was found, held by this connection (SK-26).  Raises Refused."""
        if found.entry is not None:
            return found.entry.id
        ids, scope = self.common.ids, self.client.scope
        number = ids.associate(
            scope, found.destination, self.common.now(),
            resolved=found.resolved, transport=found.transport,
        )  # fmt: skip
        self.holding.hold(ids.associated(scope, number))
        return number

    async def relay(self, sock: socket.socket) -> None:
        """Both sockets are the relay's from now on, or closed.  Raises OSError."""
        try:
            await self.flush()
        except BaseException:
            sock.close()
            raise
        self.common.places.answered(self.place)
        self.input.release()
        self.common.stages["relayed"] += 1
        idle = self.common.settings.limits.idle
        self.common.relay.begin(self.sock, sock, self.session.rest(), idle, self.holding.ended)
