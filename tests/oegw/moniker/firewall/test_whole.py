"""A gateway and a host behind it, both with their daemons, and a client outside who asks.

outside 10.9.0.2 --- 10.2.0.1 gateway 10.1.0.1 --- 10.1.0.2 inside
fd00:9::2            default deny                  services at random ports
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from oegw.moniker import wire
from oegw.moniker.daemon.service import Daemon
from oegw.moniker.settings import (
    FirewallSettings,
    GatewayInFront,
    HostSettings,
    MonikerSettings,
    ServiceRule,
)
from oegw.moniker.wire import Answer, Refusal
from oegw.sst.keys import generate
from tests.support.intercept_net import (
    INSIDE,
    INSIDE6,
    OTHER_PEER,
    PEER,
    PEER6,
    Net,
    wait_for,
)
from tests.support.moniker_daemon import NONCE, Application, all_of, question
from tests.support.moniker_net import Loop, connected, knock, listening, loop_in, silent

pytestmark = pytest.mark.netns

OURS, OURS6 = "10.2.0.1", "fd00:2::1"
RULES = (ServiceRule(False, "secret"),)


@dataclass
class Town:
    net: Net
    gateway: Daemon
    host: Daemon
    gateway_loop: Loop
    host_socket: Path

    def ask(
        self, service: str, host: str = INSIDE, source: str = PEER, **more: str
    ) -> Answer | Refusal:
        """One question over TCP."""
        with connected(self.net, host, 1, source, 5) as connection:
            connection.sendall(question(service, **more).encode() + b"\r\n")
            said = wire.parse(all_of(connection).decode().rstrip("\r\n"))
        assert isinstance(said, Answer | Refusal)
        return said

    @contextmanager
    def service(self, name: str, **more: Any) -> Iterator[tuple[Application, socket.socket]]:
        """Registered with the host's daemon, with a listening socket of the host's."""
        with listening(self.net.inside, "::") as server, Application(self.host_socket) as app:
            assert app.register(name, bound=server, **more)["ok"]
            yield app, server


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    place = tmp_path_factory.mktemp("moniker")
    gateway_key, host_key = generate(place / "gateway.x25519"), generate(place / "host.x25519")
    bob = HostSettings("bob", (ip_address(INSIDE), ip_address(INSIDE6)), host_key.public, ("bob",))
    at_gateway = MonikerSettings(
        socket=place / "gateway.sock",
        private_key=place / "gateway.x25519",
        rules=RULES,
        hosts=(bob,),
        firewall=FirewallSettings(deny=True, outside=("out0",)),
    )
    at_host = MonikerSettings(
        socket=place / "host.sock",
        private_key=place / "host.x25519",
        gateway=GatewayInFront(ip_address("10.1.0.1"), gateway_key.public),
    )
    with ExitStack() as undo:
        net = undo.enter_context(Net())
        daemons = []
        loops = []
        for namespace, settings in ((net.gateway, at_gateway), (net.inside, at_host)):
            loop = undo.enter_context(loop_in(namespace))
            daemon = loop.make(lambda s=settings, t=loop.trace: Daemon(s, t))
            loop.wait(daemon.start())
            undo.callback(lambda loop=loop, daemon=daemon: loop.wait(daemon.close()))
            daemons.append(daemon)
            loops.append(loop)
        wait_for(lambda: daemons[0].status()["hosts"] == ["bob"], 10)
        yield Town(net, *daemons, loops[0], at_host.socket)


def test_both_daemons_say_that_they_are_connected(town: Town) -> None:
    assert town.gateway.status()["hosts"] == ["bob"]
    asks = "asks 10.1.0.1 for ports: connected"
    wait_for(lambda: town.host.status()["gateway"] == asks, 10)


def test_a_daemon_without_a_firewall_takes_away_what_one_with_it_has_left(
    tmp_path: Path,
) -> None:
    """Else the status says that there is none, and nothing passes."""
    without = MonikerSettings(socket=tmp_path / "sock")
    deny = replace(without, firewall=FirewallSettings(deny=True, outside=("out0",)))
    with Net() as net, loop_in(net.gateway) as loop, listening(net.inside, "0.0.0.0", 4711):
        for settings, expected in ((deny, "silent"), (without, "open")):
            daemon = loop.make(lambda s=settings: Daemon(s, loop.trace))
            loop.wait(daemon.start())
            assert knock(net, INSIDE, 4711, PEER, 0.5) == expected
            loop.wait(daemon.close())
            assert knock(net, INSIDE, 4711, PEER, 0.5) == expected


def test_who_asks_the_host_gets_in_and_nobody_else(town: Town) -> None:
    with town.service("starwars") as (app, server):
        port = server.getsockname()[1]
        assert silent(town.net, INSIDE, port, PEER)
        said = town.ask("starwars")
        assert isinstance(said, Answer)
        assert (said.port, said.ttl, said.nonce) == (port, 60, NONCE)
        client = connected(town.net, INSIDE, port, PEER)
        accepted, _ = server.accept()
        assert silent(town.net, INSIDE, port, OTHER_PEER)
        leases = town.gateway.status()["leases"]
        assert [(row["service"], row["client"], row["port"]) for row in leases] == [
            ("starwars", PEER, port)
        ]
        number = app.ask("list")["services"][0]["number"]
        assert app.ask("unregister", number=number)["ok"]
        wait_for(lambda: knock(town.net, INSIDE, port, PEER) == "refused")
        assert not town.gateway.status()["leases"]
        client.sendall(b"use the force")
        assert accepted.recv(100) == b"use the force"
        client.close()
        accepted.close()


def test_the_status_counts_what_the_kernel_dropped(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oegw.moniker.firewall.ownfirewall.SWEEPS_TO_COUNT", 1)
    with town.service("starwars") as (_, server):
        assert silent(town.net, INSIDE, server.getsockname()[1], PEER)
    wait_for(lambda: town.gateway.status()["counters"].get("firewall.denied"), 10)


def test_a_server_that_is_killed_takes_its_leases(town: Town) -> None:
    with town.service("starwars") as (app, server):
        said = town.ask("starwars", host=INSIDE6, source=PEER6)
        assert isinstance(said, Answer)
        assert knock(town.net, INSIDE6, said.port, PEER6) == "open"
        app.connection.close()
        wait_for(lambda: knock(town.net, INSIDE6, said.port, PEER6) == "refused")
        assert not town.gateway.status()["leases"]
        assert server.fileno() >= 0  # it still listens; nobody gets there


def test_the_gateways_policy_counts_for_a_host_that_would_answer(town: Town) -> None:
    with town.service("secret") as (_, server):
        said = town.ask("secret")
        assert isinstance(said, Refusal)
        assert said.code is wire.Code.DENIED
        assert silent(town.net, INSIDE, server.getsockname()[1], PEER)
    dropped = [e for e in town.gateway_loop.events if e.get("trigger") == "lease_asked_denied"]
    assert [(each["asking"], each["service"]) for each in dropped] == [("bob", "secret")]


@pytest.mark.parametrize(("asked", "source"), [(OURS, PEER), (OURS6, PEER6)])
def test_a_namespace_behind_the_gateway(town: Town, asked: str, source: str) -> None:
    """MK-14: who asks the gateway for `bob::starwars` gets a port of the gateway's own."""
    with town.service("starwars", namespace="bob") as (_, server):
        said = town.ask("starwars", host=asked, source=source, namespace="bob")
        assert isinstance(said, Answer)
        assert said.port != server.getsockname()[1]
        assert said.families == str(ip_address(asked).version)
        client = connected(town.net, asked, said.port, source)
        accepted, peer = server.accept()
        assert ip_address(peer[0]) in (ip_address(source), ip_address(f"::ffff:{PEER}"))
        accepted.sendall(b"hello there")
        assert client.recv(100) == b"hello there"
        if source == PEER:
            assert knock(town.net, asked, said.port, OTHER_PEER) == "refused"
        client.close()
        accepted.close()
    wait_for(lambda: not town.gateway.status()["leases"])


def test_what_the_host_does_not_have_is_refused_in_its_words(town: Town) -> None:
    said = town.ask("lukes-diary", host=OURS, namespace="bob")
    assert isinstance(said, Refusal)
    assert said.code is wire.Code.UNKNOWN
    assert not town.gateway.status()["leases"]
