"""UDP ASSOCIATE through a server on loopback."""

from __future__ import annotations

import errno
import gc
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from oegw.socks5.codes import ReplyCode
from oegw.socks5.rules import Rules
from oegw.socks5.server import associating
from oegw.socks5.settings import Limits, Rule, UdpSettings
from oegw.socks5.wire import (
    AddressId,
    ControlRequest,
    Datagram,
    IPAddress,
    parse_datagram,
)
from tests.support.socks_server import LOOPBACK, PATIENCE, SETTINGS, Client, Names, Running, running

UDP, ASSOCIATE, BOTH = 3, 8, 0x0B


def names() -> Names:
    return Names({"bob.example": ("::1",)})


@contextmanager
def bound(host: str, port: int = 0) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind((host, port))
        sock.settimeout(PATIENCE)
        yield sock


class Associated:
    """A client with an association, and its UDP socket."""

    def __init__(self, client: Client, sock: socket.socket, relay: tuple[str, int]) -> None:
        self.client = client
        self.sock = sock
        self.relay = relay

    def send(self, address: IPAddress | AddressId | str, port: int, payload: bytes) -> None:
        self.sock.sendto(Datagram(address, port, payload).octets(), self.relay)

    def receive(self) -> Datagram:
        octets, source = self.sock.recvfrom(65535)
        assert source[:2] == self.relay
        return parse_datagram(octets)


@contextmanager
def associated(server: Running, which: int = 0, port: int = 0) -> Iterator[Associated]:
    host = str(server.settings.listeners[which].address)
    with server.client(which) as client, bound(host) as sock:
        client.greet()
        reply = client.ask(UDP, "0.0.0.0", port)
        assert reply.code == 0
        yield Associated(client, sock, (str(reply.address), reply.port))


@pytest.mark.parametrize("which", [0, 1], ids=["v4-client", "v6-client"])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_datagrams_go_both_ways_across_the_families(tmp_path: Path, which: int, host: str) -> None:
    """SK-3, SK-42: the answer names the peer as the client did."""
    with running(tmp_path) as server, associated(server, which) as client, bound(host) as peer:
        address = LOOPBACK[":" in host]
        port = peer.getsockname()[1]
        client.send(address, port, b"question")
        octets, source = peer.recvfrom(100)
        assert octets == b"question"
        peer.sendto(b"answer", source)
        assert client.receive() == Datagram(address, port, b"answer")


def test_by_name_and_by_id(tmp_path: Path) -> None:
    """SK-41, SK-42, SK-44: a header with an ID has 10 octets, and the name is resolved once."""
    with (
        running(tmp_path, names=names()) as server,
        associated(server) as client,
        bound("::1") as peer,
        server.client() as other,
    ):
        other.greet()
        number = other.ask(ASSOCIATE, "bob.example", 0).address
        assert isinstance(number, AddressId)
        port = peer.getsockname()[1]
        for said in (number, "bob.example", number):
            client.send(said, port, b"question")
            peer.sendto(b"answer", peer.recvfrom(100)[1])
            answer = client.receive()
            assert answer == Datagram(said, port, b"answer")
        assert len(answer.octets()) == 10 + len(b"answer")
        assert server.snapshot()["ids"]["used"] == 1  # SK-19
        client.client.sock.close()
        server.until(lambda: server.snapshot()["ids"]["used"] == 0, "the release")
        assert server.names.asked == ["bob.example"] * 2  # for the ID, and for the name


def test_associated_at_once(tmp_path: Path) -> None:
    """SK-30: the ID of the destination, and the relay's port at the server's address."""
    with (
        running(tmp_path, names=names()) as server,
        server.client() as client,
        bound("127.0.0.1") as sock,
        bound("::1") as peer,
    ):
        client.greet()
        reply = client.ask(BOTH, "bob.example", sock.getsockname()[1])
        assert isinstance(reply.address, AddressId)
        me = Associated(client, sock, ("127.0.0.1", reply.port))
        me.send(reply.address, peer.getsockname()[1], b"question")
        assert peer.recvfrom(100)[0] == b"question"
        assert server.names.asked == ["bob.example"]


def test_an_association_holds_the_id_that_it_was_asked_for_with(tmp_path: Path) -> None:
    """SK-19: whether datagrams use it or not."""
    with running(tmp_path, names=names()) as server, server.client() as client:
        client.greet()
        number = client.ask(ASSOCIATE, "bob.example", 0).address
        assert server.snapshot()["ids"]["used"] == 0
        assert client.ask(BOTH, number, 0).address == number
        assert server.snapshot()["ids"]["used"] == 1


def test_a_forged_source_is_dropped(tmp_path: Path) -> None:
    """SK-6: another host; another port of the same."""
    with (
        running(tmp_path) as server,
        associated(server) as client,
        bound("127.0.0.1") as peer,
        bound("127.0.0.1") as same,
        bound("127.0.0.7") as other,
    ):
        place = (LOOPBACK[0], peer.getsockname()[1])
        octets = Datagram(*place, b"forged").octets()
        other.sendto(octets, client.relay)
        server.until(lambda: server.counter("drop.udp_source_not_the_client") == 1)
        client.send(*place, b"own")
        assert peer.recvfrom(100)[0] == b"own"
        same.sendto(octets, client.relay)
        server.until(lambda: server.counter("drop.udp_source_port") == 1)


