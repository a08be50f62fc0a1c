"""The table against the plain reference, and the cases of section 1.1 by hand."""

import random
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from policy.builtin import builtin_rules
from policy.errors import MeaninglessRule, PolicyConflicts, PolicyError, UndeclaredOverride
from policy.flow import Flow
from policy.order import Exemption
from policy.prefixes import PrefixList
from policy.rule import ANY_PORT, Category, OnFailure, PortRange, Rule, Scope
from policy.table import PolicyTable
from tests.support import policy_reference as reference
from tests.support.amount import amount

DENY, PERMIT = Category.DENY, Category.PERMIT
OPPORTUNISTIC, CONFIGURED = Category.OPPORTUNISTIC, Category.CONFIGURED
DEFAULT = Rule("default", OPPORTUNISTIC)


def nets(*texts):
    return tuple(ip_network(text) for text in texts)


def flow(source, destination, protocol=6, source_port=40000, destination_port=80, fragment=False):
    return Flow(
        ip_address(source),
        ip_address(destination),
        protocol,
        source_port,
        destination_port,
        fragment,
    )


def rule(name, category=OPPORTUNISTIC, destination=None, source=None, **more):
    return Rule(
        name,
        category,
        source=None if source is None else nets(*source.split()),
        destination=None if destination is None else nets(*destination.split()),
        **more,
    )


def chosen(rules, packet, default=DEFAULT):
    return PolicyTable(rules, default).lookup(packet).rule.name


# ---- against the reference ----

# Few distinct prefixes in a small corner, so that they meet often.
v4 = st.builds(
    lambda bits, length: IPv4Network((0x0A000000 | bits, length), strict=False),
    st.integers(0, 15),
    st.sampled_from([0, 8, 28, 29, 30, 31, 32]),
)
v6 = st.builds(
    lambda bits, length: IPv6Network((0x20010DB8 << 96 | bits, length), strict=False),
    st.integers(0, 15),
    st.sampled_from([0, 64, 124, 125, 126, 127, 128]),
)
prefix_lists = st.one_of(
    st.none(),
    st.lists(st.one_of(v4, v6), min_size=1, max_size=4).map(tuple),
    st.lists(st.one_of(v4, v6), min_size=1, max_size=6).map(PrefixList),
)
port_ranges = st.sampled_from(
    [
        ANY_PORT,
        ANY_PORT,
        *(PortRange(*p) for p in ((80, 80), (53, 80), (67, 67), (60, 70), (0, 99))),
    ]
)
categories = st.sampled_from(list(Category))


@st.composite
def rules_of_any_kind(draw):
    rules = []
    for number in range(draw(st.integers(0, 6))):
        protocol = draw(st.sampled_from([None, None, 6, 17, 1]))
        ported = protocol != 1
        rules.append(
            Rule(
                f"rule {number}",
                draw(categories),
                draw(prefix_lists),
                draw(prefix_lists),
                protocol,
                draw(port_ranges) if ported else ANY_PORT,
                draw(port_ranges) if ported else ANY_PORT,
                draw(st.sampled_from(list(OnFailure))),
                override=draw(st.integers(0, 3)) > 0,
            )
        )
    if draw(st.booleans()):
        attached = [IPv4Network("10.0.0.8/30"), IPv6Network("2001:db8::8/125")]
        rules.extend(builtin_rules(attached))
    return rules


def some_address(rng, family):
    if family == 4:
        choices = (0x0A000000 | rng.randrange(16), rng.getrandbits(32), 0x0A000000)
        return IPv4Address(rng.choice(choices))
    choices = (0x20010DB8 << 96 | rng.randrange(16), rng.getrandbits(128))
    return IPv6Address(rng.choice(choices))


def some_flow(rng):
    family = rng.choice((4, 6))
    protocol = rng.choice((6, 17, 17, 1, 50))
    ports = (0, 53, 60, 66, 67, 68, 69, 80, 81, 99, 100, 546, 547, 65535)
    shown = protocol in reference.PORTED
    return Flow(
        some_address(rng, family),
        some_address(rng, family),
        protocol,
        rng.choice(ports) if shown else None,
        rng.choice(ports) if shown else None,
    )


