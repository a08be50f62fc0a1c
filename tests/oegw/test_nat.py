"""Hosts behind a NAT: what is translated, what is shared, and what is refused (draft section 7).

The tests of `TestCases` are named in `oegw/docs/nat.md`, one for each row of its table.
"""

from __future__ import annotations

import random
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

import ike.events as keying
from dnsrecords.outcome import Gateway as FoundGateway
from dnsrecords.outcome import GatewaysFound, KeysFound, NothingFound
from dnsrecords.trust import Trust
from ike.events import Failure, TransportAddress
from oegw import commands as do
from oegw import config
from oegw import events as happened
from oegw.cli import main
from oegw.commands import Verdict
from oegw.explain import explanation
from oegw.ledger import SCOPES_KEPT
from oegw.nat import Nat, NatRule, Seen, Translation, nat_of
from oegw.selfknowledge import OwnSettings
from oegw.settings import Settings
from oegw.status import render
from policy.flow import Flow
from policy.rule import Category, OnFailure, PortRange, Rule, Scope
from policy.table import PolicyTable
from tests.support.playbook import (
    ALICE,
    BOB,
    SG_A,
    SG_B,
    Playbook,
    configured,
    esp_sa,
    found,
    inbound_key,
    opportunistic,
    outbound_key,
    permit,
    ping,
    proposal,
    rsa_key,
)

HOME = ip_network("192.168.0.0/24")
AT_HOME, NEXT_DOOR = map(ip_address, ("192.168.0.65", "192.168.0.68"))  # Alice, and Dave with her
SHARED = Translation(HOME, ip_network(SG_A))
ONE_TO_ONE = Translation(HOME, ip_network("192.1.0.0/24"))
IN_FRONT = ip_address("192.1.1.7")  # a NAT that is not ours
MASQUERADE = 'nft table ip nat: oifname "eth1" masquerade'


def shared(*rules: Rule, **more: Any) -> Playbook:
    """SG-A, which translates all of its hosts to its own address."""
    return Playbook(*rules, nat=Nat((SHARED,)), **more)


def host_pair(source: Any, destination: Any = BOB) -> Scope:
    return Scope(ip_network(source), ip_network(destination))


def keyed(book: Playbook, inside: Any = AT_HOME, outside: Any = SG_A) -> list[do.Command]:
    """From the first packet of a host to its tunnel; returns the last commands."""
    book.send(ping(1, inside))
    book.send(happened.LookupEnded(1, found((SG_B, "sg-b"))))
    book.send(keying.InboundSaEstablished(0, esp_sa(SG_B, SG_A, 0x1001, (BOB, outside))))
    book.send(happened.SaInstalled(0, inbound_key(0x1001)))
    book.send(keying.OutboundSaEstablished(0, esp_sa(SG_A, SG_B, 0x2001, (outside, BOB))))
    commands = book.send(happened.SaInstalled(0, outbound_key(0x2001)))
    assert book.state(inside) == "keyed"
    return commands


def refusals(book: Playbook) -> list[str]:
    return [
        str(fields["reason"])
        for category, event, fields in book.trace.lines
        if event == "dropped" and category == "gateway"
    ]


def reason(book: Playbook, source: Any = AT_HOME) -> str:
    connection = book.gateway.find(Flow(source, BOB, 1))
    assert connection is not None
    return connection.reason


