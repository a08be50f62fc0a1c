"""The later life: successors of tunnels and of channels, made before the old ones break."""

from __future__ import annotations

import pytest

from ike import events as e
from ike.configuration import Configuration
from ike.constants import AT_ONCE
from ike.groups import KeyPairStock
from ike.signer import Signer
from ike.station import Station
from ike.v1.rekey import Margin, grace
from ike.v1.renewal import Renewal
from ike.v1.succession import settle
from tests.support.ike_pair import ALICE, BOB, CAROL, Pair, Side, octets_from, private_key

TUNNEL = {"tunnel_lifetime": 600}
CHANNEL = {"channel_lifetime": 600, "tunnel_lifetime": 6000}
BRIEF = {"tunnel_lifetime": 10, "channel_lifetime": 10}


def up(settings: dict, seed: int = 1) -> Pair:
    pair = Pair(a=settings, b=settings, seed=seed)
    pair.initiate()
    pair.run()
    assert pair.tunnel_up()
    return pair


class Shell:
    """What a gateway does about ``TunnelExpiring``: it orders the successor.

    ``who``: the sides that do.  After every second it checks that packets which either side
    would send now find an inbound SA at the other.
    """

    def __init__(self, pair: Pair, *who: Side) -> None:
        self.pair = pair
        self.who = who or pair.sides
        self.read = {id(side): len(side.events) for side in pair.sides}
        self.next_number = {id(side): 100 for side in pair.sides}
        self.sends_on: dict[int, int | None] = {id(side): None for side in pair.sides}
        self.lost = 0
        for side in pair.sides:
            self.sends_on[id(side)] = next(reversed(side.pairs()))

    def live(self, seconds: float, step: float = 0.1) -> None:
        end = self.pair.now + seconds
        while self.pair.now < end - 1e-9:
            self.pair.run()
            self.pair.wait(step)
            for side in self.pair.sides:
                self.attend(side)
            for side in self.pair.sides:
                self.lost += not self.arrives(side)

    def attend(self, side: Side) -> None:
        fresh = side.events[self.read[id(side)] :]
        self.read[id(side)] = len(side.events)
        for event in fresh:
            if isinstance(event, e.TunnelExpiring) and side in self.who:
                number = self.next_number[id(side)]
                self.next_number[id(side)] += 2
                self.pair.initiate(number, side=side, replaces=event.tunnel)
                self.pair.run()
            elif isinstance(event, e.OutboundSaEstablished | e.TunnelPreferred):
                self.sends_on[id(side)] = event.tunnel
            elif isinstance(event, e.TunnelClosed) and self.sends_on[id(side)] == event.tunnel:
                self.sends_on[id(side)] = next(reversed(side.pairs()), None)
        if len(side.events) > self.read[id(side)]:
            self.attend(side)

    def arrives(self, side: Side) -> bool:
        tunnel = self.sends_on[id(side)]
        if tunnel is None:
            return False
        outbound = side.pairs()[tunnel][1]
        return outbound in [inbound for inbound, _ in self.pair.other(side).pairs().values()]


def reasons(side: Side) -> list[str]:
    return [closed.reason for closed in side.seen(e.TunnelClosed)]


# When.


def test_the_initiator_asks_early_in_the_margin_and_the_responder_late() -> None:
    moments: dict[bool, list[float]] = {True: [], False: []}
    for initiator in moments:
        for seed in range(200):
            moments[initiator].append(Margin(0, 3600, initiator, octets_from(seed)).first)
    assert 3600 - 540 <= min(moments[True]) < max(moments[True]) <= 3600 - 360
    assert 3600 - 540 / 4 <= min(moments[False]) < max(moments[False]) <= 3600 - 540 / 8
    assert len(set(moments[True])) == 200
    assert max(moments[True]) - min(moments[True]) > 150


def test_short_lifetimes_have_short_margins() -> None:
    assert 7 <= Margin(0, 10, True, octets_from(1)).first <= 8
    assert 9.25 <= Margin(0, 10, False, octets_from(1)).first <= 9.625
    assert grace(10) == 1
    assert grace(3600) == 5


