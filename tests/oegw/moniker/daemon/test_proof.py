"""What a bound socket proves of its holder (MK-21)."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from ipaddress import ip_address

import pytest

from oegw.moniker.daemon.proof import NoProof, Proven, proven, socket_of
from tests.support.moniker_daemon import bound_socket, port_of


@pytest.mark.parametrize(
    ("host", "families", "address"),
    [
        ("0.0.0.0", "4", None),
        ("127.0.0.1", "4", "127.0.0.1"),
        ("::", "46", None),
        ("::1", "6", "::1"),
        ("::ffff:127.0.0.1", "4", "127.0.0.1"),
    ],
)
def test_families_and_address_are_those_of_the_socket(
    host: str, families: str, address: str | None
) -> None:
    with bound_socket(host) as bound:
        where = None if address is None else ip_address(address)
        assert proven(bound) == Proven("tcp", port_of(bound), families, where)


def test_a_socket_of_ipv6_only() -> None:
    with socket.socket(socket.AF_INET6) as bound:
        bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(("::", 0))
        assert proven(bound).families == "6"


def test_transports_are_told_apart_by_the_kernel() -> None:
    with bound_socket(kind=socket.SOCK_DGRAM) as bound:
        assert proven(bound).transport == "udp"
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP) as bound:
        bound.bind(("127.0.0.1", 0))
        assert proven(bound).transport == "mptcp"


def test_a_socket_that_listens_proves_as_much() -> None:
    with bound_socket(listening=True) as bound:
        assert proven(bound).port == port_of(bound)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_port_that_others_may_share_is_not_proven(host: str) -> None:
    with bound_socket(host) as bound:
        assert proven(bound).port
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(NoProof, match="SO_REUSEADDR"):
            proven(bound)
        bound.listen()
        assert proven(bound).port == bound.getsockname()[1]
        bound.shutdown(socket.SHUT_RD)
        with pytest.raises(NoProof):
            proven(bound)


def test_a_port_of_datagrams_that_others_may_share_is_not_proven() -> None:
    with bound_socket(kind=socket.SOCK_DGRAM) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(NoProof, match="SO_REUSEADDR"):
            proven(bound)


def test_a_connection_proves_nothing() -> None:
    """An accepted socket has the server's port, and whoever was given it could claim that."""
    with (
        bound_socket("127.0.0.1", listening=True) as server,
        socket.create_connection(server.getsockname()) as client,
        server.accept()[0] as accepted,
    ):
        for each in (client, accepted):
            with pytest.raises(NoProof, match="connection"):
                proven(each)


@pytest.mark.parametrize("protocol", [socket.IPPROTO_TCP, socket.IPPROTO_MPTCP])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_connection_that_is_over_proves_nothing(host: str, protocol: int) -> None:
    """It has no peer any more, and the kernel still tells the server's port for its own."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM, protocol) as server:
        server.bind((host, 0))
        server.listen()
        for end in (_reset, _taken_apart, _closed_by_both):
            with socket.socket(family) as client:
                client.connect(server.getsockname())
                accepted, _ = server.accept()
                with accepted:
                    end(client, accepted)
                    assert port_of(accepted) == port_of(server)
                    with pytest.raises(NoProof, match="not bound"):
                        proven(accepted)


def _reset(client: socket.socket, accepted: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    with pytest.raises(ConnectionResetError):
        accepted.recv(1)


def _taken_apart(client: socket.socket, accepted: socket.socket) -> None:
    unspecified = struct.pack("H14x", socket.AF_UNSPEC)
    assert ctypes.CDLL(None).connect(accepted.fileno(), unspecified, len(unspecified)) == 0


def _closed_by_both(client: socket.socket, accepted: socket.socket) -> None:
    accepted.shutdown(socket.SHUT_WR)
    assert client.recv(1) == b""
    client.close()
    assert accepted.recv(1) == b""


def test_a_datagram_socket_with_a_peer_proves_nothing() -> None:
    with bound_socket("127.0.0.1", socket.SOCK_DGRAM) as bound:
        bound.connect(("127.0.0.1", 9))
        with pytest.raises(NoProof, match="connection"):
            proven(bound)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_socket_without_a_port_proves_nothing(family: int) -> None:
    with socket.socket(family) as unbound, pytest.raises(NoProof, match="bound"):
        proven(unbound)


def test_sockets_of_other_families_prove_nothing() -> None:
    with socket.socket(socket.AF_UNIX) as other, pytest.raises(NoProof, match="IPv4 or IPv6"):
        proven(other)


def test_what_is_no_socket_is_closed() -> None:
    readable, writable = os.pipe()
    os.close(writable)
    with pytest.raises(NoProof, match="no socket"):
        socket_of(readable)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(readable)