class TestTranslation:
    def test_many_become_one(self) -> None:
        assert SHARED.shared
        assert SHARED.outward(AT_HOME) == SHARED.outward(NEXT_DOOR) == SG_A

    def test_each_becomes_its_own(self) -> None:
        assert not ONE_TO_ONE.shared
        assert ONE_TO_ONE.outward(AT_HOME) == ALICE

    @pytest.mark.parametrize(
        ("by", "network", "inside"),
        [
            (SHARED, "192.1.1.4", "192.168.0.0/24"),
            (SHARED, "192.1.1.0/24", "192.168.0.0/24"),
            (SHARED, "0.0.0.0/0", "192.168.0.0/24"),
            (SHARED, "192.1.1.5", None),
            (SHARED, "192.168.0.0/24", None),
            (SHARED, "::/0", None),
            (ONE_TO_ONE, "192.1.0.0/16", "192.168.0.0/24"),
            (ONE_TO_ONE, "192.1.0.64/26", "192.168.0.64/26"),
            (ONE_TO_ONE, "192.1.0.65", "192.168.0.65"),
            (ONE_TO_ONE, "192.1.1.0/24", None),
        ],
    )
    def test_a_prefix_outside_stands_for_hosts_inside(
        self, by: Translation, network: str, inside: str | None
    ) -> None:
        expected = None if inside is None else ip_network(inside)
        assert by.inward(ip_network(network)) == expected

    def test_ipv6_is_translated_like_ipv4(self) -> None:
        by = Translation(ip_network("fd00:1::/64"), ip_network("2001:db8:5::/64"))
        assert by.outward(ip_address("fd00:1::65")) == ip_address("2001:db8:5::65")
        assert by.inward(ip_network("2001:db8:5::65")) == ip_network("fd00:1::65")

    def test_the_gateways_own_address_is_that_of_the_family(self) -> None:
        v6 = ip_address("2001:db8:1:1::4")
        rules = [NatRule(HOME), NatRule(ip_network("fd00:1::/64"), None, "oegw.toml: nat[2]")]
        box: dict[str, Any] = {"named": False, "served": (), "translates": ()}
        nat = nat_of(rules, (SG_A, v6), **box)
        assert [t.outside for t in nat.translations] == [ip_network(SG_A), ip_network(v6)]
        with pytest.raises(ValueError, match=r"nat\[2\]: this box has no outer IPv6 address"):
            nat_of(rules, (SG_A,), **box)


def around(scope: Scope, flow: Flow, dice: random.Random) -> Flow:
    """Some flow within a scope."""

    def within(network: Any) -> Any:
        return network[dice.randrange(network.num_addresses)]

    def port(ports: PortRange, own: int | None) -> int | None:
        return own if own is None else dice.randint(ports.first, ports.last)

    return Flow(
        within(scope.source),
        within(scope.destination),
        flow.protocol if scope.protocol is None else scope.protocol,
        port(scope.source_ports, flow.source_port),
        port(scope.destination_ports, flow.destination_port),
    )


def random_table(dice: random.Random) -> PolicyTable:
    places = (
        "0.0.0.0/0", "192.0.0.0/8", "192.1.0.0/16", "192.1.1.4/32", "192.1.0.0/24",
        "192.1.0.64/26", "192.168.0.0/16", "192.168.0.0/24", "192.168.0.64/26", "192.168.0.65/32",
    )  # fmt: skip
    ends = ("192.2.0.0/16", "192.2.0.0/24", "192.2.0.66/32")
    rules = []
    pairs = dice.sample([(s, d) for s in places for d in ends], 5)
    for number, (source, destination) in enumerate(pairs):
        category = dice.choice([Category.PERMIT, Category.OPPORTUNISTIC, Category.CONFIGURED])
        networks = (ip_network(source),), (ip_network(destination),)
        tcp = 6 if dice.random() < 0.4 else None
        rules.append(Rule(f"rule {number}", category, *networks, tcp, override=True))
    return PolicyTable(tuple(rules), Rule("default", Category.OPPORTUNISTIC))


def test_what_holds_for_the_kernel_holds_for_every_packet_of_the_scope() -> None:
    """The kernel decides by the pair before NAT: each of them must get what the policy says of it
    behind NAT."""
    dice = random.Random(7)
    other = Translation(ip_network("192.168.1.0/24"), ip_network("192.1.1.9"))
    compared = 0
    for _ in range(300):
        table = random_table(dice)
        nat = Nat((dice.choice([SHARED, ONE_TO_ONE]), other))
        for _ in range(10):
            source = dice.choice(["192.168.0.65", "192.168.0.1", "192.168.1.5", "192.1.0.65"])
            flow = Flow(ip_address(source), ip_address("192.2.0.66"), 6, 1024, 80)
            seen = nat.seen(flow, table)
            assert flow.source in seen.scope.source
            for _ in range(5):
                near = around(seen.scope, flow, dice)
                assert nat.seen(near, table).rule.name == seen.rule.name, (flow, near, seen)
                compared += 1
    assert compared == 15000


