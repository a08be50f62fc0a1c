"""What has stood for its lifespan: an event goes in, exactly these commands come out.

RFC 4322 sections 3.2.5 to 3.2.8 and 3.4.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

import ike.events as keying
from dnsrecords.outcome import (
    Gateway,
    GatewayOutcome,
    GatewaysFound,
    KeyOutcome,
    KeysFound,
    Malformed,
    NothingFound,
    Unanswered,
)
from dnsrecords.trust import Trust
from ike.events import Failure, TransportAddress
from oegw import commands as do
from oegw import events as happened
from oegw.ageing import BEHIND, POSTPONED
from oegw.commands import Command, Verdict
from oegw.connection import Connection, host_network
from oegw.datapath.interface import Usage
from oegw.gateway import Lifespans
from oegw.ledger import LINGER
from oegw.peer import ConfiguredPeer
from policy.flow import IPAddress
from policy.rule import OnFailure, Require, Scope
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
    inbound_key,
    opportunistic,
    outbound_key,
    ping,
    proposal,
    rsa_key,
)

PAIR = Scope(host_network(ALICE), host_network(BOB))
DROP = opportunistic("all", on_failure=OnFailure.DROP)
BOTH = pytest.mark.parametrize("on_failure", list(OnFailure))


def fallen_back(on_failure: OnFailure, outcome: GatewayOutcome | None = None) -> Playbook:
    """Alice's packet found nothing, and the lifespan of 60 s is over."""
    book = Playbook(default=opportunistic("all", on_failure=on_failure))
    book.send(ping(1))
    book.send(happened.LookupEnded(1, outcome or NothingFound(60, "no record")))
    assert book.state() == ("clear" if on_failure is OnFailure.CLEAR else "denied")
    assert book.wait(60) == [do.RemovePolicy(PAIR)], "the kernel traps the next packet"
    assert book.state() == "expiring"
    return book


def verdict_of(on_failure: OnFailure) -> Verdict:
    return Verdict.CLEAR if on_failure is OnFailure.CLEAR else Verdict.DENY


def goes(packet: int, verdict: Verdict) -> Command:
    if verdict is Verdict.DENY:
        return do.DiscardHeld((packet,), "denied")
    return do.ReleaseHeld((packet,), verdict)


def bring_up(book: Playbook, tunnel: int, spi: int = 1, gateway: IPAddress = SG_B) -> list[Command]:
    """All that follows from a tunnel that is agreed."""
    inbound, outbound = 0x1000 + spi, 0x2000 + spi
    done = book.send(
        keying.InboundSaEstablished(tunnel, esp_sa(gateway, SG_A, inbound, (BOB, ALICE)))
    )
    done += book.send(happened.SaInstalled(tunnel, inbound_key(inbound)))
    done += book.send(
        keying.OutboundSaEstablished(tunnel, esp_sa(SG_A, gateway, outbound, (ALICE, BOB)))
    )
    return done + book.send(happened.SaInstalled(tunnel, outbound_key(outbound, gateway)))


def only(book: Playbook) -> Connection:
    (connection,) = book.gateway.connections()
    return connection


