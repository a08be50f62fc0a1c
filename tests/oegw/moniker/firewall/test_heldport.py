"""Ports that the gateway holds, and whether somebody has one."""

from __future__ import annotations

import socket
from contextlib import suppress
from ipaddress import ip_address

import pytest

from oegw.moniker.firewall.book import Guard
from oegw.moniker.firewall.heldport import hold_port, is_taken

HERE = ip_address("127.0.0.1")


def test_strangers_datagrams_do_not_lie_at_a_held_port() -> None:
    """There may be thousands of such ports; of each the kernel would keep 200 kB."""
    port, held = hold_port(HERE, "udp")
    with held, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for _ in range(100):
            stranger.sendto(bytes(1000), (str(HERE), port))
        held.setblocking(False)
        kept = 0
        with suppress(BlockingIOError):
            while held.recv(2000):
                kept += 1
        assert kept <= 3


@pytest.mark.parametrize(("transport", "protocol"), [("tcp", 6), ("mptcp", 6), ("udp", 17)])
def test_a_held_port_is_nobody_elses(transport: str, protocol: int) -> None:
    port, held = hold_port(HERE, transport)
    with held:
        for address in (HERE, None):
            assert is_taken(Guard(4, protocol, port, address))
    assert not is_taken(Guard(4, protocol, port, HERE))


def test_connections_that_live_on_do_not_take_a_port() -> None:
    """Else a port would be closed to others for as long as somebody is connected."""
    with socket.socket() as server, socket.socket() as client:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((str(HERE), 0))
        server.listen()
        port = server.getsockname()[1]
        client.connect((str(HERE), port))
        accepted, _ = server.accept()
        with accepted:
            assert is_taken(Guard(4, 6, port))
            server.close()
            assert not is_taken(Guard(4, 6, port))
