"""UDP port 500: one socket for each of our outer addresses."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import Callable
from ipaddress import ip_address

from ike.events import Datagram, TransportAddress
from policy.flow import IPAddress

IKE_PORT = 500  # RFC 2408 section 2.5.1
_LARGEST = 65535
_AT_ONCE = 64  # datagrams per wake-up, so that a flood can't starve the rest of the loop

Receiver = Callable[[bytes, TransportAddress, TransportAddress], None]


class KeyingPort:
    """Sends and receives keying messages.  ``mark`` is set on every packet sent (SO_MARK)."""

    def __init__(self, addresses: tuple[IPAddress, ...], mark: int, receiver: Receiver) -> None:
        self._addresses = addresses
        self._mark = mark
        self._receiver = receiver
        self._sockets: dict[TransportAddress, socket.socket] = {}

    async def open(self, patience: float = 5.0) -> None:
        """Bind the sockets.  Raises OSError naming the address.

        An IPv6 address may still be tentative right after boot: then binding is
        tried again for ``patience`` seconds.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience
        for address in self._addresses:
            local = TransportAddress(address, IKE_PORT)
            while True:
                try:
                    self._sockets[local] = self._bind(local)
                    break
                except OSError as error:
                    if error.errno != errno.EADDRNOTAVAIL or loop.time() > deadline:
                        await self.close()
                        raise OSError(
                            error.errno, f"UDP {address} port {IKE_PORT}: {error.strerror}"
                        ) from error
                await asyncio.sleep(0.05)
            loop.add_reader(self._sockets[local], self._readable, local)

    def _bind(self, local: TransportAddress) -> socket.socket:
        family = socket.AF_INET if local.address.version == 4 else socket.AF_INET6
        sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("=I", self._mark))
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((str(local.address), local.port))
        except OSError:
            sock.close()
            raise
        return sock

    def _readable(self, local: TransportAddress) -> None:
        sock = self._sockets[local]
        for _ in range(_AT_ONCE):
            try:
                data, sender = sock.recvfrom(_LARGEST)
            except BlockingIOError:
                return
            except OSError:  # an error queued by the network is a hint that we don't take (9.2)
                continue
            remote = TransportAddress(ip_address(sender[0].partition("%")[0]), sender[1])
            self._receiver(data, local, remote)

    def send(self, datagram: Datagram) -> str | None:
        """Send one message; returns what went wrong, or None.  A loss is retransmitted anyway."""
        sock = self._sockets.get(datagram.local)
        if sock is None:
            return f"{datagram.local.address} is not ours"
        try:
            sock.sendto(datagram.data, (str(datagram.remote.address), datagram.remote.port))
        except OSError as error:
            return error.strerror or str(error)
        return None

    async def close(self) -> None:
        """Close all sockets."""
        loop = asyncio.get_running_loop()
        for sock in self._sockets.values():
            loop.remove_reader(sock)
            sock.close()
        self._sockets.clear()
