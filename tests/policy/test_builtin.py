"""The exemptions, and what the public DNS is never asked for."""

from ipaddress import ip_address, ip_network

import pytest

from policy.builtin import all_never_public, builtin_rules, never_public
from policy.errors import PolicyError
from policy.rule import Category, PortRange


def test_built_ins_are_permit_rules_that_say_what_they_are():
    rules = builtin_rules([ip_network("192.1.1.0/24"), ip_network("2001:db8:1:1::/64")])
    assert all(rule.builtin and rule.category is Category.PERMIT for rule in rules)
    names = [rule.name for rule in rules]
    assert len(set(names)) == len(names)
    assert "built-in: directly attached network 192.1.1.0/24" in names
    assert "built-in: directly attached network 2001:db8:1:1::/64" in names
    assert {"built-in: DHCP", "built-in: DHCPv6"} <= set(names)


def test_dhcp_is_exempt_between_its_own_ports_only():
    ports = {
        rule.name: (rule.protocol, rule.source_ports, rule.destination_ports)
        for rule in builtin_rules()
        if rule.protocol is not None
    }
    assert ports == {
        "built-in: DHCP": (17, PortRange(67, 68), PortRange(67, 68)),
        "built-in: DHCPv6": (17, PortRange(546, 547), PortRange(546, 547)),
    }


def test_a_network_that_is_attached_twice_or_exempt_already_is_one_rule():
    network = ip_network("192.1.1.0/24")
    link_local = ip_network("fe80::/10")
    assert len(builtin_rules([network, network, link_local])) == len(builtin_rules()) + 1


def test_everything_can_not_be_attached():
    with pytest.raises(PolicyError, match=r"0\.0\.0\.0/0 can't be a directly attached"):
        builtin_rules([ip_network("0.0.0.0/0")])


@pytest.mark.parametrize(
    "address",
    ["0.1.2.3", "10.1.2.3", "100.64.0.1", "100.127.255.255", "127.0.0.1", "169.254.9.9",
     "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.2.1", "192.168.1.1", "198.18.0.1",
     "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.1.2.3", "240.0.0.1",
     "255.255.255.255", "::", "::1", "::ffff:8.8.8.8", "64:ff9b:1::1", "100::1", "2001::1",
     "2001:2::1", "2001:10::1", "2001:db8::1", "3fff::1", "5f00::1", "fc00::1", "fd12::1",
     "fe80::1", "fec0::1", "ff02::1", "ff0e::1", "4000::1"],
)  # fmt: skip
def test_private_and_reserved_addresses_are_never_public(address):
    assert never_public(ip_address(address))


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0",
     "172.15.255.255", "172.32.0.0", "192.0.0.9", "192.0.0.10", "192.0.1.0", "192.1.0.65",
     "198.17.255.255", "198.20.0.0", "223.255.255.255", "64:ff9b::808:808", "2001:200::1",
     "2001:1::1", "2001:4:112::1", "2001:20::1", "2001:30::1", "2001:db9::1", "2606:4700::1111",
     "2a00::1", "3ffe:ffff::1"],
)  # fmt: skip
def test_other_addresses_are_public(address):
    assert not never_public(ip_address(address))


@pytest.mark.parametrize(
    ("network", "private"),
    [
        ("10.0.0.0/8", True),
        ("192.168.7.0/24", True),
        ("192.168.0.0/15", False),
        ("0.0.0.0/0", False),
        ("192.0.0.0/24", False),
        ("192.1.0.0/24", False),
        ("fc00::/7", True),
        ("2001:db8:1::/48", True),
        ("2001::/16", False),
        ("::/0", False),
    ],
)
def test_networks_of_which_no_address_is_public(network, private):
    assert all_never_public(ip_network(network)) is private