class TestVerdictThatIsOver:
    @BOTH
    def test_next_packet_goes_at_once_by_the_verdict_that_stood_and_the_dns_is_asked_behind_it(
        self, on_failure: OnFailure
    ) -> None:
        book, verdict = fallen_back(on_failure), verdict_of(on_failure)
        assert book.send(ping(2)) == [
            do.StartLookup(2, BOB),
            do.InstallPolicy(PAIR, verdict, BEHIND),
            goes(2, verdict),
        ]
        assert book.state() == "expiring"
        assert book.gateway.held == (0, 0)
        # One that was on its way to us when the verdict was put back goes as quickly.
        assert book.send(ping(3))[-1] == goes(3, verdict)
        assert book.gateway.lookups_under_way == 1

    @BOTH
    def test_same_conclusion_has_the_verdict_go_on(self, on_failure: OnFailure) -> None:
        book = fallen_back(on_failure)
        book.send(ping(2))
        assert book.send(happened.LookupEnded(2, NothingFound(45, "no record"))) == [
            do.InstallPolicy(PAIR, verdict_of(on_failure), 45)
        ]
        assert book.state() in ("clear", "denied")
        assert book.wait(45) == [do.RemovePolicy(PAIR)]
        assert book.state() == "expiring"

    @BOTH
    def test_gateway_that_came_later_is_negotiated_with_behind_the_verdict(
        self, on_failure: OnFailure
    ) -> None:
        book, verdict = fallen_back(on_failure), verdict_of(on_failure)
        book.send(ping(2))
        [start] = book.send(happened.LookupEnded(2, found((SG_B, "sg-b"))))
        assert isinstance(start, do.StartNegotiation)
        assert book.state() == "expiring"
        assert book.wait(BEHIND) == []
        assert book.send(ping(3)) == [
            do.InstallPolicy(PAIR, verdict, BEHIND),
            goes(3, verdict),
        ], "the negotiation lasts longer than the verdict: nothing is held, none is begun beside it"
        keyed_drop = on_failure is OnFailure.DROP
        assert bring_up(book, 0)[-1] == do.InstallPolicy(PAIR, Verdict.TUNNEL, None, keyed_drop)
        assert book.state() == "keyed"

    def test_gateway_that_does_not_answer_leaves_the_verdict_for_another_lifespan(self) -> None:
        book = fallen_back(OnFailure.CLEAR)
        book.send(ping(2))
        book.send(happened.LookupEnded(2, found((SG_B, "sg-b"), (SG_D, "sg-d"))))
        [other] = book.send(keying.NegotiationFailed(0, Failure.SILENCE, "nobody"))
        assert isinstance(other, do.StartNegotiation)
        assert other.request.remote == SG_D, "a failure counts only when all were tried"
        assert book.send(keying.NegotiationFailed(2, Failure.REFUSED, "no")) == [
            do.InstallPolicy(PAIR, Verdict.CLEAR, 600)
        ]
        assert book.state() == "clear"

    def test_stricter_conclusion_changes_the_verdict(self) -> None:
        book = fallen_back(OnFailure.CLEAR)
        book.send(ping(2))
        assert book.send(happened.LookupEnded(2, Malformed("bad base64", 60))) == [
            do.InstallPolicy(PAIR, Verdict.DENY, 60)
        ]
        assert book.state() == "denied"

    def test_milder_conclusion_changes_it_too(self) -> None:
        book = fallen_back(OnFailure.CLEAR, NothingFound(60, ""))
        book.send(ping(2))
        book.send(happened.LookupEnded(2, Malformed("bad base64", 60)))
        book.wait(60)
        assert book.send(ping(3))[-1] == goes(3, Verdict.DENY)
        assert book.send(happened.LookupEnded(3, NothingFound(60, "withdrawn"))) == [
            do.InstallPolicy(PAIR, Verdict.CLEAR, 60)
        ]

    def test_silence_of_the_dns_is_no_reason_to_pass_what_was_denied(self) -> None:
        book = fallen_back(OnFailure.CLEAR)
        book.send(ping(2))
        book.send(happened.LookupEnded(2, Malformed("bad base64", 60)))
        book.wait(60)
        book.send(ping(3))
        assert book.send(happened.LookupEnded(3, Unanswered("time-out"))) == [
            do.InstallPolicy(PAIR, Verdict.DENY, 60)
        ]
        assert book.state() == "denied"

    @BOTH
    def test_pair_that_nobody_uses_is_forgotten_without_a_question(
        self, on_failure: OnFailure
    ) -> None:
        book = fallen_back(on_failure)
        assert book.wait(119) == []
        assert book.state() == "expiring"
        assert book.wait(1) == []
        assert list(book.gateway.connections()) == []

    def test_without_budget_the_verdict_stands_a_little_longer(self) -> None:
        book = Playbook(setups=1)
        book.send(ping(1))
        book.send(happened.LookupEnded(1, NothingFound(60, "no record")))
        book.wait(60)
        book.send(ping(2, destination=SG_D))  # somebody else takes what there is
        assert book.send(ping(3)) == [
            do.InstallPolicy(PAIR, Verdict.CLEAR, POSTPONED),
            do.ReleaseHeld((3,), Verdict.CLEAR),
        ]
        assert book.trace.drops["renewal_postponed"] == 1
        book.send(happened.LookupEnded(2, NothingFound(60, "no record")))
        assert book.send(ping(4))[0] == do.StartLookup(3, BOB)

    def test_connections_that_expire_make_room_for_new_ones(self) -> None:
        book = Playbook(connections=1)
        book.send(ping(1))
        book.send(happened.LookupEnded(1, NothingFound(60, "no record")))
        book.wait(60)
        assert book.send(ping(2, destination=SG_D)) == [do.StartLookup(2, SG_D)]
        assert book.state() is None

    def test_one_that_is_asked_about_is_not_pushed_out(self) -> None:
        book = fallen_back(OnFailure.CLEAR)
        book.gateway._ledger.connections._limit = 1
        book.send(ping(2))
        assert book.send(ping(3, destination=SG_D)) == [do.DiscardHeld((3,), "connections_full")]
        assert book.state() == "expiring"

    def test_configured_tunnel_is_tried_again_with_the_packet_held(self) -> None:
        rule = configured("office", "192.1.0.0/24", "192.2.0.0/24")
        book = Playbook(rule, peers={"office": ConfiguredPeer(SG_B, rsa_key("sg-b"))})
        book.send(ping(1))
        book.send(keying.NegotiationFailed(0, Failure.SILENCE, ""))
        book.wait(10)
        assert book.state() is None
        assert [type(c) for c in book.send(ping(2))] == [do.StartNegotiation]
        assert book.gateway.held == (1, 84)


