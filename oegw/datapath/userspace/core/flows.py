"""Which packets are ordinary, and the key of their flow.

Ordinary is what a look at one flow's first packet says all about: it is whole, its headers are
where they are in nearly all packets, and it changes nothing for those that come after it.
"""

from __future__ import annotations

from oegw.packet.ip import IPV4_HEADER, IPV6_HEADER, SKIPPED, TCP, UDP, WITH_PORTS, Buffer
from oegw.packet.transport import TCP_HEADER

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
        if (packet[2] << 8 | packet[3]) != size or packet[6] & 0xBF or packet[7]:
            return None
        protocol, offset = packet[9], IPV4_HEADER
        head = bytes((4, protocol)) + packet[12:20]
    elif first >> 4 == 6:
        if size < IPV6_HEADER or (packet[4] << 8 | packet[5]) + IPV6_HEADER != size:
            return None
        protocol, offset = packet[6], IPV6_HEADER
        if protocol in SKIPPED:
            return None
        head = bytes((6, protocol)) + packet[8:40]
    else:
        return None
    if protocol not in WITH_PORTS:
        return head + _NO_PORTS
    if protocol == TCP:
        if size < offset + TCP_HEADER or packet[offset + 13] & _SYN:
            return None
        length = (packet[offset + 12] >> 4) * 4
        if length < TCP_HEADER or offset + length > size:
            return None
    elif size < offset + (_UDP_HEADER if protocol == UDP else 4):
        return None
    return head + packet[offset : offset + 4]