def consistent(rules):
    """The table of rules, or None if they conflict."""
    try:
        return PolicyTable(rules, DEFAULT)
    except PolicyConflicts:
        return None


many = settings(
    max_examples=amount(300, 100),
    deadline=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)


@many
@given(rules_of_any_kind(), st.integers(0, 2**32))
def test_lookup_is_what_a_scan_of_all_rules_finds(rules, seed):
    table = consistent(rules)
    assume(table is not None)
    rng = random.Random(seed)
    for _ in range(40):
        packet = some_flow(rng)
        assert table.lookup(packet).rule is reference.best(rules, DEFAULT, packet)


def inside(rng, scope, packet):
    """A flow in a scope, near its edges or anywhere."""

    def address(network):
        first, last = int(network.network_address), int(network.broadcast_address)
        return type(network.network_address)(rng.choice((first, last, rng.randint(first, last))))

    def port(span):
        return rng.choice((span.first, span.last, rng.randint(span.first, span.last)))

    protocol = packet.protocol if scope.protocol is not None else rng.choice((1, 6, 17, 50, 132))
    shown = protocol in reference.PORTED
    return Flow(
        address(scope.source),
        address(scope.destination),
        protocol,
        port(scope.source_ports) if shown else None,
        port(scope.destination_ports) if shown else None,
    )


@many
@given(rules_of_any_kind(), st.integers(0, 2**32))
def test_every_flow_in_a_scope_gets_the_same_rule(rules, seed):
    table = consistent(rules)
    assume(table is not None)
    rng = random.Random(seed)
    for _ in range(8):
        packet = some_flow(rng)
        decision = table.lookup(packet)
        assert decision.cacheable
        assert packet.source in decision.scope.source
        assert packet.destination in decision.scope.destination
        assert decision.scope.protocol in (None, packet.protocol)
        for _ in range(12):
            other = inside(rng, decision.scope, packet)
            if reference.is_dhcp_flow(rules, other) and not reference.is_dhcp_flow(rules, packet):
                continue  # a scope doesn't speak for DHCP
            assert reference.best(rules, DEFAULT, other) is decision.rule


@many
@given(rules_of_any_kind(), st.integers(0, 2**32))
def test_a_fragment_gets_the_strictest_of_what_some_ports_get(rules, seed):
    table = consistent(rules)
    assume(table is not None)
    rng = random.Random(seed)
    samples = reference.port_samples(rules)
    for _ in range(3):
        packet = some_flow(rng)
        fragment = Flow(packet.source, packet.destination, packet.protocol, fragment=True)
        decision = table.lookup(fragment)
        if packet.protocol not in reference.PORTED:
            assert decision.rule is reference.best(rules, DEFAULT, fragment)
            continue
        possible = {
            id(found): found
            for source in samples
            for destination in samples
            if (
                found := reference.best(
                    [r for r in rules if not reference.is_dhcp(r)],  # DHCP comes whole
                    DEFAULT,
                    Flow(packet.source, packet.destination, packet.protocol, source, destination),
                )
            )
        }
        # Rules that only several others together hide may count as possible:
        # that is stricter, never laxer.
        assert reference.severity(decision.rule) >= max(
            reference.severity(found) for found in possible.values()
        )
        if decision.cacheable:
            assert list(possible.values()) == [decision.rule]


@many
@given(rules_of_any_kind(), st.integers(0, 2**32))
def test_the_first_match_of_the_groups_is_what_lookup_finds(rules, seed):
    table = consistent(rules)
    assume(table is not None)
    rng = random.Random(seed)
    groups = {family: list(table.groups(family)) for family in (4, 6)}
    for _ in range(5):
        packet = some_flow(rng)
        first = DEFAULT
        for group in groups[packet.source.version]:
            found = {
                id(each): each
                for source, destination, each in group.entries
                if packet.source in source
                and packet.destination in destination
                and reference.matches(each, packet)
            }
            if found:
                assert len(found) == 1
                (first,) = found.values()
                break
        assert first.name == table.lookup(packet).rule.name


