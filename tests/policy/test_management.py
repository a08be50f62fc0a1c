"""What a box exchanges with those who manage it is permitted, whatever the rules say."""

from ipaddress import ip_address, ip_network

import pytest

from policy.builtin import builtin_rules
from policy.flow import Flow
from policy.rule import Category, OnFailure, PortRange, Rule
from policy.table import PolicyTable

OWN = [ip_address("192.1.1.4"), ip_address("2001:db8:1:1::4")]
MANAGING = [ip_network("198.51.100.7/32"), ip_network("2001:db8:9::/48")]
PAIRS = [(OWN[0], ip_address("198.51.100.7")), (OWN[1], ip_address("2001:db8:9::8"))]
DEFAULT = Rule("default", Category.DENY)
RULES = [
    Rule("all", Category.OPPORTUNISTIC, on_failure=OnFailure.DROP),
    Rule("they", Category.CONFIGURED, None, tuple(MANAGING)),
    Rule("just", Category.DENY, (ip_network(OWN[0]),), (MANAGING[0],)),
    Rule("ssh", Category.DENY, protocol=6, source_ports=PortRange(22, 22)),
    Rule("named", Category.DENY, None, None, 17, PortRange(68, 68), PortRange(67, 67)),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
@pytest.mark.parametrize(("own", "other"), PAIRS)
def test_no_rule_applies_between_the_box_and_them(rule, own, other):
    table = PolicyTable((rule, *builtin_rules((), OWN, MANAGING)), DEFAULT)
    for protocol, *ports in ((6, 22, 40000), (6, None, None), (17, 68, 67), (1, None, None)):
        decision = table.lookup(Flow(own, other, protocol, *ports))
        assert decision.rule.name == "built-in: management"
        assert decision.rule.category is Category.PERMIT
        assert decision.scope.source == ip_network(own)


@pytest.mark.parametrize("rule", RULES[:2], ids=lambda rule: rule.name)
def test_others_are_under_the_rules_as_ever(rule):
    table = PolicyTable((rule, *builtin_rules((), OWN, MANAGING)), DEFAULT)
    for source, destination in (("192.1.0.65", "198.51.100.7"), ("192.1.1.4", "198.51.100.8")):
        found = table.lookup(Flow(ip_address(source), ip_address(destination), 6, 22, 4000)).rule
        assert not found.builtin


def test_a_box_without_addresses_of_their_family_has_no_such_rule():
    rules = builtin_rules((), OWN[:1], MANAGING[1:])
    assert not [rule for rule in rules if "management" in rule.name]


def test_oneself_comes_first():
    table = PolicyTable(builtin_rules((), OWN, [ip_network("192.1.1.0/24")]), DEFAULT)
    names = [rule.name for group in table.groups(4) for *_, rule in group.entries]
    assert names[:2] == ["built-in: traffic to oneself", "built-in: management"]
