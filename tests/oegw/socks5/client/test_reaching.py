"""A server with several addresses, of which some don't answer (RFC 8305)."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

import pytest

from oegw import socks5
from oegw.socks5 import Proxy
from oegw.socks5.client import reaching
from tests.support.socks_script import Heard, Said, scripted
from tests.support.socks_shells import SECONDS, Begin, awaiting, got, waiting

DONE = Said("05 00 00 01 c0 01 01 04 9c 40")
EXCHANGE = (Heard("05 01 00"), Said("05 00"), Heard("05 01 00 01 c0 02 00 42 00 50"), DONE)


@pytest.fixture(params=[waiting, awaiting], ids=["waiting", "asyncio"])
def begin(request: pytest.FixtureRequest) -> Begin:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def silent() -> Any:
    """A place where connections are neither taken nor refused: its queue is full."""
    with socket.socket() as server:
        server.bind(("127.0.0.2", 0))
        server.listen(0)
        with socket.create_connection(server.getsockname()):
            yield server.getsockname()


def found(*places: tuple[str, int]) -> list[Any]:
    """As getaddrinfo tells them."""
    return [
        (
            socket.AF_INET6 if ":" in host else socket.AF_INET,
            socket.SOCK_STREAM,
            6,
            "",
            (host, port),
        )
        for host, port in places
    ]


def connects(begin: Begin, port: int, seconds: float = SECONDS) -> float:
    """Seconds until a server is reached and has connected us."""

    async def body() -> None:
        conversation = await begin(Proxy("gateway", port), seconds)
        (await got(conversation.connect("192.2.0.66", 80))).socket.close()

    began = time.monotonic()
    asyncio.run(body())
    return time.monotonic() - began


def test_an_address_that_refuses_costs_no_time(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    with scripted(*EXCHANGE) as script:
        places = found(("::1", script.port), ("127.0.0.3", script.port), ("127.0.0.1", script.port))
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: places)
        connects(begin, script.port)


def test_an_address_that_is_silent_costs_a_quarter_of_a_second(
    begin: Begin, monkeypatch: pytest.MonkeyPatch, silent: tuple[str, int]
) -> None:
    with scripted(*EXCHANGE) as script:
        places = found(silent, ("127.0.0.1", script.port))
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: places)
        assert connects(begin, script.port) >= 0.2


def test_none_answers_in_time(
    begin: Begin, monkeypatch: pytest.MonkeyPatch, silent: tuple[str, int]
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found(silent))
    with pytest.raises(socks5.TooSlow):
        connects(begin, silent[1], 0.05)


def test_all_refuse(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    places = found(("::1", port), ("127.0.0.1", port), ("fe80::1", port))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: places)
    with pytest.raises(socks5.ProxyUnreachable):
        connects(begin, port)


def test_a_host_without_addresses(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [])
    with pytest.raises(socks5.ProxyUnreachable, match="has no address"):
        connects(begin, 1080)


def test_the_families_take_turns_in_the_order_of_the_system() -> None:
    places = [("192.1.1.1", 1), ("192.1.1.2", 1), ("2001:db8::1", 1), ("192.1.1.1", 1)]
    race = reaching.Reaching(found(*places)).race
    now, order = 0.0, []
    while (address := race.begin(now)) is not None:
        order.append(str(address))
        now += 1.0
    assert order == ["192.1.1.1", "2001:db8::1", "192.1.1.2"]
