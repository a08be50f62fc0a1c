"""What the two engines share: one packet and the time in, actions out, sans IO.

`outbound.py` and `inbound.py` know all the rules of RFC 4301 and 4303 for one packet at a time.
The cores (`core/interface.py`) do what is ordinary by themselves, and hand all else to them.

Outbound, the TTL of the inner packet is left alone: the kernel lowered it when it routed the
packet into the tunnel device, and lowers it again on the other side (RFC 4301 section
5.1.2.1 wants one step for each forwarding gateway, and that is what comes out).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, Protocol

from oegw.datapath.interface import IPAddress
from oegw.datapath.userspace.esp import OutboundSa

# Specification values.
IPV6_MINIMUM_MTU = 1280  # RFC 8200 section 5
_IPV4_MINIMUM_MTU = 68  # RFC 791


class DontFragment(Enum):
    """What the outer header's DF is (RFC 4301 section 8.1).  Concerns IPv4 in IPv4.

    With CLEAR, packets that are too big for the path are sent in fragments, even where the inner
    packet forbids it.  With SET, those that the inner header allows to be fragmented, are.
    """

    COPY = "copy"
    SET = "set"
    CLEAR = "clear"


class SendEsp(NamedTuple):
    """Send ``payload`` from ``sa.sa.source`` to ``sa.sa.destination``, encapsulated as it says."""

    sa: OutboundSa
    payload: bytes
    traffic_class: int
    dont_fragment: bool


class Deliver(NamedTuple):
    """Hand an inner packet to the network on our side."""

    packet: bytes


class SendIcmp(NamedTuple):
    """Send an ICMP message; the kernel puts the IP header before it and chooses the source."""

    version: int
    destination: bytes  # packed
    message: bytes


class RefreshPathMtu(NamedTuple):
    """Ask for the path MTU of this SA's peer anew, and tell ``set_path_mtu``."""

    sa: OutboundSa


Action = SendEsp | Deliver | SendIcmp | RefreshPathMtu

NOTHING: list[Action] = []


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """``mtu``: the path MTU, octets, where none was measured."""

    mtu: int = 1500
    dont_fragment: DontFragment = DontFragment.COPY


class Counters(Protocol):
    """A `collections.Counter`, or a page of ours."""

    def __getitem__(self, name: str, /) -> int: ...
    def __setitem__(self, name: str, count: int, /) -> None: ...


class EachSecond:
    """Says when another second has begun, for what is limited in each."""

    def __init__(self) -> None:
        self._second = 0

    def is_new(self, now: float) -> bool:
        if int(now) == self._second:
            return False
        self._second = int(now)
        return True


def at_least_lowest(peer: IPAddress, mtu: int) -> int:
    """An MTU that the path to ``peer`` may have at all."""
    return max(mtu, _IPV4_MINIMUM_MTU if peer.version == 4 else IPV6_MINIMUM_MTU)
