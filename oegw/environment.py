"""What the box is like: interfaces, addresses, attached networks (pyroute2, read only)."""

from __future__ import annotations

import os
import socket
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface
from typing import Any

from pyroute2 import IPRoute

from oegw.intercept.interface import OWN_TABLE, InterceptError
from oegw.natsurvey import translating_rules
from policy.flow import IPAddress, IPNetwork

_SCOPE_UNIVERSE = 0  # rtnetlink(7): addresses valid everywhere
_UNICAST = 1  # rtnetlink(7): a type of routes

# Our choice: prefixes that are as good as a default route: the halves of all addresses that VPNs
# set, 2000::/3.
WIDE = 3


class UnsuitableBox(Exception):  # noqa: N818  (it names the fact)
    """The box lacks what the gateway needs; the message says what, and the key that mends it."""


@dataclass(frozen=True, slots=True)
class Environment:
    """``addresses``: the outer address of each family; ``own``: every address of the box;
    ``attached``: the networks on its links; ``translates``: rules that translate sources, as far as
    we may read them."""

    outside: tuple[str, ...]
    addresses: tuple[IPAddress, ...]
    own: frozenset[IPAddress]
    attached: tuple[IPNetwork, ...]
    translates: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Links:
    """``outside``: those by which routes lead to everywhere, where none are named; ``inside``: the
    addresses of all others, but loopback and those that are valid on their link only, each with its
    interface; ``families``: those that the box has."""

    names: frozenset[str]
    outside: tuple[str, ...]
    inside: tuple[tuple[str, IPAddress], ...]
    families: frozenset[int]


@dataclass(frozen=True, slots=True)
class _Found:
    names: dict[int, str]
    addresses: list[tuple[str, int, IPv4Interface | IPv6Interface]]  # interface, scope
    routed: tuple[str, ...]  # interfaces of default routes
    wide: tuple[str, ...]  # the same, of whatever leads to everywhere


def _read() -> _Found:
    """An interface that comes between two of the questions is seen the next time."""
    with IPRoute() as ipr:
        names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in ipr.get_links()}
        addresses = [
            (names[a["index"]], a["scope"], ip_interface(f"{_address_of(a)}/{a['prefixlen']}"))
            for a in ipr.get_addr()
            if a["index"] in names
        ]
        routed = {
            names[index]
            for family in (socket.AF_INET, socket.AF_INET6)
            for route in ipr.get_default_routes(family=family)
            if (index := route.get_attr("RTA_OIF")) in names
        }
        wide = {
            names[index]
            for family in (socket.AF_INET, socket.AF_INET6)
            for route in ipr.get_routes(family=family)
            if route["dst_len"] <= WIDE and route["type"] == _UNICAST
            for index in _ways_of(route)
            if index in names
        }
    return _Found(names, addresses, tuple(sorted(routed)), tuple(sorted(routed | wide)))


def _ways_of(route: Any) -> list[int]:
    """The interfaces by which a route leads: of a route with several ways each of them."""
    several = route.get_attr("RTA_MULTIPATH") or ()
    single = route.get_attr("RTA_OIF")
    return [each["oif"] for each in several] + ([] if single is None else [single])


def links(outside: tuple[str, ...], tunnel: str, once: Collection[str] = ()) -> Links:
    """What is inside and what outside; where nothing is known to be outside, nothing is inside.

    ``tunnel``: the gateway's own interface, whose routes say nothing of that.  ``once``: interfaces
    that were outside before.  Where none are named they still are: a default route may be lost, or
    go to another one, and what is public remains so.
    """
    found = _read()
    outside = outside or tuple(sorted({*found.wide, *once} - {tunnel}))
    inside = [
        (name, i.ip)
        for name, scope, i in found.addresses
        if outside and name not in outside and scope == _SCOPE_UNIVERSE and not i.ip.is_loopback
    ]
    return Links(
        frozenset(found.names.values()),
        outside,
        tuple(inside),
        frozenset(i.version for _, _, i in found.addresses),
    )


def interfaces_of(addresses: Collection[IPAddress]) -> tuple[str, ...]:
    """Those that have one of ``addresses``."""
    names = (name for name, _, interface in _read().addresses if interface.ip in addresses)
    return tuple(dict.fromkeys(names))


def survey(outside: tuple[str, ...], addresses: tuple[IPAddress, ...]) -> Environment:
    """Read the box's state; empty arguments are found out.

    Outside interfaces are those with a default route, outer addresses the
    first global one of each family on them.  Raises UnsuitableBox.
    """
    found = _read()
    names, on_links = found.names, found.addresses
    outside = outside or found.routed
    if not outside:
        raise UnsuitableBox(
            "no interface has a default route: name the outer ones in interfaces.outside"
        )
    for name in outside:
        if name not in names.values():
            raise UnsuitableBox(f"interfaces.outside: there is no interface {name!r}")
    own = frozenset(i.ip for _, _, i in on_links)
    if not addresses:
        for version in (4, 6):
            candidates = [
                i.ip
                for name, scope, i in on_links
                if name in outside and scope == _SCOPE_UNIVERSE and i.version == version
            ]
            addresses += tuple(candidates[:1])
    if not addresses:
        raise UnsuitableBox(f"no global address on {', '.join(outside)}: give gateway.addresses")
    for address in addresses:
        if address not in own:
            raise UnsuitableBox(f"gateway.addresses: {address} is not an address of this box")
    attached = tuple(
        dict.fromkeys(
            i.network
            for _, _, i in on_links
            if not i.ip.is_loopback
            and not i.ip.is_link_local
            and i.network.prefixlen < i.network.max_prefixlen
        )
    )
    translates: tuple[str, ...] = ()
    if os.geteuid() == 0:  # only root may read them, and libnftables tells others so on stderr
        with suppress(InterceptError):
            translates = translating_rules(OWN_TABLE)
    return Environment(outside, addresses, own, attached, translates)


def _address_of(message: dict[str, object]) -> str:
    get = message.get_attr  # type: ignore[attr-defined]  # a pyroute2 nlmsg
    return str(ip_address(get("IFA_LOCAL") or get("IFA_ADDRESS")))