class TestPeerThatBeginsMeanwhile:
    def test_clear_pair_passes_on_until_the_tunnel_is_there(self) -> None:
        book = fallen_back(OnFailure.CLEAR)
        book.send(ping(2))
        book.send(proposal())
        book.send(happened.LookupEnded(3, found((SG_B, "sg-b"))))
        assert book.state() == "expiring"
        assert book.send(ping(3))[-1] == goes(3, Verdict.CLEAR)
        # Our own question ends in nothing: the peer's tunnel comes nevertheless.
        book.send(happened.LookupEnded(2, NothingFound(60, "no record")))
        assert book.state() == "clear"
        assert bring_up(book, 1)[-1] == do.InstallPolicy(PAIR, Verdict.TUNNEL, None, False)
        assert book.state() == "keyed"

    def test_denied_pair_is_held_for_it(self) -> None:
        book = fallen_back(OnFailure.DROP)
        book.send(ping(2))
        book.send(proposal())
        commands = book.send(happened.LookupEnded(3, found((SG_B, "sg-b"))))
        assert commands == [do.RemovePolicy(PAIR), do.CancelLookup(2), do.AcceptTunnel(1)]
        assert book.state() == "pending"
        assert book.send(ping(3)) == []
        assert bring_up(book, 1)[-1] == do.ReleaseHeld((3,), Verdict.TUNNEL)

    def test_peer_that_gives_up_leaves_the_verdict(self) -> None:
        book = fallen_back(OnFailure.CLEAR)
        book.send(ping(2))
        book.send(happened.LookupEnded(2, found((SG_B, "sg-b"))))
        book.send(proposal())
        book.send(happened.LookupEnded(3, found((SG_B, "sg-b"))))
        assert book.send(keying.NegotiationFailed(0, Failure.SILENCE, "nobody")) == []
        assert book.state() == "expiring", "the peer's is still under way"
        assert book.send(keying.NegotiationFailed(1, Failure.REFUSED, "no message 3")) == [
            do.InstallPolicy(PAIR, Verdict.CLEAR, 60)
        ]
        assert book.state() == "clear"

    def test_tunnel_that_ends_before_it_stands_leaves_the_verdict(self) -> None:
        book = fallen_back(OnFailure.CLEAR)
        book.send(ping(2))
        book.send(happened.LookupEnded(2, found((SG_B, "sg-b"))))
        book.send(keying.InboundSaEstablished(0, esp_sa(SG_B, SG_A, 0x1001, (BOB, ALICE))))
        book.send(happened.SaInstalled(0, inbound_key(0x1001)))
        book.send(keying.OutboundSaEstablished(0, esp_sa(SG_A, SG_B, 0x2001, (ALICE, BOB))))
        commands = book.send(keying.TunnelClosed(0, "deleted by the peer"))
        assert commands[-1] == do.InstallPolicy(PAIR, Verdict.CLEAR, 60)

    def test_sa_that_cannot_be_installed_leaves_the_verdict(self) -> None:
        book = fallen_back(OnFailure.CLEAR)
        book.send(ping(2))
        book.send(happened.LookupEnded(2, found((SG_B, "sg-b"))))
        book.send(keying.InboundSaEstablished(0, esp_sa(SG_B, SG_A, 0x1001, (BOB, ALICE))))
        commands = book.send(happened.SaInstallFailed(0, inbound_key(0x1001), "no room"))
        assert commands == [do.CloseTunnel(0), do.InstallPolicy(PAIR, Verdict.CLEAR, 60)]


