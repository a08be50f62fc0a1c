"""Where ports are, what is not eligible, and that no octets do harm."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from oegw.packet.ip import PacketError
from oegw.sst.packet import open_sealed, seal
from oegw.sst.permutation import NotEligible
from oegw.sst.place import Fragment, place_of
from oegw.sst.routing import final_destination
from oegw.sst.settings import Ipv4Signal
from oegw.sst.signal import Signal
from tests.oegw.sst.test_permutation import keyed
from tests.support.sst_packets import (
    DESTINATION_OPTIONS,
    FRAGMENT,
    HOP_BY_HOP,
    MORE_FRAGMENTS,
    ROUTING,
    TCP,
    UDP,
    fragments,
    ipv4,
    ipv6,
    options_header,
    packed,
    random_packet,
    random_routing_header,
    routing_header,
    tcp,
    udp,
)

ONE, OTHER = packed("192.0.2.1"), packed("198.51.100.7")
ONE6, OTHER6 = packed("2001:db8:1::1"), packed("2001:db8:2::2")
STOP, STOP2 = packed("2001:db8:3::3"), packed("2001:db8:2::4")

DATAGRAM = udp(ONE, OTHER, 500, 4500, b"payload")
SEGMENT = tcp(ONE, OTHER, 40000, 443, b"payload")
DATAGRAM6 = udp(ONE6, OTHER6, 500, 4500, b"payload")
SEGMENT6 = tcp(ONE6, OTHER6, 40000, 443, b"payload")


def first_fragment(more: int = 1, offset: int = 0) -> tuple[int, bytes]:
    return FRAGMENT, bytes((0, 0)) + (offset << 3 | more).to_bytes(2, "big") + bytes(4)


def test_sst_2_the_ports_are_found_behind_options_and_extension_headers() -> None:
    rng = random.Random(2)
    for _ in range(3000):
        made = random_packet(rng)
        place = place_of(made.packet + rng.randbytes(rng.randrange(3)))  # link padding
        assert (place.version, place.start, place.end) == (made.version, 0, len(made.packet))
        assert (place.protocol, place.offset) == (made.protocol, made.offset)
        assert (place.source, place.destination) == (made.source, made.destination)
        assert (place.source_port, place.destination_port) == (
            made.source_port,
            made.destination_port,
        )
        assert place.fragment is (Fragment.FIRST if made.first_fragment else Fragment.WHOLE)


def test_later_fragments_have_a_place_without_ports() -> None:
    for packet in (ipv4(ONE, OTHER, UDP, DATAGRAM * 9), ipv6(ONE6, OTHER6, UDP, DATAGRAM6 * 9)):
        pieces = [place_of(piece) for piece in fragments(packet, 64)]
        assert [each.fragment for each in pieces] == [Fragment.FIRST, *[Fragment.LATER] * 2]
        assert pieces[0].source_port == 500
        assert {each.source_port for each in pieces[1:]} == {None}


def test_a_fragment_that_is_all_of_its_packet_is_whole() -> None:
    """RFC 6946."""
    packet = ipv6(ONE6, OTHER6, UDP, DATAGRAM6, headers=(first_fragment(more=0),))
    assert place_of(packet).fragment is Fragment.WHOLE


@pytest.mark.parametrize("kind", [0, 2, 3, 4])
def test_sst_2_the_final_destination_is_the_same_all_along_a_routing_header(kind: int) -> None:
    """Each stop swaps addresses, as its RFC says, and the tweak does not change."""
    rng = random.Random(kind)
    for _ in range(200):
        header, towards = random_routing_header(rng, OTHER6, kind)
        assert final_destination(header, towards) == OTHER6
        kept = 16 - (header[4] & 15) if kind == 3 else 16
        while header[3]:
            octets = bytearray(header)
            octets[3] -= 1
            count = (len(header) - 8) // kept
            index = octets[3] if kind == 4 else count - octets[3] - 1
            where = 8 + index * kept
            if kind == 4:  # RFC 8754 leaves the list as it is
                towards = header[where : where + 16]
            else:
                next_stop = towards[: 16 - kept] + header[where : where + kept]
                octets[where : where + kept] = towards[-kept:]
                towards = next_stop
            header = bytes(octets)
            assert final_destination(header, towards) == OTHER6


def test_a_reduced_segment_list_lacks_the_first_stop() -> None:
    """RFC 8754 section 4.1.1: Segments Left may be one more than Last Entry."""
    assert final_destination(routing_header(4, 1, [OTHER6]), STOP) == OTHER6


def routed(kind: int, left: int, addresses: list[bytes], kept: int = 16) -> tuple[int, bytes]:
    return ROUTING, routing_header(kind, left, addresses, kept)


def patched(header: tuple[int, bytes], place: int, value: int) -> tuple[int, bytes]:
    octets = bytearray(header[1])
    octets[place] = value
    return header[0], bytes(octets)


def six(*headers: tuple[int, bytes], protocol: int = UDP, payload: bytes = DATAGRAM6) -> bytes:
    return ipv6(ONE6, STOP, protocol, payload, headers=headers)


HOME_ADDRESS = b"\xc9\x10" + STOP
ELIGIBLE_ROUTING = {
    "unknown type, at its end": routed(200, 0, [OTHER6]),
    "type 0": routed(0, 1, [STOP2, OTHER6]),
    "type 4, nothing left": routed(4, 0, [OTHER6]),
}
NOT_ELIGIBLE = {
    "source route, loose": (
        ipv4(ONE, OTHER, UDP, DATAGRAM, options=b"\x83\x07\x04" + OTHER),
        "sst_source_route",
    ),
    "source route, strict, behind others": (
        ipv4(ONE, OTHER, UDP, DATAGRAM, options=b"\x01\x94\x04\0\0\x89\x07\x04" + OTHER),
        "sst_source_route",
    ),
    "option longer than the header": (
        ipv4(ONE, OTHER, UDP, DATAGRAM, options=b"\x94\x05\0\0"),
        "sst_malformed_option",
    ),
    "option of no length": (
        ipv4(ONE, OTHER, UDP, DATAGRAM, options=b"\x94\x00\0\0"),
        "sst_malformed_option",
    ),
    "option without a length": (
        ipv4(ONE, OTHER, UDP, DATAGRAM, options=b"\x01\x01\x01\x94"),
        "sst_malformed_option",
    ),
    "ah": (ipv4(ONE, OTHER, 51, bytes(32)), "sst_authentication_header"),
    "ah 6": (six(protocol=51, payload=bytes(32)), "sst_authentication_header"),
    "hip": (six(protocol=139, payload=bytes(32)), "sst_hip"),
    "shim6": (six(protocol=140, payload=bytes(32)), "sst_shim6"),
    "udp-lite": (ipv4(ONE, OTHER, 136, DATAGRAM), "sst_udp_lite"),
    "udp-lite 6": (six(protocol=136), "sst_udp_lite"),
    "dccp": (ipv4(ONE, OTHER, 33, bytes((1, 2, 3, 4)) * 4), "sst_dccp"),
    "dccp 6": (six(protocol=33), "sst_dccp"),
    "sctp": (ipv4(ONE, OTHER, 132, bytes((1, 2, 3, 4)) * 4), "sst_sctp"),
    "icmp": (ipv4(ONE, OTHER, 1, b"\x08\0\0\0\0\0\0\0"), "sst_protocol"),
    "esp": (ipv4(ONE, OTHER, 50, bytes(32)), "sst_protocol"),
    "mobility header": (six(protocol=135, payload=bytes(16)), "sst_protocol"),
    "no next header": (six(protocol=59, payload=b""), "sst_protocol"),
    "home address": (
        six((DESTINATION_OPTIONS, options_header(HOME_ADDRESS))),
        "sst_home_address",
    ),
    "home address behind others": (
        six((DESTINATION_OPTIONS, options_header(b"\0\x01\x00\x1e\x01\x05", HOME_ADDRESS))),
        "sst_home_address",
    ),
    "destination option longer than the header": (
        six((DESTINATION_OPTIONS, b"\0\0\x1e\x05\0\0\0\0")),
        "sst_malformed_option",
    ),
    "destination option without a length": (
        six((DESTINATION_OPTIONS, b"\0\0\0\0\0\0\0\x1e")),
        "sst_malformed_option",
    ),
    "routing type unknown": (six(routed(200, 1, [OTHER6])), "sst_routing_header"),
    "routing type 1": (six(routed(1, 1, [OTHER6])), "sst_routing_header"),
    "more stops left than there are": (six(routed(0, 2, [OTHER6])), "sst_routing_header"),
    "no stops": (six((ROUTING, bytes((0, 0, 0, 1, 0, 0, 0, 0)))), "sst_routing_header"),
    "half an address": (six((ROUTING, bytes((0, 1, 0, 1)) + bytes(12))), "sst_routing_header"),
    "type 2 with two": (six(routed(2, 1, [STOP2, OTHER6])), "sst_routing_header"),
    "type 2 with two left": (six(routed(2, 2, [OTHER6])), "sst_routing_header"),
    "type 3 with a pad that leaves half an address": (
        six(patched(routed(3, 1, [STOP2, OTHER6]), 5, 0x30)),
        "sst_routing_header",
    ),
    "type 3 without room for the last": (
        six((ROUTING, bytes((0, 1, 3, 1)) + bytes(12))),
        "sst_routing_header",
    ),
    "type 3 with more left": (six(routed(3, 3, [STOP2, OTHER6])), "sst_routing_header"),
    "type 4 with a last entry beyond": (
        six(patched(routed(4, 1, [OTHER6]), 4, 1)),
        "sst_routing_header",
    ),
    "type 4 with more left": (six(routed(4, 3, [OTHER6])), "sst_routing_header"),
    "two routing headers": (
        six(routed(0, 0, [OTHER6]), routed(0, 0, [OTHER6])),
        "sst_routing_header",
    ),
    "first fragment without a tcp checksum": (
        ipv4(ONE, OTHER, TCP, SEGMENT[:16], field=MORE_FRAGMENTS),
        "sst_short_first_fragment",
    ),
    "first fragment with half a tcp checksum": (
        ipv4(ONE, OTHER, TCP, SEGMENT[:17], field=MORE_FRAGMENTS),
        "sst_short_first_fragment",
    ),
    "first fragment with half the ports": (
        ipv4(ONE, OTHER, TCP, SEGMENT[:2], field=MORE_FRAGMENTS),
        "sst_short_first_fragment",
    ),
    "first fragment 6 without a tcp checksum": (
        six(first_fragment(), protocol=TCP, payload=SEGMENT6[:16]),
        "sst_short_first_fragment",
    ),
    "first fragment 6 that ends in its headers": (
        six(first_fragment(), protocol=DESTINATION_OPTIONS, payload=b"\x11\x01" + bytes(6)),
        "sst_short_first_fragment",
    ),
    "first fragment 6 that ends before its headers": (
        six(first_fragment(), protocol=DESTINATION_OPTIONS, payload=b""),
        "sst_short_first_fragment",
    ),
    "later fragment of another protocol": (
        ipv4(ONE, OTHER, 1, bytes(16), field=100),
        "sst_protocol",
    ),
    "later fragment behind headers that it does not show": (
        six(first_fragment(offset=100), protocol=DESTINATION_OPTIONS, payload=bytes(16)),
        "sst_protocol",
    ),
    "later fragment to a group": (
        ipv4(ONE, packed("224.0.0.251"), UDP, bytes(16), field=100),
        "sst_multicast",
    ),
    "port 0": (ipv4(ONE, OTHER, UDP, b"\0\0" + DATAGRAM[2:]), "sst_port_zero"),
    "port 0 6": (six(payload=DATAGRAM6[:2] + b"\0\0" + DATAGRAM6[4:]), "sst_port_zero"),
    "equal addresses": (ipv4(ONE, ONE, UDP, DATAGRAM), "sst_equal_addresses"),
    "equal addresses at the end of the route": (
        six(routed(0, 1, [ONE6])),
        "sst_equal_addresses",
    ),
    "multicast": (ipv4(ONE, packed("224.0.0.251"), UDP, DATAGRAM), "sst_multicast"),
    "broadcast": (ipv4(ONE, b"\xff" * 4, UDP, DATAGRAM), "sst_broadcast"),
}
UNREADABLE = {
    "empty": (b"", "packet_truncated"),
    "version": (b"\x55" * 60, "packet_version"),
    "header length": (b"\x44" + bytes(40), "packet_length"),
    "total length within the header": (b"\x46\0\0\x14" + bytes(40), "packet_length"),
    "half a tcp header": (ipv4(ONE, OTHER, TCP, SEGMENT[:19]), "packet_truncated"),
    "half a udp header": (ipv4(ONE, OTHER, UDP, DATAGRAM[:7]), "packet_truncated"),
    "half a udp header 6": (six(payload=DATAGRAM6[:7]), "packet_truncated"),
    "ports overwritten": (
        ipv4(ONE, OTHER, TCP, bytes(16), field=1),
        "packet_overlapping_fragment",
    ),
    "ports overwritten 6": (
        six(first_fragment(offset=1), protocol=TCP, payload=bytes(16)),
        "packet_overlapping_fragment",
    ),
    "too many headers": (
        six(*[(HOP_BY_HOP, options_header())] * 9),
        "packet_extension_headers",
    ),
    "a fragment of a fragment": (
        six(first_fragment(more=0), first_fragment(more=0)),
        "packet_extension_headers",
    ),
    "routing header beyond the end": (
        six((ROUTING, routing_header(4, 1, [STOP2, OTHER6])[:8]), payload=b""),
        "packet_truncated",
    ),
    "header beyond the end": (
        six((DESTINATION_OPTIONS, b"\x11\x09" + bytes(6)), payload=b""),
        "packet_truncated",
    ),
}


@pytest.mark.parametrize("name", NOT_ELIGIBLE)
def test_not_eligible(name: str) -> None:
    packet, trigger = NOT_ELIGIBLE[name]
    for read in (place_of, lambda octets: seal(octets, keyed(), Signal())):
        with pytest.raises(NotEligible) as refused:
            read(packet)
        assert refused.value.trigger == trigger
    with pytest.raises(NotEligible):
        open_sealed(packet, keyed(), Signal())


@pytest.mark.parametrize("name", UNREADABLE)
def test_unreadable(name: str) -> None:
    packet, trigger = UNREADABLE[name]
    with pytest.raises(PacketError) as refused:
        place_of(packet)
    assert refused.value.trigger == trigger


@pytest.mark.parametrize("name", ELIGIBLE_ROUTING)
def test_routing_headers_whose_end_is_known(name: str) -> None:
    place = place_of(six(ELIGIBLE_ROUTING[name]))
    assert place.destination == (OTHER6 if name == "type 0" else STOP)


@pytest.mark.parametrize(
    "packet",
    [
        ipv4(ONE, OTHER, TCP, SEGMENT, options=b"\x94\x04\0\0"),
        six(
            (HOP_BY_HOP, options_header()),
            routed(4, 1, [STOP2, OTHER6]),
            (DESTINATION_OPTIONS, options_header()),
        ),
    ],
    ids=["ipv4", "ipv6"],
)
def test_truncated_at_every_length(packet: bytes) -> None:
    for length in range(len(packet)):
        with pytest.raises(PacketError) as refused:
            place_of(packet[:length])
        assert refused.value.trigger == "packet_truncated"


def mutated(rng: random.Random, octets: bytes) -> bytes:
    """Some octets changed, the end cut off, or something else altogether."""
    changed = bytearray(octets)
    for _ in range(rng.randrange(1, 6)):
        # Most of what is decided stands in the first 100 octets.
        changed[rng.randrange(min(len(changed), rng.choice((100, 2000))))] = rng.randrange(256)
    if rng.random() < 0.3:
        del changed[rng.randrange(len(changed) + 1) :]
    elif rng.random() < 0.1:
        changed = bytearray(rng.randbytes(rng.randrange(120)))
    return bytes(changed)


@pytest.mark.fuzz
def test_any_octets_are_sealed_and_opened_or_refused_by_name() -> None:
    """100,000 inputs; what is sealed has its length, and opens to the same ports again."""
    rng = random.Random(20261121)
    permutation = keyed()
    signals = (Signal(), Signal(Ipv4Signal.DSCP, 7, 1))
    seeds = [random_packet(rng).packet for _ in range(300)]
    seeds += [packet for packet, _ in NOT_ELIGIBLE.values()]
    seeds += [packet for packet, _ in UNREADABLE.values() if packet]
    seeds += fragments(ipv4(ONE, OTHER, UDP, DATAGRAM * 9), 64)
    sealed = 0
    triggers: Counter[str] = Counter()
    for number in range(100_000):
        octets = mutated(rng, seeds[number % len(seeds)])
        signal = signals[number % 2]
        try:
            place = place_of(octets)
            on_the_wire = seal(octets, permutation, signal)
            back = place_of(open_sealed(on_the_wire, permutation, signal))
        except (PacketError, NotEligible) as error:
            triggers[error.trigger] += 1
            with pytest.raises((PacketError, NotEligible)):
                open_sealed(octets, permutation, signal)
        else:
            assert len(on_the_wire) == len(octets)
            assert signal.flagged(on_the_wire)
            assert back == place
            sealed += 1
    assert sealed > 10_000
    assert triggers.total() > 10_000
    assert set(triggers) == {trigger for _, trigger in (NOT_ELIGIBLE | UNREADABLE).values()}
