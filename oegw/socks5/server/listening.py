"""The sockets that clients connect to."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Any

from oegw.socks5.server.counting import Tally
from oegw.socks5.server.outgoing import carry_on
from oegw.socks5.settings import Listener

# Our choices.
BACKLOG = 4096  # the kernel cuts it down to its own limit
AT_A_TIME = 64  # connections accepted before others have their turn
AGAIN_SECONDS = 2.0  # after which an address that was not there is tried again
EXHAUSTED_SECONDS = 0.5  # without accepting, when there are no descriptors

EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_NOT_THERE = (errno.EADDRNOTAVAIL, errno.ENODEV)  # an address or an interface, as yet

Accepted = Callable[[socket.socket, Any, Listener], None]  # the second is the client's address


def bound(listener: Listener) -> socket.socket:
    """Raises OSError that names the address."""
    six = listener.address.version == 6
    sock = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if six:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if listener.interface is not None:
            # Linux takes packets to an inside address from any interface.
            name = listener.interface.encode()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name)
        carry_on(sock)
        sock.bind(_place(listener))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        where = f"{listener.address} port {listener.port}"
        by = f" at {listener.interface}" if listener.interface else ""
        raise OSError(error.errno, f"{where}{by}: {error.strerror}") from error
    return sock


def _place(listener: Listener) -> tuple[str, int] | tuple[str, int, int, int]:
    address = listener.address
    if isinstance(address, IPv6Address) and address.is_link_local and listener.interface:
        return str(address), listener.port, 0, socket.if_nametoindex(listener.interface)
    return str(address), listener.port


class Door:
    """One listener's socket; an address that is not there yet is waited for.

    ``accepted`` is told of each connection, whose socket is non-blocking.
    """

    def __init__(self, listener: Listener, accepted: Accepted, tally: Tally) -> None:
        self.listener = listener
        self._accepted = accepted
        self._tally = tally
        self._loop = asyncio.get_running_loop()
        self._sock: socket.socket | None = None
        self._index = 0  # of the interface that the socket is bound to
        self._timer: asyncio.TimerHandle | None = None

    @property
    def listening(self) -> bool:
        return self._sock is not None

    @property
    def port(self) -> int:
        return self._sock.getsockname()[1] if self._sock is not None else self.listener.port

    def open(self) -> OSError | None:
        """Why not, if that may change: the address may still come.  Raises OSError else."""
        failure = None
        try:
            self._open()
        except OSError as error:
            if error.errno not in _NOT_THERE:
                raise
            failure = error
            self._tally.event("listener_waits", reason=error.strerror)
        self._look_again()
        return failure

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._shut()

    def _open(self) -> None:
        self._sock = bound(self.listener)
        self._index = self._present_index()
        self._loop.add_reader(self._sock, self._readable)

    def _shut(self) -> None:
        if self._sock is not None:
            self._loop.remove_reader(self._sock)
            self._sock.close()
            self._sock = None

    def _present_index(self) -> int:
        if self.listener.interface is None:
            return 0
        try:
            return socket.if_nametoindex(self.listener.interface)
        except OSError:
            return 0

    def _look_again(self) -> None:
        """The address may have come; the interface may have been made anew, under its old name:
        then nothing comes to a socket that is bound to the old one."""
        if self._sock is not None and self._index != self._present_index():
            self._shut()
            self._tally.event("listener_waits", reason=f"{self.listener.interface} is gone")
        if self._sock is None:
            try:
                self._open()
                self._tally.event("listening", address=str(self.listener.address))
            except OSError:
                pass  # told when it began
        if self.listener.interface is not None or self._sock is None:
            self._timer = self._loop.call_later(AGAIN_SECONDS, self._look_again)

    def _readable(self) -> None:
        assert self._sock is not None
        for _ in range(AT_A_TIME):
            try:
                client, sockaddr = self._sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in EXHAUSTED:
                    self._tally.drop("no_descriptors", detail=error.strerror)
                    self._loop.remove_reader(self._sock)
                    self._loop.call_later(EXHAUSTED_SECONDS, self._go_on, self._sock)
                    return
                continue  # that client has gone already
            client.setblocking(False)
            self._accepted(client, sockaddr, self.listener)

    def _go_on(self, sock: socket.socket) -> None:
        if sock is self._sock:
            self._loop.add_reader(sock, self._readable)
