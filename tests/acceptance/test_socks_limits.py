"""A real SOCKS server with limits of its own choice, under load that is meant to break it.

What is said and heard is written and read here by hand, not by the code under test.
"""

from __future__ import annotations

import random
import signal
import socket
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from oegw.socks5.passwords import hashed
from tests.support.amount import amount
from tests.support.intercept_net import PEER, PEER6, Net, wait_for
from tests.support.serving import stays_small
from tests.support.socks_rubbish import WHOLE, mutated, well_formed
from tests.support.socks_strangers import (
    BIND,
    CHOSEN,
    CLIENT,
    CLIENT6,
    CONNECT,
    ECHO,
    GREETING,
    HERE,
    OTHERS,
    RESET,
    Client,
    Echo,
    SocksServer,
    datagrams,
    is_served,
    place,
    until_idle,
)

pytestmark = pytest.mark.netns


def test_garbage_of_all_kinds_at_every_stage(net: Net, echo: Echo, tmp_path: Path) -> None:
    rng = random.Random(8)
    number = amount(400, 90)
    heard: Counter[bytes] = Counter()
    limits = "[socks.limits]\nhandshake = 0.5\nconnect = 0.5\nbind = 1\n"

    def attack() -> None:
        """All at once, for some take as long as they may."""
        crowd = []
        for _ in range(number):
            client = Client(net, rng.choice((CLIENT, CLIENT6)))
            octets = mutated(rng, rng.choice(WHOLE))
            with suppress(OSError):  # it has been closed already
                client.say(octets)
                if rng.random() < 0.8:
                    client.socket.shutdown(socket.SHUT_WR)
            crowd.append((client, octets))
        for client, octets in crowd:
            with suppress(OSError):
                client.socket.shutdown(socket.SHUT_WR)
            if octets:
                said = client.to_the_end()
                assert well_formed(said, octets), (octets, said)
                heard[said[:4]] += 1
            client.close()

    with SocksServer(net, tmp_path, limits) as server:
        stays_small(server, attack, 2)
        until_idle(server)
        assert is_served(net)
        assert is_served(net, CLIENT6)
    assert heard[CHOSEN + b"\x05\x00"] > 0, "no request of these was carried out"
    assert heard[b"\x05\xff"] > 0
    assert len(heard) > 5


def test_slow_clients_hold_up_nobody_and_are_sent_away(
    net: Net, echo: Echo, tmp_path: Path
) -> None:
    """By an octet now and then, from 20 addresses, more than may negotiate in all."""
    rest = "[socks.limits]\nhandshake = 2\nnegotiating = 200\nclient = 64\n"
    with SocksServer(net, tmp_path, rest) as server:
        slow = []
        began = time.monotonic()
        for number in range(600):
            client = Client(net, OTHERS[number % len(OTHERS)])
            slow.append(client)
            with suppress(OSError):
                client.say(GREETING[: number % 3])
        assert is_served(net)
        assert server.descriptors < 400, "as many connections as anybody likes"
        assert server.status()["connections"]["negotiating"] <= 200

        trickling = slow[-1].socket
        trickling.settimeout(0.2)
        while time.monotonic() - began < 20:
            try:
                trickling.send(b"\x05")
                if trickling.recv(100) == b"":
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        else:
            pytest.fail("it may be slow for ever")
        until_idle(server)
        assert is_served(net)
        for client in slow:
            client.close()


def test_who_waits_for_a_peer_and_is_gone_holds_nothing(
    net: Net, echo: Echo, tmp_path: Path
) -> None:
    """Though it has sent ahead what nobody reads; a BIND may wait for minutes.

    An end behind more than we take is not seen until its time is over.
    """
    with SocksServer(net, tmp_path) as server:
        for ahead, reset in ((0, False), (1, False), (2000, False), (1, True), (200_000, True)):
            client = Client(net)
            client.greet()
            assert client.ask(BIND, PEER, 0).code == 0
            client.socket.settimeout(0.1)
            with suppress(TimeoutError):
                client.say(bytes(ahead))
            if reset:
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            client.close()
        until_idle(server)