@many
@given(rules_of_any_kind(), st.integers(0, 2**32))
def test_rules_that_tie_or_take_traffic_never_load(rules, seed):
    table = consistent(rules)
    assume(table is not None)
    rng = random.Random(seed)
    for _ in range(60):
        packet = some_flow(rng)
        assert not reference.ties(rules, packet)
        assert not reference.takes_unasked(rules, packet)


@many
@given(rules_of_any_kind())
def test_each_conflict_has_an_example_in_the_addresses_it_names(rules):
    try:
        PolicyTable(rules, DEFAULT)
    except PolicyConflicts as found:
        for error in found.errors:
            if isinstance(error, MeaninglessRule):
                continue
            ports = reference.port_samples(rules)
            flows = [
                Flow(error.source, error.destination, protocol, source, destination)
                for protocol in (1, 6, 17)
                for source in ports
                for destination in ports
                if protocol != 1 or source == destination == 0
            ]
            wrong = (
                reference.takes_unasked if isinstance(error, UndeclaredOverride) else reference.ties
            )
            assert any(wrong([error.first, error.second], each) for each in flows)


# ---- the order, case by case ----


@pytest.mark.parametrize(
    ("winner", "loser"),
    [
        ({"destination": "10.1.0.0/16"}, {"destination": "10.0.0.0/8", "source": "10.9.9.9/32"}),
        ({"source": "10.9.0.0/16"}, {"source": "10.0.0.0/8", "protocol": 6}),
        ({"protocol": 6}, {"destination_ports": PortRange(80, 80)}),
        (
            {"destination_ports": PortRange(80, 89)},
            {"destination_ports": PortRange(80, 90), "source_ports": PortRange(40000, 40000)},
        ),
        ({"source_ports": PortRange(40000, 40001)}, {"source_ports": PortRange(40000, 40002)}),
    ],
    ids=["destination", "source", "protocol", "destination ports", "source ports"],
)
def test_each_criterion_decides_before_all_that_follow(winner, loser):
    packet = flow("10.9.9.9", "10.1.2.3")
    winner, loser = rule("winner", **winner), rule("loser", **loser)
    assert chosen([winner, loser], packet) == "winner"
    assert chosen([loser, winner], packet) == "winner"


def test_the_default_rule_applies_where_no_other_does():
    only = rule("only", destination="10.0.0.0/8")
    assert chosen([only], flow("1.2.3.4", "11.0.0.1")) == "default"
    assert chosen([only], flow("2001:db8::1", "2001:db8::2")) == "default"


def test_a_rule_without_prefixes_is_for_both_families():
    table = PolicyTable([rule("all", DENY)], DEFAULT)
    assert table.lookup(flow("1.2.3.4", "5.6.7.8")).rule.name == "all"
    assert table.lookup(flow("::1", "2001:db8::2")).rule.name == "all"
    (group,) = table.groups(6)
    assert list(group.entries) == [(*nets("::/0", "::/0"), table.rules[0])]
    (group,) = table.groups(4)
    assert list(group.entries) == [(*nets("0.0.0.0/0", "0.0.0.0/0"), table.rules[0])]


def test_ports_are_ignored_for_a_protocol_that_has_none():
    web = rule("web", DENY, destination_ports=PortRange(80, 80))
    assert chosen([web], flow("1.2.3.4", "5.6.7.8", protocol=1)) == "default"
    assert chosen([web], flow("1.2.3.4", "5.6.7.8", protocol=132)) == "web"


def test_a_flow_between_families_is_misuse():
    with pytest.raises(ValueError, match="two families"):
        PolicyTable([], DEFAULT).lookup(flow("1.2.3.4", "::1"))


