"""Sentences of the nft language that entrances and exits have in common.  Pure."""

from __future__ import annotations

from dataclasses import dataclass

from oegw.sst.interface import PROBE_MAGIC, Leg
from oegw.sst.plane.marks import PlaneMarks
from oegw.sst.plane.settings import PlaneSettings
from oegw.sst.settings import Ipv4Signal

# Specification values.
SEALABLE = "{ 6, 17 }"  # TCP and UDP
PROBE = f"meta l4proto 17 @th,64,64 {int.from_bytes(PROBE_MAGIC, 'big'):#x}"
IKE_PORTS = "{ 500, 4500 }"  # RFC 2408 section 2.5.1, RFC 3948 section 4
# ICMP errors, which quote a packet (RFC 792, RFC 4443 section 2.1).
ERRORS = {4: "icmp type { 3, 4, 5, 11, 12 }", 6: "icmpv6 type { 1, 2, 3, 4 }"}

# What is quoted has ports; not so ESP, with a code point that it copied.  In IPv6 extension headers
# may stand before them (RFC 8200 section 4).
_QUOTED = {4: SEALABLE, 6: "{ 0, 6, 17, 43, 44, 60 }"}

# Source routes, and where the destination is not the one that the ports belong to.
ROUTED = {
    4: ("ip option lsrr exists", "ip option ssrr exists"),
    6: ("exthdr rt exists", "exthdr dst exists"),
}
"""What the fast path leaves to others: a packet whose addresses may not be those of its ends."""

FRAGMENT = {4: "ip frag-off & 0x3fff != 0", 6: "exthdr frag exists"}
LATER_FRAGMENT = {4: "ip frag-off & 0x1fff != 0", 6: "frag frag-off != 0"}
_WORDS = {4: "ip", 6: "ip6"}


@dataclass(frozen=True, slots=True)
class Statements:
    """What is said with our marks, our flag and our interfaces."""

    settings: PlaneSettings
    marks: PlaneMarks

    @property
    def outside(self) -> str:
        """One interface is compared faster than looked up."""
        if len(self.settings.outside) == 1:
            return f'"{self.settings.outside[0]}"'
        return "{ " + ", ".join(f'"{name}"' for name in self.settings.outside) + " }"

    @property
    def legs(self) -> str:
        """The interfaces of all legs."""
        names = (*self.settings.outside, self.settings.tunnel_interface)
        return "{ " + ", ".join(f'"{name}"' for name in names) + " }"

    def interface(self, leg: Leg) -> str:
        return self.outside if leg is Leg.OUTSIDE else f'"{self.settings.tunnel_interface}"'

    @property
    def own(self) -> str:
        """The gateway sent it itself."""
        return f"meta mark & {self.settings.own_mask:#x} == {self.settings.own_mark:#x}"

    # ------------------------------------------------------------------------- marks

    def state(self, value: int) -> str:
        return f"meta mark & {self.marks.state:#x} == {value:#x}"

    @property
    def undecided(self) -> str:
        """It is on its way into a queue."""
        return f"meta mark & {self.marks.state:#x} != {{ 0x0, {self.marks.done:#x} }}"

    def has(self, bits: int) -> str:
        return f"meta mark & {bits:#x} != 0"

    def mark(self, bits: int, kept: int = 0) -> str:
        """Set our bits; of those that are there keep some."""
        return f"meta mark set meta mark & {self.marks.rest | (kept & ~bits):#x} | {bits:#x}"

    def unmark(self, kept: int = 0) -> str:
        return f"meta mark set meta mark & {self.marks.rest | kept:#x}"

    @property
    def sticky(self) -> str:
        """A packet of its connection was opened or sealed."""
        return f"ct mark & {self.marks.sticky:#x} != 0"

    def stick(self, epoch: int) -> str:
        bits = self.marks.sticky | self.marks.epoch(epoch)
        return f"ct mark set ct mark & {self.marks.rest:#x} | {bits:#x}"

    # -------------------------------------------------------------------------- flags

    def _by_dscp(self, family: int) -> bool:
        return family == 6 or self.settings.sst.ipv4_signal is Ipv4Signal.DSCP

    def flagged(self, family: int) -> str:
        """Only of this family: the rule ends for packets of the other."""
        if self._by_dscp(family):
            return f"{_WORDS[family]} dscp {self.settings.sst.dscp}"
        return "ip frag-off & 0x8000 != 0"

    def flag(self, family: int) -> str:
        """And DF: a router that fragments loses the reserved bit; with DF it says so instead."""
        if family == 6:
            return f"ip6 dscp set {self.settings.sst.dscp}"
        if self._by_dscp(4):
            return f"ip dscp set {self.settings.sst.dscp} ip frag-off set ip frag-off | 0x4000"
        return "ip frag-off set ip frag-off | 0xc000"

    def clear(self, family: int) -> str:
        if self._by_dscp(family):
            return f"{_WORDS[family]} dscp set {self.settings.sst.restored_dscp}"
        return "ip frag-off set ip frag-off & 0x7fff"

    def foreign_flag(self, family: int) -> str:
        """What must not be taken for a flag of ours: the bit on any packet; of packets with the
        code point those only that have ports, for nobody looks at the others."""
        ported = f"meta l4proto {SEALABLE} " if self._by_dscp(family) else ""
        return ported + self.flagged(family)

    def quotes_flagged(self, family: int) -> str:
        """An ICMP error about a flagged packet (the quote begins 8 octets behind the ICMP header's
        begin)."""
        dscp = self.settings.sst.dscp
        if family == 6:
            return f"{ERRORS[6]} @th,64,16 & 0x0fc0 == {dscp << 6:#x} @th,112,8 {_QUOTED[6]}"
        if self._by_dscp(4):
            return f"{ERRORS[4]} @th,72,8 & 0xfc == {dscp << 2:#x} @th,136,8 {_QUOTED[4]}"
        return f"{ERRORS[4]} @th,112,16 & 0x8000 != 0 @th,136,8 {_QUOTED[4]}"


def flow(family: int) -> str:
    """What of a packet is looked up in sets of flows."""
    word = _WORDS[family]
    return f"{word} saddr . {word} daddr . meta l4proto . th sport . th dport"


def pair(family: int) -> str:
    word = _WORDS[family]
    return f"{word} saddr . {word} daddr"


def chain_text(name: str, *lines: str) -> str:
    body = "".join(f"    {line}\n" for line in lines if line)
    return f"  chain {name} {{\n{body}  }}\n"


def hook(point: str, priority: int) -> str:
    return f"type filter hook {point} priority {priority}; policy accept;"
