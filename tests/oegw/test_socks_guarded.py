"""The SOCKS server beside a real interception: what must be encrypted never leaves in clear.

The tunnel device of the namespaces leads nowhere: what is in a tunnel is what comes out of its
other end.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from oegw.commands import Verdict
from oegw.control import ControlError
from oegw.socks5.client import Conversation, Proxy, connect, udp
from oegw.socksstatus import status
from policy.rule import Scope
from tests.support.intercept_net import (
    INSIDE,
    PEER,
    PEER6,
    SETTINGS,
    Gateway,
    Net,
    gateway,
    wait_for,
    within,
)
from tests.support.intercept_policy import policy

OWN, OWN6 = "10.2.0.1", "fd00:2::1"
SERVER = "10.1.0.1"
PORT = 9999
OPEN, SECRET = 1080, 1081  # listeners

CONFIGURATION = f"""\
version = 1
[interfaces]
outside = "out0"
[dns]
resolvers = "127.0.0.1"
[socks]
socket = "s.sock"
[[socks.listener]]
address = "{SERVER}"
port = {OPEN}
[[socks.listener]]
address = "{SERVER}"
port = {SECRET}
encrypted = true
[[socks.rule]]
allow = true
clients = "{INSIDE}"
destinations = "10.9.0.3"
encrypted = true
"""

pytestmark = pytest.mark.netns


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    with Net() as net:
        yield net


@pytest.fixture(scope="module")
def server(net: Net, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Its status socket."""
    directory = tmp_path_factory.mktemp("socks")
    path = directory / "oegw.toml"
    path.write_text(CONFIGURATION)
    command = [sys.executable, "-m", "oegw", "socks", "serve", "--config", str(path)]
    with subprocess.Popen(["nsenter", f"--net=/run/netns/{net.gateway}", *command]) as process:
        try:
            wait_for(lambda: told(directory / "s.sock"), 20)
            yield directory / "s.sock"
        finally:
            process.terminate()


def told(path: Path) -> dict[str, Any] | None:
    try:
        return status(path, 1.0)
    except ControlError:
        return None


def decided(gate: Gateway, peer: str, verdict: Verdict) -> None:
    """As the coordinator would have it."""
    own = ip_network(OWN6 if ":" in peer else OWN)
    gate.call(
        gate.interception.install_policy, Scope(own, ip_network(peer)), verdict, 60,
        verdict is Verdict.TUNNEL,
    )  # fmt: skip


@contextmanager
def destination(net: Net, address: str) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET

    def listen() -> socket.socket:
        return socket.create_server((address, PORT), family=family)

    with within(net.outside, listen) as listening:
        yield listening


def through(net: Net, port: int, peer: str) -> socket.socket:
    return within(net.inside, lambda: connect(Proxy(SERVER, port), peer, PORT, timeout=10))


@pytest.mark.parametrize("peer", [PEER, PEER6])
def test_in_clear_is_refused_at_once_to_who_must_be_encrypted(
    net: Net, server: Path, peer: str
) -> None:
    with gateway(net, policy()) as gate, destination(net, peer):
        decided(gate, peer, Verdict.CLEAR)
        through(net, OPEN, peer).close()
        wire = net.capture(net.gateway, "out0")
        began = time.monotonic()
        with pytest.raises(PermissionError):  # REP 02
            through(net, SECRET, peer)
        assert time.monotonic() - began < 2
        # The end of the flow that was there before may still come.
        assert [each for each in wire.to(peer) if begins(each)] == []


def begins(packet: bytes) -> bool:
    """Whether TCP's SYN is set."""
    header = 20 if packet[0] >> 4 == 4 else 40
    return bool(packet[header + 13] & 0x02)


@pytest.mark.parametrize("peer", [PEER, PEER6])
def test_into_the_tunnel_it_goes(net: Net, server: Path, peer: str) -> None:
    tunnel, wire = net.capture(net.gateway, "tap0"), net.capture(net.gateway, "out0")
    with gateway(net, policy()) as gate:
        decided(gate, peer, Verdict.TUNNEL)
        with pytest.raises(TimeoutError):  # nobody answers there
            within(net.inside, lambda: connect(Proxy(SERVER, SECRET), peer, PORT, timeout=0.3))
        assert tunnel.to(peer)
        assert wire.to(peer) == []


