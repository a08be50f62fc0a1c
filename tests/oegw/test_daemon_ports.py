"""The daemon's part in port encryption: commands reach the service, its answers the coordinator."""

from __future__ import annotations

import asyncio
import resource
import socket
import time
from ipaddress import ip_address, ip_network
from typing import Any

from oegw import commands as do
from oegw import events as happened
from oegw.daemon import Daemon
from oegw.sst.interface import TunnelPorts
from oegw.trace import JsonTrace

HERE, THERE = ip_network("192.1.0.0/24"), ip_network("192.2.0.0/24")
SG_A, SG_B = ip_address("192.1.1.4"), ip_address("192.1.1.5")
KEY = bytes(range(16))


class Ports(TunnelPorts):
    """A service that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def tunnel_keyed(self, tunnel: int, local: Any, remote: Any, key: bytes) -> None:
        self.told.append(("keyed", tunnel, local, remote, key))

    def send_sealed(self, tunnel: int) -> None:
        self.told.append(("sealed", tunnel))

    def send_unsealed(self, tunnel: int) -> None:
        self.told.append(("unsealed", tunnel))

    def tunnel_closed(self, tunnel: int) -> None:
        self.told.append(("closed", tunnel))

    async def shield(self, local: Any, remote: Any) -> str | None:
        self.told.append(("shield", local, remote))
        return "the path clears the flag"

    def unshield(self, local: Any, remote: Any) -> None:
        self.told.append(("unshield", local, remote))

    def came_shielded(self, local: Any, remote: Any) -> bool:
        return (local, remote) == (SG_A, SG_B)


def a_daemon(ports: Ports | None) -> tuple[Daemon, list[Any]]:
    """As much of one as these commands touch."""
    daemon = object.__new__(Daemon)
    fed: list[Any] = []
    daemon.sst = ports  # type: ignore[assignment]
    daemon._tasks = set()
    daemon.feed = fed.append  # type: ignore[method-assign]
    return daemon, fed


def test_commands_reach_the_service_in_order() -> None:
    ports = Ports()
    daemon, _ = a_daemon(ports)
    daemon._execute(
        [
            do.SealTunnel(4, HERE, THERE, KEY), do.SendSealed(4), do.SendUnsealed(4),
            do.UnsealTunnel(4), do.UnshieldGateway(SG_A, SG_B),
        ]
    )  # fmt: skip
    assert ports.told == [
        ("keyed", 4, HERE, THERE, KEY), ("sealed", 4), ("unsealed", 4), ("closed", 4),
        ("unshield", SG_A, SG_B),
    ]  # fmt: skip


def test_the_answer_about_a_shield_is_an_event() -> None:
    async def ask(ports: Ports | None) -> list[Any]:
        daemon, fed = a_daemon(ports)
        daemon._execute([do.ShieldGateway(6, SG_A, SG_B)])
        assert not fed, "never before the command is over"
        await asyncio.gather(*daemon._tasks)
        return fed

    assert asyncio.run(ask(Ports())) == [happened.GatewayShielded(6, "the path clears the flag")]
    assert asyncio.run(ask(None)) == [happened.GatewayShielded(6, "port encryption does not run")]


def test_without_a_service_nothing_came_shielded_and_nothing_is_told() -> None:
    daemon, _ = a_daemon(None)
    assert not daemon._came_shielded(SG_A, SG_B)
    daemon._execute([do.UnsealTunnel(4), do.UnshieldGateway(SG_A, SG_B)])
    daemon, _ = a_daemon(Ports())
    assert daemon._came_shielded(SG_A, SG_B)
    assert not daemon._came_shielded(SG_B, SG_A)


def test_too_many_connections_to_the_forwarder_do_not_stop_the_gateway() -> None:
    """The loop says of itself that it had no file for one, and tries again."""

    async def run() -> None:
        trace = JsonTrace(None, time.time)
        daemon = object.__new__(Daemon)
        daemon.trace, daemon._exit_code, daemon._stopping = trace, 0, asyncio.Event()
        asyncio.get_running_loop().set_exception_handler(daemon._unexpected)
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        with socket.socket() as client:
            client.setblocking(False)
            client.connect_ex(server.sockets[0].getsockname())
            resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
            try:
                await asyncio.sleep(0.1)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, before)
        server.close()
        assert trace.counters["gateway.drop.connection_not_accepted"]
        assert not daemon._stopping.is_set()

    asyncio.run(run())