def test_it_is_asked_for_again_until_the_end() -> None:
    margin = Margin(0, 3600, True, octets_from(1))
    now, gaps = margin.first, []
    for _ in range(9):
        following = margin.asked(now)
        gaps.append(following - now)
        now = following
    assert gaps == pytest.approx([10] * 6 + [60] * 3)


def test_nobody_orders_a_successor() -> None:
    pair = up(TUNNEL)
    pair.wait(601)
    asked = len(pair.a.seen(e.TunnelExpiring))
    assert asked in (8, 9)  # margin of 180 s, less up to a third: six at 10 s, then each minute
    assert 1 <= len(pair.b.seen(e.TunnelExpiring)) < asked
    assert pair.a.pairs() == pair.b.pairs() == {}
    assert not pair.a.seen(e.NegotiationFailed)


# Phase 2.


@pytest.mark.parametrize("who", ["a", "b", "both"])
def test_a_tunnel_is_renewed_for_ever_and_nothing_is_lost(who: str) -> None:
    pair = up(TUNNEL)
    shell = Shell(pair, *(pair.sides if who == "both" else (getattr(pair, who),)))
    shell.live(3000, step=1)
    assert shell.lost == 0
    for side in pair.sides:
        assert len(side.pairs()) in (1, 2)
        assert set(reasons(side)) <= {"replaced", "deleted by the peer"}
        assert 4 <= len(reasons(side)) <= 8
        assert not side.seen(e.NegotiationFailed)
    assert pair.a.names().count("MM1") + pair.b.names().count("MM1") == 1


def test_the_order_of_a_renewal() -> None:
    pair = up(TUNNEL)
    while not pair.a.seen(e.TunnelExpiring):
        pair.wait(1)
    pair.initiate(2, replaces=0)
    # HDR*, HASH(1), SA, Ni, KE, IDci, IDcr   on the channel that is there
    pair.transfer()
    # HDR*, HASH(2), SA, Nr, KE, IDci, IDcr
    pair.transfer()
    assert list(pair.a.pairs()) == [0, 2]
    # HDR*, HASH(3)
    pair.transfer()
    assert len(pair.a.pairs()) == len(pair.b.pairs()) == 2
    pair.wait(4.9)
    assert len(pair.a.pairs()) == len(pair.b.pairs()) == 2
    # HDR*, HASH(1), D(old)  both ways
    pair.wait(0.2)
    assert list(pair.a.pairs()) == [2]
    assert len(pair.b.pairs()) == 1
    assert reasons(pair.a) == ["replaced"]
    assert reasons(pair.b) == ["deleted by the peer"]
    assert len(pair.a.seen(e.TunnelExpiring)) == 1
    assert pair.a.names().count("MM1") == 1


def test_a_lost_message_3_does_no_harm() -> None:
    """The responder sends on the old tunnel until message 3 has come."""
    pair = up(TUNNEL)
    pair.wait(10)
    pair.initiate(2, replaces=0)
    for _ in range(2):
        pair.transfer()
    for _ in range(3):  # message 3 is lost three times: at 0, 0.5, 1.5 s
        pair.drop()
        while not pair.wire:
            pair.now = min(t for s in pair.sides if (t := s.endpoint.next_timer()) is not None)
            for side in pair.sides:
                side.endpoint.handle_timer(pair.now)
            pair.pump()
        assert len(pair.b.pairs()) == 1
        if len(pair.wire[0].data) > 100:
            pair.transfer()  # message 2 again, which message 3 answers again
    assert list(pair.a.pairs()) == [0, 2]
    shell = Shell(pair)
    shell.live(30)
    assert shell.lost == 0
    assert list(pair.a.pairs()) == [2]
    assert len(pair.b.pairs()) == 1