@pytest.mark.parametrize(
    ("default", "reason"),
    [
        (Rule("d", CONFIGURED), "can't be configured"),
        (Rule("d", DENY, protocol=6), "for all traffic"),
        (Rule("d", DENY, destination_ports=PortRange(1, 2)), "for all traffic"),
        (Rule("d", DENY, source=nets("10.0.0.0/8")), "for all traffic"),
    ],
)
def test_a_default_must_be_for_strangers_and_for_everything(default, reason):
    with pytest.raises(PolicyError, match=reason):
        PolicyTable([], default)


@pytest.mark.parametrize("category", [DENY, PERMIT, OPPORTUNISTIC])
def test_a_default_may_be_of_any_other_category(category):
    default = Rule("d", category)
    table = PolicyTable([], default)
    assert table.default is default
    assert table.lookup(flow("1.2.3.4", "5.6.7.8")).rule is default


def test_a_table_names_its_rules_in_the_order_given():
    rules = (rule("a", DENY, "10.0.0.0/8"), rule("b", DENY, "11.0.0.0/8"))
    assert PolicyTable(rules, DEFAULT).rules == rules


# ---- scopes ----


def test_without_rules_the_scope_is_everything():
    scope = PolicyTable([], DEFAULT).lookup(flow("1.2.3.4", "5.6.7.8")).scope
    assert scope == Scope(*nets("0.0.0.0/0", "0.0.0.0/0"))


def test_under_the_default_the_scope_is_the_largest_block_without_a_prefix():
    table = PolicyTable([rule("x", DENY, "128.0.0.0/16 8.8.0.0/16")], DEFAULT)
    assert table.lookup(flow("1.2.3.4", "200.1.1.1")).scope == Scope(
        *nets("0.0.0.0/0", "192.0.0.0/2")
    )
    assert table.lookup(flow("1.2.3.4", "8.9.0.1")).scope.destination == nets("8.9.0.0/16")[0]


def test_the_scope_of_a_prefix_leaves_out_what_is_more_specific():
    table = PolicyTable(
        [rule("outer", DENY, "10.0.0.0/8"), rule("inner", DENY, "10.0.0.0/16")], DEFAULT
    )
    assert table.lookup(flow("1.2.3.4", "10.0.1.1")).scope.destination == nets("10.0.0.0/16")[0]
    assert table.lookup(flow("1.2.3.4", "10.1.1.1")).scope.destination == nets("10.1.0.0/16")[0]
    assert table.lookup(flow("1.2.3.4", "10.200.1.1")).scope.destination == nets("10.128.0.0/9")[0]


def test_neighbours_and_nested_prefixes_of_one_list_are_one_scope():
    table = PolicyTable([rule("x", DENY, "10.0.0.0/9 10.128.0.0/9 10.1.0.0/16")], DEFAULT)
    assert table.lookup(flow("1.2.3.4", "10.1.1.1")).scope.destination == nets("10.0.0.0/8")[0]


def test_sources_that_matter_elsewhere_only_do_not_narrow_the_scope():
    table = PolicyTable([rule("x", DENY, "10.0.0.0/8", source="192.168.1.0/24")], DEFAULT)
    assert table.lookup(flow("192.168.1.1", "11.0.0.1")).scope.source == nets("0.0.0.0/0")[0]
    assert table.lookup(flow("192.168.1.1", "10.0.0.1")).scope.source == nets("192.168.1.0/24")[0]


def test_the_scope_of_ports_ends_where_another_rule_begins():
    table = PolicyTable(
        [rule("web", DENY, protocol=6, destination_ports=PortRange(80, 90))], DEFAULT
    )
    everywhere = nets("0.0.0.0/0", "0.0.0.0/0")
    below = table.lookup(flow("1.2.3.4", "5.6.7.8", destination_port=79))
    assert below.scope == Scope(*everywhere, 6, ANY_PORT, PortRange(0, 79))
    above = table.lookup(flow("1.2.3.4", "5.6.7.8", destination_port=91))
    assert above.scope == Scope(*everywhere, 6, ANY_PORT, PortRange(91, 65535))
    within = table.lookup(flow("1.2.3.4", "5.6.7.8", destination_port=85))
    assert within.scope == Scope(*everywhere, 6, ANY_PORT, PortRange(80, 90))
    other = table.lookup(flow("1.2.3.4", "5.6.7.8", protocol=17, destination_port=85))
    assert other.scope == Scope(*everywhere, 17)


