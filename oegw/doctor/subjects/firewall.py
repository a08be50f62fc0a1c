"""Firewalls of others: what they drop of ours, what they overlook, what they wipe away."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from oegw.doctor.facts import Facts
from oegw.doctor.filtering import Chain, ChainName, Packet, dropping
from oegw.doctor.finding import PROBLEM, WARNING, Finding, Kind, Shell
from oegw.doctor.firewalls import FIREWALLD, chains_of, has_chain

DOCKER = Kind(
    "docker-drops-forwarded",
    PROBLEM,
    "Docker has made the kernel drop forwarded packets that are not its containers'",
    "packets of hosts behind this box end here, encrypted or not",
    "{mend}",
)
UFW = Kind(
    "ufw-drops-forwarded",
    PROBLEM,
    "ufw drops forwarded packets",
    "packets of hosts behind this box end here, encrypted or not",
    "{mend}",
)
FIREWALLD_ZONE = Kind(
    "firewalld-without-zone",
    WARNING,
    "firewalld runs, and the tunnel's device is in none of its zones",
    "what comes out of a tunnel is treated by the default zone, which mostly rejects it",
    'firewall-cmd --permanent --zone="$(firewall-cmd --get-zone-of-interface={outside})" '
    "--add-interface={tunnel} && firewall-cmd --reload",
)
DROPPED = Kind(
    "forwarded-dropped",
    PROBLEM,
    "a firewall of this box drops what hosts behind it send, or the answers to it",
    "their packets end here, encrypted or not",
    "{mend}",
)
GAP = Kind(
    "firewall-gap",
    WARNING,
    "a firewall judges packets from an outside interface, and does not name the tunnel's device",
    "strangers' packets pass it unseen when they come through a tunnel, or are stopped by accident",
    "{mend}",
)
FLUSHES = Kind(
    "nftables-conf-flushes",
    WARNING,
    "the nftables service empties all rules whenever it starts, ours too",
    "from then on protected traffic leaves in clear",
    "sed -i 's/^flush ruleset/#&/' {file}",
)
OFFLOAD = Kind(
    "flow-offload",
    PROBLEM,
    "flows are handed to a flow table, which moves their packets past all rules",
    "a flow that began in clear goes on in clear, whatever the policy says by then",
    "nft delete rule {family} {table} {chain} handle {place}",
)
KINDS = (DOCKER, UFW, FIREWALLD_ZONE, DROPPED, GAP, FLUSHES, OFFLOAD)


def look(facts: Facts) -> Iterator[Finding]:
    host = facts.host()
    if host.flushing:
        yield FLUSHES.found(f"{host.flushing} says flush ruleset", file=host.flushing)
    for rule in facts.nftables().flow_rules():
        name = rule.name
        yield OFFLOAD.found(
            f"{name} hands flows to flow table {rule.table}",
            family=name.family, table=name.table, chain=name.chain, place=rule.place,
        )  # fmt: skip
    tunnel = facts.settings.datapath.tunnel_interface
    firewalld = FIREWALLD in facts.nftables().tables
    if firewalld and not facts.nftables().names_interface(FIREWALLD, tunnel):
        outside = facts.environment.outside[0]
        what = f"its table does not name {tunnel}"
        yield FIREWALLD_ZONE.found(what, tunnel=tunnel, outside=outside)
    yield from _forwarded(facts, tunnel)
    for gap in facts.gaps():
        if (gap.family, gap.table) != FIREWALLD:
            place = shlex.join((gap.family, gap.table, gap.chain))
            mend = Shell(_twice(place, gap.named, tunnel))
            yield GAP.found(str(gap), mend=mend)


def _forwarded(facts: Facts, tunnel: str) -> Iterator[Finding]:
    chains = chains_of(facts)
    found: dict[Chain, tuple[str, str]] = {}
    for link in facts.inside:
        for version in (4, 6):
            if not link.has(version):
                continue
            for ways in ((link.name, tunnel, "new"), (tunnel, link.name, "established")):
                incoming, outgoing, state = ways
                packet = Packet(version, "tcp", incoming, outgoing, 443, state=state)
                for chain in dropping(chains, "forward", packet):
                    found.setdefault(chain, (incoming, outgoing))
    for chain, (incoming, outgoing) in found.items():
        name = chain.name
        what = f"{name} drops what comes from {incoming} and leaves by {outgoing}"
        if name.program == "nft":
            if (name.family, name.table) == FIREWALLD:
                continue  # said with its own words
            place = f"{name.family} {name.table} {name.chain}"
            mend = " && ".join(
                f"nft insert rule {place} {way} {tunnel} accept" for way in ("iifname", "oifname")
            )
            yield DROPPED.found(what, mend=Shell(mend))
        elif has_chain(facts, "DOCKER-USER"):
            yield DOCKER.found(what, mend=_letting(name, "DOCKER-USER", tunnel))
        elif has_chain(facts, "ufw-"):
            mend = f"ufw route allow in on {tunnel} && ufw route allow out on {tunnel}"
            yield UFW.found(what, mend=Shell(mend))
        else:
            yield DROPPED.found(what, mend=_letting(name, name.chain, tunnel))


def _letting(name: ChainName, chain: str, tunnel: str) -> Shell:
    """What comes out of a tunnel, and what goes into one, is let by."""
    return Shell(
        " && ".join(
            f"{name.program} -I {chain} -{option} {tunnel} -j ACCEPT" for option in ("i", "o")
        )
    )


def _twice(place: str, named: tuple[str, ...], tunnel: str) -> str:
    """Each rule of the chain that names the outside interface, once more with the tunnel's."""
    outside = "\\|".join(named)
    return (
        f"nft -s -a list chain {place} | "
        f'sed -n \'s/^\\t*\\(.*\\)"\\({outside}\\)"\\(.*\\) # handle \\([0-9]*\\)$/'
        f'add rule {place} position \\4 \\1"{tunnel}"\\3/p\' | nft -f -'
    )
