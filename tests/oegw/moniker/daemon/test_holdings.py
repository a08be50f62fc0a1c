"""A port that was given back is told no more (MK-30)."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from oegw.moniker.daemon import holdings
from oegw.moniker.daemon.holdings import SEARCH_PAUSE, Holdings
from tests.support.moniker_daemon import RunningDaemon, bound_socket, port_of, running, until


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    with running(tmp_path) as found:
        yield found


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def inode(bound: socket.socket) -> int:
    return os.fstat(bound.fileno()).st_ino


def test_who_has_the_socket_holds_it_at_whatever_number() -> None:
    clock = Clock()
    held = Holdings(clock)
    bound = bound_socket()
    held.add(1, os.getpid(), inode(bound))
    assert held.is_held(1)
    moved = bound.dup()
    bound.close()
    clock.now += SEARCH_PAUSE
    assert held.is_held(1)
    moved.close()
    clock.now += SEARCH_PAUSE
    assert not held.is_held(1)


def test_a_number_that_is_somebody_elses_socket_by_now_is_no_proof() -> None:
    clock = Clock()
    held = Holdings(clock)
    bound = bound_socket()
    number = bound.fileno()
    held.add(1, os.getpid(), inode(bound))
    assert held.is_held(1)
    bound.close()
    with bound_socket() as other:
        assert other.fileno() == number
        clock.now += SEARCH_PAUSE
        assert not held.is_held(1)


def test_all_descriptors_are_searched_once_a_second_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    held = Holdings(clock)
    searches: list[object] = []
    monkeypatch.setattr(holdings, "_search", lambda holding: bool(searches.append(holding)))
    held.add(1, os.getpid(), 1)
    for _ in range(10):
        assert not held.is_held(1)
    assert len(searches) == 1
    clock.now += SEARCH_PAUSE
    assert not held.is_held(1)
    assert len(searches) == 2


def test_a_process_that_is_gone_holds_nothing() -> None:
    held = Holdings(Clock())
    with subprocess.Popen([sys.executable, "-S", "-c", ""]) as child:
        pass
    held.add(1, child.pid, 1)
    assert not held.is_held(1)
    assert not held.is_held(2)


def test_a_process_that_may_not_be_looked_at_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> None:
        raise PermissionError

    held = Holdings(Clock())
    held.add(1, os.getpid(), 1)
    monkeypatch.setattr(os, "scandir", denied)
    assert held.is_held(1)


def test_all_have_their_turn() -> None:
    held = Holdings(Clock())
    with bound_socket() as bound:
        for number in range(1, 8):
            held.add(number, os.getpid(), inode(bound) if number % 2 else 1)
        found = [held.given_up(3) for _ in range(3)]
        assert found == [[2], [4, 6], []]
        held.remove(2)
        assert held.given_up(10) == [4, 6]
        assert len(held) == 6


def test_a_server_that_closes_its_socket_and_says_nothing_is_forgotten(
    daemon: RunningDaemon,
) -> None:
    with daemon.application() as application:
        assert application.register("starwars")["ok"]
        assert application.register("sip")["ok"]
        assert application.ask("resolve", service="sip")["ok"]
        application.bound[1].close()
        until(lambda: application.ask("resolve", service="sip").get("code") == "unknown")
        assert application.ask("resolve", service="starwars")["ok"]
        application.bound[0].close()
        daemon.run(in_loop(daemon))
        until(lambda: daemon.answer("starwars").startswith("- unknown"))
        assert [line["service"] for line in daemon.lines if line["event"] == "given_back"] == [
            "sip", "starwars",
        ]  # fmt: skip
        assert application.ask("unregister", number=1)["code"] == "unknown"
        with bound_socket() as bound:
            assert application.register("starwars", bound=bound)["ok"]
            assert daemon.answer("starwars").startswith(f"+ {port_of(bound)} ")


async def in_loop(daemon: RunningDaemon) -> None:
    daemon.daemon._local.look_for_given_back()
