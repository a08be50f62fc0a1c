"""A real SOCKS server among strangers and bad clients: it lives, stays small, serves the honest.

What is said and heard is written and read here by hand, not by the code under test.
"""

from __future__ import annotations

import random
import select
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.amount import amount
from tests.support.intercept_net import ON_LINK, PEER, PEER6, Net, wait_for, within
from tests.support.serving import MEGABYTE, stays_small
from tests.support.socks_rubbish import REQUEST, WHOLE, mutated
from tests.support.socks_strangers import (
    ASSOCIATE,
    BIND,
    CHOSEN,
    CLIENT,
    CLIENT6,
    CONNECT,
    ECHO,
    GREETING,
    HERE,
    HERE6,
    OTHERS,
    PORT,
    RESET,
    Client,
    Echo,
    SocksServer,
    datagrams,
    is_served,
    place,
    until_idle,
)
from tests.support.sst_packets import UDP, ipv4, packed, udp

pytestmark = pytest.mark.netns

IMPATIENT = "[socks.limits]\nhandshake = 1\nconnect = 2\nbind = 3\n"
REFUSED = 9  # "invalid address", of the draft


@pytest.fixture(scope="module")
def shared(net: Net, echo: Echo) -> Iterator[SocksServer]:
    """One server for all that leave nothing behind, which each is asked for at its end."""
    with (
        tempfile.TemporaryDirectory(prefix="oegw-socks-") as folder,
        SocksServer(net, Path(folder), IMPATIENT) as server,
    ):
        assert is_served(net)
        yield server


@pytest.fixture
def server(net: Net, shared: SocksServer) -> Iterator[SocksServer]:
    until_idle(shared)
    before = shared.descriptors
    yield shared
    until_idle(shared)
    assert is_served(net), "an honest client is not served any more"
    assert is_served(net, CLIENT6)
    until_idle(shared)
    wait_for(lambda: shared.descriptors <= before + 2)  # pipes may be kept
    assert "Traceback" not in shared.log.read_text()


# ------------------------------------------------------------------ what is wrong


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        (b"\x04\x01\x00\x50\x0a\x09\x00\x02me\0", b"\x05\xff"),
        (b"\x06\x01\x00", b"\x05\xff"),
        (b"\x00", b"\x05\xff"),
        (b"GET / HTTP/1.1\r\n\r\n", b"\x05\xff"),
        (b"\x16\x03\x01", b"\x05\xff"),
        (b"\x05\x00", b"\x05\xff"),  # no method at all
        (b"\x05\x01\x02", b"\x05\xff"),  # a password, where none is wanted
        (b"\x05\x02\x01\x80", b"\x05\xff"),
        (GREETING + b"\x04\x01", CHOSEN + b"\x05\x01\x00\x01" + bytes(6)),
        (GREETING + b"\x05\x01\x00\x02", CHOSEN + b"\x05\x08\x00\x01" + bytes(6)),
        (GREETING + b"\x05\x00\x00" + place(PEER, 7), CHOSEN + b"\x05\x07\x00\x01" + bytes(6)),
        (GREETING + b"\x05\x0c\x00" + place(PEER, 7), CHOSEN + b"\x05\x07\x00\x01" + bytes(6)),
        (GREETING + b"\x05\x18\x00" + place(PEER, 7), CHOSEN + b"\x05\x07\x00\x01" + bytes(6)),
        (GREETING + b"\x05\xf0\x00" + place(PEER, 7), CHOSEN + b"\x05\x07\x00\x01" + bytes(6)),
        (GREETING + b"\x05\x01\x00\x03\x00\x00\x50", CHOSEN + b"\x05\x09\x00\x01" + bytes(6)),
        (
            GREETING + b"\x05\x01\x00" + place(b"\x01abc", 7),
            CHOSEN + b"\x05\x09\x00\x01" + bytes(6),
        ),
        (
            GREETING + b"\x05\x01\x00" + place(b"\x00abc", 7),
            CHOSEN + b"\x05\x09\x00\x01" + bytes(6),
        ),
    ],
)
def test_what_is_wrong_has_its_answer_and_an_end(
    net: Net, server: SocksServer, said: bytes, heard: bytes
) -> None:
    """SK-1, SK-4, SK-10, SK-12, SK-18, SK-27: the right code, and the connection is closed."""
    with Client(net) as client:
        client.say(said)
        began = time.monotonic()
        assert client.to_the_end() == heard
        assert time.monotonic() - began < 9, "SK-10: within ten seconds"


