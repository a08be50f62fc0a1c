"""What must be true after the steps: of the status, the traces and the captures.

A fact is a table with ``kind`` and the arguments of the function of that name
below.  The functions return what was seen and raise `Missed` if that is not
what is expected.
"""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Callable, Iterable
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

from lablib import (
    auditfacts,
    crossing,
    lifetimes,
    matrix,
    monikerfacts,
    nameservers,
    sealedfacts,
    socksfacts,
)
from lablib.errors import LabError
from lablib.lab import Lab
from lablib.pcap import Packet
from lablib.stage import Missed, check_keys
from lablib.steps import PING_PATTERN
from lablib.traces import matches, meant, plain, told_by
from lablib.webserver import FILE_LINE

# What may pass between the sites in an encrypted scenario, and what beside it on the public link.
PROTECTED = ("esp", "udp-esp", "ike", "keepalive")
HOUSEKEEPING = {"arp", "neighbour discovery", "multicast listener report"}


def within(number: int, fact: dict[str, Any]) -> bool:
    """Whether a number is as ``count``, ``at_least`` and ``at_most`` say; one must be there."""
    if not fact.keys() & {"count", "at_least", "at_most"}:
        raise LabError(f"{fact['kind']}: give count, at_least or at_most")
    least, most = fact.get("at_least", 0), fact.get("at_most", number)
    return number == fact.get("count", number) and bool(least <= number <= most)


def events(lab: Lab, fact: dict[str, Any]) -> str:
    """The trace of ``gateway`` has ``events`` in this order, others may be between them."""
    check_keys(fact, {"gateway", "events"})
    remaining = iter(told_by(lab, fact["gateway"]))
    for position, pattern in enumerate(fact["events"]):
        if not any(matches(lab, event, pattern) for event in remaining):
            before = fact["events"][position - 1] if position else "the start"
            raise Missed(f"no {pattern!r} after {before!r}")
    return f"{len(fact['events'])} events in order"


def count(lab: Lab, fact: dict[str, Any]) -> str:
    """How often an ``event`` is in the trace of ``gateway``."""
    check_keys(fact, {"gateway", "event", "count", "at_least", "at_most"})
    found = [e for e in told_by(lab, fact["gateway"]) if matches(lab, e, fact["event"])]
    if not within(len(found), fact):
        raise Missed(f"{len(found)} times")
    return f"{len(found)} times"


def status(lab: Lab, fact: dict[str, Any]) -> str:
    """A connection of ``gateway`` between hosts or prefixes: its fields, or its absence."""
    check_keys(fact, {"gateway", "source", "destination", "where", "absent"})
    ends = [
        fact[end] if "/" in fact[end] else str(lab.address(fact[end]))
        for end in ("source", "destination")
    ]
    rows = [
        row
        for row in lab.gateways[fact["gateway"]].status()["connections"]
        if [plain(row["source"]), plain(row["destination"])] == ends
    ]
    if fact.get("absent"):
        if rows:
            raise Missed(f"there is one, {rows[0]['state']}")
        return "none"
    wanted = fact.get("where", {})
    for row in rows:
        row = {**row, "state": str(row["state"]).lower()}
        if all(fnmatch.fnmatchcase(plain(row.get(k)), meant(lab, v)) for k, v in wanted.items()):
            return ", ".join(f"{key} {row.get(key)}" for key in wanted)
    seen = [{key: row.get(key) for key in wanted} for row in rows]
    raise Missed(f"{seen or 'no such connection'}")


def counter(lab: Lab, fact: dict[str, Any]) -> str:
    """The sum of the counters of ``gateway`` whose name is like ``name``."""
    check_keys(fact, {"gateway", "name", "count", "at_least", "at_most"})
    counters = lab.gateways[fact["gateway"]].status()["counters"]
    total = sum(n for name, n in counters.items() if fnmatch.fnmatchcase(name, fact["name"]))
    if not within(total, fact):
        raise Missed(f"{total}; the counters are {counters}")
    return str(total)


def packets(lab: Lab, fact: dict[str, Any]) -> str:
    """Packets on ``link`` with these outermost addresses, both ways unless ``oneway``.

    ``source`` or ``destination`` may be left out: then it is any.  ``type``:
    only packets of that kind (esp, ike, dns, echo request, ...), and of ESP only ``in`` "ip" or
    "udp".  ``ports``: only with one of them.
    """
    check_keys(
        fact,
        {
            "link",
            "source",
            "destination",
            "oneway",
            "type",
            "in",
            "ports",
            "count",
            "at_least",
            "at_most",
        },
    )
    source, destination = (
        lab.address(fact[end]) if end in fact else None for end in ("source", "destination")
    )

    def is_meant(packet: Packet) -> bool:
        forward = source in (None, packet.source) and destination in (None, packet.destination)
        back = source in (None, packet.destination) and destination in (None, packet.source)
        if "ports" in fact and not {packet.first, packet.second} & set(fact["ports"]):
            return False
        return packet.source is not None and (forward or (back and not fact.get("oneway")))

    found = [
        packet
        for packet in lab.captured[fact["link"]]
        if is_meant(packet) and packet.is_a(fact.get("type", packet.kind), fact.get("in", ""))
    ]
    if not within(len(found), fact):
        examples = "; ".join(map(str, found[:3]))
        raise Missed(f"{len(found)} packets{': ' + examples if examples else ''}")
    return f"{len(found)} packets"