def test_the_declared_port_is_the_only_one(tmp_path: Path) -> None:
    with (
        running(tmp_path) as server,
        bound("127.0.0.1") as peer,
        bound("127.0.0.1") as sock,
        associated(server, port=sock.getsockname()[1]) as client,
    ):
        client.send(LOOPBACK[0], peer.getsockname()[1], b"from another port")
        server.until(lambda: server.counter("drop.udp_source_port") == 1)
        client.sock.close()
        client.sock = sock
        client.send(LOOPBACK[0], peer.getsockname()[1], b"own")
        assert peer.recvfrom(100)[0] == b"own"


def test_unasked_datagrams_do_not_reach_the_client(tmp_path: Path) -> None:
    """SK-8: another address; with filtering by port, another port."""
    settings = replace(SETTINGS, udp=UdpSettings(filtering="port"))
    with (
        running(tmp_path, settings) as server,
        associated(server) as client,
        bound("127.0.0.1") as peer,
        bound("127.0.0.1") as other,
        bound("127.0.0.5") as stranger,
    ):
        client.send(LOOPBACK[0], peer.getsockname()[1], b"question")
        _, source = peer.recvfrom(100)
        other.sendto(b"unasked", source)
        stranger.sendto(b"unasked", source)
        server.until(lambda: server.counter("drop.udp_unasked") == 2)
        peer.sendto(b"answer", source)
        assert client.receive().payload == b"answer"


def test_rules_hold_for_each_destination(tmp_path: Path) -> None:
    """SK-23; and are asked again when they change."""
    with running(tmp_path) as server, associated(server) as client, bound("127.0.0.1") as peer:
        place = (LOOPBACK[0], peer.getsockname()[1])
        client.send(*place, b"one")
        assert peer.recvfrom(100)[0] == b"one"
        server.reload(replace(server.settings, rules=()))
        client.send(*place, b"two")
        server.until(lambda: server.counter("drop.udp_rule") == 1)


def test_a_reload_with_the_same_rules_loses_no_answer(tmp_path: Path) -> None:
    """Who listens to a peer, and says nothing meanwhile, hears all of it."""
    with running(tmp_path) as server, bound("127.0.0.1") as peer, associated(server) as client:
        client.send(LOOPBACK[0], peer.getsockname()[1], b"tell me")
        _, relay = peer.recvfrom(10)
        server.reload(replace(server.settings, limits=Limits(idle=60)))
        peer.sendto(b"all of it", relay)
        assert client.receive().payload == b"all of it"


def test_it_ends_with_its_connection(tmp_path: Path) -> None:
    """SK-6: the port is closed, and nothing is left."""
    with running(tmp_path) as server:
        with associated(server) as client:
            relay = client.relay
            assert server.snapshot()["under_way"]["associations"] == 1
        server.until(lambda: server.snapshot()["connections"]["total"] == 0)
        with bound("127.0.0.1", relay[1]):
            pass
        assert server.snapshot()["under_way"]["associations"] == 0


def test_nothing_is_left_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does a timer keep it."""
    monkeypatch.setattr(associating, "EXPIRE_SECONDS", 0.02)

    def none() -> bool:
        gc.collect()
        return not any(isinstance(each, associating.Relaying) for each in gc.get_objects())

    with running(tmp_path) as server:
        with bound("127.0.0.1") as peer, associated(server) as client:
            client.send(LOOPBACK[0], peer.getsockname()[1], b"x")
            assert peer.recv(10) == b"x"
        server.until(none)


def test_the_control_channel(tmp_path: Path) -> None:
    """SK-43: our address and port towards a destination; an unknown subcommand keeps it open."""
    with running(tmp_path, names=names()) as server, associated(server) as client:
        with bound("::1") as peer:
            port = peer.getsockname()[1]
            client.client.send(ControlRequest(1, "bob.example", port, 0x10).octets())
            reply = client.client.reply()
            assert (reply.code, str(reply.address)) == (0, "::1")
            client.send("bob.example", port, b"question")
            assert peer.recvfrom(100)[1][:2] == ("::1", reply.port)
        client.client.send(ControlRequest(9, "bob.example", 1).octets())
        assert client.client.reply().code == ReplyCode.COMMAND_NOT_SUPPORTED
        client.client.send(ControlRequest(1, AddressId(77), 1).octets())
        assert client.client.reply().code == ReplyCode.INVALID_ADDRESS
        client.client.send(ControlRequest(1, LOOPBACK[0], 1).octets())
        reply = client.client.reply()
        assert (reply.code, str(reply.address)) == (0, "127.0.0.1")


def test_how_many_a_client_may_have(tmp_path: Path) -> None:
    settings = replace(SETTINGS, limits=Limits(associations=1))
    with running(tmp_path, settings) as server, associated(server), server.client() as second:
        second.greet()
        assert second.ask(UDP, "0.0.0.0", 0).code == ReplyCode.FAILURE


def test_without_descriptors_a_destination_is_refused_for_a_while_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it is this box itself can't be asked."""

    def none_left(*_: object) -> bool:
        raise OSError(errno.EMFILE, "Too many open files")

    with running(tmp_path) as server, bound("127.0.0.1") as peer, associated(server) as client:
        with monkeypatch.context() as patched:
            patched.setattr(Rules, "decide", none_left)
            client.send(LOOPBACK[0], peer.getsockname()[1], b"lost")
            server.until(lambda: server.counter("drop.udp_emfile") == 1)
        others = (*server.settings.rules, Rule(False, ports=((1, 1),)))
        server.reload(replace(server.settings, rules=others))  # or two seconds
        client.send(LOOPBACK[0], peer.getsockname()[1], b"here")
        assert peer.recv(10) == b"here"
