"""When workers gather on one CPU and when they spread; whose word counts about where they run."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import time
from collections.abc import Callable

import pytest

from oegw.datapath.userspace import gathering as gatherings
from oegw.datapath.userspace.core import compiled
from oegw.datapath.userspace.core.choice import COMPILED
from oegw.datapath.userspace.counters import CounterPages, page_of
from oegw.datapath.userspace.datapath import UserspaceDatapath
from oegw.datapath.userspace.gathering import AVOIDED, CALM, LATE, LOOK, MANY, PERIOD, Gathering
from oegw.datapath.userspace.settings import UserspaceSettings
from oegw.intercept.interface import Marks
from tests.oegw.datapath.test_contract import in_own_namespace, on_loopback, until
from tests.support.datapath_cores import cores
from tests.support.datapath_sas import A4, B4, make_sa

SECOND = 1_000_000_000


class Placed(Gathering):
    def __init__(self, gather_from: memoryview) -> None:
        super().__init__(gather_from)
        self.placed: list[bool] = []

    def place(self, gathered: bool) -> None:
        self.placed.append(gathered)


class Pure:
    """What packets came, in; where the worker is placed, out.  ``shared``: the memory of all."""

    def __init__(self, shared: memoryview) -> None:
        self._gathering = Placed(shared)
        self.placed = self._gathering.placed

    def came(self, packets: int, nanoseconds: int) -> None:
        self._gathering.came(packets, nanoseconds / 1e9)


class InC:
    """The same of the compiled core."""

    def __init__(self, shared: memoryview) -> None:
        ffi, self._library = compiled.library()
        self.placed: list[bool] = []
        self._from = ffi.from_buffer("uint64_t[]", shared, require_writable=True)
        self._crowd = ffi.new("struct oegw_crowd *", {"from": self._from})

    def came(self, packets: int, nanoseconds: int, octets: int = 0) -> None:
        if self._library.oegw_crowd_came(self._crowd, packets, octets, nanoseconds):
            self.placed.append(self._crowd.gathered != 0)


Makes = Callable[[memoryview], Pure | InC]
each_core = pytest.mark.parametrize(
    "make", [InC if name == COMPILED else Pure for name in cores()], ids=cores()
)


def memory() -> memoryview:
    return memoryview(bytearray(8)).cast("Q")


@each_core
def test_packets_one_by_one_gather_and_a_crowd_spreads(make: Makes) -> None:
    worker = make(memory())
    for number in range(LOOK // 2):
        worker.came(1, SECOND + number * 1000)
    assert worker.placed == [True]
    for number in range(3):
        worker.came(MANY // 4, 2 * SECOND + number)
    assert worker.placed == [True]
    worker.came(MANY // 4, 2 * SECOND + PERIOD)
    assert worker.placed == [True, False]


@each_core
def test_while_gathered_it_is_said_again_after_many_turns(make: Makes) -> None:
    worker = make(memory())
    for number in range(3 * LOOK + 1):
        worker.came(1, SECOND + number)
    assert worker.placed == [True] * 4
    worker.came(MANY, SECOND * 2)
    for number in range(3 * LOOK):
        worker.came(1, SECOND * 2 + number)
    assert worker.placed == [True] * 4 + [False]


@each_core
def test_small_crowds_far_from_each_other_are_none(make: Makes) -> None:
    worker = make(memory())
    for number in range(1, LOOK):
        worker.came(MANY // 4, SECOND + number * PERIOD)
    assert worker.placed == [True]


@each_core
def test_one_large_crowd_spreads_and_calm_gathers(make: Makes) -> None:
    worker = make(memory())
    worker.came(MANY, SECOND)
    worker.came(1, SECOND + CALM - 1000)
    assert worker.placed == []  # it began where it may be anywhere
    worker.came(1, SECOND + CALM)
    assert worker.placed == [True]
    worker.came(MANY, SECOND + CALM + 1000)
    worker.came(1, SECOND + 2 * CALM)
    assert worker.placed == [True, False]
    worker.came(1, SECOND + 2 * CALM + 1000)
    assert worker.placed == [True, False, True]


@each_core
def test_a_crowd_that_one_meets_all_hear_of(make: Makes) -> None:
    shared = memory()
    one, other = make(shared), make(shared)
    other.came(1, SECOND)
    one.came(MANY, 2 * SECOND + 1000)
    other.came(1, 2 * SECOND)  # its clock was read a little earlier
    assert other.placed == [True, False]
    other.came(1, 2 * SECOND + CALM)
    assert other.placed == [True, False]
    other.came(1, 2 * SECOND + CALM + 1000)
    assert other.placed == [True, False, True]


def test_both_cores_think_the_same_of_any_traffic() -> None:
    dice, now = random.Random(5), SECOND
    pure, in_c = Pure(memory()), InC(memory())
    for _ in range(20_000):
        now += dice.choice((1_000, 100_000, PERIOD // 4, PERIOD, CALM // 2))
        packets = dice.choice((1, 1, 1, 2, 3, 60))
        pure.came(packets, now)
        in_c.came(packets, now)
    assert pure.placed == in_c.placed
    assert len(pure.placed) > 100


def test_a_super_packet_is_as_good_as_a_crowd() -> None:
    worker = InC(memory())
    worker.came(1, SECOND, 1500)
    worker.came(1, SECOND, 65_000)
    assert worker.placed == [True]
    worker.came(1, SECOND, 65_000 * 2)
    assert worker.placed == [True, False]


def test_the_memory_is_that_of_all_pages() -> None:
    pages = CounterPages(3)
    page_of(pages.descriptor, 2).gather_from[0] = 7
    assert page_of(pages.descriptor, 0).gather_from[0] == 7
    assert pages.counted() == {}
    pages.close()


class Cpus:
    """What the kernel knows of this process; ``spent`` running, and waiting to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *allowed: int) -> None:
        self.allowed = set(allowed)
        self.policy = os.SCHED_OTHER
        self.refuses = False
        self.spent = SECOND, 5 * SECOND
        monkeypatch.setattr(gatherings, "_spent", lambda: self.spent)
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(self.allowed))
        monkeypatch.setattr(os, "sched_setaffinity", self._set)
        monkeypatch.setattr(os, "sched_getscheduler", lambda pid: self.policy)
        monkeypatch.setattr(os, "sched_setscheduler", self._set_policy)

    def _set_policy(self, pid: int, policy: int, param: os.sched_param) -> None:
        assert (pid, param.sched_priority) == (0, 0)
        if self.refuses:
            raise PermissionError
        self.policy = policy

    def _set(self, pid: int, cpus: set[int]) -> None:
        assert pid == 0
        if self.refuses:
            raise PermissionError
        self.allowed = set(cpus)