class TestPolicy:
    def test_the_rule_is_that_of_the_translated_source(self) -> None:
        inside = Rule("inside", Category.DENY, (HOME,), None)
        outside = Rule("outside", Category.PERMIT, (ip_network(SG_A),), None)
        book = shared(inside, outside)
        scope = Scope(HOME, ip_network("0.0.0.0/0"))
        assert book.send(ping(1, AT_HOME)) == [
            do.InstallPolicy(scope, Verdict.CLEAR, 300.0),
            do.ReleaseHeld((1,), Verdict.CLEAR),
        ]

    def test_a_configured_rule_has_the_addresses_inside(self) -> None:
        """Draft section 7.1: configured tunnels bridge islands of private address space."""
        branch = configured("branch", "192.168.0.0/24", "192.2.0.0/24")
        seen = Nat((SHARED,)).seen(
            Flow(AT_HOME, BOB, 1), PolicyTable((branch,), opportunistic("default"))
        )
        assert (seen.rule.name, seen.flow.source, seen.by) == ("branch", AT_HOME, None)

    def test_a_source_that_is_not_translated_gets_no_verdict_for_those_that_are(self) -> None:
        book = shared(Rule("A", Category.DENY, (ip_network(SG_A),), None), permit("rest", None))
        commands = book.send(ping(1, ALICE))
        everyone = Scope(ip_network("192.1.0.0/24"), ip_network("0.0.0.0/0"))
        assert commands[0] == do.InstallPolicy(everyone, Verdict.CLEAR, 300.0)
        deny = Rule("A", Category.DENY, (ip_network(SG_A),), None)
        table = PolicyTable((deny,), permit("rest", None))
        flow = Flow(ip_address("192.200.0.1"), BOB, 1)
        assert table.lookup(flow).scope.source.supernet_of(HOME)
        assert Nat((SHARED,)).seen(flow, table).scope.source == ip_network("192.200.0.1")

    def test_a_hosts_set_ups_are_on_its_own_account(self) -> None:
        book = shared(setups_per_source=1)
        assert book.send(ping(1, AT_HOME, BOB))
        other = ip_address("192.2.0.67")
        assert book.send(ping(2, AT_HOME, other)) == [do.DiscardHeld((2,), "source_limit")]
        assert do.StartLookup(2, other) in book.send(ping(3, NEXT_DOOR, other))


