"""The relay with real sockets on loopback: what goes in on one side comes out on the other."""

from __future__ import annotations

import asyncio
import os
import random
import select
import socket
import struct
import threading
import tracemalloc
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from oegw.socks5.interface import Relayed, Transferred
from oegw.socks5.relay import ProcessRelay, mover, pipes
from oegw.socks5.relay.channel import MOST_EARLY
from tests.support.socks_relay import Children

LONG = 30.0  # seconds until a test has waited in vain
SMALL, TINY = 100_000, 4_000  # buffers of sockets, in octets


def connected() -> tuple[socket.socket, socket.socket]:
    """Both ends of a TCP connection, non-blocking."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        one = socket.create_connection(listening.getsockname())
        other, _ = listening.accept()
    one.setblocking(False)
    other.setblocking(False)
    return one, other


@dataclass
class Through:
    """A client and a destination with the relay between them."""

    client: socket.socket
    destination: socket.socket
    relayed: Relayed
    told: list[Transferred] = field(default_factory=list)
    by: list[int] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def ended(self) -> Transferred:
        await asyncio.wait_for(self.over.wait(), LONG)
        return self.told[0]


@asynccontextmanager
async def relay(
    processes: int = 0, threads: int = 0, pipes: int | None = None
) -> AsyncIterator[Callable[..., Through]]:
    """The relay, as a function that makes connections through it.  ``threads``: instead of
    processes, and each with so many ``pipes``."""
    children = Children(pipes)
    splicing = (
        ProcessRelay(processes) if processes else ProcessRelay(threads, begin_child=children.begin)
    )
    made: list[Through] = []

    def through(early: bytes = b"", idle: float = 0.0, buffers: int = 0) -> Through:
        client, ours = connected()
        theirs, destination = connected()
        if buffers:  # so that little is under way
            shorten(buffers, client, ours, theirs, destination)
        end: list[Through] = []

        def ended(transferred: Transferred) -> None:
            end[0].told.append(transferred)
            end[0].by.append(threading.get_ident())
            end[0].over.set()

        end.append(Through(client, destination, splicing.begin(ours, theirs, early, idle, ended)))
        made.extend(end)
        return end[0]

    through.relay = splicing  # type: ignore[attr-defined]
    through.children = children  # type: ignore[attr-defined]
    try:
        yield through
    finally:
        splicing.close()
        for each in made:
            each.client.close()
            each.destination.close()


def relayed(test: Callable[..., Coroutine[Any, Any, None]], **words: int) -> None:
    async def body() -> None:
        async with relay(**words) as through:
            await test(through)

    asyncio.run(asyncio.wait_for(body(), LONG))


async def read(sock: socket.socket, count: int = -1) -> bytes:
    """So many octets, or all until the end."""
    loop = asyncio.get_running_loop()
    got = bytearray()
    while count < 0 or len(got) < count:
        octets = await loop.sock_recv(sock, 1 << 20)
        if not octets:
            break
        got += octets
    return bytes(got)


async def send(sock: socket.socket, octets: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(sock, octets)


def shorten(buffers: int, *socks: socket.socket) -> None:
    for sock in socks:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


async def until(condition: Callable[[], Any]) -> None:
    while not condition():
        await asyncio.sleep(0.002)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("words", [{}, {"pipes": 0}, {"threads": 3}, {"processes": 2}], ids=str)
def test_octets_come_out_as_they_went_in_both_ways_at_once(words: dict[str, int]) -> None:
    there, back = random.Random(1).randbytes(5_000_000), random.Random(2).randbytes(3_000_000)

    async def test(through: Callable[..., Through]) -> None:
        each = through()
        got = asyncio.gather(read(each.destination), read(each.client))

        async def say(sock: socket.socket, octets: bytes) -> None:
            await send(sock, octets)
            sock.shutdown(socket.SHUT_WR)

        await asyncio.gather(say(each.client, there), say(each.destination, back))
        assert await got == [there, back]
        assert await each.ended() == Transferred(len(there), len(back), "ended")
        if "processes" not in words:
            copied = through.children.copied()  # type: ignore[attr-defined]
            assert (copied > 0) == ("pipes" in words)

    relayed(test, **words)


def test_early_octets_go_first() -> None:
    """SK-9: optimistic data, come behind the request."""

    async def test(through: Callable[..., Through]) -> None:
        early = random.Random(3).randbytes(MOST_EARLY)
        one, other = connected()
        with one, other:  # it is more than such sockets take at once
            shorten(TINY, one, other)
            assert 0 < one.send(early) < len(early)
        each = through(early, buffers=TINY)
        await send(each.client, b"and then")
        assert await read(each.destination, len(early) + 8) == early + b"and then"
        each.client.close()
        each.destination.close()
        assert (await each.ended()).to_destination == len(early) + 8

    relayed(test)


@pytest.mark.parametrize("first", ["client", "destination"])
def test_half_a_connection_goes_on(first: str) -> None:
    async def test(through: Callable[..., Through]) -> None:
        each = through()
        one, other = each.client, each.destination
        if first == "destination":
            one, other = other, one
        await send(one, b"question")
        one.shutdown(socket.SHUT_WR)
        assert await read(other) == b"question"
        assert not each.told
        await send(other, b"answer" * 100_000) if first == "client" else await send(other, b"a")
        got = await read(one, 600_000 if first == "client" else 1)
        assert got[:1] == b"a"
        other.close()
        assert (await each.ended()).reason == "ended"

    relayed(test)


@pytest.mark.parametrize("half_closed", [False, True])
@pytest.mark.parametrize("who", ["client", "destination"])
def test_a_reset_is_passed_on(who: str, half_closed: bool) -> None:
    """Also if the one that resets had nothing more to say: nothing is read from it any more."""

    async def test(through: Callable[..., Through]) -> None:
        each = through()
        one, other = each.client, each.destination
        if who == "destination":
            one, other = other, one
        await send(one, b"begun")
        assert await read(other, 5) == b"begun"
        if half_closed:
            one.shutdown(socket.SHUT_WR)
            assert await read(other) == b""
        reset(one)
        assert (await each.ended()).reason == "reset"
        with pytest.raises(BrokenPipeError if half_closed else ConnectionResetError):
            await (send(other, b"x") if half_closed else read(other, 1))

    relayed(test)


def test_what_was_said_before_a_reset_is_delivered() -> None:
    """A server that answers and closes without having read all resets, and was right."""

    async def test(through: Callable[..., Through]) -> None:
        each = through()
        await send(each.client, b"more than it reads")
        await until(lambda: select.select([each.destination], [], [], 0)[0])
        await send(each.destination, b"413 too large")
        each.destination.close()  # with unread octets
        assert await read(each.client, 13) == b"413 too large"
        with pytest.raises(ConnectionResetError):
            await read(each.client)
        assert await each.ended() == Transferred(18, 13, "reset")

    relayed(test)


def test_who_reads_slowly_slows_the_sender_down() -> None:
    async def test(through: Callable[..., Through]) -> None:
        slow, quick = through(buffers=SMALL), through()
        sent = 0
        octets = random.Random(4).randbytes(1 << 20)
        for _ in range(50):  # until nothing more is taken for a while
            try:
                sent += slow.client.send(octets[sent % len(octets) :])
            except BlockingIOError:
                await asyncio.sleep(0.002)
        assert sent < 8 << 20
        await send(quick.client, b"not affected")
        assert await read(quick.destination, 12) == b"not affected"
        slow.client.shutdown(socket.SHUT_WR)
        got = await read(slow.destination)
        assert got == (octets * (sent // len(octets) + 1))[:sent]

    relayed(test, threads=1)


def test_a_little_one_has_its_turn_beside_much() -> None:
    async def test(through: Callable[..., Through]) -> None:
        much, little = through(), through()
        octets = bytes(1 << 20)

        async def pour() -> None:
            while True:
                await send(much.client, octets)

        poured = [asyncio.create_task(pour()), asyncio.create_task(read(much.destination))]
        for _ in range(100):
            await send(little.client, b"ping")
            assert await read(little.destination, 4) == b"ping"
        for task in poured:
            task.cancel()

    relayed(test, threads=1)


def test_idle_ones_end_and_busy_ones_do_not() -> None:
    async def test(through: Callable[..., Through]) -> None:
        busy, idle = through(idle=2.0), through(idle=0.05)
        for _ in range(30):
            await send(busy.client, b"x")
            assert await read(busy.destination, 1) == b"x"
            await asyncio.sleep(0.002)
        assert (await idle.ended()).reason == "idle"
        assert not busy.told
        assert (await busy.ended()).reason == "idle"

    relayed(test)


def test_it_can_be_closed_by_us() -> None:
    async def test(through: Callable[..., Through]) -> None:
        each, other = through(), through()
        each.relayed.close()
        each.relayed.close()
        assert (await each.ended()).reason == "closed"
        with pytest.raises(ConnectionResetError):
            await read(each.client)
        await send(other.client, b"goes on")
        assert await read(other.destination, 7) == b"goes on"
        through.relay.close()  # type: ignore[attr-defined]
        assert [one.reason for one in other.told] == ["closed"]
        assert len(each.told) == 1
        late = through()  # a conversation that was under way
        assert (await late.ended()).reason == "closed"

    before = {thread.name for thread in threading.enumerate()}
    relayed(test)
    assert {thread.name for thread in threading.enumerate()} <= before


def test_the_end_is_told_once_and_by_the_event_loop() -> None:
    async def test(through: Callable[..., Through]) -> None:
        many = [through() for _ in range(50)]
        for each in many:
            each.client.close()
            each.destination.close()
        for each in many:
            await each.ended()
        await asyncio.sleep(0.01)
        assert all(each.by == [threading.get_ident()] for each in many)

    relayed(test, threads=3)


def test_idle_connections_have_their_sockets_only() -> None:
    """Two descriptors each, whatever they have moved before."""

    async def test(through: Callable[..., Through]) -> None:
        many = [through() for _ in range(2)]
        for each in many:
            sending = asyncio.create_task(send(each.client, bytes(2_000_000)))
            await read(each.destination, 2_000_000)
            await sending
        children = through.children  # type: ignore[attr-defined]
        await until(lambda: children.pipes() == 0)
        before = descriptors()
        many += [through() for _ in range(20)]
        for each in many:
            await send(each.client, b"x")
            assert await read(each.destination, 1) == b"x"
        assert descriptors() == before + 20 * 4  # two are the test's own
        for each in many:
            each.client.close()
            each.destination.close()
            await each.ended()
        assert descriptors() == before - 2 * 4

    relayed(test)


def test_an_idle_connection_costs_little_memory() -> None:
    """10,000 are to have less than 500 MB; of that the relay takes a small part, here and in the
    process that has it."""

    async def test(through: Callable[..., Through]) -> None:
        splicing = through.relay  # type: ignore[attr-defined]
        sockets = [(connected(), connected()) for _ in range(50)]
        ended: list[Transferred] = []
        tracemalloc.start()
        try:
            for (_, ours), (theirs, _) in sockets:
                splicing.begin(ours, theirs, b"", 60.0, ended.append)
            (client, _), (_, destination) = sockets[-1]
            client.send(b"x")
            assert await read(destination, 1) == b"x"  # all have come to the child
            taken, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert taken / len(sockets) < 5_000
        for (client, _), (_, destination) in sockets:
            client.close()
            destination.close()
        await until(lambda: len(ended) == len(sockets))

    relayed(test, threads=1)


def test_pipes_with_octets_that_nobody_wants_are_closed() -> None:
    """They would come out of another connection."""

    async def test(through: Callable[..., Through]) -> None:
        children = through.children  # type: ignore[attr-defined]
        stuck = through(buffers=SMALL)
        octets = bytes([1]) * (1 << 20)
        while not children.pipes():
            try:
                stuck.client.send(octets)
            except BlockingIOError:
                await asyncio.sleep(0.001)
        stuck.relayed.close()
        await stuck.ended()
        assert children.pipes() == 0
        other = through()
        sending = asyncio.create_task(send(other.client, bytes(1 << 20)))
        assert await read(other.destination, 1 << 20) == bytes(1 << 20)
        await sending

    relayed(test, threads=1)


def test_without_descriptors_for_pipes_octets_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(flags: int) -> tuple[int, int]:
        raise OSError(24, os.strerror(24))

    octets = random.Random(5).randbytes(2_000_000)

    async def test(through: Callable[..., Through]) -> None:
        monkeypatch.setattr(pipes.os, "pipe2", none_left)
        each = through()
        sending = asyncio.create_task(send(each.client, octets))
        assert await read(each.destination, len(octets)) == octets
        await sending

    relayed(test)


def test_a_dead_socket_is_taken_and_told() -> None:
    """And is nothing to those that begin at the same time."""

    async def test(through: Callable[..., Through]) -> None:
        splicing = through.relay  # type: ignore[attr-defined]
        client, ours = connected()
        theirs, destination = connected()
        theirs.detach()
        over = asyncio.Event()
        told: list[Transferred] = []

        def ended(transferred: Transferred) -> None:
            told.append(transferred)
            over.set()

        other = through()  # these go to the child together
        splicing.begin(ours, theirs, b"", 0.0, ended)
        await asyncio.wait_for(over.wait(), LONG)
        assert told[0].reason == "closed"
        assert ours.fileno() == -1
        await send(other.client, b"goes on")
        assert await read(other.destination, 7) == b"goes on"
        client.close()
        destination.close()

    relayed(test, threads=1)


def test_what_the_kernel_does_not_watch_is_taken_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many descriptors as a user may have watched are watched already, for instance."""

    async def test(through: Callable[..., Through]) -> None:
        first = through(b"x")
        assert await read(first.destination, 1) == b"x"
        before = descriptors()
        with monkeypatch.context() as patched:
            refused = mover.WANTED | select.EPOLLEXCLUSIVE  # not together with EPOLLRDHUP
            patched.setattr(mover, "WANTED", refused)
            each = through()
            assert await each.ended() == Transferred(0, 0, "closed")
        with pytest.raises(ConnectionResetError):
            await read(each.client)
        assert descriptors() == before + 2  # the test's own
        await send(first.client, b"goes on")
        assert await read(first.destination, 7) == b"goes on"

    relayed(test, threads=1)


