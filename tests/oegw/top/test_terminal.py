"""`oegw top` in a terminal: the real command, and a gateway that is played."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from os import kill
from pathlib import Path
from typing import Any

import pytest

from oegw.top.terminal import keys_of
from tests.support.control_socket import serving
from tests.support.overviews import connection, overview
from tests.support.screen import InTerminal

Row = dict[str, Any]
OEGW = [sys.executable, "-m", "oegw"]
FAST = ("--interval", "0.2")


def test_keys() -> None:
    pressed = b"q/\x1b[A\x1b[5~\x1b\x7f\r\xc3\xa4\x1b[15~\x1b[1;5Bx\x15\x01"
    assert list(keys_of(pressed)) == [
        "q", "/", "up", "page up", "escape", "erase", "enter", "ä", "x", "clear",
    ]  # fmt: skip


class Gateway:
    """Counts, and notes what it is asked."""

    def __init__(self, pid: int = 4711) -> None:
        self.asked: list[Mapping[str, Any]] = []
        self.pid = pid

    async def answer(self, message: Mapping[str, Any]) -> AsyncIterator[Row]:
        self.asked.append(message)
        if message["command"] != "overview":
            yield {"error": "no such command", "done": True}
            return
        number = len(self.asked)
        rows = [connection(n) for n in range(1, 60) if message["match"] in f"192.2.0.{n + 1}"]
        counters = {"datapath.esp_out_packets": 100 * number,
                    "datapath.esp_out_octets": 125_000 * number}  # fmt: skip
        moment = 10.0 + number
        shown = rows[: message["rows"]]
        answer = overview(moment, *shown, counters=counters, pid=self.pid)
        answer["totals"]["matching"] = len(rows)
        yield answer | {"done": True}

    def orders(self) -> set[tuple[str, bool]]:
        return {(each["order"], each["reverse"]) for each in self.asked}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


@contextmanager
def shown(path: Path, gateway: Gateway, *arguments: str, **more: Any) -> Iterator[InTerminal]:
    with (
        serving(path, gateway.answer),
        InTerminal([*OEGW, "top", "--socket", str(path), *FAST, *arguments], **more) as terminal,
    ):
        yield terminal


def test_it_shows_rates_rows_and_keys_and_leaves_the_screen_as_it_was(path: Path) -> None:
    with shown(path, Gateway(), columns=120) as terminal:
        terminal.until(lambda screen: "encrypted out 1.0 Mbit/s 100 p/s" in str(screen))
        screen = terminal.screen
        assert screen.alternate
        assert "oegw 0.1.0" in screen.rows[0]
        assert "quit" in screen.rows[-1]
        assert any("192.2.0.2 " in row and row.startswith("keyed") for row in screen.rows)
        assert {"32", "7"} <= screen.codes
        terminal.press("q")
        assert terminal.ended() == 0
        assert not terminal.screen.alternate


def test_keys_change_order_filter_and_what_is_asked_for(path: Path) -> None:
    gateway = Gateway()
    with shown(path, gateway) as terminal:
        terminal.until(lambda screen: "192.2.0.2 " in str(screen))
        terminal.press("a")
        terminal.until(lambda screen: "AGE▾" in str(screen) or "AGEv" in str(screen))
        terminal.press("i")
        terminal.until(lambda _: ("age", True) in gateway.orders())
        terminal.press("/2.0.44")
        terminal.until(lambda screen: "filter: 2.0.44_" in str(screen))
        terminal.until(lambda screen: "192.2.0.2 " not in str(screen))
        terminal.press("\x7f\x7f\r")
        terminal.until(lambda screen: "only '2.0.'" in str(screen))
        terminal.press("\x1b")
        terminal.until(lambda screen: "only" not in str(screen))
        terminal.press("\x1b[6~")
        terminal.until(lambda screen: "192.2.0.2 " not in str(screen))
        terminal.press("\x1b[H")
        terminal.until(lambda screen: "192.2.0.2 " in str(screen))


def test_another_size_is_another_page(path: Path) -> None:
    gateway = Gateway()
    with shown(path, gateway, columns=120, lines=24) as terminal:
        terminal.until(lambda screen: "RULE" in str(screen))
        few = max(each["rows"] for each in gateway.asked)
        terminal.resize(60, 40)
        terminal.until(lambda screen: "quit" in screen.rows[-1] and "RULE" not in str(screen))
        terminal.until(lambda screen: sum("keyed " in row for row in screen.rows) > 24)
        assert max(each["rows"] for each in gateway.asked) > few


def test_no_color_means_none(path: Path) -> None:
    with shown(path, Gateway(), environment={"NO_COLOR": "1"}) as terminal:
        terminal.until(lambda screen: "keyed" in str(screen))
        terminal.press("q")
        assert terminal.ended() == 0
        assert terminal.screen.codes == {"1", "7"}


def test_a_gateway_that_is_restarted_under_it_is_told_and_watched_on(path: Path) -> None:
    with InTerminal([*OEGW, "top", "--socket", str(path), *FAST]) as terminal:
        with serving(path, Gateway(1).answer):
            terminal.until(lambda screen: "keyed" in str(screen))
        terminal.until(lambda screen: "trying again: " in str(screen))
        assert "192.2.0.2 " in str(terminal.screen)  # what was last known stays
        with serving(path, Gateway(2).answer):
            terminal.until(lambda screen: "the gateway was restarted: process 2" in str(screen))
            terminal.until(lambda screen: "trying again: " not in str(screen))
            kill(terminal.pid, signal.SIGTERM)
            assert terminal.ended() == 0
            assert not terminal.screen.alternate


def test_ctrl_c_ends_it_cleanly(path: Path) -> None:
    with shown(path, Gateway()) as terminal:
        terminal.until(lambda screen: "keyed" in str(screen))
        terminal.press("\x03")
        assert terminal.ended() == 0
        assert not terminal.screen.alternate


def top(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*OEGW, "top", "--socket", str(path), *FAST, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False
    )


def test_once_is_a_page_of_text(path: Path) -> None:
    gateway = Gateway()
    with serving(path, gateway.answer):
        done = top(path, "--once", "--order", "age", "--filter", "2.0.1")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert done.stdout.count("keyed  ") == 11
    assert "encrypted out 1.0 Mbit/s 100 p/s" in done.stdout
    assert [each["order"] for each in gateway.asked] == ["age", "age"]


def test_without_a_terminal_once_is_pointed_out(path: Path) -> None:
    with serving(path, Gateway().answer):
        done = top(path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "oegw: top: this is no terminal; --once prints one page\n"


def test_without_a_gateway_it_does_not_begin(path: Path) -> None:
    done = top(path, "--once")
    assert done.returncode == 4
    assert "no oegw is running there" in done.stderr
    with InTerminal([*OEGW, "top", "--socket", str(path)]) as terminal:
        assert terminal.ended() == 4
        assert not terminal.screen.alternate


def test_an_older_gateway_is_told_from_a_broken_one(path: Path) -> None:
    async def old(message: Mapping[str, Any]) -> AsyncIterator[Row]:
        yield {"error": f"no such command: {message['command']!r}", "done": True}

    with serving(path, old):
        done = top(path, "--once")
    assert done.returncode == 1
    assert done.stderr == ("oegw: the gateway that is running is of an older version; restart it\n")
