"""The engines, when peers move, when time runs out, and when tunnels overlap."""

from __future__ import annotations

import random
from dataclasses import replace
from ipaddress import ip_address

import pytest
from scapy.layers.inet import IP, UDP

from oegw.datapath.interface import (
    DatapathError,
    PeerAddressChanged,
    SaExpired,
    SecurityAssociation,
    UdpEncapsulation,
)
from oegw.datapath.userspace.engine import Deliver, EngineSettings, SendEsp
from oegw.datapath.userspace.esp import OutboundSa
from tests.support.datapath_engines import Engines
from tests.support.datapath_sas import (
    A4,
    B4,
    GATEWAY_A4,
    GATEWAY_A6,
    GATEWAY_B4,
    GATEWAY_B6,
    arriving,
    make_sa,
    selector,
)

HERE = ip_address(GATEWAY_B4).packed
HOME = ip_address(GATEWAY_A4)
ELSEWHERE = ip_address("203.0.113.9")
FARTHER = ip_address("203.0.113.10")
PACKET = bytes(IP(src=A4, dst=B4) / UDP(sport=1, dport=2) / b"text")
IN_UDP = make_sa(encapsulation=UdpEncapsulation())
NOW = 100.0


def engine(*sas: SecurityAssociation) -> Engines:
    built = Engines(EngineSettings(), random.Random(1).randbytes)
    for sa in sas:
        built.install(sa, NOW)
    return built


class Receiver:
    """An engine with an inbound SA in UDP, and its peer, who sends from wherever it likes."""

    def __init__(self, sa: SecurityAssociation = IN_UDP) -> None:
        self.key = arriving(sa).key
        self.engine = engine(arriving(sa))
        self.peer = OutboundSa(sa, random.randbytes)
        self.now = NOW

    def seal(self) -> bytes:
        return self.peer.seal(PACKET, 4)

    def receive(
        self,
        esp: bytes,
        address: object = HOME,
        port: int | None = 4500,
        after: float = 0.0,
    ) -> list[PeerAddressChanged]:
        """What is reported of a packet that comes ``after`` seconds."""
        self.now += after
        packed = ip_address(str(address)).packed
        self.delivered = self.engine.inbound(esp, packed, HERE, 0, port, self.now)
        events = [e for e in self.engine.events if isinstance(e, PeerAddressChanged)]
        self.engine.events.clear()
        return events


def test_a_packet_from_elsewhere_is_delivered_and_reported() -> None:
    receiver = Receiver()
    assert receiver.receive(receiver.seal()) == []
    for address, port in ((ELSEWHERE, 4500), (HOME, 61000), (FARTHER, 61001)):
        events = receiver.receive(receiver.seal(), address, port, after=1.0)
        assert events == [PeerAddressChanged(receiver.key, address, port)]
        assert receiver.delivered == [Deliver(PACKET)]


def test_each_change_is_reported_once_and_at_most_one_in_a_second() -> None:
    receiver = Receiver()

    def reported(address: object, after: float) -> bool:
        return bool(receiver.receive(receiver.seal(), address, after=after))

    assert reported(ELSEWHERE, 0)
    assert not any(reported(ELSEWHERE, 0.5) for _ in range(10))
    assert reported(FARTHER, 0)
    assert not reported(ELSEWHERE, 0.5)  # too soon
    assert reported(ELSEWHERE, 0.5)
    assert not reported(HOME, 5)  # where the SA says it is
    assert reported(ELSEWHERE, 0)  # and away again


def test_what_is_old_replayed_or_forged_moves_nobody() -> None:
    receiver = Receiver()
    late = receiver.seal()
    newest = receiver.seal()
    assert receiver.receive(newest) == []
    assert receiver.receive(late, ELSEWHERE) == []
    assert receiver.delivered == [Deliver(PACKET)]  # carried, for it is authentic
    assert receiver.receive(newest, ELSEWHERE) == []
    forged = bytearray(receiver.seal())
    forged[-1] ^= 1
    assert receiver.receive(bytes(forged), ELSEWHERE) == []
    assert receiver.engine.counters["drop_in_replay"] == 1
    assert receiver.engine.counters["drop_in_invalid"] == 1
    assert receiver.receive(receiver.seal(), ELSEWHERE) != []


def test_an_old_packet_does_not_move_the_peer_back() -> None:
    receiver = Receiver()
    late = receiver.seal()
    assert receiver.receive(receiver.seal(), ELSEWHERE) != []
    moved = UdpEncapsulation(4500, 4500)
    receiver.engine.move(receiver.key, ELSEWHERE, ip_address(GATEWAY_B4), moved)
    assert receiver.receive(late, HOME, after=5) == []
    assert receiver.receive(receiver.seal(), ELSEWHERE) == []


