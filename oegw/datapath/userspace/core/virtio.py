"""The header before each frame of a tunnel device that was opened with ``IFF_VNET_HDR``: what of
the packet's checksum and segmentation is still to be done (virtio 1.2 section 5.1.6).

It is the header without a number of buffers, in the machine's byte order.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

# Specification values.
SIZE = 10
NEEDS_CSUM = 1  # flags: only the pseudo-header's sum stands in the checksum's place
GSO_NONE = 0
GSO_TCPV4 = 1
GSO_TCPV6 = 4
GSO_UDP_L4 = 5
GSO_ECN = 0x80  # beside one of the two of TCP: CWR is set

HEADER = Struct("=BBHHHH")
NONE = bytes(SIZE)
"""The header of a packet that is whole."""


class VirtioHeader(NamedTuple):
    """``header_length`` is a hint; ``segment``: octets of payload of each packet but the last.

    The checksum is that of what follows ``checksum_start``, and stands ``checksum_offset`` octets
    behind it.
    """

    flags: int
    gso: int
    header_length: int
    segment: int
    checksum_start: int
    checksum_offset: int

    @classmethod
    def parse(cls, octets: bytes | bytearray | memoryview) -> VirtioHeader:
        """``octets`` has at least SIZE of them."""
        return cls._make(HEADER.unpack_from(octets))

    def serialize(self) -> bytes:
        return HEADER.pack(*self)
