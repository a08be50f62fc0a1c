"""ICMP errors that quote a packet with sealed ports (SST-19, SST-20)."""

from __future__ import annotations

from oegw.sst.permutation import Permutation
from oegw.sst.place import Place
from oegw.sst.signal import Signal


def quote_of(packet: bytes) -> Place:
    """Where the quoted packet is in an ICMP or ICMPv6 error.

    Its addresses tell the key, and ``signal.flagged(packet, place.start)`` whether it was flagged.

    Raises PacketError, if quote or error can't be read, and NotEligible: not an error, or it quotes
    what has no ports, or another error.
    """
    raise NotImplementedError


def open_quote(packet: bytes, permutation: Permutation, signal: Signal) -> bytes:
    """An error about a packet that we sealed, as the sender of the packet must see it.

    Ports, flag and checksums of the quote and the checksum of the error are put right.  Raises
    NotEligible and PacketError.
    """
    raise NotImplementedError


def seal_quote(packet: bytes, permutation: Permutation, signal: Signal) -> bytes:
    """An error about a packet that we opened, as its sender's side must see it.

    Only for quotes of connections that were opened: by address alone clear flows would be garbled.
    The packet around the quote carries no flag.  Raises NotEligible and PacketError.
    """
    raise NotImplementedError