def _networks(*texts: str) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(ip_network(text) for text in texts)


SITE_A = _networks(
    *("192.1.0.0/24", "192.3.0.0/24", "192.1.1.4/32", "192.1.1.6/32"),
    *("192.168.0.0/24", "192.1.1.7/32", "192.1.1.8/32"),  # behind a NAT, or elsewhere than before
    *("2001:db8:1:0::/64", "2001:db8:3:0::/64", "2001:db8:1:1::4/128", "2001:db8:1:1::6/128"),
)
SITE_B = _networks("192.2.0.0/24", "192.1.1.5/32", "2001:db8:2:0::/64", "2001:db8:1:1::5/128")


def _site(packet: Packet, end: str) -> str:
    """Which site an address of a packet belongs to: a, b, or none (empty)."""
    address = packet.source if end == "source" else packet.destination
    if address is None:
        return ""
    if any(address in network for network in SITE_A):
        return "a"
    return "b" if any(address in network for network in SITE_B) else ""


def between_sites(found: Iterable[Packet]) -> list[Packet]:
    """The packets that went from one site (its gateways included) to the other."""
    sites: dict[tuple[Any, Any], bool] = {}  # a capture has many packets of few pairs
    result = []
    for packet in found:
        pair = (packet.source, packet.destination)
        if pair not in sites:
            sites[pair] = {_site(packet, "source"), _site(packet, "destination")} == {"a", "b"}
        if sites[pair]:
            result.append(packet)
    return result


def encrypted(lab: Lab, fact: dict[str, Any]) -> str:
    """Each packet between the two sites on ``link`` is IKE or ESP, and there is ESP.

    ``in`` says in what all ESP is: "ip" (protocol 50) or "udp" (RFC 3948).  With ``returned``
    there may be ICMP errors about IKE and ESP, because somebody was not there for a while.
    """
    check_keys(fact, {"link", "in", "returned"})
    allowed = {*PROTECTED, *NEIGHBOURS, *({"returned"} if fact.get("returned") else ())}
    found = between_sites(lab.captured[fact["link"]])
    kinds = Counter(p.kind for p in found)
    others = [p for p in found if p.kind not in allowed]
    if others:
        raise Missed(f"{len(others)} others: {'; '.join(map(str, others[:3]))}")
    esp = {"esp", "udp-esp"} if "in" not in fact else {"udp-esp" if fact["in"] == "udp" else "esp"}
    if not any(kinds[kind] for kind in esp):
        raise Missed(f"no {' or '.join(sorted(esp))} at all")
    for kind in {"esp", "udp-esp"} - esp:
        if kinds[kind]:
            raise Missed(f"{kinds[kind]} packets are {kind}")
    return ", ".join(f"{kinds[k]} {k}" for k in (*PROTECTED, "returned") if kinds[k]) + ", no other"


# Gateways on one link find each other's hardware address; over IPv6 that is an IP packet.
NEIGHBOURS = {"neighbour discovery"}


def asks_resolver(lab: Lab, packet: Packet) -> bool:
    """Whether it is a question to the lab's resolver or its answer."""
    resolver = {str(lab.topology.address("dns", family)) for family in (4, 6)}
    return packet.kind == "dns" and bool({str(packet.source), str(packet.destination)} & resolver)


def same_tunnel(lab: Lab, fact: dict[str, Any]) -> str:
    """Each pair of ``hosts`` (or of their crowds) has one tunnel, the same on both ``gateways``.

    Instead of host names there may be the two prefixes of a configured tunnel.
    """
    check_keys(fact, {"gateways", "hosts", "crowd"})
    if fact.get("crowd"):
        pairs = [(str(one), str(other)) for one, other in crossing.pairs_of(lab, fact["hosts"])]
    else:
        one, other = (h if "/" in h else str(lab.address(h)) for h in fact["hosts"])
        pairs = [(one, other)]
    amiss = crossing.complaints(*crossing.statuses(lab, fact["gateways"]), pairs)
    if amiss:
        raise Missed("; ".join(amiss[:4]))
    return f"{len(pairs)} pair{'s' if len(pairs) > 1 else ''}, one tunnel each"


