"""The daemon as a whole: its start, its failures, new settings, and the parts that wait."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from oegw.keyfile import KeyFileError
from oegw.moniker.daemon import datagramdoor
from oegw.moniker.daemon.binding import bind
from oegw.moniker.interface import Entry, Lease, Owner, Service
from oegw.moniker.library.hostkey import HostKeys
from oegw.moniker.names import ServiceName, Version
from oegw.moniker.settings import (
    ClientSettings,
    FirewallSettings,
    GatewayInFront,
    HostSettings,
    MonikerSettings,
    ServiceRule,
)
from oegw.moniker.steps import OpenPort, Question, Reply, Silence, Source
from oegw.sst.keys import generate
from oegw.unixsocket import AddressTaken
from tests.support.moniker_daemon import (
    NONCE,
    PATIENCE,
    RunningDaemon,
    all_of,
    question,
    running,
    until,
)

LOCALHOST = ip_address("127.0.0.1")


def test_a_free_port_is_the_same_for_all() -> None:
    bound = bind((), 0)
    try:
        ports = {each.getsockname()[1] for each in (*bound.streams, *bound.datagrams)}
        assert ports == {bound.port}
        assert {each.family for each in bound.streams} == {socket.AF_INET, socket.AF_INET6}
        assert len(bound.datagrams) == 2
    finally:
        bound.close()


def test_an_address_that_is_not_ours_is_named() -> None:
    with pytest.raises(OSError, match=r"TCP port 0 of 192\.0\.2\.1: Cannot assign"):
        bind((ip_address("192.0.2.1"),), 0)


def test_only_the_addresses_that_are_named(tmp_path: Path) -> None:
    with running(tmp_path, addresses=(LOCALHOST,)) as daemon:
        assert " unknown" in daemon.says(question("x"))
        with pytest.raises(ConnectionRefusedError):
            daemon.stream("127.0.0.2")


def test_a_start_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    with running(tmp_path) as first:
        with bound_datagram() as other:
            port = other.getsockname()[1]
            with pytest.raises(OSError, match=f"UDP port {port} of 127"):
                RunningDaemon(MonikerSettings(port=port, addresses=(LOCALHOST,)))
        with pytest.raises(AddressTaken):  # by the socket of the first: the port is free again
            RunningDaemon(
                MonikerSettings(port=port, addresses=(LOCALHOST,), socket=first.settings.socket)
            )
        bind((LOCALHOST,), port).close()


def bound_datagram() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind(("127.0.0.1", 0))
    return made


def test_new_settings_take_effect_and_what_does_not_is_said(tmp_path: Path) -> None:
    with running(tmp_path) as daemon, daemon.application() as application:
        application.register("secret")
        assert daemon.answer("secret").startswith("+ ")
        key = generate(tmp_path / "x25519.pem")
        new = replace(
            daemon.settings, lease=7, rules=(ServiceRule(False, "s*"),), port=9,
            client=ClientSettings(encrypt="never"), private_key=tmp_path / "x25519.pem",
            firewall=FirewallSettings(deny=True),
        )  # fmt: skip
        notes = daemon.run(daemon.daemon.reload(new))
        assert [note.split()[1] for note in notes] == ["port", "firewall"]
        assert daemon.answer("secret").startswith("- denied")
        assert application.ask("policy")["encrypt"] == "never"
        status = application.ask("status")["status"]
        assert (status["key"], status["services"], status["firewall"]) == (
            key.key_id.hex(), 1, "none",
        )  # fmt: skip


def test_what_needs_a_restart_of_the_leases_is_said(tmp_path: Path) -> None:
    generate(tmp_path / "x25519.pem")
    with running(tmp_path, private_key=tmp_path / "x25519.pem") as daemon:
        host = HostSettings("inner", (ip_address("10.0.0.7"),), bytes(32), ("alice",))
        assert daemon.run(daemon.daemon.reload(replace(daemon.settings, hosts=(host,)))) == [
            "[moniker] the first host with a key is served from the next restart on",
            "[moniker] the first host with namespaces is served from the next restart on",
        ]


def test_a_gateway_whose_key_is_not_configured_has_it_in_the_dns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    async def look_up(_: HostKeys, host: str, address: object, seconds: float) -> bytes | None:
        asked.append(address)
        if len(asked) == 1:
            raise OSError("no name server")
        return None

    monkeypatch.setattr(HostKeys, "look_up", look_up)
    generate(tmp_path / "x25519.pem")
    with socket.socket() as gateway:
        gateway.bind(("127.0.0.1", 0))
        gateway.listen()
        with running(
            tmp_path,
            private_key=tmp_path / "x25519.pem",
            gateway=GatewayInFront(LOCALHOST, None, gateway.getsockname()[1]),
        ):
            until(lambda: len(asked) >= 2)  # and asks again
    assert set(asked) == {LOCALHOST}


def test_new_settings_that_can_not_be_had_change_nothing(tmp_path: Path) -> None:
    with running(tmp_path) as daemon, daemon.application() as application:
        application.register("secret")
        bad = replace(
            daemon.settings, private_key=tmp_path / "none.pem", rules=(ServiceRule(False),)
        )
        with pytest.raises(KeyFileError):
            daemon.run(daemon.daemon.reload(bad))
        assert daemon.answer("secret").startswith("+ ")


def test_a_question_that_the_gateway_in_front_passes_on_is_answered(tmp_path: Path) -> None:
    """MK-14: the line comes over the gateway's connection, and so does the answer."""
    with running(tmp_path) as daemon, daemon.application() as application:
        application.register("http")
        source = Source(ip_address("192.0.2.7"), ip_address("10.0.0.7"), protected=True)
        answer = daemon.daemon._answer_for_gateway
        assert daemon.run(answer(question("http"), source)).startswith(f"MON/1 + {NONCE} ")
        assert daemon.run(answer(question("ftp"), source)) == (
            f"MON/1 - {NONCE} unknown no such service"
        )


