"""Where the ports of a packet are, and whether they can be sealed at all (sst.md section 14.7).

Everything here is strangers' input.  Errors are `PacketError`, for what can't be read, and
`NotEligible`, for what can, and has no ports that both ends would find.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


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
    raise NotImplementedError
