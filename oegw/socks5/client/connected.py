"""What a client has in the end: connections, and where the server listens for one."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from oegw.socks5.wire import Address, AddressId


@dataclass(frozen=True, slots=True)
class Connected:
    """``socket``: a plain TCP socket, whose other end is the destination's.  ``address``, ``port``:
    what the server said of it: the address that it connected from (CONNECT), of the peer (BIND), or
    the destination's ADDRESS ID, where that was asked for."""

    socket: socket.socket
    address: Address
    port: int

    @property
    def id(self) -> AddressId | None:
        return self.address if isinstance(self.address, AddressId) else None


@dataclass(frozen=True, slots=True)
class Listening:
    """Where the server waits for the peer of a BIND: to be told to that peer.  ``address`` is an
    ADDRESS ID of the expected peer, where that was asked for (SK-29)."""

    address: Address
    port: int
