"""What a client asks for, as requests, and what the replies come to.  Without IO."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

from oegw.socks5.client.errors import AnswerUnusable
from oegw.socks5.client.proxy import destination_of
from oegw.socks5.codes import AddressType, Command, Subcommand
from oegw.socks5.wire import (
    Address,
    AddressId,
    ControlRequest,
    Datagram,
    IPAddress,
    MalformedMessage,
    Reply,
    Request,
    parse_datagram,
    plain,
)


def connect_request(
    destination: Address, port: int, flag: int = 0, *, associate: bool = False
) -> Request:
    """``associate``: BND.ADDR of the reply is an ADDRESS ID of the destination (SK-26).

    These functions raise DestinationUnusable.
    """
    command = Command.CONNECT_AND_ASSOCIATE if associate else Command.CONNECT
    return Request(command, destination_of(destination, port), port, flag)


def bind_request(peer: Address, port: int, flag: int = 0, *, associate: bool = False) -> Request:
    """``peer``: who may connect; the unspecified address: anybody (SK-5)."""
    command = Command.BIND_AND_ASSOCIATE if associate else Command.BIND
    return Request(command, destination_of(peer, port), port, flag)


def udp_request(
    own: IPAddress, port: int, flag: int = 0, *, associate: Address | None = None
) -> Request:
    """``own``, ``port``: where our datagrams will come from; unspecified and 0: not known.

    ``associate``: a destination to get an ADDRESS ID of; then the port alone is told (SK-30).
    """
    if associate is not None:
        return Request(Command.UDP_AND_ASSOCIATE, destination_of(associate, port), port, flag)
    return Request(Command.UDP_ASSOCIATE, own, port, flag)


def associate_request(
    destination: Address, prefer: AddressType | None = None, flag: int = 0
) -> Request:
    """A dedicated ADDRESS ASSOCIATE.  ``prefer``: ADR.PREF (SK-35); None: an ADDRESS ID."""
    preference = 0 if prefer is None else int(prefer)
    return Request(Command.ASSOCIATE, destination_of(destination), preference, flag)


def interface_request(destination: Address, port: int) -> ControlRequest:
    return ControlRequest(Subcommand.INTERFACE_DATA, destination_of(destination, port), port)


def id_in(reply: Reply) -> AddressId:
    """Raises AnswerUnusable."""
    if not isinstance(reply.address, AddressId):
        raise AnswerUnusable("the server's reply has no ADDRESS ID")
    return reply.address


def asked_further(address: Address) -> bool:
    """Whether an ID came where an address or name was preferred: such a server (``reply = "id"``)
    is asked once more, what the ID stands for (SK-32)."""
    return isinstance(address, AddressId)


def address_in(reply: Reply, family: int) -> IPAddress:
    """What an ADDRESS ASSOCIATE that prefers ``family``, 4 or 6, was answered.

    Raises AnswerUnusable.
    """
    address = reply.address
    if isinstance(address, IPv4Address | IPv6Address) and address.version == family:
        return address
    raise AnswerUnusable(f"the server's reply has no IPv{family} address")


def name_in(reply: Reply) -> str:
    """Raises AnswerUnusable."""
    if isinstance(reply.address, str):
        return reply.address
    raise AnswerUnusable("the server's reply has no name")


PREFERENCE = {4: AddressType.IPV4, 6: AddressType.IPV6}


# -------------------------------------------------------------------------- datagrams


def relay_in(reply: Reply, server: IPAddress) -> tuple[IPAddress, int]:
    """Where our datagrams go: BND.ADDR, or the server's address on our TCP connection (``server``)
    where that is an ADDRESS ID (SK-30), a name or nothing.

    Raises AnswerUnusable.
    """
    if reply.port == 0:
        raise AnswerUnusable("the server's reply has no port for datagrams")
    address = reply.address
    if isinstance(address, AddressId | str) or address.is_unspecified:
        return server, reply.port
    return plain_address(str(address)), reply.port


def plain_address(text: str) -> IPAddress:
    """An IPv4 address that is mapped into IPv6 as it is; an interface's name left out."""
    return plain(ip_address(text.partition("%")[0]))


def datagram_octets(payload: bytes, destination: Address, port: int) -> bytes:
    """Raises DestinationUnusable."""
    return Datagram(destination_of(destination, port), port, payload).octets()


def datagram_in(octets: bytes) -> Datagram | None:
    """None: no datagram of the server's, or a fragment, which we don't put together (SK-7)."""
    try:
        datagram = parse_datagram(octets)
    except MalformedMessage:
        return None
    return datagram if datagram.fragment == 0 else None
