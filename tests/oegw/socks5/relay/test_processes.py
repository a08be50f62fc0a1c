"""What is particular to relaying in processes of their own."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import signal
import socket
import subprocess
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from oegw.socks5.interface import Relayed, Transferred
from oegw.socks5.relay import ProcessRelay
from oegw.socks5.relay.channel import (
    Begin,
    ChannelError,
    Close,
    parse,
    parse_ended,
    serialize_begins,
    serialize_close,
    serialize_ended,
)

LONG = 30.0


class Pairs:
    """Connections through a relay; what was told of them."""

    def __init__(self, relay: ProcessRelay) -> None:
        self.relay = relay
        self.told: list[Transferred] = []
        self._sockets: list[socket.socket] = []

    def begin(
        self, early: bytes = b"", idle: float = 0.0
    ) -> tuple[socket.socket, socket.socket, Relayed]:
        client, ours = _connected()
        theirs, destination = _connected()
        self._sockets += (client, destination)
        return client, destination, self.relay.begin(ours, theirs, early, idle, self.told.append)

    async def until_told(self, count: int) -> None:
        while len(self.told) < count:
            await asyncio.sleep(0.002)

    def close(self) -> None:
        self.relay.close()
        for sock in self._sockets:
            sock.close()


def _connected() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        one = socket.create_connection(listening.getsockname())
        other, _ = listening.accept()
    one.setblocking(False)
    other.setblocking(False)
    return one, other


def with_pairs(test: Callable[[Pairs], Coroutine[Any, Any, None]]) -> None:
    async def body() -> None:
        pairs = Pairs(ProcessRelay(1))
        try:
            await asyncio.wait_for(test(pairs), LONG)
        finally:
            pairs.close()

    asyncio.run(body())


async def read(sock: socket.socket, count: int) -> bytes:
    got = b""
    while len(got) < count:
        octets = await asyncio.get_running_loop().sock_recv(sock, count)
        if not octets:
            break
        got += octets
    return got


def test_early_octets_an_end_idle_and_close_go_through_the_channel() -> None:
    async def test(pairs: Pairs) -> None:
        client, destination, _ = pairs.begin(b"early")
        assert await read(destination, 5) == b"early"
        client.close()
        destination.close()
        await pairs.until_told(1)
        pairs.begin(idle=0.01)
        await pairs.until_told(2)
        client, _, relayed = pairs.begin()
        relayed.close()
        relayed.close()
        await pairs.until_told(3)
        with pytest.raises(ConnectionResetError):
            await read(client, 1)
        assert [(each.to_destination, each.reason) for each in pairs.told] == [
            (5, "ended"),
            (0, "idle"),
            (0, "closed"),
        ]

    with_pairs(test)


def test_who_closes_it_ends_all_and_the_processes() -> None:
    async def test(pairs: Pairs) -> None:
        _, destination, _ = pairs.begin(b"x")
        for _ in range(50):
            pairs.begin()
        assert await read(destination, 1) == b"x"
        pid = pairs.relay.pids[0]
        pairs.relay.close()
        assert len(pairs.told) == 51
        assert pairs.told[0] == Transferred(1, 0, "closed")
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        pairs.begin()
        await pairs.until_told(52)
        assert pairs.relay.pids == []

    with_pairs(test)


def test_a_process_that_dies_takes_its_own_connections_only() -> None:
    """The next connection has a new one."""

    async def test(pairs: Pairs) -> None:
        _, destination, _ = pairs.begin(b"x")
        assert await read(destination, 1) == b"x"
        os.kill(pairs.relay.pids[0], signal.SIGKILL)
        await pairs.until_told(1)
        assert pairs.told == [Transferred(0, 0, "closed")]
        _, destination, _ = pairs.begin(b"again")
        assert await read(destination, 5) == b"again"
        assert len(pairs.told) == 1

    with_pairs(test)


def test_a_process_that_stands_still_holds_up_nobody() -> None:
    """What it does not take waits for it, and the server does not."""

    async def test(pairs: Pairs) -> None:
        _, destination, _ = pairs.begin(b"x")
        assert await read(destination, 1) == b"x"
        (pid,) = pairs.relay.pids
        os.kill(pid, signal.SIGSTOP)
        try:
            begun = [pairs.begin(bytes(16384)) for _ in range(60)]
            await asyncio.sleep(0.05)
        finally:
            os.kill(pid, signal.SIGCONT)
        for _, destination, _ in begun:
            assert await read(destination, 16384) == bytes(16384)

    with_pairs(test)


def test_half_a_file_does_not_look_whole_if_a_process_is_killed() -> None:
    async def test(pairs: Pairs) -> None:
        client, destination, _ = pairs.begin(b"x")
        assert await read(destination, 1) == b"x"
        destination.send(b"half")
        assert await read(client, 4) == b"half"
        client.shutdown(socket.SHUT_WR)
        assert await read(destination, 1) == b""
        os.kill(pairs.relay.pids[0], signal.SIGKILL)
        with pytest.raises(ConnectionResetError):
            await read(client, 1)

    with_pairs(test)


def test_no_process_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told as any other end, and the next connection tries again."""

    async def test(pairs: Pairs) -> None:
        _, destination, _ = pairs.begin(b"x")
        assert await read(destination, 1) == b"x"
        os.kill(pairs.relay.pids[0], signal.SIGKILL)
        await pairs.until_told(1)

        def none_left(*_: Any, **__: Any) -> None:
            raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

        with monkeypatch.context() as patched:
            patched.setattr(subprocess, "Popen", none_left)
            client, _, _ = pairs.begin()
            await pairs.until_told(2)
            with pytest.raises(ConnectionResetError):
                await read(client, 1)
        _, destination, _ = pairs.begin(b"again")
        assert await read(destination, 5) == b"again"

    with_pairs(test)