class TestLifespanAfterABadSignature:
    """RFC 4322 section 3.2.5: the DNS may not have caught up with a key that was changed."""

    @pytest.mark.parametrize(
        ("ttl", "after", "lifespan"), [(120.0, 20.0, 100.0), (86400.0, 5.0, 3600.0), (10, 30, 1)]
    )
    def test_it_is_what_is_left_of_the_records(
        self, ttl: float, after: float, lifespan: float
    ) -> None:
        book = Playbook()
        book.send(ping(1))
        book.send(happened.LookupEnded(1, found((SG_B, "sg-b"), ttl=ttl)))
        book.wait(after)
        [install, _] = book.send(keying.NegotiationFailed(0, Failure.BAD_SIGNATURE, ""))
        assert install == do.InstallPolicy(PAIR, Verdict.CLEAR, lifespan)


def keyed(**settings: object) -> Playbook:
    book = Playbook(**settings)
    book.send(ping(1))
    book.send(happened.LookupEnded(1, found((SG_B, "sg-b"))))
    bring_up(book, 0)
    assert book.state() == "keyed"
    return book


class TestUse:
    """RFC 4322 section 3.4.1: a minute, then twenty, and thirty seconds in either direction."""

    def look(self, book: Playbook, received: float | None, sent: float | None) -> list[Command]:
        usage = {
            inbound_key(0x1001): Usage(3, 300, received),
            outbound_key(0x2001): Usage(2, 200, sent),
        }
        return book.send(happened.UsageReported(usage))

    def test_unused_tunnel_is_closed_after_a_minute(self) -> None:
        book = keyed()
        assert book.gateway.next_timer() == book.now + 60
        assert book.wait(59) == []
        assert book.wait(1) == [do.QueryUsage()]
        assert book.state() == "keyed"
        assert self.look(book, book.now - 31, book.now - 40) == [
            do.ReportTraffic(0, book.now - 31, book.now - 40),
            do.RemovePolicy(PAIR),
            do.CloseTunnel(0),
            do.RemoveSa(outbound_key(0x2001)),
        ]
        assert book.state() is None
        # What the peer sent before it heard of it is still taken in.
        assert book.wait(LINGER) == [do.RemoveSa(inbound_key(0x1001))]

    def test_final_counts_are_logged_and_each_step_of_the_state(self) -> None:
        book = keyed()
        book.wait(60)
        self.look(book, book.now - 50, None)
        [line] = [fields for _, name, fields in book.trace.lines if name == "unused"]
        counts = [line[f"{what}_{way}"] for what in ("packets", "bytes") for way in ("in", "out")]
        assert counts == [3, 2, 300, 200]
        steps = [
            (fields["old"], fields["new"])
            for _, name, fields in book.trace.lines
            if name == "state"
        ]
        assert steps[-2:] == [("keyed", "expiring"), ("expiring", "expired")]

    @pytest.mark.parametrize("direction", ["in", "out"])
    def test_one_that_is_used_either_way_stays_and_is_looked_at_every_20_minutes(
        self, direction: str
    ) -> None:
        book = keyed()
        for pause in (60, 1200, 1200):
            assert book.wait(pause - 1) == []
            assert book.wait(1) == [do.QueryUsage()]
            moment = book.now - 30
            both = (moment, None) if direction == "in" else (None, moment)
            assert self.look(book, *both) == [do.ReportTraffic(0, *both)]
            assert book.state() == "keyed"
        book.wait(1200)
        assert do.CloseTunnel(0) in self.look(book, book.now - 31, book.now - 31)

    def test_use_of_the_tunnel_before_counts(self) -> None:
        book = keyed()
        book.renew(0)
        bring_up(book, 2, 2)
        book.wait(50)
        usage = {
            outbound_key(0x2001): Usage(9, 900, book.now - 1),
            inbound_key(0x1001): Usage(0, 0, None),
        }
        book.send(happened.UsageReported(usage))
        book.send(keying.TunnelClosed(0, "replaced"))
        book.wait(10)
        fresh = {outbound_key(0x2002): Usage(0, 0, None), inbound_key(0x1002): Usage(0, 0, None)}
        assert book.send(happened.UsageReported(fresh)) == []
        assert book.state() == "keyed"

    def test_successor_is_no_use(self) -> None:
        book = keyed()
        book.wait(59)
        book.renew(0)
        bring_up(book, 2, 2)
        book.wait(1)
        assert do.CloseTunnel(2) in book.send(happened.UsageReported({}))

    def test_moments_are_configurable(self) -> None:
        book = keyed(lifespans=Lifespans(first_look=5, look=7, in_use=2))
        assert book.wait(5) == [do.QueryUsage()]
        self.look(book, book.now - 2, None)
        assert book.wait(6) == []
        assert book.wait(1) == [do.QueryUsage()]

    def test_tunnel_of_the_peer_ages_as_well(self) -> None:
        book = Playbook()
        book.send(proposal())
        book.send(happened.LookupEnded(1, found((SG_B, "sg-b"))))
        bring_up(book, 1)
        book.wait(60)
        assert do.CloseTunnel(1) in self.look(book, None, None)

    def test_configured_one_does_not(self) -> None:
        rule = configured("office", "192.1.0.0/24", "192.2.0.0/24")
        book = Playbook(rule, peers={"office": ConfiguredPeer(SG_B, rsa_key("sg-b"))})
        book.send(ping(1))
        bring_up(book, 0)
        assert book.gateway.next_timer() is None
        assert book.wait(7200) == []

    def test_counters_that_cannot_be_read_are_awaited(self) -> None:
        book = keyed()
        assert book.wait(60) == [do.QueryUsage()]
        assert book.wait(60) == []
        assert book.state() == "keyed"
        assert do.CloseTunnel(0) in self.look(book, None, None)

    def test_look_between_two_tunnels_is_put_off(self) -> None:
        book = keyed()
        book.renew(0)
        book.send(keying.TunnelClosed(0, "deleted by the peer"))
        assert book.state() == "pending"
        book.wait(60)
        assert book.send(happened.UsageReported({})) == []
        assert book.wait(60) == [do.QueryUsage()]


