"""Where the ports of a packet are, and whether they can be sealed at all (sst.md section 14.7).

Everything here is strangers' input.  Errors are `PacketError`, for what can't be read, and
`NotEligible`, for what can, and has no ports that both ends would find.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from struct import Struct
from typing import NoReturn

from oegw.packet.ip import (
    DCCP,
    DESTINATION_OPTIONS,
    EXTENSION_HEADERS_LIMIT,
    FRAGMENT,
    ICMP,
    ICMPV6,
    IPV4_HEADER,
    IPV6_HEADER,
    ROUTING,
    SCTP,
    SKIPPED,
    TCP,
    UDP,
    UDP_LITE,
    PacketError,
)
from oegw.sst.permutation import PROTOCOLS, NotEligible, check_addresses
from oegw.sst.routing import final_destination

# Specification values: IANA protocol numbers.
AUTHENTICATION_HEADER = 51
HIP = 139
SHIM6 = 140

# RFC 791 section 3.1, with the copied flag; RFC 6275 section 6.3.
_END_OF_OPTIONS = 0
_NO_OPERATION = 1
_LOOSE_SOURCE_ROUTE = 131
_STRICT_SOURCE_ROUTE = 137
_PAD1 = 0
_HOME_ADDRESS = 201

# Where the checksum of a transport header is, and the least that a whole header has.
CHECKSUM = {TCP: 16, UDP: 6}
_HEADER = {TCP: 20, UDP: 8}

# Types of errors: RFC 1122 section 3.2.2, RFC 4443 section 2.1.  Others have another form.
ERRORS = {ICMP: frozenset({3, 4, 5, 11, 12}), ICMPV6: frozenset({1, 2, 3, 4})}

_TRIGGERS = {
    UDP_LITE: "sst_udp_lite",
    DCCP: "sst_dccp",
    SCTP: "sst_sctp",
    AUTHENTICATION_HEADER: "sst_authentication_header",
    HIP: "sst_hip",
    SHIM6: "sst_shim6",
}
"""Protocols with ports, or before them, that are left out, each by a name of its own."""

PORTED = PROTOCOLS | _TRIGGERS.keys()
"""All with which ports leave; where port encryption is required, only sealed ones may."""

_IPV4 = Struct("!BxHxxHxB")  # version and IHL, total length, fragment field, protocol
_IPV6 = Struct("!HB")  # payload length, next header
_FRAGMENT = Struct("!BxH")
_TWO_PORTS = Struct("!HH")


class Fragment(Enum):
    WHOLE = "whole"
    FIRST = "first"
    LATER = "later"  # no ports


@dataclass(frozen=True, slots=True)
class Place:
    """``start`` and ``end``: the IP packet, or the quote of one, within the octets that were read.
    ``offset``: where the transport header begins.  ``source`` and ``destination`` are packed, the
    destination is the final one.  A later fragment has no ports.
    """

    version: int
    start: int
    end: int
    protocol: int
    offset: int
    source: bytes
    destination: bytes
    fragment: Fragment
    source_port: int | None
    destination_port: int | None


def place_of(packet: bytes) -> Place:
    """Find the ports of a whole packet.  Raises PacketError and NotEligible."""
    return locate(packet, 0, len(packet), quoted=False)


def locate(octets: bytes, start: int, end: int, quoted: bool) -> Place:
    """Find the ports of the packet that begins at ``start``; what is at ``end`` is not read.

    A quote need not be longer than to the ports.  Raises PacketError and NotEligible.
    """
    if start >= end:
        _cut(quoted)
    version = octets[start] >> 4
    if version == 4:
        return _locate4(octets, start, end, quoted)
    if version == 6:
        return _locate6(octets, start, end, quoted)
    raise PacketError("packet_version")


def _locate4(octets: bytes, start: int, end: int, quoted: bool) -> Place:
    if end - start < IPV4_HEADER:
        _cut(quoted)
    first, length, field, protocol = _IPV4.unpack_from(octets, start)
    header = (first & 15) * 4
    if header < IPV4_HEADER or length < header:
        raise PacketError("packet_length")
    offset = start + header
    if start + length <= end:
        end = start + length
    elif not quoted or offset > end:
        _cut(quoted)
    if header > IPV4_HEADER:
        _check_ipv4_options(octets[start + IPV4_HEADER : offset])
    fragment = Fragment.WHOLE
    if field & 0x1FFF:
        fragment = Fragment.LATER
        _check_overlap(field & 0x1FFF, protocol)
    elif field & 0x2000:
        fragment = Fragment.FIRST
    source, destination = octets[start + 12 : start + 16], octets[start + 16 : start + 20]
    return _with_ports(
        octets,
        Place(4, start, end, protocol, offset, source, destination, fragment, None, None),
        quoted,
    )


def _locate6(octets: bytes, start: int, end: int, quoted: bool) -> Place:
    if end - start < IPV6_HEADER:
        _cut(quoted)
    payload, protocol = _IPV6.unpack_from(octets, start + 4)
    offset = start + IPV6_HEADER
    if offset + payload <= end:
        end = offset + payload
    elif not quoted:
        _cut(quoted)
    source, destination = octets[start + 8 : start + 24], octets[start + 24 : start + 40]
    fragment = Fragment.WHOLE
    seen: set[int] = set()
    headers = 0
    while protocol in SKIPPED and fragment is not Fragment.LATER:
        headers += 1
        if headers > EXTENSION_HEADERS_LIMIT or (protocol == FRAGMENT and FRAGMENT in seen):
            raise PacketError("packet_extension_headers")
        if end - offset < 8:
            _cut(quoted, fragment)
        if protocol == FRAGMENT:
            seen.add(FRAGMENT)
            protocol, field = _FRAGMENT.unpack_from(octets, offset)
            offset += 8
            if field >> 3:
                fragment = Fragment.LATER
                _check_overlap(field >> 3, protocol)
            elif field & 1:
                fragment = Fragment.FIRST
            continue  # else RFC 6946: a fragment that is all of its packet
        size = (octets[offset + 1] + 1) * 8
        if offset + size > end:
            _cut(quoted, fragment)
        header = octets[offset : offset + size]
        if protocol == ROUTING:
            if ROUTING in seen:
                raise NotEligible("sst_routing_header")
            seen.add(ROUTING)
            destination = final_destination(header, destination)
        elif protocol == DESTINATION_OPTIONS:
            _check_destination_options(header)
        protocol = header[0]
        offset += size
    return _with_ports(
        octets,
        Place(6, start, end, protocol, offset, source, destination, fragment, None, None),
        quoted,
    )


def _with_ports(octets: bytes, place: Place, quoted: bool) -> Place:
    """The place with its ports, if all else that ports need is there too."""
    protocol, offset, there = place.protocol, place.offset, place.end - place.offset
    if protocol not in PROTOCOLS:
        if quoted and there > 0 and octets[offset] in ERRORS.get(protocol, ()):
            raise NotEligible("sst_quote_nested")
        raise NotEligible(_TRIGGERS.get(protocol, "sst_protocol"))
    check_addresses(place.source, place.destination)
    if place.fragment is Fragment.LATER:
        return place
    if there < 4:
        _cut(quoted, place.fragment)
    if not quoted:
        if place.fragment is Fragment.FIRST and there < CHECKSUM[protocol] + 2:
            raise NotEligible("sst_short_first_fragment")
        if place.fragment is Fragment.WHOLE and there < _HEADER[protocol]:
            raise PacketError("packet_truncated")
    source_port, destination_port = _TWO_PORTS.unpack_from(octets, offset)
    if not source_port or not destination_port:
        raise NotEligible("sst_port_zero")
    return Place(
        place.version,
        place.start,
        place.end,
        protocol,
        offset,
        place.source,
        place.destination,
        place.fragment,
        source_port,
        destination_port,
    )


def _cut(quoted: bool, fragment: Fragment = Fragment.WHOLE) -> NoReturn:
    """Something is not there that should be."""
    if quoted:
        raise PacketError("quote_truncated")
    if fragment is Fragment.FIRST:  # RFC 7112: all headers are in the first fragment
        raise NotEligible("sst_short_first_fragment")
    raise PacketError("packet_truncated")


def _check_overlap(fragment_offset: int, protocol: int) -> None:
    """Refuse what would overwrite ports that were checked (RFC 1858 section 3.2, RFC 3128)."""
    if fragment_offset == 1 and protocol in PROTOCOLS:
        raise PacketError("packet_overlapping_fragment")


def _check_ipv4_options(options: bytes) -> None:
    """A source route changes the destination on the way, and may end at none that we see."""
    place = 0
    while place < len(options) and options[place] != _END_OF_OPTIONS:
        if options[place] == _NO_OPERATION:
            place += 1
            continue
        if options[place] in (_LOOSE_SOURCE_ROUTE, _STRICT_SOURCE_ROUTE):
            raise NotEligible("sst_source_route")
        size = options[place + 1] if place + 1 < len(options) else 0
        if size < 2 or place + size > len(options):
            raise NotEligible("sst_malformed_option")
        place += size


def _check_destination_options(header: bytes) -> None:
    """With a Home Address option (RFC 6275) the source is another than the header's."""
    place = 2
    while place < len(header):
        if header[place] == _PAD1:
            place += 1
            continue
        if header[place] == _HOME_ADDRESS:
            raise NotEligible("sst_home_address")
        if place + 1 >= len(header) or place + 2 + header[place + 1] > len(header):
            raise NotEligible("sst_malformed_option")
        place += 2 + header[place + 1]
