"""A whole life, each of its messages lost, doubled, reordered, corrupted and replayed.

The life: main mode and quick mode, renewal of the tunnel with its Deletes, R-U-THERE with
its answer, renewal of the channel with its Delete, and the tunnel's end.  Whatever happens to one
message, or to whichever are recorded and played again, the tunnel stays up at both ends, there is
never a second pair but the one that is being made or retired, and nothing raises.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from ike import events as e
from ike.v1.vendor import Vendor
from tests.support.ike_pair import Pair, Side
from tests.support.ike_vendors import set_vendors

SETTINGS = {"tunnel_lifetime": 2000, "channel_lifetime": 1000}

Adversary = Callable[["Life", int], None]


@pytest.fixture(autouse=True)
def dead_peer_detection(monkeypatch: pytest.MonkeyPatch) -> None:
    set_vendors(monkeypatch, Vendor.DEAD_PEER_DETECTION)


class Life(Pair):
    """``adversary`` is called before each message of the life is delivered, with its number."""

    def __init__(self, seed: int, adversary: Adversary | None = None) -> None:
        super().__init__(SETTINGS, SETTINGS, seed=seed)
        self.adversary = adversary
        self.steps = 0
        self.story: list[str] = []

    def transfer(self) -> e.Datagram | None:
        step, self.steps = self.steps, self.steps + 1
        if self.adversary is not None:
            self.adversary(self, step)
        if not self.wire:  # the adversary took it
            return None
        assert len(self.a.pairs()) <= 2, "never more than the old one and its successor"
        assert len(self.b.pairs()) <= 2
        return super().transfer()

    def live(self) -> None:
        self.story.append(f"set up from {self.steps}")
        self.initiate(0)
        self.run()
        self.wait(20)
        self.assert_one_pair()

        self.story.append(f"renewal of the tunnel from {self.steps}")
        self.initiate(2, replaces=0)
        self.run()
        self.wait(40)
        self.assert_one_pair()
        assert list(self.a.pairs()) == [2]

        self.story.append(f"dead peer detection from {self.steps}")
        self.a.endpoint.traffic_seen(self.now, 2, None, self.now)
        self.pump()
        self.run()
        self.wait(30)
        self.assert_one_pair()

        self.story.append(f"renewal of the channel from {self.steps}")
        while self.now < 1000 + 960:
            self.wait(10)
        self.assert_one_pair()
        for side in self.sides:
            assert any(c.channel > 1 for c in side.seen(e.KeyingChannelEstablished))

        self.story.append(f"the end from {self.steps}")
        for side in self.sides:
            assert {c.reason for c in side.seen(e.TunnelClosed)} <= {
                "replaced",
                "deleted by the peer",
            }
            assert len(side.seen(e.TunnelClosed)) == 1
        self.a.endpoint.close_tunnel(self.now, 2)
        self.pump()
        self.run()
        self.wait(40)
        assert self.a.pairs() == self.b.pairs() == {}

    def assert_one_pair(self) -> None:
        assert self.tunnel_up(), self.story
        assert len(self.a.pairs()) == len(self.b.pairs()) == 1, self.story
        for side in self.sides:
            assert not side.seen(e.NegotiationFailed), self.story


def kinds(side: Side) -> list[str]:
    return [event.name for event in side.seen(e.MessageSent) if not event.retransmission]


MESSAGES = 25


def test_the_life_without_an_adversary() -> None:
    life = Life(1)
    life.live()
    assert life.steps == MESSAGES, life.story
    assert kinds(life.a) == [
        *("MM1", "MM3", "MM5", "QM1", "QM3"),
        *("QM1", "QM3", "INFO"),  # and Delete of the old tunnel
        "INFO",  # R-U-THERE
        *("MM1", "MM3", "MM5", "INFO"),  # and Delete of the old channel
        "INFO",  # Delete
    ]
    assert kinds(life.b) == [
        *("MM2", "MM4", "MM6", "QM2"),
        *("QM2", "INFO"),
        "INFO",  # R-U-THERE-ACK
        *("MM2", "MM4", "MM6"),
        "INFO",
    ]
    assert not life.a.triggers + life.b.triggers


@pytest.mark.parametrize("position", range(MESSAGES))
def test_each_message_lost(position: int) -> None:
    def lose(life: Life, step: int) -> None:
        if step == position:
            life.drop()

    Life(position, lose).live()


@pytest.mark.parametrize("position", range(MESSAGES))
def test_each_message_doubled(position: int) -> None:
    def double(life: Life, step: int) -> None:
        if step == position:
            life.duplicate()

    Life(position, double).live()


@pytest.mark.parametrize("position", range(MESSAGES))
def test_each_message_and_its_copy_a_second_later(position: int) -> None:
    kept = []

    def copy(life: Life, step: int) -> None:
        if step == position:
            kept.append(life.wire[0])
        elif step > position and kept:
            life.wire.append(kept.pop())

    Life(position, copy).live()


@pytest.mark.parametrize("position", range(MESSAGES))
def test_each_message_after_the_next_one(position: int) -> None:
    kept = []

    def hold(life: Life, step: int) -> None:
        if step == position:
            kept.append(life.wire.pop(0))
        elif step == position + 1 and kept:
            life.wire.insert(1, kept.pop())

    Life(position, hold).live()


@pytest.mark.parametrize("position", range(MESSAGES))
@pytest.mark.parametrize("seed", range(4))
def test_a_corrupted_copy_overtakes_each_message(position: int, seed: int) -> None:
    randomness = random.Random(seed * 1000 + position)

    def corrupt(life: Life, step: int) -> None:
        if step == position:
            life.duplicate()
            life.corrupt(randomness.randrange(len(life.wire[0].data) * 8))

    Life(position, corrupt).live()


@pytest.mark.parametrize("position", range(6, MESSAGES))
@pytest.mark.parametrize("seed", range(3))
def test_each_message_after_the_first_main_mode_arrives_corrupted(position: int, seed: int) -> None:
    """It is sent again: by its timer, or because the whole renewal is begun again."""
    randomness = random.Random(seed * 1000 + position + 500)

    def corrupt(life: Life, step: int) -> None:
        if step == position:
            life.corrupt(randomness.randrange(len(life.wire[0].data) * 8))

    Life(position, corrupt).live()


def flipped(datagram: e.Datagram, randomness: random.Random) -> e.Datagram:
    data = bytearray(datagram.data)
    data[randomness.randrange(len(data))] ^= 1 << randomness.randrange(8)
    return replace(datagram, data=bytes(data))


@pytest.mark.parametrize("position", range(1, MESSAGES))
@pytest.mark.parametrize("flips", [0, 6])
def test_all_that_was_recorded_is_replayed_in_each_state(position: int, flips: int) -> None:
    """As it was, or in ``flips`` copies with another bit flipped in each."""
    randomness = random.Random(position)

    def replay(life: Life, step: int) -> None:
        if step != position:
            return
        under_way = life.wire
        for datagram in list(life.sent):
            if datagram in under_way:
                continue
            copies = [flipped(datagram, randomness) for _ in range(flips)] or [datagram]
            for copy in copies:
                life.wire = []
                life.deliver(copy)
                under_way += life.wire
        life.wire = under_way

    Life(position, replay).live()


def test_all_that_was_recorded_is_replayed_after_the_end() -> None:
    life = Life(1)
    life.live()
    for datagram in list(life.sent):
        life.deliver(datagram)
        life.run()
    life.wait(100)
    assert life.a.pairs() == life.b.pairs() == {}
    assert len(life.a.seen(e.OutboundSaEstablished)) == 2
    assert len(life.b.seen(e.OutboundSaEstablished)) == 2


@pytest.mark.parametrize("seed", range(10))
def test_recorded_messages_with_bits_flipped_hit_an_established_tunnel(seed: int) -> None:
    randomness = random.Random(seed)
    life = Life(seed)
    life.initiate(0)
    life.run()
    life.wait(10)
    life.initiate(2, replaces=0)
    life.run()
    life.wait(10)
    for datagram in list(life.sent):
        for _ in range(5):
            life.deliver(flipped(datagram, randomness))
            life.run()
    life.wait(60)
    life.assert_one_pair()
