"""Our firewall beside the gateway's interception, `[[nat]]` and a user's own masquerading.

The gateway core knows nothing of leases, and leases nothing of tunnels: what holds them together
is the order of the hooks, and connection tracking.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address

import pytest

from oegw.commands import Verdict
from oegw.moniker.firewall.ownfirewall import OwnFirewall
from oegw.moniker.interface import Lease
from oegw.moniker.settings import FirewallSettings, HostSettings
from tests.oegw.intercept.test_translation import (
    OUTSIDE,
    from_outside,
    install,
    masquerade,
    out_of_tunnel,
    running,
    sources,
    udp_packet,
)
from tests.support.intercept_net import INSIDE, OTHER_PEER, PEER, Gateway, Net, wait_for
from tests.support.intercept_policy import protected_rule
from tests.support.moniker_net import Loop, connected, listening, loop_in, silent

pytestmark = pytest.mark.netns

BOB = HostSettings("bob", (ip_address(INSIDE),), namespaces=("bob",))
DENY = FirewallSettings(deny=True, outside=("out0",), tunnel="oegw0")
SECRET = 4711


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    with Net() as net:
        masquerade(net)
        yield net


@contextmanager
def both(net: Net, *rules: object) -> Iterator[tuple[Gateway, OwnFirewall, Loop]]:
    with running(net, *rules) as gate, loop_in(net.gateway) as loop:
        wall = loop.make(lambda: OwnFirewall(DENY, (BOB,), trace=loop.trace))
        loop.wait(wall.start())
        try:
            yield gate, wall, loop
        finally:
            loop.wait(wall.close())


def lease(transport: str, client: str = PEER) -> Lease:
    return Lease(ip_address(client), ip_address(INSIDE), transport, SECRET, 60, "starwars", "bob")


def test_a_forwarded_port_works_through_the_tunnel_and_its_answers_stay_in_it(net: Net) -> None:
    """The answer's source is ours before it enters the tunnel; in clear there is nothing."""
    with both(net, *from_outside(protected_rule(PEER))) as (gate, wall, loop):
        install(gate, INSIDE, PEER, Verdict.TUNNEL)
        server = net.udp(net.inside, INSIDE, SECRET)
        tap, wire = net.capture(net.gateway, "tap0"), net.capture(net.outside, "out0")
        opening = loop.wait(wall.forward(lease("udp"), ip_address(OUTSIDE)))
        out_of_tunnel(net, udp_packet(PEER, OUTSIDE, (5000, opening.port), b"question"))
        octets, client = server.socket.recvfrom(100)
        assert (octets, client) == (b"question", (PEER, 5000))
        server.send("answer", *client)
        (answer,) = wait_for(lambda: tap.to(PEER))
        assert sources([answer]) == [OUTSIDE]
        assert struct.unpack_from("!HH", answer, 20) == (opening.port, 5000)
        assert wire.to(PEER) == []
        assert gate.counters["guard_dropped"] == 0
        for socket in (server, tap, wire):
            socket.close()


def test_out_of_the_tunnel_only_with_a_lease(net: Net) -> None:
    with both(net) as (gate, wall, loop):
        install(gate, INSIDE, PEER, Verdict.TUNNEL)
        server = net.udp(net.inside, INSIDE, SECRET)
        out_of_tunnel(net, udp_packet(PEER, INSIDE, (5001, SECRET), b"no lease"))
        wait_for(lambda: loop.wait(wall.counters())["denied"])
        loop.wait(wall.open(lease("udp")))
        out_of_tunnel(net, udp_packet(PEER, INSIDE, (5002, SECRET), b"lease"))
        out_of_tunnel(net, udp_packet(OTHER_PEER, INSIDE, (5002, SECRET), b"another's"))
        assert server.receive(2) == ["lease"]
        wait_for(lambda: loop.wait(wall.counters())["denied"] == 2)
        server.close()


def test_in_clear_where_the_policy_lets_it(net: Net) -> None:
    """The answers are trapped as any packet to outside is, and leave as they were translated."""
    with both(net) as (gate, wall, loop), listening(net.inside, "0.0.0.0", SECRET) as server:
        install(gate, INSIDE, PEER, Verdict.CLEAR)
        opening = loop.wait(wall.forward(lease("tcp"), ip_address(OUTSIDE)))
        assert silent(net, INSIDE, SECRET, OTHER_PEER)
        with connected(net, OUTSIDE, opening.port, PEER) as client:
            accepted, peer = server.accept()
            assert peer[0] == PEER
            accepted.sendall(b"hello")
            assert client.recv(100) == b"hello"
            accepted.close()
        assert gate.counters["guard_dropped"] == 0


def test_a_start_and_a_stop_of_the_one_do_not_touch_the_other(net: Net) -> None:
    with both(net) as (gate, wall, loop):
        tables = net.run(net.gateway, "nft", "list", "tables")
        assert "table inet oegw\n" in tables
        assert "table inet oegw_moniker\n" in tables
        before = net.run(net.gateway, "nft", "-s", "list", "table", "inet", "oegw")
        loop.wait(wall.open(lease("tcp")))
        loop.wait(wall.close())
        assert net.run(net.gateway, "nft", "-s", "list", "table", "inet", "oegw") == before
        assert gate.counters["guard_dropped"] == 0
