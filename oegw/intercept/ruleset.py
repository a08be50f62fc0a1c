"""The text of our one nft table.  Pure: settings and policy in, nft language out.

The picture of the hooks stands in README.md.  Every packet that is dropped
passes a named counter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from oegw.intercept import demanded, management
from oegw.intercept.assurance import ORDER, counter_name, declarations, mark_of, rules
from oegw.intercept.interface import InterceptError, InterceptSettings, Marks
from oegw.intercept.management import managed_from
from oegw.intercept.order import Question, ordered_chain
from oegw.intercept.translation import (
    STRAYS,
    asking_chains,
    asking_names,
    translating_chains,
    translating_hooks,
    translating_names,
)
from oegw.intercept.verdicts import FAMILIES, Shape
from oegw.nat import Translation
from policy.flow import IPNetwork
from policy.rule import Category, Rule
from policy.table import PolicyTable

# Specification values.
_IKE_PORTS = "{ 500, 4500 }"  # RFC 2408 section 2.5.1, RFC 3948 section 4
# Neighbour discovery comes from the link, and says so by its hop limit (RFC 4861 section 7.1):
# a forwarded packet can't have 255 any more.
_NEIGHBOUR_DISCOVERY = "ip6 hoplimit 255 icmpv6 type { 133-137 } accept"
_DNS = "meta l4proto { 6, 17 } th"

# Our choices: before iptables' mangle (-150), which holds the jump to the queue
# where nft has none, and before source NAT (100), which would hide the pair.
_DECIDE = -160
_REFUSE = -140  # behind the queue
_GUARD = 90
# And once more behind source NAT, with the addresses that the packet really leaves with.
_GUARD_BEHIND_NAT = 110
_REFUSALS = "100/second burst 100 packets"  # ICMP messages, beside the kernel's limit for each host

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,30}")
_INTERFACE = re.compile(r"[A-Za-z0-9_.:@-]{1,15}")

CLEAR = "clear_outbound"
COUNTERS = {
    "trapped": "packets without a verdict, on their way into the queue",
    "denied": "packets of pairs with verdict DENY",
    "refused": "packets denied and answered with ICMP, as far as they may be answered",
    "clear_inbound_dropped": "clear packets from outside for a configured pair",
    "keyed_clear_inbound_dropped": "clear packets from outside for a pair that must be encrypted",
    CLEAR: "packets about to leave in clear, those that the guard drops included",
    "guard_dropped": "clear packets of protected traffic that were about to leave",
    "trap_escaped_dropped": "packets for the queue that no queue took",
    "tunnel_escaped_dropped": "packets for the tunnel that were about to leave in clear",
    **demanded.COUNTERS,
    STRAYS: "packets out of a tunnel for a shared address that no host behind it asked for",
    "inbound_configured": "packets out of configured tunnels",
    "inbound_secure": "packets out of opportunistic tunnels that DNSSEC vouches for",
    "inbound_insecure": "packets out of other opportunistic tunnels",
    "inbound_unassured": "packets out of tunnels of which no more is known",
}
"""The counters in the table, and what they count."""

_RESIDUE_COUNTERS = (
    CLEAR,
    "clear_inbound_dropped",
    "guard_dropped",
    "trap_escaped_dropped",
    "tunnel_escaped_dropped",
    *demanded.COUNTERS,
)


@dataclass(frozen=True, slots=True)
class StaticChains:
    """The part of the table that follows from the policy alone: names and text of chains.

    ``protects``: whether any rule keeps traffic from leaving in clear.  ``management``: where this
    box is managed from.
    """

    exempt: str
    refused: str
    inbound: str
    guard: str
    protects: bool
    translation: str = ""
    management: tuple[IPNetwork, ...] = ()

    def __str__(self) -> str:
        return self.exempt + self.refused + self.inbound + self.guard + self.translation


def checked(settings: InterceptSettings) -> InterceptSettings:
    """The same settings.  Raises InterceptError if one of them can't work."""
    for name in ("mark_mask", "assurance_mask"):
        mask = getattr(settings, name)
        if not 0 < mask < 1 << 32 or mask // (mask & -mask) != 3:
            raise InterceptError(f"{name} {mask:#x} must be two neighbouring bits of 32")
    if settings.mark_mask & settings.assurance_mask:
        raise InterceptError("assurance_mask and mark_mask have bits in common")
    demanded.check(settings)
    if not _NAME.fullmatch(settings.table):
        raise InterceptError(f"table {settings.table!r} is no name of letters, digits and _")
    if not settings.outside:
        raise InterceptError("outside: there must be at least one interface")
    for interface in (*settings.outside, settings.tunnel_interface):
        if not _INTERFACE.fullmatch(interface):
            raise InterceptError(f"{interface!r} can't be the name of an interface")
    if not 0 <= settings.queue <= 65535:
        raise InterceptError(f"queue {settings.queue} must be 0 to 65535")
    if settings.queue_length < 1:
        raise InterceptError(f"queue_length {settings.queue_length} must be 1 or more")
    return settings


