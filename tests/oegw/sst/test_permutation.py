"""Ports under a key: the vectors of the design, its symmetry, its walk, and its statistics."""

from __future__ import annotations

import random
import tomllib
from pathlib import Path
from typing import Any

import pytest

from oegw.sst.interface import Algorithm, PortKey
from oegw.sst.permutation import TWEAKS_LIMIT, NotEligible, Permutation
from tests.oegw.sst.statistics import HEADING, Row, avalanche, uniformity, unrelated
from tests.support import ff1_reference
from tests.support.amount import amount
from tests.support.sst_packets import TCP, UDP, packed, random_addresses, random_port

VECTORS = Path(__file__).parents[2] / "vectors" / "sst" / "ports.toml"
PACKETS: list[dict[str, Any]] = tomllib.loads(VECTORS.read_text())["packet"]

ONE, OTHER = packed("192.0.2.1"), packed("198.51.100.7")
ONE6, OTHER6 = packed("2001:db8:1::1"), packed("2001:db8:2::2")


def keyed(algorithm: int = 1) -> Permutation:
    number = Algorithm(algorithm)
    return Permutation(PortKey(number, bytes(range(number.key_length))))


@pytest.mark.parametrize(
    "packet", PACKETS, ids=[f"{each['name']}, algorithm {each['algorithm']}" for each in PACKETS]
)
def test_vectors(packet: dict[str, Any]) -> None:
    where = packed(packet["source"]), packed(packet["destination"]), packet["protocol"]
    permutation = keyed(packet["algorithm"])
    assert permutation.seal_ports(*where, *packet["ports"]) == tuple(packet["sealed_ports"])
    assert permutation.open_ports(*where, *packet["sealed_ports"]) == tuple(packet["ports"])


@pytest.mark.parametrize("packet", PACKETS, ids=range(len(PACKETS)))
def test_the_vectors_tweak_and_block_lead_to_their_ports(packet: dict[str, Any]) -> None:
    """By the second FF1: the file agrees with itself, walks included."""
    length = Algorithm(packet["algorithm"]).key_length
    block, walks = f"{int(packet['block'], 16):032b}", -1
    while walks < 0 or not int(block[:16], 2) or not int(block[16:], 2):
        tweak = bytes.fromhex(packet["tweak"])
        block = ff1_reference.encrypt(bytes(range(length)), 2, tweak, block)
        walks += 1
    assert int(block, 2) == int(packet["sealed_block"], 16)
    assert walks == packet["walks"]
    halves = int(block[:16], 2), int(block[16:], 2)
    lower_first = packed(packet["source"]) < packed(packet["destination"])
    assert tuple(packet["sealed_ports"]) == (halves if lower_first else halves[::-1])


def test_there_is_a_vector_for_each_half_that_walks() -> None:
    walking = [each["name"] for each in PACKETS if each["walks"]]
    assert sorted(set(walking)) == ["first half zero at first", "second half zero at first"]


@pytest.mark.parametrize("version", [4, 6])
def test_an_answer_carries_the_sealed_ports_swapped(version: int) -> None:
    rng = random.Random(version)
    permutation = keyed()
    for _ in range(2000):
        source, destination = random_addresses(rng, version)
        ports = random_port(rng), random_port(rng)
        there = permutation.seal_ports(source, destination, UDP, *ports)
        back = permutation.seal_ports(destination, source, UDP, *ports[::-1])
        assert back == there[::-1]
        assert permutation.open_ports(destination, source, UDP, *back) == ports[::-1]


def test_sst_10_sealed_ports_are_never_0_and_open_to_what_they_were() -> None:
    rng = random.Random(10)
    permutation = keyed()
    hosts = [random_addresses(rng, version) for version in (4, 6) for _ in range(100)]
    for number in range(100_000):
        source, destination = hosts[number % len(hosts)]
        ports = random_port(rng), random_port(rng)
        sealed = permutation.seal_ports(source, destination, TCP, *ports)
        assert all(0 < port < 65536 for port in sealed)
        assert permutation.open_ports(source, destination, TCP, *sealed) == ports


@pytest.mark.fuzz
def test_sst_10_sealed_ports_are_never_0() -> None:
    """A million of them."""
    rng = random.Random(1010)
    permutation = keyed(2)
    for number in range(amount(1_000_000, 200_000)):
        sealed = permutation.seal_ports(
            ONE, OTHER, TCP, rng.randrange(1, 65536), 1 + number % 65535
        )
        assert all(sealed)


def test_sst_11_addresses_protocol_family_algorithm_and_key_each_make_another_permutation() -> None:
    mapped6 = bytes(10) + b"\xff\xff" + ONE, bytes(10) + b"\xff\xff" + OTHER
    same = bytes(32)
    cases = {
        "base": (PortKey(Algorithm.FF1_AES_128, same[:16]), ONE, OTHER, TCP),
        "source": (PortKey(Algorithm.FF1_AES_128, same[:16]), packed("192.0.2.2"), OTHER, TCP),
        "destination": (
            PortKey(Algorithm.FF1_AES_128, same[:16]),
            ONE,
            packed("198.51.100.8"),
            TCP,
        ),
        "protocol": (PortKey(Algorithm.FF1_AES_128, same[:16]), ONE, OTHER, UDP),
        "family": (PortKey(Algorithm.FF1_AES_128, same[:16]), *mapped6, TCP),
        "algorithm": (PortKey(Algorithm.FF1_AES_256, same), ONE, OTHER, TCP),
        "key": (PortKey(Algorithm.FF1_AES_128, b"\1" * 16), ONE, OTHER, TCP),
    }
    found = {
        name: [Permutation(key).seal_ports(*where, port, 443) for port in range(40000, 40100)]
        for name, (key, *where) in cases.items()
    }
    for name, sealed in found.items():
        others = [each for other, ports in found.items() if other != name for each in ports]
        assert not set(sealed) & set(others), name


