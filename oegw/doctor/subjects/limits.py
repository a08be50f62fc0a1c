"""Limits of the kernel that are too low for a router."""

from __future__ import annotations

from collections.abc import Iterator

from oegw.doctor.facts import Facts
from oegw.doctor.finding import WARNING, Finding, Kind

BUFFER = Kind(
    "receive-buffer-small",
    WARNING,
    "sockets may have small receive buffers only",
    "bursts of packets, and of answers of the DNS, are lost",
    "sysctl -w net/core/rmem_max={octets}",
)
TRACKING = Kind(
    "connection-tracking-full",
    WARNING,
    "the table of tracked connections is nearly full",
    "the kernel drops the first packets of new flows",
    "sysctl -w net/netfilter/nf_conntrack_max={flows}",
)
KINDS = (BUFFER, TRACKING)

# Our choices: Linux' own default, below which somebody has put it; and the share that is too much.
USUAL_BUFFER = 212992
FULL = 0.8


def look(facts: Facts) -> Iterator[Finding]:
    limits = facts.limits()
    if limits.receive_buffer is not None and limits.receive_buffer < USUAL_BUFFER:
        what = f"net.core.rmem_max is {limits.receive_buffer} octets"
        yield BUFFER.found(what, octets=4 * 1024 * 1024)
    if limits.trackable and (limits.tracked or 0) > FULL * limits.trackable:
        what = f"{limits.tracked} flows of at most {limits.trackable}"
        yield TRACKING.found(what, flows=4 * limits.trackable)
