"""Datagrams by way of a SOCKS server, by calls that wait."""

from __future__ import annotations

import select
import socket
import time
from types import TracebackType
from typing import Self

from oegw.socks5.client import asking, relayed
from oegw.socks5.client.errors import ProxyError, TooSlow
from oegw.socks5.client.line import Line, left, timely
from oegw.socks5.wire import Address, AddressId, Datagram


class UdpAssociation:
    """It lives as long as its connection to the server (SK-6).  ``id``: the ADDRESS ID of the
    destination that `Conversation.udp` was given to associate; sent to by it, a datagram's header
    has 10 octets (SK-41), and its answers have the ID in place of an address (SK-42).

    Raises `ProxyUnreachable` once the server has ended it.
    """

    def __init__(self, line: Line, sock: socket.socket, id: AddressId | None) -> None:
        self.id = id
        self._line = line
        self._socket = sock

    def send(self, payload: bytes, destination: Address, port: int) -> None:
        """Raises DestinationUnusable, and OSError, as for what is too long."""
        self._socket.send(asking.datagram_octets(payload, destination, port))

    def receive(self, timeout: float | None = None) -> Datagram:
        """The next datagram; its address is the ID or name that was sent to, where that was one.

        ``timeout``: seconds; None: for ever.  Raises TooSlow, ProxyUnreachable.
        """
        until = None if timeout is None else time.monotonic() + timeout
        watch = select.poll()
        for each in (self._line.connection, self._socket):
            watch.register(each, select.POLLIN)
        with timely(self._line.proxy):
            while True:
                seconds = left(until)
                ready = watch.poll(None if seconds is None else seconds * 1000)
                numbers = {number for number, _ in ready}
                if self._socket.fileno() in numbers:
                    if (datagram := self._next()) is not None:
                        return datagram
                elif numbers:
                    self._notice()
                else:
                    raise TooSlow("no datagram in time")

    def _next(self) -> Datagram | None:
        try:
            octets = self._socket.recv(relayed.MAX_DATAGRAM_OCTETS, socket.MSG_DONTWAIT)
        except BlockingIOError:  # its checksum was wrong, which poll does not know
            return None
        return asking.datagram_in(octets)

    def _notice(self) -> None:
        try:
            self._line.notice()
        except ProxyError:
            self.close()
            raise

    def interface_towards(self, destination: Address, port: int) -> tuple[Address, int]:
        """The server's address and port that the destination sees (SK-43).

        Raises RequestRefused, after which the association goes on.
        """
        reply = self._line.ask_control(asking.interface_request(destination, port))
        return reply.address, reply.port

    def fileno(self) -> int:
        """Of the socket that datagrams come to, for select and its like."""
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()
        self._line.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def associated(
    line: Line, *, associate: Address | None, flag: int, declared: bool
) -> UdpAssociation:
    """The base command of ``line``, which is the association's from now on, or closed."""
    try:
        with timely(line.proxy):
            sock = relayed.opened(line.connection)
        try:
            own, port = relayed.declared(sock, declared)
            reply = line.ask(asking.udp_request(own, port, flag, associate=associate))
            found = None if associate is None else asking.id_in(reply)
        except BaseException:
            sock.close()
            raise
        with timely(line.proxy):
            sock = relayed.directed(sock, line.connection, reply)
        return UdpAssociation(line, sock, found)
    except BaseException:
        line.close()
        raise
