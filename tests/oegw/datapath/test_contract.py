"""What every datapath does, played on each of them.

`UserspaceDatapath` and `XfrmDatapath` run in a network namespace of their own: a thread that
unshared.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from ipaddress import ip_address

import pytest

from oegw.datapath.interface import (
    Datapath,
    DatapathError,
    DatapathEvent,
    DatapathFailed,
    Direction,
    SaKey,
    UdpEncapsulation,
    Usage,
)
from oegw.datapath.memory import MemoryDatapath
from oegw.datapath.userspace.datapath import UserspaceDatapath
from oegw.datapath.userspace.settings import UserspaceSettings
from oegw.datapath.xfrm.datapath import XfrmDatapath
from oegw.datapath.xfrm.settings import XfrmSettings
from tests.support.datapath_sas import ALGORITHMS, arriving, make_sa

_CLONE_NEWNET = 0x40000000
UNUSED = Usage(0, 0, None)

Play = Callable[[Datapath, list[DatapathEvent]], Awaitable[None]]


def in_own_namespace(work: Callable[[], None]) -> None:
    """Run ``work`` in a thread whose network namespace is new, and vanishes with it."""
    errors: list[BaseException] = []

    def body() -> None:
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            assert libc.unshare(_CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


def on_memory(play: Play) -> None:
    asyncio.run(started(MemoryDatapath(), play))


def on_userspace(play: Play) -> None:
    in_own_namespace(lambda: asyncio.run(started(UserspaceDatapath(UserspaceSettings()), play)))


def on_kernel(play: Play) -> None:
    in_own_namespace(lambda: asyncio.run(started(XfrmDatapath(XfrmSettings()), play)))


async def started(datapath: Datapath, play: Play) -> None:
    events: list[DatapathEvent] = []
    capability = await datapath.start(events.append)
    try:
        assert capability.name in ("memory", "userspace", "kernel")
        assert capability.udp_encapsulation
        assert set(capability.ciphers) == {"aes-gcm-16", "aes-cbc", "3des-cbc"}
        await play(datapath, events)
    finally:
        await datapath.close()


each_datapath = pytest.mark.parametrize(
    "on",
    [
        pytest.param(on_memory, id="memory"),
        pytest.param(on_userspace, id="userspace", marks=pytest.mark.netns),
        pytest.param(on_kernel, id="kernel", marks=pytest.mark.kernel),
    ],
)


@each_datapath
def test_install_use_remove(on: Callable[[Play], None]) -> None:
    async def play(datapath: Datapath, events: list[DatapathEvent]) -> None:
        outbound = make_sa()
        inbound = arriving(make_sa(spi=0x2000, encapsulation=UdpEncapsulation()))
        await datapath.install(inbound)
        await datapath.install(outbound)
        assert await datapath.usage() == {inbound.key: UNUSED, outbound.key: UNUSED}
        assert await datapath.remove(outbound.key) == UNUSED
        assert await datapath.remove(outbound.key) is None
        assert await datapath.usage() == {inbound.key: UNUSED}
        assert isinstance(await datapath.counters(), dict)
        assert events == []

    on(play)


@each_datapath
def test_every_algorithm(on: Callable[[Play], None]) -> None:
    async def play(datapath: Datapath, events: list[DatapathEvent]) -> None:
        for number, algorithm in enumerate(ALGORITHMS):
            await datapath.install(make_sa(algorithm, spi=0x1000 + number))
        assert len(await datapath.usage()) == len(ALGORITHMS)

    on(play)


@each_datapath
def test_many_at_once(on: Callable[[Play], None]) -> None:
    async def play(datapath: Datapath, events: list[DatapathEvent]) -> None:
        sas = [make_sa(spi=0x1000 + number) for number in range(700)]
        await asyncio.gather(*(datapath.install(sa) for sa in sas))
        assert set(await datapath.usage()) == {sa.key for sa in sas}

    on(play)


REFUSED = {
    "cipher": replace(make_sa(), cipher="rot13"),
    "key": replace(make_sa(), encryption_key=b"secret"),
    "integrity key": replace(make_sa("cbc-sha2"), integrity_key=b"secret"),
    "integrity missing": replace(make_sa("cbc-sha2"), integrity=None),
    "integrity superfluous": replace(make_sa(), integrity="hmac-sha1-96"),
    "spi": make_sa(spi=255),
    "outer families": replace(make_sa(), source=ip_address("2001:db8::1")),
    "window": make_sa(replay_window=0),
}


@each_datapath
@pytest.mark.parametrize("name", REFUSED)
def test_refused(on: Callable[[Play], None], name: str) -> None:
    async def play(datapath: Datapath, events: list[DatapathEvent]) -> None:
        with pytest.raises(DatapathError) as error:
            await datapath.install(REFUSED[name])
        assert "secret" not in str(error.value)
        assert await datapath.usage() == {}

    on(play)


@each_datapath
def test_the_same_sa_twice_is_refused_and_the_first_stays(on: Callable[[Play], None]) -> None:
    async def play(datapath: Datapath, events: list[DatapathEvent]) -> None:
        await datapath.install(make_sa())
        with pytest.raises(DatapathError):
            await datapath.install(make_sa())
        assert list(await datapath.usage()) == [make_sa().key]

    on(play)


@each_datapath
def test_nothing_works_after_the_end(on: Callable[[Play], None]) -> None:
    async def play(datapath: Datapath, events: list[DatapathEvent]) -> None:
        await datapath.close()
        key = SaKey(Direction.INBOUND, 0x1000, ip_address("192.1.1.5"))
        for question in (
            datapath.install(make_sa()),
            datapath.usage(),
            datapath.counters(),
            datapath.remove(key),
        ):
            with pytest.raises(DatapathError):
                await question
        assert events == []

    on(play)


def test_memory_failure_is_reported() -> None:
    async def play(datapath: Datapath, events: list[DatapathEvent]) -> None:
        assert isinstance(datapath, MemoryDatapath)
        await datapath.install(make_sa())
        datapath.carry(make_sa().key, 100, 5.0)
        assert await datapath.usage() == {make_sa().key: Usage(1, 100, 5.0)}
        datapath.fail("pulled the plug")
        assert events == [DatapathFailed("pulled the plug")]
        with pytest.raises(DatapathError):
            await datapath.usage()

    on_memory(play)


@pytest.mark.netns
def test_start_that_fails_leaves_nothing() -> None:
    """The device's name is taken: by a first datapath."""

    async def both() -> None:
        first = UserspaceDatapath(UserspaceSettings())
        second = UserspaceDatapath(UserspaceSettings())
        await first.start(lambda event: None)
        with pytest.raises(DatapathError, match="oegw0"):
            await second.start(lambda event: None)
        assert second.worker is None
        await first.install(make_sa())
        await first.close()
        assert first.worker is None

    in_own_namespace(lambda: asyncio.run(both()))