class TestShared:
    """Draft section 7.1: separate tunnels for Alice and Dave are not possible."""

    def test_oe_snat_01_look_up_and_proposal_are_for_the_translated_pair(self) -> None:
        book = shared()
        assert book.send(ping(1, AT_HOME)) == [do.StartLookup(1, BOB)]
        (order,) = book.send(happened.LookupEnded(1, found((SG_B, "sg-b"))))
        assert isinstance(order, do.StartNegotiation)
        assert order.request.local_selector.network == ip_network(SG_A)

    def test_two_hosts_have_one_connection_and_both_first_packets(self) -> None:
        book = shared()
        book.send(ping(1, AT_HOME))
        assert book.send(ping(2, NEXT_DOOR)) == []
        assert book.send(ping(3, AT_HOME)) == []
        assert book.send(ping(4, AT_HOME)) == [do.DiscardHeld((3,), "hold_newer_came")]
        book.send(happened.LookupEnded(1, found((SG_B, "sg-b"))))
        book.send(keying.InboundSaEstablished(0, esp_sa(SG_B, SG_A, 0x1001, (BOB, SG_A))))
        book.send(happened.SaInstalled(0, inbound_key(0x1001)))
        book.send(keying.OutboundSaEstablished(0, esp_sa(SG_A, SG_B, 0x2001, (SG_A, BOB))))
        commands = book.send(happened.SaInstalled(0, outbound_key(0x2001)))
        assert commands[-1] == do.ReleaseHeld((1, 2, 4), Verdict.TUNNEL)
        scopes = [c.scope for c in commands if isinstance(c, do.InstallPolicy)]
        assert scopes == [host_pair(SG_A), host_pair(AT_HOME), host_pair(NEXT_DOOR)]
        assert len(list(book.gateway.connections())) == 1

    def test_who_comes_later_joins(self) -> None:
        book = shared()
        keyed(book)
        commands = book.send(ping(2, NEXT_DOOR))
        assert [c.scope for c in commands if isinstance(c, do.InstallPolicy)] == [
            host_pair(NEXT_DOOR)
        ]
        assert commands[-1] == do.ReleaseHeld((2,), Verdict.TUNNEL)

    def test_with_the_tunnel_all_verdicts_go(self) -> None:
        book = shared()
        keyed(book)
        book.send(ping(2, NEXT_DOOR))
        commands = book.send(keying.TunnelClosed(0, "deleted by the peer"))
        removed = [c.scope for c in commands if isinstance(c, do.RemovePolicy)]
        assert removed == [host_pair(SG_A), host_pair(AT_HOME), host_pair(NEXT_DOOR)]

    def test_clear_packets_of_the_translated_pair_stay_out(self) -> None:
        """What comes back on the wire has the address outside."""
        book = shared(opportunistic("bob", "192.2.0.0/24", OnFailure.DROP))
        commands = keyed(book)
        kept_out = {c.scope for c in commands if isinstance(c, do.InstallPolicy)}
        assert all(c.drop_clear_inbound for c in commands if isinstance(c, do.InstallPolicy))
        assert host_pair(SG_A) in kept_out

    def test_the_peers_tunnel_serves_us(self) -> None:
        book = shared()
        book.send(proposal(local=SG_A))
        book.send(happened.LookupEnded(1, found((SG_B, "sg-b"))))
        book.send(keying.InboundSaEstablished(1, esp_sa(SG_B, SG_A, 0x1001, (BOB, SG_A))))
        book.send(happened.SaInstalled(1, inbound_key(0x1001)))
        book.send(keying.OutboundSaEstablished(1, esp_sa(SG_A, SG_B, 0x2001, (SG_A, BOB))))
        book.send(happened.SaInstalled(1, outbound_key(0x2001)))
        commands = book.send(ping(1, AT_HOME))
        assert commands[-1] == do.ReleaseHeld((1,), Verdict.TUNNEL)

    def test_the_scopes_of_many_hosts_are_bounded(self) -> None:
        book = Playbook(nat=Nat((Translation(ip_network("10.0.0.0/8"), ip_network(SG_A)),)))
        keyed(book, ip_address("10.0.0.1"))
        for number in range(2, SCOPES_KEPT + 50):
            source = ip_address("10.0.0.0") + number
            commands = book.send(ping(number, source))
            assert commands[-1] == do.ReleaseHeld((number,), Verdict.TUNNEL)
        (connection,) = book.gateway.connections()
        assert len(connection.scopes) == SCOPES_KEPT
        assert [type(c) for c in commands] == [do.ReleaseHeld]  # not cached: the next is trapped
        assert len(connection.clients()) == SCOPES_KEPT - 1

    def test_a_new_policy_is_asked_about_the_translated_pair(self) -> None:
        book = shared(opportunistic("bob", "192.2.0.0/24"))
        keyed(book)
        outside = Rule("A", Category.DENY, (ip_network(SG_A),), None)
        table = PolicyTable((outside,), opportunistic("default"))
        commands = book.gateway.replace_policy(table, {}, book.now)
        assert do.RemovePolicy(host_pair(AT_HOME)) in commands
        assert book.state(AT_HOME) is None


class TestOneToOne:
    def test_each_host_has_a_tunnel_of_its_own(self) -> None:
        book = Playbook(nat=Nat((ONE_TO_ONE,)))
        keyed(book, AT_HOME, ALICE)
        assert do.StartLookup(2, BOB) in book.send(ping(2, NEXT_DOOR))
        assert len(list(book.gateway.connections())) == 2


