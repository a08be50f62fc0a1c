"""Attacks with packets, on the ESP engines: row 20, and what else a datapath must not do."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from oegw.datapath.interface import UnknownSpiReceived
from oegw.datapath.userspace.engine import EngineSettings
from tests.attacks.frame import attack, replaced
from tests.oegw.datapath.userspace.test_engine import A4, B4, Pair, udp
from tests.support.datapath_engines import Engines
from tests.support.datapath_sas import arriving, make_sa, selector


@attack(
    20,
    "A packet through a valid tunnel, from an inner address that was not negotiated",
    source="RFC 4322 section 12.1",
    defence="oegw/datapath/userspace/selectors.py InnerSelectors.match",
    otherwise="a stranger with a tunnel of his own sends in anybody's name",
    without=replaced(
        (
            "oegw.datapath.userspace.selectors.InnerSelectors.match",
            lambda self, packet, layout: True,
        )
    ),
)
def inner_address_of_another() -> None:
    wide = make_sa(inner=(selector("192.1.0.0/24"), selector("192.2.0.0/24")))
    narrow = make_sa(inner=(selector(A4), selector(B4)))
    pair = Pair()
    pair.a.install(wide, 100.0)
    pair.b.install(arriving(narrow), 100.0)
    for source, destination in ((A4, "192.2.0.67"), ("192.1.0.66", B4), (B4, A4)):
        sent = pair.send(udp(source, destination))
        if not sent:
            continue
        assert pair.receive(sent[-1]) == [], source
    assert pair.b.counters["drop_in_selectors"] >= 1
    assert pair.through(udp(A4, B4)) is not None


@attack(
    20,
    "The same ESP packet again",
    source="RFC 4303 section 3.4.3",
    defence="oegw/datapath/userspace/replay.py ReplayWindow.fresh",
    otherwise="an order that was recorded is delivered again",
    without=replaced(
        ("oegw.datapath.userspace.replay.ReplayWindow.fresh", lambda self, sequence: True)
    ),
)
def esp_packet_again() -> None:
    pair = Pair(make_sa())
    [send] = pair.send(udp())
    assert pair.receive(send)
    assert pair.receive(send) == []
    assert pair.b.counters["drop_in_replay"] == 1


def _tell_each(self: Any, spi: int, source: bytes, destination: bytes, now: float) -> None:
    """InboundEngine._unknown_spi without limits."""
    self.events.append(UnknownSpiReceived(ip_address(source), ip_address(destination), spi))


@attack(
    22,
    "10,000 ESP packets with SPIs that there are not, from one source and from many",
    source="RFC 4322 section 3.2.6",
    defence="oegw/datapath/userspace/inbound.py InboundEngine._unknown_spi",
    otherwise="each is an event for the gateway to look into",
    without=replaced(("oegw.datapath.userspace.inbound.InboundEngine._unknown_spi", _tell_each)),
)
def unknown_spis() -> None:
    ours = ip_address("192.1.1.4").packed
    for sources, most in ((1, 1), (10_000, 100)):
        engine = Engines(EngineSettings(), lambda count: bytes(count))
        for number in range(10_000):
            source = (0x0A000000 + number % sources).to_bytes(4, "big")
            esp = (0x1000 + number).to_bytes(4, "big") + bytes(60)
            assert engine.inbound(esp, source, ours, 0, None, 100.0) == []
        assert len(engine.events) <= most
        assert engine.counters["drop_in_unknown_spi"] == 10_000
