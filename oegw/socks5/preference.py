"""Which address the client is told in a reply (Extension 3; SK-33 to SK-39).  Without IO.

Three voices, the loudest first: FLAG 0x10 of the request, ADR.PREF of the dedicated ADDRESS
ASSOCIATE (now, or stored with the ID that the client uses now), and nothing said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Address

from oegw.socks5.codes import AddressType, Flag, ReplyCode
from oegw.socks5.terms import Refused
from oegw.socks5.wire import IPAddress, plain

NOWHERE = IPv4Address(0)


class Preference(Enum):
    """What the client said of the address that it is to be told."""

    UNSAID = "unsaid"  # the family by which it came; of a dedicated ADDRESS ASSOCIATE: the ID
    IPV4 = "IPv4"
    IPV6 = "IPv6"
    NAME = "name"  # the reverse DNS question, delegated (SK-36)
    DESTINATION = "destination"  # FLAG 0x10: the family used towards the destination


_BY_TYPE = {
    0: Preference.UNSAID,
    AddressType.ID: Preference.UNSAID,
    AddressType.IPV4: Preference.IPV4,
    AddressType.IPV6: Preference.IPV6,
    AddressType.NAME: Preference.NAME,
}


def preference_of(flag: int, adr_pref: int = 0) -> Preference:
    """``adr_pref``: DST.PORT of a dedicated ADDRESS ASSOCIATE, else 0.  Its upper octet is reserved
    and ignored (`reserved_octet_used` tells, for counting).

    Raises Refused where it is the number of no address type.
    """
    if flag & Flag.DESTINATION_FAMILY:  # SK-38
        return Preference.DESTINATION
    try:
        return _BY_TYPE[adr_pref & 0xFF]
    except KeyError:
        raise Refused(ReplyCode.ADDRESS_TYPE_NOT_SUPPORTED, "preference_unknown") from None


def reserved_octet_used(adr_pref: int) -> bool:
    return bool(adr_pref >> 8)


def louder(flag: int, stored: Preference) -> Preference:
    """What holds for a request with ``flag`` that uses an ID with a ``stored`` preference."""
    return Preference.DESTINATION if flag & Flag.DESTINATION_FAMILY else stored


def bound_address(
    preference: Preference,
    client_side: IPAddress,
    outgoing: IPAddress,
    advertise: Sequence[IPAddress] = (),
) -> IPAddress:
    """BND.ADDR of a CONNECT, of the first reply to a BIND, of the UDP control channel.

    ``client_side``: our address of the client's connection.  ``outgoing``: ours towards the
    destination.  ``advertise``: as in the settings.
    """
    client_side, outgoing = plain(client_side), plain(outgoing)
    family = _family(preference, client_side, outgoing)
    for address in (*advertise, outgoing, client_side):
        if address.version == family:
            return address
    # A preference for IPv6 that was stored by a client which came by IPv4, or the other way: no
    # address of ours fits, and the connection is there already.
    return _within_ipv6(outgoing) if family == 6 else NOWHERE


def peer_address(preference: Preference, client_side: IPAddress, peer: IPAddress) -> IPAddress:
    """BND.ADDR of the second reply to a BIND: who has come.

    A client that wants IPv6 gets an IPv4 peer's address within IPv6; who wants IPv4 can't be told
    that of an IPv6 peer, and gets ours as it would of a CONNECT.
    """
    client_side, peer = plain(client_side), plain(peer)
    family = _family(preference, client_side, peer)
    if peer.version == family:
        return peer
    if family == 6:
        return _within_ipv6(peer)
    return client_side if client_side.version == 4 else NOWHERE


def _family(preference: Preference, client_side: IPAddress, other: IPAddress) -> int:
    """``other``: of the family used towards the destination."""
    match preference:
        case Preference.IPV4:
            return 4
        case Preference.IPV6:
            return 6
        case Preference.DESTINATION:  # SK-34
            return other.version
        case _:  # SK-33; a name of our own address tells the client nothing
            return client_side.version


def _within_ipv6(address: IPAddress) -> IPv6Address:
    """RFC 4291 section 2.5.5.2."""
    return IPv6Address(b"\x00" * 10 + b"\xff\xff" + address.packed)


def relay_address(client_side: IPAddress, advertise: Sequence[IPAddress] = ()) -> IPAddress:
    """BND.ADDR of a UDP ASSOCIATE: where the client is to send its datagrams.  That is an address
    that it can reach, whatever family its destinations have (SK-30)."""
    client_side = plain(client_side)
    return next((each for each in advertise if each.version == client_side.version), client_side)


def unspecified(client_side: IPAddress) -> IPAddress:
    """What replies name that name no address (SK-10)."""
    return NOWHERE if plain(client_side).version == 4 else IPv6Address(0)


# ---------------------------------------------------------------- dedicated ADDRESS ASSOCIATE


@dataclass(frozen=True, slots=True)
class TellId:
    """Make an ID, and tell it."""


@dataclass(frozen=True, slots=True)
class TellAddress:
    address: IPAddress


@dataclass(frozen=True, slots=True)
class TellName:
    name: str


@dataclass(frozen=True, slots=True)
class AskName:
    """Ask for the name of the address (PTR), and tell it."""

    address: IPAddress


Answer = TellId | TellAddress | TellName | AskName


def association_answer(
    preference: Preference, destination: IPAddress | str, addresses: Sequence[IPAddress]
) -> Answer:
    """What a dedicated ADDRESS ASSOCIATE is answered, with ``reply = "address"``.

    ``destination``: what was to be associated, or what the ID of the question stands for (SK-32).
    ``addresses``: where that leads, in the order in which they would be tried; at least one.
    Raises Refused (SK-37).
    """
    match preference:
        case Preference.UNSAID:
            return TellId()
        case Preference.NAME:
            if isinstance(destination, str):
                return TellName(destination)
            return AskName(plain(destination))
        case Preference.DESTINATION:
            return TellAddress(plain(addresses[0]))
    family = 4 if preference is Preference.IPV4 else 6
    for address in map(plain, addresses):
        if address.version == family:
            return TellAddress(address)
    raise Refused(ReplyCode.ADDRESS_TYPE_NOT_SUPPORTED, "no_such_address")
