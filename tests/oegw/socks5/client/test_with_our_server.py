"""Our client at our server, on loopback: every command and every extension, across the families."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from oegw import socks5
from oegw.socks5 import AddressId, AddressType, Flag, Proxy
from oegw.socks5.client import aio
from oegw.socks5.settings import AddressIdSettings
from tests.support.socks_server import SETTINGS, Destination, Names, Running, running
from tests.support.socks_shells import SECONDS, Begin, awaiting, got, waiting

HOSTS = ("127.0.0.1", "::1")
NAMES = {"four.test": ("127.0.0.1",), "six.test": ("::1",), "both.test": ("::1", "127.0.0.1")}


@pytest.fixture(params=[waiting, awaiting], ids=["waiting", "asyncio"])
def begin(request: pytest.FixtureRequest) -> Begin:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    names = Names(of=NAMES, reverse={"::1": "six.test", "127.0.0.1": "four.test"})
    with running(tmp_path_factory.mktemp("socks"), names=names) as found:
        yield found


def at(server: Running, which: int = 0, **more: Any) -> Proxy:
    return Proxy(HOSTS[which], server.server.ports[which], **more)


@pytest.fixture(params=[0, 1], ids=["v4-client", "v6-client"])
def which(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def exchanged(ours: socket.socket, far: socket.socket) -> None:
    ours.settimeout(SECONDS)
    with ours, far:
        ours.sendall(b"there")
        assert far.recv(10) == b"there"
        far.sendall(b"back")
        assert ours.recv(10) == b"back"


@pytest.mark.parametrize("optimistic", [False, True])
@pytest.mark.parametrize("name", ["127.0.0.1", "::1", "six.test"])
def test_connections(
    server: Running, begin: Begin, which: int, name: str, optimistic: bool
) -> None:
    """SK-2, SK-3, SK-9, SK-33."""

    async def body() -> None:
        host = NAMES.get(name, (name,))[0]
        with Destination(host) as destination:
            conversation = await begin(at(server, which, optimistic=optimistic))
            connected = await got(conversation.connect(name, destination.port, early=b"early"))
            far = destination.accept()
            assert far.recv(5) == b"early"
            assert connected.address == ip_address(HOSTS[which])
            assert connected.port == far.getpeername()[1]
            exchanged(connected.socket, far)

    asyncio.run(body())


def test_an_id_for_a_name_then_a_connection_to_it(
    server: Running, begin: Begin, which: int
) -> None:
    """SK-22, SK-24, SK-26, SK-31: whichever family the client has, the ID is of none."""

    async def body() -> None:
        with Destination("::1") as destination:
            conversation = await begin(at(server, which))
            found = await got(conversation.associate("six.test"))
            assert isinstance(found, AddressId)
            assert found.category == 0
            assert await got(conversation.associate("six.test")) == found  # SK-21
            connected = await got(conversation.connect(found, destination.port, associate=True))
            far = destination.accept()
            assert connected.id == found
            assert connected.port == far.getpeername()[1]
            exchanged(connected.socket, far)

    asyncio.run(body())


def test_addresses_and_names(server: Running, begin: Begin) -> None:
    """SK-25, SK-32, SK-36, SK-37."""

    async def body() -> None:
        conversation = await begin(at(server))
        assert await got(conversation.address_of("both.test", 4)) == ip_address("127.0.0.1")
        assert await got(conversation.address_of("both.test", 6)) == ip_address("::1")
        assert await got(conversation.name_of("::1")) == "six.test"
        found = await got(conversation.associate("six.test"))
        assert await got(conversation.associate(found, prefer=AddressType.IPV6)) == (
            ip_address("::1")
        )
        with pytest.raises(socks5.AddressTypeNotSupported):
            await got(conversation.address_of("six.test", 4))

    asyncio.run(body())


def test_a_server_that_tells_ids_only(tmp_path: Path, begin: Begin) -> None:
    async def body(server: Running) -> None:
        conversation = await begin(at(server))
        assert isinstance(
            await got(conversation.associate("both.test", prefer=AddressType.IPV6)), AddressId
        )
        assert await got(conversation.address_of("both.test", 4)) == ip_address("127.0.0.1")
        conversation.close()

    settings = replace(SETTINGS, ids=AddressIdSettings(reply="id"))
    with running(tmp_path, settings, Names(of=NAMES)) as server:
        asyncio.run(body(server))


def test_the_family_of_the_destination(server: Running, begin: Begin) -> None:
    """SK-34."""

    async def body() -> None:
        with Destination("::1") as destination:
            conversation = await begin(at(server))
            flag = Flag.DESTINATION_FAMILY
            connected = await got(conversation.connect("::1", destination.port, flag=flag))
            assert connected.address == ip_address("::1")
            exchanged(connected.socket, destination.accept())

    asyncio.run(body())


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("associate", [False, True], ids=["", "and-associate"])
def test_a_peer_connects_to_us(
    server: Running, begin: Begin, which: int, host: str, associate: bool
) -> None:
    """SK-3, SK-5, SK-29; the reply has the family by which the peer comes."""

    async def body() -> None:
        conversation = await begin(at(server, which))
        flag = Flag.DESTINATION_FAMILY
        listening = await got(conversation.bind(host, flag=flag, associate=associate))
        assert isinstance(listening.address, AddressId) is associate
        far = socket.create_connection((host, listening.port), SECONDS)
        connected = await got(conversation.accept(SECONDS))
        assert (connected.id is not None) is associate
        assert connected.port == far.getsockname()[1]
        exchanged(connected.socket, far)

    asyncio.run(body())


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("associate", [False, True], ids=["", "and-associate"])
def test_datagrams(server: Running, begin: Begin, which: int, host: str, associate: bool) -> None:
    """SK-3, SK-30, SK-42, SK-43."""

    async def body() -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as far:
            far.bind((host, 0))
            far.settimeout(SECONDS)
            port = far.getsockname()[1]
            conversation = await begin(at(server, which))
            association = await got(conversation.udp(associate=host if associate else None))
            assert (association.id is not None) is associate
            destination = association.id or ip_address(host)
            await got(association.send(b"there", destination, port))
            octets, seen = far.recvfrom(10)
            assert octets == b"there"
            far.sendto(b"back", seen)
            found = await asyncio.wait_for(got(association.receive()), SECONDS)
            assert (found.address, found.port, found.payload) == (destination, port, b"back")
            _, told = await got(association.interface_towards(destination, port))
            assert told == seen[1]
            association.close()

    asyncio.run(body())


def test_refusals(server: Running, begin: Begin) -> None:
    """SK-4, SK-12, SK-18."""

    async def body() -> None:
        with Destination() as destination:
            closed = destination.port
        for wrong, kind in (
            ("127.0.0.1", socks5.DestinationRefused),
            ("nowhere.test", socks5.HostUnreachable),
            ("169.254.1.1", socks5.NotAllowed),
            (AddressId(1, 1), socks5.InvalidAddress),
            (AddressId(1), socks5.InvalidAddress),
        ):
            conversation = await begin(at(server))
            with pytest.raises(kind):
                await got(conversation.connect(wrong, closed))

    asyncio.run(body())


def test_the_short_forms_in_asyncio(server: Running) -> None:
    async def body() -> None:
        with Destination("::1") as destination:
            reader, writer = await aio.connect(at(server), "six.test", destination.port)
            far = destination.accept()
            writer.write(b"there")
            assert await asyncio.to_thread(far.recv, 10) == b"there"
            far.close()
            assert await reader.read() == b""
            writer.close()
        async with await aio.udp(at(server), associate="six.test") as association:
            assert association.id is not None

    asyncio.run(body())
