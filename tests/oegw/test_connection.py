"""The transition table, walked; and what a tunnel covers."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from itertools import product

import pytest

from oegw.connection import (
    TRANSITIONS,
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


@pytest.mark.parametrize(("state", "happening"), list(product(State, Happening)))
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
