"""Which of two tunnels for the same traffic stays.

Usually the younger one: it was made to replace the older, which still receives for a grace,
because packets are under way on it.  The side that began the successor deletes the old one;
the other side waits longer, and deletes it only if the first has not.

But if each side began one at about the same time, neither is the successor.  Both sides can
then compute which is redundant, as in RFC 7296 section 2.8: the one with the lowest of the
four nonces.  Its initiator closes it.  Nobody else does, so a peer that knows nothing of
this rule keeps two tunnels and loses none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ike.constants import AT_ONCE, REDUNDANT_GRACE, RETIRE_PATIENCE
from ike.v1.rekey import grace

if TYPE_CHECKING:
    from ike.v1.tunnel import Tunnel


def begun_at_once(older: Tunnel, newer: Tunnel) -> bool:
    """Whether each side began one before it can have known of the other's, or hardly after."""
    return older.initiator != newer.initiator and newer.begun_at < older.established_at + AT_ONCE


def settle(now: float, older: Tunnel, newer: Tunnel) -> Tunnel:
    """``newer`` has come up beside ``older``; returns the one that stays."""
    if begun_at_once(older, newer):
        redundant, kept = sorted((older, newer), key=lambda tunnel: min(tunnel.nonces))
        wait = REDUNDANT_GRACE if redundant.initiator else None
        redundant.succeeded(now, wait, redundant=True)
        return kept
    wait = grace(older.lifetime)
    older.succeeded(now, wait if newer.initiator else RETIRE_PATIENCE * wait)
    return newer