def test_newest_with_extended_numbers_over_a_subspace() -> None:
    receiver = Receiver(replace(IN_UDP, extended_sequence_numbers=True))
    for sequence in (2**31, 2**32 - 3):
        receiver.peer.sequence = sequence
        assert receiver.receive(receiver.seal()) == []
    late = receiver.seal()
    receiver.seal()
    over = receiver.seal()
    assert receiver.peer.sequence == 2**32 + 1
    assert receiver.receive(over, ELSEWHERE) != []
    assert receiver.receive(late, FARTHER, after=2) == []


def test_plain_esp_never_moves_anybody_and_is_not_taken_for_an_sa_in_udp() -> None:
    receiver = Receiver(make_sa())
    assert receiver.receive(receiver.seal(), ELSEWHERE, None) == []
    assert receiver.delivered == [Deliver(PACKET)]
    for receiver, port in ((Receiver(), None), (Receiver(make_sa()), 4500)):
        assert receiver.receive(receiver.seal(), ELSEWHERE, port) == []
        assert receiver.delivered == []
        assert receiver.engine.counters == {"drop_in_encapsulation": 1}


# --------------------------------------------------------------------------- move


def send(sender: Engines, now: float = NOW) -> SendEsp:
    action = sender.outbound(PACKET, now)[-1]
    assert isinstance(action, SendEsp)
    return action


def test_an_outbound_sa_goes_on_elsewhere() -> None:
    sender = engine(make_sa())
    sender.set_path_mtu(ip_address(GATEWAY_B4), 1000, NOW)
    narrow = send(sender).sa.mtu
    before = sender.usage()[make_sa().key]
    key = sender.move(make_sa().key, HOME, ELSEWHERE, UdpEncapsulation(4500, 61000))
    assert key == replace(make_sa().key, destination=ELSEWHERE)
    assert sender.usage() == {key: before}
    after = send(sender)
    assert (after.sa.sa.destination, after.sa.way) == (ELSEWHERE, None)
    assert after.payload[4:8] == (2).to_bytes(4, "big")
    assert after.sa.mtu > narrow  # of another path, with 8 octets of UDP
    wide = (1500 - 20 - 8 - 8 - 8 - 16) // 4 * 4 - 2
    assert after.sa.mtu == wide
    sender.set_path_mtu(ip_address(GATEWAY_B4), 576, NOW)
    assert send(sender).sa.mtu == wide
    sender.set_path_mtu(ELSEWHERE, 1200, NOW)
    assert send(sender).sa.mtu == wide - 300
    assert sender.remove(make_sa().key) is None
    assert sender.remove(key) is not None
    assert sender.outbound(PACKET, NOW) == []


def test_into_ipv6_and_back() -> None:
    sender = engine(make_sa())
    four = send(sender).sa.mtu
    six = ip_address(GATEWAY_A6), ip_address(GATEWAY_B6)
    key = sender.move(make_sa().key, *six, None)
    assert send(sender).sa.mtu == four - 20
    assert sender.move(key, HOME, ip_address(GATEWAY_B4), None) == make_sa().key
    assert send(sender).sa.mtu == four


def test_an_inbound_sa_keeps_its_window_when_our_address_changes() -> None:
    receiver = Receiver()
    seen, unseen = receiver.seal(), receiver.seal()
    receiver.receive(seen)
    key = receiver.engine.move(receiver.key, HOME, FARTHER, UdpEncapsulation())
    arrived = receiver.engine.inbound(seen, HOME.packed, FARTHER.packed, 0, 4500, NOW)
    assert arrived == []
    assert receiver.engine.counters["drop_in_replay"] == 1
    arrived = receiver.engine.inbound(unseen, HOME.packed, FARTHER.packed, 0, 4500, NOW)
    assert arrived == [Deliver(PACKET)]
    assert receiver.engine.usage()[key].packets == 2
    assert receiver.receive(receiver.seal()) == []
    assert receiver.engine.counters["drop_in_unknown_spi"] == 1  # at the old address


