"""Attacks on the SOCKS server's sockets: from outside, and on those that wait for a peer."""

from __future__ import annotations

import socket
import tempfile
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

from oegw.socks5.codes import Command
from oegw.socks5.server import listening
from oegw.socks5.settings import Listener
from tests.attacks.frame import SOCKS, attack, replaced
from tests.support.intercept_net import Net, within
from tests.support.socks_server import PATIENCE, running

_bound = listening.bound


@attack(
    SOCKS,
    "From outside, a connection to the address that the gateway has inside",
    source="Linux takes packets to any of its addresses by any interface (the weak host model)",
    defence="oegw/socks5/server/listening.py bound",
    otherwise="strangers are served as if they were of the site, without a password",
    without=replaced(
        (
            "oegw.socks5.server.listening.bound",
            lambda listener: _bound(replace(listener, interface=None)),
        )
    ),
    marks=("netns",),
)
def inside_address_from_outside() -> None:
    inside = Listener(ip_address("10.1.0.1"), 1080, interface="in0")
    with Net() as net, closing(within(net.gateway, lambda: listening.bound(inside))):

        def connects() -> int:
            with socket.socket() as made:
                made.settimeout(PATIENCE)
                return made.connect_ex(("10.1.0.1", 1080))

        assert within(net.inside, connects) == 0
        assert within(net.outside, connects) != 0, "who is outside is served"


@attack(
    SOCKS,
    "Somebody else connects to the port that waits for the peer of a BIND",
    source="SK-5; FTP bounce and data connections that are stolen",
    defence="oegw/socks5/server/binding.py _Arrivals._may",
    otherwise="whoever scans ports gets what was meant for another",
    without=replaced(("oegw.socks5.server.binding._Arrivals._may", lambda self, peer, port: True)),
)
def peer_of_a_bind_forestalled() -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        running(Path(folder)) as server,
        server.client() as client,
    ):
        client.greet()
        first = client.ask(Command.BIND, "127.0.0.77", 0)
        there = str(first.address), first.port

        def connected(source: str) -> socket.socket:
            return socket.create_connection(there, PATIENCE, source_address=(source, 0))

        with ExitStack() as callers:
            callers.enter_context(connected("127.0.0.66"))
            with suppress(ConnectionError):  # nobody waits any more if Mallet was let in
                callers.enter_context(connected("127.0.0.77"))
            assert str(client.reply().address) == "127.0.0.77", "Mallet has come in its place"
