"""CONNECT through a server on loopback: replies, octets both ways, failures."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from oegw.socks5.codes import ReplyCode
from oegw.socks5.interface import Demand, Resolved, Transferred
from oegw.socks5.server import patience
from oegw.socks5.server.common import NAMES_AT_A_TIME
from oegw.socks5.server.failures import IP_RECVERR, IPV6_RECVERR
from oegw.socks5.settings import Limits, Listener, Rule
from oegw.socks5.wire import Request
from tests.support.socks_server import (
    LOOPBACK,
    OPEN,
    SETTINGS,
    Client,
    Destination,
    Gateway,
    Kept,
    Names,
    running,
)

CONNECT = 1
HOSTS = ("127.0.0.1", "::1")


def exchange(client: Client, far: socket.socket) -> None:
    client.send(b"to the destination")
    assert far.recv(100) == b"to the destination"
    far.sendall(b"to the client")
    assert client.received(13) == b"to the client"


def closed_port(host: str = "127.0.0.1") -> int:
    with Destination(host) as destination:
        return destination.port


@pytest.mark.parametrize("which", [0, 1], ids=["v4-client", "v6-client"])
@pytest.mark.parametrize("host", HOSTS)
def test_octets_go_both_ways_across_the_families(tmp_path: Path, which: int, host: str) -> None:
    """SK-2, SK-3, SK-33, SK-39."""
    with (
        running(tmp_path) as server,
        Destination(host) as destination,
        server.client(which) as client,
    ):
        assert client.greet() == 0
        reply = client.ask(CONNECT, host, destination.port)
        assert (reply.code, reply.flag) == (0, 0)
        with closing(destination.accept()) as far:
            assert reply.port == far.getpeername()[1]
            assert str(reply.address) == HOSTS[which]
            exchange(client, far)
        assert client.rest() == b""


@pytest.mark.parametrize(("which", "host"), [(0, "::1"), (1, "127.0.0.1")])
def test_flag_asks_for_the_family_towards_the_destination(
    tmp_path: Path, which: int, host: str
) -> None:
    """SK-34."""
    with (
        running(tmp_path) as server,
        Destination(host) as destination,
        server.client(which) as client,
    ):
        client.greet()
        assert str(client.ask(CONNECT, host, destination.port, flag=0x10).address) == host


def test_what_comes_with_the_request_and_before_the_reply_is_for_the_destination(
    tmp_path: Path,
) -> None:
    """SK-9: all in one packet, and half-closed at once."""
    with running(tmp_path) as server, Destination() as destination, server.client() as client:
        place = socket.inet_aton("127.0.0.1") + struct.pack("!H", destination.port)
        client.send(b"\x05\x01\x00" + b"\x05\x01\x00\x01" + place + b"hello")
        client.sock.shutdown(socket.SHUT_WR)
        with closing(destination.accept()) as far:
            assert far.recv(100) == b"hello"
            assert far.recv(100) == b""
            far.sendall(b"late answer")
            far.shutdown(socket.SHUT_WR)
            answer = client.rest()
        assert answer[:4] == b"\x05\x00\x05\x00"
        assert answer.endswith(b"late answer")


@pytest.mark.parametrize("host", HOSTS)
def test_what_the_relay_is_given(tmp_path: Path, host: str) -> None:
    """Sockets that hold nothing back, and that an ICMP message does not end any more; its end is
    told."""
    relay = Kept()
    settings = replace(SETTINGS, limits=Limits(idle=7.0))
    with (
        running(tmp_path, settings, relay=lambda: relay) as server,
        Destination(host) as destination,
        server.client() as client,
    ):
        client.send(b"\x05\x01\x00" + Request(CONNECT, ip_address(host), destination.port).octets())
        client.received(2)
        assert client.reply().code == 0
        server.until(lambda: bool(relay.begun))
        ((own, far, early, idle),) = relay.begun
        assert (early, idle) == (b"", 7.0)
        assert own.getpeername() == client.sock.getsockname()
        assert far.getpeername()[:2] == (host, destination.port)
        for sock in (own, far):
            assert not sock.getblocking()
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        level, option = (41, IPV6_RECVERR) if ":" in host else (0, IP_RECVERR)
        assert not far.getsockopt(level, option)
        assert server.snapshot()["under_way"]["relayed"] == 1
        server.loop.call_soon_threadsafe(relay.ends[0], Transferred(1, 2, "reset"))
        server.until(lambda: server.snapshot()["connections"]["total"] == 0)
        assert server.snapshot()["octets"] == {"to_destination": 1, "to_client": 2}
        assert server.counter("relay_reset") == 1


def test_one_octet_at_a_time(tmp_path: Path) -> None:
    with running(tmp_path) as server, Destination() as destination, server.client() as client:
        place = socket.inet_aton("127.0.0.1") + struct.pack("!H", destination.port)
        for octet in b"\x05\x01\x00\x05\x01\x00\x01" + place:
            client.send(bytes([octet]))
        assert client.received(2) == b"\x05\x00"
        assert client.reply().code == 0


def test_a_closed_port_is_refused_and_the_connection_closed(tmp_path: Path) -> None:
    """SK-10: the reply arrives whatever the client sends behind the request."""
    with running(tmp_path) as server, server.client() as client:
        client.greet()
        reply = client.ask(CONNECT, "127.0.0.1", closed_port())
        assert reply.code == ReplyCode.CONNECTION_REFUSED
        assert (str(reply.address), reply.port) == ("0.0.0.0", 0)
        client.send(b"more" * 1000)
        assert client.rest() == b""
        client.sock.close()
        server.until(lambda: server.snapshot()["connections"]["total"] == 0)


def test_names_are_resolved_by_the_server(tmp_path: Path) -> None:
    names = Names({"bob.example": ("127.0.0.1",)})
    with (
        running(tmp_path, names=names) as server,
        Destination() as destination,
        server.client() as client,
    ):
        client.greet()
        assert client.ask(CONNECT, "bob.example", destination.port).code == 0
        assert names.asked == ["bob.example"]
    with running(tmp_path, names=names) as server, server.client() as client:
        client.greet()
        assert client.ask(CONNECT, "nobody.example", 80).code == ReplyCode.HOST_UNREACHABLE


def test_an_address_as_a_name_is_that_address(tmp_path: Path) -> None:
    with running(tmp_path) as server, Destination() as destination, server.client() as client:
        client.greet()
        client.send(b"\x05\x01\x00\x03\x09127.0.0.1" + struct.pack("!H", destination.port))
        assert client.reply().code == 0
        assert server.names.asked == []


def test_a_name_may_say_its_port(tmp_path: Path) -> None:
    with Destination() as destination:
        names = Names({"s.mon": ("127.0.0.1",)}, ports={"s.mon": destination.port})
        with running(tmp_path, names=names) as server, server.client() as client:
            client.greet()
            assert client.ask(CONNECT, "s.mon", 1).code == 0
            destination.accept().close()


def test_the_next_address_is_tried_when_one_fails(tmp_path: Path) -> None:
    """Nobody listens at ::1, which is tried first."""
    names = Names({"bob.example": ("127.0.0.1", "::1")})
    with (
        running(tmp_path, names=names) as server,
        Destination() as destination,
        server.client() as client,
    ):
        client.greet()
        assert client.ask(CONNECT, "bob.example", destination.port).code == 0
        with closing(destination.accept()) as far:
            exchange(client, far)


def test_the_next_address_is_tried_while_one_is_silent(tmp_path: Path) -> None:
    """RFC 8305: what waits for the first address is given up when the second answers."""
    names = Names({"bob.example": ("127.0.0.1", "::1")})

    gateway = Gateway(silent=frozenset({"::1"}))
    with (
        running(tmp_path, names=names, gateway=gateway) as server,
        Destination() as destination,
        server.client() as client,
    ):
        client.greet()
        assert client.ask(CONNECT, "bob.example", destination.port).code == 0


def test_all_fail_and_the_client_learns_what_says_most(tmp_path: Path) -> None:
    names = Names({"bob.example": ("127.0.0.1", "::1")})
    with running(tmp_path, names=names) as server, server.client() as client:
        client.greet()
        reply = client.ask(CONNECT, "bob.example", closed_port())
        assert reply.code == ReplyCode.CONNECTION_REFUSED


def test_who_is_there_no_more_is_served_no_more(tmp_path: Path) -> None:
    """A reset ends the wait for a destination."""
    with (
        running(tmp_path, gateway=Gateway(silent=frozenset({"127.0.0.1"}))) as server,
        server.client() as client,
    ):
        client.greet()
        client.send(b"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50")
        server.until(lambda: bool(server.gateway.allowed))
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.sock.close()
        server.until(lambda: server.snapshot()["connections"]["total"] == 0)
        assert server.counter("drop.client_gone") == 1


def test_who_is_half_closed_is_still_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "UNWATCHED", 0.01)
    settings = replace(SETTINGS, limits=Limits(connect=0.1))
    gateway = Gateway(silent=frozenset({"127.0.0.1"}))
    with running(tmp_path, settings, gateway=gateway) as server, server.client() as client:
        client.greet()
        client.send(Request(CONNECT, ip_address("127.0.0.1"), 80).octets())
        client.sock.shutdown(socket.SHUT_WR)
        assert client.reply().code == ReplyCode.HOST_UNREACHABLE


def test_an_attempt_has_an_end(tmp_path: Path) -> None:
    settings = replace(SETTINGS, limits=Limits(connect=0.05))
    gateway = Gateway(silent=frozenset({"127.0.0.1"}))
    with running(tmp_path, settings, gateway=gateway) as server, server.client() as client:
        client.greet()
        assert client.ask(CONNECT, "127.0.0.1", 80).code == ReplyCode.HOST_UNREACHABLE
        assert server.counter("drop.timeout") == 1


def test_a_client_that_says_nothing_is_closed(tmp_path: Path) -> None:
    settings = replace(SETTINGS, limits=Limits(handshake=0.05))
    with running(tmp_path, settings) as server, server.client() as client:
        assert client.rest() == b""
        assert server.counter("drop.handshake_timeout") == 1


# ---------------------------------------------------------------- who may


def test_loopback_is_opened_by_a_rule_only(tmp_path: Path) -> None:
    """SK-23; in an IPv6 address as well, and by a name."""
    settings = replace(SETTINGS, rules=())
    names = Names({"bob.example": ("::ffff:127.0.0.1",)})
    with running(tmp_path, settings, names) as server, Destination() as destination:
        for host in ("127.0.0.1", "::ffff:127.0.0.1", "::1", "bob.example", "127.0.0.2", "0.0.0.0"):
            with server.client() as client:
                client.greet()
                reply = client.ask(CONNECT, host, destination.port)
                assert reply.code == ReplyCode.NOT_ALLOWED, host
        assert server.gateway.allowed == []


def test_a_denied_address_of_a_name_is_left_out(tmp_path: Path) -> None:
    no = Rule(False, destinations=(ip_network("::1/128"),), origin="no")
    names = Names({"bob.example": ("::1", "127.0.0.1")})
    settings = replace(SETTINGS, rules=(no, *OPEN))
    with (
        running(tmp_path, settings, names) as server,
        Destination() as destination,
        server.client() as client,
    ):
        client.greet()
        assert client.ask(CONNECT, "bob.example", destination.port).code == 0
        assert [each[0] for each in server.gateway.allowed] == ["127.0.0.1"]


def test_what_the_gateway_says_no_to_is_not_allowed(tmp_path: Path) -> None:
    """What must be encrypted is demanded of it, and of the socket."""
    encrypted = replace(SETTINGS, listeners=(replace(SETTINGS.listeners[0], encrypted=True),))
    gateway = Gateway(refuses=frozenset({"127.0.0.2"}))
    with (
        running(tmp_path, encrypted, gateway=gateway) as server,
        Destination() as destination,
        server.client() as one,
        server.client() as other,
    ):
        one.greet()
        assert one.ask(CONNECT, "127.0.0.1", destination.port).code == 0
        other.greet()
        reply = other.ask(CONNECT, "127.0.0.2", destination.port)
        assert reply.code == ReplyCode.NOT_ALLOWED
        assert gateway.allowed == [
            (host, destination.port, "tcp", Demand(True)) for host in ("127.0.0.1", "127.0.0.2")
        ]
        assert gateway.prepared == [Demand(True)]


def test_new_rules_hold_for_new_requests(tmp_path: Path) -> None:
    with running(tmp_path) as server, Destination() as destination:
        with server.client() as before:
            before.greet()
            assert before.ask(CONNECT, "127.0.0.1", destination.port).code == 0
            with closing(destination.accept()) as far:
                assert server.reload(replace(server.settings, rules=())) == []
                exchange(before, far)  # goes on
        with server.client() as after:
            after.greet()
            reply = after.ask(CONNECT, "127.0.0.1", destination.port)
            assert reply.code == ReplyCode.NOT_ALLOWED
        notes = server.reload(replace(server.settings, socket=tmp_path / "other.sock"))
        assert len(notes) == 1
        assert "socket" in notes[0]


def test_listeners_come_and_go_at_a_reload(tmp_path: Path) -> None:
    with running(tmp_path) as server, Destination() as destination:
        four, six = server.server.ports
        with server.client() as before:
            before.greet()
            assert before.ask(CONNECT, "127.0.0.1", destination.port).code == 0
            with closing(destination.accept()) as far:
                new = Listener(LOOPBACK[0], 0, encrypted=True)
                kept = server.settings.listeners[1]
                assert server.reload(replace(server.settings, listeners=(new, kept))) == []
                exchange(before, far)  # goes on
        assert server.server.ports[0] != four
        assert server.server.ports[1] == six
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", four))
        with server.client() as after:
            after.greet()
            assert after.ask(CONNECT, "127.0.0.1", destination.port).code == 0
        assert server.gateway.prepared == [Demand(), Demand(True)]
        taken = Listener(LOOPBACK[0], destination.port)
        (note,) = server.reload(replace(server.settings, listeners=(taken, kept)))
        assert note.endswith(f"127.0.0.1 port {destination.port}: Address already in use")
        assert server.server.ports == (six,)


# ---------------------------------------------------------------- names


def test_nobody_asks_names_for_who_may_do_nothing(tmp_path: Path) -> None:
    """The question itself would tell somebody something."""
    names = Names({"bob.example": ("127.0.0.1",)})
    rules = (Rule(False, clients=(ip_network("127.0.0.2"),)), *OPEN)
    with running(tmp_path, replace(SETTINGS, rules=rules), names=names) as server:
        for command in (1, 2, 3, 8, 9, 10, 11):
            with server.client(source="127.0.0.2") as client:
                client.greet()
                assert client.ask(command, "bob.example", 0).code == ReplyCode.NOT_ALLOWED
        assert names.asked == []
        with server.client() as client:
            client.greet()
            assert client.ask(8, "bob.example", 0).code == 0


@dataclass
class Silent(Names):
    """Whose servers say nothing of most names."""

    waiting: int = 0

    async def resolve(self, name: str, transport: str) -> Resolved:
        if name not in self.of:
            self.waiting += 1
            await asyncio.get_running_loop().create_future()
        return await super().resolve(name, transport)


def test_names_that_nobody_answers_take_a_clients_own_share(tmp_path: Path) -> None:
    names = Silent({"bob.example": ("127.0.0.1",)})
    with running(tmp_path, names=names) as server, ExitStack() as clients:
        for number in range(NAMES_AT_A_TIME + 8):
            client = clients.enter_context(server.client(source="127.0.0.2"))
            client.greet()
            client.send(Request(1, f"n{number}.example", 80).octets())
        server.until(lambda: names.waiting == NAMES_AT_A_TIME)
        other = clients.enter_context(server.client())
        other.greet()
        assert other.ask(8, "bob.example", 0).code == 0
        assert names.waiting == NAMES_AT_A_TIME