def static_chains(table: PolicyTable, translations: tuple[Translation, ...] = ()) -> StaticChains:
    """What follows from the policy, as chains in the order of its rules."""
    exempt = Question(lambda rule: not rule.builtin, "return", "accept")
    refused = Question(_is_refused, "goto refuse", "return")
    inbound = Question(_is_configured, "goto clear_inbound", "accept", reverse=True)
    guard = Question(lambda rule: rule.guarded, "goto leak", "accept")
    return StaticChains(
        _asking("exempt", table, exempt, translations),
        _asking("refused", table, refused, translations),
        "".join(ordered_chain(f"inbound{f}", table, f, inbound) for f in FAMILIES),
        _asking("guard", table, guard, translations),
        any(rule.guarded for rule in (*table.rules, table.default)),
        translating_chains(table, translations),
        managed_from(table),
    )


def whole_table(
    settings: InterceptSettings, chains: StaticChains, *, nft_queue: bool, nft_reject: bool = True
) -> str:
    """One transaction that replaces whatever stands under our name.

    ``nft_queue``: the kernel has nft ``queue``; else an iptables rule matches the trap mark.
    ``nft_reject``: it can answer a packet with ICMP; else what is to be refused is only dropped.
    """
    return (
        _replacing(settings)
        + _counters(COUNTERS)
        + _sets()
        + declarations()
        + management.declarations(chains.management)
        + demanded.declaration(settings)
        + _assured(settings)
        + demanded.refusal(nft_reject=nft_reject)
        + _refuse(settings, nft_reject=nft_reject)
        + str(chains)
        + _dropping_chains(settings)
        + _outbound(settings, nft_queue=nft_queue)
        + _inbound(settings, keyed=True)
        + _hooks(settings)
        + translating_hooks(settings.tunnel_interface, settings.translations)
        + _guard(settings, tunnels=True)
        + _guard_behind_nat(settings)
        + "}\n"
    )


def new_policy(settings: InterceptSettings, chains: StaticChains) -> str:
    """Commands that put other static chains in place of those that are there, and empty all sets.

    What shall stay in the sets has to follow in the same transaction.  The
    sets are made anew with the rules that ask them: to flush a set of 3,500
    prefixes takes the kernel most of a second.
    """
    name = settings.table
    rewritten = ["known", "deny", "refuse_released", "inbound"]
    for family in FAMILIES:
        rewritten.append(f"inbound{family}")
        for chain in ("exempt", "refused", "guard"):
            rewritten += asking_names(f"{chain}{family}", family, settings.translations)
    rewritten += translating_names(settings.translations)
    lines = [f"flush chain inet {name} {chain}\n" for chain in rewritten]
    for family in FAMILIES:
        for shape in Shape:
            lines.append(f"delete map inet {name} {shape.map_name(family)}\n")
            lines.append(f"delete set inet {name} {shape.deny_name(family)}\n")
            lines.append(f"delete set inet {name} {shape.refuse_name(family)}\n")
            lines.append(f"delete set inet {name} {shape.keyed_name(family)}\n")
    return (
        "".join(lines)
        + management.renewal(name, chains.management)
        + f"table inet {name} {{\n"
        + _sets()
        + str(chains)
        + _deny(settings)
        + _known()
        + _inbound(settings, keyed=True)
        + "}\n"
    )


