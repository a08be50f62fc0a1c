"""What else may answer at port 1, and for how long it is listened to; in both ways of asking."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from oegw import moniker
from oegw.moniker import MonikerError, aio
from oegw.moniker.library import waiting
from oegw.moniker.library.errors import AnswerUnusable, HostUnreachable, ServiceUnknown, TooSlow
from oegw.moniker.library.finding import Place

HERE = "127.0.0.1"
Say = Callable[[socket.socket], None]


@contextmanager
def answering(say: Say) -> Iterator[int]:
    """A server that reads a line and does ``say``, for each who comes."""

    def serve() -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            with client, suppress(OSError):
                client.settimeout(5)
                client.makefile("rb").readline()
                say(client)

    with socket.create_server((HERE, 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def silent(client: socket.socket) -> None:
    client.recv(1)  # until it gives up


def gone(client: socket.socket) -> None:
    pass


def drop_by_drop(client: socket.socket) -> None:
    for _ in range(100):
        client.sendall(b"M")
        time.sleep(0.02)


def without_end(client: socket.socket) -> None:
    for _ in range(1000):
        client.sendall(b"x" * 4096)


def saying(octets: bytes) -> Say:
    return lambda client: client.sendall(octets)


def waited(port: int, host: Any, far: str = HERE) -> None:
    moniker.connect(far, "starwars", question_port=port, daemon=host.daemon, timeout=0.3).close()


def awaited(port: int, host: Any, far: str = HERE) -> None:
    async def run() -> None:
        await aio.connect(far, "starwars", question_port=port, daemon=host.daemon, timeout=0.3)

    asyncio.run(run())


@pytest.mark.parametrize("connect", [waited, awaited])
@pytest.mark.parametrize(
    ("say", "error"),
    [
        (silent, TooSlow),
        (drop_by_drop, TooSlow),
        (gone, AnswerUnusable),
        (without_end, AnswerUnusable),
        (saying(b"\xff\xfe\r\n"), AnswerUnusable),
        (saying(b"\r\n"), AnswerUnusable),
        (saying(b"220 ready\r\n"), AnswerUnusable),
        (saying(b"MON/1 + x\r\n"), AnswerUnusable),
        (saying(b"MON/2 ?\r\n"), AnswerUnusable),
        (saying(b"MON/1 + 00000000000000000000000000000000 22 tcp 1 46 60\r\n"), AnswerUnusable),
        (saying(b"-"), ServiceUnknown),
    ],
)
def test_each_stranger_is_a_typed_error(
    host: Any, say: Say, error: type[MonikerError], connect: Any
) -> None:
    began = time.monotonic()
    with answering(say) as port, pytest.raises(error) as caught:
        connect(port, host)
    assert time.monotonic() - began < 10  # 0.3 s are given; the rest is the machine's
    assert str(port) not in str(caught.value)


def test_what_getaddrinfo_gives() -> None:
    found = [
        (socket.AF_INET6, 1, 6, "", ("fe80::1%eth0", 0, 0, 7)),
        (socket.AF_INET, 1, 6, "", ("192.0.2.1", 0)),
        (socket.AF_INET, 1, 6, "", ("192.0.2.1", 0)),
        (socket.AF_UNIX, 1, 0, "", "/x"),
    ]
    places = waiting.places_of("b", found)
    assert [waiting.address_of(each, 9) for each in places] == [
        ("fe80::1", 9, 0, 7),
        ("192.0.2.1", 9),
    ]
    assert isinstance(places[0], Place)
    with pytest.raises(HostUnreachable, match="b: has no address"):
        waiting.places_of("b", [])


@pytest.mark.parametrize("connect", [waited, awaited])
@pytest.mark.parametrize("far", ["", "\0", "x" * 300, "a..b", "ü" * 70, "-"])
def test_what_is_no_name_of_a_host(host: Any, far: str, connect: Any) -> None:
    with pytest.raises(moniker.MonikerError):
        connect(1, host, far)
