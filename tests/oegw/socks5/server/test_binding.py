"""BIND through a server on loopback: two replies, and who may come."""

from __future__ import annotations

import errno
import socket
import time
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from oegw.socks5.codes import ReplyCode
from oegw.socks5.settings import Limits, Rule
from oegw.socks5.wire import AddressId
from tests.support.socks_server import OPEN, PATIENCE, SETTINGS, Gateway, Names, running

BIND = 2


def come(host: str, port: int, source: str | None = None) -> socket.socket:
    return socket.create_connection(
        (host, port), PATIENCE, source_address=(source, 0) if source else None
    )


@pytest.mark.parametrize("which", [0, 1], ids=["v4-client", "v6-client"])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_two_replies_across_the_families(tmp_path: Path, which: int, host: str) -> None:
    """SK-3, SK-5.  The second names the peer, if the client can deal with its family."""
    with running(tmp_path) as server, server.client(which) as client:
        client.greet()
        first = client.ask(BIND, host, 0)
        assert first.code == 0
        own = str(server.settings.listeners[which].address)
        assert str(first.address) == own
        with come(host, first.port) as peer:
            second = client.reply()
            assert (second.code, second.port) == (0, peer.getsockname()[1])
            assert second.address.version == ip_address(own).version
            peer.sendall(b"from the peer")
            assert client.received(13) == b"from the peer"
            client.send(b"to the peer")
            assert peer.recv(100) == b"to the peer"
        assert client.rest() == b""


def test_another_peer_is_sent_away(tmp_path: Path) -> None:
    with running(tmp_path) as server, server.client() as client:
        client.greet()
        first = client.ask(BIND, "127.0.0.2", 0)
        with come("127.0.0.1", first.port, "127.0.0.3") as stranger:
            assert stranger.recv(1) == b""
        assert server.counter("drop.bind_other_peer") == 1
        with come("127.0.0.1", first.port, "127.0.0.2"):
            assert str(client.reply().address) == "127.0.0.2"


def test_anybody_may_come_whom_the_rules_allow(tmp_path: Path) -> None:
    """An unspecified address; both families have the same port."""
    with running(tmp_path) as server, server.client() as client:
        client.greet()
        first = client.ask(BIND, "0.0.0.0", 0)
        assert first.code == 0
        assert not ip_address(str(first.address)).is_unspecified, "nobody can connect there"
        with come("127.0.0.1", first.port) as peer:
            second = client.reply()
            assert (str(second.address), second.port) == peer.getsockname()
    with running(tmp_path, replace(SETTINGS, rules=())) as server, server.client() as client:
        client.greet()
        first = client.ask(BIND, "0.0.0.0", 0)
        with come("127.0.0.1", first.port) as stranger:
            assert stranger.recv(1) == b""


def test_rules_judge_who_comes_at_that_moment(tmp_path: Path) -> None:
    """Of a peer whose port was not said, the rules see the port that it comes from; and new rules
    hold for who comes after them."""
    name = Names({"bob.example": ("127.0.0.1",)})
    low = replace(OPEN[0], ports=((1, 1023),))
    for settings, again in (
        (replace(SETTINGS, rules=(low,)), None),
        (SETTINGS, replace(SETTINGS, rules=())),
    ):
        with running(tmp_path, settings, names=name) as server, server.client() as client:
            client.greet()
            first = client.ask(BIND, "bob.example", 0)
            assert first.code == 0
            if again is not None:
                server.reload(replace(again, socket=tmp_path / "socks.sock"))
            with come("127.0.0.1", first.port) as peer:
                assert peer.recv(1) == b""
            assert server.counter("drop.bind_other_peer") == 1
    with running(tmp_path, replace(SETTINGS, rules=(low,))) as server, server.client() as client:
        client.greet()
        first = client.ask(BIND, "127.0.0.1", 20)  # FTP: where it will come from is said
        with come("127.0.0.1", first.port):
            assert client.reply().code == 0


def test_a_peer_by_name_may_come_by_either_family(tmp_path: Path) -> None:
    names = Names({"bob.example": ("127.0.0.1", "::1")})
    for host in ("127.0.0.1", "::1"):
        with running(tmp_path, names=names) as server, server.client() as client:
            client.greet()
            first = client.ask(BIND, "bob.example", 0)
            with come(host, first.port):
                assert client.reply().code == 0


