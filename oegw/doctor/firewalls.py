"""The filtering of all firewalls on this box together, and how to let something by.  Pure."""

from __future__ import annotations

import shlex

from oegw.doctor.facts import Facts
from oegw.doctor.filtering import Chain, ChainName
from oegw.doctor.finding import Shell
from oegw.intercept.interface import OWN_TABLE

FIREWALLD = ("inet", "firewalld")


def chains_of(facts: Facts) -> dict[ChainName, Chain]:
    found = facts.nftables().chains(OWN_TABLE)
    for program in facts.iptables():
        found |= program.chains()
    return found


def has_chain(facts: Facts, prefix: str) -> str:
    """A chain of iptables that begins so, or an empty text: by these, who made them is known."""
    for program in facts.iptables():
        for table, chain in program.policies:
            if table == "filter" and chain.startswith(prefix):
                return chain
    return ""


def allowing(
    facts: Facts, chain: ChainName, protocol: str, *, ports: tuple[int, ...] = (), icmp: str = ""
) -> Shell:
    """The command that lets such packets in, in the language of who drops them."""
    if (chain.family, chain.table) == FIREWALLD:
        service = "--add-service=ipsec" if not icmp else f"--remove-icmp-block={icmp}"
        return Shell(f"firewall-cmd --permanent {service} && firewall-cmd --reload")
    if chain.program == "nft":
        what = f"meta l4proto {protocol}"
        if icmp:
            what = f"{protocol} type {icmp}"
        elif ports:
            what = f"{protocol} dport {{ {', '.join(map(str, ports))} }}"
        rule = f"{chain.family} {chain.table} {chain.chain} {what} accept"
        return Shell(f"nft insert rule {shlex.quote(rule)}")
    if ports and has_chain(facts, "ufw-"):
        return Shell(" && ".join(f"ufw allow {port}/{protocol}" for port in ports))
    words = f"-p {protocol}"
    if ports:
        words += f" -m multiport --dports {','.join(map(str, ports))}"
    elif icmp:
        words += f" --{'icmpv6' if protocol == 'icmpv6' else 'icmp'}-type {icmp}"
    return Shell(f"{chain.program} -I {chain.chain} {words} -j ACCEPT")
