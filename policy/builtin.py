"""The exemptions that every gateway has, and the addresses that the public DNS can't know.

A built-in is an ordinary rule of category permit, and by the ordinary order a
rule of the user's for the same network or a part of it precedes it, while a
rule for a shorter prefix doesn't.  What DHCP needs beyond that, and what is for
the box itself, stands in `policy.order`.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Network

from policy.errors import PolicyError
from policy.flow import IPAddress, IPNetwork
from policy.order import MANAGEMENT_NAME, OWN_NAME, UDP
from policy.rule import Category, PortRange, Rule

_EXEMPT_NETWORKS: tuple[tuple[str, IPNetwork], ...] = (
    ("multicast", IPv4Network("224.0.0.0/4")),
    ("multicast", IPv6Network("ff00::/8")),
    ("limited broadcast", IPv4Network("255.255.255.255/32")),
    ("link-local", IPv4Network("169.254.0.0/16")),
    ("link-local", IPv6Network("fe80::/10")),
    ("loopback", IPv4Network("127.0.0.0/8")),
    ("loopback", IPv6Network("::1/128")),
)

# Both ports must be DHCP's own (RFC 2131 section 4.1, RFC 8415 section 7.2).
# One would do to recognise it, but then any program could choose that port and
# so send past the policy.
_DHCP: tuple[tuple[str, IPNetwork, PortRange], ...] = (
    ("DHCP", IPv4Network("0.0.0.0/0"), PortRange(67, 68)),
    ("DHCPv6", IPv6Network("::/0"), PortRange(546, 547)),
)


def builtin_rules(
    attached: Iterable[IPNetwork] = (),
    own: Iterable[IPAddress] = (),
    management: Iterable[IPNetwork] = (),
) -> tuple[Rule, ...]:
    """The exemptions of a gateway with ``own`` addresses on the directly ``attached`` networks,
    managed from ``management``.

    An attached network's own broadcast address is in that network.  Raises
    PolicyError for an attached network of length 0, which would exempt all.
    """
    rules = [_exemption(name, network) for name, network in _EXEMPT_NETWORKS]
    exempt = {network for _, network in _EXEMPT_NETWORKS}
    for network in dict.fromkeys(attached):
        if network.prefixlen == 0:
            raise PolicyError(f"{network} can't be a directly attached network: it is everything")
        if network not in exempt:
            rules.append(_exemption("directly attached network", network))
    for name, network, ports in _DHCP:
        rules.append(
            Rule(
                name=f"built-in: {name}",
                category=Category.PERMIT,
                destination=(network,),
                protocol=UDP,
                source_ports=ports,
                destination_ports=ports,
                origin="built in",
                builtin=True,
            )
        )
    itself = tuple(_host(address) for address in sorted(set(own), key=_family_and_number))
    if itself:
        rules.append(
            Rule(OWN_NAME, Category.PERMIT, None, itself, origin="built in", builtin=True)
        )  # fmt: skip
    managing = tuple(dict.fromkeys(management))
    for family in (4, 6):
        here = tuple(network for network in itself if network.version == family)
        there = tuple(network for network in managing if network.version == family)
        if here and there:
            rules.append(
                Rule(MANAGEMENT_NAME, Category.PERMIT, here, there, origin="built in", builtin=True)
            )
    return tuple(rules)


def _host(address: IPAddress) -> IPNetwork:
    if isinstance(address, IPv4Address):
        return IPv4Network((address, 32))
    return IPv6Network((address, 128))


def _family_and_number(address: IPAddress) -> tuple[int, int]:
    return address.version, int(address)


def _exemption(name: str, network: IPNetwork) -> Rule:
    return Rule(
        name=f"built-in: {name} {network}",
        category=Category.PERMIT,
        destination=(network,),
        origin="built in",
        builtin=True,
    )


# From the IANA IPv4 and IPv6 special-purpose address registries (RFC 6890): the
# blocks that aren't globally reachable, and those reachable blocks that are
# inside of one.
_RESERVED_IPV4 = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and limited broadcast
    )
)
_REACHABLE_IPV4 = (IPv4Network("192.0.0.9/32"), IPv4Network("192.0.0.10/32"))

# All of IPv6 outside 2000::/3 is reserved, private or local (RFC 4291 section
# 2.4), but for the well-known prefix of translators (RFC 6052).
_GLOBAL_IPV6 = (IPv6Network("2000::/3"), IPv6Network("64:ff9b::/96"))
_RESERVED_IPV6 = tuple(IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "3fff::/20"))
_REACHABLE_IPV6 = tuple(
    IPv6Network(text)
    for text in (
        "2001:1::1/128",
        "2001:1::2/128",
        "2001:1::3/128",
        "2001:3::/32",
        "2001:4:112::/48",
        "2001:20::/28",
        "2001:30::/28",
    )
)


def never_public(address: IPAddress) -> bool:
    """Whether a reverse name must not be asked of the public DNS.

    True for private, shared, local, documentation, multicast and reserved
    addresses: nobody can prove to be in charge of them, and the question
    itself would tell strangers about the network inside.
    """
    if isinstance(address, IPv4Address):
        return any(address in network for network in _RESERVED_IPV4) and not any(
            address in network for network in _REACHABLE_IPV4
        )
    if not any(address in network for network in _GLOBAL_IPV6):
        return True
    return any(address in network for network in _RESERVED_IPV6) and not any(
        address in network for network in _REACHABLE_IPV6
    )


def all_never_public(network: IPNetwork) -> bool:
    """Whether ``never_public`` is true of each address of a network."""
    if isinstance(network, IPv4Network):
        return any(network.subnet_of(reserved) for reserved in _RESERVED_IPV4) and not any(
            network.overlaps(reachable) for reachable in _REACHABLE_IPV4
        )
    if not any(network.overlaps(known) for known in _GLOBAL_IPV6):
        return True
    return any(network.subnet_of(reserved) for reserved in _RESERVED_IPV6) and not any(
        network.overlaps(reachable) for reachable in _REACHABLE_IPV6
    )
