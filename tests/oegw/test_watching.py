"""The trace as a stream: its filter, its queue, and `oegw watch`."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from oegw import watching
from oegw.overview import BadWish
from oegw.trace import JsonTrace
from oegw.watching import CATEGORIES, Filter, filter_of, watched
from policy.rule import Scope
from tests.support.control_socket import serving

Row = dict[str, Any]
PAIR = Scope(ip_network("192.1.0.65"), ip_network("192.2.0.66"))


@pytest.mark.parametrize(
    ("fields", "passes"),
    [
        ({"remote": ip_address("192.2.0.66")}, True),
        ({"source": ip_network("192.2.0.0/16")}, True),
        ({"scope": PAIR}, True),
        ({"outside": (ip_address("192.1.0.65"), ip_address("192.2.0.66"))}, True),
        ({"remote": ip_address("192.2.0.67"), "text": "192.2.0.66"}, False),
        ({"remote": ip_address("2001:db8::66")}, False),
    ],
)
def test_lines_with_the_address_pass(fields: Row, passes: bool) -> None:
    asked = filter_of({"address": "192.2.0.66"})
    assert asked.lets_pass({"category": "ike", **fields}) is passes


def test_lines_of_the_categories_pass() -> None:
    asked = filter_of({"categories": ["ike", "dns"]})
    assert asked.lets_pass({"category": "dns"})
    assert not asked.lets_pass({"category": "tunnel"})
    assert filter_of({}).lets_pass({"category": "tunnel"})


@pytest.mark.parametrize("request_", [{"categories": "ike"}, {"categories": [1]}, {"address": "x"}])
def test_filters_that_make_no_sense_are_refused(request_: Row) -> None:
    with pytest.raises(BadWish):
        filter_of(request_)


def run(story: Callable[[JsonTrace, AsyncIterator[Row]], Any], wanted: Filter = Filter()) -> None:  # noqa: B008
    async def told() -> None:
        trace = JsonTrace(None, lambda: 5.0)
        lines = watched(trace.listeners, wanted)
        assert await anext(lines) == {"watching": True}
        await story(trace, lines)
        await lines.aclose()  # type: ignore[attr-defined]
        assert not trace.listeners

    asyncio.run(told())


def test_lines_come_in_order_and_the_listener_goes_with_the_watcher() -> None:
    async def story(trace: JsonTrace, lines: AsyncIterator[Row]) -> None:
        trace.event("ike", "sent", message="MM1")
        trace.event("dns", "query")
        trace.event("ike", "received", message="MM2")
        first, second = await anext(lines), await anext(lines)
        assert [each["line"]["message"] for each in (first, second)] == ["MM1", "MM2"]

    run(story, Filter(frozenset({"ike"})))


def test_who_is_too_slow_loses_lines_and_learns_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "QUEUE", 10)

    async def story(trace: JsonTrace, lines: AsyncIterator[Row]) -> None:
        for number in range(25):
            trace.event("ike", "sent", number=number)
        got = [await anext(lines) for _ in range(11)]
        assert [each["line"]["number"] for each in got[:10]] == list(range(10))
        assert got[10]["lost"] == 15
        trace.event("ike", "sent", number=99)
        assert (await anext(lines))["line"]["number"] == 99

    run(story)


def test_a_heart_beats_where_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "HEARTBEAT", 0.01)

    async def story(trace: JsonTrace, lines: AsyncIterator[Row]) -> None:
        assert await anext(lines) == {"heartbeat": True}

    run(story)


# ------------------------------------------------------------------------- the command


async def talkative(message: Mapping[str, Any]) -> AsyncIterator[Row]:
    """A gateway that says much, and does not end."""
    if message.get("categories") == ["odd"]:
        yield {"error": "categories: no", "done": True}
        return
    yield {"watching": True}
    number = 0
    while True:
        yield {"line": {"time": 1.0, "category": "ike", "event": "sent", "number": number}}
        number += 1
        if number == 3:
            yield {"lost": 7, "time": 2.0}
            yield {"heartbeat": True}
        await asyncio.sleep(0.01)


def watch(path: Path, *arguments: str, **more: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "oegw", "watch", "--socket", str(path), *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


def test_each_event_is_a_line_of_json_and_ctrl_c_is_a_clean_end(path: Path) -> None:
    with serving(path, talkative), watch(path) as process:
        assert process.stdout is not None
        lines = [json.loads(process.stdout.readline()) for _ in range(5)]
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert [line.get("number", line.get("lines")) for line in lines] == [0, 1, 2, 7, 3]
    assert lines[3]["category"] == "watch"
    assert (process.returncode, said) == (130, "")


def test_a_reader_that_has_enough_is_no_error(path: Path) -> None:
    reading, writing = os.pipe()
    with serving(path, talkative):
        command = [sys.executable, "-m", "oegw", "watch", "--socket", str(path)]
        process = subprocess.Popen(command, stdout=writing, stderr=subprocess.PIPE, text=True)
        os.close(writing)
        with os.fdopen(reading) as lines:
            assert lines.readline()
        _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (141, "")


def test_an_error_of_the_gateway_is_told(path: Path) -> None:
    with serving(path, talkative), watch(path, "--category", "odd") as process:
        out, said = process.communicate(timeout=20)
    assert (process.returncode, out, said) == (1, "", "oegw: categories: no\n")


def test_a_gateway_that_ends_is_told(path: Path) -> None:
    with serving(path, talkative):
        process = watch(path)
        assert process.stdout is not None
        process.stdout.readline()
    _, said = process.communicate(timeout=20)
    assert process.returncode == 4
    assert "the answer broke off" in said


def test_a_category_that_there_is_not_is_told() -> None:
    with pytest.raises(BadWish, match=r"there is no category 'tunnels'; there are .*, tunnel,"):
        filter_of({"categories": ["ike", "tunnels"]})


def test_all_categories_of_the_code_are_known() -> None:
    root = Path(__file__).parents[2] / "oegw"
    reported = re.compile(r"""(?:trace\.(?:event|drop)|self\._say)\(\s*"([a-z_]+)",""")
    found = {word for path in root.rglob("*.py") for word in reported.findall(path.read_text())}
    assert {"ike", "verdict", "state"} <= found
    assert found <= CATEGORIES