def test_the_scope_is_cut_at_those_ports_where_more_remains():
    rules = [
        rule(
            "corner",
            DENY,
            protocol=17,
            source_ports=PortRange(67, 68),
            destination_ports=PortRange(67, 68),
        )
    ]
    table = PolicyTable(rules, DEFAULT)
    scope = table.lookup(flow("1.2.3.4", "5.6.7.8", 17, 5000, 53)).scope
    assert (scope.source_ports, scope.destination_ports) == (PortRange(69, 65535), ANY_PORT)
    scope = table.lookup(flow("1.2.3.4", "5.6.7.8", 17, 67, 53)).scope
    assert (scope.source_ports, scope.destination_ports) == (ANY_PORT, PortRange(0, 66))


def test_the_exemption_of_dhcp_leaves_no_hole_in_the_scope_of_other_traffic():
    table = PolicyTable(builtin_rules(), DEFAULT)
    for packet in (flow("1.2.3.4", "5.6.7.8", 17, 5000, 53), flow("1.2.3.4", "5.6.7.8", 6)):
        scope = table.lookup(packet).scope
        assert (scope.protocol, scope.source_ports, scope.destination_ports) == (
            None,
            ANY_PORT,
            ANY_PORT,
        )
    dhcp = table.lookup(flow("1.2.3.4", "5.6.7.8", 17, 68, 67))
    assert dhcp.rule.name == "built-in: DHCP"
    assert (dhcp.scope.source_ports, dhcp.scope.destination_ports) == (
        PortRange(67, 68),
        PortRange(67, 68),
    )
    fragment = table.lookup(Flow(ip_address("1.2.3.4"), ip_address("5.6.7.8"), 17, fragment=True))
    assert fragment.cacheable


def test_a_cut_that_later_cuts_make_needless_is_undone():
    rules = [
        rule(
            "corner",
            DENY,
            protocol=6,
            source_ports=PortRange(0, 9),
            destination_ports=PortRange(60000, 60001),
        ),
        rule("high", DENY, protocol=6, destination_ports=PortRange(50000, 65535)),
    ]
    scope = PolicyTable(rules, DEFAULT).lookup(flow("1.2.3.4", "5.6.7.8", 6, 40000, 80)).scope
    assert (scope.source_ports, scope.destination_ports) == (ANY_PORT, PortRange(0, 49999))


# ---- packets that hide their ports ----


def test_a_fragment_takes_the_strictest_verdict_and_is_not_cacheable():
    rules = [
        rule("web", PERMIT, protocol=6, destination_ports=PortRange(80, 80)),
        rule("mail", DENY, protocol=6, destination_ports=PortRange(25, 25)),
    ]
    table = PolicyTable(rules, DEFAULT)
    decision = table.lookup(flow("1.2.3.4", "5.6.7.8", 6, None, None, fragment=True))
    assert decision.rule.name == "mail"
    assert not decision.cacheable
    assert decision.scope == Scope(*nets("1.2.3.4/32", "5.6.7.8/32"), 6)
    # Ports in a fragment are not believed, and absent ports count as hidden.
    assert table.lookup(flow("1.2.3.4", "5.6.7.8", 6, 1, 80, fragment=True)).rule.name == "mail"
    assert table.lookup(flow("1.2.3.4", "5.6.7.8", 6, None, None)).rule.name == "mail"