def test_sst_37_the_algorithms_number_is_in_the_tweak() -> None:
    """Whoever gave two algorithms one key would still not get one permutation of both."""
    for packet in PACKETS:
        assert bytes.fromhex(packet["tweak"])[:5] == b"SST%d\0" % packet["algorithm"]


NOT_ELIGIBLE: dict[str, tuple[str, str, int, int, int, str]] = {
    "source port 0": ("192.0.2.1", "192.0.2.2", 6, 0, 1, "sst_port_zero"),
    "destination port 0": ("192.0.2.1", "192.0.2.2", 6, 1, 0, "sst_port_zero"),
    "equal addresses": ("192.0.2.1", "192.0.2.1", 6, 1, 1, "sst_equal_addresses"),
    "equal addresses 6": ("2001:db8::1", "2001:db8::1", 6, 1, 1, "sst_equal_addresses"),
    "multicast": ("192.0.2.1", "224.0.0.251", 17, 5353, 5353, "sst_multicast"),
    "multicast, the last": ("192.0.2.1", "239.255.255.255", 17, 1, 1, "sst_multicast"),
    "multicast 6": ("2001:db8::1", "ff02::fb", 17, 5353, 5353, "sst_multicast"),
    "broadcast": ("192.0.2.1", "255.255.255.255", 17, 68, 67, "sst_broadcast"),
    "no address yet": ("0.0.0.0", "192.0.2.1", 17, 68, 67, "sst_unspecified_address"),
    "no address yet 6": ("::", "2001:db8::1", 17, 68, 67, "sst_unspecified_address"),
    "sctp": ("192.0.2.1", "192.0.2.2", 132, 1, 1, "sst_protocol"),
    "icmp": ("192.0.2.1", "192.0.2.2", 1, 1, 1, "sst_protocol"),
}


@pytest.mark.parametrize("name", NOT_ELIGIBLE)
def test_not_eligible(name: str) -> None:
    source, destination, protocol, one_port, other_port, trigger = NOT_ELIGIBLE[name]
    permutation = keyed()
    for change in (permutation.seal_ports, permutation.open_ports):
        for _ in range(2):  # the second time what was prepared is there, or must not be
            with pytest.raises(NotEligible) as refused:
                change(packed(source), packed(destination), protocol, one_port, other_port)
            assert refused.value.trigger == trigger


def test_our_own_mistakes_are_no_packets_fault() -> None:
    permutation = keyed()
    with pytest.raises(ValueError, match="family"):
        permutation.seal_ports(ONE, OTHER6, TCP, 1, 1)
    with pytest.raises(ValueError, match="family"):
        permutation.seal_ports(b"", b"\1", TCP, 1, 1)
    with pytest.raises(ValueError, match="16 bits"):
        permutation.seal_ports(ONE, OTHER, TCP, 65536, 1)
    with pytest.raises(ValueError, match="16 bits"):
        permutation.open_ports(ONE, OTHER, TCP, 1, -1)
    with pytest.raises(ValueError, match="FF1_AES_256 has a key of 32 octets"):
        Permutation(PortKey(Algorithm.FF1_AES_256, bytes(16)))


def test_prepared_tweaks_are_bounded_and_forgotten_without_harm() -> None:
    permutation = keyed()
    first = permutation.seal_ports(ONE, OTHER, TCP, 40000, 443)
    for number in range(TWEAKS_LIMIT + 10):
        permutation.seal_ports(ONE, (0x0A000001 + number).to_bytes(4, "big"), UDP, 1, 1)
        assert len(permutation._blocks) <= TWEAKS_LIMIT
    assert permutation.seal_ports(ONE, OTHER, TCP, 40000, 443) == first == (46071, 20824)


def test_secrets_are_silent() -> None:
    key = PortKey(Algorithm.FF1_AES_128, bytes(range(16)))
    assert repr(Permutation(key)) == "Permutation(FF1_AES_128)"
    assert "octets" not in repr(key)


def shown(rows: list[Row]) -> str:
    return "\n".join(["", HEADING, *map(str, rows)])


def test_sst_8_flows_to_one_service_have_unrelated_ciphertext_in_both_ports() -> None:
    rows = unrelated()
    print(shown(rows))
    assert all(row.fine for row in rows), shown(rows)


@pytest.mark.parametrize("algorithm", Algorithm)
def test_sst_8_sealed_ports_are_uniform(algorithm: Algorithm) -> None:
    rows = uniformity(algorithm=algorithm)
    print(shown(rows))
    assert all(row.fine for row in rows), shown(rows)


def test_sst_9_a_flipped_bit_leads_to_an_unrelated_pair_of_ports() -> None:
    rows = avalanche()
    print(shown(rows))
    assert all(row.fine for row in rows), shown(rows)


def test_the_statistics_notice_what_is_not_chance() -> None:
    """The same numbers, of a cipher that sst.md rejects: one mask for all flows of two hosts."""

    class Mask:
        def seal_ports(self, *where: Any) -> tuple[int, int]:
            return where[3] ^ 0xB3F7, where[4] ^ 0x5158

        open_ports = seal_ports

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.oegw.sst.statistics.permutation", lambda algorithm, rng: Mask())
        bad = [*avalanche(20_000), *unrelated(20_000), *uniformity(20_000)]
    found = {row.name for row in bad if not row.fine}
    assert "one bit of the ports: mean flipped bits" in found
    assert "one bit of the ciphertext, opened: mean flipped bits" in found
    assert "flows of neighbouring source ports: equal sealed ports" in found
    assert "destination port, 65535 bins" in found
