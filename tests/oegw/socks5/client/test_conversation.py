"""Conversations with a server that says what is written here; by calls that wait and in asyncio."""

from __future__ import annotations

import asyncio
import socket
import threading
from ipaddress import ip_address

import pytest

from oegw import socks5
from oegw.socks5 import AddressId, Flag, Proxy
from oegw.socks5.client import aio
from tests.support.socks_script import Heard, Said, scripted
from tests.support.socks_shells import SECONDS, Begin, awaiting, got, waiting

GREETED = (Heard("05 01 00"), Said("05 00"))
TO_BOB = Heard("05 01 00 01 c0 02 00 42 00 50")
DONE = Said("05 00 00 01 c0 01 01 04 9c 40")
GIVEN = Said("05 00 00 08 00 01 02 03 00 00")
ID = AddressId(0x010203)
BOB = ip_address("192.2.0.66")


@pytest.fixture(params=[waiting, awaiting], ids=["waiting", "asyncio"])
def begin(request: pytest.FixtureRequest) -> Begin:
    return request.param  # type: ignore[no-any-return]


def said_by(sock: socket.socket) -> bytes:
    sock.setblocking(True)
    sock.settimeout(SECONDS)
    with sock:
        octets = b""
        while more := sock.recv(100):
            octets += more
        return octets


def test_what_follows_the_reply_is_on_the_socket(begin: Begin) -> None:
    async def body(proxy: Proxy) -> None:
        conversation = await begin(proxy)
        connected = await got(conversation.connect("192.2.0.66", 80))
        conversation.close()
        assert (connected.address, connected.port) == (ip_address("192.1.1.4"), 40000)
        assert connected.id is None
        assert said_by(connected.socket) == b"220 bob"

    reply = Said(DONE.digits + b"220 bob".hex(), one_by_one=True)
    with scripted(*GREETED, TO_BOB, reply) as script:
        asyncio.run(body(script.proxy()))


def test_password_flag_and_early_octets(begin: Begin) -> None:
    async def body(proxy: Proxy) -> None:
        conversation = await begin(proxy)
        flag = Flag.DESTINATION_FAMILY
        connected = await got(conversation.connect("192.2.0.66", 80, flag=flag, early=b"GET"))
        assert said_by(connected.socket) == b""

    with scripted(
        Heard("05 02 00 02"), Said("05 02"),
        Heard("01 05" + b"alice".hex() + "06" + b"secret".hex()), Said("01 00"),
        Heard("05 01 10 01 c0 02 00 42 00 50" + b"GET".hex()), DONE,
    ) as script:  # fmt: skip
        asyncio.run(body(script.proxy(user="alice", password="secret")))


def test_several_associations_and_a_connection_to_one_of_them(begin: Begin) -> None:
    """SK-24, SK-31, SK-26."""

    async def body(proxy: Proxy) -> None:
        conversation = await begin(proxy)
        assert await got(conversation.associate("bob.example")) == ID
        assert await got(conversation.address_of(ID, 6)) == ip_address("2001:db8::66")
        assert await got(conversation.name_of(BOB)) == "bob"
        connected = await got(conversation.connect(ID, 80, associate=True))
        assert connected.id == ID
        connected.socket.close()

    with scripted(
        *GREETED,
        Heard("05 08 00 03 0b" + b"bob.example".hex() + "00 00"), GIVEN,
        Heard("05 08 00 08 00 01 02 03 00 04"),
        Said("05 00 00 04 20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 66 00 00"),
        Heard("05 08 00 01 c0 02 00 42 00 03"), Said("05 00 00 03 03" + b"bob".hex() + "00 00"),
        Heard("05 09 00 08 00 01 02 03 00 50"), Said("05 00 00 08 00 01 02 03 9c 40"),
    ) as script:  # fmt: skip
        asyncio.run(body(script.proxy()))


def test_a_server_that_tells_ids_only_is_asked_once_more(begin: Begin) -> None:
    """SK-32."""

    async def body(proxy: Proxy) -> None:
        conversation = await begin(proxy)
        assert await got(conversation.address_of("bob", 4)) == BOB
        conversation.close()

    with scripted(
        *GREETED,
        Heard("05 08 00 03 03" + b"bob".hex() + "00 01"), GIVEN,
        Heard("05 08 00 08 00 01 02 03 00 01"), Said("05 00 00 01 c0 02 00 42 00 00"),
    ) as script:  # fmt: skip
        asyncio.run(body(script.proxy()))


def test_a_peer_connects_to_us(begin: Begin) -> None:
    """SK-5."""

    async def body(proxy: Proxy) -> None:
        conversation = await begin(proxy)
        listening = await got(conversation.bind("192.2.0.66"))
        assert (listening.address, listening.port) == (ip_address("192.1.1.4"), 40000)
        connected = await got(conversation.accept(SECONDS))
        assert (connected.address, connected.port) == (BOB, 20)
        assert said_by(connected.socket) == b"220"

    with scripted(
        *GREETED,
        Heard("05 02 00 01 c0 02 00 42 00 00"), DONE,
        Said("05 00 00 01 c0 02 00 42 00 14" + b"220".hex()),
    ) as script:  # fmt: skip
        asyncio.run(body(script.proxy()))