@pytest.mark.parametrize(
    ("category", "on_failure", "weaker", "weaker_on_failure"),
    [
        (DENY, OnFailure.CLEAR, CONFIGURED, OnFailure.CLEAR),
        (CONFIGURED, OnFailure.CLEAR, OPPORTUNISTIC, OnFailure.DROP),
        (OPPORTUNISTIC, OnFailure.DROP, OPPORTUNISTIC, OnFailure.CLEAR),
        (OPPORTUNISTIC, OnFailure.CLEAR, PERMIT, OnFailure.CLEAR),
    ],
)
def test_strictness(category, on_failure, weaker, weaker_on_failure):
    rules = [
        rule(
            "strict",
            category,
            protocol=6,
            destination_ports=PortRange(1, 2),
            on_failure=on_failure,
            override=True,
        ),
        rule("weak", weaker, protocol=6, on_failure=weaker_on_failure),
    ]
    assert chosen(rules, flow("1.2.3.4", "5.6.7.8", 6, None, None, True)) == "strict"
    rules = [
        rule(
            "weak",
            weaker,
            protocol=6,
            destination_ports=PortRange(1, 2),
            on_failure=weaker_on_failure,
            override=True,
        ),
        rule("strict", category, protocol=6, on_failure=on_failure),
    ]
    assert chosen(rules, flow("1.2.3.4", "5.6.7.8", 6, None, None, True)) == "strict"


def test_a_fragment_where_ports_do_not_matter_is_an_ordinary_packet():
    table = PolicyTable([rule("all", DENY, "10.0.0.0/8")], DEFAULT)
    decision = table.lookup(flow("1.2.3.4", "10.6.7.8", 6, None, None, fragment=True))
    assert decision.cacheable
    assert decision.scope.destination == nets("10.0.0.0/8")[0]


def test_a_rule_hidden_by_another_can_not_match_a_fragment():
    rules = [
        rule("near", PERMIT, "10.0.0.0/8", protocol=6, destination_ports=PortRange(20, 90)),
        rule("far", CONFIGURED, protocol=6, destination_ports=PortRange(25, 80)),
    ]
    rules[0] = rule(
        "near", PERMIT, "10.0.0.0/8", protocol=6, destination_ports=PortRange(20, 90), override=True
    )
    table = PolicyTable(rules, Rule("default", PERMIT))
    packet = flow("1.2.3.4", "10.6.7.8", 6, None, None, fragment=True)
    assert table.lookup(packet).rule.category is PERMIT


def test_an_ipv6_fragment_behind_an_extension_header_may_be_of_any_protocol():
    rules = [rule("tcp", DENY, protocol=6), rule("icmp", PERMIT, protocol=58)]
    table = PolicyTable(rules, DEFAULT)
    decision = table.lookup(flow("2001:db8::1", "2001:db8::2", 60, None, None, fragment=True))
    assert decision.rule.name == "tcp"
    assert not decision.cacheable
    decision = table.lookup(flow("2001:db8::1", "2001:db8::2", 58, None, None, fragment=True))
    assert decision.rule.name == "icmp"
    assert decision.cacheable


# ---- built-ins in the table ----


@pytest.mark.parametrize(
    "destination",
    ["224.0.0.251", "255.255.255.255", "169.254.1.1", "127.0.0.1", "192.1.1.67", "192.1.1.255",
     "ff02::1", "fe80::1", "::1", "2001:db8:1:1::5"],
)  # fmt: skip
def test_exempt_networks_are_not_trapped_by_general_rules(destination):
    attached = nets("192.1.1.0/24", "2001:db8:1:1::/64")
    rules = [
        rule("all", DENY),
        rule("v4", DENY, "0.0.0.0/0", protocol=17),
        rule("wide", DENY, "192.1.0.0/16 2001:db8::/32"),
        *builtin_rules(attached),
    ]
    source = "192.1.0.65" if "." in destination else "2001:db8:1::65"
    found = PolicyTable(rules, DEFAULT).lookup(flow(source, destination, 17)).rule
    assert found.builtin
    assert found.category is PERMIT


