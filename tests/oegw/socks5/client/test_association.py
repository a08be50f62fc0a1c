"""Datagrams by way of a relay that the test plays; by calls that wait and in asyncio."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest

from oegw import socks5
from oegw.socks5 import AddressId, Datagram
from oegw.socks5.client import relayed
from oegw.socks5.wire import Address, Reply
from tests.support.socks_script import Heard, Said, Script, Step, scripted
from tests.support.socks_shells import SECONDS, Begin, awaiting, got, waiting

GREETED = (Heard("05 01 00"), Said("05 00"))
ASKED = Heard("05 03 00 01 7f 00 00 01 ?? ??")  # from where, is declared
ID = AddressId(0x010203)
BOB = ip_address("192.2.0.66")
HERE = ip_address("127.0.0.1")


@pytest.fixture(params=[waiting, awaiting], ids=["waiting", "asyncio"])
def begin(request: pytest.FixtureRequest) -> Begin:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def relay() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(SECONDS)
        yield sock


def at(relay: socket.socket, address: Address = HERE) -> Said:
    return Said(Reply(0, address, relay.getsockname()[1]).octets().hex())


async def received(association: Any) -> Datagram:
    found: Datagram = await asyncio.wait_for(got(association.receive()), SECONDS)
    return found


def test_datagrams_there_and_back(begin: Begin, relay: socket.socket) -> None:
    async def body(script: Script) -> None:
        conversation = await begin(script.proxy())
        association = await got(conversation.udp())
        conversation.close()  # it is the association's now
        await got(association.send(b"question", BOB, 53))
        octets, client = relay.recvfrom(100)
        assert octets == bytes.fromhex("00 00 00 01 c0 02 00 42 00 35") + b"question"
        relay.sendto(b"no header", client)
        relay.sendto(Datagram(BOB, 53, b"a fragment", 1).octets(), client)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.sendto(Datagram(BOB, 53, b"from elsewhere").octets(), client)
        relay.sendto(Datagram(BOB, 53, b"answer").octets(), client)
        assert await received(association) == Datagram(BOB, 53, b"answer")
        association.close()

    with scripted(*GREETED, ASKED, at(relay), stays=True) as script:
        asyncio.run(body(script))


def test_an_id_comes_with_the_association(begin: Begin, relay: socket.socket) -> None:
    """SK-30, SK-41, SK-42."""

    async def body(script: Script) -> None:
        conversation = await begin(script.proxy())
        association = await got(conversation.udp(associate="bob"))
        assert association.id == ID
        await got(association.send(b"question", ID, 53))
        octets, client = relay.recvfrom(100)
        assert octets == bytes.fromhex("00 00 00 08 00 01 02 03 00 35") + b"question"
        relay.sendto(Datagram(ID, 53, b"answer").octets(), client)
        assert await received(association) == Datagram(ID, 53, b"answer")
        association.close()

    asked = Heard("05 0b 00 03 03" + b"bob".hex() + "?? ??")
    with scripted(*GREETED, asked, at(relay, ID), stays=True) as script:
        asyncio.run(body(script))


def test_behind_a_nat_nothing_is_declared(begin: Begin, relay: socket.socket) -> None:
    async def body(script: Script) -> None:
        conversation = await begin(script.proxy())
        (await got(conversation.udp(declared=False))).close()

    asked = Heard("05 03 00 01 00 00 00 00 00 00")
    with scripted(*GREETED, asked, at(relay), stays=True) as script:
        asyncio.run(body(script))


def test_the_control_channel(begin: Begin, relay: socket.socket) -> None:
    """SK-43: a refusal is no end."""

    async def body(script: Script) -> None:
        conversation = await begin(script.proxy())
        association = await got(conversation.udp())
        with pytest.raises(socks5.CommandNotSupported):
            await got(association.interface_towards(ID, 53))
        assert await got(association.interface_towards(BOB, 53)) == (ip_address("192.1.1.4"), 40000)
        association.close()

    steps: list[Step] = [
        *GREETED, ASKED, at(relay),
        Heard("00 01 00 08 00 01 02 03 00 35"), Said("05 07 00 01 00 00 00 00 00 00"),
        Heard("00 01 00 01 c0 02 00 42 00 35"), Said("05 00 00 01 c0 01 01 04 9c 40"),
    ]  # fmt: skip
    with scripted(*steps, stays=True) as script:
        asyncio.run(body(script))


def test_a_control_channel_that_says_nothing(begin: Begin, relay: socket.socket) -> None:
    async def body(script: Script) -> None:
        conversation = await begin(script.proxy(), 0.5)
        association = await got(conversation.udp())
        with pytest.raises(socks5.TooSlow):
            await got(association.interface_towards(BOB, 53))
        with pytest.raises(socks5.ProxyError):  # its answer would be the next one's
            await got(association.interface_towards(BOB, 53))
        association.close()

    with scripted(*GREETED, ASKED, at(relay), stays=True) as script:
        asyncio.run(body(script))


def test_the_end_of_the_connection_ends_the_association(begin: Begin, relay: socket.socket) -> None:
    """SK-6."""

    async def body(script: Script) -> None:
        conversation = await begin(script.proxy())
        association = await got(conversation.udp())
        with pytest.raises(socks5.ProxyUnreachable, match="closed the connection"):
            await received(association)
        association.close()

    with scripted(*GREETED, ASKED, at(relay)) as script:
        asyncio.run(body(script))


def test_no_datagram_in_time(relay: socket.socket) -> None:
    with (
        scripted(*GREETED, ASKED, at(relay), stays=True) as script,
        socks5.udp(script.proxy()) as association,
        pytest.raises(TimeoutError),
    ):
        association.receive(0.01)


def test_several_may_wait_in_asyncio(relay: socket.socket) -> None:
    async def body(script: Script) -> None:
        association = await (await awaiting(script.proxy())).udp()
        async with association:
            tasks = [asyncio.create_task(association.receive()) for _ in range(3)]
            await asyncio.sleep(0)
            await association.send(b"question", BOB, 53)
            _, client = relay.recvfrom(100)
            tasks.pop().cancel()
            for word in (b"one", b"two"):
                relay.sendto(Datagram(BOB, 53, word).octets(), client)
            found = await asyncio.wait_for(asyncio.gather(*tasks), SECONDS)
            assert {each.payload for each in found} == {b"one", b"two"}
            last = asyncio.create_task(association.receive())
            await asyncio.sleep(0)
        with pytest.raises(socks5.ProxyUnreachable, match="is closed"):
            await last

    with scripted(*GREETED, ASKED, at(relay), stays=True) as script:
        asyncio.run(body(script))


def test_an_association_without_a_place_is_none(begin: Begin) -> None:
    async def body(script: Script) -> None:
        conversation = await begin(script.proxy())
        with pytest.raises(socks5.AnswerUnusable, match="no port"):
            await got(conversation.udp())
        with pytest.raises(socks5.OutOfTurn):
            await got(conversation.connect(BOB, 80))

    with scripted(*GREETED, ASKED, Said("05 00 00 01 7f 00 00 01 00 00")) as script:
        asyncio.run(body(script))


def test_a_relay_of_the_other_family_gets_the_port_that_was_declared() -> None:
    with (
        socket.create_server(("::1", 0), family=socket.AF_INET6) as server,
        socket.create_connection(server.getsockname()[:2]) as connection,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as relay,
    ):
        relay.bind(("127.0.0.1", 0))
        relay.settimeout(SECONDS)
        sock = relayed.opened(connection)
        own, port = relayed.declared(sock, True)
        assert own == ip_address("::1")
        reply = Reply(0, HERE, relay.getsockname()[1])
        with relayed.directed(sock, connection, reply) as found:
            found.send(b"here")
            assert relay.recvfrom(10) == (b"here", ("127.0.0.1", port))
        assert sock.fileno() == -1