class TestCases:
    """A row of the table in nat.md each."""

    def test_own_nat_shared(self) -> None:
        keyed(shared())

    def test_own_nat_one_to_one(self) -> None:
        keyed(Playbook(nat=Nat((ONE_TO_ONE,))), AT_HOME, ALICE)

    def test_own_nat_undeclared(self) -> None:
        book = Playbook(opportunistic("bob", None, OnFailure.DROP), nat=Nat(noticed=MASQUERADE))
        book.send(ping(1, AT_HOME))
        assert book.state(AT_HOME) == "denied"
        assert "192.168.0.65 is private, and this box translates it" in reason(book)
        assert book.trace.drops["source_refused"] == 1
        assert book.gateway.lookups_under_way == 0
        (warning,) = book.gateway.nat.warnings()
        assert MASQUERADE in warning
        assert "the configuration has no [[nat]]" in warning

    def test_own_nat_of_an_address_that_does_not_delegate_to_us(self) -> None:
        nat = Nat((Translation(HOME, ip_network("192.1.1.9")),))
        own = OwnSettings(rsa_key("sg-a"), "sg-a.example")
        book = Playbook(opportunistic("bob", None, OnFailure.DROP), nat=nat, own=own)
        asked = [c for c in book.send(ping(1, AT_HOME)) if isinstance(c, do.StartLookup)]
        assert [c.address for c in asked] == [BOB, ip_address("192.1.1.9")]
        book.send(happened.LookupEnded(2, NothingFound(30.0, "no such record")))
        book.send(happened.KeyLookupEnded(3, KeysFound((rsa_key("sg-a"),), 30.0, Trust.INSECURE)))
        book.send(happened.LookupEnded(1, found((SG_B, "sg-b"))))
        assert reason(book) == "192.1.1.9 does not delegate to us: no such record"
        assert book.state(AT_HOME) == "denied"

        book = Playbook()  # the peer's view: we are SG-A here, and hear of that address
        book.send(proposal(remote="192.1.1.9", identity="sg-b.example"))
        commands = book.send(happened.LookupEnded(1, NothingFound(30.0, "no such record")))
        assert [type(c) for c in commands] == [do.RefuseTunnel]
        assert refusals_of(commands) == ["no delegation by 192.1.1.9: no such record"]

    def test_own_nat_of_a_gateway_known_by_name_that_begins(self) -> None:
        """RFC 4322 section 6: "FQDN style can be used ... for initiators only"."""
        assert accepted(proposal(remote=SG_B, identity="sg-b.example"), NothingFound(30.0, "none"))

    def test_in_front_of_us_and_hosts_are_public(self) -> None:
        book = Playbook()
        event = replace(
            proposal(identity="sg-b.example", address=IN_FRONT),
            remote=TransportAddress(IN_FRONT, 20001),
        )
        book.send(event)
        assert do.AcceptTunnel(1) in book.send(happened.LookupEnded(1, named("sg-b.example")))

    def test_in_front_of_us_and_hosts_are_private(self) -> None:
        book = Playbook()
        book.send(ping(1, AT_HOME))
        assert reason(book) == "192.168.0.65 is private: no reverse map says who speaks for it"
        assert book.state(AT_HOME) == "clear"

    def test_in_front_of_us_and_its_address_delegates_to_our_name(self) -> None:
        nat = Nat((Translation(HOME, ip_network(IN_FRONT)),))
        keyed(Playbook(nat=nat), AT_HOME, IN_FRONT)

    def test_in_front_of_us_and_its_address_delegates_to_nobody(self) -> None:
        """No name helps here: others have that address as well, and could claim it."""
        event = replace(
            proposal(remote=IN_FRONT, identity="sg-b.example", address=IN_FRONT),
            remote=TransportAddress(IN_FRONT, 4500),
            translated=True,
        )
        nothing = NothingFound(30.0, "no such record")
        assert not accepted(event, nothing)
        port = replace(event, remote=TransportAddress(IN_FRONT, 24500), translated=False)
        assert not accepted(port, nothing)
        assert accepted(replace(event, translated=False), nothing)  # ESP in UDP, and no NAT

    def test_in_front_of_us_and_we_have_no_name(self) -> None:
        nat = Nat(nameless=(ip_address("192.168.9.5"),))
        book = Playbook(nat=nat)
        book.send(ping(1))
        assert reason(book, ALICE).startswith("our own address 192.168.9.5 is private")
        assert len(nat.warnings()) == 1
        key_needed = keying.PeerKeyNeeded(3, ip_address("192.168.9.5"), TransportAddress(IN_FRONT))
        assert [type(c) for c in Playbook().send(key_needed)] == [do.RefusePeerKeys]

    def test_in_front_of_the_peer_and_its_record_has_the_private_address(self) -> None:
        book = Playbook()
        book.send(ping(1))
        book.send(happened.LookupEnded(1, found((ip_address("192.168.9.5"), "sg-b"))))
        assert (book.state(), reason(book, ALICE)) == ("clear", "no gateway that we can use")

    def test_in_front_of_the_peer_and_its_record_has_a_name_only(self) -> None:
        """Draft section 6.3: a name is for gateways that begin; it has no address to go to."""
        book = Playbook()
        book.send(ping(1))
        book.send(happened.LookupEnded(1, named("sg-b.example")))
        assert (book.state(), reason(book, ALICE)) == ("clear", "no gateway that we can use")

    def test_in_front_of_the_peer_and_we_begin(self) -> None:
        """Nobody answers at the NAT's address, unless it passes ports 500 and 4500 on."""
        book = Playbook()
        book.send(ping(1))
        book.send(happened.LookupEnded(1, found((IN_FRONT, "sg-b"))))
        book.send(keying.NegotiationFailed(0, Failure.SILENCE, "no answer"))
        assert book.state() == "clear"
        assert "no answer" in reason(book, ALICE)

    def test_a_private_destination(self) -> None:
        book = Playbook()
        book.send(ping(1, ALICE, AT_HOME))
        connection = book.gateway.find(Flow(ALICE, AT_HOME, 1))
        assert connection is not None
        assert "192.168.0.65 is in a private or reserved range" in connection.reason

    def test_a_peer_asks_for_our_private_host(self) -> None:
        by_nat = shared().send(proposal(local=AT_HOME))
        assert refusals_of(by_nat) == [
            "192.168.0.65/32 is inside, and known outside as 192.1.1.4/32"
        ]
        plain = Playbook().send(proposal(local=AT_HOME))
        assert refusals_of(plain) == [
            "192.168.0.65 is private: no reverse map says who speaks for it"
        ]

    @pytest.mark.parametrize("claim", ["192.168.0.65", "10.1.2.3", "100.64.0.1", "fd00::1"])
    def test_a_peer_claims_a_private_host(self, claim: str) -> None:
        """RFC 3948 section 5.1: two peers could have the same."""
        local = ALICE if ":" not in claim else ip_address("2620::1")
        commands = Playbook().send(proposal(remote=claim, local=local))
        assert refusals_of(commands) == [f"{claim} is in a private or reserved range"]

    def test_two_peers_claim_the_same_host(self) -> None:
        """Only who the host delegates to gets it, behind whatever NAT the other is."""
        event = replace(
            proposal(identity="mallory.example", address=IN_FRONT, key="mallory"),
            remote=TransportAddress(IN_FRONT, 20001),
        )
        assert not accepted(event, found((SG_B, "sg-b")))
        assert accepted(proposal(), found((SG_B, "sg-b")))

    def test_a_host_that_is_its_own_gateway(self) -> None:
        carol = ip_address("192.1.1.67")
        event = proposal(remote=carol, identity="carol.example", address=carol)
        assert accepted(event, NothingFound(30.0, "no such record"))

    def test_a_host_that_is_its_own_gateway_and_another_speaks_for(self) -> None:
        carol = ip_address("192.1.1.67")
        event = proposal(remote=carol, identity="carol.example", address=carol)
        assert not accepted(event, found((SG_B, "sg-b")))


