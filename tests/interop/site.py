"""Five network namespaces in a row, perhaps with a NAT in the middle.

    alice -- near ---- middle ---- far -- bob          (drawing with addresses in README.md)

``near`` is where our gateway stands, ``far`` where strongSwan stands.  The middle is a bridge, or a
router with NAT whose inner side is one of the two.  Nothing leaves these namespaces.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from tests.interop.processes import call

NEAR_NETWORK, FAR_NETWORK = "10.71.0.0/24", "10.72.0.0/24"
ALICE, BOB = "10.71.0.2", "10.72.0.2"
NEAR_INSIDE, FAR_INSIDE = "10.71.0.1", "10.72.0.1"
NEAR_OUTSIDE, FAR_OUTSIDE = "203.0.113.1", "203.0.113.2"
NAT_OUTSIDE = "203.0.113.9"
BEHIND_NAT, NAT_INSIDE = "192.168.71.2", "192.168.71.1"
ATTACKER = "203.0.113.66"  # the middle's own address, where there is no NAT

_PORTS = "{ 500, 4500 }"


class Middle(Enum):
    """What stands between the two gateways."""

    BRIDGE = "bridge"
    NAT_NEAR = "nat-near"  # our gateway is behind a NAT
    NAT_FAR = "nat-far"  # strongSwan is


@dataclass(frozen=True, slots=True)
class End:
    """One gateway's place: its namespace and its host's, addresses, and its default router.

    ``outside`` is its address to itself, ``public`` to others.
    """

    gateway: str
    host: str
    inside: str
    network: str
    host_address: str
    outside: str
    public: str
    router: str


@dataclass(slots=True)
class Site:
    """The namespaces; ``close`` removes them."""

    kind: Middle
    identifier: str = field(default_factory=lambda: secrets.token_hex(3))

    def name(self, host: str) -> str:
        return f"oegwi-{self.identifier}-{host}"

    @property
    def middle(self) -> str:
        return self.name("middle")

    @property
    def near(self) -> End:
        names = self.name("near"), self.name("alice"), NEAR_INSIDE, NEAR_NETWORK, ALICE
        if self.kind is Middle.NAT_NEAR:
            return End(*names, BEHIND_NAT, NAT_OUTSIDE, NAT_INSIDE)
        return End(*names, NEAR_OUTSIDE, NEAR_OUTSIDE, FAR_OUTSIDE if self.bridged else NAT_OUTSIDE)

    @property
    def far(self) -> End:
        names = self.name("far"), self.name("bob"), FAR_INSIDE, FAR_NETWORK, BOB
        if self.kind is Middle.NAT_FAR:
            return End(*names, BEHIND_NAT, NAT_OUTSIDE, NAT_INSIDE)
        return End(*names, FAR_OUTSIDE, FAR_OUTSIDE, NEAR_OUTSIDE if self.bridged else NAT_OUTSIDE)

    @property
    def bridged(self) -> bool:
        return self.kind is Middle.BRIDGE

    def put_up(self) -> None:
        hosts = ("alice", "near", "middle", "far", "bob")
        _ip("".join(f"netns add {self.name(host)}\n" for host in hosts))
        for host in hosts:
            _ip("link set lo up\n", self.name(host))
        for end, side in ((self.near, "near"), (self.far, "far")):
            self._wire(end, side)
        if self.kind is Middle.BRIDGE:
            self._bridge()
        else:
            self._route()
        for name in (self.near.gateway, self.far.gateway, self.middle):
            for setting, value in (
                ("ip_forward", 1),
                ("conf.all.rp_filter", 0),
                ("conf.default.rp_filter", 0),
                ("conf.all.send_redirects", 0),
                ("conf.default.send_redirects", 0),
            ):
                _set(name, f"net.ipv4.{setting}", value)

    def _wire(self, end: End, side: str) -> None:
        """Both links of one gateway: to its host and to the middle; a host has a default route.

        The gateways have one too, so that a packet that ours let slip would be on the middle link,
        where the capture is.
        """
        _ip(
            f"link add eth0 netns {end.host} type veth peer name inside netns {end.gateway}\n"
            f"link add outside netns {end.gateway} type veth "
            f"peer name {side}0 netns {self.middle}\n"
        )
        _ip(
            f"addr add {end.host_address}/24 dev eth0\nlink set eth0 up\n"
            f"route add default via {end.inside}\n",
            end.host,
        )
        _ip(
            f"addr add {end.inside}/24 dev inside\naddr add {end.outside}/24 dev outside\n"
            f"link set inside up\nlink set outside up\n"
            f"route add default via {end.router}\n",
            end.gateway,
        )

    def _bridge(self) -> None:
        _ip(
            "link add br0 type bridge\nlink set near0 master br0\nlink set far0 master br0\n"
            f"addr add {ATTACKER}/24 dev br0\nlink set br0 up\n"
            "link set near0 up\nlink set far0 up\n",
            self.middle,
        )

    def _route(self) -> None:
        """A NAT that changes ports, and forwards the ports of IKE inwards."""
        inner, outer = ("near0", "far0") if self.kind is Middle.NAT_NEAR else ("far0", "near0")
        _ip(
            f"addr add {NAT_INSIDE}/24 dev {inner}\naddr add {NAT_OUTSIDE}/24 dev {outer}\n"
            f"link set {inner} up\nlink set {outer} up\n",
            self.middle,
        )
        rules = f"""
            table ip nat {{
                chain out {{
                    type nat hook postrouting priority srcnat
                    oifname {outer} meta l4proto udp masquerade to :20000-29999
                    oifname {outer} masquerade
                }}
                chain in {{
                    type nat hook prerouting priority dstnat
                    iifname {outer} udp dport {_PORTS} dnat to {BEHIND_NAT}
                }}
            }}
        """
        call(self.middle, "nft", "-f", "-", text=rules)

    def close(self) -> None:
        for host in ("alice", "near", "middle", "far", "bob"):
            if Path("/run/netns", self.name(host)).exists():
                call(None, "ip", "netns", "del", self.name(host))


def _ip(batch: str, namespace: str | None = None) -> None:
    call(namespace, "ip", "-batch", "-", text=batch)


def _set(namespace: str, setting: str, value: int) -> None:
    call(namespace, "sysctl", "-qw", f"{setting}={value}")
