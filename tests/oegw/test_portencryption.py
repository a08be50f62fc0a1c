"""Port encryption in and around tunnels: what the coordinator does for ``inner`` and ``outer``.

SST-29, SST-34, SST-35 and SST-38, as far as the coordinator has a part in them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import ike.events as keying
from dnsrecords.outcome import NothingFound
from ike.events import Encapsulation, Failure, TunnelRequest
from oegw import commands as do
from oegw import events as happened
from oegw.commands import Verdict
from oegw.console import _row
from oegw.decision import DecisionPoint, Opinion
from oegw.gateways import Choice, MultihomingSettings
from oegw.ledger import LINGER
from oegw.peer import ConfiguredPeer
from oegw.shields import AFTER_THE_LAST
from policy.flow import Flow
from policy.rule import Category, OnFailure, Rule, Sst, SstStrength
from policy.table import PolicyTable
from tests.support.playbook import (
    ALICE,
    BOB,
    SG_A,
    SG_B,
    SG_D,
    Playbook,
    configured,
    esp_sa,
    found,
    host,
    inbound_key,
    opportunistic,
    outbound_key,
    ping,
    proposal,
    rsa_key,
)

KEY, OTHER = bytes(range(16)), bytes(range(16, 32))
OUTER, INNER = {"sst": Sst.OUTER}, {"sst": Sst.INNER}
REQUIRED = {"sst_strength": SstStrength.REQUIRED}


def a_book(default: dict[str, Any], *rules: Rule, **settings: Any) -> Playbook:
    settings = {"encrypts_ports": True, **settings}
    return Playbook(*rules, default=opportunistic("default", **default), **settings)


def request(**changes: Any) -> TunnelRequest:
    plain = TunnelRequest(SG_A, SG_B, host(ALICE), host(BOB), (rsa_key("sg-b"),))
    return replace(plain, **changes)


def ordered(book: Playbook) -> list[do.Command]:
    """A packet of ours, and what the DNS says."""
    book.send(ping(1))
    return book.send(happened.LookupEnded(1, found((SG_B, "sg-b"))))


def agreed(
    book: Playbook, tunnel: int = 0, key: bytes | None = KEY, *, translated: bool = False,
    spi: int = 0x1001,
) -> list[do.Command]:  # fmt: skip
    sa = esp_sa(SG_B, SG_A, spi, (BOB, ALICE))
    return book.send(keying.InboundSaEstablished(tunnel, sa, key, translated))


def up(
    book: Playbook, tunnel: int = 0, spis: tuple[int, int] = (0x1001, 0x2001), **how: Any
) -> list[do.Command]:
    """A tunnel from quick mode to its last SA; returns what follows from that."""
    agreed(book, tunnel, spi=spis[0], **how)
    book.send(happened.SaInstalled(tunnel, inbound_key(spis[0])))
    book.send(keying.OutboundSaEstablished(tunnel, esp_sa(SG_A, SG_B, spis[1], (ALICE, BOB))))
    return book.send(happened.SaInstalled(tunnel, outbound_key(spis[1])))


def tunnel(book: Playbook, number: int = 0) -> Any:
    connection = book.gateway._ledger.connections.of_tunnel(number)
    assert connection is not None
    return connection.tunnels[number]


def kinds(commands: list[do.Command]) -> list[type]:
    return [type(command) for command in commands]


def reason(book: Playbook) -> str:
    connection = book.gateway.find(Flow(ALICE, BOB, 1))
    assert connection is not None
    return connection.reason


class TestInner:
    def test_sst_34_the_receiver_can_open_before_the_sender_may_seal(self) -> None:
        book = a_book(INNER)
        assert ordered(book) == [do.StartNegotiation(0, request(sst=True))]
        seal, install = agreed(book)
        assert seal == do.SealTunnel(0, host(ALICE).network, host(BOB).network, KEY)
        assert isinstance(install, do.InstallSa)
        assert book.send(happened.SaInstalled(0, inbound_key(0x1001))) == [do.ConfirmInbound(0)]
        [install] = book.send(
            keying.OutboundSaEstablished(0, esp_sa(SG_A, SG_B, 0x2001, (ALICE, BOB)))
        )
        assert isinstance(install, do.InstallSa)
        last = book.send(happened.SaInstalled(0, outbound_key(0x2001)))
        assert kinds(last) == [do.SendSealed, do.InstallPolicy, do.ReleaseHeld]

    def test_the_key_is_in_no_repr(self) -> None:
        assert repr(KEY) not in repr(do.SealTunnel(0, host(ALICE).network, host(BOB).network, KEY))

    @pytest.mark.parametrize("placement", [Sst.OFF, Sst.ONLY])
    def test_no_other_placement_offers_it(self, placement: Sst) -> None:
        assert ordered(a_book({"sst": placement})) == [do.StartNegotiation(0, request())]

    def test_nor_where_port_encryption_does_not_run(self) -> None:
        book = a_book(INNER, encrypts_ports=False)
        assert ordered(book) == [do.StartNegotiation(0, request())]

    def test_sst_29_opportunistic_goes_on_with_a_peer_that_does_not_do_it_and_says_so(self) -> None:
        book = a_book(INNER)
        ordered(book)
        last = up(book, key=None)
        assert kinds(last) == [do.InstallPolicy, do.ReleaseHeld]
        assert book.state() == "keyed"
        [(_, _, fields)] = [line for line in book.trace.lines if line[1] == "tunnel_without"]
        assert fields["wanted"] == "inner"
        assert "does not encrypt ports" in fields["reason"]
        assert "does not encrypt ports" in tunnel(book).unsealed

    @pytest.mark.parametrize("on_failure", list(OnFailure))
    def test_sst_29_required_has_no_tunnel_with_a_peer_that_does_not_do_it(
        self, on_failure: OnFailure
    ) -> None:
        book = a_book({**INNER, **REQUIRED, "on_failure": on_failure})
        ordered(book)
        commands = agreed(book, key=None)
        assert do.CloseTunnel(0) in commands
        assert do.DiscardHeld((1,), "no_tunnel") in commands
        assert [c.verdict for c in commands if isinstance(c, do.InstallPolicy)] == [Verdict.DENY]
        assert not any(isinstance(c, do.InstallSa) for c in commands)
        assert book.state() == "denied"
        assert "the peer does not encrypt ports inside of tunnels" in reason(book)

    @pytest.mark.parametrize("outcome", [NothingFound(60.0, "no record")])
    def test_sst_29_required_never_falls_back_to_clear(self, outcome: Any) -> None:
        book = a_book({**INNER, **REQUIRED})
        book.send(ping(1))
        commands = book.send(happened.LookupEnded(1, outcome))
        assert do.DiscardHeld((1,), "no_tunnel") in commands
        assert book.state() == "denied"

    def test_sst_29_a_decision_point_can_not_permit_what_is_required(self) -> None:
        point = DecisionPoint("point", "http://192.1.0.80/")
        book = a_book({**INNER, **REQUIRED}, decision_points=(point,))
        asked = book.send(ping(1))
        [lookup] = [c.lookup for c in asked if isinstance(c, do.StartLookup)]
        [question] = [c.lookup for c in asked if isinstance(c, do.StartDecision)]
        book.send(happened.DecisionsEnded(question, ((point, Opinion(Category.PERMIT)),)))
        book.send(happened.LookupEnded(lookup, NothingFound(60.0, "no record")))
        assert book.state() == "denied"
        assert book.trace.drops["not_relaxed"] == 1

    def test_configured_rules_too(self) -> None:
        rule = replace(configured("office", "192.1.0.0/24", "192.2.0.0/24"), sst=Sst.INNER)
        peer = ConfiguredPeer(SG_B, rsa_key("sg-b"))
        book = Playbook(rule, peers={"office": peer}, encrypts_ports=True)
        [order] = book.send(ping(1))
        assert isinstance(order, do.StartNegotiation)
        assert order.request.sst
        [seal, _] = agreed(book)
        assert isinstance(seal, do.SealTunnel)
        assert (str(seal.local), str(seal.remote)) == ("192.1.0.0/24", "192.2.0.0/24")

    def test_not_for_selectors_that_name_ports(self) -> None:
        """They show what is encrypted.  A rule that claims a part makes others narrow."""
        mine = Rule("office", Category.CONFIGURED, (host(ALICE).network,), (host(BOB).network,), 17)
        book = a_book(INNER, mine, peers={"office": ConfiguredPeer(SG_D, rsa_key("sg-d"))})
        flow = Flow(ALICE, BOB, 6, 40000, 443)
        book.send(happened.PacketTrapped(flow, 1, 60))
        [order] = book.send(happened.LookupEnded(1, found((SG_B, "sg-b"))))
        assert isinstance(order, do.StartNegotiation)
        assert order.request.remote_selector.port == 443
        assert not order.request.sst
        agreed(book, key=None)
        assert "single ports" in tunnel(book).unsealed


class TestKeysOfTunnels:
    def test_sst_35_a_successor_takes_over_and_the_old_key_opens_until_its_sa_is_gone(self) -> None:
        book = a_book(INNER)
        ordered(book)
        up(book)
        [order] = book.renew(0)
        assert order == do.StartNegotiation(2, request(sst=True, replaces=0))
        assert do.SendSealed(2) in up(book, 2, (0x1002, 0x2002))
        assert book.send(keying.TunnelClosed(0, "replaced")) == [do.RemoveSa(outbound_key(0x2001))]
        assert book.wait(LINGER) == [do.RemoveSa(inbound_key(0x1001)), do.UnsealTunnel(0)]

    def test_sst_35_with_the_tunnel_that_sends_gone_the_other_seals(self) -> None:
        book = a_book(INNER)
        ordered(book)
        up(book)
        book.renew(0)
        up(book, 2, (0x1002, 0x2002), key=OTHER)
        assert do.SendSealed(0) in book.send(keying.TunnelClosed(2, "deleted by the peer"))

    def test_what_a_sealed_tunnel_is_followed_by_need_not_be_sealed(self) -> None:
        """The peer has switched it off: it can't open what the old key would seal."""
        book = a_book(INNER)
        ordered(book)
        up(book)
        book.renew(0)
        last = up(book, 2, (0x1002, 0x2002), key=None)
        assert do.SendUnsealed(0) in last
        assert not any(isinstance(command, do.UnsealTunnel) for command in last)

    def test_sst_35_of_two_begun_at_once_the_preferred_one_seals(self) -> None:
        book = a_book(INNER)
        ordered(book)
        up(book)
        book.send(replace(proposal(), sst=True))
        book.send(happened.LookupEnded(2, found((SG_B, "sg-b"))))
        assert do.SendSealed(1) in up(book, 1, (0x1002, 0x2002), key=OTHER)
        last = book.send(keying.TunnelPreferred(0))
        assert last == [do.RemoveSa(outbound_key(0x2002)), do.SendSealed(0)]

    def test_a_tunnel_that_is_preferred_by_the_operators_choice_seals(self) -> None:
        book = a_book(INNER, multihoming=MultihomingSettings(Choice.ROUND_ROBIN))
        ordered(book)
        up(book)
        theirs = replace(proposal(address=SG_D, identity=SG_D, key="sg-d"), sst=True)
        book.send(theirs)
        book.send(happened.LookupEnded(2, found((SG_D, "sg-d"))))
        assert do.SendSealed(1) in up(book, 1, (0x1002, 0x2002), key=OTHER)
        commands = book.send(happened.UsageReported({}))
        assert [type(c) for c in commands][-2:] == [do.PreferSa, do.SendSealed]
        assert commands[-1] == do.SendSealed(0)

    def test_a_negotiation_that_fails_after_the_key_forgets_it(self) -> None:
        book = a_book(INNER)
        ordered(book)
        agreed(book)
        failed = keying.NegotiationFailed(0, Failure.REFUSED, "no message 3")
        assert do.UnsealTunnel(0) in book.send(failed)

    def test_an_sa_that_can_not_be_installed_forgets_it(self) -> None:
        book = a_book(INNER)
        ordered(book)
        agreed(book)
        failed = happened.SaInstallFailed(0, inbound_key(0x1001), "no room")
        assert do.UnsealTunnel(0) in book.send(failed)


