"""The same in asyncio: `oegw.moniker.aio`."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from oegw.moniker import aio
from oegw.moniker.library.errors import (
    DaemonAbsent,
    HostUnreachable,
    NotOfThisKind,
    ServiceUnknown,
    TooSlow,
)
from oegw.moniker.registry import RegistrationRefused

HERE = "127.0.0.1"


async def echo(service: aio.AsyncService) -> None:
    async for session in service:
        async with session:
            while octets := await session.recv(4096):
                await session.send(octets)


def with_service(
    host: Any, body: Callable[[aio.AsyncService], Awaitable[None]], **options: Any
) -> None:
    """``body`` beside a service that sends back what it gets."""

    async def run() -> None:
        async with aio.serve("starwars", daemon=host.daemon, **options) as service:
            task = asyncio.create_task(echo(service))
            await body(service)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    asyncio.run(run())
    assert host.registered() == []


@pytest.mark.parametrize("transport", ["tcp", "mptcp"])
def test_a_client_reaches_a_service(host: Any, transport: str) -> None:
    async def body(service: aio.AsyncService) -> None:
        assert service.registered
        uri = f"starwars://localhost:{host.port}/film"
        async with aio.connect(uri, daemon=host.daemon) as session:
            await session.send(b"x" * 100_000)
            assert await session.recv_exactly(100_000) == b"x" * 100_000
            assert session.path == "/film"
            assert session.reveal_port() == service.reveal_port()
            session.finish()
            assert await session.recv(1) == b""
            for each in (service, session):
                assert str(service.reveal_port()) not in repr(each)
            with pytest.raises(EOFError):
                await session.recv_exactly(1)

    with_service(host, body, transport=transport)


def test_awaited_instead_of_entered_and_streams_of_asyncio(host: Any) -> None:
    async def body(service: aio.AsyncService) -> None:
        session = await aio.connect(HERE, "starwars", question_port=host.port, daemon=host.daemon)
        reader, writer = await session.streams()
        writer.write(b"hello\n")
        assert await reader.readline() == b"hello\n"
        writer.close()
        await writer.wait_closed()
        found = await aio.resolve(HERE, "starwars", question_port=host.port, daemon=host.daemon)
        assert found.port == service.reveal_port()

    with_service(host, body)


def test_many_clients_at_once(host: Any) -> None:
    async def one(number: int) -> None:
        async with aio.connect(
            HERE, "starwars", question_port=host.port, daemon=host.daemon
        ) as session:
            octets = str(number).encode()
            await session.send(octets)
            assert await session.recv_exactly(len(octets)) == octets

    async def body(service: aio.AsyncService) -> None:
        await asyncio.gather(*map(one, range(30)))

    with_service(host, body)


def test_many_questions_at_once(host: Any) -> None:
    """Nothing is remembered yet, so each asks; the far daemon has room for as many of one host."""

    async def body(service: aio.AsyncService) -> None:
        async def one() -> int:
            return (await aio.resolve(HERE, "starwars", question_port=host.port)).ttl

        assert set(await asyncio.gather(*(one() for _ in range(200)))) == {60}

    with_service(host, body)


def test_datagrams(host: Any) -> None:
    async def run() -> None:
        async with aio.serve("starwars", transport="udp", daemon=host.daemon) as service:
            async with aio.connect(
                HERE, "starwars", transport="udp", question_port=host.port, daemon=host.daemon
            ) as session:
                receiving = asyncio.create_task(service.receive())
                await asyncio.sleep(0)
                await session.send(b"hello")
                octets, sender = await receiving
                assert await service.answer(octets[::-1], sender) == 5
                assert await session.recv(100) == b"olleh"
                await session.send(b"")
                assert (await service.receive())[0] == b""
            with pytest.raises(NotOfThisKind):
                await service.accept()

    asyncio.run(run())


def test_what_the_daemon_hands_over(host: Any) -> None:
    async def body(service: aio.AsyncService) -> None:
        reader, writer = await asyncio.open_connection(HERE, host.port)
        writer.write(b"starwars\r\n")
        assert (await reader.readline())[:1] == b"+"
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        writer.close()
        await writer.wait_closed()

    with_service(host, body, tcpmux=True)


def test_a_server_that_knows_tcpmux_only(host: Any) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        writer.write(b"+Go\r\nhello" if line == b"starwars\r\n" else b"-no\r\n")
        await writer.drain()
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(serve, HERE, 0)
        port = server.sockets[0].getsockname()[1]
        async with aio.connect(HERE, "starwars", question_port=port, daemon=host.daemon) as session:
            assert await session.recv_exactly(5) == b"hello"
        with pytest.raises(ServiceUnknown, match="trek: no"):
            await aio.connect(HERE, "trek", question_port=port, daemon=host.daemon)
        server.close()
        await server.wait_closed()

    asyncio.run(run())


def test_changes(host: Any) -> None:
    async def body(service: aio.AsyncService) -> None:
        await service.update(weight=9)
        (entry,) = host._daemon.registry.entries()
        assert entry.service.weight == 9
        with pytest.raises(RegistrationRefused):
            await service.update(weight=0)

    with_service(host, body)


def test_errors_are_the_same_and_have_no_port(host: Any) -> None:
    async def run() -> None:
        with pytest.raises(ServiceUnknown):
            await aio.connect(HERE, "starwars", question_port=host.port, daemon=host.daemon)
        with pytest.raises(HostUnreachable, match="has no address"):
            await aio.connect("no-such-host.invalid", "starwars", daemon=host.daemon)
        with pytest.raises(RegistrationRefused):
            await aio.serve("starwars", weight=0, daemon=host.daemon)
        with socket.socket() as bound:
            bound.bind((HERE, 0))
            port = bound.getsockname()[1]
            with pytest.raises(HostUnreachable) as caught:
                await aio.connect(HERE, "starwars", question_port=port, daemon=host.daemon)
            assert str(port) not in str(caught.value)

    asyncio.run(run())
    host.stop()
    with pytest.raises(DaemonAbsent):
        asyncio.run(absent(host))


async def absent(host: Any) -> None:
    await aio.serve("starwars", daemon=host.daemon, patience=0)


def test_who_says_nothing_is_not_waited_for_longer_than_wanted(host: Any) -> None:
    async def run() -> None:
        with socket.create_server((HERE, 0)) as silent:
            port = silent.getsockname()[1]
            with pytest.raises(TooSlow, match=r"no answer within 0.05 s"):
                await aio.connect(
                    HERE, "starwars", question_port=port, timeout=0.05, daemon=host.daemon
                )

    asyncio.run(run())


def test_a_registration_that_is_cancelled_leaves_nothing(host: Any) -> None:
    async def run() -> None:
        task = asyncio.create_task(absent(host))
        await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    asyncio.run(run())
    with_service(host, nothing)


@pytest.mark.parametrize("options", [{}, {"tcpmux": True}])
def test_who_waits_for_clients_waits_no_longer_when_it_is_closed(
    host: Any, options: dict[str, Any]
) -> None:
    async def run() -> None:
        service = await aio.serve("starwars", daemon=host.daemon, **options)
        task = asyncio.create_task(echo(service))
        async with aio.connect(HERE, "starwars", question_port=host.port) as session:
            await session.send(b"hello")
            assert await session.recv_exactly(5) == b"hello"
        await asyncio.sleep(0.05)
        await service.close()
        await asyncio.wait_for(task, 5)
        with pytest.raises(OSError, match="starwars@1: the service is closed"):
            await service.accept()

    asyncio.run(run())


def test_who_does_not_wait_until_it_is_closed_has_closed_it(host: Any) -> None:
    async def run() -> None:
        service = await aio.serve("starwars", daemon=host.daemon)
        port = service.reveal_port()
        closing = asyncio.create_task(service.close())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(HERE, port)

    asyncio.run(run())


async def nothing(service: aio.AsyncService) -> None:
    pass
