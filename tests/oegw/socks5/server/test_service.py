"""The server as a whole: who may talk to it, how many, its status, its reload and its end."""

from __future__ import annotations

import socket
import threading
from contextlib import closing, suppress
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from oegw.control import ControlError, request
from oegw.socks5.codes import ReplyCode
from oegw.socks5.interface import Resolved
from oegw.socks5.passwords import hashed
from oegw.socks5.rules import Rules
from oegw.socks5.settings import AddressIdSettings, Limits, Listener, User
from oegw.socks5.wire import ControlRequest, Datagram, Request
from tests.support.socks_server import (
    LOOPBACK,
    PATIENCE,
    SETTINGS,
    Destination,
    Gateway,
    Names,
    running,
)

CONNECT, ASSOCIATE = 1, 8

ALICE = User("alice", hashed(b"secret", bytes(16)), connections=1)
BOB = User("bob", hashed(b"other", bytes(16)), encrypted=True)
WITH_PASSWORD = replace(
    SETTINGS, listeners=(Listener(LOOPBACK[0], 0, "password"),), users=(ALICE, BOB)
)


# ---------------------------------------------------------------- users


def test_user_and_password(tmp_path: Path) -> None:
    """SK-1: RFC 1929; rejected ones are closed, and a method that is not offered is 0xFF."""
    with running(tmp_path, WITH_PASSWORD) as server, Destination() as destination:
        with server.client() as client:
            assert client.log_in(b"alice", b"secret") == 0
            assert client.ask(CONNECT, "127.0.0.1", destination.port).code == 0
            assert server.snapshot()["connections"]["users"] == {"alice": 1}
        for user, password in ((b"alice", b"wrong"), (b"nobody", b"secret"), (b"\xff", b"x")):
            with server.client() as client:
                assert client.log_in(user, password) == 1
                assert client.rest() == b""
        with server.client() as client:
            assert client.greet(0, 1) == 0xFF
            assert client.rest() == b""


def test_a_user_has_so_many_connections(tmp_path: Path) -> None:
    with running(tmp_path, WITH_PASSWORD) as server, Destination() as destination:
        with server.client() as one, server.client() as two:
            for client, code in ((one, 0), (two, ReplyCode.FAILURE)):
                assert client.log_in(b"alice", b"secret") == 0
                assert client.ask(CONNECT, "127.0.0.1", destination.port).code == code
            destination.accept().close()
        server.until(lambda: server.snapshot()["connections"]["total"] == 0)
        with server.client() as client:  # the place is free again, also for several requests
            client.log_in(b"alice", b"secret")
            for _ in range(3):
                assert client.ask(ASSOCIATE, "127.0.0.1", 0).code == 0


def test_a_users_flows_must_be_encrypted(tmp_path: Path) -> None:
    with (
        running(tmp_path, WITH_PASSWORD) as server,
        Destination() as destination,
        server.client() as client,
    ):
        client.log_in(b"bob", b"other")
        assert client.ask(CONNECT, "127.0.0.1", destination.port).code == 0
        assert [demand.encrypted for demand in server.gateway.prepared] == [True]


def test_an_id_is_its_users(tmp_path: Path) -> None:
    """SK-15: two users on one host."""
    with running(tmp_path, WITH_PASSWORD) as server, Destination() as destination:
        with server.client() as alice:
            alice.log_in(b"alice", b"secret")
            number = alice.ask(ASSOCIATE, "127.0.0.1", 0).address
        with server.client() as bob:
            bob.log_in(b"bob", b"other")
            reply = bob.ask(CONNECT, number, destination.port)
            assert reply.code == ReplyCode.INVALID_ADDRESS


def test_new_users_after_a_reload(tmp_path: Path) -> None:
    with running(tmp_path, WITH_PASSWORD) as server:
        server.reload(replace(server.settings, users=(BOB,)))
        for user, password, status in ((b"alice", b"secret", 1), (b"bob", b"other", 0)):
            with server.client() as client:
                assert client.log_in(user, password) == status


# ---------------------------------------------------------------- bad input, and too much

