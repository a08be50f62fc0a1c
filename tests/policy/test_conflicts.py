"""Which sets of rules are refused, and with what words."""

import time
from ipaddress import ip_network

import pytest

from policy.builtin import builtin_rules
from policy.errors import (
    AmbiguousRules,
    MeaninglessRule,
    PolicyConflicts,
    UndeclaredOverride,
)
from policy.order import OrderKey
from policy.prefixes import PrefixList
from policy.rule import Category, PortRange, Rule
from policy.table import PolicyTable

DEFAULT = Rule("default", Category.OPPORTUNISTIC)
DENY, PERMIT = Category.DENY, Category.PERMIT
OPPORTUNISTIC, CONFIGURED = Category.OPPORTUNISTIC, Category.CONFIGURED


def rule(name, category=DENY, destination=None, source=None, **more):
    def nets(texts):
        return None if texts is None else tuple(ip_network(text) for text in texts.split())

    return Rule(name, category, nets(source), nets(destination), origin=f"f: {name}", **more)


def refused(*rules):
    """What is wrong with rules, as pairs of kind and names."""
    try:
        PolicyTable(rules, DEFAULT)
    except PolicyConflicts as conflicts:
        return [
            (type(error), error.rule.name)
            if isinstance(error, MeaninglessRule)
            else (type(error), error.first.name, error.second.name)
            for error in conflicts.errors
        ]
    return []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {}),
        ({"destination": "10.0.0.0/8"}, {"destination": "11.0.0.0/8 10.0.0.0/8"}),
        ({"destination": "::/0"}, {}),
        ({"protocol": 6}, {"protocol": 6}),
        (
            {"protocol": 6, "destination_ports": PortRange(80, 90)},
            {"protocol": 6, "destination_ports": PortRange(85, 95)},
        ),
        (
            {"source_ports": PortRange(80, 90)},
            {"source_ports": PortRange(85, 95)},
        ),
    ],
)
def test_rules_equal_in_order_with_common_traffic_are_ambiguous(one, other):
    assert refused(rule("a", **one), rule("b", **other)) == [(AmbiguousRules, "a", "b")]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"destination": "10.0.0.0/8"}, {"destination": "11.0.0.0/8"}),
        ({"destination": "10.0.0.0/8"}, {"destination": "10.0.0.0/9"}),
        ({"source": "10.0.0.0/8"}, {"source": "11.0.0.0/8"}),
        ({"protocol": 6}, {"protocol": 17}),
        ({"protocol": 6}, {}),
        ({"destination_ports": PortRange(80, 89)}, {"destination_ports": PortRange(90, 99)}),
        ({"destination_ports": PortRange(80, 89)}, {"destination_ports": PortRange(80, 99)}),
        ({"protocol": 6, "source_ports": PortRange(1, 1)}, {"protocol": 6}),
    ],
)
def test_rules_that_differ_in_order_or_have_no_common_traffic_load(one, other):
    assert refused(rule("a", **one), rule("b", **other)) == []


@pytest.mark.parametrize("taker", [OPPORTUNISTIC, PERMIT])
@pytest.mark.parametrize("victim", [CONFIGURED, DENY])
@pytest.mark.parametrize(
    ("inner", "outer"),
    [
        ({"destination": "10.1.0.0/16"}, {"destination": "10.0.0.0/8"}),
        ({"destination": "10.1.0.0/16"}, {"source": "192.168.0.0/16"}),
        ({"source": "10.1.0.0/16"}, {"source": "10.0.0.0/8"}),
        ({"protocol": 6}, {}),
        ({"protocol": 6}, {"destination_ports": PortRange(1, 2)}),
        ({"destination_ports": PortRange(1, 2)}, {"destination_ports": PortRange(2, 4)}),
    ],
)
def test_taking_protected_traffic_needs_an_override(taker, victim, inner, outer):
    weak, strong = rule("weak", taker, **inner), rule("strong", victim, **outer)
    assert refused(weak, strong) == [(UndeclaredOverride, "weak", "strong")]
    assert refused(strong, weak) == [(UndeclaredOverride, "weak", "strong")]
    assert refused(strong, rule("weak", taker, override=True, **inner)) == []


def test_what_takes_nothing_needs_no_override():
    configured = rule("configured", CONFIGURED, "10.0.0.0/8")
    assert refused(configured, rule("all", OPPORTUNISTIC, "0.0.0.0/0")) == []
    assert refused(configured, rule("inner", DENY, "10.1.0.0/16")) == []
    assert refused(configured, rule("beside", PERMIT, "11.1.0.0/16")) == []
    tcp = rule("tcp", DENY, "10.0.0.0/8", protocol=6)
    assert refused(tcp, rule("udp", PERMIT, "10.1.0.0/16", protocol=17)) == []
    web = rule("web", DENY, destination_ports=PortRange(80, 80))
    assert refused(web, rule("icmp", PERMIT, "10.1.0.0/16", protocol=1)) == []


