"""Every pair of state and step: in the table it moves, else it raises and changes nothing."""

from __future__ import annotations

from itertools import product

import pytest

from ike.errors import IllegalTransition, UnexpectedMessage
from ike.v1.transitions import (
    LIFE,
    LIVENESS,
    MAIN_MODE,
    QUICK_MODE,
    LifeState,
    LifeStep,
    LivenessState,
    LivenessStep,
    MainModeState,
    MainModeStep,
    Progress,
    QuickModeState,
    QuickModeStep,
)

TABLES = [
    (MAIN_MODE, MainModeState, MainModeStep),
    (QUICK_MODE, QuickModeState, QuickModeStep),
    (LIFE, LifeState, LifeStep),
    (LIVENESS, LivenessState, LivenessStep),
]
PAIRS = [
    (table, state, step)
    for table, states, steps in TABLES
    for state, step in product(states, steps)
]


@pytest.mark.parametrize(("table", "state", "step"), PAIRS)
def test_every_pair(table, state, step) -> None:
    progress = Progress(table, state)
    if (state, step) in table:
        progress.expect(step)
        progress.advance(step)
        assert progress.state is table[state, step]
    else:
        with pytest.raises(UnexpectedMessage):
            progress.expect(step)
        with pytest.raises(IllegalTransition):
            progress.advance(step)
        assert progress.state is state


def follow(table, state, *steps):
    progress = Progress(table, state)
    for step in steps:
        progress.advance(step)
    return progress.state


def test_the_exchanges_as_the_specification_draws_them() -> None:
    m, q = MainModeStep, QuickModeStep
    initiator = (m.INITIATE, m.MM2_TAKEN, m.MM4_TAKEN, m.MM6_TAKEN)
    responder = (m.MM1_TAKEN, m.MM3_TAKEN, m.MM5_TAKEN, m.KEY_VERIFIED)
    for steps in (initiator, responder):
        assert follow(MAIN_MODE, MainModeState.IDLE, *steps) is MainModeState.ESTABLISHED
    initiator = (q.INITIATE, q.QM2_TAKEN, q.CLOSING_SENT)
    responder = (q.QM1_TAKEN, q.ACCEPTED, q.REPLY_SENT, q.QM3_TAKEN)
    for steps in (initiator, responder):
        assert follow(QUICK_MODE, QuickModeState.IDLE, *steps) is QuickModeState.ESTABLISHED


def test_nothing_leaves_the_end() -> None:
    assert not [pair for pair in MAIN_MODE if pair[0] is MainModeState.CLOSED]
    assert not [pair for pair in QUICK_MODE if pair[0] is QuickModeState.CLOSED]
    assert not [pair for pair in LIFE if pair[0] is LifeState.CLOSED]
    assert not [pair for pair in LIVENESS if pair[0] is LivenessState.DEAD]


def test_nobody_is_dead_who_was_not_asked() -> None:
    into = {state for (state, _), dead in LIVENESS.items() if dead is LivenessState.DEAD}
    assert into == {LivenessState.DOUBTED}


def test_what_retires_has_been_keyed_and_comes_back_only_if_its_successor_goes() -> None:
    into = {step for (_, step), state in LIFE.items() if state is LifeState.RETIRING}
    assert into == {LifeStep.SUCCEEDED}
    back = {
        step
        for (state, step), following in LIFE.items()
        if state is LifeState.RETIRING and following is not LifeState.CLOSED
    }
    assert back == {LifeStep.SUCCESSOR_LOST}


def test_no_way_to_be_established_without_a_signature() -> None:
    into = {step for (_, step), state in MAIN_MODE.items() if state is MainModeState.ESTABLISHED}
    assert into == {MainModeStep.KEY_VERIFIED, MainModeStep.MM6_TAKEN}
