"""What the supervisor hears: datagrams on a socket of ours, as systemd's would be."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from oegw.servicenotify import Service


class Supervisor:
    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.settimeout(5)

    def heard(self) -> list[str]:
        return self.socket.recv(4096).decode().split("\n")

    def hears_nothing(self) -> bool:
        self.socket.setblocking(False)
        try:
            self.socket.recv(4096)
        except BlockingIOError:
            return True
        return False


@pytest.fixture(params=["file", "abstract"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Supervisor, str]]:
    if request.param == "file":
        name = address = str(tmp_path / "notify")
    else:
        name = f"@oegw-test-{secrets.token_hex(8)}"
        address = "\0" + name[1:]
    supervisor = Supervisor(address)
    yield supervisor, name
    supervisor.socket.close()


def test_a_life_is_told(place: tuple[Supervisor, str]) -> None:
    supervisor, name = place
    service = Service(name, clock=lambda: 12.5)
    service.ready("2 connections")
    assert supervisor.heard() == ["READY=1", "STATUS=2 connections"]
    service.reloading()
    assert supervisor.heard() == ["RELOADING=1", "MONOTONIC_USEC=12500000"]
    service.stopping()
    assert supervisor.heard()[0] == "STOPPING=1"


def test_pings_come_from_the_loop_while_the_gateway_is_well(tmp_path: Path) -> None:
    supervisor = Supervisor(str(tmp_path / "notify"))
    well = True

    async def live() -> None:
        nonlocal well
        service = Service(str(tmp_path / "notify"), watchdog=0.03)
        service.attend(lambda: well, lambda: "fine")
        for _ in range(3):
            assert await asyncio.to_thread(supervisor.heard) == ["WATCHDOG=1", "STATUS=fine"]
        well = False
        await asyncio.sleep(0.03)  # one may be on its way
        while not supervisor.hears_nothing():
            pass
        await asyncio.sleep(0.05)  # the time of several
        assert supervisor.hears_nothing()
        well = True
        supervisor.socket.settimeout(5)
        assert (await asyncio.to_thread(supervisor.heard))[0] == "WATCHDOG=1"
        service.stopping()
        while (await asyncio.to_thread(supervisor.heard))[0] != "STOPPING=1":
            pass
        await asyncio.sleep(0.05)
        assert supervisor.hears_nothing()

    asyncio.run(live())
    supervisor.socket.close()


def test_a_loop_that_hangs_sends_no_ping(tmp_path: Path) -> None:
    supervisor = Supervisor(str(tmp_path / "notify"))

    async def live() -> None:
        Service(str(tmp_path / "notify"), watchdog=0.03).attend(lambda: True, lambda: "")
        assert supervisor.heard()[0] == "WATCHDOG=1"
        supervisor.socket.settimeout(0.1)  # the loop stands still for so long
        with pytest.raises(TimeoutError):
            supervisor.heard()

    asyncio.run(live())
    supervisor.socket.close()


@pytest.mark.parametrize("name", ["", "/nowhere/notify", "@oegw-nobody"])
def test_nobody_listens_and_nothing_happens(name: str) -> None:
    service = Service(name, watchdog=1.0)
    service.ready("")
    service.stopping()


def test_a_supervisor_that_does_not_read_does_not_hold_us_up(tmp_path: Path) -> None:
    supervisor = Supervisor(str(tmp_path / "notify"))
    service = Service(str(tmp_path / "notify"))
    for _ in range(1000):  # more than a socket takes
        service.ready("x" * 100)
    supervisor.socket.close()


@pytest.mark.parametrize(
    ("environment", "address", "interval"),
    [
        ({}, "", 0.0),
        ({"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "30000000"}, "/run/x", 10.0),
        ({"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "soon"}, "\0x", 0.0),
    ],
)
def test_the_environment_says_who_and_how_often(
    environment: dict[str, str], address: str, interval: float
) -> None:
    service = Service.of(environment)
    assert (service._address, service._interval) == (address, interval)
