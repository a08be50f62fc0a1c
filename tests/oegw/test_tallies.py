"""Drops and ways in the counters of a status."""

from __future__ import annotations

from oegw.tallies import drops, ways

COUNTERS = {
    "ike.drop.garbage": 3,
    "ike.sent": 9,
    "hold.drop.source_limit": 2,
    "datapath.drop_in_replay": 4,
    "datapath.esp_in_packets": 10,
    "datapath.esp_in_octets": 1000,
    "datapath.esp_out_packets": 20,
    "datapath.esp_out_octets": 4000,
    "intercept.denied": 5,
    "intercept.guard_dropped": 1,
    "intercept.trapped": 100,
    "intercept.clear_outbound": 8,
    "intercept.clear_outbound_octets": 800,
    "sst.plane.required_dropped": 6,
    "sst.plane.sealed": 60,
    "odd": 1,
}


def test_drops_by_place_and_trigger() -> None:
    assert drops(COUNTERS) == {
        ("ike", "garbage"): 3,
        ("hold", "source_limit"): 2,
        ("datapath", "in_replay"): 4,
        ("intercept", "denied"): 5,
        ("intercept", "guard"): 1,
        ("sst", "required"): 6,
    }


def test_what_the_guard_stopped_did_not_leave() -> None:
    assert ways(COUNTERS) == {"in": (10, 1000), "out": (20, 4000), "clear": (7, 800)}
    assert ways({}) == {"in": (0, 0), "out": (0, 0), "clear": (0, 0)}
