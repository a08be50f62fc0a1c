"""Our client at servers that were written without us: dante's, OpenSSH's, microsocks.

Alice's, the server's and Bob's hosts are network namespaces, with IPv4 and IPv6 on both links.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from ipaddress import ip_address
from typing import Any

import pytest

from oegw import socks5
from oegw.socks5 import AddressId, Proxy
from tests.oegw.socks5.clients import servers
from tests.oegw.socks5.clients.bed import (
    BOB,
    ECHO,
    LEAVING,
    NOBODY,
    OPEN_PORT,
    PASSWORD,
    PASSWORD_PORT,
    SERVER,
    USER,
    Bed,
    standing,
)
from tests.support.socks_shells import Begin, awaiting, got, waiting

pytestmark = pytest.mark.netns

PATIENCE = 20.0

Body = Callable[[], Awaitable[None]]
Run = Callable[[Body], None]


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest) -> str:
    """One of `servers`; tests say which have what they try."""
    return str(request.param)


def at(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("server", names, indirect=True, scope="module")


everywhere = at("danted", "ssh_d", "microsocks")


@pytest.fixture(scope="module")
def bed(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    with standing(tmp_path_factory.mktemp(server)) as found, getattr(servers, server)(found):
        yield found


@pytest.fixture
def run(bed: Bed) -> Run:
    """A coroutine, on Alice's host."""
    return lambda body: bed.at_alice(lambda: asyncio.run(body()))  # type: ignore[arg-type]


@pytest.fixture(params=["4", "6"], ids=["v4-client", "v6-client"])
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[waiting, awaiting], ids=["waiting", "asyncio"])
def begin(request: pytest.FixtureRequest) -> Begin:
    return request.param  # type: ignore[no-any-return]


def line_of(connected: Any) -> str:
    """What Bob's service says: who is connected to it."""
    with connected.socket as sock:
        sock.settimeout(PATIENCE)
        return str(sock.recv(100).decode().strip())


@everywhere
@pytest.mark.parametrize("far", ["4", "6"], ids=["to-v4", "to-v6"])
def test_connections(run: Run, begin: Begin, family: str, far: str) -> None:
    async def body() -> None:
        for destination in (BOB[far], {"4": "four.test", "6": "six.test"}[far]):
            conversation = await begin(Proxy(SERVER[family], OPEN_PORT), PATIENCE)
            connected = await got(conversation.connect(destination, ECHO))
            assert line_of(connected) == LEAVING[far]

    run(body)


@at("danted", "microsocks")
def test_passwords(run: Run, begin: Begin, family: str) -> None:
    async def body() -> None:
        for password, error in ((PASSWORD, None), ("wrong", socks5.CredentialsRefused)):
            proxy = Proxy(SERVER[family], PASSWORD_PORT, USER, password)
            conversation = await begin(proxy, PATIENCE)
            if error is None:
                connected = await got(conversation.connect(BOB["4"], ECHO))
                assert line_of(connected) == LEAVING["4"]
            else:
                with pytest.raises(error):
                    await got(conversation.connect(BOB["4"], ECHO))
        conversation = await begin(Proxy(SERVER[family], PASSWORD_PORT), PATIENCE)
        with pytest.raises(socks5.MethodsRefused, match="wants a user"):
            await got(conversation.connect(BOB["4"], ECHO))

    run(body)


@at("danted", "ssh_d")
def test_optimists(run: Run, begin: Begin) -> None:
    async def body() -> None:
        conversation = await begin(Proxy(SERVER["4"], OPEN_PORT, optimistic=True), PATIENCE)
        assert line_of(await got(conversation.connect(BOB["4"], ECHO))) == LEAVING["4"]

    run(body)


@at("microsocks")
def test_who_throws_away_what_comes_too_early(run: Run, begin: Begin) -> None:
    """As the manual says of it."""

    async def body() -> None:
        conversation = await begin(Proxy(SERVER["4"], OPEN_PORT, optimistic=True), 0.2)
        with pytest.raises(socks5.TooSlow):
            await got(conversation.connect(BOB["4"], ECHO))

    run(body)


CLOSES = socks5.ProxyUnreachable  # no reply at all
REFUSALS = {
    "danted": (socks5.DestinationRefused, CLOSES),
    "ssh_d": (CLOSES, CLOSES),
    "microsocks": (socks5.DestinationRefused, socks5.CommandNotSupported),
}


@everywhere
def test_refusals(server: str, run: Run, begin: Begin, family: str) -> None:
    """Of a connection, and of what they don't know: each ends in an error that says so."""
    refused, unknown = REFUSALS[server]

    async def body() -> None:
        async def ended(kind: type[Exception], ask: Callable[[Any], Any]) -> None:
            conversation = await begin(Proxy(SERVER[family], OPEN_PORT), PATIENCE)
            with pytest.raises(kind):
                await got(ask(conversation))

        await ended(refused, lambda each: each.connect(BOB["4"], NOBODY))
        await ended(unknown, lambda each: each.associate("four.test"))
        await ended(unknown, lambda each: each.connect(BOB["4"], ECHO, associate=True))
        await ended(socks5.ProxyError, lambda each: each.connect(AddressId(5), ECHO))
        if server != "danted":
            await ended(unknown, lambda each: each.bind(BOB["4"]))
            await ended(unknown, lambda each: each.udp())

    run(body)


# ------------------------------------------------------------- what only dante's server has


@at("danted")
@pytest.mark.parametrize("far", ["4", "6"], ids=["from-v4", "from-v6"])
def test_a_peer_connects_to_us(bed: Bed, run: Run, begin: Begin, family: str, far: str) -> None:
    async def body() -> None:
        conversation = await begin(Proxy(SERVER[family], OPEN_PORT), PATIENCE)
        listening = await got(conversation.bind(BOB[far]))
        assert listening.address == ip_address(LEAVING[far])
        place = (str(listening.address), listening.port)
        peer = bed.at_bob(lambda: socket.create_connection(place, PATIENCE))
        connected = await got(conversation.accept(PATIENCE))
        assert (connected.address, connected.port) == (
            ip_address(BOB[far]), peer.getsockname()[1],
        )  # fmt: skip
        with peer:
            peer.sendall(b"220\n")
            assert line_of(connected) == "220"

    run(body)


@at("danted")
@pytest.mark.parametrize("far", ["4", "6"], ids=["to-v4", "to-v6"])
@pytest.mark.parametrize("declared", [True, False])
def test_datagrams(run: Run, begin: Begin, family: str, far: str, declared: bool) -> None:
    async def body() -> None:
        conversation = await begin(Proxy(SERVER[family], OPEN_PORT), PATIENCE)
        association = await got(conversation.udp(declared=declared))
        await got(association.send(b"question", ip_address(BOB[far]), ECHO))
        found = await asyncio.wait_for(got(association.receive()), PATIENCE)
        assert (found.address, found.port) == (ip_address(BOB[far]), ECHO)
        assert found.payload == f"{LEAVING[far]} question".encode()
        association.close()

    run(body)


@at("danted")
def test_a_control_channel_that_is_none(run: Run, begin: Begin) -> None:
    """Dante writes it into its log, and says nothing."""

    async def body() -> None:
        conversation = await begin(Proxy(SERVER["4"], OPEN_PORT), 1.0)
        association = await got(conversation.udp())
        with pytest.raises(socks5.TooSlow):
            await got(association.interface_towards(BOB["4"], ECHO))
        association.close()

    run(body)
