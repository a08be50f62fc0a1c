"""The shell of port encryption over the plane in memory: look-ups, timers, answers, status."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from dnsrecords.outcome import SstKeyOutcome
from oegw.keyfile import KeyFileError
from oegw.sst.interface import IPAddress, Leg, SstError, Wish
from oegw.sst.keys import generate
from oegw.sst.memory import MemoryPlane
from oegw.sst.probe import payload_of
from oegw.sst.service import Given, SstService, read_keys
from oegw.sst.settings import SstSettings
from oegw.status import render
from policy.rule import Sst, SstStrength
from policy.table import PolicyTable
from tests.support.playbook import CountingTrace
from tests.support.sst_town import (
    GATE_A,
    GATE_B,
    HOST_A,
    HOST_B,
    INNER,
    KEY_B,
    NET_A,
    NET_B,
    ONLY,
    nothing,
    records,
)
from tests.support.sst_wire import TCP, build, look

ONLY_WISH = Wish(Sst.ONLY, SstStrength.OPPORTUNISTIC)


class Sent:
    """Stands where raw sockets do."""

    def __init__(self) -> None:
        self.packets: list[bytes] = []
        self.opened = False
        self.refuses = False

    def open(self) -> None:
        self.opened = True

    def send(self, packet: bytes, destination: IPAddress) -> None:
        if self.refuses:
            raise OSError(101, "Network is unreachable")
        self.packets.append(packet)

    def close(self) -> None:
        self.opened = False


class House:
    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
        path = tmp_path / "sst.x25519"
        generate(path)
        self.settings = SstSettings(private_key=path, patience=0.3, **settings)
        self.sent = Sent()
        self.trace = CountingTrace()
        self.outcome: SstKeyOutcome = records(GATE_B, KEY_B)
        self.asked: list[tuple[IPAddress, bool]] = []
        monkeypatch.setattr("oegw.sst.service.RawSender", lambda *_: self.sent)
        self.wish = ONLY_WISH
        self.plane = MemoryPlane(self.settings, time.monotonic)
        given = Given((GATE_A,), 0x30000, lambda flow: self.wish, self.look_up)
        self.service = SstService(self.settings, self.plane, given, self.trace)

    async def look_up(self, address: IPAddress, ours: bool) -> SstKeyOutcome:
        self.asked.append((address, ours))
        await asyncio.sleep(0)
        return self.outcome


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    return House(tmp_path, monkeypatch)


def played(house: House, work: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        await house.service.start(PolicyTable((), ONLY))
        try:
            await asyncio.wait_for(work(), 10)
        finally:
            await house.service.close()

    asyncio.run(run())


PACKET = build(HOST_A, HOST_B, TCP, 40000, 22)


def test_a_packet_leads_to_a_look_up_and_a_probe(house: House) -> None:
    async def work() -> None:
        house.plane.leave(PACKET)
        await until(lambda: house.sent.packets)
        assert house.asked == [(HOST_B, False)]
        seen = look(house.sent.packets[0])
        assert (seen.source, seen.destination, seen.flagged) == (GATE_A, GATE_B, True)
        assert payload_of(house.sent.packets[0])
        await until(lambda: house.plane.passed)  # nobody answers: the timer ends it
        assert [look(each.packet).flagged for each in house.plane.passed] == [False]

    played(house, work)
    assert not house.sent.opened


def test_probes_that_cannot_be_sent_are_counted(house: House) -> None:
    async def work() -> None:
        house.sent.refuses = True
        house.service.prepare(HOST_A, HOST_B)
        await until(lambda: house.trace.drops["probe_not_sent"])

    played(house, work)


def test_a_shield_is_answered(house: House) -> None:
    async def work() -> None:
        reason = await house.service.shield(GATE_A, GATE_B)
        assert reason is not None
        assert reason.startswith("path ") or reason == "no answer in time"
        house.outcome = nothing()
        house.service.forget(ip_network("192.1.1.5/32"))
        reason = await house.service.shield(GATE_A, GATE_B)
        assert reason is not None
        assert "no key" in reason
        assert not house.service.came_shielded(GATE_A, GATE_B)

    played(house, work)


def test_keys_of_ike_need_no_dns(house: House) -> None:
    async def work() -> None:
        await house.service.replace_policy(PolicyTable((), INNER))
        house.wish = Wish(Sst.INNER, SstStrength.REQUIRED)
        house.service.tunnel_keyed(1, NET_A, NET_B, bytes(16))
        house.service.send_sealed(1)
        house.plane.leave(PACKET, Leg.TUNNEL)
        assert [look(each.packet).flagged for each in house.plane.passed] == [True]
        assert house.service.snapshot()["tunnels"] == [
            {"local": "192.1.0.0/24", "remote": "192.2.0.0/24", "source": "ike", "sending": True}
        ]
        house.service.send_unsealed(1)
        house.service.tunnel_closed(1)
        house.service.policy_replaced()

    played(house, work)
    assert house.asked == []


def test_status_is_plain_values_and_readable(house: House) -> None:
    async def work() -> None:
        house.plane.leave(PACKET)
        await until(lambda: house.plane.passed)
        rows = house.service.snapshot()
        assert rows["peers"][0]["gateway"] == "192.1.1.5"
        assert rows["peers"][0]["source"] == "dns-address"
        assert rows["pairs"][0]["sealed"] is False
        text = " ".join(render({"sst": rows}).split())
        assert "Port encryption: own keys" in text
        assert "192.1.1.5 silent" in text
        assert "192.1.0.65 -> 192.2.0.66: ports not sealed: path silent" in text
        assert house.service.counters()["caught"] == 1
        assert house.service.report().fates[HOST_A, HOST_B].reason == "path silent"

    played(house, work)


def test_a_plane_that_does_not_start_leaves_no_socket(house: House) -> None:
    async def refuse(*_: object) -> None:
        raise SstError("the kernel refuses")

    house.plane.start = refuse  # type: ignore[assignment,method-assign]
    with pytest.raises(SstError):
        asyncio.run(house.service.start(PolicyTable((), ONLY)))
    assert not house.sent.opened


def test_keys_are_read_from_their_files(tmp_path: Path) -> None:
    new, old = tmp_path / "new", tmp_path / "old"
    keys = generate(new), generate(old)
    found = read_keys(SstSettings(private_key=new, old_keys=(old, new)))
    assert [key.key_id for key in found] == [key.key_id for key in keys]
    assert read_keys(SstSettings()) == ()
    with pytest.raises(KeyFileError):
        read_keys(SstSettings(private_key=tmp_path / "absent"))


async def until(condition: Callable[[], Any]) -> None:
    while not condition():
        await asyncio.sleep(0.005)
