"""Which clients are neighbours, by the kernel's own list of routes."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from oegw.moniker.firewall.attached import ipv4_routes, ipv6_routes, is_neighbour
from oegw.moniker.firewall.gatewaylink import neighbours
from tests.support.intercept_net import INSIDE, ON_LINK, PEER, PEER6, Net, within

# /proc/net/route and /proc/net/ipv6_route of a host with a router for part of its own network, a
# network that is refused, and a tunnel without routers as the default route of IPv6.
ROUTES = """Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT
eth0\t00000000\t0101010A\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t0001010A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
eth0\t8001010A\t0101010A\t0003\t0\t0\t0\tC0FFFFFF\t0\t0\t0
*\t0002010A\t00000000\t0201\t0\t0\t0\t00FFFFFF\t0\t0\t0
eth0\tzz
"""
NOWHERE = "0" * 32


def _six(network: str, length: str, router: str, flags: str, device: str) -> str:
    network, router = (f"{word:0<32}" for word in (network, router))
    return f"{network} {length} {NOWHERE} 00 {router} 00000400 00000001 00000000 {flags} {device}"


ROUTES6 = "\n".join(
    [
        _six("fd000001", "40", "", "00000001", "eth0"),
        _six("fe80", "40", "", "00000001", "eth0"),
        _six("", "00", "", "00000001", "tun0"),
        _six("fd000001" + "0" * 20 + "0009", "80", "fd000001", "00000003", "eth0"),
        "broken",
    ]
)


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        ("10.1.1.7", True),
        ("10.1.1.130", False),  # a router is in between
        ("10.1.2.7", False),
        ("192.2.0.1", False),
        ("fd00:1::7", True),
        ("fe80::1", True),
        ("2001:db8::1", False),  # behind the default route, though that has no router
    ],
)
def test_neighbours_by_the_longest_route(client: str, expected: bool) -> None:
    routes = [*ipv4_routes(ROUTES), *ipv6_routes(ROUTES6)]
    assert is_neighbour(ip_address(client), routes) is expected


def test_a_route_for_one_host_is_longer() -> None:
    (route,) = [r for r in ipv6_routes(ROUTES6) if r.network.prefixlen == 128]
    assert not route.direct
    assert not is_neighbour(route.network.network_address, ipv6_routes(ROUTES6))


@pytest.fixture
def net() -> Iterator[Net]:
    with Net() as net:
        yield net


@pytest.mark.netns
def test_as_this_kernel_has_them(net: Net) -> None:
    def seen() -> list[bool]:
        return [
            neighbours(ip_address(each))
            for each in (ON_LINK, "fd00:2::2", INSIDE, PEER, PEER6, "fe80::1")
        ]

    assert within(net.gateway, seen) == [True, True, True, False, False, True]
