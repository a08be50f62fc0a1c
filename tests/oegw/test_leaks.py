"""What must not leave in clear, or not by a tunnel that is not good enough, at turns of a life.

Most of these were found by `test_random_lives`; here they are as playbooks.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import ike.events as keying
from dnsrecords.outcome import GatewaysFound, NothingFound, Unanswered
from dnsrecords.trust import Trust
from ike.events import Failure, TrafficSelector
from oegw import commands as do
from oegw import events as happened
from oegw.commands import Verdict
from oegw.decision import DecisionPoint, NoAnswer, Opinion
from policy.flow import Flow
from policy.rule import Category, OnFailure, PortRange, Require, Rule, Scope
from policy.table import PolicyTable
from tests.support.playbook import (
    ALICE,
    BOB,
    SG_A,
    SG_B,
    Playbook,
    esp_sa,
    found,
    inbound_key,
    opportunistic,
    outbound_key,
    ping,
    proposal,
)

WEB = Flow(ALICE, BOB, 6, 1234, 443)
MAIL = Flow(ALICE, BOB, 6, 1234, 25)
POINT = DecisionPoint("point", "http://192.1.0.80/")


def rule_for(port: int, category: Category = Category.OPPORTUNISTIC, **more: object) -> Rule:
    return Rule(
        f"port {port}", category, None, None, 6, destination_ports=PortRange(port, port),
        override=True, **more,  # type: ignore[arg-type]
    )  # fmt: skip


def packet(flow: Flow, number: int) -> happened.PacketTrapped:
    return happened.PacketTrapped(flow, number, 60)


def keyed(book: Playbook, number: int = 0) -> None:
    """From the first packet to a tunnel."""
    book.send(ping(1))
    book.send(happened.LookupEnded(1, found((SG_B, "sg-b"))))
    established(book, number)


def established(book: Playbook, number: int) -> list[do.Command]:
    book.send(
        keying.InboundSaEstablished(number, esp_sa(SG_B, SG_A, 0x1001 + number, (BOB, ALICE)))
    )
    book.send(happened.SaInstalled(number, inbound_key(0x1001 + number)))
    book.send(
        keying.OutboundSaEstablished(number, esp_sa(SG_A, SG_B, 0x2001 + number, (ALICE, BOB)))
    )
    return book.send(happened.SaInstalled(number, outbound_key(0x2001 + number)))


class TestTunnelOfAnotherRule:
    def test_protected_packets_it_has_carried_do_not_go_clear_with_it(self) -> None:
        book = Playbook(rule_for(443, on_failure=OnFailure.DROP))
        keyed(book)
        commands = book.send(packet(WEB, 2))
        [install] = [c for c in commands if isinstance(c, do.InstallPolicy)]
        assert (install.verdict, install.scope.destination_ports.first) == (Verdict.TUNNEL, 443)
        book.renew(0)
        assert do.RemovePolicy(install.scope) in book.send(keying.TunnelClosed(0, "lifetime over"))
        commands = book.send(keying.NegotiationFailed(2, Failure.SILENCE, "no answer"))
        assert book.state() == "clear"
        cleared = [c.scope for c in commands if isinstance(c, do.InstallPolicy)]
        assert install.scope not in cleared

    def test_what_is_still_being_asked_about_goes_by_it_once_it_is_up(self) -> None:
        book = Playbook(rule_for(25))
        book.send(ping(1))
        mail = book.send(packet(MAIL, 2))[0]
        assert isinstance(mail, do.StartLookup)
        book.send(happened.LookupEnded(1, found((SG_B, "sg-b"))))
        commands = established(book, 0)
        assert do.ReleaseHeld((2,), Verdict.TUNNEL) in commands
        assert do.CancelLookup(mail.lookup) in commands  # that finds nothing, perhaps
        assert book.send(packet(MAIL, 3))[-1] == do.ReleaseHeld((3,), Verdict.TUNNEL)

    def test_nor_does_a_negotiation_that_fails_later_let_out_what_it_carries(self) -> None:
        book = Playbook(rule_for(25))
        book.send(ping(1))
        mail = book.send(packet(MAIL, 2))[0]
        assert isinstance(mail, do.StartLookup)
        book.send(happened.LookupEnded(1, found((SG_B, "sg-b"))))
        book.send(happened.LookupEnded(mail.lookup, found((SG_B, "sg-b"))))
        established(book, 0)
        commands = book.send(keying.NegotiationFailed(2, Failure.SILENCE, "no answer"))
        assert do.ReleaseHeld((2,), Verdict.TUNNEL) in commands
        assert not [c for c in commands if isinstance(c, do.InstallPolicy)]
        assert book.send(packet(MAIL, 3))[-1] == do.ReleaseHeld((3,), Verdict.TUNNEL)

    def test_one_that_demands_less_of_the_records_does_not_carry_it(self) -> None:
        book = Playbook(rule_for(443, require=Require.SECURE))
        keyed(book)
        assert book.send(packet(MAIL, 2))[-1] == do.ReleaseHeld((2,), Verdict.TUNNEL)
        [question] = book.send(packet(WEB, 3))
        assert isinstance(question, do.StartLookup)
        assert question.with_keys

    def test_nor_one_that_a_decision_point_has_made_as_demanding_for_a_while(self) -> None:
        book = Playbook(rule_for(443, require=Require.SECURE), decision_points=(POINT,))
        ask, lookup = book.send(ping(1))
        assert isinstance(ask, do.StartDecision)
        assert isinstance(lookup, do.StartLookup)
        said = Opinion(Category.OPPORTUNISTIC, None, Require.SECURE, ttl=60.0)
        book.send(happened.DecisionsEnded(ask.lookup, ((POINT, said),)))
        outcome = found((SG_B, "sg-b"))
        assert isinstance(outcome, GatewaysFound)
        outcome = replace(outcome, trust=Trust.SECURE)
        book.send(happened.LookupEnded(lookup.lookup, outcome))
        established(book, 0)
        assert book.state() == "keyed"
        assert isinstance(book.send(packet(WEB, 2))[0], do.StartDecision)


class TestTunnelOfAPart:
    """A peer may propose a tunnel for one port of a pair: the rest is another connection's."""

    def test_its_verdict_is_for_that_part_only(self) -> None:
        book = Playbook()
        here = TrafficSelector(ip_network(ALICE), 6)
        there = TrafficSelector(ip_network(BOB), 6, 443)
        event = replace(proposal(), local_selector=here, remote_selector=there)
        [lookup] = book.send(event)
        assert isinstance(lookup, do.StartLookup)
        book.send(happened.LookupEnded(lookup.lookup, found((SG_B, "sg-b"))))
        part = Scope(ip_network(ALICE), ip_network(BOB), 6, destination_ports=PortRange(443, 443))
        # At once, so that a verdict for the pair does not let it out beside the tunnel.
        assert do.InstallPolicy(part, Verdict.TUNNEL, None) in established(book, 1)
        assert book.send(packet(WEB, 1)) == [
            do.InstallPolicy(part, Verdict.TUNNEL, None),
            do.ReleaseHeld((1,), Verdict.TUNNEL),
        ]
        [question] = book.send(ping(2))
        assert isinstance(question, do.StartLookup)


