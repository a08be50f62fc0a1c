"""The settings of the user-space datapath."""

from __future__ import annotations

from dataclasses import dataclass

from oegw.datapath.userspace.engine import DontFragment
from oegw.powers.dropping import User

MOST_WORKERS = 16  # our choice, per direction


@dataclass(frozen=True, slots=True)
class UserspaceSettings:
    """``mark_mask`` has exactly two neighbouring bits, the same as interception's.

    ``mtu``: octets, of the tunnel device, and of paths that cannot be measured.
    ``encapsulation_port``: the UDP port of ESP in UDP (RFC 3948), or None for plain ESP
    only.  ``routing_table`` and ``rule_priority`` are ours in the kernel's policy routing.
    ``core``: ``"auto"`` (the compiled one if it is there), ``"compiled"`` or ``"python"``.
    ``offloads``: whether to use segmentation offloads, as far as the kernel has them.
    ``workers``: processes for each direction; 0: one for each two CPUs, MOST_WORKERS at most.
    ``ports_change``: the kernel may be told to give outgoing ESP in UDP other ports.
    ``user``: whom the workers become; None: who we are, without any right.
    ``keying_elsewhere``: another process reads and sends IKE at ``encapsulation_port``.
    """

    tunnel_interface: str = "oegw0"
    mark_mask: int = 0x30000
    mtu: int = 1500
    encapsulation_port: int | None = 4500
    dont_fragment: DontFragment = DontFragment.COPY
    routing_table: int = 4500
    rule_priority: int = 4500
    core: str = "auto"
    offloads: bool = True
    workers: int = 0
    ports_change: bool = False
    user: User | None = None
    keying_elsewhere: bool = False