def residue(settings: InterceptSettings, chains: StaticChains, *, nft_reject: bool = True) -> str:
    """One transaction that leaves only what keeps protected traffic from leaving in clear.

    Configured pairs' clear packets from outside stay out, too.  Without
    protected traffic, and without processes that demand encryption, nothing is left.
    """
    if not (chains.protects or settings.demanded):
        return _removing(settings)
    hook = f"type filter hook prerouting priority {_DECIDE}; policy accept;"
    asked = settings.demanded
    managed = bool(chains.management)
    return (
        _replacing(settings)
        + _counters(_RESIDUE_COUNTERS)
        + management.declarations(chains.management) * managed
        + (demanded.declaration(settings) + demanded.refusal(nft_reject=nft_reject)) * asked
        + chains.inbound
        + chains.guard
        + _chain("clear_inbound", "counter name clear_inbound_dropped drop")
        + _inbound(settings, keyed=False, managed=managed)
        + _chain("prerouting", hook, f"iifname {_outside(settings)} goto inbound")
        + _refusing_output(settings) * asked
        + _guard(settings, tunnels=False, managed=managed)
        + _guard_behind_nat(settings, managed=managed)
        + "}\n"
    )


def _is_configured(rule: Rule) -> bool:
    return rule.category is Category.CONFIGURED


def _is_refused(rule: Rule) -> bool:
    return rule.category is Category.DENY and rule.icmp


def _asking(
    name: str, table: PolicyTable, question: Question, translations: tuple[Translation, ...]
) -> str:
    return "".join(asking_chains(f"{name}{f}", table, f, question, translations) for f in FAMILIES)


def _removing(settings: InterceptSettings) -> str:
    """nft before 1.0.7 has no ``destroy``: a table is surely there once it was added."""
    return f"add table inet {settings.table}\ndelete table inet {settings.table}\n"


def _replacing(settings: InterceptSettings) -> str:
    return _removing(settings) + f"table inet {settings.table} {{\n"


def _sets() -> str:
    return "".join(shape.declaration(family) for family in FAMILIES for shape in Shape)


def _counters(names: Iterable[str]) -> str:
    return "".join(f"  counter {name} {{ }}\n" for name in names)


def _chain(name: str, *lines: str) -> str:
    body = "".join(f"    {line}\n" for line in lines if line)
    return f"  chain {name} {{\n{body}  }}\n"


def _outside(settings: InterceptSettings) -> str:
    return "{ " + ", ".join(f'"{name}"' for name in settings.outside) + " }"


def _marked(settings: InterceptSettings, mark: int) -> str:
    """The statement that sets our bits, and no others."""
    rest = 0xFFFFFFFF ^ settings.mark_mask
    return f"meta mark set meta mark & {rest:#x} | {mark:#x}"


def _has(settings: InterceptSettings, mark: int) -> str:
    return f"meta mark & {settings.mark_mask:#x} == {mark:#x}"


def _dropping_chains(settings: InterceptSettings) -> str:
    return (
        _deny(settings)
        + _chain("clear_inbound", "counter name clear_inbound_dropped drop")
        + _chain("keyed_clear_inbound", "counter name keyed_clear_inbound_dropped drop")
    )


def _refuse(settings: InterceptSettings, *, nft_reject: bool) -> str:
    """The end of what is denied with an answer (RFC 4322 section 3.1.4).

    The kernel knows what must not be answered: errors, later fragments, what is to or from no
    single host (RFC 1122 section 3.2.2, RFC 4443 section 2.4); such a packet is dropped all the
    same.
    """
    if not nft_reject:
        return _chain("refuse", "counter name denied drop")
    return _chain(
        "refuse",
        demanded.refused(settings),
        f"limit rate over {_REFUSALS} counter name denied drop",
        "counter name refused reject with icmpx type admin-prohibited",
    )