# What is sent, and what the client is told of it.
GARBAGE = [
    (b"GET / HTTP/1.1\r\n\r\n", b"\x05\xff"),
    (b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00", b"\x05\xff"),  # SOCKS version 4
    (b"\x05\x00", b"\x05\xff"),
    (b"\x05\x01\x00" + b"\x05\x04\x00\x01" + bytes(6), b"\x05\x00\x05\x07"),  # SK-27
    (b"\x05\x01\x00" + b"\x05\x0c\x00\x01" + bytes(6), b"\x05\x00\x05\x07"),
    (b"\x05\x01\x00" + b"\x05\x01\x00\x02", b"\x05\x00\x05\x08"),
    (b"\x05\x01\x00" + b"\x05\x01\x00\x03\x00", b"\x05\x00\x05\x09"),
    (b"\x05\x01\x00" + b"\x05\x01\x00\x08\x01\x00\x00\x07\x00\x50", b"\x05\x00\x05\x09"),  # SK-12
    (b"\x05\x01\x00" + b"\x04\x01\x00\x01", b"\x05\x00\x05"),
]


@pytest.mark.parametrize(("octets", "answer"), GARBAGE)
def test_garbage_is_answered_and_closed(tmp_path: Path, octets: bytes, answer: bytes) -> None:
    """SK-4, SK-10; an honest client is served meanwhile."""
    with running(tmp_path) as server:
        with server.client() as bad, server.client() as good:
            bad.send(octets)
            good.greet()
            assert good.ask(ASSOCIATE, "127.0.0.1", 0).code == 0
            assert bad.rest().startswith(answer)
        server.until(lambda: server.snapshot()["connections"]["total"] == 0)


def test_silence_gives_way(tmp_path: Path) -> None:
    """Of more connections than may negotiate the oldest is closed."""
    settings = replace(SETTINGS, limits=Limits(negotiating=2))
    with (
        running(tmp_path, settings) as server,
        server.client(source="127.0.0.2") as oldest,
        server.client(source="127.0.0.3") as next_,
    ):
        server.until(lambda: server.snapshot()["connections"]["negotiating"] == 2)
        with server.client(source="127.0.0.4") as honest:
            assert honest.greet() == 0
            assert oldest.rest() == b""
            assert next_.greet() == 0


def test_a_request_that_is_served_does_not_give_way(tmp_path: Path) -> None:
    settings = replace(SETTINGS, limits=Limits(negotiating=1))
    gateway = Gateway(silent=frozenset({"127.0.0.1"}))
    with (
        running(tmp_path, settings, gateway=gateway) as server,
        server.client(source="127.0.0.2") as served,
    ):
        served.greet()
        served.send(Request(CONNECT, LOOPBACK[0], 80).octets())
        server.until(lambda: bool(gateway.allowed))
        with server.client(source="127.0.0.3") as more:
            assert more.rest() == b""
        assert server.counter("drop.limit_negotiating") == 1
        assert server.snapshot()["connections"]["negotiating"] == 1


def test_a_client_has_so_many_connections(tmp_path: Path) -> None:
    settings = replace(SETTINGS, limits=Limits(client=1))
    with running(tmp_path, settings) as server:
        with server.client(source="127.0.0.2") as first, server.client(source="127.0.0.2") as more:
            assert first.greet() == 0
            assert more.rest() == b""
            with server.client(source="127.0.0.3") as other:
                assert other.greet() == 0
        assert server.counter("drop.limit_client") == 1


class Broken(Names):
    """A resolver of others that is broken in this way."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    async def resolve(self, name: str, transport: str) -> Resolved:
        raise self.error


def test_a_resolver_without_descriptors(tmp_path: Path) -> None:
    names = Broken(OSError(24, "Too many open files"))
    with running(tmp_path, names=names) as server, server.client() as client:
        client.greet()
        assert client.ask(CONNECT, "bob.example", 80).code == ReplyCode.FAILURE


def test_no_descriptor_to_ask_whose_an_address_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_: object) -> bool:
        raise OSError(24, "Too many open files")

    with running(tmp_path) as server:
        monkeypatch.setattr(Rules, "decide", none_left)
        for command in (CONNECT, 2, ASSOCIATE):
            with server.client() as client:
                client.greet()
                assert client.ask(command, "127.0.0.1", 0).code == ReplyCode.FAILURE
        assert server.counter("drop.emfile") == 3


def test_a_mistake_of_ours_ends_one_connection(tmp_path: Path) -> None:
    """It is told, and the others go on; a UDP association survives it."""
    with running(tmp_path, names=Broken(KeyError("ours"))) as server:
        server.loop.set_exception_handler(lambda *_: None)
        with server.client() as other, server.client() as client, server.client() as third:
            other.greet()
            client.greet()
            with pytest.raises((EOFError, ConnectionError)):
                client.ask(CONNECT, "bob.example", 80)
            assert other.ask(ASSOCIATE, "127.0.0.1", 0).code == 0
            third.greet()
            relay = third.ask(3, "0.0.0.0", 0)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.sendto(
                    Datagram("bob.example", 53, b"x").octets(), (str(relay.address), relay.port)
                )
                server.until(lambda: server.counter("internal_error") == 2)
        assert "KeyError" in repr(server.events)
        server.until(lambda: server.snapshot()["connections"]["total"] == 0)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (b"", Request(ASSOCIATE, LOOPBACK[0], 0).octets()),
        (Request(3, ip_address("0.0.0.0"), 0).octets(), ControlRequest(9, "b", 1).octets()),
        (Request(3, ip_address("0.0.0.0"), 0).octets(), ControlRequest(1, LOOPBACK[0], 1).octets()),
    ],
    ids=["associate", "unknown-subcommand", "interface-data"],
)
def test_requests_without_end_take_nobody_elses_turn(
    tmp_path: Path, first: bytes, then: bytes
) -> None:
    """A client that always has sent the next one, and reads the answers or not."""
    over = threading.Event()

    def send(sock: socket.socket) -> None:
        with suppress(OSError):
            while not over.is_set():
                sock.sendall(then * 4096)

    def read(sock: socket.socket) -> None:
        with suppress(OSError):
            while sock.recv(1 << 20):
                pass

    with running(tmp_path) as server, server.client() as flooding:
        flooding.greet()
        flooding.send(first)
        threads = [threading.Thread(target=each, args=(flooding.sock,)) for each in (send, read)]
        try:
            for thread in threads:
                thread.start()
            for _ in range(20):
                with server.client() as client:
                    client.greet()
                    assert client.ask(ASSOCIATE, "127.0.0.1", 0).code == 0
        finally:
            over.set()
            flooding.sock.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()


def test_ids_that_are_over_are_not_shown(tmp_path: Path) -> None:
    """Though nobody asks for any."""
    settings = replace(SETTINGS, ids=AddressIdSettings(idle=0.05, quarantine=0.05))
    with running(tmp_path, settings) as server:
        with server.client() as client:
            client.greet()
            assert client.ask(ASSOCIATE, "127.0.0.1", 0).code == 0
        server.until(lambda: server.snapshot()["ids"]["ids"] == 0)
        server.until(lambda: server.snapshot()["ids"]["scopes"] == 0)


# ---------------------------------------------------------------- where it listens


def test_a_wrong_address_is_waited_for_if_there_is_another(tmp_path: Path) -> None:
    from ipaddress import ip_address

    nowhere = Listener(ip_address("192.0.2.77"), 0)
    both = replace(SETTINGS, listeners=(*SETTINGS.listeners, nowhere))
    with running(tmp_path, both) as server, server.client() as client:
        assert client.greet() == 0
        rows = server.snapshot()["listeners"]
        assert [row["listening"] for row in rows] == [True, True, False]
    with (
        pytest.raises(OSError, match=r"192\.0\.2\.77"),
        running(tmp_path, replace(SETTINGS, listeners=(nowhere,))),
    ):
        pass


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with Destination() as taken:
        settings = replace(SETTINGS, listeners=(Listener(LOOPBACK[0], taken.port),))
        with pytest.raises(OSError, match=r"127\.0\.0\.1 port"), running(tmp_path, settings):
            pass


# ---------------------------------------------------------------- status, and the end


def test_its_status_at_the_unix_socket(tmp_path: Path) -> None:
    with running(tmp_path) as server, Destination() as destination, server.client() as client:
        client.greet()
        client.ask(CONNECT, "127.0.0.1", destination.port)
        path = tmp_path / "socks.sock"
        (answer,) = request(path, {"do": "status"}, PATIENCE)
        status = answer["status"]
        assert status["under_way"]["relayed"] == 1
        assert status["connections"]["clients"] == {"127.0.0.1": 1}
        assert status["counters"]["connect"] == 1
        assert status["socket"] == str(path)
        assert "error" in next(request(path, {"do": "else"}, PATIENCE))
    with pytest.raises(ControlError):
        next(request(path, {"do": "status"}, PATIENCE))


def test_octets_are_counted(tmp_path: Path) -> None:
    with running(tmp_path, WITH_PASSWORD) as server, Destination() as destination:
        with server.client() as client:
            client.log_in(b"bob", b"other")
            client.ask(CONNECT, "127.0.0.1", destination.port)
            with closing(destination.accept()) as far:
                client.send(b"four")
                assert far.recv(10) == b"four"
                far.sendall(b"seven77")
                client.received(7)
        server.until(lambda: server.snapshot()["under_way"]["relayed"] == 0)
        snapshot = server.snapshot()
        assert snapshot["octets"] == {"to_destination": 4, "to_client": 7}
        assert snapshot["octets_of_users"] == {"bob": 11}


def test_the_end_closes_everything(tmp_path: Path) -> None:
    with Destination() as destination:
        with running(tmp_path) as server:
            relayed, waiting, silent = (server.client() for _ in range(3))
            relayed.greet()
            relayed.ask(CONNECT, "127.0.0.1", destination.port)
            waiting.greet()
            waiting.ask(2, "127.0.0.1", 0)
            server.until(lambda: server.snapshot()["connections"]["total"] == 3)
        for client in (relayed, waiting, silent):
            with closing(client.sock), pytest.raises((ConnectionError, EOFError)):
                client.reply()


def test_nothing_secret_in_the_trace(tmp_path: Path) -> None:
    with running(tmp_path, WITH_PASSWORD, Names()) as server:
        for password in (b"secret", b"wr0ng"):
            with server.client() as client:
                client.log_in(b"alice", password)
                if password == b"secret":
                    number = client.ask(ASSOCIATE, "127.0.0.1", 0).address
                    client.ask(CONNECT, number, 1)
        server.until(lambda: server.snapshot()["connections"]["total"] == 0)
        text = repr(server.events)
        assert server.events
        assert "secret" not in text
        assert "wr0ng" not in text
        assert str(number.realid) not in text  # type: ignore[union-attr]
