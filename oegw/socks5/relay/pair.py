"""A relayed connection: two sockets, and a direction each way."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable

from oegw.socks5.interface import Transferred
from oegw.socks5.relay.direction import Direction

RESET = struct.pack("ii", 1, 0)  # SO_LINGER of no time: what is closed so is reset


class Pair:
    """``reason``: why it ended; empty until then.  ``active_at``: when octets moved last."""

    __slots__ = (
        "_end", "active_at", "client", "destination", "ended", "failed", "idle", "reason",
        "to_client", "to_destination",
    )  # fmt: skip

    def __init__(
        self,
        client: socket.socket,
        destination: socket.socket,
        early: bytes,
        idle: float,
        ended: Callable[[Transferred], None],
        end: Callable[[Pair], None],
    ) -> None:
        self.client = client
        self.destination = destination
        self.to_destination = Direction(client, destination, early)
        self.to_client = Direction(destination, client)
        self.idle = idle
        self.ended = ended
        self.reason = ""
        self.failed = False
        self.active_at = 0.0
        self._end = end

    def close(self) -> None:
        """End it (`Relayed`)."""
        self._end(self)

    def from_socket(self, number: int) -> tuple[Direction, Direction]:
        """The direction that this socket is the source of, and the one that it is the sink of."""
        if self.client.fileno() == number:
            return self.to_destination, self.to_client
        return self.to_client, self.to_destination

    def transferred(self) -> Transferred:
        return Transferred(self.to_destination.octets, self.to_client.octets, self.reason)

    def close_sockets(self) -> None:
        """A connection that was cut off is cut off for the other side too: half a file must not
        look like a whole one."""
        for sock in (self.client, self.destination):
            if self.reason != "ended":
                try:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                except OSError:
                    pass
            sock.close()
