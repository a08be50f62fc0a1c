"""One worker and its successors: what they are told, and what becomes of those that fail."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest

from oegw.datapath.interface import DatapathError, Direction, WorkerReport
from oegw.datapath.userspace import supervisor as supervisors
from oegw.datapath.userspace.channel import Kind
from oegw.datapath.userspace.engine import DontFragment
from oegw.datapath.userspace.equipment import Equipment
from oegw.datapath.userspace.supervisor import Place, Request, Supervisor

ALL_TOLD: list[Request] = [(Kind.INSTALL, "one"), (Kind.INSTALL, "two"), (Kind.PATH_MTU, "path")]
KNOWS_ALL = ["START", "INSTALL", "INSTALL", "PATH_MTU", "BEGIN"]


class Control:
    """What a supervisor sees of the datapath."""

    def __init__(self) -> None:
        self.core = "scripted"
        self._null = socket.socket()
        self.deaths: list[signal.Signals | None] = []
        self.failure: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def equipment(self, place: Place) -> Equipment:
        null = self._null.fileno()
        return Equipment(
            *(self.core, null, False, null, 0, null, False, False),
            *((), 1500, 0, DontFragment.COPY),
        )

    def all_told(self, place: Place) -> Iterable[Request]:
        return ALL_TOLD

    def said(self, kind: Kind, body: Any) -> None:
        raise AssertionError(kind)

    def died(self, core: str, crashed_by: signal.Signals | None) -> None:
        self.deaths.append(crashed_by)

    def failed(self, reason: str) -> None:
        if not self.failure.done():
            self.failure.set_result(reason)


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        supervisors, "_MODULES", {Direction.OUTBOUND: "tests.support.scripted_worker"}
    )


def played(play: Callable[[Supervisor, Control], Awaitable[None]]) -> None:
    async def whole() -> None:
        control = Control()
        supervisor = Supervisor(Place(Direction.OUTBOUND, 0), control)
        await supervisor.start()
        try:
            async with asyncio.timeout(30):
                await play(supervisor, control)
        finally:
            await supervisor.end()
        assert supervisor.pid is None

    asyncio.run(whole())


def test_a_successor_knows_all_and_answers_what_was_under_way() -> None:
    async def play(supervisor: Supervisor, control: Control) -> None:
        assert await supervisor.ask(Kind.PREFER, None) == [*KNOWS_ALL, "PREFER"]
        first = supervisor.pid
        under_way = supervisor.ask(Kind.REMOVE, None)
        supervisor.restart()
        assert await under_way == KNOWS_ALL
        assert await supervisor.ask(Kind.PREFER, None) == [*KNOWS_ALL, "PREFER"]
        assert supervisor.pid != first
        by = (("AES-GCM", "a script", ""),)
        said = WorkerReport("sealing 0", supervisor.pid, 1, "scripted", "scripted", libraries=by)
        assert supervisor.report == said
        assert control.deaths == [None]

    played(play)


def test_what_a_worker_lost_its_successor_tries_again() -> None:
    async def play(supervisor: Supervisor, control: Control) -> None:
        for lost in (["sending", "no"], ["receiving", "never"], ["sending", "no more"]):
            supervisor.tell(Kind.HOME, lost)
        await supervisor.ask(Kind.PREFER, None)
        assert supervisor.report.without == (("sending", "no more"), ("receiving", "never"))
        supervisor.restart()
        await supervisor.ask(Kind.PREFER, None)
        assert supervisor.report.without == ()

    played(play)


def test_what_is_asked_while_there_is_none_is_answered_by_the_successor() -> None:
    async def play(supervisor: Supervisor, control: Control) -> None:
        supervisor.restart()
        while not control.deaths:
            await asyncio.sleep(0.001)
        assert supervisor.report.pid is None
        supervisor.tell(Kind.PATH_MTU, "another")
        assert await supervisor.ask(Kind.PREFER, None) == KNOWS_ALL

    played(play)


def test_one_that_does_not_answer_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisors, "_ANSWER_TIMEOUT", 0.1)

    async def play(supervisor: Supervisor, control: Control) -> None:
        assert supervisor.pid is not None
        os.kill(supervisor.pid, signal.SIGSTOP)
        assert await supervisor.ask(Kind.PREFER, None) == KNOWS_ALL
        assert len(control.deaths) == 1

    played(play)


def test_one_that_was_stopped_together_with_us_does_not_hang(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisors, "_ANSWER_TIMEOUT", 5.0)

    async def play(supervisor: Supervisor, control: Control) -> None:
        assert supervisor.pid is not None
        monkeypatch.setattr(supervisors, "_ANSWER_TIMEOUT", 0.5)
        os.kill(supervisor.pid, signal.SIGSTOP)
        answer = supervisor.ask(Kind.PREFER, None)
        time.sleep(0.6)  # the whole machine stands still
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        os.kill(supervisor.pid, signal.SIGCONT)
        assert await answer == [*KNOWS_ALL, "PREFER"]
        assert control.deaths == []

    played(play)


def test_one_that_hangs_unasked_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisors, "_PULSE", 0.05)
    monkeypatch.setattr(supervisors, "_ANSWER_TIMEOUT", 1.0)

    async def play(supervisor: Supervisor, control: Control) -> None:
        assert supervisor.pid is not None
        os.kill(supervisor.pid, signal.SIGSTOP)
        while not control.deaths:
            await asyncio.sleep(0.01)
        assert await supervisor.ask(Kind.REMOVE, None) == KNOWS_ALL

    played(play)


def test_a_start_without_descriptors_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = socket.socketpair
    refusals = [OSError(errno.EMFILE, "Too many open files")]

    def socketpair(*kind: int) -> tuple[socket.socket, socket.socket]:
        if refusals:
            raise refusals.pop()
        return pairs(*kind)

    async def play(supervisor: Supervisor, control: Control) -> None:
        monkeypatch.setattr(socket, "socketpair", socketpair)
        supervisor.restart()
        assert await supervisor.ask(Kind.REMOVE, None) == KNOWS_ALL
        assert not refusals
        assert not control.failure.done()

    played(play)


def test_a_supervision_that_breaks_is_the_end() -> None:
    async def play(supervisor: Supervisor, control: Control) -> None:
        def died(core: str, crashed_by: signal.Signals | None) -> None:
            raise ZeroDivisionError

        control.died = died  # type: ignore[method-assign]
        supervisor.restart()
        reason = await control.failure
        assert reason == "the sealing 0 worker's supervision ended: ZeroDivisionError"

    played(play)


def test_a_crash_is_told_from_a_will() -> None:
    async def play(supervisor: Supervisor, control: Control) -> None:
        for by in (signal.SIGSEGV, signal.SIGTERM, signal.SIGABRT, signal.SIGKILL):
            assert supervisor.pid is not None
            os.kill(supervisor.pid, by)
            assert await supervisor.ask(Kind.REMOVE, None) == KNOWS_ALL
        assert control.deaths == [signal.SIGSEGV, None, signal.SIGABRT, None]
        assert supervisor.report.restarts == 4

    played(play)


@pytest.mark.parametrize(
    ("core", "why"), [("dies", "it ended"), ("refuses", "no such core")], ids=("dies", "refuses")
)
def test_starts_that_keep_failing_are_the_end_after_seconds(core: str, why: str) -> None:
    """A machine that is busy for a moment, or somebody who kills what is being started, is not."""
    began = time.monotonic()

    async def play(supervisor: Supervisor, control: Control) -> None:
        control.core = core
        under_way = supervisor.ask(Kind.REMOVE, None)
        supervisor.restart()
        reason = await control.failure
        assert 3 < time.monotonic() - began < 20
        assert reason == f"the sealing 0 worker cannot be started: {why}"
        assert not under_way.done()
        supervisor.give_up(reason)
        for asked in (under_way, supervisor.ask(Kind.PREFER, None)):
            with pytest.raises(DatapathError, match=why):
                await asked

    played(play)


def test_some_starts_that_fail_are_tried_again_with_growing_pauses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paused: list[float] = []
    pause = supervisors._pause

    def noted(times: int) -> float:
        paused.append(pause(times))
        return paused[-1]

    monkeypatch.setattr(supervisors, "_pause", noted)

    async def play(supervisor: Supervisor, control: Control) -> None:
        control.core = "dies"
        supervisor.restart()
        asked = supervisor.ask(Kind.REMOVE, None)
        while len(paused) < 5:
            await asyncio.sleep(0.01)
        control.core = "scripted"
        assert await asked == KNOWS_ALL
        assert paused[:5] == [1 / 16, 1 / 8, 1 / 4, 1 / 2, 1]
        assert not control.failure.done()

    played(play)


def test_one_that_says_that_none_can_go_on_is_the_end() -> None:
    async def play(supervisor: Supervisor, control: Control) -> None:
        supervisor.tell(Kind.MOVE, None)
        assert await control.failure == "the sealing 0 worker: the device is gone"

    played(play)


@pytest.mark.parametrize("core", ["dies", "refuses"])
def test_a_first_start_that_fails_leaves_nothing(core: str) -> None:
    async def whole() -> None:
        control = Control()
        control.core = core
        supervisor = Supervisor(Place(Direction.OUTBOUND, 0), control)
        with pytest.raises(DatapathError, match=r"it ended|no such core"):
            await supervisor.start()
        assert supervisor.pid is None
        assert not control.deaths

    asyncio.run(whole())
