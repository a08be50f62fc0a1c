"""The server as a whole: what it is made of, its start, its end, and new rules in between."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from oegw.control import ControlServer, Message
from oegw.socks5.interface import Dialler, Refused, Relay, Resolver
from oegw.socks5.limits import Place
from oegw.socks5.server.common import Common
from oegw.socks5.server.conversation import Conversation
from oegw.socks5.server.listening import Door
from oegw.socks5.server.outgoing import address_of
from oegw.socks5.settings import Listener, SocksSettings, restart_notes
from oegw.socks5.wire import plain
from oegw.trace import Trace

CLIENTS_TOLD = 100
UNDER_WAY = ("relayed", "binding", "associations")
LOOPBACK = (Listener(IPv4Address("127.0.0.1")), Listener(IPv6Address("::1")))


class Server:
    """All of it, in the event loop in which it is made.

    ``settings.listeners``: who starts the server has filled in the addresses of inside interfaces;
    none at all means loopback.  ``relay`` is closed with the server.
    """

    def __init__(
        self,
        settings: SocksSettings,
        resolver: Resolver,
        dialler: Dialler,
        relay: Relay,
        trace: Trace,
    ) -> None:
        self._at_start = settings
        self._common = Common(settings, resolver, dialler, relay, trace)
        self._doors = [self._door(each) for each in settings.listeners or LOOPBACK]
        self._control = ControlServer(settings.socket, self._answer)
        self._talking: dict[Place, asyncio.Task[None]] = {}
        self._started = time.time()
        self._lineage = 0

    @property
    def ports(self) -> tuple[int, ...]:
        """Of the listeners, in the order of the settings: port 0 is the kernel's choice."""
        return tuple(door.port for door in self._doors)

    async def start(self) -> None:
        """Listen.  Raises OSError and ControlError."""
        await self._control.start()
        failures = [failure for door in self._doors if (failure := door.open()) is not None]
        if len(failures) == len(self._doors):
            raise failures[0]

    async def close(self) -> None:
        """End all connections, and the relay."""
        for door in self._doors:
            door.close()
        await self._control.close()
        talking = tuple(self._talking.values())
        for task in talking:
            task.cancel()
        await asyncio.gather(*talking, return_exceptions=True)
        self._common.relay.close()
        self._common.close()

    async def reload(
        self,
        settings: SocksSettings,
        resolver: Resolver | None = None,
        dialler: Dialler | None = None,
    ) -> list[str]:
        """New rules, users and limits, for new requests and for each destination over UDP; what is
        relayed stays, and what came by a listener that is no more.  Returns notes for the
        operator."""
        common = self._common
        common.apply(settings, resolver or common.resolver, dialler or common.dialler)
        notes = self._change_doors(settings.listeners or LOOPBACK)
        return restart_notes(self._at_start, settings) + notes

    def _door(self, listener: Listener) -> Door:
        return Door(listener, self._accepted, self._common.tally)

    def _change_doors(self, listeners: Sequence[Listener]) -> list[str]:
        """Those that stay are not touched.  Returns what can't be opened."""
        before = {door.listener: door for door in self._doors}
        for listener, door in before.items():
            if listener not in listeners:
                door.close()
        self._doors, notes = [], []
        for listener in listeners:
            door = before.get(listener) or self._door(listener)
            if listener not in before:
                try:
                    door.open()
                except OSError as error:
                    notes.append(f"[socks] {error.strerror}")
                    continue
            self._doors.append(door)
        return notes

    def snapshot(self) -> dict[str, Any]:
        """For status and metrics, JSON's types only::

        {"pid": int, "started": seconds since 1970, "socket": path,
         "listeners": [{"address", "port", "authentication", "interface", "encrypted",
                        "listening": bool}],
         "connections": what `Places.snapshot` says, of clients the 100 with most,
             "under_way": {"relayed", "binding", "associations"},
         "octets": {"to_destination", "to_client", "udp_to_destination", "udp_to_client"},
         "octets_of_users": {name: octets},
         "ids": AddressIds.snapshot(), "counters": {name: count}}
        """
        common = self._common
        common.ids.expire(common.now())
        return {
            "pid": os.getpid(),
            "started": self._started,
            "socket": str(self._at_start.socket),
            "listeners": [_row(door) for door in self._doors],
            "connections": _shortened(common.places.snapshot()),
            "under_way": {name: common.stages[name] for name in UNDER_WAY},
            "octets": dict(common.octets),
            "octets_of_users": dict(common.octets_of_users),
            "ids": common.ids.snapshot(),
            "counters": dict(sorted(common.tally.counters.items())),
        }

    # ------------------------------------------------------------ clients

    def _accepted(self, sock: socket.socket, sockaddr: Any, listener: Listener) -> None:
        client = plain(address_of(sockaddr))
        try:
            place, makes_room = self._common.places.take(client)
        except Refused as refused:
            self._common.refused(refused, client, "")
            sock.close()
            return
        if makes_room is not None:
            self._common.tally.drop("negotiating_crowd")
            self._talking[makes_room].cancel()
        self._lineage += 1
        try:
            conversation = Conversation(self._common, sock, client, listener, place, self._lineage)
        except OSError as error:  # it has left already
            self._common.tally.drop("client_gone", detail=error.strerror)
            self._common.places.leave(place)
            sock.close()
            return
        task = self._common.loop.create_task(conversation.run())
        self._talking[place] = task
        task.add_done_callback(lambda task: self._talked(conversation, task))

    def _talked(self, conversation: Conversation, task: asyncio.Task[None]) -> None:
        del self._talking[conversation.place]
        conversation.leave()
        if not task.cancelled() and (error := task.exception()) is not None:
            self._common.broke(error)

    # ------------------------------------------------------------ the operator

    async def _answer(self, request: Message) -> AsyncIterator[Message]:
        if request.get("do") == "status":
            yield {"status": self.snapshot(), "done": True}
        else:
            yield {"error": "this socket answers status only", "done": True}


def _shortened(places: dict[str, object]) -> dict[str, object]:
    return {
        name: dict(Counter(counts).most_common(CLIENTS_TOLD))
        if isinstance(counts, dict)
        else counts
        for name, counts in places.items()
    }


def _row(door: Door) -> dict[str, Any]:
    listener = door.listener
    return {
        "address": str(listener.address),
        "port": door.port,
        "authentication": listener.authentication,
        "interface": listener.interface,
        "encrypted": listener.encrypted,
        "listening": door.listening,
    }
