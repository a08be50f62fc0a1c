"""Users at a real server: passwords tried by many connections at once, and rules before a port is
known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest

from oegw.socks5.codes import Command, ReplyCode
from oegw.socks5.passwords import Passwords, hashed
from oegw.socks5.settings import Listener, Rule, User
from oegw.socks5.wire import Credentials, Greeting
from tests.support.socks_server import LOOPBACK, OPEN, SETTINGS, Client, Running, running

HASH = hashed(b"sesame", bytes(16))
WITH_PASSWORD = replace(
    SETTINGS,
    listeners=(Listener(LOOPBACK[0], 0, authentication="password"),),
    users=(User("alice", HASH), User("bob", HASH, connections=2)),
)


def many(server: Running, amount: int, credentials: Credentials, source: str) -> list[Client]:
    """Connections that have said all of it, and wait."""
    clients = [server.client(source=source) for _ in range(amount)]
    for client in clients:
        client.send(Greeting((2,)).octets() + credentials.octets())
    return clients


def statuses(clients: list[Client]) -> list[int]:
    """What each was answered: the method, then 0 for accepted."""
    found = []
    for client in clients:
        with client:
            method, status = client.received(2), client.received(2)
            assert method == b"\x05\x02"
            found.append(status[1])
    return found


def test_many_connections_of_a_user_cost_one_hash(tmp_path: Path) -> None:
    with (
        running(tmp_path, WITH_PASSWORD) as server,
        patch.object(Passwords, "verify", autospec=True, side_effect=Passwords.verify) as verify,
    ):
        clients = many(server, 20, Credentials(b"alice", b"sesame"), "127.0.0.1")
        assert statuses(clients) == [0] * 20
    assert verify.call_count == 1


def test_many_guesses_at_once_are_counted_and_keep_nobody_else_out(tmp_path: Path) -> None:
    with (
        running(tmp_path, WITH_PASSWORD) as server,
        patch.object(Passwords, "verify", autospec=True, side_effect=Passwords.verify) as verify,
    ):
        guessers = many(server, 24, Credentials(b"alice", b"open"), "127.0.0.66")
        with server.client(source="127.0.0.1") as honest:
            assert honest.log_in(b"alice", b"sesame") == 0
        assert statuses(guessers) == [1] * 24
        assert server.counter("drop.password_guesses") == 24 - 8
        with server.client(source="127.0.0.66") as guesser:  # even the right one, unless known
            assert guesser.log_in(b"bob", b"sesame") == 1
    assert verify.call_count == 8 + 1


def test_a_users_connection_counts_once_whatever_it_asks_for(tmp_path: Path) -> None:
    """SK-31: it may ask for many IDs."""
    with running(tmp_path, WITH_PASSWORD) as server, server.client() as client:
        assert client.log_in(b"bob", b"sesame") == 0
        for _ in range(5):
            assert client.ask(Command.ASSOCIATE, "127.0.0.1", 0).code == ReplyCode.SUCCEEDED
        assert server.snapshot()["connections"]["users"] == {"bob": 1}


@pytest.mark.parametrize("command", [Command.ASSOCIATE, Command.UDP_AND_ASSOCIATE])
@pytest.mark.parametrize("allow", [True, False])
def test_rules_for_ports_leave_the_association_to_the_port(
    tmp_path: Path, command: Command, allow: bool
) -> None:
    port_53 = replace(OPEN[0], ports=((53, 53),), allow=allow)
    rules = (port_53, Rule(False, origin="rest")) if allow else (port_53, *OPEN)
    with running(tmp_path, replace(SETTINGS, rules=rules)) as server:
        with server.client() as client:
            client.greet()
            assert client.ask(command, "127.0.0.1", 0).code == ReplyCode.SUCCEEDED
        with server.client() as client:
            client.greet()
            assert client.ask(Command.CONNECT, "127.0.0.1", 53 if not allow else 54).code == (
                ReplyCode.NOT_ALLOWED
            )


def test_rules_for_ports_leave_a_plain_association_to_the_port(tmp_path: Path) -> None:
    rules = (replace(OPEN[0], ports=((53, 53),)), Rule(False, origin="rest"))
    with running(tmp_path, replace(SETTINGS, rules=rules)) as server, server.client() as client:
        client.greet()
        reply = client.ask(Command.UDP_ASSOCIATE, "0.0.0.0", 0)
        assert reply.code == ReplyCode.SUCCEEDED
