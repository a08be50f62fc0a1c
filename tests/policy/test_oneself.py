"""Traffic to oneself is always permitted (and one policy serves all boxes of a mesh)."""

from ipaddress import ip_address, ip_network

import pytest

from policy.builtin import builtin_rules
from policy.flow import Flow
from policy.rule import Category, OnFailure, PortRange, Rule
from policy.table import PolicyTable

MEMBERS = [ip_address(f"192.2.0.{n}") for n in (1, 66, 67)]
MEMBERS6 = [ip_address(f"2001:db8:2::{n}") for n in (1, 66, 67)]
DEFAULT = Rule("default", Category.DENY)


def shared(**more):
    """The policy file that every member has: all members, each by its address."""
    members = tuple(ip_network(address) for address in (*MEMBERS, *MEMBERS6))
    return Rule("mesh", destination=members, **more)


POLICIES = [
    shared(category=Category.DENY),
    shared(category=Category.DENY, icmp=True),
    shared(category=Category.OPPORTUNISTIC, on_failure=OnFailure.DROP),
    shared(category=Category.OPPORTUNISTIC, initiate=False),
    shared(category=Category.CONFIGURED),
    shared(category=Category.OPPORTUNISTIC, protocol=6, destination_ports=PortRange(22, 22)),
]


@pytest.mark.parametrize("rule", POLICIES, ids=lambda rule: rule.category.value)
@pytest.mark.parametrize("members", [MEMBERS, MEMBERS6])
def test_each_member_permits_what_is_for_itself_and_nothing_more(rule, members):
    for own in members:
        table = PolicyTable((rule, *builtin_rules((), [own])), DEFAULT)
        for other in members:
            flow = Flow(members[0], other, 6, 40000, 22)
            found = table.lookup(flow).rule
            if other == own:
                assert found.category is Category.PERMIT
                assert found.name == "built-in: traffic to oneself"
            else:
                assert found is rule


def test_every_protocol_and_fragment_of_it_is_permitted():
    table = PolicyTable((shared(category=Category.DENY), *builtin_rules((), MEMBERS)), DEFAULT)
    for protocol in (1, 6, 17, 47, 50):
        for fragment in (False, True):
            ports = (1, 2) if protocol in (6, 17) and not fragment else (None, None)
            decision = table.lookup(Flow(MEMBERS[1], MEMBERS[0], protocol, *ports, fragment))
            assert decision.rule.category is Category.PERMIT
            assert decision.scope.destination == ip_network(MEMBERS[0])
            assert decision.cacheable


def test_a_rule_for_just_the_own_address_is_no_conflict_and_does_not_apply():
    """With the same selectors the user's rule precedes a built-in; not here."""
    mine = Rule("mine", Category.DENY, None, (ip_network("192.2.0.1"),))
    table = PolicyTable((mine, *builtin_rules((), MEMBERS[:1])), DEFAULT)
    assert table.lookup(Flow(MEMBERS[1], MEMBERS[0], 1)).rule.builtin


def test_dhcp_to_oneself_is_permitted_too():
    named = Rule(
        "named", Category.DENY, None, None, 17, PortRange(68, 68), PortRange(67, 67)
    )  # fmt: skip
    table = PolicyTable((named, *builtin_rules((), MEMBERS[:1])), DEFAULT)
    assert table.lookup(Flow(MEMBERS[1], MEMBERS[0], 17, 68, 67)).rule.builtin
    assert table.lookup(Flow(MEMBERS[1], MEMBERS[2], 17, 68, 67)).rule is named