def test_a_refusal_ends_the_conversation(begin: Begin) -> None:
    """SK-4, SK-10."""

    async def body(proxy: Proxy) -> None:
        conversation = await begin(proxy)
        with pytest.raises(ConnectionRefusedError, match="connection refused") as found:
            await got(conversation.connect("192.2.0.66", 80))
        assert isinstance(found.value, socks5.DestinationRefused)
        with pytest.raises(socks5.OutOfTurn):
            await got(conversation.connect("192.2.0.66", 80))

    with scripted(*GREETED, TO_BOB, Said("05 05 00 01 00 00 00 00 00 00")) as script:
        asyncio.run(body(script.proxy()))


def test_a_server_that_closes(begin: Begin) -> None:
    async def body(proxy: Proxy) -> None:
        conversation = await begin(proxy)
        with pytest.raises(socks5.ProxyUnreachable, match="closed the connection"):
            await got(conversation.connect("192.2.0.66", 80))

    with scripted(*GREETED, TO_BOB, Said("05 00 00")) as script:
        asyncio.run(body(script.proxy()))


def test_a_server_that_says_nothing(begin: Begin) -> None:
    async def body(proxy: Proxy) -> None:
        conversation = await begin(proxy, 0.05)
        with pytest.raises(TimeoutError, match="no answer in time") as found:
            await got(conversation.connect("192.2.0.66", 80))
        assert isinstance(found.value, socks5.TooSlow)

    with scripted(*GREETED, TO_BOB, stays=True) as script:
        asyncio.run(body(script.proxy()))


def test_no_server_at_all(begin: Begin) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    async def body() -> None:
        with pytest.raises(socks5.ProxyUnreachable, match=f"127.0.0.1:{port}: .*refused"):
            await begin(Proxy("127.0.0.1", port))
        with pytest.raises(socks5.ProxyUnreachable, match="is no name of a host"):
            await begin(Proxy("no..where"))
        with pytest.raises(socks5.DestinationUnusable):
            await begin(Proxy("127.0.0.1", port, "alice", ""))

    asyncio.run(body())


def test_what_is_no_destination_is_said_before_anything_is_sent(begin: Begin) -> None:
    async def body(proxy: Proxy) -> None:
        conversation = await begin(proxy)
        for wrong in ("", "x" * 256, "fe80::1%lo"):
            with pytest.raises(socks5.DestinationUnusable):
                await got(conversation.connect(wrong, 80))
        assert said_by((await got(conversation.connect(BOB, 80))).socket) == b""

    with scripted(*GREETED, TO_BOB, DONE) as script:
        asyncio.run(body(script.proxy()))


def test_the_short_forms() -> None:
    with scripted(*GREETED, TO_BOB, DONE) as script:
        assert said_by(socks5.connect(script.proxy(), "192.2.0.66", 80)) == b""
    ask = Heard("05 08 00 01 c0 02 00 42 00 03")
    with scripted(*GREETED, ask, Said("05 00 00 03 03" + b"bob".hex() + "00 00")) as script:
        assert socks5.name_of(script.proxy(), BOB) == "bob"
    ask = Heard("05 08 00 03 03" + b"bob".hex() + "00 01")
    with scripted(*GREETED, ask, Said("05 00 00 01 c0 02 00 42 00 00")) as script:
        assert socks5.address_of(script.proxy(), "bob", 4) == BOB


def test_the_short_forms_in_asyncio() -> None:
    async def body(proxy: Proxy) -> bytes:
        reader, writer = await aio.connect(proxy, "192.2.0.66", 80)
        octets = await reader.read()
        writer.close()
        return octets

    with scripted(*GREETED, TO_BOB, Said(DONE.digits + b"220".hex())) as script:
        assert asyncio.run(body(script.proxy())) == b"220"
    ask = Heard("05 08 00 01 c0 02 00 42 00 03")
    with scripted(*GREETED, ask, Said("05 00 00 03 03" + b"bob".hex() + "00 00")) as script:
        assert asyncio.run(aio.name_of(script.proxy(), BOB)) == "bob"
    ask = Heard("05 08 00 03 03" + b"bob".hex() + "00 01")
    with scripted(*GREETED, ask, Said("05 00 00 01 c0 02 00 42 00 00")) as script:
        assert asyncio.run(aio.address_of(script.proxy(), "bob", 4)) == BOB


def test_who_gives_up_leaves_no_socket_behind() -> None:
    async def body(proxy: Proxy) -> None:
        async with aio.Conversation(proxy) as conversation:
            task = asyncio.ensure_future(conversation.connect(BOB, 80))
            while not heard.is_set():
                await asyncio.sleep(0.005)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with pytest.raises(socks5.OutOfTurn):
                await conversation.connect(BOB, 80)

    heard = threading.Event()
    with scripted(*GREETED, TO_BOB, stays=True) as script:
        heard = script.played
        asyncio.run(body(script.proxy()))