class TestReload:
    def test_packet_that_is_held_and_denied_now_does_not_leave(self) -> None:
        book = Playbook()
        [lookup] = book.send(packet(MAIL, 1))
        assert isinstance(lookup, do.StartLookup)
        table = PolicyTable([rule_for(25, Category.DENY)], opportunistic("default"))
        commands = book.gateway.replace_policy(table, {}, book.now)
        assert do.DiscardHeld((1,), "policy_changed") in commands
        commands = book.send(happened.LookupEnded(lookup.lookup, NothingFound(60.0, "none")))
        assert not [c for c in commands if isinstance(c, do.ReleaseHeld)]

    def test_packet_that_is_held_stays_where_nothing_has_changed_for_it(self) -> None:
        book = Playbook()
        [lookup] = book.send(packet(MAIL, 1))
        assert isinstance(lookup, do.StartLookup)
        commands = book.gateway.replace_policy(book.gateway.table, {}, book.now)
        assert not [c for c in commands if isinstance(c, do.DiscardHeld)]
        commands = book.send(happened.LookupEnded(lookup.lookup, NothingFound(60.0, "none")))
        assert do.ReleaseHeld((1,), Verdict.CLEAR) in commands

    def test_what_a_point_demanded_of_a_connection_under_way_still_holds(self) -> None:
        book = Playbook(decision_points=(POINT,))
        ask, lookup = book.send(ping(1))
        assert isinstance(ask, do.StartDecision)
        assert isinstance(lookup, do.StartLookup)
        said = Opinion(Category.OPPORTUNISTIC, OnFailure.DROP, ttl=600.0)
        book.send(happened.DecisionsEnded(ask.lookup, ((POINT, said),)))
        book.send(happened.LookupEnded(lookup.lookup, found((SG_B, "sg-b"))))
        assert book.state() == "pending"
        book.gateway.replace_policy(book.gateway.table, {}, book.now, (POINT,))
        book.send(keying.NegotiationFailed(0, Failure.SILENCE, "no answer"))
        assert book.state() == "denied"

    def test_new_points_are_asked_about_what_is_under_way(self) -> None:
        book = Playbook()
        [lookup] = book.send(ping(1))
        assert isinstance(lookup, do.StartLookup)
        commands = book.gateway.replace_policy(book.gateway.table, {}, book.now, (POINT,))
        assert do.CancelLookup(lookup.lookup) in commands
        ask, _ = book.send(ping(2))
        assert isinstance(ask, do.StartDecision)