def test_oversized_messages_take_no_memory(net: Net, server: SocksServer) -> None:
    def attack() -> None:
        for octets in (b"\x05" * MEGABYTE, GREETING + b"\x05" * MEGABYTE, b"\0" * MEGABYTE):
            with Client(net) as client, suppress(OSError):
                client.say(octets)
                client.socket.shutdown(socket.SHUT_WR)
                assert len(client.to_the_end()) < 300

    stays_small(server, attack, 2)


def test_octets_ahead_of_an_answer_wait_in_the_kernel(net: Net, server: SocksServer) -> None:
    """A client of a BIND that nobody answers sends and sends: the server holds a few of them."""
    with Client(net) as client:
        client.greet()
        assert client.ask(BIND, PEER, 0).code == 0
        before = server.resident()
        client.socket.settimeout(0.5)
        sent = 0
        with suppress(TimeoutError):
            while sent < 50 * MEGABYTE:
                sent += client.socket.send(bytes(100_000))
        assert sent < 50 * MEGABYTE, "all of it was taken"
        assert server.grown(before) < 4 * MEGABYTE
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


# ------------------------------------------------------------ slow, half-closed, gone


def test_a_client_may_be_slow_between_octets_of_an_honest_request(
    net: Net, server: SocksServer
) -> None:
    """SK-9: byte by byte, and all at once."""
    with Client(net) as client:
        for octet in GREETING + REQUEST:
            client.say(bytes([octet]))
            time.sleep(0.005)
        client.say(b"hello")
        assert client.hear(2 + 10 + 5)[-5:] == b"hello"
    with Client(net) as client:
        client.say(GREETING + REQUEST + b"hello")
        assert client.hear(2 + 10 + 5)[-5:] == b"hello"


def test_half_closed_connections(net: Net, server: SocksServer, echo: Echo) -> None:
    """The other direction goes on; a half-closed handshake is over."""
    with Client(net) as client:
        client.say(GREETING + REQUEST + b"hello")
        client.socket.shutdown(socket.SHUT_WR)
        assert client.to_the_end()[-5:] == b"hello"
    for octets in (b"", b"\x05", GREETING, GREETING + REQUEST[:6]):
        with Client(net) as client:
            client.say(octets)
            client.socket.shutdown(socket.SHUT_WR)
            assert client.to_the_end() in (b"", CHOSEN)


def test_clients_that_go_at_every_octet(net: Net, server: SocksServer) -> None:
    """Closed, or reset, after each octet of each kind of request; nothing is left of them."""
    messages = [whole for whole in WHOLE if whole[:1] == b"\x05"]
    if amount(1, 0) == 0:
        messages = [GREETING + REQUEST, WHOLE[6], WHOLE[8], WHOLE[5]]
    for whole in messages:
        for length in range(0, len(whole) + 1, amount(1, 3)):
            for reset in (False, True):
                client = Client(net)
                if reset:
                    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                client.say(whole[:length])
                client.close()


@pytest.mark.parametrize("reader", ["destination", "client"])
def test_a_slow_reader_costs_no_memory(net: Net, server: SocksServer, reader: str) -> None:
    """What it does not read stays with who sends it."""
    with (
        within(net.outside, lambda: socket.create_server((PEER, 9000))) as waiting,
        Client(net) as client,
    ):
        client.greet()
        assert client.ask(CONNECT, PEER, 9000).code == 0
        destination, _ = waiting.accept()
        writer = client.socket if reader == "destination" else destination
        writer.settimeout(0.5)
        before = server.resident()
        sent = 0
        with destination, suppress(TimeoutError):
            while sent < 100 * MEGABYTE:
                sent += writer.send(bytes(100_000))
        assert sent < 100 * MEGABYTE, "all of it was taken"
        assert server.grown(before) < 4 * MEGABYTE