class TestResponder:
    def propose(self, book: Playbook, **changes: Any) -> list[do.Command]:
        book.send(replace(proposal(), **changes))
        return book.send(happened.LookupEnded(1, found((SG_B, "sg-b"))))

    @pytest.mark.parametrize("placement", list(Sst))
    def test_sst_38_what_a_peer_offers_is_accepted_whatever_our_rule_says(
        self, placement: Sst
    ) -> None:
        book = a_book({"sst": placement})
        assert do.AcceptTunnel(1, sst=True) in self.propose(book, sst=True)

    def test_not_where_port_encryption_does_not_run(self) -> None:
        book = a_book({}, encrypts_ports=False)
        assert do.AcceptTunnel(1) in self.propose(book, sst=True)

    def test_not_for_selectors_that_name_ports(self) -> None:
        book = a_book({})
        here = keying.TrafficSelector(host(ALICE).network, 6, 443)
        there = keying.TrafficSelector(host(BOB).network, 6, 0)
        accepted = self.propose(book, sst=True, local_selector=here, remote_selector=there)
        assert do.AcceptTunnel(1) in accepted

    def test_what_was_accepted_with_it_is_renewed_with_it(self) -> None:
        book = a_book({})
        self.propose(book, sst=True)
        up(book, 1)
        [order] = book.renew(1)
        assert isinstance(order, do.StartNegotiation)
        assert order.request.sst

    def test_what_was_accepted_without_is_renewed_with_it_if_the_rule_wants_it(self) -> None:
        book = a_book(INNER)
        self.propose(book)
        up(book, 1, key=None)
        [order] = book.renew(1)
        assert isinstance(order, do.StartNegotiation)
        assert order.request.sst

    def test_sst_29_required_inside_refuses_a_peer_that_does_not_offer_it(self) -> None:
        book = a_book({**INNER, **REQUIRED})
        assert do.RefuseTunnel(1, "the peer does not encrypt ports inside of tunnels") in (
            self.propose(book)
        )
        [refusal] = book.gateway.refusals
        assert "does not encrypt ports" in refusal.reason

    def test_sst_29_required_inside_refuses_single_ports(self) -> None:
        book = a_book({**INNER, **REQUIRED})
        there = keying.TrafficSelector(host(BOB).network, 6, 443)
        here = keying.TrafficSelector(host(ALICE).network, 6, 0)
        commands = self.propose(book, sst=True, local_selector=here, remote_selector=there)
        [refused] = [c for c in commands if isinstance(c, do.RefuseTunnel)]
        assert "single ports" in refused.reason

    @pytest.mark.parametrize("came", [False, True])
    def test_sst_29_required_outside_refuses_a_peer_that_came_without(self, came: bool) -> None:
        asked = []

        def came_shielded(local: Any, remote: Any) -> bool:
            asked.append((local, remote))
            return came

        book = a_book({**OUTER, **REQUIRED}, came_shielded=came_shielded)
        [command] = [
            c for c in self.propose(book) if isinstance(c, do.AcceptTunnel | do.RefuseTunnel)
        ]
        assert set(asked) == {(SG_A, SG_B)}
        if came:
            assert command == do.AcceptTunnel(1)
            assert tunnel(book, 1).shielded
            assert kinds(agreed(book, 1, None)) == [do.InstallSa]
        else:
            assert command == do.RefuseTunnel(1, "the ports of IKE were not encrypted")

    def test_a_peer_that_forces_udp_pretends_to_be_behind_a_nat(self) -> None:
        """That is how it shields itself; it does not tear down what it came with."""
        book = a_book({**OUTER, **REQUIRED}, came_shielded=lambda local, remote: True)
        self.propose(book)
        assert kinds(agreed(book, 1, None, translated=True)) == [do.InstallSa]


