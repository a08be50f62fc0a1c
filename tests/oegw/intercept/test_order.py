"""The chains answer for every packet as the policy table does."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import pytest

from oegw.intercept.order import Question, ordered_chain
from policy.builtin import builtin_rules
from policy.errors import PolicyError
from policy.flow import Flow
from policy.rule import ANY_PORT, Category, OnFailure, PortRange, Rule
from policy.table import PolicyTable
from tests.support.intercept_policy import configured_rule, policy, protected_rule
from tests.support.nft_reader import verdict_of

GUARD = Question(lambda rule: rule.protected, "goto leak", "accept")
INBOUND = replace(GUARD, reverse=True)
EXEMPT = Question(lambda rule: not rule.builtin, "return", "accept")


def chain(table: PolicyTable, question: Question = GUARD, family: int = 4) -> list[str]:
    text = ordered_chain("it", table, family, question)
    lines = text.splitlines()
    assert (lines[0], lines[-1]) == ("  chain it {", "  }")
    return [line.strip() for line in lines[1:-1]]


def only(*rules: Rule, default: Rule | None = None) -> PolicyTable:
    return PolicyTable(rules, default or Rule("rest", Category.OPPORTUNISTIC))


def nets(*texts: str):
    return tuple(ip_network(text) for text in texts)


def test_what_cannot_change_the_answer_is_left_out():
    permit = Rule("p", Category.PERMIT, None, nets("10.0.0.0/8"))
    assert chain(only(permit)) == ["accept"]
    narrower = Rule("n", Category.PERMIT, None, nets("10.1.0.0/16"), override=True)
    assert chain(only(configured_rule("10.0.0.0/8"), narrower)) == [
        "ip daddr 10.1.0.0/16 accept",
        "ip daddr 10.0.0.0/8 goto leak",
        "accept",
    ]


def test_a_drop_by_default_with_a_more_specific_permit():
    default = Rule("rest", Category.OPPORTUNISTIC, on_failure=OnFailure.DROP)
    permit = Rule("p", Category.PERMIT, nets("10.1.0.0/16"), nets("10.9.0.0/24", "10.8.0.0/24"))
    assert chain(only(permit, default=default)) == [
        "ip saddr 10.1.0.0/16 ip daddr & 255.255.255.0 { 10.8.0.0, 10.9.0.0 } accept",
        "goto leak",
    ]


def test_pairs_of_two_rules_are_looked_up_as_pairs():
    one = Rule("one", Category.CONFIGURED, nets("10.1.0.0/16"), nets("10.8.0.0/24"))
    two = Rule("two", Category.CONFIGURED, nets("10.2.0.0/16"), nets("10.9.0.0/24"))
    assert chain(only(one, two)) == [
        "ip saddr & 255.255.0.0 . ip daddr & 255.255.255.0 "
        "{ 10.1.0.0 . 10.8.0.0, 10.2.0.0 . 10.9.0.0 } goto leak",
        "accept",
    ]


def test_from_outside_the_sides_are_exchanged():
    rule = configured_rule(
        "10.9.0.0/24", protocol=17, source_ports=PortRange(1, 2), destination_ports=PortRange(7, 7)
    )
    assert chain(only(rule), INBOUND) == [
        "ip saddr 10.9.0.0/24 meta l4proto 17 th sport 7 th dport 1-2 goto leak",
        "ip saddr 10.9.0.0/24 ip frag-off & 0x1fff != 0 meta l4proto 17 goto leak",
        "accept",
    ]


def test_fragments_show_no_ports_and_get_the_stricter_rule():
    web = protected_rule("10.9.0.0/24", protocol=6, destination_ports=PortRange(80, 80))
    follow = verdict_of(ordered_chain("it", only(web), 4, GUARD))
    flow = Flow(ip_address("10.1.0.2"), ip_address("10.9.0.2"), 6, None, None, True)
    assert follow(flow) == "goto leak"
    assert follow(replace(flow, protocol=17)) == "accept"
    assert follow(replace(flow, fragment=False, source_port=1, destination_port=81)) == "accept"


def test_the_exemptions_are_accepted_unless_a_rule_of_the_users_precedes():
    own = Rule("own", Category.OPPORTUNISTIC, None, nets("224.1.0.0/16"), override=True)
    follow = verdict_of(ordered_chain("it", policy(own), 4, EXEMPT))
    source = ip_address("10.1.0.2")
    assert follow(Flow(source, ip_address("224.0.0.5"), 89)) == "accept"
    assert follow(Flow(source, ip_address("224.1.0.5"), 89)) == "return"
    assert follow(Flow(source, ip_address("10.2.0.9"), 6, 1, 2)) == "accept"
    assert follow(Flow(source, ip_address("10.9.0.9"), 6, 1, 2)) == "return"
    assert follow(Flow(source, ip_address("10.9.0.9"), 17, 68, 67)) == "accept"


ADDRESSES = {
    4: [IPv4Address(0x0A000000 + n) for n in range(16)],
    6: [IPv6Address(0xFD << 120 | n) for n in range(16)],
}
LENGTHS = {4: (0, 28, 29, 30, 31, 32), 6: (0, 124, 125, 126, 127, 128)}
PORTS = (ANY_PORT, PortRange(0, 3), PortRange(2, 2), PortRange(2, 5))
PROTOCOLS = (1, 6, 17, 50, 60)


def _network(dice: random.Random, family: int):
    kind = IPv4Network if family == 4 else IPv6Network
    return kind((dice.choice(ADDRESSES[family]), dice.choice(LENGTHS[family])), strict=False)


def _rule(dice: random.Random, number: int, family: int) -> Rule:
    lists = [
        None
        if dice.random() < 0.2
        else tuple({_network(dice, family) for _ in range(dice.randint(1, 3))})
        for _ in range(2)
    ]
    protocol = dice.choice((None, None, 6, 17, 50))
    ported = protocol != 50 and dice.random() < 0.4
    return Rule(
        f"rule {number}",
        dice.choice(list(Category)),
        lists[0],
        lists[1],
        protocol,
        dice.choice(PORTS) if ported else ANY_PORT,
        dice.choice(PORTS) if ported else ANY_PORT,
        on_failure=dice.choice(list(OnFailure)),
        override=True,
    )


def _table(dice: random.Random, family: int) -> PolicyTable:
    """Random rules, without those that contradict others."""
    default = Rule("rest", Category.OPPORTUNISTIC, on_failure=dice.choice(list(OnFailure)))
    builtin = builtin_rules([ip_network("10.0.0.8/30"), ip_network("fd00::8/126")])
    rules: list[Rule] = list(builtin)
    table = PolicyTable(rules, default)
    for number in range(dice.randint(1, 9)):
        rules.append(_rule(dice, number, family))
        try:
            table = PolicyTable(rules, default)
        except PolicyError:
            rules.pop()
    return table


def _flow(dice: random.Random, family: int) -> Flow:
    source, destination = dice.choice(ADDRESSES[family]), dice.choice(ADDRESSES[family])
    protocol = dice.choice(PROTOCOLS)
    if dice.random() < 0.2:
        return Flow(source, destination, protocol, fragment=True)
    if protocol in (6, 17):
        return Flow(source, destination, protocol, dice.randint(0, 7), dice.randint(0, 7))
    return Flow(source, destination, protocol)


@pytest.mark.parametrize("family", [4, 6])
def test_random_policies_against_the_table(family):
    """Where ports show, exactly as the table; on a fragment never more lenient than the table."""
    dice = random.Random(family)
    strict = lenient = 0
    for _ in range(250):
        table = _table(dice, family)
        for question in (GUARD, INBOUND, EXEMPT):
            follow = verdict_of(ordered_chain("it", table, family, question))
            for _ in range(40):
                flow = _flow(dice, family)
                rule = table.lookup(flow.reversed() if question.reverse else flow).rule
                expected = question.verdict(question.strict(rule))
                said = follow(flow)
                if flow.fragment and expected == question.if_lenient:
                    continue  # stricter is allowed
                assert said == expected, (table.rules, flow)
                strict += expected == question.if_strict
                lenient += expected == question.if_lenient
    assert min(strict, lenient) > 2000


REST = Rule("rest", Category.OPPORTUNISTIC)


def test_what_is_for_the_box_itself_is_the_kernels_business():
    """An address that moves to another box must not stay exempt in the kernel."""
    own = [ip_address("10.0.0.5")]
    table = PolicyTable((*builtin_rules(own=own), protected_rule("10.0.0.0/24")), REST)
    assert table.lookup(Flow(own[0], own[0], 1)).rule.category is Category.PERMIT
    assert "10.0.0.5" not in ordered_chain("it", table, 4, GUARD)


def test_a_hundred_thousand_prefixes_make_one_rule_in_seconds():
    many = tuple(IPv4Network((0x0B000000 + (n << 8), 24)) for n in range(100_000))
    permit = Rule("many", Category.PERMIT, None, many)
    default = Rule("rest", Category.OPPORTUNISTIC, on_failure=OnFailure.DROP)
    table = only(permit, default=default)
    began = time.monotonic()
    lines = chain(table)
    assert time.monotonic() - began < 10
    assert len(lines) == 2
    assert lines[0].count(",") == 99_999
