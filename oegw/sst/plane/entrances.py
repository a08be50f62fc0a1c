"""The chains that a packet passes before anybody else sees it: opening.  Pure.

    -450  arriving    before reassembly: what is flagged is rewritten, or marked to be opened
    -350  joined      behind it: fragments that are whole again, ICMP errors about flagged packets
    -300              the queue takes what waits
    -290  released    out of the queue: rewritten now, or passed as it is
    -195  remembered  behind connection tracking: the connection of an opened packet is sticky

What this box sends itself passes the same places for errors about sealed packets of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from oegw.sst.interface import Leg
from oegw.sst.plane.names import FAMILIES, chain
from oegw.sst.plane.rewriting import EPOCHS
from oegw.sst.plane.statements import (
    FRAGMENT,
    LATER_FRAGMENT,
    PROBE,
    ROUTED,
    SEALABLE,
    Statements,
    chain_text,
    hook,
)
from oegw.sst.settings import LanFlag, Request

# Our choices, around reassembly (-400), iptables' raw (-300) and connection tracking (-200).
_ARRIVING = -450
_JOINED = -350
_QUEUE = -300
_RELEASED = -290
_REMEMBERED = -195


@dataclass(frozen=True, slots=True)
class Entrances:
    say: Statements
    nft_queue: bool

    def __str__(self) -> str:
        say = self.say
        return (
            chain_text("unmark", say.unmark())
            + self._hand_up()
            + "".join(self._opened(f) + self._legs(f) for f in FAMILIES)
            + self._inside()
            + self._arriving()
            + self._joined()
            + (self._queues() if self.nft_queue else "")
            + self._released()
            + self._remembered()
            + self._sending()
        )

    def _hand_up(self) -> str:
        marks = self.say.marks
        kept = marks.request | marks.fragment
        return chain_text(
            "open_up", self.say.mark(marks.waiting, kept), "counter name open_caught accept"
        )

    def _opened(self, family: int) -> str:
        """Where the rules that rewrite go to."""
        say = self.say
        return chain_text(
            f"opened{family}",
            f"{say.flagged(family)} {say.clear(family)}",
            say.mark(say.marks.done),
            "counter name opened accept",
        )

    def _legs(self, family: int) -> str:
        return "".join(self._leg(leg, family) for leg in Leg)

    def _leg(self, leg: Leg, family: int) -> str:
        """``flagged``: has the flag, as it arrives.  ``open``: returns if there is no entry."""
        say, marks = self.say, self.say.marks

        def named(name: str) -> str:
            return chain(name, leg, family)

        open_lines = [
            *(f"{each} return" for each in ROUTED[family]),
            f"meta l4proto 6 goto {named('open_tcp')}",
            f"meta l4proto 17 udp checksum 0 goto {named('open_bare')}",
            f"meta l4proto 17 goto {named('open_udp')}",
        ]
        fragment = f"{say.mark(marks.fragment)} accept"
        return (
            chain_text(named("open"), *open_lines)
            + chain_text(
                named("flagged"),
                # Which of IPv6 fragments have ports, nobody knows before they are together.
                f"{FRAGMENT[6]} {fragment}" if family == 6 else "",
                f"meta l4proto != {SEALABLE} accept",
                f"{FRAGMENT[4]} {fragment}" if family == 4 else "",
                f"jump {named('open')}",
                "goto open_up",
            )
            + chain_text(
                named("joined"),
                f"{LATER_FRAGMENT[family]} {say.clear(family)} {say.unmark()} "
                "counter name fragments_opened accept",
                f"meta l4proto != {SEALABLE} goto unmark",
                f"jump {named('open')}",
                "goto open_up",
            )
            + chain_text(
                named("released"),
                f"meta l4proto != {SEALABLE} goto unmark",
                f"jump {named('open')}",
                "counter name open_missed",
                "goto unmark",
            )
        )

    def _inside(self) -> str:
        """From inside: a flag can't be ours; a code point asks."""
        say, sst = self.say, self.say.settings.sst
        asked = f"meta mark set meta mark | {say.marks.request:#x}"
        lines = []
        for f in FAMILIES:
            word = {4: "ip", 6: "ip6"}[f]
            match sst.lan_flag:
                case LanFlag.DROP:
                    lines.append(f"{say.foreign_flag(f)} counter name lan_flag_dropped drop")
                case LanFlag.CLEAR:
                    lines.append(
                        f"{say.foreign_flag(f)} {say.clear(f)} counter name lan_flag_cleared"
                    )
                case LanFlag.REQUEST:
                    lines.append(
                        f"{say.foreign_flag(f)} {say.clear(f)} {asked} "
                        "counter name lan_flag_cleared counter name requested"
                    )
            if Request.DSCP in sst.requests:
                lines.append(
                    f"{word} dscp {sst.request_dscp} {word} dscp set 0 {asked} "
                    "counter name requested"
                )
        fragment = f"meta mark set meta mark | {say.marks.fragment:#x}"
        return chain_text("from_inside", *lines, f"{FRAGMENT[4]} {fragment}")

    def _arriving(self) -> str:
        """Our bits on a packet that comes in are somebody else's: they are cleared."""
        say = self.say
        text = ""
        for leg in Leg:
            lines = [f"{say.flagged(f)} goto {chain('flagged', leg, f)}" for f in FAMILIES]
            if leg is Leg.OUTSIDE:
                lines.insert(0, f"{PROBE} fib daddr type local goto open_up")
            text += chain_text(f"from_{leg.value}", *lines)
            if leg is Leg.OUTSIDE:
                continue
        ways = [f"iifname {say.interface(leg)} goto from_{leg.value}" for leg in Leg]
        return text + chain_text(
            "arriving",
            hook("prerouting", _ARRIVING),
            f"{say.has(say.marks.mask)} {say.unmark()}",
            *ways,
            'iifname != "lo" goto from_inside',
        )

    def _joined(self) -> str:
        say, marks = self.say, self.say.marks
        lines = []
        for leg in Leg:
            came = f"iifname {say.interface(leg)}"
            for f in FAMILIES:
                protocol = f"meta nfproto ipv{f}"
                joined = chain("joined", leg, f)
                lines.append(f"{came} {say.has(marks.fragment)} {protocol} goto {joined}")
                lines.append(f"{came} {say.quotes_flagged(f)} goto open_up")
        return chain_text(
            "joined",
            hook("prerouting", _JOINED),
            f"iifname != {say.legs} accept",
            f"{say.has(marks.state)} accept",
            *lines,
        )

    def _queues(self) -> str:
        queue = f"{self.say.undecided} queue num {self.say.settings.sst.queue}"
        return "".join(
            chain_text(f"queue_{point}", hook(point, _QUEUE), queue)
            for point in ("prerouting", "output")
        )

    def _released(self) -> str:
        """Who released it has cleared the state; what has none of it left was not in the queue."""
        say, marks = self.say, self.say.marks
        slowly = f"meta mark & {marks.state | marks.keyed:#x} == {marks.done | marks.keyed:#x}"
        lines = [
            f"iifname != {say.legs} accept",
            f"{say.has(marks.state)} goto in_state",
        ]
        in_state = chain_text(
            "in_state",
            f"{say.undecided} counter name escaped_dropped drop",
            f"{slowly} counter name opened_slowly",
            "accept",
        )
        for leg in Leg:
            came = f"iifname {say.interface(leg)}"
            for f in FAMILIES:
                released = chain("released", leg, f)
                lines.append(f"{came} {say.flagged(f)} goto {released}")
                lines.append(
                    f"{came} {say.has(marks.fragment)} meta nfproto ipv{f} goto {released}"
                )
        return in_state + chain_text("released", hook("prerouting", _RELEASED), *lines)

    def _remembered(self) -> str:
        """It is no longer ours then: forwarded into another leg, it is a packet like others."""
        say, marks = self.say, self.say.marks
        lines = [f"{say.state(marks.done)} goto remember"]
        remember = [
            # What answers it, a reset or an ICMP error, would have no connection that says that
            # it was opened, and so would tell its ports in clear.
            "ct state invalid,untracked counter name opened_untracked_dropped drop",
            f"{say.sticky} goto unmark",
        ]
        for epoch in EPOCHS:
            bits = marks.keyed | marks.epoch(epoch)
            remember.append(
                f"meta mark & {marks.keyed | marks.epochs:#x} == {bits:#x} "
                f"{say.stick(epoch)} goto unmark"
            )
        for leg in Leg:
            came = f"iifname {say.interface(leg)} meta l4proto {SEALABLE}"
            remember += [
                f"{came} meta nfproto ipv{f} jump {chain('stick_in', leg, f)}" for f in FAMILIES
            ]
        return chain_text("remember", *remember, "goto unmark") + chain_text(
            "remembered", hook("prerouting", _REMEMBERED), *lines
        )

    def _sending(self) -> str:
        """What this box sends: of our bits only a socket's request is somebody's wish.

        Errors about packets that were sealed already go back to where they came from: opened
        before connection tracking looks at them.
        """
        say, marks = self.say, self.say.marks
        asking = marks.request if Request.SOCKET in say.settings.sst.requests else 0
        ours = marks.mask & ~asking
        sending = chain_text(
            "sending",
            hook("output", _ARRIVING),
            f"{say.own} {say.has(marks.mask)} {say.unmark()} accept",
            f"{say.has(ours)} {say.unmark(asking)}",
        )
        quoting = chain_text(
            "quoting",
            hook("output", _JOINED),
            f"oifname {say.outside} accept",
            f'oifname "{say.settings.tunnel_interface}" accept',
            *(f"{say.quotes_flagged(f)} goto open_up" for f in FAMILIES),
        )
        released = chain_text(
            "quote_released",
            hook("output", _RELEASED),
            f"{say.undecided} counter name escaped_dropped drop",
        )
        return sending + quoting + released
