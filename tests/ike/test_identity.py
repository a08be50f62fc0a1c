from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from ike.errors import InvalidIdentity
from ike.events import TrafficSelector
from ike.identity import Identification
from ike.wire import Reader, Writer


def octets(identification: Identification) -> bytes:
    writer = Writer()
    identification.serialize(writer)
    return writer.bytes()


PHASE_1 = [
    (ip_address("192.1.1.4"), "01 00 0000 c0010104"),
    (ip_address("2001:db8::1"), "05 00 0000 20010db8000000000000000000000001"),
    ("sg-a.example", "02 00 0000" + b"sg-a.example".hex()),
]


@pytest.mark.parametrize(("identity", "wire"), PHASE_1)
def test_phase_1_both_ways(identity, wire: str) -> None:
    assert octets(Identification.of_identity(identity)) == bytes.fromhex(wire)
    assert Identification.parse(Reader(bytes.fromhex(wire))).identity() == identity


PHASE_2 = [
    (TrafficSelector(ip_network("192.1.0.65/32")), "04 00 0000 c0010041 ffffffff"),
    (TrafficSelector(ip_network("192.0.0.0/9"), 6, 80), "04 06 0050 c0000000 ff800000"),
    (
        TrafficSelector(ip_network("2001:db8::1/128")),
        "06 00 0000 20010db8000000000000000000000001" + "ff" * 16,
    ),
    (TrafficSelector(ip_network("::/0")), "06 00 0000" + "00" * 32),
]


@pytest.mark.parametrize(("selector", "wire"), PHASE_2)
def test_phase_2_both_ways(selector, wire: str) -> None:
    assert octets(Identification.of_selector(selector)) == bytes.fromhex(wire)
    assert Identification.parse(Reader(bytes.fromhex(wire))).selector() == selector


def test_a_plain_address_is_a_host() -> None:
    selector = Identification.parse(Reader(bytes.fromhex("0111 0035 c0010041"))).selector()
    assert selector == TrafficSelector(ip_network("192.1.0.65/32"), 17, 53)


@pytest.mark.parametrize(
    "accepted", ["0111 01f4 c0010104", "0100 0000 c0010104", "0111 0000 c0010104"]
)
def test_udp_500_in_phase_1(accepted: str) -> None:
    identification = Identification.parse(Reader(bytes.fromhex(accepted)))
    assert identification.identity() == ip_address("192.1.1.4")


@pytest.mark.parametrize(
    "wire",
    [
        "0106 01f4 c0010104",  # TCP
        "0111 0001 c0010104",  # another port
        "0100 0000 c00101",
        "0100 0000 c001010400",
        "0500 0000 c0010104",
        "0200 0000",
        "0200 0000" + b"a..b".hex(),
        "0200 0000" + b"nul\x00.example".hex(),
        "0200 0000" + b"with space".hex(),
        "0200 0000" + "ff" * 8,
        "0200 0000" + b"a".hex() * 64,
        "0200 0000" + (b"a" * 60 + b".").hex() * 5,
        "0300 0000" + b"u@example".hex(),
        "0b00 0000 01020304",
    ],
)
def test_no_identity(wire: str) -> None:
    with pytest.raises(InvalidIdentity):
        Identification.parse(Reader(bytes.fromhex(wire))).identity()


@pytest.mark.parametrize(
    "wire",
    [
        "0400 0000 c0010041 ff00ff00",  # holes
        "0400 0000 c0010041 ffffff00",  # host bits
        "0600 0000 20010db8000000000000000000000001" + "ff" * 8 + "00" * 8,
        "0400 0000 c0010041 ffffff",
        "0400 0000",
        "0600 0000 c0010041 ffffffff",
        "0700 0000 c0010041 c0010042",
        "0200 0000" + b"bob.example".hex(),
    ],
)
def test_no_selector(wire: str) -> None:
    with pytest.raises(InvalidIdentity):
        Identification.parse(Reader(bytes.fromhex(wire))).selector()
