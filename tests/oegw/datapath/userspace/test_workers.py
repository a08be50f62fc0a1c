"""Requests, and limits, while workers die: what was promised holds."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from oegw.datapath.interface import DatapathError, DatapathEvent, SaExpired, SaKey, WorkerReport
from oegw.datapath.userspace import datapath as datapaths
from oegw.datapath.userspace.datapath import UserspaceDatapath
from oegw.datapath.userspace.settings import MOST_WORKERS, UserspaceSettings
from tests.oegw.datapath.test_contract import in_own_namespace
from tests.support.datapath_sas import arriving, make_sa

pytestmark = pytest.mark.netns

ELSEWHERE = ip_address("203.0.113.9")


def kill_one(datapath: UserspaceDatapath, dice: random.Random) -> None:
    pid = dice.choice([each.pid for each in datapath.workers()])
    if pid is not None:
        os.kill(pid, signal.SIGKILL)


async def life_of_an_sa(datapath: UserspaceDatapath, number: int) -> SaKey | None:
    """Its name at the end, if it stays."""
    sa = make_sa(spi=0x1000 + number)
    if number % 2:
        sa = arriving(sa)
    await datapath.install(sa)
    key = sa.key
    if number % 3 == 0:
        key = await datapath.move(key, sa.source, ELSEWHERE, None)
    if number % 4 == 0:
        await datapath.prefer(key)
    if number % 5 == 0:
        usage = await datapath.remove(key)
        assert usage is not None
        return None
    return key


def test_requests_are_carried_out_whoever_dies() -> None:
    dice = random.Random(9)

    async def whole() -> None:
        datapath = UserspaceDatapath(UserspaceSettings(workers=2, core="python"))
        events: list[DatapathEvent] = []
        await datapath.start(events.append)
        try:
            lives = asyncio.gather(*(life_of_an_sa(datapath, number) for number in range(120)))
            for _ in range(4):
                await asyncio.sleep(dice.random() / 50)
                kill_one(datapath, dice)
            names = {key for key in await lives if key is not None}
            assert set(await datapath.usage()) == names
            # No worker knows more or less than it is to know: all can be removed, and come again.
            for key in names:
                assert await datapath.remove(key) is not None
            for number in range(0, 120, 7):
                await datapath.install(make_sa(spi=0x1000 + number))
            assert events == []
            assert sum(each.restarts for each in datapath.workers()) >= 1
        finally:
            await datapath.close()

    in_own_namespace(lambda: asyncio.run(whole()))


def test_a_name_is_free_once_its_removal_was_asked_for() -> None:
    async def whole() -> None:
        datapath = UserspaceDatapath(UserspaceSettings(core="python"))
        await datapath.start(lambda event: None)
        try:
            sa = make_sa()
            await datapath.install(sa)
            await asyncio.gather(datapath.remove(sa.key), datapath.install(sa))
            assert set(await datapath.usage()) == {sa.key}
        finally:
            await datapath.close()

    in_own_namespace(lambda: asyncio.run(whole()))


def test_an_installation_that_is_given_up_leaves_nothing() -> None:
    async def whole() -> None:
        datapath = UserspaceDatapath(UserspaceSettings(core="python"))
        await datapath.start(lambda event: None)
        try:
            given_up = asyncio.create_task(datapath.install(make_sa()))
            await asyncio.sleep(0)
            given_up.cancel()
            await asyncio.gather(given_up, return_exceptions=True)
            assert given_up.cancelled()
            assert await datapath.usage() == {}
            await datapath.install(make_sa())
        finally:
            await datapath.close()

    in_own_namespace(lambda: asyncio.run(whole()))


def test_a_host_without_ipv6_has_a_datapath() -> None:
    async def whole() -> None:
        for which in ("all", "default"):
            Path(f"/proc/sys/net/ipv6/conf/{which}/disable_ipv6").write_text("1")
        datapath = UserspaceDatapath(UserspaceSettings(core="python"))
        await datapath.start(lambda event: None)
        await datapath.install(make_sa())
        await datapath.close()

    in_own_namespace(lambda: asyncio.run(whole()))


def test_many_cpus_are_no_more_workers_than_there_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def no_grounds(settings: UserspaceSettings, workers: int) -> None:
        asked.append(workers)
        raise DatapathError("no grounds")

    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(datapaths, "Grounds", no_grounds)
    with pytest.raises(DatapathError, match="no grounds"):
        asyncio.run(UserspaceDatapath(UserspaceSettings()).start(lambda event: None))
    assert asked == [MOST_WORKERS]


def test_a_successor_goes_on_with_what_is_expired() -> None:
    async def whole() -> None:
        datapath = UserspaceDatapath(UserspaceSettings(core="python"))
        events: list[DatapathEvent] = []
        await datapath.start(events.append)
        try:
            both = make_sa(soft_seconds=1, hard_seconds=2)
            await datapath.install(both)
            async with asyncio.timeout(20):
                while not events:
                    await asyncio.sleep(0.01)
            for each in datapath.workers():
                os.kill(each.pid or 0, signal.SIGKILL)
            async with asyncio.timeout(20):
                while len(events) < 2:
                    await asyncio.sleep(0.01)
            await datapath.install(replace(make_sa(), spi=0x2000))
            assert events == [SaExpired(both.key, hard=False), SaExpired(both.key, hard=True)]
        finally:
            await datapath.close()

    in_own_namespace(lambda: asyncio.run(whole()))


def open_descriptors() -> Counter[str]:
    """What this process has open, but for memory that is mapped (which keeps a descriptor)."""
    found: Counter[str] = Counter()
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            name = descriptor.readlink().name.partition(":")[0]
            found[name] += 1
    del found["memfd"]
    return found


class WithTwoCores(UserspaceDatapath):
    """Whose second worker finds no compiled core any more."""

    def workers(self) -> tuple[WorkerReport, ...]:
        first, *others = super().workers()
        return (replace(first, core="compiled"), *others)


def test_workers_with_different_cores_do_not_run() -> None:
    """They would take the same numbers: one by an addition, the other behind a lock."""

    async def whole() -> None:
        datapath = WithTwoCores(UserspaceSettings(core="python"))
        with pytest.raises(DatapathError, match="sealing 0 python: the configuration asks"):
            await datapath.start(lambda event: None)
        assert all(each.pid is None for each in datapath.workers())

    in_own_namespace(lambda: asyncio.run(whole()))


def test_nothing_is_left_after_the_end() -> None:
    async def whole() -> None:
        await asyncio.to_thread(lambda: None)  # the loop's own thread, and what it has
        before = open_descriptors()
        datapath = UserspaceDatapath(UserspaceSettings(workers=2))
        await datapath.start(lambda event: None)
        pids = [each.pid for each in datapath.workers()]
        await datapath.install(make_sa())
        assert open_descriptors() > before
        await datapath.close()
        assert all(each.pid is None for each in datapath.workers())
        assert len(pids) == 4
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
        assert open_descriptors() == before

    in_own_namespace(lambda: asyncio.run(whole()))