def test_a_message_3_that_never_comes_leaves_the_old_tunnel() -> None:
    """The responder gives the successor up and says so; the old one lives and asks again."""
    pair = up(TUNNEL)
    pair.wait(10)
    pair.initiate(2, replaces=0)
    for _ in range(2):
        pair.transfer()
    end = pair.now + 17
    while pair.now < end:
        pair.wire = [d for d in pair.wire if d.local == pair.b.address]  # all from a is lost
        pair.run_some()
        pair.now += 0.25
        for side in pair.sides:
            side.endpoint.handle_timer(pair.now)
        pair.pump()
    pair.run()
    assert pair.b.seen(e.NegotiationFailed)
    assert list(pair.a.pairs()) == [0]
    assert pair.tunnel_up()


def test_a_responder_closes_what_the_initiator_forgot() -> None:
    pair = up(TUNNEL)
    pair.initiate(2, replaces=0)
    pair.run()
    pair.broken = True
    pair.wait(14)
    assert len(pair.b.pairs()) == 2
    pair.wait(2)
    assert len(pair.b.pairs()) == 1
    assert reasons(pair.b) == ["replaced"]


def test_a_soft_limit_asks_at_once() -> None:
    pair = up(TUNNEL)
    pair.wait(5)
    pair.a.endpoint.tunnel_expiring(pair.now, 0)
    pair.pump()
    assert len(pair.a.seen(e.TunnelExpiring)) == 1
    pair.initiate(2, replaces=0)
    pair.a.endpoint.tunnel_expiring(pair.now, 0)
    pair.pump()
    assert len(pair.a.seen(e.TunnelExpiring)) == 1  # a successor is under way
    pair.run()
    pair.a.endpoint.tunnel_expiring(pair.now, 0)
    pair.pump()
    assert len(pair.a.seen(e.TunnelExpiring)) == 1  # and now it is up
    pair.a.endpoint.tunnel_expiring(pair.now, 98)
    assert pair.a.endpoint.snapshot().unknown_handles == 1


def test_a_successor_that_fails_is_asked_for_again() -> None:
    pair = up(TUNNEL)
    while not pair.a.seen(e.TunnelExpiring):
        pair.wait(1)
    pair.broken = True
    pair.initiate(2, replaces=0)
    pair.wait(20)
    assert pair.a.seen(e.NegotiationFailed)
    assert list(pair.a.pairs()) == [0]
    asked = len(pair.a.seen(e.TunnelExpiring))
    pair.broken = False
    pair.wait(11)
    assert len(pair.a.seen(e.TunnelExpiring)) > asked


# Both at once.


@pytest.mark.parametrize("seed", range(12))
def test_both_renew_at_once(seed: int) -> None:
    pair = up(TUNNEL, seed=seed)
    pair.wait(400)
    (old_b,) = pair.b.pairs()
    shell = Shell(pair)
    pair.initiate(2, replaces=0)
    pair.initiate(2, side=pair.b, replaces=old_b)
    for _ in range(seed % 4):
        pair.reorder()
    pair.run()
    assert len(pair.a.pairs()) == 3
    shell.live(2)
    assert len(pair.a.pairs()) == 2  # the old one still receives
    shell.live(8)
    assert len(pair.a.pairs()) == len(pair.b.pairs()) == 1
    assert pair.tunnel_up()
    assert shell.lost == 0


@pytest.mark.parametrize("seed", range(50))
def test_fifty_simultaneous_initiations(seed: int) -> None:
    """Exactly one live pair after 2 s, whatever the delay between the two."""
    pair = Pair(seed=seed)
    pair.initiate(0)
    for _ in range(seed % 10):
        if pair.wire:
            pair.transfer()
    pair.initiate(0, side=pair.b)
    step = 0
    while pair.wire:
        step += 1
        if (seed >> step % 5) & 1 and len(pair.wire) > 1:
            pair.reorder()
        pair.transfer()
    shell = Shell(pair)
    shell.live(2)
    assert len(pair.a.pairs()) == len(pair.b.pairs()) == 1
    assert pair.tunnel_up()
    assert shell.lost == 0
    shell.live(28)
    assert shell.lost == 0
    for side in pair.sides:
        assert len(side.pairs()) == 1
        assert len(side.endpoint.snapshot().channels) == 1
    # The channel that is left serves both.
    begun = pair.a.names().count("MM1") + pair.b.names().count("MM1")
    pair.initiate(10, remote_selector=CAROL)
    pair.run()
    pair.initiate(10, side=pair.b, local_selector=ALICE)
    pair.run()
    assert pair.a.names().count("MM1") + pair.b.names().count("MM1") == begun
    assert len(pair.a.pairs()) == 3


