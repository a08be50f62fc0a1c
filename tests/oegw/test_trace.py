"""The trace: lines, counters, and the budget of lines about drops."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

from oegw.trace import JsonTrace


def test_events_are_json_lines_with_time_category_and_event() -> None:
    stream = io.StringIO()
    trace = JsonTrace(stream, lambda: 1234.5)
    trace.event("ike", "sent", message="MM1", size=300)
    assert json.loads(stream.getvalue()) == {
        "time": 1234.5,
        "category": "ike",
        "event": "sent",
        "message": "MM1",
        "size": 300,
    }
    assert trace.counters["ike.sent"] == 1


def test_a_flood_of_drops_is_counted_but_not_written_out() -> None:
    now = 100.0
    stream = io.StringIO()
    trace = JsonTrace(stream, lambda: now, drops_per_second=3)
    for _ in range(1000):
        trace.drop("ike", "garbage", remote="192.1.1.70")
    trace.drop("ike", "other", remote="192.1.1.70")
    assert trace.counters["ike.drop.garbage"] == 1000
    assert len(stream.getvalue().splitlines()) == 4
    now = 101.0
    trace.drop("ike", "garbage")
    assert len(stream.getvalue().splitlines()) == 5


def test_listeners_see_every_line_that_is_written() -> None:
    seen: list[Mapping[str, Any]] = []
    trace = JsonTrace(None, lambda: 0.0)
    trace.listeners.append(seen.append)
    trace.event("gateway", "started")
    assert [line["event"] for line in seen] == ["started"]