@pytest.mark.kernel
def test_kernel_start_that_fails_leaves_nothing() -> None:
    """The interface id is taken: by a first datapath, which goes on."""

    async def both() -> None:
        first = XfrmDatapath(XfrmSettings())
        second = XfrmDatapath(XfrmSettings())
        await first.start(lambda event: None)
        with pytest.raises(DatapathError, match="oegw0"):
            await second.start(lambda event: None)
        await second.close()
        await first.install(make_sa())
        assert list(await first.usage()) == [make_sa().key]
        await first.close()

    in_own_namespace(lambda: asyncio.run(both()))


@pytest.mark.parametrize(
    "on",
    [
        pytest.param(on_memory, id="memory"),
        pytest.param(on_kernel, id="kernel", marks=pytest.mark.kernel),
    ],
)
def test_each_way_to_move(on: Callable[[Play], None]) -> None:
    async def play(datapath: Datapath, events: list[DatapathEvent]) -> None:
        outbound = make_sa(encapsulation=UdpEncapsulation())
        inbound = arriving(make_sa(spi=0x2000, encapsulation=UdpEncapsulation()))
        for sa in (outbound, inbound):
            await datapath.install(sa)
        elsewhere = ip_address("192.1.1.9")
        behind = UdpEncapsulation(4500, 32000)
        # Another port; another peer; our own address changed; what came in comes from elsewhere.
        assert (
            await datapath.move(outbound.key, outbound.source, outbound.destination, behind)
            == outbound.key
        )
        moved = await datapath.move(outbound.key, outbound.source, elsewhere, behind)
        assert moved == SaKey(Direction.OUTBOUND, outbound.spi, elsewhere)
        assert await datapath.move(moved, ip_address("192.1.1.44"), elsewhere, None) == moved
        assert (
            await datapath.move(inbound.key, elsewhere, inbound.destination, behind) == inbound.key
        )
        assert await datapath.usage() == {moved: UNUSED, inbound.key: UNUSED}
        with pytest.raises(DatapathError):
            await datapath.move(outbound.key, outbound.source, elsewhere, None)
        assert await datapath.remove(moved) == UNUSED
        assert await datapath.remove(inbound.key) == UNUSED
        assert events == []

    on(play)