def test_a_client_with_too_many_connections_shuts_out_itself_only(
    net: Net, echo: Echo, tmp_path: Path
) -> None:
    with SocksServer(net, tmp_path, "[socks.limits]\nclient = 20\n") as server:
        held = []
        for _ in range(20):
            client = Client(net, OTHERS[0])
            client.greet()
            assert client.ask(CONNECT, PEER, ECHO).code == 0
            held.append(client)
        for _ in range(30):
            with Client(net, OTHERS[0]) as one_more:
                assert one_more.to_the_end() == b""
        assert is_served(net)
        assert server.counters()["drop.limit_client"] == 30
        for client in held:
            client.close()
        until_idle(server)
        assert is_served(net, OTHERS[0])


def test_ids_without_end_take_no_memory(net: Net, echo: Echo, tmp_path: Path) -> None:
    rest = "[socks.ids]\nper_scope = 64\ntotal = 256\n"
    with SocksServer(net, tmp_path, rest) as server, Client(net) as honest:
        honest.greet()
        number = honest.associated(PEER)

        def attack() -> None:
            for source in OTHERS[:6]:
                with Client(net, source) as client:
                    client.greet()
                    count = 300
                    client.say(
                        b"".join(
                            b"\x05\x08\x00" + place(f"192.0.2.{n % 250}", n % 2)
                            for n in range(count)
                        )
                    )
                    client.hear(count * 10)

        stays_small(server, attack, 2)
        assert server.status()["ids"]["ids"] <= 256
        with Client(net) as client:
            client.greet()
            assert client.ask(CONNECT, number, ECHO).code == 0, "pushed out by a crowd"


def test_guessed_passwords_hold_up_nobody(net: Net, echo: Echo, tmp_path: Path) -> None:
    """Each costs the server a slow hash, so who is wrong too often has to wait, and costs none."""
    rest = (
        f'[[socks.listener]]\naddress = "{HERE}"\nauthentication = "password"\n'
        f'[[socks.user]]\nname = "alice"\npassword = "{hashed(b"secret", bytes(16))}"\n'
    )
    guesser = OTHERS[13]
    with SocksServer(net, tmp_path, rest) as server:
        assert is_served(net, user="alice", password="secret")
        for user in ("alice", "nobody"):
            for guess in range(20):
                with Client(net, guesser) as client:
                    assert not client.greet(user, f"guess {guess}")
                    assert client.to_the_end() == b""
        before = server.processor_seconds
        for guess in range(100):
            with Client(net, guesser) as client:
                assert not client.greet("alice", f"guess {guess}")
        assert server.processor_seconds - before < 1.5, "a hash for each guess"
        assert is_served(net, user="alice", password="secret")
        assert "secret" not in server.trace.read_text() + server.log.read_text()
        assert "guess 1" not in server.trace.read_text() + server.log.read_text()


def test_rules_change_while_strangers_are_there(net: Net, echo: Echo, tmp_path: Path) -> None:
    """A reload in the midst of it: what is refused from then on is refused to open associations,
    too."""
    with SocksServer(net, tmp_path, "") as server, Client(net) as client:
        client.greet()
        ours = datagrams(net, client)
        ours.say(PEER, ECHO, b"one")
        assert ours.hear() is not None
        server.configure(f'[[socks.rule]]\nallow = false\ndestinations = ["{PEER}/32"]\n')
        server.tell(signal.SIGHUP)

        def is_refused() -> bool:
            with Client(net) as another:
                another.greet()
                return another.ask(CONNECT, PEER, ECHO).code == 2

        wait_for(is_refused, 10)
        before = len(echo.seen)
        ours.say(PEER, ECHO, b"two")
        assert ours.hear(0.2) is None
        ours.say(PEER6, ECHO, b"three")
        heard = ours.hear()
        assert heard is not None
        assert heard.rest == b"three"
        assert echo.seen[before:] == [b"three"]
        ours.socket.close()
