"""ADDRESS IDs through a server on loopback."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from oegw.socks5.codes import ReplyCode
from oegw.socks5.settings import AddressIdSettings
from oegw.socks5.wire import AddressId
from tests.support.socks_server import SETTINGS, Destination, Names, running

CONNECT, BIND, UDP, ASSOCIATE = 1, 2, 3, 8


def names() -> Names:
    return Names(
        {"bob.example": ("127.0.0.1", "::1"), "four.example": ("127.0.0.1",)},
        {"127.0.0.1": "bob.example"},
    )


def ids(**changes: object) -> object:
    return replace(SETTINGS, ids=replace(AddressIdSettings(), **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("host", ["::1", "127.0.0.1", "bob.example"])
def test_an_id_stands_for_an_address_or_a_name(tmp_path: Path, host: str) -> None:
    """SK-22, SK-24, SK-31: on one connection, then a CONNECT with the ID, whatever the family."""
    with (
        running(tmp_path, names=names()) as server,
        Destination(host if host != "bob.example" else "::1") as destination,
        server.client() as client,
    ):
        client.greet()
        first = client.ask(ASSOCIATE, host, 0)
        assert (first.code, first.port) == (0, 0)
        assert isinstance(first.address, AddressId)
        assert server.gateway.allowed == []  # nothing was sent there
        assert client.ask(ASSOCIATE, host, 0).address == first.address  # SK-21
        reply = client.ask(CONNECT, first.address, destination.port)
        assert reply.code == 0
        assert str(reply.address) == "127.0.0.1"
        assert server.snapshot()["ids"]["used"] == 1  # SK-19
        destination.accept().close()


def test_a_name_is_resolved_again_when_its_time_is_over(tmp_path: Path) -> None:
    """And what is learned then holds for the next."""
    asked = replace(names(), seconds=0.0)
    with running(tmp_path, names=asked) as server, Destination() as destination:
        with server.client() as client:
            client.greet()
            number = client.ask(ASSOCIATE, "four.example", 0).address
        asked.seconds = 60.0
        for _ in range(2):
            with server.client() as client:
                client.greet()
                assert client.ask(CONNECT, number, destination.port).code == 0
                destination.accept().close()
        assert asked.asked == ["four.example"] * 2


def test_an_id_of_another_connection_of_the_same_client(tmp_path: Path) -> None:
    """And of nobody else (SK-15): another address, or scoped by connection."""
    with running(tmp_path, names=names()) as server, Destination() as destination:
        with server.client() as client:
            client.greet()
            number = client.ask(ASSOCIATE, "127.0.0.1", 0).address
        with server.client() as same:
            same.greet()
            assert same.ask(CONNECT, number, destination.port).code == 0
        with server.client(source="127.0.0.9") as other:
            other.greet()
            assert other.ask(CONNECT, number, destination.port).code == ReplyCode.INVALID_ADDRESS
    with running(tmp_path, ids(scope="connection")) as server, Destination() as destination:
        with server.client() as client:
            client.greet()
            number = client.ask(ASSOCIATE, "127.0.0.1", 0).address
            with server.client() as same:
                same.greet()
                reply = same.ask(CONNECT, number, destination.port)
                assert reply.code == ReplyCode.INVALID_ADDRESS
        server.until(lambda: server.snapshot()["ids"]["ids"] == 0, "forgetting")


def test_connect_and_associate_at_once(tmp_path: Path) -> None:
    """SK-26: the ID, and the normal port."""
    with running(tmp_path) as server, Destination() as destination, server.client() as client:
        client.greet()
        reply = client.ask(0x09, "127.0.0.1", destination.port)
        assert isinstance(reply.address, AddressId)
        with closing(destination.accept()) as far:
            assert reply.port == far.getpeername()[1]
            assert server.snapshot()["ids"]["used"] == 1  # SK-19
        client.sock.close()
        server.until(lambda: server.snapshot()["ids"]["used"] == 0, "the release")


def test_a_failed_connect_leaves_no_id(tmp_path: Path) -> None:
    """SK-28."""
    with Destination() as destination:
        port = destination.port
    with running(tmp_path) as server, server.client() as client:
        client.greet()
        assert client.ask(0x09, "127.0.0.1", port).code == ReplyCode.CONNECTION_REFUSED
        assert server.snapshot()["ids"]["ids"] == 0


def test_a_full_table_fails_the_combined_command(tmp_path: Path) -> None:
    """SK-28: the connection was there, and is closed."""
    with (
        running(tmp_path, ids(per_scope=1), names()) as server,
        Destination() as destination,
        server.client() as one,
        server.client() as other,
    ):
        one.greet()
        assert one.ask(0x09, "127.0.0.1", destination.port).code == 0
        destination.accept().close()
        other.greet()
        assert other.ask(0x09, "four.example", destination.port).code == ReplyCode.FAILURE
        assert other.rest() == b""
        with closing(destination.accept()) as far:
            assert far.recv(1) == b""


@pytest.mark.parametrize(
    ("preference", "flag", "told"),
    [(1, 0, "127.0.0.1"), (4, 0, "::1"), (3, 0, "bob.example"), (1, 0x10, "::1")],
)
def test_a_preference_is_answered_with_the_address_itself(
    tmp_path: Path, preference: int, flag: int, told: str
) -> None:
    """SK-35, SK-38."""
    with running(tmp_path, names=names()) as server, server.client() as client:
        client.greet()
        assert str(client.ask(ASSOCIATE, "bob.example", preference, flag).address) == told


def test_what_an_id_stands_for(tmp_path: Path) -> None:
    """SK-32, SK-36: the reverse question, and an ID as destination."""
    with running(tmp_path, names=names()) as server, server.client() as client:
        client.greet()
        assert client.ask(ASSOCIATE, "127.0.0.1", 3).address == "bob.example"
        number = client.ask(ASSOCIATE, "127.0.0.1", 0).address
        assert client.ask(ASSOCIATE, number, 3).address == "bob.example"
        assert str(client.ask(ASSOCIATE, number, 1).address) == "127.0.0.1"
        assert client.ask(ASSOCIATE, number, 8).address == number
        assert client.ask(ASSOCIATE, number, 4).code == ReplyCode.ADDRESS_TYPE_NOT_SUPPORTED
        assert client.rest() == b""


@pytest.mark.parametrize(
    ("host", "preference", "code"),
    [
        ("four.example", 4, ReplyCode.ADDRESS_TYPE_NOT_SUPPORTED),  # SK-37
        ("::1", 3, ReplyCode.HOST_UNREACHABLE),  # no such name
        ("127.0.0.1", 7, ReplyCode.ADDRESS_TYPE_NOT_SUPPORTED),
        ("nobody.example", 0, ReplyCode.HOST_UNREACHABLE),
        ("169.254.0.1", 0, ReplyCode.NOT_ALLOWED),
    ],
)
def test_what_there_is_not(tmp_path: Path, host: str, preference: int, code: ReplyCode) -> None:
    with running(tmp_path, names=names()) as server, server.client() as client:
        client.greet()
        assert client.ask(ASSOCIATE, host, preference).code == code


def test_a_preference_may_be_stored_with_the_id(tmp_path: Path) -> None:
    with (
        running(tmp_path, ids(reply="id"), names()) as server,
        Destination("::1") as destination,
        server.client() as client,
    ):
        client.greet()
        plain = client.ask(ASSOCIATE, "::1", 0).address
        six = client.ask(ASSOCIATE, "::1", 4).address
        assert isinstance(six, AddressId)
        assert six != plain
        assert str(client.ask(CONNECT, six, destination.port).address) == "::1"


def test_guessing_locks_out_the_guesser_only(tmp_path: Path) -> None:
    """SK-16, SK-17."""
    with running(tmp_path) as server, Destination() as destination:
        own = {}
        for source in ("127.0.0.8", "127.0.0.9"):
            with server.client(source=source) as client:
                client.greet()
                own[source] = client.ask(ASSOCIATE, "127.0.0.1", 0).address
        for guess in range(1, 9):
            with server.client(source="127.0.0.9") as client:
                client.greet()
                reply = client.ask(CONNECT, AddressId(guess), destination.port)
                assert reply.code == ReplyCode.INVALID_ADDRESS
        for source, code in (("127.0.0.9", ReplyCode.INVALID_ADDRESS), ("127.0.0.8", 0)):
            with server.client(source=source) as client:
                client.greet()
                assert client.ask(CONNECT, own[source], destination.port).code == code


def test_rules_look_behind_the_id(tmp_path: Path) -> None:
    """SK-23: at the time of its use."""
    with running(tmp_path) as server, server.client() as client:
        client.greet()
        number = client.ask(ASSOCIATE, "127.0.0.1", 0).address
        server.reload(replace(server.settings, rules=()))
        assert client.ask(CONNECT, number, 80).code == ReplyCode.NOT_ALLOWED