class TestPointAboutAPeersProposal:
    def test_what_it_allowed_a_peer_is_not_the_rule_for_our_own_packets(self) -> None:
        strict = opportunistic("default", on_failure=OnFailure.DROP, relax=True)
        book = Playbook(default=strict, decision_points=(POINT,))
        ask, lookup = book.send(proposal())
        assert isinstance(ask, do.StartDecision)
        assert isinstance(lookup, do.StartLookup)
        said = Opinion(Category.OPPORTUNISTIC, OnFailure.CLEAR, ttl=600.0)
        book.send(happened.DecisionsEnded(ask.lookup, ((POINT, said),)))
        accepted = book.send(happened.LookupEnded(lookup.lookup, found((SG_B, "sg-b"))))
        assert do.AcceptTunnel(1) in accepted
        ask, lookup = book.send(ping(1))
        assert isinstance(ask, do.StartDecision)
        assert isinstance(lookup, do.StartLookup)
        book.send(keying.NegotiationFailed(1, Failure.SILENCE, "the peer gave up"))
        book.send(happened.DecisionsEnded(ask.lookup, ((POINT, NoAnswer("timeout")),)))
        book.send(happened.LookupEnded(lookup.lookup, Unanswered("silence")))
        assert book.state() == "denied"


class TestVerdicts:
    def test_one_that_is_put_back_twice_at_one_moment_ends_once(self) -> None:
        book = Playbook(setups_per_second=0.001)
        book.send(ping(1))
        book.send(happened.LookupEnded(1, NothingFound(60.0, "none")))
        book.wait(60)
        book.send(ping(2))
        book.send(ping(3))
        book.wait(120)
        assert book.state() is None

    def test_renewal_that_was_asked_for_before_does_not_stop_the_next_inquiry(self) -> None:
        book = Playbook()
        keyed(book)
        book.renew(0)
        [late] = book.send(keying.TunnelExpiring(0))  # again, as the successor is not up yet
        assert isinstance(late, do.StartLookup)
        book.send(keying.TunnelClosed(0, "lifetime over"))
        commands = book.send(keying.NegotiationFailed(2, Failure.SILENCE, "no answer"))
        assert book.state() == "clear"
        assert do.CancelLookup(late.lookup) in commands
        book.wait(60)
        lookup = book.send(ping(2))[0]
        assert isinstance(lookup, do.StartLookup)
        book.send(happened.LookupEnded(lookup.lookup, NothingFound(60.0, "none")))
        assert book.state() == "clear"


class TestNegotiationBesideTunnelsThatReceiveOnly:
    def test_its_failure_decides_though_they_are_still_there(self) -> None:
        book = Playbook()
        keyed(book)
        book.renew(0)
        established(book, 2)
        book.send(keying.TunnelPreferred(2))  # the first receives only
        book.renew(2)
        book.send(keying.TunnelClosed(2, "deleted by the peer"))
        book.send(ping(9))
        assert book.state() == "pending"
        commands = book.send(keying.NegotiationFailed(4, Failure.SILENCE, "no answer"))
        assert book.state() == "clear"
        assert do.CloseTunnel(0) in commands
        assert do.ReleaseHeld((9,), Verdict.CLEAR) in commands