# ------------------------------------------------------------------ ADDRESS IDs


def other_than(number: bytes, step: int) -> bytes:
    """An ID that is not this one."""
    return (int.from_bytes(number, "big") ^ step).to_bytes(4, "big")


def test_who_guesses_ids_is_locked_out_and_nobody_else(net: Net, server: SocksServer) -> None:
    """SK-17: the same answer to a wrong ID, to the right one while locked out, to what expired."""
    guesser, honest, fellow = OTHERS[1], OTHERS[2], OTHERS[3]
    with Client(net, guesser) as mine, Client(net, honest) as theirs:
        mine.greet()
        theirs.greet()
        own, other = mine.associated(PEER), theirs.associated(PEER)
        with Client(net, guesser) as client:
            client.greet()
            assert client.ask(CONNECT, own, ECHO).code == 0
        answers = set()
        for guess in range(12):
            with Client(net, guesser) as client:
                client.greet()
                answers.add(client.ask(CONNECT, other_than(own, guess + 1), ECHO))
        with Client(net, guesser) as client:
            client.greet()
            answers.add(client.ask(CONNECT, own, ECHO))
        assert [said.code for said in answers] == [REFUSED], answers
        with Client(net, honest) as client:
            client.greet()
            assert client.ask(CONNECT, other, ECHO).code == 0
        for source in (guesser, honest, fellow):
            assert is_served(net, source), "who guesses may still name addresses"
    assert server.counters()["drop.locked_out"] >= 1
    assert server.status()["ids"]["lockouts"] == 1


def test_who_guesses_over_udp_is_locked_out_as_well(
    net: Net, server: SocksServer, echo: Echo
) -> None:
    guesser = OTHERS[4]
    with Client(net, guesser) as client, Client(net, guesser) as asking:
        client.greet()
        asking.greet()
        own, later = asking.associated(PEER), asking.associated(PEER6)
        ours = datagrams(net, client)
        ours.say(own, ECHO, b"one")
        heard = ours.hear()
        assert heard is not None
        assert (heard.address, heard.rest) == (own, b"one")
        before = len(echo.seen)
        for guess in range(1, 200):
            ours.say(
                bytes([0, *((int.from_bytes(own[1:]) ^ guess).to_bytes(3, "big"))]), ECHO, b"?"
            )
        ours.say(later, ECHO, b"two")
        ours.say(own, ECHO, b"three")
        heard = ours.hear()
        assert heard is not None
        assert heard.rest == b"three", "what goes on already goes on"
        assert ours.hear(0.1) is None
        assert echo.seen[before:] == [b"three"]
        ours.socket.close()
    assert server.counters()["drop.udp_locked_out"] >= 100
    assert is_served(net, guesser)


def test_an_id_is_of_no_use_to_another_client(net: Net, server: SocksServer) -> None:
    """SK-15; the number may well be a third one's (SK-16)."""
    with Client(net, OTHERS[5]) as theirs:
        theirs.greet()
        number = theirs.associated(PEER)
        for thief in (OTHERS[6], CLIENT6):
            for command in (CONNECT, BIND, ASSOCIATE):
                with Client(net, thief) as client:
                    client.greet()
                    assert client.ask(command, number, 0).code == REFUSED
        with Client(net, OTHERS[5]) as client:
            client.greet()
            assert client.ask(CONNECT, number, ECHO).code == 0


# ------------------------------------------------------------------------- UDP


class Forger:
    """Datagrams to a relay port with the source that one likes."""

    def __init__(self, net: Net) -> None:
        self._socket = within(
            net.inside, lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        )

    def send(self, source: str, source_port: int, port: int, payload: bytes) -> None:
        ends = packed(source), packed(HERE)
        self._socket.sendto(ipv4(*ends, UDP, udp(*ends, source_port, port, payload)), (HERE, 0))

    def close(self) -> None:
        self._socket.close()