def gathering() -> Gathering:
    made = Gathering(memory())
    made.begin()
    return made


def test_it_goes_to_the_first_cpu_that_it_may_and_back_to_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cpus, worker = Cpus(monkeypatch, 2, 3, 5), gathering()
    for _ in range(3):
        worker.place(True)
        assert cpus.allowed == {2}
        worker.place(False)
        assert cpus.allowed == {2, 3, 5}


def test_what_somebody_else_said_meanwhile_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    cpus, worker = Cpus(monkeypatch, 0, 1, 2), gathering()
    worker.place(True)
    cpus.allowed = {1, 2}  # taskset, or a smaller cpuset
    worker.place(False)
    assert cpus.allowed == {1, 2}
    worker.place(True)
    assert cpus.allowed == {1}
    worker.place(False)
    assert cpus.allowed == {1, 2}


def test_in_crowds_it_lets_others_finish(monkeypatch: pytest.MonkeyPatch) -> None:
    cpus, worker = Cpus(monkeypatch, 0, 1), gathering()
    for _ in range(2):
        assert cpus.policy == os.SCHED_BATCH
        worker.place(True)
        assert cpus.policy == os.SCHED_OTHER
        worker.place(False)


@pytest.mark.parametrize("policy", [os.SCHED_FIFO, os.SCHED_IDLE, os.SCHED_BATCH])
def test_another_policy_that_somebody_chose_stays(
    policy: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpus = Cpus(monkeypatch, 0, 1)
    cpus.policy = policy
    worker = gathering()
    for gathered in (True, False, True):
        worker.place(gathered)
        assert cpus.policy == policy
    worker.place(False)
    cpus.policy = os.SCHED_OTHER
    worker.place(True)
    assert cpus.policy == os.SCHED_OTHER
    worker.place(False)
    assert cpus.policy == os.SCHED_BATCH
    cpus.policy = policy
    worker.place(True)
    assert cpus.policy == (os.SCHED_OTHER if policy == os.SCHED_BATCH else policy)


def test_where_it_is_refused_it_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    cpus, worker = Cpus(monkeypatch, 0, 1), gathering()
    cpus.refuses = True
    worker.place(True)
    worker.place(False)
    assert cpus.policy == os.SCHED_BATCH
    cpus.refuses = False
    worker.place(False)
    assert cpus.allowed == {0, 1}


def test_who_waits_for_the_cpu_leaves_it_to_others_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shared = memory()
    cpus, worker = Cpus(monkeypatch, 0, 1), Gathering(shared)
    worker.begin()
    worker.place(True)
    cpus.spent = SECOND + 1000, 5 * SECOND + 1000 * LATE
    worker.place(True)
    assert shared[0] == 0
    cpus.spent = SECOND + 2000, 5 * SECOND + 2000 * LATE + 1
    before = time.monotonic_ns()
    worker.place(True)
    assert before + AVOIDED <= shared[0] <= time.monotonic_ns() + AVOIDED
    other = Pure(shared)
    other.came(MANY, before)  # calm comes sooner, and changes nothing
    assert shared[0] >= before + AVOIDED
    other.came(1, before + AVOIDED - SECOND)
    assert other.placed == []


def test_who_has_not_begun_is_not_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    cpus, worker = Cpus(monkeypatch, 0, 1), Gathering(memory())
    worker.place(True)
    worker.place(False)
    assert cpus.allowed == {0, 1}


def send(count: int) -> None:
    """Datagrams from Alice to Bob, marked as interception does it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as alice:
        alice.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, Marks(0x30000).tunnel)
        alice.bind((A4, 0))
        for _ in range(count):
            alice.sendto(b"one", (B4, 9))


@pytest.mark.netns
@pytest.mark.parametrize("core", cores())
def test_workers_follow_their_traffic_and_a_successor_begins_anywhere(core: str) -> None:
    async def whole() -> None:
        ours = os.sched_getaffinity(0)
        on_loopback()
        datapath = UserspaceDatapath(UserspaceSettings(workers=1, core=core))
        await datapath.start(lambda event: None)

        def sealing() -> int:
            return next(each.pid or 0 for each in datapath.workers() if "sealing" in each.name)

        async def await_place(cpus: set[int], packets: int) -> None:
            async with asyncio.timeout(20):
                while os.sched_getaffinity(sealing()) != cpus:
                    send(packets)
                    await asyncio.sleep(0.01)

        try:
            await datapath.install(make_sa())
            assert os.sched_getaffinity(sealing()) == ours
            await await_place({min(ours)}, 1)
            await await_place(ours, 500)
            await await_place({min(ours)}, 1)
            dead = sealing()
            os.kill(dead, signal.SIGKILL)
            await until(lambda: sealing() not in (0, dead))
            assert os.sched_getaffinity(sealing()) == ours
            await await_place({min(ours)}, 1)
            assert os.sched_getaffinity(0) == ours
        finally:
            await datapath.close()

    in_own_namespace(lambda: asyncio.run(whole()))