def test_the_status_fits_into_a_line_however_much_there_is(tmp_path: Path) -> None:
    with running(tmp_path) as daemon, daemon.application() as application:
        for number in range(500):
            daemon.trace.drop("moniker", f"a_rather_long_name_of_a_trigger_{number:05}")
        leases = [
            Lease(ip_address("2001:db8::" + "f" * 4), LOCALHOST, "tcp", 65535, 60, "x" * 255)
        ] * 500
        own = type("Own", (), {"leases": lambda self: leases, "packets": {}})()
        daemon.daemon._firewalls.own = own
        status = application.ask("status")["status"]
        assert status["more_leases"] + len(status["leases"]) == 500
        assert len(str(status)) < 16384


# ------------------------------------------------------------- what has to wait


STEP = OpenPort(
    Question(Source(LOCALHOST, LOCALHOST, datagram=True), NONCE, ServiceName("x"), None, 256),
    Entry(1, Service("x", Version.parse("1"), "tcp", 4000, "4"), Owner(1, 0, 0, "root"), 0.0),
    Lease(LOCALHOST, LOCALHOST, "tcp", 4000, 60, "x"),
)


class WaitingDesk:
    """Every question waits until `go` is set; the third's answer is that there is none."""

    def __init__(self, daemon: RunningDaemon) -> None:
        self.go: asyncio.Event = daemon.run(self._event())
        self.asked_for: list[bool] = []

    async def _event(self) -> asyncio.Event:
        return asyncio.Event()

    def asked(self, octets: bytes, source: Source, *, busy: bool) -> OpenPort:
        self.asked_for.append(busy)
        return STEP

    async def reply(self, step: OpenPort) -> Reply | Silence:
        await self.go.wait()
        return Reply(b"MON/1 opened", "moniker_answered")


def test_datagrams_that_wait_for_a_firewall_have_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datagramdoor, "WAITING", 4)
    with running(tmp_path) as daemon, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        desk = WaitingDesk(daemon)
        monkeypatch.setattr(daemon.daemon._datagrams, "_desk", desk)
        asker.settimeout(PATIENCE)
        asker.connect(("127.0.0.1", daemon.port))
        for _ in range(6):
            asker.send(b"x")
        until(lambda: daemon.counted("datagrams_waiting") == 2)
        assert desk.asked_for == [False, False, True, True, True, True]
        assert daemon.daemon.status()["waiting_datagrams"] == 4
        daemon.loop.call_soon_threadsafe(desk.go.set)
        assert [asker.recv(100) for _ in range(4)] == [b"MON/1 opened"] * 4


def test_what_waits_ends_with_the_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(tmp_path) as daemon, daemon.stream() as stream, \
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:  # fmt: skip
        desk = WaitingDesk(daemon)
        monkeypatch.setattr(daemon.daemon._datagrams, "_desk", desk)
        monkeypatch.setattr(daemon.daemon._streams, "_desk", desk)
        asker.connect(("127.0.0.1", daemon.port))
        asker.send(b"x")
        stream.sendall(b"x\n")
        until(lambda: len(desk.asked_for) == 2)
        daemon.run(daemon.daemon.close())
        assert all_of(stream) == b""


def test_a_host_that_asks_for_leases_keeps_its_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not one of the crowd, and its first line is not read twice."""
    seen: list[str] = []

    async def take(line: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(line)
        writer.write(await reader.readexactly(5))
        await writer.drain()
        await reader.read()
        writer.close()

    with running(tmp_path) as daemon:
        monkeypatch.setattr(daemon.daemon._streams, "_take_host", take)
        with daemon.stream() as host:
            host.sendall(b"MON/1 L hello\r\n12345")
            assert host.recv(5) == b"12345"
            until(lambda: len(daemon.daemon._streams) == 0)
            assert seen == ["MON/1 L hello"]
            host.shutdown(socket.SHUT_WR)
            assert all_of(host) == b""


def test_nobody_is_accepted_while_no_descriptor_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path) as daemon:
        accept = daemon.loop.sock_accept
        failures = iter([OSError(24, "Too many open files"), OSError(103, "aborted")])

        async def sometimes(listening: socket.socket) -> Any:
            found = await accept(listening)
            if (failure := next(failures, None)) is not None:
                found[0].close()
                raise failure
            return found

        monkeypatch.setattr(daemon.loop, "sock_accept", sometimes)
        for _ in range(3):  # the first still goes to the call that waits already
            daemon.says(question("x"))
        assert " unknown" in daemon.says(question("x"))
        assert daemon.counted("not_accepted") == 2