class TestRenewal:
    """RFC 4322 section 3.2.7: if the DNS query is stale, a new query is made."""

    def renewal(self, outcome: GatewayOutcome) -> tuple[Playbook, list[Command]]:
        book = keyed()
        commands = book.renew(0, outcome)
        assert book.state() == "keyed", "whatever comes of it, the tunnel carries on"
        return book, commands

    def test_gateway_still_named_is_asked_for_with_the_keys_found_now(self) -> None:
        _, [start] = self.renewal(found((SG_D, "sg-d"), (SG_B, "new"), (SG_B, "sg-b")))
        assert isinstance(start, do.StartNegotiation)
        request = start.request
        assert (request.remote, request.replaces) == (SG_B, 0)
        assert request.peer_keys == (rsa_key("new"), rsa_key("sg-b"))

    def test_dead_dns_renews_with_the_known_keys(self) -> None:
        book, [start] = self.renewal(Unanswered("time-out"))
        assert isinstance(start, do.StartNegotiation)
        assert (start.request.remote, start.request.peer_keys) == (SG_B, (rsa_key("sg-b"),))
        assert "renewed_unasked" in [line[1] for line in book.trace.lines]

    @pytest.mark.parametrize(
        "outcome", [NothingFound(60, "no record"), Malformed("bogus", 60), found((SG_A, "sg-a"))]
    )
    def test_what_the_dns_does_not_name_any_more_is_not_renewed(
        self, outcome: GatewayOutcome
    ) -> None:
        book, commands = self.renewal(outcome)
        assert commands == []
        assert "not_renewed" in [line[1] for line in book.trace.lines]
        # It is asked again, for the records may be back before the hard end.
        assert book.renew(0, outcome) == []
        book.send(keying.TunnelClosed(0, "lifetime over"))
        assert book.state() is None

    def test_other_gateway_is_negotiated_with_while_the_tunnel_carries_on(self) -> None:
        book, [start] = self.renewal(found((SG_D, "sg-d")))
        assert isinstance(start, do.StartNegotiation)
        request = start.request
        assert (request.remote, request.peer_keys) == (SG_D, (rsa_key("sg-d"),))
        assert (request.peer_identity, request.replaces) == (None, 0)
        assert bring_up(book, 2, 2, SG_D)[-1] == do.InstallPolicy(PAIR, Verdict.TUNNEL, None, False)
        live = only(book).live_tunnel
        assert live is not None
        assert live.gateway == SG_D

    def test_of_several_others_the_next_is_tried(self) -> None:
        book, _ = self.renewal(found((SG_D, "sg-d"), (BOB, "bob")))
        [start] = book.send(keying.NegotiationFailed(2, Failure.SILENCE, "nobody"))
        assert isinstance(start, do.StartNegotiation)
        assert (start.request.remote, start.request.replaces) == (BOB, 0)
        assert book.send(keying.NegotiationFailed(4, Failure.SILENCE, "nobody")) == []
        assert book.state() == "keyed"

    def test_question_is_not_asked_twice_at_a_time(self) -> None:
        book = keyed()
        assert book.send(keying.TunnelExpiring(0)) == [do.StartLookup(2, BOB, ours=True)]
        assert book.send(keying.TunnelExpiring(0)) == []

    def test_tunnel_that_ends_meanwhile_is_not_renewed(self) -> None:
        book = keyed()
        book.send(keying.TunnelExpiring(0))
        assert do.CancelLookup(2) in book.send(keying.TunnelClosed(0, "deleted by the peer"))
        assert book.send(happened.LookupEnded(2, found((SG_B, "sg-b")))) == []

    def test_peer_that_began_must_still_be_delegated_to(self) -> None:
        book = Playbook()
        book.send(proposal())
        book.send(happened.LookupEnded(1, found((SG_B, "sg-b"))))
        bring_up(book, 1)
        assert book.renew(1, NothingFound(60, "withdrawn")) == []
        [start] = book.renew(1)
        assert isinstance(start, do.StartNegotiation)
        assert (start.request.peer_identity, start.request.replaces) == (SG_B, 1)

    def test_peer_with_a_name_must_be_named_by_it(self) -> None:
        book = Playbook()
        name = "sg-b.example"
        book.send(proposal(identity=name))
        named = Gateway(10, None, "SG-B.example", (rsa_key("sg-b"),))
        outcome = GatewaysFound((named,), 60, Trust.INSECURE)
        book.send(happened.LookupEnded(1, outcome))
        bring_up(book, 1)
        assert book.renew(1, replace(outcome, gateways=(replace(named, fqdn="other"),))) == []
        [start] = book.renew(1, outcome)
        assert isinstance(start, do.StartNegotiation)
        assert start.request.peer_identity == name

    @pytest.mark.parametrize(
        ("keys", "renewed"),
        [
            (KeysFound((rsa_key("next"),), 60, Trust.INSECURE), True),
            (Unanswered("time-out"), True),
            (NothingFound(60, "no key"), False),
        ],
    )
    def test_peer_that_is_its_own_client_needs_a_key_and_no_delegation(
        self, keys: KeyOutcome, renewed: bool
    ) -> None:
        book = Playbook()
        book.send(proposal(identity=BOB, address=BOB))
        bring_up(book, 1, gateway=BOB)
        [gateways, key] = book.send(keying.TunnelExpiring(1))
        assert isinstance(gateways, do.StartLookup)
        assert isinstance(key, do.StartKeyLookup)
        assert key.identity == BOB
        nothing = NothingFound(60, "no record")
        assert book.send(happened.LookupEnded(gateways.lookup, nothing)) == []
        commands = book.send(happened.KeyLookupEnded(key.lookup, keys))
        assert bool(commands) is renewed
        if isinstance(keys, KeysFound):
            assert isinstance(commands[0], do.StartNegotiation)
            assert commands[0].request.peer_keys == keys.keys

    @pytest.mark.parametrize(("trust", "renewed"), [(Trust.SECURE, True), (Trust.INSECURE, False)])
    def test_key_of_a_peer_that_is_its_own_client_is_as_good_as_the_rule_demands(
        self, trust: Trust, renewed: bool
    ) -> None:
        book = Playbook(default=opportunistic("all", require=Require.SECURE))
        book.send(keying.PeerKeyNeeded(7, BOB, TransportAddress(BOB)))
        book.send(happened.KeyLookupEnded(1, KeysFound((rsa_key("sg-b"),), 60, Trust.SECURE)))
        book.send(proposal(identity=BOB, address=BOB))
        bring_up(book, 1, gateway=BOB)
        assert book.state() == "keyed"
        gateways, key = book.send(keying.TunnelExpiring(1))
        assert isinstance(gateways, do.StartLookup)
        assert isinstance(key, do.StartKeyLookup)
        book.send(happened.LookupEnded(gateways.lookup, NothingFound(60, "no record")))
        keys = KeysFound((rsa_key("sg-b"),), 60, trust)
        assert bool(book.send(happened.KeyLookupEnded(key.lookup, keys))) is renewed

    def test_configured_tunnel_is_renewed_without_a_question(self) -> None:
        rule = configured("office", "192.1.0.0/24", "192.2.0.0/24")
        book = Playbook(rule, peers={"office": ConfiguredPeer(SG_B, rsa_key("sg-b"))})
        book.send(ping(1))
        bring_up(book, 0)
        [start] = book.send(keying.TunnelExpiring(0))
        assert isinstance(start, do.StartNegotiation)


