"""Which offloads a datapath uses, and why not the others: what ``status`` tells.

Each is probed when its socket or device is opened, and falls back by itself.  A worker that loses
one while it runs says so.
"""

from __future__ import annotations

from dataclasses import dataclass

# Our names.
TCP_SEGMENTATION = "tcp-segmentation"  # super-packets of TCP, out of the tunnel device and into it
UDP_SEGMENTATION = "udp-segmentation"  # the same of UDP
SENDING = "send-segmentation"  # UDP_SEGMENT: many ESP packets in one system call
RECEIVING = "receive-coalescing"  # UDP_GRO: the same on the way in
STEERING = "flow-steering"  # which queue, and so which sealing worker, a flow goes through

SWITCHED_OFF = "switched off"
PORTS_CHANGE = "port encryption runs: a batch whose ports change may lose its checksums"


@dataclass(frozen=True, slots=True)
class Offload:
    """``reason`` says why it is off; empty if it is on."""

    name: str
    reason: str = ""

    @property
    def on(self) -> bool:
        return not self.reason


def refused_running(error: OSError) -> str:
    """Why one is off that was on."""
    return f"the kernel refused it while it ran: {error.strerror}"


def merged(*told: Offload) -> tuple[Offload, ...]:
    """Each name once: off, with the first reason, if any of its places says so."""
    by_name: dict[str, Offload] = {}
    for each in told:
        before = by_name.get(each.name)
        if before is None or (before.on and not each.on):
            by_name[each.name] = each
    return tuple(by_name.values())
