"""The road that harms: what it says that it does to all packets alike."""

from __future__ import annotations

import re

import pytest

from tests.support.datapath_rough import RoughLab, connected, tunnel

pytestmark = pytest.mark.netns

LEAST = re.compile(r"min/avg/max/mdev = ([\d.]+)/")


def round_trip(lab: RoughLab) -> float:
    """Milliseconds, of the quickest of some pings."""
    assert lab.ping("-c", "3"), lab.last
    found = LEAST.search(lab.last)
    assert found, lab.last
    return float(found[1])


def test_a_delay_is_that_of_each_packet_and_ends_with_it() -> None:
    with RoughLab() as lab:
        connected(lab, tunnel(0))
        lab.harm(delay=0.1)
        assert round_trip(lab) >= 200
        lab.harm(reorder=1.0)  # each is held until there is nothing to overtake it
        assert round_trip(lab) < 200
        counts = lab.counts()
        assert [road["esp"] == road["esp_on"] for road in counts["roads"]] == [True, True]
        assert min(road["reordered"] for road in counts["roads"]) >= 3
