"""The messages, from octets and to them.  Without IO.

A parser of messages on a stream takes all octets that have come and returns the message and how
many octets it took, or None where some are still missing; it never asks for more than the longest
message has.  What can't become a message raises MalformedMessage, as early as that is certain, with
the code that the peer is to be told.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import TypeVar

from oegw.socks5.codes import (
    CREDENTIALS_VERSION,
    VERSION,
    AddressType,
    ReplyCode,
)

IPAddress = IPv4Address | IPv6Address

# Our choice: the longest message on a stream has 513 octets (RFC 1929); nobody needs to send more
# before the answer but what is meant for the destination.
MAX_MESSAGE_OCTETS = 513


class SocksError(Exception):
    """What this room raises."""


class MalformedMessage(SocksError):  # noqa: N818  (it names the fact)
    """``code``: what a request with it is answered."""

    def __init__(self, text: str, code: ReplyCode = ReplyCode.FAILURE) -> None:
        super().__init__(text)
        self.code = code


class WrongVersion(MalformedMessage):
    """The peer speaks something else: ``version`` is the octet that it began with."""

    def __init__(self, version: int) -> None:
        super().__init__(f"version {version}, not {VERSION}")
        self.version = version


@dataclass(frozen=True, slots=True)
class AddressId:
    """An ADDRESS ID: four octets, CLASS (``category``, 0 as yet) and REALID (SK-11)."""

    realid: int
    category: int = 0

    def __str__(self) -> str:
        """REALIDs are keys: not told in logs."""
        return "an ADDRESS ID"

    __repr__ = __str__


Address = IPv4Address | IPv6Address | AddressId | str
"""A ``str`` is a domain name, as it was written; 1 to 255 octets of UTF-8, without control
characters."""


def plain(address: IPAddress) -> IPAddress:
    """The address that the kernel would use: IPv4 in IPv6 (``::ffff:a.b.c.d``) as IPv4, and without
    the zone."""
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped or IPv6Address(int(address))
    return address


@dataclass(frozen=True, slots=True)
class Greeting:
    """The client's methods, in its order (RFC 1928 section 3)."""

    methods: tuple[int, ...]

    def octets(self) -> bytes:
        return bytes([VERSION, len(self.methods), *self.methods])


@dataclass(frozen=True, slots=True)
class MethodChoice:
    method: int

    def octets(self) -> bytes:
        return bytes([VERSION, self.method])


@dataclass(frozen=True, slots=True)
class Credentials:
    """RFC 1929.  Octets, for the RFC names no encoding; 1 to 255 of each."""

    user: bytes
    password: bytes

    def __repr__(self) -> str:
        return f"Credentials({self.user!r}, ...)"

    def octets(self) -> bytes:
        sizes = len(self.user), len(self.password)
        if not all(1 <= size <= 255 for size in sizes):
            raise MalformedMessage("user and password have 1 to 255 octets each")
        return (
            bytes([CREDENTIALS_VERSION, sizes[0]]) + self.user + bytes([sizes[1]]) + self.password
        )


@dataclass(frozen=True, slots=True)
class CredentialsAnswer:
    status: int  # 0: accepted

    def octets(self) -> bytes:
        return bytes([CREDENTIALS_VERSION, self.status])


@dataclass(frozen=True, slots=True)
class Request:
    """``command``: any octet; `Command` has those that there are.  ``port``: DST.PORT, which is
    ADR.PREF in a dedicated ADDRESS ASSOCIATE."""

    command: int
    address: Address
    port: int
    flag: int = 0

    def octets(self) -> bytes:
        return bytes([VERSION, self.command, self.flag]) + place_octets(self.address, self.port)


@dataclass(frozen=True, slots=True)
class Reply:
    code: int
    address: Address
    port: int
    flag: int = 0

    def octets(self) -> bytes:
        return bytes([VERSION, self.code, self.flag]) + place_octets(self.address, self.port)


@dataclass(frozen=True, slots=True)
class ControlRequest:
    """A request of the UDP control channel, on the association's TCP connection."""

    subcommand: int
    address: Address
    port: int
    flag: int = 0

    def octets(self) -> bytes:
        return bytes([0, self.subcommand, self.flag]) + place_octets(self.address, self.port)


@dataclass(frozen=True, slots=True)
class Datagram:
    """What client and server send each other over UDP (RFC 1928 section 7)."""

    address: Address
    port: int
    payload: bytes
    fragment: int = 0

    def octets(self) -> bytes:
        return bytes([0, 0, self.fragment]) + place_octets(self.address, self.port) + self.payload


def place_octets(address: Address, port: int) -> bytes:
    """ATYP, address, port.  Raises MalformedMessage for a name that is empty or too long."""
    match address:
        case IPv4Address():
            kind, body = AddressType.IPV4, address.packed
        case IPv6Address():
            kind, body = AddressType.IPV6, address.packed
        case AddressId():
            kind, body = (
                AddressType.ID,
                bytes([address.category]) + address.realid.to_bytes(3, "big"),
            )
        case str():
            name = _name_octets(address)
            kind, body = AddressType.NAME, bytes([len(name)]) + name
    return bytes([kind]) + body + port.to_bytes(2, "big")