class TestBudget:
    def test_setups_under_way_are_bounded_for_all_sources_together(self) -> None:
        book = Playbook(setups=100)
        begun, dropped = flood(book, 50_000)
        assert book.gateway.lookups_under_way == len(begun) == 100
        assert dropped == {"setups_under_way": 49_900}
        assert book.gateway.held[0] <= 200

    def test_and_so_are_those_that_begin_in_a_second(self) -> None:
        book = Playbook(setups_per_second=250)
        begun, dropped = 0, Counter[str]()
        for second in range(10):
            asked, refused = flood(book, 5_000, 5_000 * second)
            begun += len(asked)
            dropped += refused
            for number in asked:
                book.send(happened.LookupEnded(number, NothingFound(60, "no record")))
            book.wait(1)
        assert begun == 2500
        assert dropped == {"setups_per_second": 47_500}

    def test_tunnels_that_are_up_go_on(self) -> None:
        book = keyed(setups=100)
        flood(book, 1_000)
        assert isinstance(book.renew(0)[0], do.StartNegotiation)
        bring_up(book, 2, 2)
        assert book.send(ping(7))[-1] == do.ReleaseHeld((7,), Verdict.TUNNEL)

    def test_what_exceeds_it_is_dropped_and_never_passed(self) -> None:
        book = Playbook(setups=1)
        flood(book, 1)
        assert book.send(ping(9)) == [do.DiscardHeld((9,), "setups_under_way")]
        assert book.state() is None, "nothing is remembered of it"


def flood(book: Playbook, packets: int, first: int = 0) -> tuple[list[int], Counter[str]]:
    """Each packet from another inside host; returns the look-ups, and why packets were dropped."""
    lookups, dropped = [], Counter[str]()
    for number in range(packets):
        source = type(ALICE)(int(ALICE) + 0x10000 + first + number)
        for command in book.send(ping(100 + number, source=source)):
            if isinstance(command, do.StartLookup):
                lookups.append(command.lookup)
            elif isinstance(command, do.DiscardHeld):
                dropped[command.trigger] += 1
    return lookups, dropped
