"""The settings of the kernel datapath."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class XfrmSettings:
    """``mark_mask`` has exactly two neighbouring bits, the same as interception's.

    ``interface_id`` is on each state and policy of ours in the kernel, and on nobody else's: what
    carries it is removed at start and stop.  ``mtu``: octets, of the tunnel device.
    ``encapsulation_port``: the UDP port of ESP in UDP (RFC 3948), or None for plain ESP only.
    ``copy_dont_fragment``: the outer IPv4 header's DF is the inner one's, else it is clear
    (RFC 4301 section 8.1).  ``routing_table`` and ``rule_priority`` are ours in the kernel's
    policy routing.
    """

    tunnel_interface: str = "oegw0"
    mark_mask: int = 0x30000
    interface_id: int = 4500
    mtu: int = 1500
    encapsulation_port: int | None = 4500
    copy_dont_fragment: bool = True
    routing_table: int = 4500
    rule_priority: int = 4500
