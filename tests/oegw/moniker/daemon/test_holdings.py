"""A port that was given back is told no more (MK-30)."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

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


def test_a_port_that_is_shared_afterwards_is_nobodys() -> None:
    held = Holdings(Clock())
    with bound_socket() as bound:
        held.add(1, os.getpid(), inode(bound))
        assert held.is_held(1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        assert not held.is_held(1)
        bound.listen()
        assert held.is_held(1)
        bound.shutdown(socket.SHUT_RD)
        assert not held.is_held(1)


def test_a_listener_that_was_shut_down_may_have_lost_its_port() -> None:
    held = Holdings(Clock())
    with bound_socket(listening=True) as bound:  # the kernel chose the port, and takes it back
        held.add(1, os.getpid(), inode(bound))
        assert held.is_held(1)
        bound.shutdown(socket.SHUT_RDWR)
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


def searches(monkeypatch: pytest.MonkeyPatch, clock: Clock, seconds: float = 0.0) -> list[str]:
    """The directories that are searched from now on, each in ``seconds``."""
    found: list[str] = []
    search = os.scandir

    def counted(path: str) -> object:
        found.append(path)
        clock.now += seconds
        return search(path)

    monkeypatch.setattr(os, "scandir", counted)
    return found


def test_all_descriptors_are_searched_once_a_second_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    held = Holdings(clock)
    done = searches(monkeypatch, clock)
    held.add(1, os.getpid(), 1)
    for _ in range(10):
        assert not held.is_held(1)
    assert len(done) == 1
    clock.now += SEARCH_PAUSE
    assert not held.is_held(1)
    assert len(done) == 2


def test_one_search_is_for_all_entries_of_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    held = Holdings(clock)
    done = searches(monkeypatch, clock)
    sockets = [bound_socket() for _ in range(20)]
    for number, bound in enumerate(sockets):
        held.add(number, os.getpid(), inode(bound))
    held.add(99, os.getpid(), 1)
    assert all(held.is_held(number) for number in range(20))
    assert not held.is_held(99)
    for bound in sockets:
        bound.close()
    assert len(done) == 1
    clock.now += SEARCH_PAUSE
    assert held.given_up(100) == [*range(20), 99]
    assert len(done) == 2


def test_who_came_after_a_search_is_believed_until_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    held = Holdings(clock)
    held.add(1, os.getpid(), 1)
    assert not held.is_held(1)
    held.add(2, os.getpid(), 2)
    assert held.is_held(2)
    clock.now += SEARCH_PAUSE
    assert not held.is_held(2)


def test_searches_take_a_tenth_of_the_time_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many files a user has open, in however many processes."""
    clock = Clock()
    held = Holdings(clock)
    done = searches(monkeypatch, clock, seconds=0.1)
    held.add(1, os.getpid(), 1)
    held.add(2, os.getppid(), 1)
    assert not held.is_held(1)
    assert held.is_held(2)
    assert len(done) == 1
    clock.now += 0.91
    assert not held.is_held(2)
    assert len(done) == 2


def test_a_process_that_is_gone_holds_nothing() -> None:
    held = Holdings(Clock())
    with subprocess.Popen([sys.executable, "-S", "-c", ""]) as child:
        pass
    held.add(1, child.pid, 1)
    assert not held.is_held(1)
    assert not held.is_held(2)


def test_what_is_not_there_any_more_is_not_kept() -> None:
    held = Holdings(Clock())
    held.add(1, os.getpid(), 1)
    held.add(2, os.getpid(), 1)
    held.remove(1)
    held.remove(1)
    assert len(held) == 1
    assert not held.is_held(2)
    held.remove(2)
    assert len(held) == 0


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
