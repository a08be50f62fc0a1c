"""A restart: what of the verdicts before it goes on, and what is found anew."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import ike.events as keying
from dnsrecords.outcome import Malformed, NothingFound
from oegw import commands as do
from oegw import events as happened
from oegw.commands import Verdict
from oegw.connection import host_network
from oegw.decision import DecisionPoint
from oegw.gateway import CoordinatorSettings, Gateway, Lifespans
from oegw.lasting import Lasting
from oegw.memory import KeyMemory
from policy.flow import Flow
from policy.rule import OnFailure, Require, Rule, Scope
from policy.table import PolicyTable
from tests.support.playbook import (
    ALICE,
    BOB,
    SG_A,
    SG_B,
    CountingTrace,
    deny,
    esp_sa,
    found,
    inbound_key,
    opportunistic,
    permit,
    ping,
    proposal,
)

PAIR = Scope(host_network(ALICE), host_network(BOB))
CLEAR = opportunistic("all")
DROP = opportunistic("all", on_failure=OnFailure.DROP)


class Life:
    """A gateway from its start to its crash; what is on disk goes from one to the next."""

    def __init__(
        self,
        now: float,
        default: Rule,
        *rules: Rule,
        before: Life | None = None,
        boot: str = "boot",
        basis: str = "",
        **settings: Any,
    ) -> None:
        self.now = now
        self.trace = CountingTrace()
        self.disk: dict[str, dict[str, str]] = {"verdict": {}, "silence": {}}
        self.memory: KeyMemory = before.memory if before is not None else KeyMemory()
        if before is not None:
            before.write()
            self.disk = before.disk
        self.gateway = Gateway(
            PolicyTable(rules, default),
            CoordinatorSettings(addresses=(SG_A,), **settings),
            self.trace,
            self.memory,
            Lasting(boot, basis, self.disk["verdict"].items(), self.disk["silence"].items()),
        )
        self.gateway._responder._prove(7)
        self.gateway.resume(now)

    def write(self) -> None:
        for name, entries in self.gateway.lasting.take_changes().tables.items():
            for key, text in entries.items():
                if text is None:
                    self.disk[name].pop(key, None)
                else:
                    self.disk[name][key] = text

    def send(self, event: Any) -> list[do.Command]:
        return self.gateway.receive(event, self.now)

    def state(self) -> str | None:
        connection = self.gateway.find(Flow(ALICE, BOB, 1))
        return connection.state.value if connection else None


def nothing_found(default: Rule = CLEAR, **settings: Any) -> Life:
    """Alice's packet found no record of Bob's, at 1000; that is good until 1120."""
    life = Life(1000.0, default, **settings)
    [question] = life.send(ping(1))[:1]
    assert isinstance(question, do.StartLookup)
    life.send(happened.LookupEnded(question.lookup, NothingFound(120, "no record")))
    return life


def asks(commands: list[do.Command]) -> bool:
    return any(isinstance(command, do.StartLookup) for command in commands)


def test_the_next_packet_goes_at_once_for_what_is_left_and_nobody_is_asked() -> None:
    life = Life(1030.0, CLEAR, before=nothing_found())
    assert life.state() == "clear"
    assert life.send(ping(2)) == [
        do.InstallPolicy(PAIR, Verdict.CLEAR, 90.0),
        do.ReleaseHeld((2,), Verdict.CLEAR),
    ]
    assert life.gateway.next_timer() == 1120.0
    assert ("memory", "resumed", {"verdicts": 1, "forgotten": 0, "silent": 0}) in life.trace.lines
    [(_, decision, fields)] = [line for line in life.trace.lines if line[0] == "verdict"]
    assert (decision, fields["lifespan"]) == ("clear", 90.0)
    assert fields["reason"] == "as before the restart: no record"


def test_nothing_is_told_to_the_kernel_before_the_policy_is_asked_about_a_packet() -> None:
    life = Life(1030.0, CLEAR, before=nothing_found())
    assert life.gateway.begin(life.now) == []


def test_a_denial_goes_on_as_well() -> None:
    life = Life(1030.0, DROP, before=nothing_found(DROP))
    assert life.send(ping(2)) == [
        do.InstallPolicy(PAIR, Verdict.DENY, 90.0),
        do.DiscardHeld((2,), "denied"),
    ]


def test_what_is_denied_whatever_the_rule_says_stays_denied() -> None:
    before = Life(1000.0, CLEAR)
    before.send(ping(1))
    before.send(happened.LookupEnded(1, Malformed("two TXT records", 60.0)))
    assert Life(1030.0, CLEAR, before=before).state() == "denied"


def test_a_lifespan_survives_two_restarts_and_no_more() -> None:
    second = Life(1030.0, CLEAR, before=nothing_found())
    third = Life(1060.0, CLEAR, before=second)
    assert third.state() == "clear"
    assert third.gateway.next_timer() == 1120.0
    assert Life(1120.0, CLEAR, before=third).state() is None


@pytest.mark.parametrize(
    "policy",
    [
        (DROP,),  # the same rule drops now
        (replace(CLEAR, require=Require.SECURE),),
        (opportunistic("other"),),
        (CLEAR, opportunistic("bob", "192.2.0.66/32", OnFailure.DROP)),
        (CLEAR, opportunistic("bob", "192.2.0.66/32")),
        (CLEAR, deny("bob", "192.2.0.66/32")),
        (CLEAR, permit("bob", "192.2.0.66/32")),
    ],
)
def test_another_policy_finds_anew(policy: tuple[Rule, ...]) -> None:
    life = Life(1030.0, *policy, before=nothing_found())
    assert [*life.gateway.connections()] == []
    assert len(life.gateway.lasting) == 0
    commands = life.send(ping(2))
    rule = life.gateway.table.lookup(Flow(ALICE, BOB, 1)).rule
    assert asks(commands) is (rule.category.value == "opportunistic")


def test_a_denial_does_not_become_clear_by_another_rule() -> None:
    life = Life(1030.0, CLEAR, before=nothing_found(DROP))
    assert asks(life.send(ping(2)))


@pytest.mark.parametrize("other", [{"boot": "another"}, {"boot": ""}, {"basis": "other resolvers"}])
def test_another_boot_or_other_settings_find_anew(other: dict[str, str]) -> None:
    life = Life(1030.0, CLEAR, before=nothing_found(), **other)
    assert asks(life.send(ping(2)))


def test_a_lifespan_that_is_shorter_today_ends_what_would_last_longer() -> None:
    short = Lifespans(*[30.0] * 6)
    assert asks(Life(1030.0, CLEAR, before=nothing_found(), lifespans=short).send(ping(2)))


def test_where_a_decision_point_has_a_say_it_is_asked() -> None:
    points = (DecisionPoint("point", "http://192.1.1.9/"),)
    life = Life(1030.0, CLEAR, before=nothing_found(), decision_points=points)
    assert life.state() is None


def test_what_a_decision_point_had_a_say_in_is_not_kept() -> None:
    points = (DecisionPoint("point", "http://192.1.1.9/"),)
    life = Life(1000.0, CLEAR, decision_points=points)
    ask, look, *_ = life.send(ping(1))
    assert isinstance(ask, do.StartDecision)
    assert isinstance(look, do.StartLookup)
    life.send(happened.DecisionsEnded(ask.lookup, ()))
    life.send(happened.LookupEnded(look.lookup, NothingFound(120, "no record")))
    assert life.state() == "clear"
    assert not life.gateway.lasting.changed


def test_a_full_table_takes_no_more_of_them() -> None:
    assert Life(1030.0, CLEAR, before=nothing_found(), connections=0).state() is None


def test_what_took_no_time_to_find_is_not_kept() -> None:
    life = Life(1000.0, replace(CLEAR, initiate=False))
    life.send(ping(1))
    assert life.state() == "clear"
    assert not life.gateway.lasting.changed


def keyed(life: Life) -> None:
    """Bob's gateway is there now, and begins."""
    life.send(proposal())
    questions = life.gateway._ledger.lookups
    for number in list(questions):
        life.send(happened.LookupEnded(number, found((SG_B, "sg-b"))))
    life.send(keying.InboundSaEstablished(1, esp_sa(SG_B, SG_A, 0x100, (BOB, ALICE))))
    life.send(happened.SaInstalled(1, inbound_key(0x100)))


