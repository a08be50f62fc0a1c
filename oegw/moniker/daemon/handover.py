"""Connections by TCPMUX go to the server itself (RFC 1078), not through us."""

from __future__ import annotations

import socket
from collections import Counter

from oegw.moniker.daemon.localdesk import LocalDesk
from oegw.moniker.daemon.waiting import send_all
from oegw.moniker.steps import HandOver

# Our choice: connections that one server has not taken yet.
WAITING_OF_A_SERVER = 64


class HandOvers:
    """Gives accepted connections to those who registered with ``tcpmux``."""

    def __init__(self, desk: LocalDesk) -> None:
        self._desk = desk
        self._waiting: Counter[int] = Counter()

    async def give(self, step: HandOver, connection: socket.socket, peer: tuple[str, int]) -> bool:
        """False if the server can't be given it, and the asker has been told nothing.

        The asker is told first, for what the server says comes behind it.  Raises OSError and
        TimeoutError: then the connection is of no use any more.
        """
        number = step.entry.number
        visitor = self._desk.visitor_of(number)
        if visitor is None or self._waiting[number] >= WAITING_OF_A_SERVER:
            return False
        self._waiting[number] += 1
        try:
            await send_all(connection, step.accepted)
            connection.setblocking(True)  # as the server expects of what it accepts
            event = {"event": "tcpmux", "number": number, "peer": [peer[0], peer[1]]}
            await visitor.send(event, [connection.fileno()])
        finally:
            self._waiting[number] -= 1
            if not self._waiting[number]:
                del self._waiting[number]
        return True
