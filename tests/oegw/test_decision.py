"""Decision points: question, reply, what a reply counts, and the desk (draft sections 5.4, 5.6)."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest

import ike.events as keying
from dnsrecords.outcome import NothingFound
from oegw import commands as do
from oegw import events as happened
from oegw.commands import Verdict
from oegw.connection import Selectors
from oegw.decision import (
    AFTER_FAILURE,
    LONGEST_REPLY,
    DecisionPoint,
    MalformedReply,
    NoAnswer,
    OnTimeout,
    Opinion,
    OpinionCache,
    Question,
    Reply,
    Role,
    parse_opinion,
    ruling,
)
from oegw.decisions import question_about
from oegw.peer import ConfiguredPeer
from policy.rule import ANY_PORT, Category, OnFailure, PortRange, Require, Rule, Scope
from policy.table import PolicyTable
from tests.support.playbook import (
    ALICE,
    BOB,
    SG_A,
    SG_B,
    SG_D,
    Playbook,
    configured,
    deny,
    esp_sa,
    found,
    opportunistic,
    outbound_key,
    permit,
    ping,
    proposal,
    rsa_key,
)

FIRST, SECOND = DecisionPoint("first", "http://a/"), DecisionPoint("second", "http://b/")
PAIR = Scope(ip_network(ALICE), ip_network(BOB))
CLEAR = opportunistic("default")
DROP = opportunistic("default", on_failure=OnFailure.DROP)
PERMIT = Opinion(Category.PERMIT, ttl=30.0)
DENY = Opinion(Category.DENY, ttl=30.0)
TRY = Opinion(Category.OPPORTUNISTIC, ttl=30.0)
NONE = Opinion(None)
SILENT = NoAnswer("timeout")


def question(role: Role = Role.INITIATOR, **more: Any) -> Question:
    return replace(
        Question(role, "default", str(ALICE), str(BOB), None, ANY_PORT, ANY_PORT), **more
    )


def reply(**document: Any) -> bytes:
    return json.dumps({"version": 1, **document}).encode()


class TestDocuments:
    def test_question_about_a_pair(self) -> None:
        selectors = Selectors(ip_network(ALICE), ip_network(BOB))
        assert question_about(selectors, CLEAR, Role.INITIATOR).document() == {
            "version": 1,
            "role": "initiator",
            "rule": "default",
            "local": "192.1.0.65",
            "remote": "192.2.0.66",
            "protocol": None,
            "local_ports": None,
            "remote_ports": None,
            "peer": None,
        }

    def test_question_about_ports_and_a_peer(self) -> None:
        web = replace(CLEAR, name="web", protocol=6, destination_ports=PortRange(80, 89))
        selectors = Selectors(ip_network(ALICE), ip_network(BOB), 6)
        ours = question_about(selectors, web, Role.INITIATOR).document()
        assert (ours["protocol"], ours["local_ports"], ours["remote_ports"]) == (6, None, [80, 89])
        proposed = replace(selectors, remote_port=80)
        theirs = question_about(proposed, web, Role.RESPONDER, "sg-b.example", SG_B).document()
        assert theirs["remote_ports"] == [80, 80]
        assert theirs["peer"] == {"identity": "sg-b.example", "address": "192.1.1.5"}

    @pytest.mark.parametrize(
        ("document", "opinion"),
        [
            ({"decision": "permit"}, Opinion(Category.PERMIT)),
            ({"decision": "none", "ttl": 5}, Opinion(None, ttl=5.0)),
            (
                {"decision": "deny", "icmp": True, "ttl": 0},
                Opinion(Category.DENY, icmp=True, ttl=1.0),
            ),
            (
                {
                    "decision": "opportunistic", "on_failure": "drop", "require": "secure",
                    "initiate": False, "ttl": 10**6, "reason": "x\x1b[2J", "later": [1],
                },
                Opinion(
                    Category.OPPORTUNISTIC, OnFailure.DROP, Require.SECURE, False, ttl=3600.0,
                    reason="x?[2J",
                ),
            ),
        ],
    )  # fmt: skip
    def test_replies(self, document: dict[str, Any], opinion: Opinion) -> None:
        assert parse_opinion(reply(**document), 3600.0) == opinion

    @pytest.mark.parametrize(
        "octets",
        [
            b"", b"\xff", b"[]", b"null", b"1", b"{", b"[" * 100_000, b'{"decision": "permit"}',
            b'{"version": 2, "decision": "permit"}', b'{"version": true, "decision": "permit"}',
            b'{"version": 1.0, "decision": "permit"}',
            reply(), reply(decision="allow"), reply(decision=["permit"]), reply(decision=None),
            reply(decision="permit", ttl="60"), reply(decision="permit", ttl=-1),
            reply(decision="permit", ttl=True), b'{"version": 1, "decision": "permit", "ttl": NaN}',
            b'{"version": 1, "decision": "permit", "ttl": 1e999}',
            reply(decision="permit", reason=7), reply(decision="permit", on_failure="clear"),
            reply(decision="permit", icmp=True), reply(decision="deny", icmp=1),
            reply(decision="opportunistic", on_failure="maybe"),
            reply(decision="opportunistic", require=None),
            reply(decision="opportunistic", icmp=True),
            reply(decision="opportunistic", initiate="no"),
            reply(decision="permit", reason="x" * LONGEST_REPLY),
            b'{"version": 1, "decision": "permit", "ttl": ' + b"9" * 5000 + b"}",
        ],
    )  # fmt: skip
    def test_what_is_no_reply(self, octets: bytes) -> None:
        with pytest.raises(MalformedReply):
            parse_opinion(octets, 3600.0)

    def test_any_octets_parse_or_are_malformed(self) -> None:
        dice = random.Random(5)
        whole = reply(decision="opportunistic", on_failure="drop", ttl=3, initiate=False)
        good = bad = 0
        for _ in range(20_000):
            octets = bytearray(whole)
            for _ in range(dice.randint(0, 3)):
                octets[dice.randrange(len(octets))] = dice.randrange(256)
            try:
                parse_opinion(bytes(octets[: dice.randint(0, 200)]), 60.0)
                good += 1
            except MalformedReply:
                bad += 1
        assert good > 100
        assert bad > 100


class TestOrder:
    @pytest.mark.parametrize(
        ("replies", "category", "point"),
        [
            ((PERMIT, DENY), Category.PERMIT, "first"),
            ((DENY, PERMIT), Category.DENY, "first"),
            ((NONE, DENY), Category.DENY, "second"),
            ((SILENT, PERMIT), Category.PERMIT, "second"),
            ((TRY, DENY), Category.OPPORTUNISTIC, "first"),
            ((NONE, NONE), Category.OPPORTUNISTIC, None),
            ((SILENT, SILENT), Category.OPPORTUNISTIC, None),
        ],
    )
    def test_first_opinion_in_the_file_wins_then_the_local_rule(
        self, replies: tuple[Reply, Reply], category: Category, point: str | None
    ) -> None:
        found = ruling(CLEAR, tuple(zip((FIRST, SECOND), replies, strict=True)))
        assert (found.category, found.point) == (category, point)
        assert found.overruled == ""

    def test_silence_that_denies_goes_before_the_opinion_of_the_next(self) -> None:
        strict = replace(FIRST, on_timeout=OnTimeout.DENY)
        found = ruling(CLEAR, ((strict, SILENT), (SECOND, PERMIT)))
        assert (found.category, found.point, found.ttl) == (Category.DENY, "first", AFTER_FAILURE)

    def test_no_opinion_asks_less_than_a_rule_that_does_not_relax(self) -> None:
        found = ruling(DROP, ((FIRST, PERMIT),))
        assert (found.rule, found.point) == (DROP, None)
        assert "does not relax" in found.overruled
        secure = replace(DROP, require=Require.SECURE)
        less = replace(TRY, on_failure=OnFailure.CLEAR, require=Require.ANY)
        found = ruling(secure, ((FIRST, less),))
        assert found.rule == secure
        assert found.overruled.startswith("first: on_failure clear, require any")

    def test_overruled_permit_does_not_give_the_word_to_the_next(self) -> None:
        found = ruling(DROP, ((FIRST, PERMIT), (SECOND, DENY)))
        assert (found.category, found.point) == (Category.OPPORTUNISTIC, None)

    def test_rule_that_relaxes(self) -> None:
        loose = replace(DROP, relax=True, require=Require.SECURE)
        assert ruling(loose, ((FIRST, PERMIT),)).category is Category.PERMIT
        less = replace(TRY, on_failure=OnFailure.CLEAR, require=Require.ANY)
        found = ruling(loose, ((FIRST, less),)).rule
        assert (found.on_failure, found.require) == (OnFailure.CLEAR, Require.ANY)

    def test_asking_more_is_always_possible(self) -> None:
        more = replace(TRY, on_failure=OnFailure.DROP, require=Require.SECURE, initiate=False)
        found = ruling(CLEAR, ((FIRST, more),)).rule
        assert (found.on_failure, found.require, found.initiate) == (
            OnFailure.DROP, Require.SECURE, False,
        )  # fmt: skip
        passive = replace(CLEAR, initiate=False)
        assert not ruling(passive, ((FIRST, replace(TRY, initiate=True)),)).rule.initiate


class TestCache:
    def test_opinion_is_good_for_its_time_and_its_question_only(self) -> None:
        cache = OpinionCache()
        cache.keep("first", question(), PERMIT, 100.0)
        assert cache.find("first", question(), 110.0) == replace(PERMIT, ttl=20.0)
        assert cache.find("second", question(), 110.0) is None
        assert cache.find("first", question(Role.RESPONDER), 110.0) is None
        assert cache.find("first", question(identity="x"), 110.0) is None
        assert cache.find("first", question(), 130.0) is None
        assert len(cache) == 0

    def test_oldest_goes_when_it_is_full(self) -> None:
        cache = OpinionCache(3)
        for number in range(5):
            cache.keep("first", question(local=str(number)), PERMIT, 0.0)
        assert len(cache) == 3
        assert cache.find("first", question(local="1"), 1.0) is None
        assert cache.find("first", question(local="4"), 1.0) is not None


def book(*rules: Rule, default: Rule = CLEAR) -> Playbook:
    return Playbook(*rules, default=default, decision_points=(FIRST, SECOND))


def said(lookup: int, *replies: Reply) -> happened.DecisionsEnded:
    return happened.DecisionsEnded(lookup, tuple(zip((FIRST, SECOND), replies, strict=False)))


NOTHING = NothingFound(60, "no record")
DECISION, LOOKUP = 1, 2  # the numbers that the first packet's questions have


class TestPackets:
    def test_points_and_dns_are_asked_at_the_same_time_and_both_waited_for(self) -> None:
        here = book()
        assert here.send(ping(1)) == [
            do.StartDecision(DECISION, question()),
            do.StartLookup(LOOKUP, BOB, with_keys=True),
        ]
        assert here.send(said(DECISION, NONE, PERMIT)) == []
        assert here.send(happened.LookupEnded(LOOKUP, found((SG_B, "sg-b")))) == [
            do.InstallPolicy(PAIR, Verdict.CLEAR, 30.0),
            do.ReleaseHeld((1,), Verdict.CLEAR),
        ]
        assert here.wait(30.0) == [do.RemovePolicy(PAIR)]  # and it is asked again

    def test_slow_point_is_waited_for(self) -> None:
        here = book()
        here.send(ping(1))
        assert here.send(happened.LookupEnded(LOOKUP, found((SG_B, "sg-b")))) == []
        [begin] = here.send(said(DECISION, NONE, NONE))
        assert isinstance(begin, do.StartNegotiation)

    @pytest.mark.parametrize("icmp", [False, True])
    def test_deny(self, icmp: bool) -> None:
        here = book()
        here.send(ping(1))
        here.send(happened.LookupEnded(LOOKUP, found((SG_B, "sg-b"))))
        commands = here.send(said(DECISION, replace(DENY, icmp=icmp), NONE))
        verdict = Verdict.REFUSE if icmp else Verdict.DENY
        assert commands[0] == do.InstallPolicy(PAIR, verdict, 30.0)
        assert commands[1] == (
            do.ReleaseHeld((1,), Verdict.REFUSE) if icmp else do.DiscardHeld((1,), "no_tunnel")
        )
        # A packet that is trapped all the same gets the same answer.
        assert here.send(ping(2))[0] == do.InstallPolicy(PAIR, verdict, 30.0)

    def test_opportunistic_that_must_not_go_clear(self) -> None:
        here = book()
        here.send(ping(1))
        here.send(said(DECISION, replace(TRY, on_failure=OnFailure.DROP), NONE))
        commands = here.send(happened.LookupEnded(LOOKUP, NOTHING))
        # For no longer than the opinion holds.
        assert commands == [
            do.InstallPolicy(PAIR, Verdict.DENY, 30.0), do.DiscardHeld((1,), "no_tunnel"),
        ]  # fmt: skip

    def test_opportunistic_that_begins_none(self) -> None:
        here = book()
        here.send(ping(1))
        here.send(said(DECISION, replace(TRY, initiate=False), NONE))
        commands = here.send(happened.LookupEnded(LOOKUP, found((SG_B, "sg-b"))))
        assert commands[-1] == do.ReleaseHeld((1,), Verdict.CLEAR)

    def test_silence_leaves_it_to_the_local_rule(self) -> None:
        here = book(default=DROP)
        here.send(ping(1))
        here.send(said(DECISION, SILENT, NoAnswer("malformed")))
        commands = here.send(happened.LookupEnded(LOOKUP, NOTHING))
        assert commands[0] == do.InstallPolicy(PAIR, Verdict.DENY, 60)

    def test_permit_does_not_let_out_what_the_rule_protects(self) -> None:
        here = book(default=DROP)
        here.send(ping(1))
        here.send(said(DECISION, PERMIT, PERMIT))
        commands = here.send(happened.LookupEnded(LOOKUP, NOTHING))
        assert commands[-1] == do.DiscardHeld((1,), "no_tunnel")
        assert here.trace.drops["not_relaxed"] == 1

    def test_private_destination_is_asked_of_the_points_and_not_of_the_dns(self) -> None:
        here = book()
        far = BOB.__class__("10.9.0.1")
        [asked] = here.send(ping(1, destination=far))
        assert isinstance(asked, do.StartDecision)
        commands = here.send(said(DECISION, NONE, NONE))
        assert commands[-1] == do.ReleaseHeld((1,), Verdict.CLEAR)

    def test_nothing_but_opportunistic_traffic_that_we_begin_is_asked_about(self) -> None:
        others = (
            permit("clear", "192.2.1.0/24"),
            deny("never", "192.2.2.0/24"),
            configured("branch", "192.1.0.0/24", "192.2.3.0/24"),
            opportunistic("passive", "192.2.4.0/24", initiate=False),
        )
        here = Playbook(
            *others,
            peers={"branch": ConfiguredPeer(SG_D, rsa_key("sg-d"))},
            decision_points=(FIRST,),
        )
        for number in range(1, 5):
            far = BOB.__class__(f"192.2.{number}.1")
            commands = here.send(ping(number, destination=far))
            assert not any(isinstance(c, do.StartDecision) for c in commands)

    def test_end_of_the_connection_stops_the_question(self) -> None:
        here = book()
        here.send(ping(1))
        here.send(proposal())
        commands = here.gateway.replace_policy(
            PolicyTable((deny("no", "192.2.0.0/24"),), CLEAR), {}, here.now
        )
        assert {do.CancelLookup(DECISION), do.CancelLookup(LOOKUP)} <= set(commands)


class TestProposals:
    """The peer began: numbers 1 and 2 are the decision's and the authority's."""

    def theirs(self) -> Question:
        return question(Role.RESPONDER, identity=str(SG_B), gateway=str(SG_B))

    def test_both_are_asked_and_waited_for(self) -> None:
        here = book()
        commands = here.send(proposal())
        assert commands[0] == do.StartDecision(1, self.theirs())
        assert isinstance(commands[1], do.StartLookup)
        assert here.send(happened.LookupEnded(2, found((SG_B, "sg-b")))) == []
        assert here.send(said(1, NONE, TRY)) == [do.AcceptTunnel(1)]

    def test_the_other_order(self) -> None:
        here = book()
        here.send(proposal())
        assert here.send(said(1, NONE, NONE)) == []
        assert here.send(happened.LookupEnded(2, found((SG_B, "sg-b")))) == [do.AcceptTunnel(1)]
        assert here.gateway._ledger.approvals == {}

    @pytest.mark.parametrize("opinion", [DENY, PERMIT])
    def test_refused(self, opinion: Opinion) -> None:
        here = book()
        here.send(proposal())
        here.send(happened.LookupEnded(2, found((SG_B, "sg-b"))))
        [refusal] = here.send(said(1, replace(opinion, reason="ticket 12"), NONE))
        assert isinstance(refusal, do.RefuseTunnel)
        assert "'first' says" in refusal.reason
        assert "ticket 12" in refusal.reason
        assert here.gateway._ledger.approvals == {}

    def test_without_authority_the_opinion_is_not_waited_for(self) -> None:
        here = book()
        here.send(proposal())
        commands = here.send(happened.LookupEnded(2, NOTHING))
        assert do.CancelLookup(1) in commands
        assert any(isinstance(c, do.RefuseTunnel) for c in commands)
        assert here.gateway._ledger.approvals == {}
        assert here.send(said(1, TRY, NONE)) == []

    @pytest.mark.parametrize("answered", [False, True])
    def test_proposal_that_ends_meanwhile_leaves_nothing(self, answered: bool) -> None:
        here = book()
        here.send(proposal())
        if answered:
            here.send(said(1, TRY, NONE))
        here.send(keying.TunnelClosed(1, "gone"))
        assert here.gateway._ledger.approvals == {}
        assert here.gateway.lookups_under_way == 0

    def test_configured_peer_is_nobody_elses_business(self) -> None:
        branch = configured("branch", f"{ALICE}/32", f"{BOB}/32")
        here = Playbook(
            branch, peers={"branch": ConfiguredPeer(SG_B, rsa_key("sg-b"))},
            decision_points=(FIRST,),
        )  # fmt: skip
        assert here.send(proposal()) == [do.AcceptTunnel(1)]

    def test_tunnel_has_the_rule_as_the_opinion_changed_it(self) -> None:
        here = book()
        here.send(proposal())
        here.send(said(1, replace(TRY, on_failure=OnFailure.DROP), NONE))
        here.send(happened.LookupEnded(2, found((SG_B, "sg-b"))))
        here.send(keying.OutboundSaEstablished(1, esp_sa(SG_A, SG_B, 0x2001, (ALICE, BOB))))
        here.send(happened.SaInstalled(1, outbound_key(0x2001)))
        [connection] = here.gateway.connections()
        assert connection.rule.on_failure is OnFailure.DROP


class TestLater:
    """Verdicts expire and tunnels are renewed: then the points are asked again."""

    def asked_again(self, here: Playbook) -> int:
        """The verdict is over, and a packet comes; returns the number of the new question."""
        here.wait(30.0)
        commands = here.send(ping(2))
        [asked] = [c for c in commands if isinstance(c, do.StartDecision)]
        return asked.lookup

    def test_verdict_that_is_over_is_asked_about_again(self) -> None:
        here = book()
        here.send(ping(1))
        here.send(happened.LookupEnded(LOOKUP, NOTHING))
        here.send(said(DECISION, PERMIT, NONE))
        number = self.asked_again(here)
        assert here.state() == "expiring"
        here.send(happened.LookupEnded(number + 1, NOTHING))
        commands = here.send(said(number, DENY, NONE))
        assert do.InstallPolicy(PAIR, Verdict.DENY, 30.0) in commands
        assert here.state() == "denied"

    def test_what_was_said_before_does_not_outlive_its_time(self) -> None:
        """The rule that a permit relaxed is the strict one again when nobody answers."""
        here = book(default=replace(DROP, relax=True))
        here.send(ping(1))
        here.send(happened.LookupEnded(LOOKUP, NOTHING))
        here.send(said(DECISION, PERMIT, NONE))
        assert here.state() == "clear"
        number = self.asked_again(here)
        here.send(happened.LookupEnded(number + 1, NOTHING))
        here.send(said(number, SILENT, SILENT))
        assert here.state() == "denied"

    def test_opinion_that_nothing_is_begun_is_asked_for_again_too(self) -> None:
        here = book()
        here.send(ping(1))
        here.send(happened.LookupEnded(LOOKUP, NOTHING))
        here.send(said(DECISION, replace(TRY, initiate=False), NONE))
        number = self.asked_again(here)
        here.send(happened.LookupEnded(number + 1, found((SG_B, "sg-b"))))
        commands = here.send(said(number, NONE, NONE))
        assert any(isinstance(c, do.StartNegotiation) for c in commands)

    @pytest.mark.parametrize(
        ("opinion", "renewed"), [(NONE, True), (TRY, True), (DENY, False), (PERMIT, False)]
    )
    def test_tunnel_is_renewed_only_if_no_point_is_against_it(
        self, opinion: Opinion, renewed: bool
    ) -> None:
        here = book()
        here.send(ping(1))
        here.send(happened.LookupEnded(LOOKUP, found((SG_B, "sg-b"))))
        here.send(said(DECISION, NONE, NONE))
        here.send(keying.OutboundSaEstablished(0, esp_sa(SG_A, SG_B, 0x2001, (ALICE, BOB))))
        here.send(happened.SaInstalled(0, outbound_key(0x2001)))
        commands = here.send(keying.TunnelExpiring(0))
        [asked] = [c for c in commands if isinstance(c, do.StartDecision)]
        here.send(happened.LookupEnded(asked.lookup + 1, found((SG_B, "sg-b"))))
        commands = here.send(said(asked.lookup, opinion, NONE))
        assert any(isinstance(c, do.StartNegotiation) for c in commands) is renewed
        assert here.state() == "keyed"  # until its life is over