def test_forged_sources_use_no_association(net: Net, server: SocksServer, echo: Echo) -> None:
    """SK-6: from another address, or another port of the client's, nothing is forwarded."""
    forger = Forger(net)
    with Client(net, OTHERS[7]) as client:
        client.greet()
        ours = datagrams(net, client)
        ours.say(PEER, ECHO, b"ours")
        heard = ours.hear()
        assert heard is not None
        assert heard.rest == b"ours"
        before = len(echo.seen)
        port = ours.relay[1]
        own_port = ours.socket.getsockname()[1]
        header = b"\0\0\0" + place(PEER, ECHO)
        for n in range(200):
            forger.send(OTHERS[8], own_port, port, header + b"forged")
            forger.send("203.0.113.9", 1000 + n, port, header + b"forged")
            forger.send(OTHERS[7], 1 + n, port, header + b"forged")
        forger.send(PEER, ECHO, port, header + b"forged")
        # A whole one of another client's, with its own port.
        with Client(net, OTHERS[8]) as other:
            other.greet()
            theirs = datagrams(net, other)
            theirs.relay = ours.relay
            theirs.say(PEER, ECHO, b"theirs")
            assert theirs.hear(0.1) is None
            theirs.socket.close()
        ours.say(PEER, ECHO, b"again")
        heard = ours.hear()
        assert heard is not None
        assert heard.rest == b"again"
        assert echo.seen[before:] == [b"again"]
        ours.socket.close()
    forger.close()
    counted = server.counters()
    assert counted["drop.udp_source_not_the_client"] >= 300
    assert counted["drop.udp_source_port"] >= 100


def test_strangers_outside_reach_no_client(net: Net, server: SocksServer) -> None:
    """SK-8: an association's outside port is for those whom the client sent something to."""
    with Client(net, OTHERS[9]) as client:
        client.greet()
        ours = datagrams(net, client)
        ours.say(PEER, ECHO, b"hello")
        assert ours.hear() is not None
        outside = net.udp(net.outside, ON_LINK, 4000)
        seen = net.udp(net.outside, PEER, 4001)  # the peer itself, by another port
        ours.say(PEER, 4001, b"where")
        payload, source = seen.socket.recvfrom(100)
        assert payload == b"where"
        assert source[0] == "10.2.0.1"
        for _ in range(50):
            outside.send("attack", "10.2.0.1", source[1])
        seen.send("answer", "10.2.0.1", source[1])
        heard = ours.hear()
        assert heard is not None
        assert (heard.address, heard.port, heard.rest) == (PEER, 4001, b"answer")
        assert ours.hear(0.1) is None
        for each in (outside, seen, ours):
            each.socket.close()
    assert server.counters()["drop.udp_unasked"] >= 50


def test_rubbish_in_datagrams(net: Net, server: SocksServer, echo: Echo) -> None:
    rng = random.Random(6)
    whole = [
        b"\0\0\0" + place(address, port) + b"rubbish"
        for address in (PEER, PEER6, "bob.example", b"\0abc", "224.0.0.1", "0.0.0.0", HERE, "::1")
        for port in (ECHO, 0, 65535)
    ]

    def attack() -> None:
        with Client(net, OTHERS[10]) as client:
            client.greet()
            ours = datagrams(net, client)
            for _ in range(amount(4000, 400)):
                with suppress(ConnectionRefusedError):
                    ours.socket.sendto(mutated(rng, rng.choice(whole)), ours.relay)
                while select.select([ours.socket], [], [], 0)[0]:
                    ours.socket.recv(65535)

            def comes() -> bool:
                """What comes right behind the flood may find the socket's buffer full of it."""
                ours.say(PEER, ECHO, b"honest")
                while (heard := ours.hear(1)) is not None:
                    if heard.rest == b"honest":
                        return True
                return False

            wait_for(comes, 10)
            ours.socket.close()

    stays_small(server, attack, 2)


def test_an_association_ends_with_its_connection(net: Net, server: SocksServer) -> None:
    """SK-6, and nobody is served by what is left of it."""
    with Client(net, OTHERS[11]) as client:
        client.greet()
        ours = datagrams(net, client)
        ours.say(PEER, ECHO, b"one")
        assert ours.hear() is not None
        client.close()
        wait_for(server.idle, 5)
        ours.say(PEER, ECHO, b"two")
        assert ours.hear(0.2) is None
        ours.socket.close()