def test_a_prefix_that_longer_ones_of_the_other_rule_hide_takes_nothing():
    strong = rule("strong", DENY, "10.0.0.0/8 10.1.0.0/17 10.1.128.0/17")
    assert refused(strong, rule("weak", PERMIT, "10.1.0.0/16")) == []


def test_built_ins_conflict_with_nothing():
    rules = [
        rule("all", DENY),
        rule("same", CONFIGURED, "224.0.0.0/4"),
        rule("wider", CONFIGURED, "192.0.0.0/8"),
        rule("dhcp", DENY, protocol=17, source_ports=PortRange(67, 68),
             destination_ports=PortRange(67, 68)),
        *builtin_rules([ip_network("192.1.1.0/24")]),
    ]  # fmt: skip
    assert refused(*rules) == []


def test_all_conflicts_are_reported_at_once_each_naming_both_rules():
    rules = [
        rule("a", DENY, "10.0.0.0/8"),
        rule("b", DENY, "10.0.0.0/8"),
        rule("c", PERMIT, "10.5.0.0/16"),
        rule("d", DENY, "2001:db8::/32"),
        rule("e", DENY, "2001:db8::/32"),
    ]
    with pytest.raises(PolicyConflicts) as caught:
        PolicyTable(rules, DEFAULT)
    text = str(caught.value)
    assert sorted((type(e).__name__, e.first.name, e.second.name) for e in caught.value.errors) == [
        ("AmbiguousRules", "a", "b"),
        ("AmbiguousRules", "d", "e"),
        ("UndeclaredOverride", "c", "a"),
        ("UndeclaredOverride", "c", "b"),
    ]
    assert 'rule "a" (f: a) and rule "b" (f: b) match the same traffic' in text
    assert "from 0.0.0.0 to 10.0.0.0" in text
    assert 'rule "c" (f: c), permit, takes traffic of rule "a" (f: a), deny' in text
    assert "override = true" in text
    assert "2001:db8::" in text


def test_a_rule_without_an_origin_is_named_alone():
    with pytest.raises(PolicyConflicts, match='rule "x" and rule "y" match'):
        PolicyTable([Rule("x", DENY), Rule("y", DENY)], DEFAULT)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"destination_ports": PortRange(9, 8)}, "no ports 9 to 8"),
        ({"source_ports": PortRange(0, 65536)}, "no ports 0 to 65536"),
        ({"protocol": 256}, "no protocol 256"),
        ({"protocol": 1, "destination_ports": PortRange(8, 8)}, "protocol 1 has no ports"),
        ({"source": "10.0.0.0/8", "destination": "2001:db8::/32"}, "different families"),
    ],
)
def test_rules_that_can_match_nothing_are_refused(more, reason):
    assert refused(rule("x", **more), rule("fine", DENY, "10.0.0.0/8")) == [(MeaninglessRule, "x")]
    with pytest.raises(PolicyConflicts, match=reason):
        PolicyTable([rule("x", **more)], DEFAULT)


def test_meaningless_rules_do_not_hide_conflicts():
    assert refused(rule("x", protocol=256), rule("a"), rule("b")) == [
        (MeaninglessRule, "x"),
        (AmbiguousRules, "a", "b"),
    ]


def test_an_empty_list_is_no_error_and_matches_nothing():
    empty = Rule("empty", DENY, source=PrefixList(), destination=PrefixList())
    table = PolicyTable([empty], DEFAULT)
    assert list(table.groups(4)) == []


def test_lists_of_different_families_in_files_are_told_apart():
    v4, v6 = PrefixList([ip_network("10.0.0.0/8")]), PrefixList([ip_network("2001:db8::/32")])
    with pytest.raises(PolicyConflicts, match="different families"):
        PolicyTable([Rule("x", DENY, source=v4, destination=v6)], DEFAULT)


def test_conflicts_in_long_lists_are_found_in_time_linear_in_their_length():
    half = PrefixList.from_keys([(n << 16) << 8 | 24 for n in range(256)], [])
    many = PrefixList.from_keys([(n << 11) << 8 | 21 for n in range(200_000)], [])
    begin = time.perf_counter()
    with pytest.raises(PolicyConflicts) as caught:
        PolicyTable(
            [Rule("weak", PERMIT, destination=half), Rule("strong", DENY, destination=many)],
            DEFAULT,
        )
    assert len(caught.value.errors) == 1
    assert time.perf_counter() - begin < 20  # a comparison of all pairs would take minutes


def test_order_keys_compare_by_precedence():
    near, far = OrderKey(24, 0, False, 65536, 65536), OrderKey(16, 32, True, 1, 1)
    assert near.precedes(far)
    assert not far.precedes(near)
    assert not near.precedes(near)