def named(name: str) -> GatewaysFound:
    gateway = FoundGateway(10, None, name, (rsa_key("sg-b"),))
    return GatewaysFound((gateway,), 3600.0, Trust.INSECURE)


def accepted(event: keying.TunnelProposed, answer: Any) -> bool:
    """Whether SG-A accepts a tunnel when this is what the reverse map of the client says."""
    book = Playbook()
    book.send(event)
    commands = book.send(happened.LookupEnded(1, answer))
    if isinstance(commands[0], do.StartKeyLookup):  # has the address a key of its own?
        none = NothingFound(30.0, "no KEY record")
        commands = book.send(happened.KeyLookupEnded(commands[0].lookup, none))
    assert len(commands) == 1
    assert isinstance(commands[0], do.AcceptTunnel | do.RefuseTunnel)
    return isinstance(commands[0], do.AcceptTunnel)


def refusals_of(commands: list[do.Command]) -> list[str]:
    return [c.reason for c in commands if isinstance(c, do.RefuseTunnel)]


DOCUMENT = Path(__file__).parents[2] / "oegw" / "docs" / "nat.md"


def test_each_row_of_the_document_has_its_test_and_each_test_its_row() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    tests = {name for name in vars(TestCases) if name.startswith("test_")}
    rows = [line for line in text.splitlines() if line.startswith("| ") and "`test_" in line]
    told = [word for row in rows for word in row.split("`") if word.startswith("test_")]
    assert sorted(told) == sorted(tests)


# ----------------------------------------------------------------- configuration


def problems(text: str) -> str:
    with pytest.raises(config.ConfigError) as caught:
        config.parse(f"version = 1\n{text}", Path("/etc/oegw/oegw.toml"))
    return str(caught.value)