def no_addresses(lab: Lab, fact: dict[str, Any]) -> str:
    """No packet on ``link`` has one of ``hosts`` as its source or destination."""
    check_keys(fact, {"link", "hosts"})
    inner = {str(lab.topology.address(h, family)) for h in fact["hosts"] for family in (4, 6)}
    bad = [p for p in lab.captured[fact["link"]] if {str(p.source), str(p.destination)} & inner]
    if bad:
        raise Missed(f"{len(bad)} packets: {'; '.join(map(str, bad[:3]))}")
    return f"none of {len(lab.captured[fact['link']])} packets"


def payload_needles() -> list[bytes]:
    """Octets that any packet of a ping or of a download contains in clear."""
    doubled = PING_PATTERN * 2
    turned = [doubled[at : at + 16] for at in range(16)]  # ping may start within the pattern
    return [*turned, FILE_LINE.split(b",")[0]]


def no_payload(lab: Lab, fact: dict[str, Any]) -> str:
    """No payload of ping or download is in clear on ``link``; but it is on ``but_on``.

    The second link shows that the search would find what it looks for.
    """
    check_keys(fact, {"link", "but_on"})
    needles = payload_needles()

    def holding(link: str) -> list[Packet]:
        return [p for p in lab.captured[link] if any(needle in p.frame for needle in needles)]

    cut = [p for p in lab.captured[fact["link"]] if p.cut]
    if cut:
        raise Missed(f"{len(cut)} frames were captured in part only: {cut[0]}")
    if not holding(fact["but_on"]):
        raise Missed(f"not even on {fact['but_on']}: nothing to compare with")
    bad = holding(fact["link"])
    if bad:
        raise Missed(f"in {len(bad)} packets: {'; '.join(map(str, bad[:3]))}")
    return f"in none here, in {len(holding(fact['but_on']))} packets on {fact['but_on']}"


def housekeeping(lab: Lab, fact: dict[str, Any]) -> str:
    """Beside the sites' IKE and ESP, ``link`` has only ARP, neighbour discovery and DNS.

    The DNS must be between the resolver and a gateway, or a host of ``askers``.
    """
    check_keys(fact, {"link", "askers"})
    found = lab.captured[fact["link"]]
    between = {id(p) for p in between_sites(found) if p.kind in PROTECTED}
    askers = {
        str(lab.topology.address(name, family)): name
        for name in (*lab.gateways, *fact.get("askers", ()))
        for family in (4, 6)
    }
    tally: Counter[str] = Counter()
    others = []
    for packet in found:
        if id(packet) in between:
            continue
        who = {askers.get(str(packet.source)), askers.get(str(packet.destination))} - {None}
        if asks_resolver(lab, packet) and who:
            tally[f"DNS of {who.pop()} with the resolver"] += 1
        elif packet.kind in HOUSEKEEPING:
            tally[packet.kind] += 1
        else:
            others.append(packet)
    if others:
        raise Missed(f"{len(others)} others: {'; '.join(map(str, others[:3]))}")
    return ", ".join(f"{n} {kind}" for kind, n in sorted(tally.items())) or "nothing"


FACTS: dict[str, Callable[[Lab, dict[str, Any]], str]] = {
    "events": events,
    "count": count,
    "status": status,
    "counter": counter,
    "packets": packets,
    "encrypted": encrypted,
    "same-tunnel": same_tunnel,
    "matrix": matrix.outcomes,
    "all-answered": lifetimes.all_answered,
    "no-addresses": no_addresses,
    "no-payload": no_payload,
    "housekeeping": housekeeping,
    "sealed": sealedfacts.is_sealed,
    "in-clear": sealedfacts.in_clear,
    "flagged": sealedfacts.flagged,
    "asked-and-connected": monikerfacts.asked_and_connected,
    "port-unseen": monikerfacts.unseen,
    "not-amplified": monikerfacts.not_amplified,
    "sealed-questions": monikerfacts.sealed_questions,
    "socks-headers": socksfacts.udp_headers,
    "resolver": nameservers.resolver,
    "said": nameservers.said,
    "audit": auditfacts.audit,
    "mode": auditfacts.mode,
}


def title(fact: dict[str, Any]) -> str:
    """One line that says what is claimed."""
    if "text" in fact:
        return str(fact["text"])
    words = [f"{k} {v}" for k, v in fact.items() if k != "kind"]
    return f"{fact['kind']}: {', '.join(words)}"


def check(lab: Lab, fact: dict[str, Any]) -> str:
    """Check one fact.  Raises Missed, or LabError for a fact that can't be understood."""
    if fact.get("kind") not in FACTS:
        raise LabError(f"no fact of kind {fact.get('kind')!r}; there are {', '.join(FACTS)}")
    return FACTS[fact["kind"]](lab, fact)