def _deny(settings: InterceptSettings) -> str:
    """What is denied by a cached verdict, and what has left the queue to be refused.

    What left the queue with its mark for another reason ends at the guard.
    """
    refused = [
        f"{shape.selector(family)} @{shape.refuse_name(family)} goto refuse"
        for shape in Shape
        for family in FAMILIES
    ]
    dropped = (demanded.refused(settings), "counter name denied drop")
    return _chain("deny", *refused, *dropped) + _chain("refuse_released", *refused)


def _assured(settings: InterceptSettings) -> str:
    """Out of the tunnel device: marked for the firewalls behind, with bits of their own."""
    mask = settings.assurance_mask
    marking = (
        _chain(
            counter_name(assurance),
            f"counter name {counter_name(assurance)}",
            f"meta mark set meta mark & {0xFFFFFFFF ^ mask:#x} | {mark_of(assurance, mask):#x}",
            "accept",
        )
        for assurance in ORDER
    )
    chain = _chain("assured", *rules(), "counter name inbound_unassured", "accept")
    return "".join(marking) + chain


def _outbound(settings: InterceptSettings, *, nft_queue: bool) -> str:
    """A packet that would leave by an outside interface: exempt, known, or trapped.

    From ``known`` only packets for the tunnel return.
    """
    marks = Marks(settings.mark_mask)
    return (
        _chain(
            "trap",
            "counter name trapped",
            _marked(settings, marks.trap),
            f"queue num {settings.queue}" if nft_queue else "",
            "accept",
        )
        + _known()
        + _chain(
            "outbound",
            "meta nfproto ipv4 jump exempt4",
            "meta nfproto ipv6 jump exempt6",
            "meta nfproto ipv4 jump refused4",
            "meta nfproto ipv6 jump refused6",
            "jump known",
            _marked(settings, marks.tunnel),
            "accept",
        )
    )


def _known() -> str:
    lookups = []
    for shape in Shape:
        for family in FAMILIES:
            selector = shape.selector(family)
            lookups.append(f"{selector} @{shape.deny_name(family)} goto deny")
            lookups.append(f"{selector} vmap @{shape.map_name(family)}")
    return _chain("known", *lookups, "goto trap")


def _inbound(settings: InterceptSettings, *, keyed: bool, managed: bool = True) -> str:
    """A packet from outside: ours, or for a pair whose packets must not come in clear."""
    resolvers = [
        f"{'ip' if resolver.version == 4 else 'ip6'} saddr {resolver} {_DNS} sport 53"
        for resolver in settings.resolvers
    ]
    if settings.local_resolver:
        resolvers.append(f"{_DNS} sport 53")
    lookups = [
        f"{shape.selector(family)} @{shape.keyed_name(family)} goto keyed_clear_inbound"
        for shape in Shape
        for family in FAMILIES
    ]
    return _chain(
        "inbound",
        "fib daddr type local meta l4proto esp accept",
        f"fib daddr type local udp dport {_IKE_PORTS} accept",
        _NEIGHBOUR_DISCOVERY,
        *(management.INBOUND if managed else ()),
        *(f"fib daddr type local {answers} accept" for answers in resolvers),
        *(lookups if keyed else ()),
        "meta nfproto ipv4 jump inbound4",
        "meta nfproto ipv6 jump inbound6",
    )


