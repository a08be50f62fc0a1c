"""ICMP errors about sealed packets: opened for who sent the packet, sealed for who forwarded it."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from scapy.layers.inet import ICMP, IP, IPerror, TCPerror, UDPerror
from scapy.layers.inet import TCP as TCP_LAYER
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6TimeExceeded, IPerror6, IPv6

from oegw.packet.ip import PacketError
from oegw.sst.packet import open_sealed, seal
from oegw.sst.permutation import NotEligible
from oegw.sst.place import Fragment
from oegw.sst.quote import open_quote, quote_of, seal_quote
from oegw.sst.settings import Ipv4Signal
from oegw.sst.signal import Signal
from tests.oegw.sst.test_permutation import keyed
from tests.oegw.sst.test_place import mutated
from tests.support.sst_packets import (
    DESTINATION_OPTIONS,
    MORE_FRAGMENTS,
    RESERVED,
    TCP,
    UDP,
    faults,
    fragments,
    icmp_error,
    ipv4,
    ipv6,
    options_header,
    packed,
    random_packet,
    tcp,
    udp,
)
from tests.support.sst_packets import ICMP as ICMP_NUMBER
from tests.support.sst_packets import ICMPV6 as ICMPV6_NUMBER

ONE, OTHER, ROUTER = packed("192.0.2.1"), packed("198.51.100.7"), packed("203.0.113.9")
ONE6, OTHER6 = packed("2001:db8:1::1"), packed("2001:db8:2::2")
ROUTER6 = packed("2001:db8:ffff::9")

KEYED = keyed()
FLAG = Signal()
DSCP = Signal(Ipv4Signal.DSCP, dscp=7, restored_dscp=0)

ERRORS4 = ((3, 1), (3, 3), (3, 4), (4, 0), (5, 1), (11, 0), (11, 1), (12, 0))
ERRORS6 = ((1, 0), (1, 4), (2, 0), (3, 0), (4, 1))

DATAGRAM = ipv4(ONE, OTHER, UDP, udp(ONE, OTHER, 500, 4500, b"payload"))
SEGMENT = ipv4(ONE, OTHER, TCP, tcp(ONE, OTHER, 40000, 443, b"payload"))
DATAGRAM6 = ipv6(ONE6, OTHER6, UDP, udp(ONE6, OTHER6, 500, 4500, b"payload"))


def error_about(packet: bytes, rng: random.Random, quoted: int | None = None) -> bytes:
    """Any error about it, by a router on the way."""
    version = packet[0] >> 4
    kind, code = rng.choice(ERRORS4 if version == 4 else ERRORS6)
    router = ROUTER if version == 4 else ROUTER6
    return icmp_error(packet, router, kind, code, quoted=quoted)


def opened(packet: bytes, signal: Signal = FLAG) -> bytes:
    return open_quote(packet, KEYED, signal)


def resealed(packet: bytes, signal: Signal = FLAG) -> bytes:
    return seal_quote(packet, KEYED, signal)


@pytest.mark.parametrize("signal", [FLAG, DSCP], ids=["flag", "dscp"])
def test_sst_19_a_quote_of_a_sealed_packet_becomes_one_of_the_packet(signal: Signal) -> None:
    """Whatever error and packet: the result is the error that the clear packet would get."""
    rng = random.Random(19)
    for _ in range(2000):
        made = random_packet(rng)
        wire = seal(made.packet, KEYED, signal)
        before = open_sealed(wire, KEYED, signal)  # with DF, and the code point that it gets
        kind, code = rng.choice(ERRORS4 if made.version == 4 else ERRORS6)
        router = ROUTER if made.version == 4 else ROUTER6
        towards = made.source
        expected = icmp_error(before, router, kind, code, towards=towards)
        error = opened(icmp_error(wire, router, kind, code, towards=towards), signal)
        assert error == expected
        assert faults(error) == []


def test_sst_19_a_too_big_error_names_the_socket_and_keeps_its_mtu() -> None:
    """As scapy reads it, which knows nothing of us."""
    wire = seal(SEGMENT, KEYED, FLAG)
    error = IP(opened(icmp_error(wire, ROUTER, 3, 4, rest=1400)))
    assert error[ICMP].nexthopmtu == 1400
    assert (error[TCPerror].sport, error[TCPerror].dport) == (40000, 443)
    assert error[IPerror].flags == "DF"
    assert error[TCPerror].chksum == IP(SEGMENT)[TCP_LAYER].chksum
    on_the_link = IP(icmp_error(wire, ROUTER, 3, 4, rest=1400))
    assert on_the_link[IPerror].flags == "DF+evil"
    assert 443 not in (on_the_link[TCPerror].sport, on_the_link[TCPerror].dport)

    wire = seal(DATAGRAM6, KEYED, FLAG)
    error6 = IPv6(opened(icmp_error(wire, ROUTER6, 1, 4)))
    assert error6[ICMPv6DestUnreach].code == 4
    assert (error6[UDPerror].sport, error6[UDPerror].dport) == (500, 4500)
    assert error6[IPerror6].tc == 0
    assert IPv6(opened(icmp_error(wire, ROUTER6, 3)))[ICMPv6TimeExceeded].code == 0


@pytest.mark.parametrize("signal", [FLAG, DSCP], ids=["flag", "dscp"])
def test_sst_20_an_outgoing_quote_of_an_opened_packet_shows_what_the_link_saw(
    signal: Signal,
) -> None:
    """The host that refuses quotes real ports; the link sees those that it saw before."""
    rng = random.Random(20)
    for _ in range(2000):
        made = random_packet(rng)
        wire = seal(made.packet, KEYED, signal)
        error = error_about(open_sealed(wire, KEYED, signal), rng)
        sealed = resealed(error, signal)
        place = quote_of(sealed)
        assert sealed[place.start : place.end] == wire[: place.end - place.start]
        assert faults(sealed) == []
        assert not signal.flagged(sealed)
        assert opened(sealed, signal) == error


def test_sst_20_the_packet_around_the_quote_loses_a_native_flag() -> None:
    error = bytearray(icmp_error(DATAGRAM6, ROUTER6, 1, 4))
    FLAG.flag(error)
    assert FLAG.flagged(error)
    assert not FLAG.flagged(resealed(bytes(error)))
    assert not FLAG.flagged(resealed(icmp_error(DATAGRAM, ROUTER, 3, 3)))


@pytest.mark.parametrize("clear", [DATAGRAM, SEGMENT, DATAGRAM6], ids=["udp", "tcp", "udp 6"])
def test_a_quote_may_end_anywhere_behind_the_ports(clear: bytes) -> None:
    """RFC 792 asks for 8 octets only; a checksum that is not all there stays as it is."""
    wire = seal(clear, KEYED, FLAG)
    before = open_sealed(wire, KEYED, FLAG)
    header = 20 if clear[0] >> 4 == 4 else 40
    kind, router = (11, ROUTER) if header == 20 else (3, ROUTER6)
    check = header + (16 if clear is SEGMENT else 6)
    for quoted in range(header + 4, len(wire) + 1):
        error = icmp_error(wire, router, kind, quoted=quoted)
        quote = bytearray(before[:quoted])
        if quoted < check + 2:
            quote[check:quoted] = wire[check:quoted]
        assert opened(error) == icmp_error(bytes(quote), router, kind, towards=clear_source(clear))
        assert faults(opened(error)) == []
        assert resealed(opened(error)) == error
    for quoted in range(header + 4):
        error = icmp_error(wire, router, kind, quoted=quoted)
        for change in (quote_of, opened, resealed):
            with pytest.raises(PacketError) as refused:
                change(error)
            assert refused.value.trigger == "quote_truncated"


def clear_source(packet: bytes) -> bytes:
    return packet[12:16] if packet[0] >> 4 == 4 else packet[8:24]


def test_a_quote_of_a_packet_longer_than_the_quote_is_whole_enough() -> None:
    long = ipv4(ONE, OTHER, UDP, udp(ONE, OTHER, 500, 4500, bytes(1400)))
    wire = seal(long, KEYED, FLAG)
    error = opened(icmp_error(wire, ROUTER, 3, 4))
    assert error == icmp_error(open_sealed(wire, KEYED, FLAG), ROUTER, 3, 4)
    assert len(error) == 576


@pytest.mark.parametrize("clear", [DATAGRAM, SEGMENT, DATAGRAM6], ids=["udp", "tcp", "udp 6"])
def test_extensions_behind_the_quote_stay(clear: bytes) -> None:
    """RFC 4884: the quote has a length then, and is padded with zeros."""
    wire = seal(clear, KEYED, FLAG)
    before = open_sealed(wire, KEYED, FLAG)
    router, kind = (ROUTER, 11) if clear[0] >> 4 == 4 else (ROUTER6, 3)
    extension = b"\x20\x00\xdf\xff" + bytes((0, 8, 1, 1)) + b"\x01\x02\x03\x04"
    error = opened(icmp_error(wire, router, kind, extension=extension))
    assert error == icmp_error(before, router, kind, extension=extension)
    assert faults(error) == []
    assert quote_of(error).end == quote_of(error).start + len(clear)


@pytest.mark.parametrize("version", [4, 6])
def test_a_quote_ends_where_extensions_begin(version: int) -> None:
    made = random_packet(random.Random(1), version=version, plain=True, longest=1000)
    assert len(made.packet) > 200
    router, kind = (ROUTER, 11) if version == 4 else (ROUTER6, 3)
    place = quote_of(icmp_error(made.packet, router, kind, extension=bytes(12)))
    assert place.end - place.start == 128


def test_a_quotes_length_is_heeded() -> None:
    """One that ends before the ports makes them no ports."""
    error = bytearray(icmp_error(DATAGRAM, ROUTER, 11, quoted=60))
    error[20 + 5] = 5  # words: 20 octets
    with pytest.raises(PacketError) as refused:
        quote_of(bytes(error))
    assert refused.value.trigger == "quote_truncated"
    error[20] = 4  # source quench has no such field
    assert quote_of(bytes(error)).source_port == 500


@pytest.mark.parametrize("check", [0, 1, 0xFFFE, 0xFFFF])
def test_a_quoted_udp_checksum_keeps_to_sst_7(check: int) -> None:
    clear = bytearray(ipv4(ONE, OTHER, UDP, udp(ONE, OTHER, 500, 4500), field=0x4000))
    clear[26:28] = check.to_bytes(2, "big")
    wire = seal(bytes(clear), KEYED, FLAG)
    error = icmp_error(wire, ROUTER, 3, 3)
    assert opened(error) == icmp_error(bytes(clear), ROUTER, 3, 3)
    assert resealed(opened(error)) == error


def test_a_quoted_header_with_an_old_checksum_stays_as_wrong_as_it_was() -> None:
    """A router may quote what it has already changed: TTL one less, checksum not."""
    wire = bytearray(seal(DATAGRAM, KEYED, FLAG))
    wire[8] -= 1
    error = opened(icmp_error(bytes(wire), ROUTER, 11))
    expected = bytearray(open_sealed(seal(DATAGRAM, KEYED, FLAG), KEYED, FLAG))
    expected[8] -= 1
    assert error == icmp_error(bytes(expected), ROUTER, 11)


def test_a_corrupt_error_stays_corrupt() -> None:
    for error in (icmp_error(DATAGRAM, ROUTER, 3, 3), icmp_error(DATAGRAM6, ROUTER6, 1, 4)):
        corrupt = bytearray(error)
        corrupt[-1] ^= 1
        assert faults(bytes(corrupt)) == faults(resealed(bytes(corrupt))) != []


def test_quotes_of_fragments() -> None:
    """The first has the ports; of a later one only the flag is put right."""
    long = ipv4(ONE, OTHER, UDP, udp(ONE, OTHER, 500, 4500, bytes(100)))
    for number, piece in enumerate(fragments(long, 48)):
        wire = seal(piece, KEYED, FLAG)
        error = icmp_error(wire, ROUTER, 11, 1)
        place = quote_of(error)
        assert place.fragment is (Fragment.LATER if number else Fragment.FIRST)
        assert FLAG.flagged(error, place.start)
        assert opened(error) == icmp_error(piece, ROUTER, 11, 1)
        assert resealed(opened(error)) == error


def test_the_place_of_a_quote_tells_whose_key_it_is() -> None:
    for clear, router, kind in ((DATAGRAM, ROUTER, 3), (DATAGRAM6, ROUTER6, 1)):
        error = icmp_error(seal(clear, KEYED, FLAG), router, kind)
        place = quote_of(error)
        assert (place.source, place.destination) in ((ONE, OTHER), (ONE6, OTHER6))
        assert FLAG.flagged(error, place.start)
        assert not FLAG.flagged(opened(error), place.start)


NESTED = icmp_error(DATAGRAM, ROUTER, 3, 3)
NESTED6 = icmp_error(DATAGRAM6, ROUTER6, 1, 4)
ECHO = ipv4(ONE, OTHER, ICMP_NUMBER, b"\x08\0\xf7\xff\0\0\0\0")
ECHO6 = ipv6(ONE6, OTHER6, ICMPV6_NUMBER, b"\x80\0\0\0\0\0\0\0")
NOT_OURS = {
    "nested": (icmp_error(NESTED, ONE, 3, 1), "sst_quote_nested"),
    "nested 6": (icmp_error(NESTED6, ONE6, 1, 0), "sst_quote_nested"),
    "nested thrice": (icmp_error(icmp_error(NESTED, ONE, 3), ROUTER, 3), "sst_quote_nested"),
    "quoted echo": (icmp_error(ECHO, ROUTER, 11), "sst_protocol"),
    "quoted echo 6": (icmp_error(ECHO6, ROUTER6, 3), "sst_protocol"),
    "quoted header of an echo": (icmp_error(ECHO, ROUTER, 11, quoted=20), "sst_protocol"),
    "quoted udp-lite": (
        icmp_error(ipv4(ONE, OTHER, 136, DATAGRAM[20:]), ROUTER, 3),
        "sst_udp_lite",
    ),
    "quoted source route": (
        icmp_error(ipv4(ONE, OTHER, UDP, DATAGRAM[20:], options=b"\x83\x03\x04"), ROUTER, 3),
        "sst_source_route",
    ),
    "quoted home address": (
        icmp_error(
            ipv6(
                ONE6,
                OTHER6,
                UDP,
                DATAGRAM6[40:],
                headers=((DESTINATION_OPTIONS, options_header(b"\xc9\x10" + ONE6)),),
            ),
            ROUTER6,
            1,
        ),
        "sst_home_address",
    ),
    "quoted port 0": (
        icmp_error(ipv4(ONE, OTHER, UDP, bytes(8)), ROUTER, 3),
        "sst_port_zero",
    ),
    "quoted multicast": (
        icmp_error(ipv4(ONE, packed("224.0.0.251"), UDP, DATAGRAM[20:]), ROUTER, 3),
        "sst_multicast",
    ),
    "echo": (ECHO, "sst_not_an_error"),
    "echo 6": (ECHO6, "sst_not_an_error"),
    "neighbour solicitation": (
        ipv6(ONE6, OTHER6, ICMPV6_NUMBER, b"\x87" + bytes(23)),
        "sst_not_an_error",
    ),
    "an error of no known form": (
        ipv6(ROUTER6, ONE6, ICMPV6_NUMBER, b"\x64" + bytes(7) + DATAGRAM6),
        "sst_not_an_error",
    ),
    "udp": (DATAGRAM, "sst_not_an_error"),
    "icmp in ipv6": (ipv6(ROUTER6, ONE6, 1, NESTED[20:]), "sst_not_an_error"),
    "icmpv6 in ipv4": (ipv4(ROUTER, ONE, 58, NESTED6[40:]), "sst_not_an_error"),
    "later fragment of an error": (
        ipv4(ROUTER, ONE, ICMP_NUMBER, NESTED[20:], field=2),
        "sst_not_an_error",
    ),
}
UNREADABLE = {
    "half an icmp header": (ipv4(ROUTER, ONE, ICMP_NUMBER, NESTED[20:27]), "packet_truncated"),
    "half an icmpv6 header": (
        ipv6(ROUTER6, ONE6, ICMPV6_NUMBER, NESTED6[40:47]),
        "packet_truncated",
    ),
    "no quote": (ipv4(ROUTER, ONE, ICMP_NUMBER, NESTED[20:28]), "quote_truncated"),
    "half a quoted header": (icmp_error(DATAGRAM, ROUTER, 3, quoted=19), "quote_truncated"),
    "half a quoted option": (
        icmp_error(ipv4(ONE, OTHER, UDP, bytes(8), options=bytes(8)), ROUTER, 3, quoted=26),
        "quote_truncated",
    ),
    "ipv6 in icmp": (ipv4(ROUTER, ONE, ICMP_NUMBER, NESTED[20:28] + DATAGRAM6), "quote_version"),
    "ipv4 in icmpv6": (
        ipv6(ROUTER6, ONE6, ICMPV6_NUMBER, NESTED6[40:48] + DATAGRAM),
        "quote_version",
    ),
    "quoted header length": (
        ipv4(ROUTER, ONE, ICMP_NUMBER, NESTED[20:28] + b"\x44" + DATAGRAM[1:]),
        "packet_length",
    ),
    "quoted total length within the ports": (
        ipv4(ROUTER, ONE, ICMP_NUMBER, NESTED[20:28] + b"\x45\0\0\x17" + DATAGRAM[4:]),
        "quote_truncated",
    ),
    "error cut": (NESTED[:-1], "packet_truncated"),
    "empty": (b"", "packet_truncated"),
}


@pytest.mark.parametrize("name", NOT_OURS)
def test_what_is_not_ours(name: str) -> None:
    packet, trigger = NOT_OURS[name]
    for change in (quote_of, opened, resealed):
        with pytest.raises(NotEligible) as refused:
            change(packet)
        assert refused.value.trigger == trigger


@pytest.mark.parametrize("name", UNREADABLE)
def test_unreadable(name: str) -> None:
    packet, trigger = UNREADABLE[name]
    for change in (quote_of, opened, resealed):
        with pytest.raises(PacketError) as refused:
            change(packet)
        assert refused.value.trigger == trigger


def test_a_fragmented_error_is_put_right_in_its_first_fragment() -> None:
    """Its checksum covers all of it, and follows what changes by the difference alone."""
    long = ipv4(ONE, OTHER, UDP, udp(ONE, OTHER, 500, 4500, bytes(400)))
    error = icmp_error(long, ROUTER, 3, 3)
    pieces = fragments(error, 200)
    whole = resealed(error)
    expected = fragments(whole, 200)
    assert resealed(pieces[0]) == expected[0]
    assert pieces[1:] == expected[1:]
    assert int.from_bytes(pieces[0][6:8], "big") == MORE_FRAGMENTS


def test_quotes_in_clear_are_sealed_only_when_told_to() -> None:
    """``seal_quote`` asks nobody; what it is given is known to be of an opened connection."""
    error = icmp_error(DATAGRAM, ROUTER, 3, 3)
    assert not FLAG.flagged(error, quote_of(error).start)
    assert int.from_bytes(resealed(error)[28 + 6 : 28 + 8], "big") & RESERVED


@pytest.mark.fuzz
def test_any_octets_are_an_error_put_right_or_refused_by_name() -> None:
    """100,000 inputs; what is sealed opens to the same ports again."""
    rng = random.Random(20261122)
    seeds = [error_about(random_packet(rng).packet, rng) for _ in range(300)]
    seeds += [error_about(random_packet(rng).packet, rng, rng.randrange(80)) for _ in range(100)]
    seeds += [packet for packet, _ in NOT_OURS.values()]
    seeds += [packet for packet, _ in UNREADABLE.values() if packet]
    signals = FLAG, DSCP
    done = 0
    triggers: Counter[str] = Counter()
    for number in range(100_000):
        octets = mutated(rng, seeds[number % len(seeds)])
        signal = signals[number % 2]
        try:
            place = quote_of(octets)
            sealed = resealed(octets, signal)
            back = quote_of(opened(sealed, signal))
        except (PacketError, NotEligible) as error:
            triggers[error.trigger] += 1
            with pytest.raises((PacketError, NotEligible)):
                opened(octets, signal)
        else:
            assert len(sealed) == len(octets)
            assert back == place
            done += 1
    assert done > 10_000
    assert triggers.total() > 10_000
    assert set(triggers) >= {trigger for _, trigger in (NOT_OURS | UNREADABLE).values()}
