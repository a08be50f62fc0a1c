"""The text of the nft table of port encryption.  Pure: settings and policy in, nft language out.

The picture of the hooks stands in README.md.  Every packet that is dropped passes a named
counter.  The rules that rewrite ports are made in `rewriting.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from oegw.intercept.order import Question, ordered_chain
from oegw.sst.interface import Leg
from oegw.sst.plane import names
from oegw.sst.plane.entrances import Entrances
from oegw.sst.plane.exits import Exits
from oegw.sst.plane.marks import PlaneMarks
from oegw.sst.plane.names import ADDRESS_TYPES, FAMILIES
from oegw.sst.plane.rewriting import chains
from oegw.sst.plane.settings import PlaneSettings
from oegw.sst.plane.statements import SEALABLE, Statements, chain_text
from oegw.sst.settings import Fragments, Ipv4Signal
from policy.rule import Rule, Sst, SstStrength
from policy.table import PolicyTable

COUNTERS = {
    "sealed": "packets whose ports the kernel encrypted",
    "sealed_slowly": "packets whose ports were encrypted outside of the kernel",
    "opened": "packets whose ports the kernel decrypted",
    "opened_slowly": "packets whose ports were decrypted outside of the kernel",
    "seal_caught": "packets to be sealed without an entry, on their way into the queue",
    "open_caught": "packets to be opened without an entry, on their way into the queue",
    "seal_missed": "packets that left unsealed, though it was wanted: nobody had an entry for them",
    "open_missed": "flagged packets that went on as they were",
    "opened_untracked_dropped": "opened packets of no connection: what answers them would tell",
    "came_clear": "answers that left unsealed, though it was wanted, to what came in clear",
    "required_dropped": "packets that must not leave unsealed, and were about to",
    "shield_missed_dropped": "packets between shielded gateways that were about to leave unsealed",
    "fragments_clear": "packets that left unsealed because they are fragmented",
    "fragments_dropped": "packets dropped because they are fragmented",
    "fragments_opened": "later fragments that nobody put together, freed of their flag",
    "escaped_dropped": "packets for a queue that no queue took",
    "native_flag_cleared": "packets whose flag was not ours, and was cleared at the exit",
    "lan_flag_cleared": "packets from inside whose flag was cleared",
    "lan_flag_dropped": "packets from inside dropped for their flag",
    "requested": "packets from inside that asked for port encryption",
}
"""The counters in the table, and what they count."""

_RESIDUE_COUNTERS = ("required_dropped",)


@dataclass(frozen=True, slots=True)
class PolicyChains:
    """What follows from the policy alone.  ``requires``: whether a rule demands port encryption."""

    text: str = field(repr=False)
    residue: str = field(repr=False)
    requires: bool


def policy_chains(table: PolicyTable) -> PolicyChains:
    """What follows from the policy, as chains in the order of its rules."""
    wanted = {Leg.OUTSIDE: _is_only, Leg.TUNNEL: _is_inner}
    questions = {
        **{
            f"wanted_{leg.value}": Question(is_it, "return", "accept")
            for leg, is_it in wanted.items()
        },
        "required": Question(_is_required, "goto required_drop", "return"),
        "protected": Question(lambda rule: rule.protected, "accept", "return"),
    }
    texts = {
        name: "".join(ordered_chain(f"{name}{f}", table, f, question) for f in FAMILIES)
        for name, question in questions.items()
    }
    rules = (*table.rules, table.default)
    return PolicyChains(
        "".join(texts.values()),
        texts["wanted_outside"] + texts["wanted_tunnel"] + texts["required"],
        any(_is_required(rule) and rule.sst in (Sst.ONLY, Sst.INNER) for rule in rules),
    )


def whole_table(
    settings: PlaneSettings, policy: PolicyChains, mtus: Mapping[str, int], *, nft_queue: bool
) -> str:
    """One transaction that replaces whatever stands under our name.

    ``mtus``: of the interfaces that are there.  ``nft_queue``: the kernel has nft ``queue``; else
    iptables rules match our marks.
    """
    say = Statements(settings, PlaneMarks(settings.sst.mark_mask))
    return (
        _replacing(settings)
        + _counters(COUNTERS)
        + _sets(settings)
        + "".join(f"  chain {name} {{ }}\n" for name in chains())
        + policy.text
        + chain_text("required_drop", "counter name required_dropped drop")
        + chain_text("pass", "accept")
        + str(Entrances(say, nft_queue=nft_queue))
        + Exits(say, mtus, nft_queue=nft_queue).whole()
        + "}\n"
    )


def unhooked_table(settings: PlaneSettings, name: str) -> str:
    """A table under another name in which the rules of `rewriting.py` can be tried."""
    targets = ["pass", "unmark", *(f"{name}{f}" for name in ("sealed", "opened") for f in FAMILIES)]
    targets += [names.chain("rewrite", leg, f) for leg in Leg for f in FAMILIES]
    body = "".join(f"  chain {each} {{ }}\n" for each in (*targets, *chains()))
    fresh = f"add table inet {name}\ndelete table inet {name}\ntable inet {name} {{\n"
    return fresh + _sets(settings) + body + "}\n"


def fragment_table(settings: PlaneSettings, devices: Iterable[str]) -> str:
    """One transaction: the kernel makes fragments behind all hooks of the other table, and without
    the reserved bit; behind that there is only the device.  The mark is copied to each fragment."""
    marks = PlaneMarks(settings.sst.mark_mask)
    sealed = f"ip protocol {SEALABLE} meta mark & {marks.state:#x} == {marks.done:#x}"
    flag = f"{sealed} ip frag-off & 0x3fff != 0 ip frag-off set ip frag-off | 0x8000"
    chains = ""
    for number, name in enumerate(devices):
        hook = f'type filter hook egress device "{name}" priority 0; policy accept;'
        chains += chain_text(f"flag{number}", hook, flag)
    return no_fragment_table(settings) + f"table netdev {settings.table} {{\n{chains}}}\n"


def no_fragment_table(settings: PlaneSettings) -> str:
    return f"add table netdev {settings.table}\ndelete table netdev {settings.table}\n"


def flags_fragments(settings: PlaneSettings) -> bool:
    """Whether fragments need a table of their own: with a code point nothing is lost."""
    sst = settings.sst
    return sst.fragments is Fragments.TRY and sst.ipv4_signal is Ipv4Signal.FLAG


def new_policy(
    settings: PlaneSettings, policy: PolicyChains, mtus: Mapping[str, int], *, nft_queue: bool
) -> str:
    """Commands that put another policy's chains in place of those that are there.

    Entries stay.  What was declined under the old policy is asked again.
    """
    name = settings.table
    exits = Exits(
        Statements(settings, PlaneMarks(settings.sst.mark_mask)), mtus, nft_queue=nft_queue
    )
    rewritten = [
        f"{chain}{f}"
        for chain in ("wanted_outside", "wanted_tunnel", "required", "protected")
        for f in FAMILIES
    ]
    lines = [
        f"flush chain inet {name} {chain}\n" for chain in (*rewritten, *exits.measuring_names())
    ]
    lines += [f"flush set inet {name} {names.declined(leg, f)}\n" for leg in Leg for f in FAMILIES]
    return "".join(lines) + f"table inet {name} {{\n{policy.text}{exits.measuring()}}}\n"


def residue(settings: PlaneSettings, policy: PolicyChains) -> str:
    """One transaction that leaves only what keeps traffic from leaving without port encryption that
    requires it; nothing, if no rule does."""
    if not policy.requires:
        return no_table(settings)
    say = Statements(settings, PlaneMarks(settings.sst.mark_mask))
    return (
        _replacing(settings)
        + _counters(_RESIDUE_COUNTERS)
        + policy.residue
        + chain_text("required_drop", "counter name required_dropped drop")
        + Exits(say, {}, nft_queue=False).residue()
        + "}\n"
    )


def _is_only(rule: Rule) -> bool:
    return rule.sst is Sst.ONLY


def _is_inner(rule: Rule) -> bool:
    return rule.sst is Sst.INNER


def _is_required(rule: Rule) -> bool:
    return rule.sst_strength is SstStrength.REQUIRED


def no_table(settings: PlaneSettings) -> str:
    """nft before 1.0.7 has no ``destroy``: a table is surely there once it was added."""
    return f"add table inet {settings.table}\ndelete table inet {settings.table}\n"


def _replacing(settings: PlaneSettings) -> str:
    return no_table(settings) + f"table inet {settings.table} {{\n"


def _counters(which: Iterable[str]) -> str:
    return "".join(f"  counter {name} {{ }}\n" for name in which)


def _sets(settings: PlaneSettings) -> str:
    """The datum of a map is two ports, which nft shows as an address, and the epoch."""
    tail = f"flags timeout; size {settings.sst.flows};"
    text = ""
    for f in FAMILIES:
        address = ADDRESS_TYPES[f]
        key = f"{address} . {address} . inet_proto . inet_service . inet_service"
        for leg in Leg:
            for name in (names.outwards(leg, f), names.inwards(leg, f)):
                text += f"  map {name} {{ type {key} : ipv4_addr . mark; {tail} }}\n"
            text += f"  set {names.declined(leg, f)} {{ type {key}; {tail} }}\n"
        text += f"  set {names.shielded(f)} {{ type {address} . {address}; size 65536; }}\n"
    return text
