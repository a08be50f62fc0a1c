"""Every message of a whole setup lost, doubled, replayed, reordered, corrupted.

A setup is nine messages: MM1 to MM6, QM1 to QM3.  What comes after it stands in test_life.py.
"""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from ike import events as e
from tests.support.ike_pair import Pair

MESSAGES = 9


def advance(pair: Pair, count: int) -> None:
    """Deliver ``count`` messages of a setup."""
    pair.initiate()
    for _ in range(count):
        pair.transfer()


def assert_one_tunnel(pair: Pair) -> None:
    assert pair.tunnel_up()
    assert len(pair.a.pairs()) == 1
    assert len(pair.b.pairs()) == 1
    assert not pair.a.seen(e.NegotiationFailed)
    assert not pair.b.seen(e.NegotiationFailed)


def test_nothing_goes_wrong() -> None:
    pair = Pair()
    advance(pair, 0)
    pair.run()
    assert_one_tunnel(pair)
    assert [*pair.a.names(), *pair.b.names()] == [
        *("MM1", "MM3", "MM5", "QM1", "QM3"),
        *("MM2", "MM4", "MM6", "QM2"),
    ]
    assert not pair.a.triggers
    assert not pair.b.triggers


@pytest.mark.parametrize("position", range(MESSAGES))
def test_each_message_lost(position: int) -> None:
    pair = Pair(seed=position + 10)
    advance(pair, position)
    pair.drop()
    pair.wait(4)
    assert_one_tunnel(pair)


@pytest.mark.parametrize("position", range(MESSAGES))
def test_each_message_lost_twice(position: int) -> None:
    pair = Pair(seed=position + 20)
    advance(pair, position)
    lost = len(pair.drop().data)
    while not pair.wire:
        pair.now = min(t for s in pair.sides if (t := s.endpoint.next_timer()) is not None)
        for side in pair.sides:
            side.endpoint.handle_timer(pair.now)
        pair.pump()
    pair.drop()
    assert lost
    pair.wait(10)
    assert_one_tunnel(pair)


@pytest.mark.parametrize("position", range(MESSAGES))
def test_each_message_doubled(position: int) -> None:
    pair = Pair(seed=position + 30)
    advance(pair, position)
    pair.duplicate()
    pair.run()
    pair.wait(20)
    assert_one_tunnel(pair)


@pytest.mark.parametrize("position", range(MESSAGES))
def test_each_message_after_the_following_ones(position: int) -> None:
    pair = Pair(seed=position + 40)
    advance(pair, position)
    pair.duplicate()
    pair.reorder()
    pair.run()
    pair.wait(20)
    assert_one_tunnel(pair)


def test_every_message_doubled() -> None:
    """ikev1-impair-01: still exactly one pair of SAs."""
    pair = Pair()
    pair.initiate()
    for _ in range(60):
        if not pair.wire:
            break
        datagram = pair.wire[0]
        pair.transfer()
        pair.deliver(datagram)
    pair.wait(20)
    assert_one_tunnel(pair)


@pytest.mark.parametrize("position", range(MESSAGES + 1))
def test_every_earlier_message_replayed_in_each_state(position: int) -> None:
    pair = Pair(seed=position + 50)
    advance(pair, position)
    for datagram in list(pair.sent):
        pair.deliver(datagram)
    pair.run()
    pair.wait(20)
    assert_one_tunnel(pair)


def test_replays_long_after_leave_the_tunnel_alone() -> None:
    pair = Pair()
    advance(pair, MESSAGES)
    recorded = list(pair.sent)
    pair.wait(120)
    for _ in range(3):
        for datagram in recorded:
            pair.deliver(datagram)
            pair.wait(1)
    pair.wait(60)
    assert_one_tunnel(pair)
    assert len(pair.a.endpoint.snapshot().channels) == 1