def test_the_redundant_one_is_renewed_if_the_other_ends_first() -> None:
    """Its initiator has not closed it; meanwhile its heir is deleted."""
    seeds = []
    for seed in range(8):
        pair = Pair(a=TUNNEL, b=TUNNEL, seed=seed)
        pair.initiate(0)
        pair.initiate(0, side=pair.b)
        pair.run()
        pair.broken = True
        pair.wait(1)
        if len(pair.a.pairs()) == 1:  # it was a's own, and a has closed it
            continue
        seeds.append(seed)
        pair.a.endpoint.close_tunnel(pair.now, 0)
        pair.pump()
        (left,) = pair.a.pairs()
        pair.wait(590)
        assert {event.tunnel for event in pair.a.seen(e.TunnelExpiring)} == {left}
    assert seeds


class BusyChannel:
    """What a ``Renewal`` sees of its session."""

    initiator = True
    busy = True

    def __init__(self) -> None:
        self.closed: list[tuple[float, str]] = []
        self.successors = 0

    def in_use(self, now: float) -> bool:
        return True

    def begin_successor(self, now: float) -> None:
        self.successors += 1

    def close(self, now: float, reason: str, tell: bool = True) -> None:
        self.closed.append((now, reason))


def test_a_channel_with_a_quick_mode_under_way_retires_later() -> None:
    key = private_key("a")
    randomness = octets_from(1)
    station = Station(Configuration(key), randomness, Signer(key), KeyPairStock(randomness))
    channel = BusyChannel()
    renewal = Renewal(station, channel)
    renewal.established(0.0, 1000.0)
    renewal.succeeded(10.0, 5.0)
    station.alarms.ring(15.0)
    assert channel.closed == []
    channel.busy = False
    station.alarms.ring(20.0)
    assert channel.closed == [(20.0, "replaced")]
    assert channel.successors == 0


def test_other_tunnels_keep_the_channel_of_a_redundant_one() -> None:
    pair = Pair(seed=3)
    pair.initiate(0)
    pair.initiate(0, side=pair.b)
    pair.initiate(2, remote_selector=CAROL)
    pair.initiate(2, side=pair.b, local_selector=CAROL, remote_selector=ALICE)
    pair.run()
    pair.wait(10)
    assert len(pair.a.pairs()) == len(pair.b.pairs()) == 2
    selectors = {p[1].destination_selector for p in pair.a.pairs().values()}
    assert selectors == {BOB, CAROL}
    assert 1 <= len(channels(pair.a)) == len(channels(pair.b)) <= 2


