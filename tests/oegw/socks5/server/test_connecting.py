"""CONNECT through a server on loopback: replies, octets both ways, failures."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.support.socks_server import Client, Destination, running

CONNECT = 1
HOSTS = ("127.0.0.1", "::1")


def exchange(client: Client, far: socket.socket) -> None:
    client.send(b"to the destination")
    assert far.recv(100) == b"to the destination"
    far.sendall(b"to the client")
    assert client.received(13) == b"to the client"


@pytest.mark.parametrize("which", [0, 1], ids=["v4-client", "v6-client"])
@pytest.mark.parametrize("host", HOSTS)
def test_octets_go_both_ways_across_the_families(tmp_path: Path, which: int, host: str) -> None:
    with running(tmp_path) as server, Destination(host) as destination:
        with server.client(which) as client:
            assert client.greet() == 0
            reply = client.ask(CONNECT, host, destination.port)
            assert reply.code == 0
            assert reply.flag == 0
            far = destination.accept()
            assert reply.port == far.getpeername()[1]
            assert str(reply.address) == HOSTS[which]  # SK-33: the client's own family
            exchange(client, far)
            far.close()
            assert client.rest() == b""
