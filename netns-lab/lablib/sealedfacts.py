"""Facts about sealed ports: what a capture shows to one who has the keys, or has not."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import combinations, product
from typing import Any

from lablib import portkeys, sealed
from lablib.errors import LabError
from lablib.ff1 import Ff1
from lablib.lab import Lab
from lablib.pcap import UDP, Packet
from lablib.programs import filled_in
from lablib.sealed import NAMES, Candidate, Decoder, Ported
from lablib.stage import Missed, check_keys

PROBE_MAGIC = bytes.fromhex("b35c535354706264")
MOST_KEYS = 4  # that may explain the flows of two hosts
Service = tuple[int, int]  # protocol and port


def _services(names: list[str]) -> list[Service]:
    numbers = {name: number for number, name in NAMES.items()}
    return [(numbers[name.split()[0]], int(name.split()[1])) for name in names]


def _shown(service: Service) -> str:
    return f"{NAMES[service[0]]} {service[1]}"


def candidates(lab: Lab, gateways: list[str], days: set[int]) -> list[Candidate]:
    """The keys that two gateways may have had, from all key files of each that this run made."""
    files = [lab.port_key_files(gateway) for gateway in gateways]
    if len(files) != 2 or not all(files):
        raise LabError(f"sealed: there are no port keys of {' and '.join(gateways)}")
    result = []
    for one, other in product(*files):
        private, peer = portkeys.private_octets(one), portkeys.private_octets(other)
        public = portkeys.public_of(peer)
        secret = portkeys.x25519(private, public)
        for algorithm, day in product(portkeys.KEY_LENGTHS, (None, *sorted(days))):
            key = portkeys.port_key(secret, portkeys.public_of(private), public, algorithm, day)
            words = f"algorithm {algorithm}, {'no epoch' if day is None else f'day {day}'}"
            name = f"{one.stem} and {other.stem}, {words}"
            result.append(Candidate(name, algorithm, Ff1(key)))
    return result


def _between(lab: Lab, fact: dict[str, Any]) -> frozenset[Any]:
    return frozenset(lab.address(name) for name in fact["hosts"])


def _found(lab: Lab, link: str, pair: frozenset[Any], dscp: int | None) -> list[Ported]:
    """TCP and UDP packets between two hosts, but for probes of the path."""
    seen = (sealed.ported_packet(packet, dscp) for packet in lab.captured[link])
    return [
        one
        for one in seen
        if one is not None and one.pair == pair and not one.payload.startswith(PROBE_MAGIC)
    ]


def _quotes(lab: Lab, link: str, pair: frozenset[Any], dscp: int | None) -> Iterator[
    tuple[Packet, Ported]
]:  # fmt: skip
    for packet in lab.captured[link]:
        quote = sealed.quoted(packet, dscp)
        if quote is not None and quote.pair == pair:
            yield packet, quote


def is_sealed(lab: Lab, fact: dict[str, Any]) -> str:
    """Each TCP and UDP packet between two ``hosts`` on ``link`` is sealed, and right in all else.

    It is flagged, and its checksums are right.  With ``gateways``, whose port keys the lab knows:
    the ports open to one of ``services``, each of which is there, and ``keys`` (1) keys are enough
    for all flows.  With ``against``, a link where the same packets are in clear (or several: where
    packets are lost, either end of their way): each has its twin there, from which it differs in
    nothing but ports, checksums and flag; the same flow always has the same sealed ports, and its
    answers have them swapped.  ``returned``: so many ICMP errors at least quote such packets, and
    the quotes hold to all of this.  ``dscp``: what flags IPv4, in place of the reserved bit.
    In ``services``, ``tcp $PORT_x`` is a port that was remembered.
    ``flagged``: those that are not flagged are left out.  ``forms``: so many sealed ports, one
    after the other, a flow may have.
    """
    keys = {"link", "hosts", "gateways", "services", "against", "returned", "dscp", "keys"}
    check_keys(fact, {*keys, "flagged", "forms"})
    link, pair, dscp = fact["link"], _between(lab, fact), fact.get("dscp")
    found, quotes = _found(lab, link, pair, dscp), list(_quotes(lab, link, pair, dscp))
    if fact.get("flagged"):
        found = [one for one in found if one.flagged]
    if not found:
        raise Missed("no packet at all")
    if any(packet.cut for packet in lab.captured[link]):
        raise Missed("frames were captured in part only")
    _flags(found, [quote for _, quote in quotes])
    _checksums(found, quotes)
    services = _services([filled_in(lab, each) for each in fact["services"]])
    seen = [f"{len(found)} packets"]
    every = found + [quote for _, quote in quotes]
    clear: dict[Any, tuple[int, int]] = {}
    if "against" in fact:
        links = [fact["against"]] if isinstance(fact["against"], str) else fact["against"]
        unsealed = [one for each in links for one in _found_clear(lab, each, pair)]
        clear = _twins(found, unsealed, fact.get("forms", 1))
        seen.append(f"{len(clear)} flows as on {' and '.join(links)}")
    if "gateways" in fact:
        days = {int(packet.time // portkeys.SECONDS_A_DAY) for packet in lab.captured[link]}
        ahead = {0, lab.clock_days}
        days = {day + more + near for day in days for more in ahead for near in (-1, 0, 1)}
        decoder = Decoder(candidates(lab, fact["gateways"], days))
        opened, names = _opened(decoder, every, services, fact.get("keys", 1))
        for way, ports in clear.items():
            if opened[way] != ports:
                raise Missed(f"{way} opens to {opened[way]}, and was {ports} in clear")
        clear = opened
        seen.append(f"opened by {'; '.join(names)}")
    tally = _tally(found, clear, services)
    seen += [f"{n} packets of {_shown(service)}" for service, n in tally.items()]
    if len(quotes) < fact.get("returned", 0):
        raise Missed(f"{len(quotes)} ICMP errors about them")
    if quotes:
        seen.append(f"{len(quotes)} ICMP errors")
    return ", ".join(seen)


def _found_clear(lab: Lab, link: str, pair: frozenset[Any]) -> list[Ported]:
    return [one for one in _found(lab, link, pair, None) if not one.flagged]


def _flags(found: list[Ported], quotes: list[Ported]) -> None:
    bare = [one for one in found if not one.flagged]
    if bare:
        raise Missed(
            f"{len(bare)} of {len(found)} are not flagged: {'; '.join(map(str, bare[:3]))}"
        )
    bare = [one for one in quotes if not one.flagged]
    if bare:
        raise Missed(f"{len(bare)} quotes of {len(quotes)} are not flagged: {bare[0]}")


def _checksums(found: list[Ported], quotes: list[tuple[Packet, Ported]]) -> None:
    for one in found:
        if wrong := sealed.wrong_checksum(one):
            raise Missed(f"checksum of {wrong}: {one}")
    for packet, quote in quotes:
        if wrong := sealed.wrong_checksum(quote):
            raise Missed(f"checksum of {wrong} in the quote of {packet}: {quote}")
        if sealed.wrong_icmp_checksum(packet):
            raise Missed(f"ICMP checksum of {packet}")


def _twins(found: list[Ported], clear: list[Ported], forms: int) -> dict[Any, tuple[int, int]]:
    """For each sealed flow, by its way, the ports that it has in clear.

    Raises Missed for a packet that is not on the other link, or a flow that is not always the same.
    """
    likes: dict[bytes, set[tuple[int, int]]] = defaultdict(set)
    for one in clear:
        likes[sealed.likeness(one)].add((one.source_port, one.destination_port))
    flows: dict[Any, set[tuple[int, int]]] = {}
    for one in found:
        twins = likes.get(sealed.likeness(one))
        if not twins:
            raise Missed(f"not among the packets in clear: {one}")
        flows[one.way] = flows.get(one.way, twins) & twins
    for way, twins in flows.items():
        if not twins:
            raise Missed(f"not always the same flow: {way}")
    result = {way: next(iter(twins)) for way, twins in flows.items() if len(twins) == 1}
    ways: dict[Any, list[Any]] = defaultdict(list)
    for way, (source, destination) in result.items():
        ways[way[0], source, way[2], destination, way[4]].append(way)
    for real, sealed_ways in ways.items():
        if len(sealed_ways) > forms:
            raise Missed(f"{real} is sealed in {len(sealed_ways)} ways: {sealed_ways[:2]}")
        back = {(way[3], way[1]) for way in ways.get((*real[2:4], *real[:2], real[4]), ())}
        if back and not back & {(way[1], way[3]) for way in sealed_ways}:
            raise Missed(f"the answers of {real} are not sealed as it is, swapped")
    return result


def _opened(
    decoder: Decoder, found: list[Ported], services: list[Service], most: int
) -> tuple[dict[Any, tuple[int, int]], list[str]]:
    """The ports behind each flow, and by which keys; no more keys than ``most``."""
    explained: dict[Any, dict[str, tuple[int, int]]] = {}
    for one in found:
        if one.way not in explained:
            explained[one.way] = {
                name: ports
                for name, ports in decoder.opened(one).items()
                if any((one.protocol, port) in services for port in ports)
            }
            if not explained[one.way]:
                raise Missed(f"opens to no such service with any key: {one}")
    names = sorted({name for ports in explained.values() for name in ports})
    for count in range(1, most + 1):
        for chosen in combinations(names, count):
            if all(any(name in ports for name in chosen) for ports in explained.values()):
                if count < most:
                    raise Missed(f"only {count} keys were used: {'; '.join(chosen)}")
                return {
                    way: next(ports[name] for name in chosen if name in ports)
                    for way, ports in explained.items()
                }, list(chosen)
    raise Missed(f"{most} keys don't open all flows; those that open some: {'; '.join(names[:9])}")


def _tally(
    found: list[Ported], clear: dict[Any, tuple[int, int]], services: list[Service]
) -> Counter[Service]:
    """Packets by service; raises Missed for a service without any, or a packet without one."""
    tally: Counter[Service] = Counter()
    opening: Counter[Service] = Counter()
    for one in found:
        ports = clear.get(one.way)
        meant = [s for s in services if ports and s[0] == one.protocol and s[1] in ports]
        if not meant:
            raise Missed(f"belongs to no such service: {one}, in clear {ports}")
        tally[meant[0]] += 1
        if one.opening and ports and ports[1] == meant[0][1]:
            opening[meant[0]] += 1
    for service in services:
        if not tally[service]:
            raise Missed(f"no packet of {_shown(service)}")
        if service[0] != UDP and not opening[service]:
            raise Missed(f"no connection to {_shown(service)} from its first packet on")
    return tally


def in_clear(lab: Lab, fact: dict[str, Any]) -> str:
    """How many TCP and UDP packets on ``link`` are not flagged.

    Only those between ``hosts``, and with one of ``services``, if these are given; an ICMP error
    that quotes such a packet counts, too.
    """
    check_keys(fact, {"link", "hosts", "services", "dscp", "count", "at_least"})
    pair, dscp = _between(lab, fact) if "hosts" in fact else None, fact.get("dscp")
    services = _services(fact.get("services", []))
    found = []
    for packet in lab.captured[fact["link"]]:
        for one in (sealed.ported_packet(packet, dscp), sealed.quoted(packet, dscp)):
            if one is None or one.flagged or (pair is not None and one.pair != pair):
                continue
            if one.payload.startswith(PROBE_MAGIC):
                continue
            ends = {(one.protocol, one.source_port), (one.protocol, one.destination_port)}
            if not services or ends & set(services):
                found.append(one)
    if len(found) != fact.get("count", len(found)) or len(found) < fact.get("at_least", 0):
        raise Missed(f"{len(found)}: {'; '.join(map(str, found[:3]))}")
    return f"{len(found)} packets"


def flagged(lab: Lab, fact: dict[str, Any]) -> str:
    """How many TCP and UDP packets between ``hosts`` on ``link`` are flagged."""
    check_keys(fact, {"link", "hosts", "dscp", "count", "at_least"})
    found = _found(lab, fact["link"], _between(lab, fact), fact.get("dscp"))
    found = [one for one in found if one.flagged]
    if len(found) != fact.get("count", len(found)) or len(found) < fact.get("at_least", 0):
        raise Missed(f"{len(found)}: {'; '.join(map(str, found[:3]))}")
    return f"{len(found)} packets"
