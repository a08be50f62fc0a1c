"""What is seen from two answers of the gateway."""

from __future__ import annotations

from oegw.top.model import Rate, history, restarted, view_of
from tests.support.overviews import connection, overview

BEFORE = {
    "datapath.esp_in_packets": 100,
    "datapath.esp_in_octets": 10_000,
    "ike.drop.garbage": 5,
}
AFTER = {
    "datapath.esp_in_packets": 300,
    "datapath.esp_in_octets": 260_000,
    "datapath.drop_in_replay": 8,
    "ike.drop.garbage": 7,
}


def test_rates_are_of_the_time_between_by_the_gateways_own_clock() -> None:
    before = overview(10.0, counters=BEFORE)
    after = overview(12.0, counters=AFTER, now=before["now"] - 3600)  # somebody set the clock
    view = view_of(before, after)
    assert view.ways["in"] == Rate(packets=100.0, bits=1_000_000.0)
    assert view.ways["out"] == Rate(0.0, 0.0)
    assert view.dropped == 5.0
    assert view.causes == ("datapath in_replay", "ike garbage")


def test_of_the_first_answer_and_of_another_life_nothing_is_known() -> None:
    first = view_of(None, overview(10.0, counters=AFTER))
    assert first.ways["in"] == Rate()
    assert first.dropped is None
    before, after = overview(10.0, counters=AFTER), overview(2.0, counters=BEFORE, pid=5000)
    assert restarted(before, after)
    assert not restarted(None, after)
    assert view_of(before, after).ways["in"] == Rate()


def test_rows_and_sums() -> None:
    rows = (
        connection(1),
        connection(2, "clear", encrypted_before="192.1.1.5", protocol=6, port=443),
    )
    view = view_of(None, overview(5.0, *rows))
    assert view.states == {"keyed": 1, "clear": 1}
    assert (view.connections, view.tunnels, view.channels, view.held) == (2, 3, 2, 2)
    one, two = view.lines
    assert (one.source, one.destination, one.rate_in, one.rate_out) == (
        "192.1.0.65", "192.2.0.2", 1000.0, None,
    )  # fmt: skip
    assert (two.state, two.traffic, two.gateway, two.warning) == (
        "clear", "tcp/443", "-", "192.1.1.5",
    )  # fmt: skip


def test_what_an_operator_should_know_comes_first() -> None:
    view = view_of(
        None,
        overview(
            1.0,
            warnings=["rule 'x' can never\x1b[31m have a tunnel"],
            firewall_gaps=["forward lets it pass"],
            totals={"downgraded": 2},
            resolvers=[{"address": "192.1.1.53", "standing": "dead"}],
        ),
    )
    assert view.warnings == (
        "2 connections are in clear, encrypted last time",
        "rule 'x' can never?[31m have a tunnel",
        "firewall: forward lets it pass",
        "resolver 192.1.1.53 is dead",
    )


def test_an_answer_without_much_in_it_is_no_error() -> None:
    view = view_of(None, {})
    assert (view.version, view.identity, view.datapath, view.uptime) == ("?", "?", "?", None)


def test_the_history_has_an_end() -> None:
    view = view_of(overview(1.0, counters=BEFORE), overview(3.0, counters=AFTER))
    assert history([1.0, 2.0, 3.0], view, 3) == [2.0, 3.0, 1_000_000.0]
    assert history([1.0], view_of(None, overview()), 3) == [1.0]
