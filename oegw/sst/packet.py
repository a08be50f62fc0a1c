"""A whole packet sealed, and opened (SST-1 to SST-7, SST-12, SST-22)."""

from __future__ import annotations

from oegw.sst.permutation import Permutation
from oegw.sst.signal import Signal


def seal(packet: bytes, permutation: Permutation, signal: Signal) -> bytes:
    """``packet`` with its ports encrypted, its checksums put right, flagged, and unfragmented IPv4
    with DF.  Of a later fragment only the flag changes.  Octets behind the length that the header
    states stay.

    Raises NotEligible, if the ports can't be sealed, and PacketError, if it can't be read.
    """
    raise NotImplementedError


def open_sealed(packet: bytes, permutation: Permutation, signal: Signal) -> bytes:
    """The inverse of ``seal``, whether the flag is still there or a router took it away.

    DF stays set, and a code point becomes the restored one, for there is no bit to remember them.
    Raises NotEligible and PacketError.
    """
    raise NotImplementedError
