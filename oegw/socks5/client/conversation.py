"""What an application asks of a SOCKS server, by calls that wait."""

from __future__ import annotations

import socket
from types import TracebackType
from typing import Self

from oegw.socks5.client import asking
from oegw.socks5.client.association import UdpAssociation, associated
from oegw.socks5.client.connected import Connected, Listening
from oegw.socks5.client.errors import OutOfTurn
from oegw.socks5.client.line import Line
from oegw.socks5.client.proxy import TIMEOUT, Proxy
from oegw.socks5.codes import AddressType
from oegw.socks5.wire import Address, IPAddress, Reply


class Conversation:
    """One TCP connection to the server: any number of `associate`, `address_of` and `name_of`, and
    at last one `connect`, `bind` or `udp` (SK-31), whose result the connection belongs to.

    ``timeout``: seconds that each call may take; None: for ever.  What the server refuses raises
    `RequestRefused` and ends the conversation; so do all errors of `errors`.
    """

    def __init__(self, proxy: Proxy, *, timeout: float | None = TIMEOUT) -> None:
        self._held: Line | None = Line(proxy, timeout)

    @property
    def _line(self) -> Line:
        if self._held is None:
            raise OutOfTurn("this conversation has become an association")
        return self._held

    def associate(
        self, destination: Address, *, prefer: AddressType | None = None, flag: int = 0
    ) -> Address:
        """An ADDRESS ID for a destination, or what ``prefer`` asks for instead; the server resolves
        names, and connects to nothing (SK-24, SK-25)."""
        return self._line.ask(asking.associate_request(destination, prefer, flag)).address

    def address_of(self, name: Address, family: int) -> IPAddress:
        """An address of ``family``, 4 or 6; `AddressTypeNotSupported`: there is none (SK-37)."""
        return asking.address_in(self._preferring(name, asking.PREFERENCE[family]), family)

    def name_of(self, address: Address) -> str:
        """The name by the reverse DNS (SK-36); `HostUnreachable`: there is none."""
        return asking.name_in(self._preferring(address, AddressType.NAME))

    def connect(
        self,
        destination: Address,
        port: int,
        *,
        associate: bool = False,
        flag: int = 0,
        early: bytes = b"",
    ) -> Connected:
        """``associate``: an ADDRESS ID comes with it (SK-26).  ``flag``: of `Flag`.  ``early``:
        octets for the destination that go with the request, without a round trip of their own."""
        request = asking.connect_request(destination, port, flag, associate=associate)
        reply = self._line.ask(request, early)
        return self._connected(reply)

    def bind(
        self, peer: Address, port: int = 0, *, associate: bool = False, flag: int = 0
    ) -> Listening:
        """The server listens for a connection of ``peer``, for which `accept` waits; the
        unspecified address: of anybody."""
        reply = self._line.ask(asking.bind_request(peer, port, flag, associate=associate))
        return Listening(reply.address, reply.port)

    def accept(self, timeout: float | None = None) -> Connected:
        """The connection that `bind` is for.  ``timeout``: seconds; None: as long as the server
        waits."""
        return self._connected(self._line.await_reply(timeout))

    def udp(
        self, *, associate: Address | None = None, flag: int = 0, declared: bool = True
    ) -> UdpAssociation:
        """``associate``: a destination whose ADDRESS ID comes with it (SK-30).  ``declared``: the
        server is told where our datagrams come from; not of use behind a NAT."""
        line, self._held = self._line, None
        return associated(line, associate=associate, flag=flag, declared=declared)

    def _preferring(self, destination: Address, prefer: AddressType) -> Reply:
        reply = self._line.ask(asking.associate_request(destination, prefer))
        if asking.asked_further(reply.address):
            reply = self._line.ask(asking.associate_request(reply.address, prefer))
        return reply

    def _connected(self, reply: Reply) -> Connected:
        return Connected(self._line.detach(), reply.address, reply.port)

    def close(self) -> None:
        """Of no effect on what `connect`, `accept` and `udp` returned."""
        if self._held is not None:
            self._held.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def connect(
    proxy: Proxy,
    destination: Address,
    port: int,
    *,
    timeout: float | None = TIMEOUT,
    flag: int = 0,
    early: bytes = b"",
) -> socket.socket:
    """A socket whose other end is the destination's, as `Conversation.connect` makes it.

    ``timeout``: seconds for the connection to the server, and for its answer.
    """
    with Conversation(proxy, timeout=timeout) as conversation:
        return conversation.connect(destination, port, flag=flag, early=early).socket


def udp(
    proxy: Proxy,
    *,
    associate: Address | None = None,
    flag: int = 0,
    declared: bool = True,
    timeout: float | None = TIMEOUT,
) -> UdpAssociation:
    """As `Conversation.udp`."""
    with Conversation(proxy, timeout=timeout) as conversation:
        return conversation.udp(associate=associate, flag=flag, declared=declared)


def address_of(
    proxy: Proxy, name: str, family: int, *, timeout: float | None = TIMEOUT
) -> IPAddress:
    """As `Conversation.address_of`: the server asks the DNS."""
    with Conversation(proxy, timeout=timeout) as conversation:
        return conversation.address_of(name, family)


def name_of(proxy: Proxy, address: Address, *, timeout: float | None = TIMEOUT) -> str:
    """As `Conversation.name_of`."""
    with Conversation(proxy, timeout=timeout) as conversation:
        return conversation.name_of(address)
