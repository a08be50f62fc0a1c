"""SST-1 to SST-12 and SST-22, seen by a reader of packets that does not know the gateway's code.

Both ends have keys of their own, and what they have in common comes from the public ones.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from ipaddress import ip_address

import pytest

from oegw.sst import packet as packets
from oegw.sst.interface import Algorithm
from oegw.sst.permutation import Permutation
from oegw.sst.signal import Signal
from oegw.sst.statickey import StaticKey
from tests.support.sst_wire import ACK, SYN, TCP, UDP, Seen, around, look, segment

OURS, THEIRS = StaticKey(bytes(range(32))), StaticKey(bytes(range(1, 33)))
DAY = 20_000
SIGNAL = Signal()
PAIRS = (
    ("192.0.2.1", "198.51.100.7"),
    ("198.51.100.7", "192.0.2.1"),
    ("2001:db8:1::1", "2001:db8:2::2"),
    ("2001:db8:2::2", "2001:db8:1::1"),
)


@dataclass
class Sample:
    """A packet of chance, sealed by one end and opened by the other."""

    packet: bytes
    wire: bytes
    back: bytes
    was: Seen
    on_wire: Seen
    came: Seen


def sample(chance: random.Random, algorithm: Algorithm = Algorithm.FF1_AES_128) -> Sample:
    ours = _permutation(OURS, THEIRS, algorithm)
    theirs = _permutation(THEIRS, OURS, algorithm)
    source, destination = chance.choice(PAIRS)
    protocol = chance.choice((TCP, UDP))
    ports = chance.randrange(1, 65536), chance.choice((22, 53, 443, chance.randrange(1, 65536)))
    body = segment(
        source, destination, protocol, ports, chance.randbytes(chance.randrange(60)),
        flags=chance.choice((SYN, ACK, SYN | ACK)),
        zero_checksum=":" not in source and chance.random() < 0.1,
    )  # fmt: skip
    if ":" in source:
        filler = bytes((1, 4, 0, 0, 0, 0))  # PadN
        chain = tuple((kind, filler) for kind in (0, 60) if chance.random() < 0.3)
        packet = around(
            body, source, destination, protocol, extensions=chain, dscp=0,
            ecn=chance.randrange(4), ttl=chance.randrange(2, 255),
        )  # fmt: skip
    else:
        options = chance.choice((b"", b"", bytes((1, 1, 1, 0)), bytes((148, 4, 0, 0))))
        packet = around(
            body, source, destination, protocol, options=options, dscp=chance.randrange(64),
            ecn=chance.randrange(4), ttl=chance.randrange(2, 255),
            dont_fragment=chance.random() < 0.7, identification=chance.randrange(65536),
        )  # fmt: skip
    wire = packets.seal(packet, ours, SIGNAL)
    back = packets.open_sealed(wire, theirs, SIGNAL)
    return Sample(packet, wire, back, look(packet), look(wire), look(back))


def _permutation(mine: StaticKey, peer: StaticKey, algorithm: Algorithm) -> Permutation:
    return Permutation(mine.port_key(peer.public, algorithm, DAY))


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_sst_1_to_7_and_22_a_packet_there_and_back(algorithm: Algorithm) -> None:
    chance = random.Random(1)
    for _ in range(4000):
        one = sample(chance, algorithm)
        assert len(one.wire) == len(one.packet)  # SST-1
        assert one.on_wire.flagged  # SST-4, SST-5
        assert not one.came.flagged
        assert one.was.right
        assert one.on_wire.right  # SST-6, SST-12
        assert one.came.right
        assert one.came.ports == one.was.ports  # SST-2, SST-3
        assert one.on_wire.payload == one.was.payload
        assert one.on_wire.dont_fragment  # SST-21
        assert one.on_wire.ports is not None
        assert all(one.on_wire.ports)  # SST-10
        _only_these_changed(one)


def _only_these_changed(one: Sample) -> None:
    """SST-1 and SST-22: ports, checksums, flag and DF; nothing else, there or back."""
    start = len(one.packet) - len(one.was.body)
    check = start + (16 if one.was.protocol == TCP else 6)
    may = set(range(start, start + 4)) | {check, check + 1}
    may |= {6, 10, 11} if one.packet[0] >> 4 == 4 else {0, 1}
    differ = {
        place
        for place, pair in enumerate(zip(one.packet, one.wire, strict=True))
        if len(set(pair)) > 1
    }
    assert differ <= may
    ecn = one.packet[1] & 3 if one.packet[0] >> 4 == 4 else one.packet[1] >> 4 & 3
    wire = one.wire[1] & 3 if one.packet[0] >> 4 == 4 else one.wire[1] >> 4 & 3
    assert ecn == wire
    if one.packet[0] >> 4 == 4:
        assert one.packet[1] == one.wire[1]  # DSCP
    back = {
        place
        for place, pair in enumerate(zip(one.packet, one.back, strict=True))
        if len(set(pair)) > 1
    }
    df_was_clear = one.packet[0] >> 4 == 4 and not one.was.dont_fragment
    assert back <= ({6, 10, 11} if df_was_clear else set())


def test_sst_3_an_answer_carries_the_same_sealed_ports_swapped() -> None:
    chance = random.Random(2)
    ours = _permutation(OURS, THEIRS, Algorithm.FF1_AES_128)
    theirs = _permutation(THEIRS, OURS, Algorithm.FF1_AES_128)
    for _ in range(500):
        source, destination = (ip_address(each).packed for each in chance.choice(PAIRS))
        one, other = chance.randrange(1, 65536), chance.randrange(1, 65536)
        there = ours.seal_ports(source, destination, TCP, one, other)
        back = theirs.seal_ports(destination, source, TCP, other, one)
        assert there == back[::-1]


def test_sst_7_a_udp_checksum_of_zero_stays_and_none_becomes_zero() -> None:
    """Steered: packets whose checksum on the wire comes to 0xffff, which is the other zero."""
    ours = _permutation(OURS, THEIRS, Algorithm.FF1_AES_128)
    for source, destination in (PAIRS[0], PAIRS[2]):
        edge = 0
        for fill in range(65536):
            body = segment(source, destination, UDP, (5000, 53), fill.to_bytes(2, "big"))
            packet = around(body, source, destination, UDP)
            if not edge:  # what the last two octets must be for the sum on the wire to be zero
                wire = packets.seal(packet, ours, SIGNAL)
                check = int.from_bytes(look(wire).body[6:8], "big")
                edge = (fill + check) % 65535 or 65535
            if fill not in (edge % 65535, edge, 65535):
                continue
            wire = packets.seal(packet, ours, SIGNAL)
            assert look(wire).body[6:8] != b"\0\0"
            assert look(wire).right
            assert packets.open_sealed(wire, ours, SIGNAL) == packet
        none = segment(source, destination, UDP, (5000, 53), b"x", zero_checksum=True)
        wire = packets.seal(around(none, source, destination, UDP), ours, SIGNAL)
        assert look(wire).body[6:8] == b"\0\0"


def test_sst_8_and_9_ports_tell_nothing_of_each_other() -> None:
    """A bit changed in real or sealed ports changes 16 of the other 32 bits in the mean."""
    ours = _permutation(OURS, THEIRS, Algorithm.FF1_AES_128)
    here, there = (ip_address(each).packed for each in PAIRS[0])
    chance = random.Random(3)
    for way in (ours.seal_ports, ours.open_ports):
        changed: Counter[int] = Counter()
        samples = 0
        for _ in range(150):
            ports = chance.getrandbits(32)
            for bit in range(32):
                other = ports ^ 1 << bit
                if not all((ports >> 16, ports & 0xFFFF, other >> 16, other & 0xFFFF)):
                    continue
                one, two = (
                    way(here, there, TCP, each >> 16, each & 0xFFFF) for each in (ports, other)
                )
                difference = (one[0] ^ two[0]) << 16 | one[1] ^ two[1]
                samples += 1
                for place in range(32):
                    changed[place] += difference >> place & 1
        # Of about 4800 trials with a chance of a half; 7 standard deviations are 0.05.
        assert all(abs(changed[place] / samples - 0.5) < 0.05 for place in range(32))


def test_sst_11_another_key_day_algorithm_pair_or_protocol_is_another_permutation() -> None:
    third = StaticKey(bytes(range(2, 34)))
    made = {
        (peer.key_id, algorithm, day): Permutation(OURS.port_key(peer.public, algorithm, day))
        for peer in (THEIRS, third)
        for algorithm in Algorithm
        for day in (None, DAY, DAY + 1)
    }
    seen = [
        permutation.seal_ports(
            ip_address(source).packed, ip_address(destination).packed, protocol, 40000, 443
        )
        for permutation in made.values()
        for source, destination in (PAIRS[0], PAIRS[2], ("192.0.2.2", "198.51.100.7"))
        for protocol in (TCP, UDP)
    ]
    assert len(set(seen)) == len(seen) == 72
