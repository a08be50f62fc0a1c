"""What the plane is told when it is made."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from oegw.sst.interface import SstError
from oegw.sst.plane.marks import BITS
from oegw.sst.settings import SstSettings

OWN_TABLE = "oegw_sst"

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,30}")
_INTERFACE = re.compile(r"[A-Za-z0-9_.:@-]{1,15}")


@dataclass(frozen=True, slots=True)
class PlaneSettings:
    """``outside``: interfaces towards the Internet; ``tunnel_interface``: the datapath's device.

    ``own_mark`` under ``own_mask``: on what the gateway itself sends, IKE, ESP and DNS; that is
    never sealed unless it is shielded.  ``queue_length``: packets that the kernel keeps for each of
    the two queues.
    """

    outside: tuple[str, ...]
    tunnel_interface: str
    own_mark: int
    own_mask: int
    sst: SstSettings = field(default_factory=SstSettings)
    queue_length: int = 1024
    table: str = OWN_TABLE


def checked(settings: PlaneSettings) -> PlaneSettings:
    """The same settings.  Raises SstError if one of them can't work."""
    mask = settings.sst.mark_mask
    if not 0 < mask < 1 << 32 or mask // (mask & -mask) != (1 << BITS) - 1:
        raise SstError(f"sst.mark_mask {mask:#x} must be {BITS} neighbouring bits of 32")
    if mask & settings.own_mask:
        raise SstError("sst.mark_mask has bits of the gateway's own mark")
    if not _NAME.fullmatch(settings.table):
        raise SstError(f"table {settings.table!r} is no name of letters, digits and _")
    if not settings.outside:
        raise SstError("outside: there must be at least one interface")
    for interface in (*settings.outside, settings.tunnel_interface):
        if not _INTERFACE.fullmatch(interface):
            raise SstError(f"{interface!r} can't be the name of an interface")
    if not 0 <= settings.sst.queue <= 65534:
        raise SstError(f"sst.queue {settings.sst.queue} must be 0 to 65534")
    if settings.queue_length < 1:
        raise SstError(f"queue_length {settings.queue_length} must be 1 or more")
    return settings
