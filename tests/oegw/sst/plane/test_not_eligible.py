"""What can't be sealed leaves in clear where that is opportunistic, and not where it is required.

sst.md section 14.7, by the kernel's rules and whoever answers their questions.
"""

from __future__ import annotations

import struct

import pytest

from oegw.sst.permutation import NotEligible
from oegw.sst.place import place_of
from tests.support.intercept_net import INSIDE, INSIDE6, PEER, PEER6, Net, wait_for
from tests.support.sst_packets import (
    DESTINATION_OPTIONS,
    FRAGMENT,
    ICMP,
    ICMPV6,
    TCP,
    ipv4,
    ipv6,
    options_header,
    packed,
    tcp,
)
from tests.support.sst_plane import Link, deafen, only, running

pytestmark = pytest.mark.netns

FOUR = packed(INSIDE), packed(PEER)
SIX = packed(INSIDE6), packed(PEER6)
SEGMENT, SEGMENT6 = (tcp(*ends, 40000, 443, flags=2) for ends in (FOUR, SIX))
AUTHENTICATION = bytes((TCP, 4, 0, 0)) + struct.pack("!II", 0x1234, 1) + b"\xaa" * 12
IDENTITY = bytes((TCP, 2)) + bytes(22)  # the form of HIP's and Shim6's headers
FIRST = b"\0\0\0\1" + bytes(4)

PACKETS = {
    "authentication header": ipv4(*FOUR, 51, AUTHENTICATION + SEGMENT),
    "authentication header 6": ipv6(*SIX, TCP, SEGMENT6, headers=((51, AUTHENTICATION),)),
    "hip": ipv6(*SIX, TCP, SEGMENT6, headers=((139, IDENTITY),)),
    "shim6": ipv6(*SIX, TCP, SEGMENT6, headers=((140, IDENTITY),)),
    "sctp": ipv4(*FOUR, 132, SEGMENT),
    "sctp 6": ipv6(*SIX, 132, SEGMENT6),
    "dccp": ipv4(*FOUR, 33, SEGMENT),
    "udp-lite": ipv6(*SIX, 136, SEGMENT6),
    "home address": ipv6(
        *SIX,
        TCP,
        SEGMENT6,
        headers=((DESTINATION_OPTIONS, options_header(b"\xc9\x10" + SIX[0])),),
    ),
    "port 0": ipv4(*FOUR, TCP, b"\0\0" + SEGMENT[2:]),
    "first fragment without a checksum": ipv6(
        *SIX, TCP, SEGMENT6[:16], headers=((FRAGMENT, FIRST),)
    ),
}
# Has no ports, and always leaves; no queue delays it.
LAST = {
    4: ipv4(*FOUR, ICMP, b"\x08\0\xf7\xff\0\0\0\0"),
    6: ipv6(*SIX, ICMPV6, b"\x80" + bytes(7)),
}


@pytest.fixture
def net():
    with Net() as net:
        deafen(net, net.outside)
        yield net


def left(net, gate, packet: bytes) -> list[bytes]:
    """What came out at the other side once nothing waits any more."""
    version = packet[0] >> 4
    link = Link(net, net.inside, "in0", net.gateway)
    capture = net.capture(net.outside, "out0")

    def came(pings: int) -> list[bytes] | None:
        found = capture.to(PEER if version == 4 else PEER6)
        count = sum(aged(each) == aged(LAST[version]) for each in found)
        return found if count >= pings else None

    try:
        link.put(packet, LAST[version])
        wait_for(lambda: came(1))  # so the packet was seen by the rules, or by the queue
        wait_for(lambda: gate.counters["held"] == 0)
        link.put(LAST[version])
        return [p for p in wait_for(lambda: came(2)) if protocol(p) not in (ICMP, ICMPV6)]
    finally:
        capture.close()
        link.close()


def protocol(packet: bytes) -> int:
    return packet[9 if packet[0] >> 4 == 4 else 6]


def aged(packet: bytes) -> bytes:
    """Without what each router changes."""
    octets = bytearray(packet)
    octets[8 if packet[0] >> 4 == 4 else 7] = 0
    if packet[0] >> 4 == 4:
        octets[10:12] = b"\0\0"
    return bytes(octets)


def test_none_of_them_is_eligible():
    for packet in PACKETS.values():
        with pytest.raises(NotEligible):
            place_of(packet)


def test_sst_29_required_lets_none_of_them_out(net):
    with running(net.gateway, only(required=True)) as gate:
        found = {name: left(net, gate, packet) for name, packet in PACKETS.items()}
    assert found == {name: [] for name in PACKETS}


def test_sst_29_opportunistic_lets_them_out_as_they_are(net):
    with running(net.gateway, only()) as gate:
        gate.listener.declines = True
        found = {name: left(net, gate, packet) for name, packet in PACKETS.items()}
    for name, packet in PACKETS.items():
        assert [aged(each) for each in found[name]] == [aged(packet)], name
