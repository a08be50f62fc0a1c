"""A relayed connection: two sockets, and a direction each way."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress

from oegw.socks5.interface import Transferred
from oegw.socks5.relay.direction import Direction

RESET = struct.pack("ii", 1, 0)  # SO_LINGER of no time: what is closed so is reset
NO_RESET = struct.pack("ii", 0, 0)


class Pair:
    """``number``: what the server calls it.  ``failed``: one of the sockets is dead; what it had
    sent before is delivered still.  ``active_at``: when a socket was ready last.  ``reason``: why
    it ended; empty until then."""

    __slots__ = (
        "active_at", "client", "destination", "failed", "idle", "number", "reason", "to_client",
        "to_destination",
    )  # fmt: skip

    def __init__(
        self,
        number: int,
        client: socket.socket,
        destination: socket.socket,
        early: bytes,
        idle: float,
    ) -> None:
        self.number = number
        self.client = client
        self.destination = destination
        self.to_destination = Direction(client, destination, early)
        self.to_client = Direction(destination, client)
        self.idle = idle
        self.reason = ""
        self.failed = False
        self.active_at = 0.0

    def other(self, direction: Direction) -> Direction:
        return self.to_client if direction is self.to_destination else self.to_destination

    def transferred(self) -> Transferred:
        return Transferred(self.to_destination.octets, self.to_client.octets, self.reason)

    def close_sockets(self) -> None:
        for sock in (self.client, self.destination):
            if self.reason == "ended":
                with suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_RESET)
            sock.close()


def reset_when_closed(*socks: socket.socket) -> None:
    """What is cut off on one side is cut off on the other too: half a file must not look like a
    whole one.  Said when a connection begins, that holds for a process that is killed as well; a
    connection that has ended takes it back."""
    for sock in socks:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