def _hooks(settings: InterceptSettings) -> str:
    """Forwarded packets, and then the gateway's own.

    Our bits on a packet that comes in are somebody else's: they are cleared.
    Where a packet would leave is asked of the routing table without a mark.
    """
    marks = Marks(settings.mark_mask)
    outside = _outside(settings)
    clean = f"meta mark & {settings.mark_mask:#x} != 0 {_marked(settings, 0)}"
    ours = settings.mark_mask | settings.assurance_mask | settings.encrypted_mark
    prerouting = _chain(
        "prerouting",
        f"type filter hook prerouting priority {_DECIDE}; policy accept;",
        f"meta mark & {ours:#x} != 0 meta mark set meta mark & {0xFFFFFFFF ^ ours:#x}",
        f'iifname "{settings.tunnel_interface}" goto assured',
        f"iifname {outside} goto inbound",
        "fib daddr type != unicast accept",
        f"fib daddr oifname != {outside} accept",
        "goto outbound",
    )
    output = _chain(
        "output",
        f"type route hook output priority {_DECIDE}; policy accept;",
        f"{_has(settings, marks.own)} accept",
        clean,
        f"oifname != {outside} accept",
        _NEIGHBOUR_DISCOVERY,
        *management.outbound(settings),
        f"{_DNS} dport 53 accept" if settings.local_resolver else "",
        "goto outbound",
    )
    refusing = _chain(
        "refuse_prerouting",
        f"type filter hook prerouting priority {_REFUSE}; policy accept;",
        f"{_has(settings, marks.trap)} goto refuse_released",
    )
    released = f"{_has(settings, marks.trap)} goto refuse_released"
    return prerouting + output + refusing + _refusing_output(settings, released)


def _refusing_output(settings: InterceptSettings, *rules: str) -> str:
    """Behind the queue, of what this box sends.  ``rules``: for what demands nothing."""
    return _chain(
        "refuse_output",
        f"type filter hook output priority {_REFUSE}; policy accept;",
        demanded.undecided(settings, _outside(settings)),
        *rules,
    )


def _guard(settings: InterceptSettings, *, tunnels: bool, managed: bool = True) -> str:
    """The last look at what leaves: it works without a process behind it.

    An XFRM interface shows each packet a second time, still in clear and with the outside
    interface as its way, before the kernel seals it.  So what goes into the device gets
    the own mark: out of the device comes ESP or nothing.  Without ``tunnels`` there is no device.
    """
    marks = Marks(settings.mark_mask)
    sealed = _marked(settings, marks.own) + " " if tunnels else ""
    dns = f"fib saddr type local {_DNS} dport 53 accept" if settings.local_resolver else ""
    return _chain("leak", "counter name guard_dropped drop") + _chain(
        "guard",
        f"type filter hook postrouting priority {_GUARD}; policy accept;",
        f'oifname "{settings.tunnel_interface}" {sealed}accept',
        f"oifname != {_outside(settings)} accept",
        f"{_has(settings, marks.own)} accept",
        f"{_has(settings, marks.trap)} counter name trap_escaped_dropped drop",
        f"{_has(settings, marks.tunnel)} counter name tunnel_escaped_dropped drop",
        demanded.guard(settings) if tunnels or settings.demanded else "",
        _NEIGHBOUR_DISCOVERY,
        *(management.GUARD if managed else ()),
        dns,
        f"counter name {CLEAR}",
        "meta nfproto ipv4 jump guard4",
        "meta nfproto ipv6 jump guard6",
    )


def _guard_behind_nat(settings: InterceptSettings, *, managed: bool = True) -> str:
    """The guard's question once more, with the source that a packet has on the wire.

    Rules of the user's may translate it to an address that a rule of the policy protects.
    """
    marks = Marks(settings.mark_mask)
    dns = f"fib saddr type local {_DNS} dport 53 accept" if settings.local_resolver else ""
    return _chain(
        "guard_behind_nat",
        f"type filter hook postrouting priority {_GUARD_BEHIND_NAT}; policy accept;",
        f'oifname "{settings.tunnel_interface}" accept',
        f"oifname != {_outside(settings)} accept",
        f"{_has(settings, marks.own)} accept",
        _NEIGHBOUR_DISCOVERY,
        *(management.GUARD if managed else ()),
        dns,
        "meta nfproto ipv4 jump guard4",
        "meta nfproto ipv6 jump guard6",
    )
