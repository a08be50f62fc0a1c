"""What every datapath does, played on each of them.

`UserspaceDatapath` and `XfrmDatapath` run in a network namespace of their own: a thread that
unshared.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from oegw.datapath.interface import (
    Datapath,
    DatapathError,
    DatapathEvent,
    DatapathFailed,
    Direction,
    KeyingDatagram,
    PeerAddressChanged,
    SaExpired,
    SaKey,
    SecurityAssociation,
    UdpEncapsulation,
    UnknownSpiReceived,
    Usage,
)
from oegw.datapath.memory import MemoryDatapath
from oegw.datapath.userspace.datapath import UserspaceDatapath
from oegw.datapath.userspace.esp import OutboundSa
from oegw.datapath.userspace.settings import UserspaceSettings
from oegw.datapath.xfrm.datapath import XfrmDatapath
from oegw.datapath.xfrm.settings import XfrmSettings
from oegw.intercept.interface import Marks
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


def on_several(play: Play) -> None:
    """Three workers for each direction, in pure Python, without offloads."""
    settings = UserspaceSettings(workers=3, core="python", offloads=False)
    in_own_namespace(lambda: asyncio.run(started(UserspaceDatapath(settings), play)))


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
also_several = pytest.mark.parametrize(
    "on",
    [
        *(each for each in each_datapath.args[1]),
        pytest.param(on_several, id="several workers", marks=pytest.mark.netns),
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


@also_several
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
    "octets": replace(make_sa(), hard_bytes=2**64),
    "no octets": replace(make_sa(), soft_bytes=0, hard_bytes=1),
    "no port": make_sa(encapsulation=UdpEncapsulation(4500, 0)),
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
        here, there = make_sa().source, make_sa().destination
        datapath.send_keying(bytes(8), here, there, 4500)  # lost, and no error
        for question in (
            datapath.install(make_sa()),
            datapath.move(key, here, there, None),
            datapath.usage(),
            datapath.prefer(key),
            datapath.counters(),
            datapath.remove(key),
        ):
            with pytest.raises(DatapathError):
                await question
        assert events == []

    on(play)


ELSEWHERE = ip_address("203.0.113.9")


@also_several
@pytest.mark.parametrize("encapsulation", [None, UdpEncapsulation(4500, 61000)])
def test_an_sa_moves(on: Callable[[Play], None], encapsulation: UdpEncapsulation | None) -> None:
    async def play(datapath: Datapath, events: list[DatapathEvent]) -> None:
        outbound, inbound = make_sa(), arriving(make_sa(spi=0x2000))
        await datapath.install(outbound)
        await datapath.install(inbound)
        moved = await datapath.move(outbound.key, outbound.source, ELSEWHERE, encapsulation)
        assert moved == replace(outbound.key, destination=ELSEWHERE)
        theirs = encapsulation and UdpEncapsulation(61000, 4500)
        # The peer of an inbound SA is no part of its name.
        same = await datapath.move(inbound.key, ELSEWHERE, inbound.destination, theirs)
        assert same == inbound.key
        assert await datapath.usage() == {moved: UNUSED, inbound.key: UNUSED}
        assert await datapath.remove(outbound.key) is None
        await datapath.install(outbound)  # the old name is free
        assert await datapath.remove(moved) == UNUSED
        assert await datapath.usage() == {inbound.key: UNUSED, outbound.key: UNUSED}

    on(play)


@each_datapath
def test_a_refused_move_changes_nothing(on: Callable[[Play], None]) -> None:
    async def play(datapath: Datapath, events: list[DatapathEvent]) -> None:
        sa, taken = make_sa(), make_sa(destination=str(ELSEWHERE))
        await datapath.install(sa)
        await datapath.install(taken)
        for refused in (
            datapath.move(sa.key, sa.source, ELSEWHERE, None),
            datapath.move(sa.key, sa.source, ip_address("2001:db8::9"), None),
            datapath.move(sa.key, sa.source, sa.destination, UdpEncapsulation(4500, 0)),
            datapath.move(replace(sa.key, spi=0x9999), sa.source, sa.destination, None),
        ):
            with pytest.raises(DatapathError):
                await refused
        assert await datapath.usage() == {sa.key: UNUSED, taken.key: UNUSED}

    on(play)


async def sender_of(datapath: Datapath, sa: SecurityAssociation) -> SaKey | None:
    """Which SA a packet of the selectors of ``sa`` leaves by; None if it does not leave.

    Where there is a network, a packet says it: one with the tunnel mark, as interception sets it.
    """
    if isinstance(datapath, MemoryDatapath):
        return datapath.sender(sa)
    before = await datapath.usage()
    while True:  # until nothing of what was sent before is on its way any more
        await asyncio.sleep(0.02)
        now = await datapath.usage()
        if now == before:
            break
        before = now
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as host:
        host.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, Marks(0x30000).tunnel)
        host.bind((str(sa.source_selector.network.network_address), 0))
        host.sendto(b"which way?", (str(sa.destination_selector.network.network_address), 9))
    for _ in range(50):
        usage = await datapath.usage()
        sent = [key for key in usage if usage[key].packets > before[key].packets]
        if sent:
            [key] = sent
            return key
        await asyncio.sleep(0.01)
    return None


def on_loopback() -> None:
    """Alice and her gateway live on our loopback, and whatever they send ends there."""
    if Path("/proc/self/ns/net").samefile("/proc/thread-self/ns/net"):
        return  # a twin without a network: nothing is sent
    ip = str(shutil.which("ip"))
    for command in (
        "link set lo up",
        "address add 192.1.0.65/32 dev lo",
        "address add 192.1.1.4/32 dev lo",
        "route add 192.1.1.0/24 dev lo",
    ):
        subprocess.run([ip, *command.split()], check=True)


@also_several
def test_of_several_the_newest_sends_or_the_one_preferred(on: Callable[[Play], None]) -> None:
    async def play(datapath: Datapath, events: list[DatapathEvent]) -> None:
        on_loopback()
        by_a = make_sa(spi=0x1000)
        by_d = make_sa(spi=0x2000, destination="192.1.1.6")
        await datapath.install(by_a)
        assert await sender_of(datapath, by_a) == by_a.key
        await datapath.install(by_d)
        assert await sender_of(datapath, by_a) == by_d.key
        await datapath.prefer(by_a.key)
        assert await sender_of(datapath, by_a) == by_a.key
        await datapath.prefer(by_a.key)
        assert await sender_of(datapath, by_a) == by_a.key
        newer = make_sa(spi=0x3000, destination="192.1.1.6")
        await datapath.install(newer)
        assert await sender_of(datapath, by_a) == newer.key
        await datapath.prefer(by_d.key)
        await datapath.remove(newer.key)
        assert await sender_of(datapath, by_a) == by_d.key
        await datapath.remove(by_d.key)
        assert await sender_of(datapath, by_a) == by_a.key
        # On a loopback, what we send comes to ourselves.
        assert all(isinstance(event, UnknownSpiReceived) for event in events)

    on(play)


@each_datapath
def test_what_cannot_send_is_not_preferred(on: Callable[[Play], None]) -> None:
    async def play(datapath: Datapath, events: list[DatapathEvent]) -> None:
        on_loopback()
        outbound, inbound = make_sa(), arriving(make_sa(spi=0x2000))
        short = make_sa(spi=0x4000, hard_seconds=1)
        for sa in (short, outbound, inbound):
            await datapath.install(sa)
        await until(lambda: SaExpired(short.key, hard=True) in events)
        for key in (inbound.key, short.key, SaKey(Direction.OUTBOUND, 0x9999, ELSEWHERE)):
            with pytest.raises(DatapathError):
                await datapath.prefer(key)
        assert await sender_of(datapath, outbound) == outbound.key

    on(play)


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


@each_datapath
def test_time_runs_out(on: Callable[[Play], None]) -> None:
    async def play(datapath: Datapath, events: list[DatapathEvent]) -> None:
        both = make_sa(soft_seconds=1, hard_seconds=3)
        hard_only = arriving(make_sa(spi=0x2000, hard_seconds=2))
        for sa in (both, hard_only, make_sa(spi=0x3000, soft_seconds=60, hard_seconds=90)):
            await datapath.install(sa)
        removed = make_sa(spi=0x4000, soft_seconds=1, hard_seconds=2)
        await datapath.install(removed)
        await datapath.remove(removed.key)
        began = asyncio.get_running_loop().time()
        await until(lambda: len(events) >= 3)
        assert 2 < asyncio.get_running_loop().time() - began < 6
        assert events == [
            SaExpired(both.key, hard=False),
            SaExpired(hard_only.key, hard=True),
            SaExpired(both.key, hard=True),
        ]
        for sa in (both, hard_only):
            await datapath.remove(sa.key)  # whether it is still there or not

    on(play)


@each_datapath
def test_keying_that_cannot_be_sent_is_counted(on: Callable[[Play], None]) -> None:
    async def play(datapath: Datapath, events: list[DatapathEvent]) -> None:
        datapath.send_keying(bytes(8), ip_address("::1"), ip_address("127.0.0.1"), 4500)
        assert (await datapath.counters())["drop_keying"] == 1
        assert events == []

    on(play)


# What only a datapath with a network can show: on the loopback of a namespace.

on_a_network = pytest.mark.parametrize(
    "on", [pytest.param(on_userspace, id="userspace", marks=pytest.mark.netns)]
)
LOOPBACKS = {4: ip_address("127.0.0.1"), 6: ip_address("::1")}


def peer_socket(family: int) -> socket.socket:
    """A UDP socket on our loopback, which is up from now on."""
    subprocess.run([str(shutil.which("ip")), "link", "set", "lo", "up"], check=True)
    peer = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
    peer.bind((str(LOOPBACKS[family]), 0))
    peer.settimeout(5)
    return peer


@on_a_network
@pytest.mark.parametrize("family", [4, 6])
def test_keying_both_ways(on: Callable[[Play], None], family: int) -> None:
    async def play(datapath: Datapath, events: list[DatapathEvent]) -> None:
        address = LOOPBACKS[family]
        with peer_socket(family) as peer:
            port = peer.getsockname()[1]
            largest = bytes(4) + bytes(range(250)) * 200
            for data in (bytes(4) + b"IKE", b"\xff", largest):
                datapath.send_keying(data, address, address, port)
                received, sender = await asyncio.to_thread(peer.recvfrom, 65536)
                assert (received, sender[:2]) == (data, (str(address), 4500))
            for data in (b"\xff", bytes(4), bytes(4) + b"answer", largest):
                peer.sendto(data, (str(address), 4500))
            await until(lambda: len(events) >= 3)
            assert events == [
                KeyingDatagram(data, address, address, port)
                for data in (bytes(4), bytes(4) + b"answer", largest)
            ]
            datapath.send_keying(bytes(8), address, address, 0)
            datapath.send_keying(bytes(8), address, address, 70000)

            for _ in range(100):
                counters = await datapath.counters()
                if counters.get("drop_keying") == 2:
                    break
                await asyncio.sleep(0.05)
            assert counters["drop_keying"] == 2

    on(play)


@on_a_network
@pytest.mark.parametrize("family", [4, 6])
def test_a_peer_that_moves_is_reported_and_keepalives_say_nothing(
    on: Callable[[Play], None], family: int
) -> None:
    async def play(datapath: Datapath, events: list[DatapathEvent]) -> None:
        address = LOOPBACKS[family]
        outer = {"source": str(address), "destination": str(address)}
        sa = make_sa(encapsulation=UdpEncapsulation(61000, 4500), **outer)
        key = arriving(sa).key
        await datapath.install(arriving(sa))
        sender = OutboundSa(sa, os.urandom)
        packet = bytes.fromhex("45000014000000004011") + bytes(2)
        packet += bytes((192, 1, 0, 65, 192, 2, 0, 66))
        target = str(address), 4500
        with peer_socket(family) as peer, peer_socket(family) as other:
            port = peer.getsockname()[1]
            peer.sendto(b"\xff", target)
            forged = bytearray(sender.seal(packet, 4))
            forged[-1] ^= 1
            late = sender.seal(packet, 4)
            peer.sendto(forged, target)
            for _ in range(3):
                peer.sendto(sender.seal(packet, 4), target)
            await until(lambda: len(events) >= 1)
            assert (await datapath.usage())[key].packets == 3
            encapsulation = UdpEncapsulation(port, 4500)
            assert await datapath.move(key, address, address, encapsulation) == key
            used = (await datapath.usage())[key]
            assert used.last_used is not None
            await asyncio.sleep(1.1)
            other.sendto(b"\xff", target)
            other.sendto(late, target)  # delayed: it moves nobody back
            peer.sendto(sender.seal(packet, 4), target)
            for _ in range(100):
                if (await datapath.usage())[key].packets == used.packets + 2:
                    break
                await asyncio.sleep(0.05)
            assert (await datapath.usage())[key].packets == used.packets + 2
            assert events == [PeerAddressChanged(key, address, port)]
            # A keepalive proves nothing (RFC 3948 section 4).
            used = (await datapath.usage())[key]
            peer.sendto(b"\xff", target)
            await asyncio.sleep(0.2)
            assert (await datapath.usage())[key] == used

    on(play)


def test_memory_plays_what_a_network_would_say() -> None:
    async def play(datapath: Datapath, events: list[DatapathEvent]) -> None:
        assert isinstance(datapath, MemoryDatapath)
        sa = make_sa(soft_bytes=100, hard_bytes=150)
        await datapath.install(make_sa(spi=0x2000))
        await datapath.install(sa)
        here, there = sa.source, sa.destination
        datapath.send_keying(bytes(8), here, there, 4500)
        assert datapath.keying_sent == [(bytes(8), here, there, 4500)]
        said = [
            KeyingDatagram(bytes(8), here, there, 4500),
            PeerAddressChanged(arriving(sa).key, ELSEWHERE, 61000),
        ]
        for event in said:
            datapath.report(event)
        assert events == said
        events.clear()
        first = make_sa(spi=0x2000).key
        await datapath.move(first, here, ELSEWHERE, None)
        assert [key.spi for key in datapath.installed] == [0x2000, 0x1000]  # no younger
        for now in (1.0, 2.0, 3.0):
            datapath.carry(sa.key, 60, now)
        assert events == [SaExpired(sa.key, hard=False), SaExpired(sa.key, hard=True)]
        assert (await datapath.usage())[sa.key] == Usage(2, 120, 2.0)
        assert (await datapath.counters())["drop_out_expired"] == 1

    on_memory(play)


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
        assert all(report.pid is None for report in second.workers())
        await first.install(make_sa())
        await first.close()
        assert all(report.pid is None for report in first.workers())

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
