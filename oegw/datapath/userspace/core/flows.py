"""Which packets are ordinary, and the key of their flow.

Ordinary is what a look at one flow's first packet says all about: it is whole, its headers are
where they are in nearly all packets, and it changes nothing for those that come after it.
"""

from __future__ import annotations

from struct import Struct

from oegw.packet.ip import IPV4_HEADER, IPV6_HEADER, SKIPPED, TCP, UDP, WITH_PORTS, Buffer
from oegw.packet.transport import TCP_HEADER

# Version, length, fragment field, protocol, addresses, and the four octets behind the header.
_IPV4 = Struct("!BxHxxHxBxx8s4s")
_IPV6 = Struct("!BxxxHBx32s4s")
_NO_PORTS = bytes(4)
_UDP_HEADER = 8
_SYN = 0x02


def key_of(packet: Buffer) -> bytes | None:
    """The flow of an ordinary packet: version, protocol, source, destination and, where the
    protocol has them, ports, else four zeros; None if the packet is not ordinary.

    Ordinary: an IPv4 header without options and of no fragment, or an IPv6 header without extension
    headers; its length is exactly the packet's.  TCP and UDP with a whole header, TCP without SYN;
    of the others with ports, at least these.
    """
    size = len(packet)
    if size < IPV4_HEADER:
        return None
    first = packet[0]
    if first == 0x45:
        offset, version = IPV4_HEADER, 4
        whole = packet if size >= _IPV4.size else bytes(packet) + _NO_PORTS
        _, length, fragment, protocol, addresses, ports = _IPV4.unpack_from(whole)
        if length != size or fragment & 0xBFFF:
            return None
    elif first >> 4 == 6 and size >= IPV6_HEADER:
        offset, version = IPV6_HEADER, 6
        whole = packet if size >= _IPV6.size else bytes(packet) + _NO_PORTS
        _, length, protocol, addresses, ports = _IPV6.unpack_from(whole)
        if length + IPV6_HEADER != size or protocol in SKIPPED:
            return None
    else:
        return None
    if protocol == TCP:
        if size < offset + TCP_HEADER or packet[offset + 13] & _SYN:
            return None
        header = (packet[offset + 12] >> 4) * 4
        if header < TCP_HEADER or offset + header > size:
            return None
    elif protocol in WITH_PORTS:
        if size < offset + (_UDP_HEADER if protocol == UDP else 4):
            return None
    else:
        ports = _NO_PORTS
    key: bytes = bytes((version, protocol)) + addresses + ports
    return key