@pytest.mark.parametrize("words", [{"threads": 2, "pipes": 2}, {"processes": 2}], ids=str)
def test_chance_does_not_find_a_lost_octet(words: dict[str, int]) -> None:
    """Pieces of any size, pauses, halves that end at any time."""
    chance = random.Random(6)

    async def say(sock: socket.socket, octets: bytes) -> None:
        at = 0
        while at < len(octets):
            step = chance.choice((1, 100, 5_000, 16_384, 40_000, 300_000))
            await send(sock, octets[at : at + step])
            at += step
            if chance.random() < 0.1:
                await asyncio.sleep(0)
        sock.shutdown(socket.SHUT_WR)

    async def test(through: Callable[..., Through]) -> None:
        async def one() -> None:
            there = chance.randbytes(chance.choice((0, 3, 20_000, 700_000)))
            back = chance.randbytes(chance.choice((0, 3, 20_000, 700_000)))
            early = chance.randbytes(chance.choice((0, 10, 60_000)))
            each = through(early, buffers=SMALL if chance.random() < 0.3 else 0)
            *_, got_there, got_back = await asyncio.gather(
                say(each.client, there),
                say(each.destination, back),
                read(each.destination),
                read(each.client),
            )
            assert got_there == early + there
            assert got_back == back
            ended = await each.ended()
            assert ended == Transferred(len(early) + len(there), len(back), "ended")

        for _ in range(6):
            await asyncio.gather(*(one() for _ in range(6)))

    relayed(test, **words)
