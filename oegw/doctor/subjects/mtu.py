"""Sizes of packets: room outside for what is inside plus ESP, and the errors that tell it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from oegw.doctor.facts import Facts
from oegw.doctor.filtering import ChainName, Packet, dropping
from oegw.doctor.finding import WARNING, Finding, Kind
from oegw.doctor.firewalls import allowing, chains_of

SMALL = Kind(
    "outside-mtu-small",
    WARNING,
    "packets of 1280 octets, and ESP around them, don't fit through an outside interface",
    "IPv6 counts on 1280 octets (RFC 8200 section 5): what is as large is cut into fragments, "
    "which many firewalls drop",
    "ip link set dev {link} mtu 1500",
)
BLOCKED = Kind(
    "pmtu-blocked",
    WARNING,
    "a firewall of this box drops the ICMP errors that say that a packet was too large",
    "neither we nor hosts behind us learn what fits into a tunnel: connections begin and then hang",
    "{mend}",
)
OFF = Kind(
    "pmtu-off",
    WARNING,
    "the kernel does not find out what fits through a path",
    "our ESP packets are cut into fragments on the way, which many firewalls drop",
    "sysctl -w net/ipv4/ip_no_pmtu_disc=0",
)
KINDS = (SMALL, BLOCKED, OFF)

# RFC 8200 section 5, and what a tunnel adds: UDP, and ESP with the IV, the padding and the check
# value of AES-CBC with SHA-256, which are no shorter than those of AES-GCM.
LEAST = 1280
OVERHEAD = 8 + 8 + 16 + 17 + 16
_HEADERS = {4: 20, 6: 40}

_ERRORS = {4: ("icmp", "destination-unreachable"), 6: ("icmpv6", "packet-too-big")}


def look(facts: Facts) -> Iterator[Finding]:
    environment = facts.environment
    for link in facts.links():
        header = max((_HEADERS[version] for version in (4, 6) if link.has(version)), default=0)
        if link.name in environment.outside and link.mtu < LEAST + OVERHEAD + header:
            yield SMALL.found(f"{link.name} has an MTU of {link.mtu}", link=link.name)
    if facts.sysctls().get("net/ipv4/ip_no_pmtu_disc", "0") != "0":
        yield OFF.found("net.ipv4.ip_no_pmtu_disc is set")
    chains = chains_of(facts)
    found: dict[tuple[ChainName, int], None] = {}
    for outside in environment.outside:
        for version in sorted({each.version for each in environment.addresses}):
            protocol, error = _ERRORS[version]
            packet = Packet(version, protocol, outside, icmp=error, state="related")
            for chain in dropping(chains, "input", packet):
                found[chain.name, version] = None
            for link in facts.inside:
                through = replace(packet, outgoing=link.name)
                answer = Packet(version, "tcp", outside, link.name, 443, state="established")
                # One that drops answers as well is another finding.
                all_of_it = {chain.name for chain in dropping(chains, "forward", answer)}
                for chain in dropping(chains, "forward", through):
                    if chain.name not in all_of_it:
                        found[chain.name, version] = None
    for name, family in found:
        protocol, error = _ERRORS[family]
        yield BLOCKED.found(
            f"{name} drops {protocol} {error} that comes from outside",
            mend=allowing(facts, name, protocol, icmp=error),
        )
