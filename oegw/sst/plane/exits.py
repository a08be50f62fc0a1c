"""The chains that a packet passes behind everybody else: sealing.  Pure.

decide   -155, before iptables' mangle holds the queue; or 118, where nft has ``queue`` (119)
         an entry, declined, or nobody wants it: go on.  Else into the queue
seal     120, behind source NAT and the guard: an entry: rewritten, flagged, DF.  Else
         declined or not wanted: unflagged; required: dropped; opportunistic: counted
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from oegw.sst.interface import Leg
from oegw.sst.place import PORTED
from oegw.sst.plane import names
from oegw.sst.plane.names import FAMILIES, chain
from oegw.sst.plane.rewriting import EPOCHS
from oegw.sst.plane.statements import (
    ERRORS,
    FRAGMENT,
    IKE_PORTS,
    PROBE,
    ROUTED,
    SEALABLE,
    Statements,
    chain_text,
    flow,
    hook,
    pair,
)
from oegw.sst.settings import Fragments

# Ports show in these, or right behind them: an authentication header hides nothing.
_PORTED = f"{{ {', '.join(str(number) for number in sorted(PORTED))} }}"

# Our choices.
_DECIDE, _DECIDE_BEHIND_NAT = -155, 118
_QUEUE = 119
_SEAL = 120
_BEHIND_FILTERS = 300  # in forward and output: behind all that others have to say there
_MTU = 1500  # of an interface that is not there yet

_NO_HOST = "fib daddr type { broadcast, multicast }"


@dataclass(frozen=True, slots=True)
class Exits:
    """``mtus``: by interface, as far as they are known."""

    say: Statements
    mtus: Mapping[str, int]
    nft_queue: bool

    def whole(self) -> str:
        return (
            self._hand_up()
            + "".join(self._sealed(f) for f in FAMILIES)
            + self.measuring()
            + self._came_clear()
            + "".join(self._leg(leg, f) for leg in Leg for f in FAMILIES)
            + self._own()
            + self._unmarking()
            + self._deciding()
            + (self._queue() if self.nft_queue else "")
            + self._sealing()
        )

    def residue(self) -> str:
        """Without entries: what is required is dropped at its exit."""
        say = self.say
        lines = [
            f"oifname {say.outside} {say.own} accept",
            f"meta l4proto != {_PORTED} accept",
        ]
        for leg in Leg:
            for f in FAMILIES:
                gone = chain("unsealable", leg, f)
                lines.append(f"oifname {say.interface(leg)} meta nfproto ipv{f} goto {gone}")
        legs = "".join(
            chain_text(
                chain("unsealable", leg, f), f"jump wanted_{leg.value}{f}", f"jump required{f}"
            )
            for leg in Leg
            for f in FAMILIES
        )
        return legs + chain_text("sealing", hook("postrouting", _SEAL), *lines)

    # ------------------------------------------------------------- what depends on MTUs

    def measuring_names(self) -> list[str]:
        return [
            chain(name, leg, 4)
            for leg in Leg
            for name in ("fragmenting_decide", "fragmenting_fast")
        ] + [chain("fragmenting_needed", leg, f) for leg in Leg for f in FAMILIES]

    def measuring(self) -> str:
        """IPv4 packets that are, were or must become fragments: the kernel would lose the flag.

        TCP gets DF, and is told a smaller size by ICMP.  A UDP packet that the device will
        segment looks too long, too: out of the queue it comes in pieces that are not.
        """
        say = self.say
        text = ""
        for leg in Leg:
            conditions = self._fragmenting(leg)
            text += chain_text(
                chain("fragmenting_decide", leg, 4),
                *(f"{each} goto {chain('asked', leg, 4)}" for each in conditions),
            )
            text += chain_text(
                chain("fragmenting_fast", leg, 4),
                *(f"{each} goto {chain('unsealed', leg, 4)}" for each in conditions),
            )
            for f in FAMILIES:
                found = conditions if f == 4 else [FRAGMENT[6]]
                dropped = "counter name fragments_dropped drop"
                clear = "counter name fragments_clear accept"
                match say.settings.sst.fragments:
                    case Fragments.DROP:
                        lines = [f"{each} {dropped}" for each in found]
                    case Fragments.CLEAR:
                        lines = [f"{each} {clear}" for each in found]
                    case _:
                        lines = [f"jump required{f}", *(f"{each} {clear}" for each in found)]
                text += chain_text(chain("fragmenting_needed", leg, f), *lines)
        return text

    def _fragmenting(self, leg: Leg) -> list[str]:
        settings = self.say.settings
        ways = settings.outside if leg is Leg.OUTSIDE else (settings.tunnel_interface,)
        return [
            FRAGMENT[4],
            f"meta nfproto ipv4 {self.say.has(self.say.marks.fragment)}",
            *(
                f'meta l4proto 17 ip frag-off & 0x4000 == 0 oifname "{way}" '
                f"meta length > {self.mtus.get(way, _MTU)}"
                for way in ways
            ),
        ]

    # ------------------------------------------------------------------------- pieces

    def _hand_up(self) -> str:
        """Into the queue; a sticky connection says with which epoch."""
        say, marks = self.say, self.say.marks
        kept = marks.request | marks.fragment
        lines = []
        for epoch in EPOCHS:
            known = marks.sticky | marks.epoch(epoch)
            lines.append(
                f"ct mark & {marks.sticky | marks.epochs:#x} == {known:#x} "
                f"{say.mark(marks.waiting_sticky | marks.epoch(epoch), kept)} "
                "counter name seal_caught accept"
            )
        waits = say.mark(marks.waiting, kept)
        return chain_text("seal_up", *lines, f"{waits} counter name seal_caught accept")

    def _sealed(self, family: int) -> str:
        """Where the rules that rewrite go to.  An XFRM interface shows a packet once more, with
        the outside interface: then it is done already."""
        say = self.say
        return chain_text(
            f"sealed{family}",
            say.flag(family),
            say.mark(say.marks.done),
            "counter name sealed accept",
        )

    def _leg(self, leg: Leg, family: int) -> str:
        """``decide`` and ``asked`` hand up or accept; ``fast`` returns if there is no entry."""
        say = self.say

        def named(name: str) -> str:
            return chain(name, leg, family)

        request = say.has(say.marks.request) if leg is Leg.OUTSIDE else ""
        protected = f"jump protected{family}" if leg is Leg.OUTSIDE else ""
        wanted = f"jump wanted_{leg.value}{family}"
        is_declined = f"{flow(family)} @{names.declined(leg, family)} accept"
        routed = ROUTED[family] if family == 4 else (*ROUTED[6], FRAGMENT[6])
        decide = [
            f"jump {named('fragmenting_decide')}" if family == 4 else "",
            *(f"{each} goto {named('asked')}" for each in routed),
            f"jump {named('known')}",
            f"goto {named('asked')}",
        ]
        asked = [
            is_declined,
            f"{_NO_HOST} accept",
            f"{say.sticky} goto {named('may_ask')}",
            "ct direction reply accept" if leg is Leg.OUTSIDE else "",  # to `unsealed`
            f"{request} goto {named('may_ask')}" if request else "",
            wanted,
            "goto seal_up",
        ]
        fast = [
            f"jump {named('fragmenting_fast')}" if family == 4 else "",
            *(f"{each} goto {named('unsealed')}" for each in routed),
            f"{say.sticky} goto {named('rewrite')}",
            f"goto {named('first')}",
        ]
        rewrite = [
            f"meta l4proto 6 goto {named('seal_tcp')}",
            f"meta l4proto 17 udp checksum 0 goto {named('seal_bare')}",
            f"meta l4proto 17 goto {named('seal_udp')}",
        ]
        unsealed = [
            self._unflag(family),
            is_declined,
            f"{request} goto {named('needed')}" if request else "",
            f"{say.sticky} goto {named('needed')}",
            wanted,
            f"ct direction reply goto came_clear{family}" if leg is Leg.OUTSIDE else "",
            f"goto {named('needed')}",
        ]
        return (
            chain_text(named("may_ask"), protected, "goto seal_up")
            + chain_text(named("decide"), *decide)
            + chain_text(named("asked"), *asked)
            + chain_text(named("rewrite"), *rewrite)
            + chain_text(named("fast"), *fast)
            + chain_text(
                named("needed"),
                f"jump {named('fragmenting_needed')}",
                f"jump required{family}",
                "counter name seal_missed accept",
            )
            + chain_text(named("unsealed"), *unsealed)
        )

    def _unflag(self, family: int) -> str:
        say = self.say
        return f"{say.foreign_flag(family)} {say.clear(family)} counter name native_flag_cleared"

    def _came_clear(self) -> str:
        """An answer to what came in clear.  Sealed it would tell whoever sent that, perhaps with a
        peer's address that is not theirs, what the ports of their choice are sealed as."""
        return "".join(
            chain_text(f"came_clear{f}", f"jump required{f}", "counter name came_clear accept")
            for f in FAMILIES
        )

    def _own(self) -> str:
        """The gateway's own packets: sealed between shielded gateways, and in answer to a gateway
        that has sealed.  Probes have the flag that their sender gave them.  A code point that
        ESP copied from a sealed packet is no flag of the packet around it."""
        say = self.say
        text = ""
        for f in FAMILIES:
            is_declined = f"{flow(f)} @{names.declined(Leg.OUTSIDE, f)} accept"
            shielded = f"{pair(f)} @{names.shielded(f)}"
            text += chain_text(
                f"own_decide{f}",
                f"jump {chain('known', Leg.OUTSIDE, f)}",
                is_declined,
                "goto seal_up",
            )
            text += chain_text(
                f"own_seal{f}",
                f"jump {chain('own_fast', Leg.OUTSIDE, f)}",
                self._unflag(f),
                is_declined,
                f"{shielded} counter name shield_missed_dropped drop",
                "counter name seal_missed accept",
            )
            text += chain_text(
                chain("own_fast", Leg.OUTSIDE, f),
                f"{FRAGMENT[f]} return",
                f"{say.sticky} goto {chain('rewrite', Leg.OUTSIDE, f)}",
                f"goto {chain('first', Leg.OUTSIDE, f)}",
            )
        for step in ("decide", "seal"):
            lines = ["meta l4proto != 17 accept", f"{PROBE} accept"]
            for f in FAMILIES:
                shielded = f"{pair(f)} @{names.shielded(f)}"
                keying = f"meta nfproto ipv{f} udp sport {IKE_PORTS}"
                lines.append(f"udp sport {IKE_PORTS} {shielded} goto own_{step}{f}")
                lines.append(f"{keying} {say.sticky} goto own_{step}{f}")
                if step == "seal":
                    lines.append(self._unflag(f))
            text += chain_text(f"own_{step}", *lines, "accept")
        return text

    # -------------------------------------------------------------------------- hooks

    def _unmarking(self) -> str:
        """A rule of others that sets the whole mark must not say that a packet is sealed already.

        What asks, and what came in fragments, is marked before; an XFRM interface shows what is
        done in postrouting only.
        """
        say, marks = self.say, self.say.marks
        kept = marks.request | marks.fragment
        text = ""
        for point in ("forward", "output"):
            text += chain_text(
                f"unmarking_{point}",
                hook(point, _BEHIND_FILTERS),
                f"oifname {say.legs} {say.has(marks.mask & ~kept)} {say.unmark(kept)}",
            )
        return text

    def _deciding(self) -> str:
        say, marks = self.say, self.say.marks
        text = ""
        for leg in Leg:
            lines = [f"{say.own} goto own_decide"] if leg is Leg.OUTSIDE else []
            lines.append(f"meta l4proto != {SEALABLE} goto quoting_back")
            lines += [f"meta nfproto ipv{f} goto {chain('decide', leg, f)}" for f in FAMILIES]
            text += chain_text(f"leaving_{leg.value}", *lines)
        errors = []
        for f in FAMILIES:
            errors.append(f"{ERRORS[f]} ct state related {say.sticky} goto seal_up")
            # Nobody knows a connection any more that might say so.
            errors.append(f"{ERRORS[f]} ct state invalid,untracked goto seal_up")
        return (
            chain_text("quoting_back", *errors, "accept")
            + text
            + chain_text(
                "leaving",
                hook("postrouting", _DECIDE_BEHIND_NAT if self.nft_queue else _DECIDE),
                f"{say.state(marks.done)} accept",
                *(f"oifname {say.interface(leg)} goto leaving_{leg.value}" for leg in Leg),
            )
        )

    def _queue(self) -> str:
        number = self.say.settings.sst.queue + 1
        return chain_text(
            "queue_postrouting",
            hook("postrouting", _QUEUE),
            f"{self.say.undecided} queue num {number}",
        )

    def _sealing(self) -> str:
        say, marks = self.say, self.say.marks
        unstuck = f"ct mark & {marks.sticky:#x} == 0 meta mark & {marks.epochs:#x} =="
        text = chain_text(
            "final",
            f"meta mark & {marks.keyed:#x} == 0 accept",
            *(f"{unstuck} {marks.epoch(epoch):#x} {say.stick(epoch)}" for epoch in EPOCHS),
            say.mark(marks.done),
            "counter name sealed_slowly accept",
        )
        text += chain_text(
            "decided",
            f"{say.state(marks.done)} goto final",
            "counter name escaped_dropped drop",
        )
        for leg in Leg:
            lines = [f"{say.has(marks.state)} goto decided"]
            if leg is Leg.OUTSIDE:
                lines.append(f"{say.own} goto own_seal")
            for f in FAMILIES:
                both = f"meta nfproto ipv{f} meta l4proto"
                lines.append(f"{both} {SEALABLE} jump {chain('fast', leg, f)}")
                lines.append(f"{both} {_PORTED} goto {chain('unsealed', leg, f)}")
            lines.append(self._unflag(4))
            text += chain_text(f"sealing_{leg.value}", *lines)
        return text + chain_text(
            "sealing",
            hook("postrouting", _SEAL),
            *(f"oifname {say.interface(leg)} goto sealing_{leg.value}" for leg in Leg),
        )