def test_nobody_comes(tmp_path: Path) -> None:
    settings = replace(SETTINGS, limits=Limits(bind=0.05))
    with running(tmp_path, settings) as server, server.client() as client:
        client.greet()
        first = client.ask(BIND, "127.0.0.1", 0)
        assert client.reply().code == ReplyCode.HOST_UNREACHABLE
        assert client.rest() == b""
        with pytest.raises(ConnectionRefusedError):
            come("127.0.0.1", first.port)


def test_the_socket_is_gone_with_its_client(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        with server.client() as client:
            client.greet()
            first = client.ask(BIND, "127.0.0.1", 0)
        server.until(lambda: server.snapshot()["connections"]["total"] == 0)
        with pytest.raises(ConnectionRefusedError):
            come("127.0.0.1", first.port)


def test_the_gateway_is_asked_first(tmp_path: Path) -> None:
    gateway = Gateway(refuses=frozenset({"127.0.0.1"}))
    with running(tmp_path, gateway=gateway) as server, server.client() as client:
        client.greet()
        assert client.ask(BIND, "127.0.0.1", 0).code == ReplyCode.NOT_ALLOWED
        assert gateway.prepared == []


def test_the_socket_that_waits_has_the_strictest_mark(tmp_path: Path) -> None:
    """And where anybody may come, who must be encrypted does not get in without."""
    plain = Rule(True, destinations=(ip_network("127.0.0.2/32"),), origin="plain")
    encrypted = Rule(
        True, destinations=(ip_network("127.0.0.1/32"),), encrypted=True, origin="encrypted"
    )
    names = Names({"bob.example": ("127.0.0.2", "127.0.0.1")})
    settings = replace(SETTINGS, rules=(plain, encrypted))
    with running(tmp_path, settings, names) as server:
        with server.client() as client:
            client.greet()
            assert client.ask(BIND, "bob.example", 0).code == 0
            assert [each.encrypted for each in server.gateway.prepared] == [True]
        server.gateway.prepared.clear()
        with server.client() as client:
            client.greet()
            first = client.ask(BIND, "0.0.0.0", 0)
            assert not any(each.encrypted for each in server.gateway.prepared)
            with come("127.0.0.1", first.port) as stranger:
                assert stranger.recv(1) == b""
            with come("127.0.0.1", first.port, "127.0.0.2"):
                assert client.reply().code == 0


def test_the_gateway_is_asked_for_anybody_as_well(tmp_path: Path) -> None:
    """Where it has no guard, nobody may be waited for by a client that must be encrypted."""
    gateway = Gateway(refuses=frozenset({"0.0.0.0", "::"}))
    for host in ("0.0.0.0", "::"):
        with running(tmp_path, gateway=gateway) as server, server.client() as client:
            client.greet()
            assert client.ask(BIND, host, 0).code == ReplyCode.NOT_ALLOWED
            assert gateway.prepared == []


def test_the_gateway_is_asked_again_when_the_peer_has_come(tmp_path: Path) -> None:
    gateway = Gateway()
    with running(tmp_path, gateway=gateway) as server, server.client() as client:
        client.greet()
        first = client.ask(BIND, "127.0.0.1", 0)
        gateway.refuses = frozenset({"127.0.0.1"})
        with come("127.0.0.1", first.port) as peer:
            assert client.reply().code == ReplyCode.NOT_ALLOWED
            assert peer.recv(1) == b""


def test_combined_with_an_association(tmp_path: Path) -> None:
    """SK-29: first the ID of the destination, then that of who has come."""
    with running(tmp_path) as server, server.client() as client:
        client.greet()
        first = client.ask(0x0A, "127.0.0.1", 0)
        assert isinstance(first.address, AddressId)
        with come("127.0.0.1", first.port) as peer:
            second = client.reply()
            assert second.address == first.address  # of the same address
            assert second.port == peer.getsockname()[1]
    with running(tmp_path) as server, server.client() as client:
        client.greet()
        assert client.ask(0x0A, "0.0.0.0", 0).code == ReplyCode.INVALID_ADDRESS


def test_without_descriptors_for_who_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """He is waited for, but not asked for all the time."""
    tried = 0

    def none_left(_: socket.socket) -> None:
        nonlocal tried
        tried += 1
        raise OSError(errno.EMFILE, "Too many open files")

    with running(tmp_path) as server, server.client() as client:
        client.greet()
        first = client.ask(BIND, "127.0.0.1", 0)
        with monkeypatch.context() as patched:
            patched.setattr(socket.socket, "accept", none_left)
            peer = come("127.0.0.1", first.port)
            server.until(lambda: tried > 0)
            time.sleep(0.1)
        with peer:
            assert client.reply().port == peer.getsockname()[1]
    assert tried == 1
