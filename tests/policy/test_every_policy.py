"""Every policy, for every kind of traffic, in both families: the whole grid."""

from ipaddress import ip_address, ip_network

import pytest

from oegw.intercept.ruleset import static_chains
from policy.builtin import builtin_rules
from policy.flow import Flow
from policy.rule import ANY_PORT, Category, OnFailure, PortRange, Rule
from policy.table import PolicyTable
from tests.support.nft_reader import verdict_of

SOURCE = {4: ip_address("192.1.0.65"), 6: ip_address("2001:db8:1::65")}
DESTINATION = {4: ip_address("192.2.0.66"), 6: ip_address("2001:db8:2::66")}
ELSEWHERE = {4: ip_address("192.9.0.1"), 6: ip_address("2001:db8:9::1")}
NETWORK = {4: ip_network("192.2.0.0/24"), 6: ip_network("2001:db8:2::/64")}

POLICIES = {
    "deny": {"category": Category.DENY},
    "deny with ICMP": {"category": Category.DENY, "icmp": True},
    "permit": {"category": Category.PERMIT},
    "opportunistic, clear": {"category": Category.OPPORTUNISTIC},
    "opportunistic, drop": {"category": Category.OPPORTUNISTIC, "on_failure": OnFailure.DROP},
    "accept only, clear": {"category": Category.OPPORTUNISTIC, "initiate": False},
    "accept only, drop": {
        "category": Category.OPPORTUNISTIC, "initiate": False, "on_failure": OnFailure.DROP,
    },
    "configured": {"category": Category.CONFIGURED},
}  # fmt: skip

# What a rule is for, then packets (protocol, source port, destination port) in it and out of it.
TRAFFIC = {
    "any": ((None, ANY_PORT, ANY_PORT), [(1,), (6, 9, 80), (17, 9, 53), (47,), (58,)], []),
    "icmp": ((1, ANY_PORT, ANY_PORT), [(1,)], [(6, 9, 80), (17, 9, 80), (58,)]),
    "tcp": ((6, ANY_PORT, ANY_PORT), [(6, 9, 80), (6, 1, 1)], [(17, 9, 80), (1,)]),
    "tcp to 80": ((6, ANY_PORT, PortRange(80, 80)), [(6, 9, 80)], [(6, 80, 81), (17, 9, 80), (1,)]),
    "udp to a range": (
        (17, ANY_PORT, PortRange(1000, 2000)), [(17, 9, 1000), (17, 9, 2000)],
        [(17, 9, 999), (17, 9, 2001), (17, 1500, 9), (6, 9, 1500)],
    ),
    "tcp from 25": ((6, PortRange(25, 25), ANY_PORT), [(6, 25, 9)], [(6, 9, 25)]),
    "sctp from and to": (
        (132, PortRange(5, 6), PortRange(7, 8)), [(132, 5, 8)], [(132, 7, 5), (132, 5, 9)],
    ),
    "a port of any protocol": (
        (None, ANY_PORT, PortRange(443, 443)), [(6, 9, 443), (17, 9, 443), (132, 9, 443)],
        [(6, 443, 9), (1,), (47,)],
    ),
}  # fmt: skip

# How the rest is treated: always otherwise than the rule, also in the kernel's chains.
OTHERWISE = {
    Category.PERMIT: Rule("rest", Category.OPPORTUNISTIC, on_failure=OnFailure.DROP),
    Category.DENY: Rule("rest", Category.PERMIT),
    Category.OPPORTUNISTIC: Rule("rest", Category.PERMIT),
    Category.CONFIGURED: Rule("rest", Category.PERMIT),
}


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("traffic", TRAFFIC)
@pytest.mark.parametrize("policy", POLICIES)
def test_rule_applies_to_its_traffic_in_table_and_kernel_alike(policy, traffic, family):
    (protocol, source_ports, destination_ports), inside, outside = TRAFFIC[traffic]
    rule = Rule(
        "it",
        destination=(NETWORK[family],),
        protocol=protocol,
        source_ports=source_ports,
        destination_ports=destination_ports,
        override=True,
        **POLICIES[policy],
    )
    table = PolicyTable((rule, *builtin_rules()), OTHERWISE[rule.category])
    packets = [(DESTINATION[family], packet, True) for packet in inside]
    packets += [(DESTINATION[family], packet, False) for packet in outside]
    packets += [(ELSEWHERE[family], packet, False) for packet in inside]
    chains = static_chains(table)
    guard = verdict_of(one(chains.guard, f"guard{family}"))
    refused = verdict_of(one(chains.refused, f"refused{family}"))
    for destination, packet, applies in packets:
        flow = Flow(SOURCE[family], destination, *packet)
        found = table.lookup(flow).rule
        assert (found is rule) is applies, flow
        assert guard(flow) == ("goto leak" if found.protected else "accept"), flow
        refusing = found.category is Category.DENY and found.icmp
        assert refused(flow) == ("goto refuse" if refusing else "return"), flow


def one(chains, name):
    """The text of one chain among several."""
    _, _, text = chains.partition(f"chain {name} {{")
    return f"  chain {name} {{" + text.partition("  }\n")[0] + "  }\n"