class TestOuter:
    def test_sst_38_message_1_waits_for_the_shield_and_esp_goes_in_udp(self) -> None:
        book = a_book(OUTER)
        assert ordered(book) == [do.ShieldGateway(0, SG_A, SG_B)]
        assert book.send(happened.GatewayShielded(0, None)) == [
            do.StartNegotiation(0, request(encapsulation=Encapsulation.UDP))
        ]
        assert kinds(up(book, key=None)) == [do.InstallPolicy, do.ReleaseHeld]
        assert tunnel(book).shielded

    def test_sst_29_opportunistic_goes_on_without_and_says_so(self) -> None:
        book = a_book(OUTER)
        ordered(book)
        assert book.send(happened.GatewayShielded(0, "the path clears the flag")) == [
            do.StartNegotiation(0, request())
        ]
        [(_, _, fields)] = [line for line in book.trace.lines if line[1] == "tunnel_without"]
        assert "the path clears the flag" in fields["reason"]
        assert "the path clears the flag" in tunnel(book).unsealed
        assert kinds(up(book, key=None)) == [do.InstallPolicy, do.ReleaseHeld]

    def test_sst_29_required_negotiates_nothing_without(self) -> None:
        book = a_book({**OUTER, **REQUIRED})
        ordered(book)
        commands = book.send(happened.GatewayShielded(0, "the path clears the flag"))
        assert not any(isinstance(c, do.StartNegotiation) for c in commands)
        assert book.state() == "denied"
        assert "the path clears the flag" in reason(book)
        assert not book.gateway.silent_gateways(book.now), "the gateway has no part in it"

    def test_with_several_gateways_the_next_one_is_tried(self) -> None:
        book = a_book({**OUTER, **REQUIRED})
        book.send(ping(1))
        first = book.send(happened.LookupEnded(1, found((SG_B, "sg-b"), (SG_D, "sg-d"))))
        assert first == [do.ShieldGateway(0, SG_A, SG_B)]
        following = book.send(happened.GatewayShielded(0, "no key"))
        assert following == [do.ShieldGateway(2, SG_A, SG_D)]
        assert book.send(happened.GatewayShielded(2, None))[0] == do.StartNegotiation(
            2,
            request(remote=SG_D, peer_keys=(rsa_key("sg-d"),), encapsulation=Encapsulation.UDP),
        )

    def test_sst_29_a_nat_ends_a_required_one(self) -> None:
        book = a_book({**OUTER, **REQUIRED})
        ordered(book)
        book.send(happened.GatewayShielded(0, None))
        commands = agreed(book, key=None, translated=True)
        assert do.CloseTunnel(0) in commands
        assert do.UnshieldGateway(SG_A, SG_B) in commands
        assert book.state() == "denied"
        assert "a NAT between the gateways rewrites ports" in reason(book)

    def test_sst_29_a_nat_lowers_the_shield_of_an_opportunistic_one(self) -> None:
        book = a_book(OUTER)
        ordered(book)
        book.send(happened.GatewayShielded(0, None))
        commands = agreed(book, key=None, translated=True)
        assert kinds(commands) == [do.UnshieldGateway, do.InstallSa]
        assert not tunnel(book).shielded
        assert "NAT" in tunnel(book).unsealed

    def test_an_answer_that_comes_too_late_begins_nothing(self) -> None:
        book = a_book(OUTER)
        ordered(book)
        book.gateway.replace_policy(PolicyTable((), opportunistic("other")), {}, book.now)
        book.gateway.forget(host(BOB).network, book.now)
        book.send(keying.NegotiationFailed(0, Failure.CANCELLED, "closed"))
        assert book.send(happened.GatewayShielded(0, None)) == []
        assert book.send(happened.GatewayShielded(99, None)) == []

    def test_a_shield_ends_a_while_after_the_last_tunnel_and_channel(self) -> None:
        book = a_book(OUTER)
        ordered(book)
        book.send(happened.GatewayShielded(0, None))
        ends = keying.TransportAddress(SG_A), keying.TransportAddress(SG_B)
        book.send(
            keying.KeyingChannelEstablished(4, *ends, SG_B, rsa_key("sg-b"), True, "modern", 0.1)
        )
        up(book, key=None)
        book.send(keying.TunnelClosed(0, "deleted by the peer"))
        book.wait(AFTER_THE_LAST + 1)
        assert book.send(keying.KeyingChannelClosed(4, "over")) == []
        assert do.UnshieldGateway(SG_A, SG_B) not in book.wait(AFTER_THE_LAST - 1)
        assert book.gateway.next_timer() is not None
        assert do.UnshieldGateway(SG_A, SG_B) in book.wait(1)
        assert not list(book.gateway._ledger.shields._shields)

    def test_two_tunnels_share_it(self) -> None:
        book = a_book(OUTER)
        ordered(book)
        book.send(happened.GatewayShielded(0, None))
        up(book, key=None)
        book.send(ping(2, SG_A))
        [second] = book.send(happened.LookupEnded(2, found((SG_B, "sg-b"))))
        assert second == do.ShieldGateway(2, SG_A, SG_B)
        book.send(happened.GatewayShielded(2, None))
        book.send(keying.TunnelClosed(0, "deleted by the peer"))
        assert do.UnshieldGateway(SG_A, SG_B) not in book.wait(AFTER_THE_LAST + 1)
        book.send(keying.NegotiationFailed(2, Failure.SILENCE, "no answer"))
        assert do.UnshieldGateway(SG_A, SG_B) in book.wait(AFTER_THE_LAST)

    def test_a_new_tunnel_in_time_keeps_it(self) -> None:
        book = a_book(OUTER)
        ordered(book)
        book.send(happened.GatewayShielded(0, None))
        up(book, key=None)
        book.send(keying.TunnelClosed(0, "deleted by the peer"))
        book.wait(AFTER_THE_LAST - 1)
        book.send(ping(2))
        book.send(happened.LookupEnded(2, found((SG_B, "sg-b"))))
        assert do.UnshieldGateway(SG_A, SG_B) not in book.wait(AFTER_THE_LAST)

    def test_a_successor_is_shielded_anew_and_else_as_the_peer_is_configured(self) -> None:
        rule = replace(configured("office", "192.1.0.0/24", "192.2.0.0/24"), sst=Sst.OUTER)
        peer = ConfiguredPeer(SG_B, rsa_key("sg-b"), encapsulation=Encapsulation.ESP)
        book = Playbook(rule, peers={"office": peer}, encrypts_ports=True)
        book.send(ping(1))
        [order] = book.send(happened.GatewayShielded(0, None))
        assert isinstance(order, do.StartNegotiation)
        assert order.request.encapsulation is Encapsulation.UDP
        up(book, key=None)
        assert book.send(keying.TunnelExpiring(0)) == [do.ShieldGateway(2, SG_A, SG_B)]
        [order] = book.send(happened.GatewayShielded(2, "the path clears the flag"))
        assert isinstance(order, do.StartNegotiation)
        assert order.request.encapsulation is Encapsulation.ESP
        assert order.request.replaces == 0

    def test_one_that_a_nat_has_come_before_leaves_the_others_their_shield(self) -> None:
        """Messages 3 and 4 can be forged: that must not lay open what requires the shield."""
        strict = Rule(
            "strict", Category.OPPORTUNISTIC, None, (host(BOB).network,), override=True,
            sst=Sst.OUTER, sst_strength=SstStrength.REQUIRED,
        )  # fmt: skip
        book = a_book(OUTER, strict)
        ordered(book)
        book.send(happened.GatewayShielded(0, None))
        up(book, key=None)
        other = BOB + 1
        book.send(ping(2, destination=other))
        book.send(happened.LookupEnded(2, found((SG_B, "sg-b"))))
        book.send(happened.GatewayShielded(2, None))
        assert kinds(agreed(book, 2, None, translated=True)) == [do.InstallSa]
        assert not tunnel(book, 2).shielded
        assert tunnel(book).shielded
        assert do.UnshieldGateway(SG_A, SG_B) not in book.wait(AFTER_THE_LAST + 1)

    def test_sst_29_what_could_not_be_shielded_is_no_shield_for_a_peer_that_begins(self) -> None:
        book = a_book({**OUTER, **REQUIRED})
        ordered(book)
        book.send(happened.GatewayShielded(0, "the path clears the flag"))
        book.send(proposal())
        commands = book.send(happened.LookupEnded(2, found((SG_B, "sg-b"))))
        assert do.RefuseTunnel(1, "the ports of IKE were not encrypted") in commands

    def test_our_own_shield_is_one_for_a_peer_that_begins(self) -> None:
        book = a_book({**OUTER, **REQUIRED})
        ordered(book)
        book.send(happened.GatewayShielded(0, None))
        book.send(proposal())
        assert do.AcceptTunnel(1) in book.send(happened.LookupEnded(2, found((SG_B, "sg-b"))))

    def test_opportunistic_takes_a_peer_that_came_without_and_says_so(self) -> None:
        book = a_book(OUTER)
        book.send(proposal())
        assert do.AcceptTunnel(1) in book.send(happened.LookupEnded(1, found((SG_B, "sg-b"))))
        up(book, 1, key=None)
        assert tunnel(book, 1).unsealed == "the ports of IKE were not encrypted"


