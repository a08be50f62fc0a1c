"""The transition table, walked; and what a tunnel covers."""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network
from itertools import product
from pathlib import Path

import pytest

import oegw
from oegw.connection import (
    TRANSITIONS,
    WHILE_EXPIRING,
    Connection,
    Happening,
    IllegalTransition,
    Selectors,
    State,
)
from policy.flow import Flow
from tests.support.playbook import ALICE, BOB, opportunistic


def connection_in(state: State) -> Connection:
    selectors = Selectors(ip_network(ALICE), ip_network(BOB))
    return Connection(1, selectors, opportunistic("all"), state=state)


def expiring_from(before: State) -> Connection:
    connection = connection_in(before)
    happening = Happening.LOOK_DUE if before is State.KEYED else Happening.LIFESPAN_OVER
    connection.move(happening, 1.0, "")
    assert (connection.state, connection.standing) == (State.EXPIRING, before)
    return connection


@pytest.mark.parametrize(
    ("state", "happening"), list(product(set(State) - {State.EXPIRING}, Happening))
)
def test_every_pair_is_in_the_table_or_raises_and_changes_nothing(
    state: State, happening: Happening
) -> None:
    connection = connection_in(state)
    new = TRANSITIONS.get((state, happening))
    if new is None:
        with pytest.raises(IllegalTransition, match=state.name):
            connection.move(happening, 5.0, "why")
        assert (connection.state, connection.since, connection.reason) == (state, 0.0, "")
    else:
        assert connection.move(happening, 5.0, "why") is state
        assert (connection.state, connection.since, connection.reason) == (new, 5.0, "why")


@pytest.mark.parametrize(
    ("before", "happening"), list(product((State.CLEAR, State.DENIED, State.KEYED), Happening))
)
def test_what_may_happen_while_it_expires_depends_on_what_it_was(
    before: State, happening: Happening
) -> None:
    connection = expiring_from(before)
    new = TRANSITIONS.get((State.EXPIRING, happening))
    if new is None or before not in WHILE_EXPIRING[happening]:
        with pytest.raises(IllegalTransition, match="EXPIRING"):
            connection.move(happening, 5.0, "why")
        assert (connection.state, connection.standing) == (State.EXPIRING, before)
        assert (connection.since, connection.reason) == (1.0, "")
    else:
        assert connection.move(happening, 5.0, "why") is State.EXPIRING
        assert (connection.state, connection.since, connection.reason) == (new, 5.0, "why")
        assert connection.standing is (before if new is State.EXPIRING else new)


def test_rows_of_expiring_say_from_where_they_hold() -> None:
    rows = {happening for state, happening in TRANSITIONS if state is State.EXPIRING}
    assert rows == set(WHILE_EXPIRING)
    begins = {state for (state, _), new in TRANSITIONS.items() if new is State.EXPIRING}
    assert set().union(*WHILE_EXPIRING.values()) == begins - {State.EXPIRING}


def test_the_documentation_has_every_state_and_row() -> None:
    """`docs/states.md` maps our table to the RFC's diagrams: row by row, none more, none less."""
    text = (Path(oegw.__file__).parent / "docs" / "states.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\w+) \| ([^|]+) \| (\w+) \|", text, re.M)
    told = {(old, happening, new) for old, happening, new in rows if old != "from"}
    table = {(old.name, h.value, new.name) for (old, h), new in TRANSITIONS.items()}
    assert told == table


def test_every_state_can_be_reached_and_all_but_the_last_can_be_left() -> None:
    assert set(TRANSITIONS.values()) | {State.NONEXISTENT} == set(State)
    assert {state for state, _ in TRANSITIONS} == set(State) - {State.EXPIRED}


@pytest.mark.parametrize(
    ("flow", "covered"),
    [
        (Flow(ALICE, BOB, 6, 4000, 80), True),
        (Flow(ALICE, BOB, 6, 4000, 81), False),
        (Flow(ALICE, BOB, 17, 4000, 80), False),
        (Flow(ALICE, BOB, 6, fragment=True), False),
        (Flow(BOB, ALICE, 6, 80, 4000), False),
        (Flow(ip_address("2001:db8::1"), ip_address("2001:db8::2"), 6, 1, 80), False),
    ],
)
def test_selectors_cover_protocol_and_port(flow: Flow, covered: bool) -> None:
    selectors = Selectors(ip_network(ALICE), ip_network(BOB), protocol=6, remote_port=80)
    assert selectors.covers(flow) is covered