def _name_octets(name: str) -> bytes:
    try:
        octets = name.encode()
    except UnicodeEncodeError:  # half a character, of an argument that was not UTF-8
        raise MalformedMessage("a name that is not Unicode", ReplyCode.INVALID_ADDRESS) from None
    if not 1 <= len(octets) <= 255:
        raise MalformedMessage(
            f"a name of {len(octets)} octets; 1 to 255 fit", ReplyCode.INVALID_ADDRESS
        )
    _check_name(name)
    return octets


def parse_greeting(octets: bytes) -> tuple[Greeting, int] | None:
    _check_version(octets, VERSION)
    if len(octets) < 2:
        return None
    if octets[1] == 0:
        raise MalformedMessage("no method offered")
    end = 2 + octets[1]
    return None if len(octets) < end else (Greeting(tuple(octets[2:end])), end)


def parse_method_choice(octets: bytes) -> tuple[MethodChoice, int] | None:
    _check_version(octets, VERSION)
    return None if len(octets) < 2 else (MethodChoice(octets[1]), 2)


def parse_credentials(octets: bytes) -> tuple[Credentials, int] | None:
    _check_version(octets, CREDENTIALS_VERSION)
    if len(octets) < 2:
        return None
    if octets[1] == 0:
        raise MalformedMessage("an empty user name")
    end_of_user = 2 + octets[1]
    if len(octets) <= end_of_user:
        return None
    if octets[end_of_user] == 0:
        raise MalformedMessage("an empty password")
    end = end_of_user + 1 + octets[end_of_user]
    if len(octets) < end:
        return None
    return Credentials(octets[2:end_of_user], octets[end_of_user + 1 : end]), end


def parse_credentials_answer(octets: bytes) -> tuple[CredentialsAnswer, int] | None:
    """The version is not looked at: servers are known that send 5 (RFC 1929 wants 1)."""
    return None if len(octets) < 2 else (CredentialsAnswer(octets[1]), 2)


_Message = TypeVar("_Message", Request, Reply, ControlRequest)


def parse_request(octets: bytes) -> tuple[Request, int] | None:
    return _parse(Request, VERSION, octets)


def parse_reply(octets: bytes) -> tuple[Reply, int] | None:
    return _parse(Reply, VERSION, octets)


def parse_control_request(octets: bytes) -> tuple[ControlRequest, int] | None:
    return _parse(ControlRequest, 0, octets)


def parse_datagram(octets: bytes) -> Datagram:
    """FLAG is not looked at.  Raises MalformedMessage."""
    if len(octets) < 4:
        raise MalformedMessage(f"a datagram of {len(octets)} octets")
    place = _parse_place(octets, 3)
    if place is None:
        raise MalformedMessage("a datagram that ends within its header")
    address, port, end = place
    return Datagram(address, port, bytes(octets[end:]), octets[2])


def _parse(
    kind: Callable[[int, Address, int, int], _Message], version: int, octets: bytes
) -> tuple[_Message, int] | None:
    _check_version(octets, version)
    place = _parse_place(octets, 3)
    if place is None:
        return None
    address, port, end = place
    return kind(octets[1], address, port, octets[2]), end


def _check_version(octets: bytes, wanted: int) -> None:
    if octets and octets[0] != wanted:
        raise WrongVersion(octets[0])


def _parse_place(octets: bytes, start: int) -> tuple[Address, int, int] | None:
    """ATYP, address and port at ``start``: address, port, and where they end."""
    if len(octets) <= start:
        return None
    body = start + 1
    match octets[start]:
        case AddressType.IPV4:
            end = body + 4
        case AddressType.IPV6:
            end = body + 16
        case AddressType.ID:
            end = body + 4
        case AddressType.NAME:
            if len(octets) <= body:
                return None
            if octets[body] == 0:
                raise MalformedMessage("an empty name", ReplyCode.INVALID_ADDRESS)
            body, end = body + 1, body + 1 + octets[body]
        case other:
            raise MalformedMessage(f"address type {other}", ReplyCode.ADDRESS_TYPE_NOT_SUPPORTED)
    if len(octets) < end + 2:
        return None
    return (
        _address(octets[start], bytes(octets[body:end])),
        int.from_bytes(octets[end : end + 2], "big"),
        end + 2,
    )


def _address(kind: int, body: bytes) -> Address:
    match kind:
        case AddressType.IPV4:
            return IPv4Address(body)
        case AddressType.IPV6:
            return IPv6Address(body)
        case AddressType.ID:
            return AddressId(int.from_bytes(body[1:], "big"), body[0])
    try:
        name = body.decode()
    except UnicodeDecodeError:
        raise MalformedMessage("a name that is not UTF-8", ReplyCode.INVALID_ADDRESS) from None
    _check_name(name)
    return name


def _check_name(name: str) -> None:
    """Control characters are in no name, but in tricks: resolvers written in C end at a NUL, so the
    name that a rule has judged would not be the one that is looked up."""
    if any(character < " " or character == "\x7f" for character in name):
        raise MalformedMessage("a name with a control character", ReplyCode.INVALID_ADDRESS)