def test_a_rule_may_demand_it(net: Net, server: Path) -> None:
    wire = net.capture(net.gateway, "out0")
    with gateway(net, policy()) as gate, destination(net, "10.9.0.3"):
        decided(gate, "10.9.0.3", Verdict.CLEAR)
        with pytest.raises(PermissionError):
            through(net, OPEN, "10.9.0.3")
        assert wire.to("10.9.0.3") == []


def test_datagrams_are_no_exception(net: Net, server: Path) -> None:
    there = net.udp(net.outside, PEER, PORT)
    with gateway(net, policy()) as gate:
        decided(gate, PEER, Verdict.CLEAR)
        wire = net.capture(net.gateway, "out0")  # without what another test's server still tries
        for port in (SECRET, OPEN):
            with within(net.inside, lambda p=port: udp(Proxy(SERVER, p))) as datagrams:  # type: ignore[misc]
                datagrams.send(f"{port}".encode(), PEER, PORT)
                if port == SECRET:
                    wait_for(lambda: gate.counters["unencrypted_refused"])
                    assert wire.to(PEER) == []
                else:
                    assert there.receive(5) == [f"{OPEN}"]


def test_who_comes_in_clear_to_a_bind_gets_no_answer(net: Net, server: Path) -> None:
    with gateway(net, policy()) as gate:
        decided(gate, PEER, Verdict.CLEAR)
        wire = net.capture(net.gateway, "out0")
        for port in (SECRET, OPEN):
            with within(net.inside, lambda p=port: Conversation(Proxy(SERVER, p))) as conversation:  # type: ignore[misc]
                there = conversation.bind(PEER)
                peer = within(net.outside, lambda: socket.socket())
                with peer:
                    peer.bind((PEER, 0))
                    peer.settimeout(0.3 if port == SECRET else 10)
                    if port == OPEN:
                        peer.connect((OWN, there.port))
                        continue
                    with pytest.raises(TimeoutError):
                        peer.connect((OWN, there.port))
                    assert wire.to(PEER) == []
                    assert gate.counters["unencrypted_refused"]


def test_without_the_guard_nothing_of_it_leaves(net: Net, server: Path) -> None:
    wire = net.capture(net.gateway, "out0")
    with destination(net, PEER):
        with pytest.raises(PermissionError):
            through(net, SECRET, PEER)
        assert wire.to(PEER) == []
        for peer in (PEER, "0.0.0.0"):
            conversation = within(net.inside, lambda: Conversation(Proxy(SERVER, SECRET)))
            with conversation, pytest.raises(PermissionError):
                conversation.bind(peer)
        through(net, OPEN, PEER).close()
        assert wire.to(PEER)


def test_a_connection_whose_tunnel_goes_away_does_not_go_on_in_clear(
    net: Net, server: Path
) -> None:
    """The destination is reached by what stands for a tunnel here: clear packets, exempt from the
    guard by the gateway's own mark, until the rule that sets it is gone."""
    own = SETTINGS.mark_mask
    with gateway(net, policy()) as gate, destination(net, PEER) as listening:
        decided(gate, PEER, Verdict.CLEAR)
        net.run(
            net.gateway, "nft",
            "table ip tunnel {\n chain out {\n type route hook output priority -170;\n"
            f"ip daddr {PEER} meta mark set meta mark | {own:#x}\n }}\n }}",
        )  # fmt: skip
        with through(net, SECRET, PEER) as sock:
            there, _ = listening.accept()
            sock.sendall(b"sealed")
            assert there.recv(100) == b"sealed"
            wire = net.capture(net.gateway, "out0")
            net.run(net.gateway, "nft", "delete table ip tunnel")
            sock.sendall(b"open")
            there.settimeout(0.5)
            with pytest.raises(TimeoutError):
                there.recv(100)
            assert [packet for packet in wire.to(PEER) if b"open" in packet] == []
            there.close()