@pytest.mark.parametrize("destination", ["192.1.1.0/24", "192.1.1.64/26", "192.1.1.67/32"])
def test_a_rule_that_names_an_exempt_network_or_a_part_of_it_applies(destination):
    rules = [rule("named", CONFIGURED, destination), *builtin_rules(nets("192.1.1.0/24"))]
    for order in (rules, rules[::-1]):
        assert chosen(order, flow("192.1.0.65", "192.1.1.67")) == "named"


DHCP_FLOW = flow("10.1.0.5", "10.2.0.1", 17, 68, 67)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"destination": "10.0.0.0/8"},
        {"destination": "10.2.0.1/32", "source": "10.1.0.5/32"},
        {"protocol": 17},
        {"protocol": 17, "destination_ports": PortRange(69, 100)},
        {"protocol": 17, "source_ports": PortRange(0, 66)},
        {"destination_ports": PortRange(67, 67)},
    ],
)
def test_dhcp_is_exempt_from_rules_that_do_not_name_it(more):
    assert chosen([rule("x", DENY, **more), *builtin_rules()], DHCP_FLOW) == "built-in: DHCP"


def test_of_the_rules_that_name_dhcp_the_order_decides():
    rules = [
        rule("named", DENY, "10.0.0.0/8", protocol=17, destination_ports=PortRange(60, 70)),
        rule(
            "named closer",
            CONFIGURED,
            "10.2.0.0/16",
            protocol=17,
            destination_ports=PortRange(0, 99),
        ),
        rule("not named", DENY, "10.2.0.0/24"),
        *builtin_rules(),
    ]
    table = PolicyTable(rules, DEFAULT)
    assert table.lookup(DHCP_FLOW).rule is rules[1]
    # Traffic that isn't DHCP follows the order without the exemption.
    assert table.lookup(flow("10.1.0.5", "10.2.0.1", 17, 68, 69)).rule is rules[2]
    assert table.lookup(flow("10.1.0.5", "10.2.0.1", 17, 50, 67)).rule is rules[2]


def test_dhcp_of_one_family_is_not_exempt_in_the_other():
    table = PolicyTable([rule("all", DENY), *builtin_rules()], DEFAULT)
    assert table.lookup(flow("::2", "2001:db8::1", 17, 546, 547)).rule.name == "built-in: DHCPv6"
    assert table.lookup(flow("::2", "2001:db8::1", 17, 68, 67)).rule.name == "all"
    assert table.lookup(flow("10.1.1.1", "10.2.2.2", 17, 546, 547)).rule.name == "all"


# ---- groups ----


def test_groups_begin_with_what_applies_first():
    rules = [
        rule("wide", DENY, "10.0.0.0/8"),
        rule("narrow", DENY, "10.1.0.0/16 2001:db8::/32"),
        rule("dhcp", DENY, "10.0.0.0/8", protocol=17, destination_ports=PortRange(60, 67)),
        *builtin_rules(own=[ip_address("10.1.0.1")]),
    ]
    itself, *groups = list(PolicyTable(rules, DEFAULT).groups(4))
    assert itself.order.exemption is Exemption.OWN
    orders = [group.order.precedence for group in groups]
    assert orders == sorted(orders)
    assert [group.order.exemption for group in groups[:3]] == list(Exemption)[2:]
    ((_, _, named),) = groups[0].entries
    assert named.name == "dhcp"
    assert named.destination_ports == PortRange(67, 67)
    names = [
        name for group in groups[2:] for *_, (name) in ((s, d, r.name) for s, d, r in group.entries)
    ]
    assert names.index("narrow") < names.index("dhcp") < names.index("wide")
    # Iterating twice gives the same twice.
    assert list(groups[2].entries) == list(groups[2].entries)


def test_a_rule_of_the_user_stands_before_the_built_in_that_it_replaces():
    rules = [*builtin_rules(), rule("mine", DENY, "224.0.0.0/4")]
    groups = PolicyTable(rules, DEFAULT).groups(4)
    names = [r.name for group in groups for _, d, r in group.entries if d == nets("224.0.0.0/4")[0]]
    assert names == ["mine", "built-in: multicast 224.0.0.0/4"]
