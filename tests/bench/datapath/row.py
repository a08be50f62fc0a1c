"""Two hosts and two gateways in a row, in network namespaces: one row for each contender.

    alice 10.1.0.2 -- 10.1.0.1 sga 192.0.2.1 -- 192.0.2.2 sgb 10.2.0.1 -- 10.2.0.2 bob

Links are veth with an MTU of 1500.  Bob is also every address of 10.2.64.0/18, for the selectors of
10,000 SAs.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass, field

from tests.interop.processes import call

ALICE, BOB = "10.1.0.2", "10.2.0.2"
INSIDE = {"a": "10.1.0.1", "b": "10.2.0.1"}
OUTSIDE = {"a": "192.0.2.1", "b": "192.0.2.2"}
NETWORK = {"a": "10.1.0.0/16", "b": "10.2.0.0/16"}
MANY = "10.2.64.0/18"
HOST = {"a": ALICE, "b": BOB}
OTHER = {"a": "b", "b": "a"}
SIDES = ("a", "b")

_OFFLOADS = ("tso", "gso", "gro")  # what `ethtool -K` turns off
_numbers = itertools.count(1)


def _identifier() -> str:
    return f"oegwb{os.getpid()}-{next(_numbers)}"


@dataclass(slots=True)
class Row:
    """``put_up`` makes the namespaces, ``take_down`` removes them, however many there are."""

    identifier: str = field(default_factory=_identifier)

    def host(self, side: str) -> str:
        return f"{self.identifier}{'alice' if side == 'a' else 'bob'}"

    def gateway(self, side: str) -> str:
        return f"{self.identifier}sg{side}"

    def put_up(self) -> None:
        for name in self._names():
            call(None, "ip", "netns", "add", name)
            self.ip(name, "link set lo up")
        self._wire_outside()
        for side in SIDES:
            host, gateway = self.host(side), self.gateway(side)
            self._wire(host, "eth0", gateway, "in0")
            inside, near = INSIDE[side], HOST[side]
            self.ip(
                gateway,
                f"addr add {inside}/24 dev in0",
                f"addr add {OUTSIDE[side]}/24 dev out0",
                "link set in0 up",
                "link set out0 up",
            )
            self.ip(
                host,
                f"addr add {near}/24 dev eth0",
                "link set eth0 up",
                f"route add default via {inside}",
            )
            for setting in ("ip_forward=1", "conf.all.rp_filter=0", "conf.default.rp_filter=0"):
                self.run(gateway, "sysctl", "-qw", f"net.ipv4.{setting}")
        self.ip(self.gateway("b"), f"route add {MANY} via {BOB}")
        self.ip(self.host("b"), f"route add local {MANY} dev lo")

    def take_down(self) -> None:
        for name in self._names():
            call(None, "ip", "netns", "del", name, check=False)

    def connect_in_clear(self) -> None:
        """Each gateway forwards to the other without any tunnel."""
        for side in SIDES:
            other = OTHER[side]
            self.ip(self.gateway(side), f"route add {NETWORK[other]} via {OUTSIDE[other]}")

    def refuse_clear(self) -> None:
        """What comes from outside for somebody else is dropped: no figure of a tunnel is one of
        packets that passed beside it.  The outer packets are for the gateway itself."""
        for side in SIDES:
            self.ip(self.gateway(side), "rule add priority 100 iif out0 blackhole")

    def without_offloads(self) -> None:
        words = [word for name in _OFFLOADS for word in (name, "off")]
        for side in SIDES:
            self.run(self.host(side), "ethtool", "-K", "eth0", *words)
            for device in ("in0", "out0"):
                self.run(self.gateway(side), "ethtool", "-K", device, *words)

    def ip(self, namespace: str, *lines: str) -> None:
        call(None, "ip", "-n", namespace, "-batch", "-", text="\n".join(lines) + "\n")

    def run(self, namespace: str, *argv: str, seconds: float = 60.0) -> str:
        return call(namespace, *argv, seconds=seconds).stdout

    def _names(self) -> list[str]:
        return [name for side in SIDES for name in (self.host(side), self.gateway(side))]

    def _wire_outside(self) -> None:
        self._wire(self.gateway("a"), "out0", self.gateway("b"), "out0")

    def _wire(self, one: str, device: str, other: str, other_device: str) -> None:
        link = f"link add {device} netns {one} type veth peer name {other_device} netns {other}"
        call(None, "ip", *link.split())