def test_the_configuration_of_nat() -> None:
    settings = config.parse(
        """
version = 1
[[nat]]
inside = "192.168.0.0/24"
[[nat]]
inside = "192.168.1.0/24"
outside = "gateway"
[[nat]]
inside = "192.168.2.0/24"
outside = "192.1.5.0/24"
[[nat]]
inside = "192.168.3.7"
outside = "192.1.1.9"
""",
        Path("/etc/oegw/oegw.toml"),
    )
    assert [rule.outside for rule in settings.nat] == [
        None, None, ip_network("192.1.5.0/24"), ip_network("192.1.1.9"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nat = 3", "nat: must be written [[nat]]"),
        ("nat = [3]", "nat[1]: must be a table"),
        ("[[nat]]", "nat[1].inside: is missing"),
        ("[[nat]]\ninside = 3", "nat[1].inside"),
        ('[[nat]]\ninside = "192.168.0.1/24"', "nat[1].inside"),
        ('[[nat]]\ninside = "0.0.0.0/0"', "nat[1].inside: 0.0.0.0/0 is everything"),
        ('[[nat]]\ninside = "192.168.0.0/24"\noutside = "2001:db8::1"', "another address family"),
        ('[[nat]]\ninside = "192.168.0.0/24"\noutside = "192.1.0.0/25"', "neither one address"),
        ('[[nat]]\ninside = "192.168.0.0/24"\noutside = "224.0.0.1"', "not the address of a host"),
        ('[[nat]]\ninside = "192.168.0.0/24"\noutside = "192.168.0.9"', "is itself translated"),
        ('[[nat]]\ninside = "192.168.0.0/24"\nouside = "192.1.1.4"', 'did you mean "outside"'),
        (
            '[[nat]]\ninside = "192.168.0.0/16"\n[[nat]]\ninside = "192.168.1.0/24"',
            "nat[2].inside: 192.168.1.0/24 overlaps 192.168.0.0/16 of another [[nat]]",
        ),
    ],
)
def test_wrong_configurations_are_named(text: str, told: str) -> None:
    assert told in problems(text)


# --------------------------------------------------------------- what people read


def explained(nat: Nat, source: Any = AT_HOME, *rules: Rule) -> dict[str, str]:
    table = PolicyTable(rules, opportunistic("default"))
    return dict(explanation(Flow(source, BOB, 1), table, Settings(), nat))


def test_explain_says_what_is_translated_and_that_a_tunnel_is_shared() -> None:
    text = explained(Nat((SHARED,)))["nat"]
    assert text.startswith("192.168.0.65 leaves as 192.1.1.4")
    assert "All hosts of 192.168.0.0/24 share that address, and with it one tunnel" in text
    alone = explained(Nat((ONE_TO_ONE,)))["nat"]
    assert alone.startswith("192.168.0.65 leaves as 192.1.0.65")
    assert "share" not in alone


def test_explain_gives_the_rule_of_the_translated_source() -> None:
    outside = Rule("outside", Category.DENY, (ip_network(SG_A),), None)
    assert explained(Nat((SHARED,)), AT_HOME, outside)["rule"] == "outside"
    assert explained(Nat(), AT_HOME, outside)["rule"] == "default"


def test_explain_says_why_there_is_no_tunnel() -> None:
    what = explained(Nat(noticed=MASQUERADE))["what"]
    assert "No tunnel can be had: 192.168.0.65 is private" in what
    assert MASQUERADE in what


def test_status_shows_the_clients_of_a_shared_connection() -> None:
    row = {
        "source": "192.1.1.4/32", "destination": "192.2.0.66/32", "state": "keyed",
        "clients": {"number": 11, "first": ["192.168.0.65", "192.168.0.68"]},
    }  # fmt: skip
    text = render({"connections": [row], "nat": [str(SHARED)], "warnings": ["look out"]})
    assert "for 192.168.0.65, 192.168.0.68 and 9 more" in text
    assert "NAT           192.168.0.0/24 as 192.1.1.4, all share one address" in text
    assert "Warning       look out" in text


def test_check_prints_what_is_translated(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "oegw.toml"
    path.write_text(
        'version = 1\n[gateway]\naddresses = ["192.1.1.4"]\nprivate_key = "none.pem"\n'
        '[[nat]]\ninside = "192.168.0.0/24"\n'
    )
    assert main(["check", "--config", str(path)]) == 0
    assert "NAT: 192.168.0.0/24 as 192.1.1.4, all share one address" in capsys.readouterr().out


def test_a_seen_packet_is_a_value() -> None:
    seen = Nat((SHARED,)).seen(Flow(AT_HOME, BOB, 1), PolicyTable((), opportunistic("default")))
    assert isinstance(seen, Seen)
    assert seen.by is SHARED
    assert seen.policy_scope.source != seen.scope.source