@pytest.mark.parametrize("position", range(MESSAGES))
@pytest.mark.parametrize("seed", range(6))
def test_a_corrupted_copy_overtakes_each_message(position: int, seed: int) -> None:
    """Somebody on the wire sends a flipped copy first: the true message still counts."""
    randomness = random.Random(seed * 100 + position)
    pair = Pair(seed=position + 60)
    advance(pair, position)
    pair.duplicate()
    pair.corrupt(randomness.randrange(len(pair.wire[0].data) * 8))
    pair.run()
    pair.wait(20)
    assert_one_tunnel(pair)


@pytest.mark.parametrize("position", range(MESSAGES))
def test_each_octet_of_a_message_corrupted_in_an_overtaking_copy(position: int) -> None:
    pair = Pair(seed=position + 70)
    advance(pair, position)
    length = len(pair.wire[0].data)
    failed = []
    for octet in range(0, length, 7):
        pair = Pair(seed=position + 70)
        advance(pair, position)
        pair.duplicate()
        pair.corrupt(octet * 8 + octet % 8)
        pair.run()
        pair.wait(20)
        if not pair.tunnel_up():
            failed.append(octet)
    assert failed == []


@pytest.mark.parametrize("position", range(MESSAGES))
@pytest.mark.parametrize("seed", range(6))
def test_a_message_corrupted_on_its_way_never_leaves_half_a_tunnel(
    position: int, seed: int
) -> None:
    randomness = random.Random(seed * 100 + position)
    pair = Pair(seed=position + 80)
    advance(pair, position)
    pair.corrupt(randomness.randrange(len(pair.wire[0].data) * 8))
    pair.run()
    pair.wait(120)
    assert pair.tunnel_up() or pair.a.seen(e.NegotiationFailed)
    assert len(pair.a.pairs()) == len(pair.b.pairs())
    if position >= 6:  # from quick mode on, a retransmission repairs it
        assert_one_tunnel(pair)


@pytest.mark.parametrize("position", range(MESSAGES))
def test_truncated_copies_of_each_message(position: int) -> None:
    pair = Pair(seed=position + 90)
    advance(pair, position)
    datagram = pair.wire[0]
    for length in range(0, len(datagram.data), 5):
        pair.deliver(replace(datagram, data=datagram.data[:length]))
        fixed = bytearray(datagram.data[:length])
        if length >= 28:
            fixed[24:28] = length.to_bytes(4, "big")
            pair.deliver(replace(datagram, data=bytes(fixed)))
    pair.run()
    pair.wait(20)
    assert_one_tunnel(pair)


@pytest.mark.parametrize("seed", range(40))
def test_a_bad_network(seed: int) -> None:
    """Loss, doubling and reordering at random: one tunnel, or a clean failure on both sides."""
    randomness = random.Random(seed)
    pair = Pair(seed=seed + 100)
    pair.initiate()
    deadline = pair.now + 90
    while pair.now < deadline:
        for _ in range(200):
            if not pair.wire:
                break
            luck = randomness.random()
            if luck < 0.25:
                pair.drop()
            elif luck < 0.4 and len(pair.wire) < 20:
                pair.duplicate()
                pair.transfer()
            elif luck < 0.55 and len(pair.wire) > 1:
                pair.reorder()
            else:
                pair.transfer()
        pair.now += 0.2
        for side in pair.sides:
            side.endpoint.handle_timer(pair.now)
        pair.pump()
    pair.run()
    assert len(pair.a.pairs()) == len(pair.b.pairs()) <= 1
    assert pair.tunnel_up() or pair.a.seen(e.NegotiationFailed)


def test_silence_is_reported_after_all_tries() -> None:
    pair = Pair(a={"retransmit_tries": 3})
    pair.initiate()
    pair.wire.clear()
    for _ in range(10):
        timer = pair.a.endpoint.next_timer()
        if timer is None:
            break
        pair.now = timer
        pair.a.endpoint.handle_timer(timer)
        pair.pump()
        pair.wire.clear()
    assert pair.a.names() == ["MM1"] * 3
    (failure,) = pair.a.seen(e.NegotiationFailed)
    assert failure.reason is e.Failure.SILENCE
    assert 1000 + 3.5 * 0.9 <= pair.now <= 1000 + 3.5 * 1.1
    assert pair.a.endpoint.snapshot().channels == ()
