"""Attacks on encrypted ports by whoever sees and forges packets: the permutation and the packet."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from oegw.sst import packet as packets
from oegw.sst.interface import Algorithm, PortKey
from oegw.sst.permutation import Permutation
from oegw.sst.signal import Signal
from tests.attacks.frame import SST, attack, replaced
from tests.support.sst_wire import TCP, UDP, build, look, ones_sum

ALICE, MALLET, BOB = "192.0.2.1", "192.0.2.66", "198.51.100.7"
ALICE6, MALLET6, BOB6 = "2001:db8:1::1", "2001:db8:1::66", "2001:db8:2::2"
HERE, THERE = ip_address(ALICE).packed, ip_address(BOB).packed
SIGNAL = Signal()
SSH, HTTPS = 22, 443

_seal, _open = Permutation.seal_ports, Permutation.open_ports


def _permutation() -> Permutation:
    return Permutation(PortKey(Algorithm.FF1_AES_128, bytes(range(16))))


def _mask(
    self: Permutation, source: bytes, destination: bytes, protocol: int, one: int, other: int
) -> tuple[int, int]:
    """The obvious cheap cipher: a mask for each pair of hosts, its own inverse."""
    low = _seal(self, min(source, destination), max(source, destination), protocol, 1, 1)
    here, there = low if source < destination else low[::-1]
    return one ^ here, other ^ there


@attack(
    SST,
    "Bits of a sealed port are flipped, to turn a known flow to port 443 into one to port 22",
    source="design, section 2 (a mask made of the addresses)",
    defence="oegw/sst/permutation.py Permutation.open_ports",
    otherwise="who knows what one flow is reaches every port that he likes, with packets for it",
    without=replaced(
        ("oegw.sst.permutation.Permutation.seal_ports", _mask),
        ("oegw.sst.permutation.Permutation.open_ports", _mask),
    ),
)
def flipped_bits() -> None:
    ours = _permutation()
    hits = 0
    for port in range(40000, 42000):
        wire = bytearray(packets.seal(build(ALICE, BOB, TCP, port, HTTPS), ours, SIGNAL))
        for place, change in enumerate((HTTPS ^ SSH).to_bytes(2, "big"), 22):
            wire[place] ^= change
        seen = look(packets.open_sealed(bytes(wire), ours, SIGNAL))
        assert seen.ports is not None
        hits += seen.ports[1] == SSH
    assert hits <= 2, f"{hits} of 2000 changed packets came where they were aimed"


@attack(
    SST,
    "20,000 packets with a forged flag, aimed at port 22",
    source="design: a blind chance of 2^-16",
    defence="oegw/sst/permutation.py Permutation.open_ports",
    otherwise="the flag is a way around every filter of ports",
    without=replaced(
        (
            "oegw.sst.permutation.Permutation.open_ports",
            lambda self, source, destination, protocol, one, other: (one, other),
        )
    ),
)
def forged_flags() -> None:
    ours, chance = _permutation(), random.Random(1)
    reached: Counter[int] = Counter()
    for _ in range(20_000):
        forged = build(ALICE, BOB, TCP, chance.randrange(1, 65536), SSH, flagged=True)
        seen = look(packets.open_sealed(forged, ours, SIGNAL))
        assert seen.ports is not None
        reached[seen.ports[1]] += 1
    # 0.3 are to be expected at each port; more than 6 at one of 65536 once in a million times.
    assert reached[SSH] <= 6, f"{reached[SSH]} of 20000 came in at port 22"
    assert max(reached.values()) <= 9, reached.most_common(3)


def _whoever(way: Callable[..., tuple[int, int]]) -> Any:
    """Sealing and opening without the addresses in the tweak."""

    def ports(
        self: Permutation, source: bytes, destination: bytes, protocol: int, one: int, other: int
    ) -> tuple[int, int]:
        low, high = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))
        pair = (low, high) if source < destination else (high, low)
        return way(self, *pair, TCP, one, other)

    return ports


@attack(
    SST,
    "An insider has the port map of his own address made, and reads his neighbour's flows with it",
    source="design, codebook",
    defence="oegw/sst/permutation.py Permutation.seal_ports",
    otherwise="one host that may send is enough to read the ports of all others",
    without=replaced(
        ("oegw.sst.permutation.Permutation.seal_ports", _whoever(_seal)),
        ("oegw.sst.permutation.Permutation.open_ports", _whoever(_open)),
    ),
)
def codebook_of_a_neighbour() -> None:
    ours = _permutation()
    for source, mallet, destination in ((ALICE, MALLET, BOB), (ALICE6, MALLET6, BOB6)):
        for protocol in (TCP, UDP):
            book = {}
            for port in range(40000, 40500):
                mine = packets.seal(build(mallet, destination, protocol, port, 53), ours, SIGNAL)
                book[look(mine).ports] = port, 53
            read = 0
            for other in (TCP, UDP):
                for port in range(40000, 40500):
                    wire = packets.seal(build(source, destination, other, port, 53), ours, SIGNAL)
                    read += book.get(look(wire).ports) == (port, 53)
            assert read == 0, f"{read} of 1000 flows were in the insider's book"


def _sealed_destination(
    self: Permutation, source: bytes, destination: bytes, protocol: int, one: int, other: int
) -> tuple[int, int]:
    return one, _seal(self, source, destination, protocol, 1, other)[1]


@attack(
    SST,
    "An observer counts sealed ports: which flows are for the same service?",
    source="design, section 2 (only the destination's port encrypted); SST-8",
    defence="oegw/sst/permutation.py Permutation.seal_ports",
    otherwise="a service always has the same sealed port, and is known again by it",
    without=replaced(("oegw.sst.permutation.Permutation.seal_ports", _sealed_destination)),
)
def services_counted() -> None:
    ours = _permutation()
    here: Counter[int] = Counter()
    there: Counter[int] = Counter()
    for port in range(32768, 32768 + 4000):
        source, destination = ours.seal_ports(HERE, THERE, TCP, port, HTTPS)
        here[source] += 1
        there[destination] += 1
    # Of 4000 values out of 65535 about 119 are there a second time, give or take 11.
    for which, counted in (("source", here), ("destination", there)):
        again = 4000 - len(counted)
        assert 60 < again < 180, f"{again} {which} ports are there again"
        assert max(counted.values()) <= 5


@attack(
    SST,
    "The checksum is read: it is the sum of everything, ports included",
    source="design, sections 2 and 5; SST-12",
    defence="oegw/sst/packet.py seal",
    otherwise="every packet tells the sum of both real ports, and the first one of NTP or IKE all",
    without=replaced(("oegw.sst.packet.updated_checksum", lambda check, old, new: check)),
)
def checksum_read() -> None:
    ours = _permutation()
    for source, destination in ((ALICE, BOB), (ALICE6, BOB6)):
        for protocol, place in ((TCP, 16), (UDP, 6)):
            for port in (123, 500, 40000, 65535):
                wire = packets.seal(build(source, destination, protocol, port, 123), ours, SIGNAL)
                seen = look(wire)
                assert seen.right, "the checksum is not that of the octets on the wire"
                assert seen.ports is not None
                # What an observer computes: how much of the sum the ports must have been.
                body = b"\0\0\0\0" + seen.body[4:place] + b"\0\0" + seen.body[place + 2 :]
                pseudo = seen.source.packed + seen.destination.packed
                pseudo += protocol.to_bytes(2, "big") + len(body).to_bytes(2, "big")
                rest = ones_sum(pseudo + body)
                told = (-int.from_bytes(seen.body[place : place + 2], "big") - rest) % 65535
                assert told == sum(seen.ports) % 65535
                assert told != port + 123
