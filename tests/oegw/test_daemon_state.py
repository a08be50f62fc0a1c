"""A running gateway and its state file: what a restart remembers, and files that it can't use."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.powers_gateway import (
    PATIENCE,
    Gateway,
    a_link,
    a_place,
    configuration,
    started,
    until,
)

pytestmark = pytest.mark.netns

FAR = "192.2.0.66"


@dataclass
class Life:
    """``since``: how many lines of the trace are of lives before."""

    gateway: Gateway
    since: int

    def events(self) -> list[dict[str, Any]]:
        return self.gateway.events()[self.since :]


@contextmanager
def life(path: Path, end: signal.Signals = signal.SIGTERM) -> Iterator[Life]:
    trace = path.parent / "trace.jsonl"
    since = len(trace.read_text().splitlines()) if trace.exists() else 0
    gateway = started(path)
    try:
        gateway.ready()
        yield Life(gateway, since)
        gateway.process.send_signal(end)
        gateway.process.wait(PATIENCE)
    finally:
        if gateway.process.poll() is None:
            gateway.process.kill()
            gateway.process.wait()


def decision(life: Life) -> str:
    """A packet of our own leaves: what becomes of it."""
    known = len(life.events())
    subprocess.run(["ping", "-c1", "-W1", FAR], capture_output=True, timeout=20, check=False)

    def ended() -> str | None:
        for event in life.events()[known:]:
            if (event["category"], event["event"]) == ("hold", "released"):
                return str(event["verdict"])
            if (event["category"], event["event"]) == ("hold", "dropped"):
                return "deny"
        return None

    return str(until(ended))


def asked(life: Life) -> bool:
    """Whether the DNS was asked for a gateway of the far host's."""
    return any(e["category"] == "dns" and e.get("purpose") == "gateway" for e in life.events())


def rows(place: Path) -> int:
    with closing(sqlite3.connect(place / "oegw" / "state.db")) as database:
        return int(database.execute("SELECT count(*) FROM verdict").fetchone()[0])


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_restart_goes_on_with_a_clear_verdict_and_asks_nobody(end: signal.Signals) -> None:
    with a_place() as place, a_link():
        path = configuration(place)
        with life(path, end) as its:
            assert decision(its) == "clear"
            assert asked(its)
            until(lambda: rows(place))  # a crash before that costs it
        with life(path) as its:
            assert decision(its) == "clear"
            assert not asked(its)


def test_a_restart_under_a_policy_that_drops_lets_nothing_out() -> None:
    with a_place() as place, a_link():
        path = configuration(place)
        with life(path) as its:
            assert decision(its) == "clear"
        text = path.read_text() + '[default]\ncategory = "opportunistic"\non_failure = "drop"\n'
        path.write_text(text)
        with life(path) as its:
            assert decision(its) == "deny"
            assert asked(its)


def test_a_damaged_file_is_set_aside_and_said() -> None:
    with a_place() as place, a_link():
        path = configuration(place)
        (place / "oegw").mkdir(0o700)
        (place / "oegw" / "state.db").write_bytes(b"SQLite format 3\0" + b"nonsense" * 999)
        with life(path) as its:
            assert "set aside as state.db.corrupt" in its.gateway.errors()
        assert (place / "oegw" / "state.db.corrupt").read_bytes().endswith(b"nonsense")


def test_a_file_of_a_newer_program_ends_the_start_and_stays() -> None:
    with a_place() as place, a_link():
        path = configuration(place)
        (place / "oegw").mkdir(0o700)
        file = place / "oegw" / "state.db"
        with closing(sqlite3.connect(file)) as database:
            database.execute("PRAGMA user_version = 9")
        before = file.read_bytes()
        gateway = started(path)
        assert gateway.process.wait(PATIENCE) == 1
        assert "written by a newer oegw (version 9" in gateway.errors()
        assert "Traceback" not in gateway.errors()
        assert file.read_bytes() == before