def test_all_are_full_and_no_other_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (86, 86))

    async def test(pairs: Pairs) -> None:
        pairs.begin()

        def none_left(*_: Any, **__: Any) -> None:
            raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

        monkeypatch.setattr(subprocess, "Popen", none_left)
        _, destination, _ = pairs.begin(b"x")
        assert await read(destination, 1) == b"x"

    with_pairs(test)


def test_signals_of_the_terminal_are_the_servers() -> None:
    async def test(pairs: Pairs) -> None:
        _, destination, _ = pairs.begin(b"x")
        assert await read(destination, 1) == b"x"  # it has started
        for number in (signal.SIGINT, signal.SIGHUP):
            os.kill(pairs.relay.pids[0], number)
        _, destination, _ = pairs.begin(b"y")
        assert await read(destination, 1) == b"y"
        assert not pairs.told

    with_pairs(test)


def test_when_all_are_full_there_is_one_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has descriptors of its own."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (86, 86))  # 20 for pipes, 64 spare

    async def test(pairs: Pairs) -> None:
        for count in range(1, 5):
            pairs.begin(b"early" * (count % 2))
            assert len(pairs.relay.pids) == count
        assert not pairs.told

    with_pairs(test)


def test_what_is_too_much_for_a_message_is_told() -> None:
    async def test(pairs: Pairs) -> None:
        pairs.begin(bytes(150_000))
        await pairs.until_told(1)
        assert pairs.told[0].reason == "closed"
        _, destination, _ = pairs.begin(b"x")
        assert await read(destination, 1) == b"x"

    with_pairs(test)


def test_messages_are_read_as_they_were_written() -> None:
    for begins in ([Begin(2**40, 0.5, b"early")], [Begin(1, 0.0), Begin(2, 60.0), Begin(3, 0.5)]):
        assert parse(serialize_begins(begins)) == begins
    assert parse(serialize_close(Close(7))) == Close(7)
    ended = [(3, Transferred(2**50, 1, "reset")), (4, Transferred(0, 0, "ended"))]
    assert parse_ended(serialize_ended(ended)) == ended


@pytest.mark.parametrize(
    "octets", [b"", b"?", b"B123", b"M123", b"C", serialize_close(Close(1)) + b"x"]
)
def test_other_messages_are_refused(octets: bytes) -> None:
    with pytest.raises(ChannelError):
        parse(octets)


@pytest.mark.parametrize("octets", [b"1", bytes(24) + b"\xff"])
def test_other_reports_are_refused(octets: bytes) -> None:
    with pytest.raises(ChannelError):
        parse_ended(octets)