# ----------------------------------------------------------------- BIND, and the box


def test_another_than_the_named_peer_is_sent_away(net: Net, server: SocksServer) -> None:
    """SK-5: whoever scans the gateway's ports meanwhile gets nothing."""
    with Client(net, OTHERS[12]) as client:
        client.greet()
        first = client.ask(BIND, PEER, 0)
        assert (first.code, first.kind) == (0, 1)

        def connect(source: str) -> socket.socket:
            return socket.create_connection(("10.2.0.1", first.port), 5, source_address=(source, 0))

        stranger = within(net.outside, lambda: connect(ON_LINK))
        with suppress(ConnectionResetError):
            assert stranger.recv(10) == b""
        peer = within(net.outside, lambda: connect(PEER))
        second = client.reply()
        assert (second.code, second.address) == (0, PEER)
        assert second.port == peer.getsockname()[1]
        peer.sendall(b"hello")
        assert client.hear(5) == b"hello"
        for each in (stranger, peer):
            each.close()
    assert server.counters()["drop.bind_other_peer"] == 1


@pytest.mark.parametrize(
    "destination",
    ["127.0.0.1", "127.1.2.3", "::1", "0.0.0.0", "::", "::ffff:127.0.0.1", "::ffff:0.0.0.0",
     "169.254.1.1", "224.0.0.1", "255.255.255.255", HERE, HERE6, "10.2.0.1", "::ffff:10.2.0.1",
     "fe80::1", "ff02::1"],
)  # fmt: skip
def test_what_is_the_gateway_s_own_is_closed(
    net: Net, server: SocksServer, destination: str
) -> None:
    """A server on the gateway's loopback trusts who is there; a client of ours is not (SK-23)."""
    service = within(
        net.gateway,
        lambda: socket.create_server(("::", 8080), family=socket.AF_INET6, dualstack_ipv6=True),
    )
    with service:
        for command in (CONNECT, ASSOCIATE):
            with Client(net) as client:
                client.greet()
                address: str | bytes = destination
                if command == ASSOCIATE:
                    said = client.ask(ASSOCIATE, destination, 0)
                    if said.code != 0:
                        assert said.code == 2
                        continue
                    address = said.address  # an ID for it opens no more than it (SK-23)
                assert client.ask(CONNECT, address, 8080).code == 2
        service.settimeout(0.05)
        with pytest.raises(TimeoutError):
            service.accept()


def test_outside_there_is_no_server(net: Net, server: SocksServer) -> None:
    """Not at the outside address, nor at the inside one, which Linux accepts by any interface."""
    for address in ("10.2.0.1", HERE, "fd00:2::1", HERE6):

        def connect(address: str = address) -> int:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            with socket.socket(family) as made:
                made.settimeout(1)
                return made.connect_ex((address, PORT))

        assert within(net.outside, connect) != 0, address


# ---------------------------------------------------------------------- all of it


def test_nobody_hears_what_is_meant_for_another(net: Net, server: SocksServer) -> None:
    """Many at once, by all commands, all with the same destination; each hears its own."""
    rng = random.Random(3)
    clients = []
    for number in range(amount(200, 40)):
        client = Client(net, rng.choice([*OTHERS, CLIENT, CLIENT6]))
        client.greet()
        word = f"{number:08}".encode()
        if number % 2:
            said = client.ask(CONNECT | rng.choice((0, ASSOCIATE)), rng.choice((PEER, PEER6)), ECHO)
            assert said.code == 0
            clients.append((client, word, None))
        else:
            clients.append((client, word, datagrams(net, client)))
    order = list(clients)
    for _ in range(3):
        rng.shuffle(order)
        for client, word, ours in order:
            if ours is None:
                client.say(word)
            else:
                ours.say(PEER, ECHO, word)
        rng.shuffle(order)
        for client, word, ours in order:
            if ours is None:
                assert client.hear(8) == word
            else:
                heard = ours.hear()
                assert heard is not None
                assert heard.rest == word
    for client, _, ours in clients:
        client.close()
        if ours is not None:
            ours.socket.close()