def test_moves_that_are_refused_change_nothing() -> None:
    taken = make_sa(destination=str(ELSEWHERE))
    sender = engine(make_sa(), taken)
    before = sender.usage()
    key, here = make_sa().key, ip_address(GATEWAY_A4)
    for refused in (
        (key, here, ELSEWHERE, None),  # the new name is taken
        (key, here, ip_address(GATEWAY_B6), None),  # two families
        (key, here, FARTHER, UdpEncapsulation(4500, 0)),
        (key, here, FARTHER, UdpEncapsulation(70000, 4500)),
        (replace(key, spi=0x9999), here, FARTHER, None),  # there is none
    ):
        with pytest.raises(DatapathError):
            sender.move(*refused)
    assert sender.usage() == before
    assert sender.remove(taken.key) is not None
    assert send(sender).sa.sa == make_sa()


def test_a_moved_sa_is_no_newer_than_before() -> None:
    sender = engine(make_sa(spi=0x1000), make_sa(spi=0x1001))
    sender.move(make_sa(spi=0x1000).key, HOME, FARTHER, None)
    assert send(sender).sa.key.spi == 0x1001


# --------------------------------------------------------------------------- time


def test_time_runs_out_softly_then_for_good() -> None:
    sa = make_sa(soft_seconds=60, hard_seconds=90)
    both = engine(sa, arriving(sa))
    keys = {sa.key, arriving(sa).key}
    assert both.next_deadline() == NOW + 60
    both.expire_due(NOW + 59.9)
    assert both.events == []
    both.expire_due(NOW + 60)
    assert set(both.events) == {SaExpired(key, hard=False) for key in keys}
    both.events.clear()
    esp = send(both, NOW + 89).payload
    late = send(both, NOW + 89).payload
    source = ip_address(GATEWAY_A4).packed
    assert both.inbound(esp, source, HERE, 0, None, NOW + 89)
    assert both.next_deadline() == NOW + 90
    both.expire_due(NOW + 90)
    assert set(both.events) == {SaExpired(key, hard=True) for key in keys}
    assert both.outbound(PACKET, NOW + 90) == []
    assert both.inbound(late, source, HERE, 0, None, NOW + 90) == []
    assert both.counters["drop_out_expired"] == both.counters["drop_in_expired"] == 1
    assert both.next_deadline() is None


def test_softened_by_octets_there_is_no_second_soft_event_by_time() -> None:
    sa = make_sa(soft_bytes=1, soft_seconds=60, hard_seconds=90)
    sender = engine(sa)
    send(sender)
    sender.expire_due(NOW + 60)
    assert sender.events == [SaExpired(sa.key, hard=False)]
    sender.expire_due(NOW + 95)
    assert sender.events == [SaExpired(sa.key, hard=False), SaExpired(sa.key, hard=True)]


@pytest.mark.parametrize(("soft", "hard"), [(None, 30), (30, None), (60, 30), (30, 30)])
def test_one_limit_alone(soft: int | None, hard: int | None) -> None:
    sa = make_sa(soft_seconds=soft, hard_seconds=hard)
    sender = engine(sa)
    sender.expire_due(NOW + 30)
    assert sender.events == [SaExpired(sa.key, hard=hard is not None)]
    assert sender.next_deadline() is None


def test_a_removed_sa_has_no_time_and_a_moved_one_keeps_it() -> None:
    sender = engine(make_sa(soft_seconds=60), make_sa(spi=0x1001, soft_seconds=70))
    sender.remove(make_sa().key)
    key = sender.move(make_sa(spi=0x1001).key, HOME, FARTHER, None)
    assert sender.next_deadline() == NOW + 70
    sender.expire_due(NOW + 80)
    assert sender.events == [SaExpired(key, hard=False)]


@pytest.mark.parametrize(("extended", "first"), [(False, 2**32 - 2**28), (True, 2**64 - 2**60)])
def test_a_replacement_is_asked_for_long_before_the_numbers_end(extended: bool, first: int) -> None:
    sa = make_sa(extended_sequence_numbers=extended)
    sender = engine(sa)
    send(sender).sa.sequence = first - 2
    send(sender)
    assert sender.events == []
    send(sender)
    assert sender.events == [SaExpired(sa.key, hard=False)]


# ---------------------------------------------------------------- configured tunnels


def test_a_configured_tunnel_comes_before_a_closer_opportunistic_one() -> None:
    networks = (selector("192.1.0.0/24"), selector("192.2.0.0/16"))
    sender = engine(
        make_sa(spi=0x1000, inner=networks, configured=True),
        make_sa(spi=0x1001),
        make_sa(spi=0x1002, inner=networks),
    )
    assert send(sender).sa.key.spi == 0x1000
    sender.remove(make_sa(spi=0x1000).key)
    assert send(sender).sa.key.spi == 0x1001
