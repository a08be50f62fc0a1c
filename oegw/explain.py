"""The policy in words: the whole table, and what happens to one flow."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby, islice

from dnsrecords.reverse import reverse_name
from oegw.assurance import UnsignedDelegation, trust_in
from oegw.configrules import PROTOCOLS
from oegw.nat import Nat, Translation
from oegw.peer import ConfiguredPeer
from oegw.settings import Settings
from oegw.sst.permutation import PROTOCOLS as SEALED_PROTOCOLS
from oegw.status import columns
from policy.builtin import never_public
from policy.flow import Flow, IPNetwork
from policy.order import PORTED_PROTOCOLS
from policy.rule import (
    ANY_PORT,
    Category,
    OnFailure,
    PortRange,
    Require,
    Rule,
    Scope,
    Sst,
    SstStrength,
)
from policy.table import PolicyTable

SHOWN_PAIRS = 8  # of one rule in one place of the order: lists may have a million

Entry = tuple[IPNetwork, IPNetwork, Rule]

_NAMES = {number: name for name, number in PROTOCOLS.items()}


def table_lines(table: PolicyTable, settings: Settings) -> Iterator[str]:
    """The table of each family, most specific rules first, as aligned lines."""
    for family in (4, 6):
        rows = [["DESTINATION", "SOURCE", "TRAFFIC", "RULE", "WHAT", "WRITTEN"]]
        for group in table.groups(family):
            for _, entries in groupby(group.entries, key=lambda entry: id(entry[2])):
                rows += _rows(entries, settings)
        rows.append(["any", "any", "any", *_last(settings.default, settings)])
        yield f"IPv{family}, most specific first; the first rule that matches applies"
        yield from columns(rows)
        if family == 4:
            yield ""


def _rows(entries: Iterator[Entry], settings: Settings) -> Iterator[list[str]]:
    """The lines of one rule in one place of the order."""
    for source, destination, rule in islice(entries, SHOWN_PAIRS):
        ports = traffic(rule.protocol, rule.source_ports, rule.destination_ports)
        yield [network(destination), network(source), ports, *_last(rule, settings)]
    more = sum(1 for _ in entries)
    if more:
        yield [f"({more} more)", "", "", "", "", ""]


def _last(rule: Rule, settings: Settings) -> list[str]:
    return [rule.name, category(rule, settings), rule.origin]


def network(value: IPNetwork) -> str:
    """A network; all addresses are "any", and one is without its length."""
    if value.prefixlen == 0:
        return "any"
    return str(value.network_address) if value.prefixlen == value.max_prefixlen else str(value)


def protocol_name(number: int) -> str:
    return _NAMES.get(number, f"protocol {number}")


def ports_text(ports: PortRange) -> str:
    if ports == ANY_PORT:
        return "any"
    return str(ports.first) if ports.first == ports.last else f"{ports.first}-{ports.last}"


def traffic(protocol: int | None, source: PortRange, destination: PortRange) -> str:
    """``any``, ``tcp``, ``tcp any -> 80-89``."""
    name = "any" if protocol is None else protocol_name(protocol)
    if source == destination == ANY_PORT:
        return name
    return f"{name} {ports_text(source)} -> {ports_text(destination)}"


def category(rule: Rule, settings: Settings) -> str:
    """The category and what goes with it."""
    text = rule.category.value
    if rule.category is Category.OPPORTUNISTIC:
        text += f", else {rule.on_failure.value}"
        if rule.require is Require.SECURE:
            text += ", secure records only"
        if not rule.initiate:
            text += ", accepts only"
        if rule.relax:
            text += ", decision points may relax it"
    elif rule.icmp:
        text += " with ICMP"
    elif rule.category is Category.CONFIGURED and rule.name in settings.peers:
        text += f" with {peer_text(settings.peers[rule.name])}"
    if rule.sst is not Sst.OFF or rule.sst_strength is not SstStrength.OPPORTUNISTIC:
        text += f", ports {_PLACES[rule.sst]} {rule.sst_strength.value}"
    return text + (", override" if rule.override else "")


_PLACES = {
    Sst.OFF: "asked for",
    Sst.INNER: "inside the tunnel",
    Sst.OUTER: "of the gateways",
    Sst.ONLY: "without tunnel",
}


def peer_text(peer: ConfiguredPeer) -> str:
    """Where the peer is; one of variable address is known by its name only."""
    return str(peer.address or peer.expected_identity)


def explanation(
    flow: Flow, table: PolicyTable, settings: Settings, nat: Nat
) -> Iterator[tuple[str, str]]:
    """What happens to ``flow`` and why, as pairs of a word and a sentence."""
    yield "flow", flow_text(flow)
    seen = nat.seen(flow, table)
    if seen.by is not None:
        yield "nat", " ".join(translation_text(flow, seen.flow, seen.by))
    flow, rule = seen.flow, seen.rule
    yield "rule", rule.name
    yield "written", rule.origin
    yield "category", category(rule, settings)
    yield "what", " ".join(_consequences(flow, rule, settings, nat))
    yield "scope", scope_text(seen.policy_scope)
    if not seen.cacheable:
        yield "", "for packets that show no ports; those that do may fall under other rules"


def translation_text(flow: Flow, translated: Flow, by: Translation) -> Iterator[str]:
    """What this box makes of a source, and what follows from it (draft section 7.1)."""
    yield f"{flow.source} leaves as {translated.source}, which the policy, the DNS and IKE see."
    if by.shared:
        yield (
            f"All hosts of {by.inside} share that address, and with it one tunnel to each "
            "destination: nobody outside can tell them apart, so that separate tunnels for two "
            "of them are not possible."
        )


def flow_text(flow: Flow) -> str:
    text = f"{flow.source} -> {flow.destination}, {protocol_name(flow.protocol)}"
    if flow.destination_port is None:
        return text
    return f"{text} port {flow.destination_port} (from port {flow.source_port})"


def scope_text(scope: Scope) -> str:
    ports = traffic(scope.protocol, scope.source_ports, scope.destination_ports)
    what = "all traffic" if ports == "any" else ports
    return f"{network(scope.source)} -> {network(scope.destination)}, {what}"


def _consequences(flow: Flow, rule: Rule, settings: Settings, nat: Nat) -> Iterator[str]:
    yield from _verdict(flow, rule, settings, nat)
    yield from _ports(flow, rule, settings)


def _verdict(flow: Flow, rule: Rule, settings: Settings, nat: Nat) -> Iterator[str]:
    match rule.category:
        case Category.DENY:
            yield (
                "It is dropped, and its sender told so by ICMP." if rule.icmp else "It is dropped."
            )
        case Category.PERMIT:
            yield "It passes in clear."
        case Category.CONFIGURED:
            peer = settings.peers[rule.name]
            yield f"It goes through a tunnel with {peer_text(peer)} and never in clear."
            if peer.address is None:
                yield "The peer has to begin: until then it is dropped."
        case Category.OPPORTUNISTIC:
            clear = rule.on_failure is OnFailure.CLEAR and not rule.protected
            other = "passes in clear" if clear else "is dropped"
            if not rule.initiate:
                yield f"It {other}, unless the far side has begun a tunnel: we begin none."
                return
            if settings.decision_points:
                names = ", ".join(point.name for point in settings.decision_points)
                yield f"It waits while these decision points are asked: {names}."
                yield "The first that has an opinion decides; else it is as follows."
            if reason := nat.objection(flow.source, settings.dns.local_reverse):
                yield f"No tunnel can be had: {reason}. It {other}."
                return
            if _is_not_asked(flow, settings):
                yield "The destination is not a public address, so the DNS is not asked."
                yield f"It {other}."
                return
            name = reverse_name(flow.destination)
            kinds = " or ".join(kind.upper() for kind in settings.dns.records)
            yield f"It waits while a {kinds} record at {name} is looked up."
            yield "If a gateway that the record names agrees, it goes through a tunnel."
            yield from _demands(rule, settings)
            warning = "; after a malformed record it is dropped" if clear else ""
            yield f"If not, it {other}{warning}."


def _ports(flow: Flow, rule: Rule, settings: Settings) -> Iterator[str]:
    """Where ports are encrypted, and what happens if they can't be."""
    if rule.category is Category.DENY:
        return
    required = rule.sst_strength is SstStrength.REQUIRED
    if not settings.encrypts_ports:
        if rule.sst is not Sst.OFF:
            yield "Its ports are not encrypted: sst.enabled is false."
        return
    if flow.protocol not in SEALED_PROTOCOLS and rule.sst is not Sst.OUTER:
        if rule.sst is not Sst.OFF:
            dropped = required and rule.sst is Sst.ONLY and flow.protocol in PORTED_PROTOCOLS
            then = ": what would leave without a tunnel is dropped" if dropped else ""
            name = protocol_name(flow.protocol)
            yield f"{name} is not a protocol whose ports are encrypted{then}."
        return
    peer = "a peer that can't do it has no tunnel with us" if required else "if the peer can"
    match rule.sst:
        case Sst.INNER:
            yield f"In the tunnel its ports are encrypted as well: {peer}."
        case Sst.OUTER:
            yield f"Around the tunnel the ports of IKE and ESP in UDP are encrypted: {peer}."
        case Sst.ONLY:
            yield (
                "What leaves without a tunnel has its ports encrypted, and nothing else, with the "
                "key that the destination publishes; "
                + ("if that can't be had it is dropped." if required else "if there is one.")
            )
        case Sst.OFF if settings.sst.requests and not rule.protected:
            yield (
                "If its sender asks, its ports are encrypted where it leaves in clear"
                + ("; if that can't be had it is dropped." if required else ", if that can be had.")
            )


def _demands(rule: Rule, settings: Settings) -> Iterator[str]:
    """What is demanded of the records, and whether that can be had at all."""
    if rule.require is Require.SECURE:
        yield "DNSSEC has to vouch for the record, and for all else that the tunnel rests on."
        resolvers = settings.dns.resolvers
        if resolvers and not any(trust_in(each, settings.dns.trusted)[0] for each in resolvers):
            servers = ", ".join(map(str, resolvers))
            yield (
                f"It never does: none of the resolvers ({servers}) is on this box or in "
                "dns.trusted, so that every record counts as insecure."
            )
    if settings.dns.unsigned_delegation is UnsignedDelegation.SELF:
        yield "A record that is not signed may name the destination itself only."


def _is_not_asked(flow: Flow, settings: Settings) -> bool:
    address = flow.destination
    served = any(
        address.version == local.version and address in local
        for local in settings.dns.local_reverse
    )
    return never_public(address) and not served