@pytest.mark.parametrize("seed", range(8))
def test_a_stranger_without_the_rule_loses_nothing(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps what it has; we close only what we began, and only if it is redundant."""
    pair = Pair(seed=seed)
    strange = pair.b.endpoint._directory

    def settled(now, older, newer):
        return newer if newer._directory is strange else settle(now, older, newer)

    monkeypatch.setattr("ike.v1.tunnel.settle", settled)
    pair.initiate(0)
    pair.initiate(0, side=pair.b)
    pair.run()
    pair.wait(60)
    assert len(pair.a.pairs()) == len(pair.b.pairs()) in (1, 2)
    for closed in pair.a.seen(e.TunnelClosed):
        assert (closed.tunnel, closed.reason) == (0, "redundant")
    assert pair.tunnel_up()


def test_begun_one_after_the_other_the_younger_one_stays() -> None:
    pair = up(TUNNEL)
    pair.wait(AT_ONCE + 0.1)
    pair.initiate(0, side=pair.b)
    pair.run()
    pair.wait(6)
    assert list(pair.b.pairs()) == [0]
    assert reasons(pair.b) == ["replaced"]
    assert pair.tunnel_up()


# Phase 1.


def channels(side: Side) -> list[int]:
    return [view.channel for view in side.endpoint.snapshot().channels]


@pytest.mark.parametrize("rounds", [1, 5])
def test_a_channel_with_tunnels_is_renewed(rounds: int) -> None:
    pair = up(CHANNEL)
    pair.wait(500 * rounds)
    assert pair.tunnel_up()
    for side in pair.sides:
        assert len(channels(side)) == 1
        assert channels(side) != [1]
        assert not side.seen(e.TunnelClosed)
        views = side.endpoint.snapshot().channels
        assert views[0].tunnels == 1
    assert pair.a.names().count("MM1") == rounds + 1
    assert pair.b.names().count("MM1") == 0
    closed = [event.reason for event in pair.a.seen(e.KeyingChannelClosed)]
    assert closed == ["replaced"] * rounds
    # Delete over the new channel still reaches the peer.
    pair.a.endpoint.close_tunnel(pair.now, 0)
    pair.pump()
    pair.run()
    assert pair.b.pairs() == {}


def test_the_responder_renews_the_channel_if_the_initiator_does_not() -> None:
    pair = Pair(a={"tunnel_lifetime": 6000, "channel_lifetime": 600}, b=CHANNEL)
    pair.initiate()
    pair.run()
    pair.wait(400)
    while pair.now < 1000 + 545:  # main modes of a are lost
        pair.wire = []
        pair.now += 1
        for side in pair.sides:
            side.endpoint.handle_timer(pair.now)
        for side in pair.sides:
            while (event := side.endpoint.next_event()) is not None:
                side.events.append(event)
            side.endpoint.datagrams_to_send()
    pair.wait(30)
    assert pair.b.names().count("MM1") + pair.a.names().count("MM1") >= 2
    pair.wait(30)
    assert pair.tunnel_up()
    assert len(channels(pair.a)) == len(channels(pair.b)) == 1


def test_an_expected_peer_only_renews_with_its_own_key() -> None:
    """Somebody else at the same address cannot take the tunnels over."""
    pair = up(CHANNEL)
    pair.wait(10)
    thief = Pair(a=CHANNEL, b={**CHANNEL, "private_key": pair.a.key}, seed=9)
    true, pair.b.endpoint = pair.b.endpoint, thief.b.endpoint
    pair.wait(590)
    assert not [c for c in pair.a.seen(e.KeyingChannelEstablished) if c.channel != 1]
    assert list(pair.a.pairs()) == [0]
    pair.b.endpoint = true


def test_quick_modes_under_way_finish_on_the_old_channel() -> None:
    pair = up(CHANNEL)
    while pair.a.names().count("MM1") < 2:
        pair.now = pair.a.endpoint.next_timer()
        pair.a.endpoint.handle_timer(pair.now)
        pair.pump()
    pair.initiate(2, remote_selector=CAROL)  # on the old one: the new one is not up
    pair.reorder()
    pair.run()
    pair.wait(30)
    assert list(pair.a.pairs()) == [0, 2]
    assert len(channels(pair.a)) == len(channels(pair.b)) == 1
    assert pair.a.endpoint.snapshot().channels[0].tunnels == 2


def test_unanswered_deletes_move_with_the_channel() -> None:
    pair = up(CHANNEL)
    pair.initiate(2, remote_selector=CAROL)
    pair.run()
    while pair.a.names().count("MM1") < 2:
        pair.now = pair.a.endpoint.next_timer()
        pair.a.endpoint.handle_timer(pair.now)
        pair.pump()
    pair.a.endpoint.close_tunnel(pair.now, 2)
    pair.pump()
    pair.wire = pair.wire[:1]  # the Delete is lost, message 1 is not
    pair.run()
    assert len(pair.b.pairs()) == 1
    assert pair.a.names().count("INFO") == 2  # once on the old channel, once on the new one


def test_failing_to_renew_a_channel_leaves_its_tunnels() -> None:
    pair = up(CHANNEL)
    pair.wait(400)
    pair.broken = True
    pair.wait(250)
    assert channels(pair.a) == channels(pair.b) == []
    assert list(pair.a.pairs()) == [0]
    assert pair.a.names().count("MM1") > 10
    assert not pair.a.seen(e.NegotiationFailed)
    pair.broken = False
    pair.initiate(2, remote_selector=CAROL)
    pair.run()
    views = pair.a.endpoint.snapshot().channels
    assert [view.tunnels for view in views] == [2]


def test_a_channel_that_has_carried_its_octets_is_renewed() -> None:
    settings = {"channel_bytes": 6000}
    counting = Pair(a=settings)
    counting.initiate()
    counting.run()
    for tunnel in range(2, 20, 2):
        counting.wait(0.5)
        counting.initiate(tunnel, remote_selector=CAROL)
        counting.run()
    counting.wait(10)
    assert counting.a.names().count("MM1") in (2, 3, 4)
    assert counting.tunnel_up()
    assert len(channels(counting.a)) == len(channels(counting.b)) == 1
    assert {c.reason for c in counting.a.seen(e.KeyingChannelClosed)} == {"replaced"}


@pytest.mark.parametrize("seed", range(6))
def test_both_phases_every_ten_seconds(seed: int) -> None:
    pair = up(BRIEF, seed=seed)
    shell = Shell(pair)
    shell.live(120)
    assert shell.lost == 0
    assert pair.tunnel_up()
    for side in pair.sides:
        assert len(side.pairs()) <= 2
        assert len(channels(side)) <= 3
        assert len(reasons(side)) >= 10
        assert not side.seen(e.NegotiationFailed)
    shell.live(0.1)
    for side in pair.sides:
        side.endpoint.close(pair.now)
    pair.pump()
    pair.run()
    pair.wait(100)
    for side in pair.sides:
        assert side.pairs() == {}
        assert side.endpoint.next_timer() is None


# A channel that the peer has lost.


def test_a_tunnel_leaves_a_channel_that_does_not_answer() -> None:
    pair = up({})
    pair.wait(100)
    pair.b.endpoint = Pair(seed=55).b.endpoint  # rebooted, all forgotten
    pair.b.events.clear()
    begun = pair.now
    pair.initiate(2, remote_selector=CAROL)
    while 2 not in pair.a.pairs():
        assert pair.now < begun + 3
        pair.wait(0.1)
    assert not pair.a.seen(e.NegotiationFailed)
    pair.wait(1)
    assert channels(pair.a) == [2]  # the old one is closed, and its tunnel moved
    assert pair.a.endpoint.snapshot().channels[0].tunnels == 2
    assert len(pair.b.pairs()) == 1


def test_a_late_answer_on_the_old_channel_still_counts() -> None:
    pair = up({})
    pair.wait(100)
    pair.initiate(2, remote_selector=CAROL)
    late = pair.wire.pop()
    for _ in range(2):
        pair.now = pair.a.endpoint.next_timer()
        pair.a.endpoint.handle_timer(pair.now)
        pair.pump()
        pair.wire.clear()
    assert pair.a.names()[-1] == "MM1"
    pair.deliver(late)
    pair.run()
    assert 2 in pair.a.pairs()
    assert len(pair.b.pairs()) == 2
    pair.wait(60)
    assert len(pair.a.pairs()) == len(pair.b.pairs()) == 2
    assert len(channels(pair.a)) == len(channels(pair.b)) == 1


def test_several_tunnels_leave_together() -> None:
    pair = up({})
    pair.wait(100)
    pair.b.endpoint = Pair(seed=56).b.endpoint
    pair.b.events.clear()
    for tunnel, selector in ((2, CAROL), (4, ALICE), (6, BOB)):
        pair.initiate(tunnel, remote_selector=selector)
    pair.wait(10)
    assert {2, 4, 6} <= pair.a.pairs().keys()
    assert pair.a.names().count("MM1") == 2


def test_a_channel_that_the_peer_deletes_under_a_quick_mode() -> None:
    pair = up({})
    pair.initiate(2, remote_selector=CAROL)
    pair.wire.clear()
    channel = next(iter(pair.b.endpoint._directory.sessions.values()))
    channel.close(pair.now, "test")
    pair.pump()
    pair.run()
    assert list(pair.a.pairs()) == [0, 2]
    assert not pair.a.seen(e.NegotiationFailed)
