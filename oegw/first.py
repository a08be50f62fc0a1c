"""The first configuration of a gateway: what of this box goes into it, and its text."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv6Address
from pathlib import Path

from dnsrecords.resolver import system_resolvers
from oegw.configfile import BadValue, address_of
from oegw.environment import Environment, UnsuitableBox, interfaces_of, links, survey
from oegw.settings import DatapathSettings
from policy.builtin import all_never_public
from policy.flow import IPAddress, IPNetwork

_FORWARDING = {
    4: ("net.ipv4.ip_forward", Path("/proc/sys/net/ipv4/ip_forward")),
    6: ("net.ipv6.conf.all.forwarding", Path("/proc/sys/net/ipv6/conf/all/forwarding")),
}
_IF_INET6 = Path("/proc/net/if_inet6")
_IFA_F_TEMPORARY = 1  # linux/if_addr.h
_ANCESTORS = 32  # processes between a login and this one, at most: our choice


@dataclass(frozen=True, slots=True)
class Found:
    """What the box is like.  ``routed``: default routes say which interfaces are outside;
    ``inside``: networks on its other interfaces; ``ssh``: who came by
    it, if anybody did; ``still``: what would have to be set for packets to be forwarded."""

    box: Environment
    inside: tuple[IPNetwork, ...]
    resolvers: tuple[IPAddress, ...]
    ssh: IPAddress | None
    still: tuple[str, ...]
    routed: bool = True

    @property
    def translated(self) -> tuple[IPNetwork, ...]:
        """Networks inside that leave by another address, as far as can be told from outside."""
        if not self.box.translates:
            return ()
        return tuple(network for network in self.inside if all_never_public(network))


@dataclass(frozen=True, slots=True)
class Choices:
    """What the operator says.  ``gateways``: empty if they are to be found out."""

    gateways: tuple[IPAddress, ...] = ()
    clients: tuple[IPAddress, ...] = ()
    management: tuple[IPNetwork, ...] = ()
    fqdn: str | None = None
    server: IPAddress | None = None
    tsig_key: Path | None = None


def look(gateways: tuple[IPAddress, ...]) -> Found:
    """What can be found out.  Raises UnsuitableBox and OSError."""
    routed = True
    try:
        box = survey((), gateways)
    except UnsuitableBox:
        there = interfaces_of(gateways)
        if not there:
            raise
        box, routed = survey(there, gateways), False
    if not gateways:
        lasting = tuple(address for address in box.addresses if address not in _temporary())
        box = replace(box, addresses=lasting or box.addresses)
    others = links(box.outside, DatapathSettings().tunnel_interface).inside
    inside = tuple(
        network
        for network in box.attached
        if any(address in network for _, address in others if address.version == network.version)
        and not any(address in network for address in box.addresses)
    )
    still = tuple(
        key
        for family, (key, path) in _FORWARDING.items()
        if any(address.version == family for address in box.addresses) and not _is_on(path)
    )
    ssh = ssh_client(_environments())
    return Found(box, inside, tuple(system_resolvers()), ssh, still, routed)


def _temporary() -> frozenset[IPAddress]:
    """IPv6 addresses that the kernel gives up again (RFC 8981): no record can name one."""
    try:
        rows = [line.split() for line in _IF_INET6.read_text().splitlines()]
    except OSError:
        return frozenset()
    return frozenset(
        IPv6Address(int(row[0], 16)) for row in rows if int(row[4], 16) & _IFA_F_TEMPORARY
    )


def _is_on(path: Path) -> bool:
    try:
        return path.read_text().strip() != "0"
    except OSError:
        return True  # not known: nothing is said


def ssh_client(environments: Iterator[Mapping[str, str]]) -> IPAddress | None:
    """Who came by ssh, by SSH_CONNECTION of this process or of the nearest one above."""
    for environment in environments:
        words = environment.get("SSH_CONNECTION", "").split()
        if words:
            try:
                address = address_of(words[0].partition("%")[0])
            except BadValue:
                return None
            return None if address.is_loopback or address.is_link_local else address
    return None


def _environments() -> Iterator[Mapping[str, str]]:
    """With which this process and those above were started: sudo hands on little of it."""
    process = os.getpid()
    for _ in range(_ANCESTORS):
        place = Path("/proc") / str(process)
        try:
            octets = (place / "environ").read_bytes()
            process = int((place / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return
        pairs = (line.partition(b"=") for line in octets.split(b"\0"))
        yield {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}
        if process <= 1:
            return


def clients_of(found: Found, choices: Choices) -> tuple[IPAddress, ...]:
    """Whose delegations are published: the gateway's own, and its hosts'."""
    return tuple(dict.fromkeys((*found.box.addresses, *choices.clients)))


def text_of(found: Found, choices: Choices, now: float) -> str:
    """The configuration."""
    return "\n".join(_lines(found, choices, now)) + "\n"


def _lines(found: Found, choices: Choices, now: float) -> Iterator[str]:
    addresses = _listed(found.box.addresses)
    yield f"# Written by oegw init on {time.strftime('%Y-%m-%d', time.localtime(now))}."
    yield "# After a change: oegw check, oegw apply --confirm 60, oegw confirm."
    yield "# Every key and its default: oegw docs configuration."
    yield "# More of it may stand in oegw.d/*.toml beside this file."
    yield "version = 1"
    yield ""
    yield "[gateway]"
    yield "# The outer addresses, which the records name."
    yield f"addresses = {addresses}"
    if choices.fqdn is not None:
        yield f'fqdn = "{choices.fqdn}"'
    yield 'private_key = "gateway.pem"'
    yield ""
    yield "[interfaces]"
    if found.routed:
        yield "# Towards the Internet; found out at each start by the default routes. Today:"
    yield f"{'# ' if found.routed else ''}outside = {_listed(found.box.outside)}"
    yield ""
    yield "[dns]"
    yield "# Those of /etc/resolv.conf are asked; one on this box should validate DNSSEC. Today:"
    yield f"# resolvers = {_listed(found.resolvers)}"
    yield ""
    yield "[management]"
    yield "# What they exchange with this box itself (ssh) passes in clear, whatever the rules say."
    if choices.management:
        yield f"addresses = {_listed(map(_short, choices.management))}"
    else:
        yield '# addresses = ["198.51.100.7", "203.0.113.0/24"]'
    yield ""
    yield "[publish]"
    yield "# Hosts that this gateway encrypts for, itself among them: their records say so."
    yield f"clients = {_listed(clients_of(found, choices))}"
    if choices.server is not None:
        yield f'server = "{choices.server}"'
    if choices.tsig_key is not None:
        yield f"tsig_key = {_quoted(str(choices.tsig_key.absolute()))}"
    yield ""
    for network in found.translated:
        yield "# This box translates their sources."
        yield "[[nat]]"
        yield f'inside = "{network}"'
        yield ""
    yield "# What no rule names: encrypted wherever the far side can, else in clear."
    yield "[default]"
    yield 'category = "opportunistic"'
    yield 'on_failure = "clear"'
    yield ""
    yield "# A rule for the traffic with one network; deny, permit, opportunistic or configured."
    yield "# [[rule]]"
    yield '# name = "branch"'
    yield '# category = "opportunistic"'
    yield '# destination = "192.2.0.0/24"'
    yield '# on_failure = "drop" # never in clear'


def _listed(values: Iterable[object]) -> str:
    return "[" + ", ".join(_quoted(str(value)) for value in values) + "]"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _short(network: IPNetwork) -> str:
    """A single address without its length."""
    one = network.prefixlen == network.max_prefixlen
    return str(network.network_address if one else network)