class TestAnotherPolicy:
    @pytest.mark.parametrize(
        ("key", "wanted", "stays"),
        [
            (KEY, {**INNER, **REQUIRED}, True),
            (None, {**INNER, **REQUIRED}, False),
            (None, INNER, True),
            (KEY, {**OUTER, **REQUIRED}, False),
            (KEY, {}, True),
        ],
    )
    def test_sst_29_a_tunnel_without_what_is_required_now_ends(
        self, key: bytes | None, wanted: dict[str, Any], stays: bool
    ) -> None:
        book = a_book(INNER)
        ordered(book)
        up(book, key=key)
        table = PolicyTable((), opportunistic("default", **wanted))
        commands = book.gateway.replace_policy(table, {}, book.now)
        assert (do.CloseTunnel(0) not in commands) is stays

    def test_sst_29_a_flow_that_requires_it_is_not_carried_by_a_tunnel_of_another_rule(
        self,
    ) -> None:
        strict = Rule(
            "tcp", Category.OPPORTUNISTIC, None, None, 6, override=True,
            sst=Sst.INNER, sst_strength=SstStrength.REQUIRED,
        )  # fmt: skip
        book = a_book({}, strict)
        ordered(book)
        up(book, key=None)
        commands = book.send(happened.PacketTrapped(Flow(ALICE, BOB, 6, 40000, 22), 2, 60))
        assert not any(isinstance(c, do.ReleaseHeld) for c in commands)
        assert any(isinstance(c, do.StartLookup) for c in commands)


def test_the_status_says_whether_ports_are_sealed_inside_and_outside() -> None:
    book = a_book(INNER)
    ordered(book)
    up(book)
    [connection] = book.gateway.connections()
    row = _row(connection, {}, book.now)
    assert (row["sealed_inside"], row["sealed_outside"], row["unsealed"]) == (True, False, None)
    book = a_book(INNER)
    ordered(book)
    up(book, key=None)
    [connection] = book.gateway.connections()
    row = _row(connection, {}, book.now)
    assert (row["sealed_inside"], row["sealed_outside"]) == (False, False)
    assert "does not encrypt" in row["unsealed"]