def test_a_tunnel_withdraws_the_verdict_before_the_next_batch_is_due() -> None:
    before = nothing_found()
    before.write()
    assert before.disk["verdict"]
    keyed(before)
    assert before.state() in ("pending", "keyed")
    assert before.gateway.lasting.urgent
    assert asks(Life(1030.0, CLEAR, before=before).send(ping(2)))


def test_what_had_a_tunnel_once_is_asked_about_before_it_is_clear() -> None:
    before = nothing_found()
    connection = before.gateway.find(Flow(ALICE, BOB, 1))
    assert connection is not None
    before.memory.pair_encrypted(connection.selectors, SG_B)
    assert asks(Life(1030.0, CLEAR, before=before).send(ping(2)))


def test_the_operator_forgets_it_on_disk_too() -> None:
    before = nothing_found()
    before.gateway.forget(host_network(BOB), before.now)
    assert Life(1030.0, CLEAR, before=before).state() is None


def test_an_end_of_a_lifespan_is_an_end_on_disk() -> None:
    before = nothing_found()
    before.write()
    before.gateway.handle_timer(1120.0)
    before.write()
    assert before.disk["verdict"] == {}


def test_a_gateway_that_was_silent_is_still_tried_last() -> None:
    before = Life(1000.0, CLEAR)
    before.gateway._initiator.homes.gateway_died(SG_B, 1000.0)
    life = Life(1020.0, CLEAR, before=before)
    assert life.gateway.silent_gateways(1020.0) == {SG_B: 40.0}
    life.gateway.handle_timer(1060.0)
    life.write()
    assert life.disk["silence"] == {}
