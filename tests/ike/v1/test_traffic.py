"""Packets at 100 per second each way, while keys change under them: none may be lost."""

from __future__ import annotations

import pytest

from ike import events as e
from tests.support.ike_pair import Pair
from tests.support.ike_traffic import Traffic

BRIEF = {"tunnel_lifetime": 10, "channel_lifetime": 10}


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(
    ("delay", "loss"), [((0.001, 0.002), 0.0), ((0.03, 0.09), 0.0), ((0.03, 0.09), 0.05)]
)
def test_renewal_of_both_phases_every_ten_seconds(
    seed: int, delay: tuple[float, float], loss: float
) -> None:
    pair = Pair(BRIEF, BRIEF, seed=seed)
    pair.initiate(0)
    traffic = Traffic(pair, seed, delay, loss)
    traffic.live(120)
    assert traffic.sent > 2 * 11_500
    assert traffic.lost == 0
    for side in pair.sides:
        assert len(side.seen(e.OutboundSaEstablished)) >= 12
        assert len(side.seen(e.KeyingChannelEstablished)) >= 12
        assert len(side.pairs()) <= 2


@pytest.mark.parametrize("seed", range(50))
def test_fifty_simultaneous_initiations(seed: int) -> None:
    """Each side begins within the other's set-up: one live pair 2 s later, and no packet lost."""
    pair = Pair(seed=seed)
    traffic = Traffic(pair, seed, (0.02, 0.06))
    pair.initiate(0)
    traffic.live((seed % 10) * 0.03)
    pair.initiate(0, side=pair.b)
    traffic.live(2.5)
    assert len(pair.a.pairs()) == len(pair.b.pairs()) == 1
    assert pair.tunnel_up()
    traffic.live(20)
    assert len(pair.a.pairs()) == len(pair.b.pairs()) == 1
    assert traffic.sent > 4000
    assert traffic.lost == 0


@pytest.mark.parametrize("seed", range(10))
def test_simultaneous_renewals(seed: int) -> None:
    settings = {"tunnel_lifetime": 600}
    pair = Pair(settings, settings, seed=seed)
    pair.initiate(0)
    traffic = Traffic(pair, seed, (0.02, 0.06), 0.03)
    traffic.live(10)
    pair.a.endpoint.tunnel_expiring(pair.now, next(iter(pair.a.pairs())))
    pair.b.endpoint.tunnel_expiring(pair.now, next(iter(pair.b.pairs())))
    traffic.live(25)
    assert len(pair.a.pairs()) == len(pair.b.pairs()) == 1
    assert pair.tunnel_up()
    assert traffic.lost == 0
    assert len(pair.a.seen(e.OutboundSaEstablished)) == 3
