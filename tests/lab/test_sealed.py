"""The lab's own decoder of sealed ports: right by the standards' vectors, and it finds faults."""

from __future__ import annotations

import random
import struct
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.lab_commands import LAB


@pytest.fixture(scope="module", autouse=True)
def lablib() -> Iterator[None]:
    sys.path.insert(0, str(LAB.parent))
    try:
        yield
    finally:
        sys.path.remove(str(LAB.parent))


PLAIN = bytes.fromhex("00112233445566778899aabbccddeeff")


@pytest.mark.parametrize(
    ("length", "sealed"),
    [(16, "69c4e0d86a7b0430d8cdb78070b4c55a"), (32, "8ea2b7ca516745bfeafc49904b496089")],
)
def test_aes_by_the_examples_of_fips_197(length: int, sealed: str) -> None:
    from lablib.ff1 import Aes

    assert Aes(bytes(range(length))).encrypt(PLAIN).hex() == sealed


SAMPLE_KEY = "2B7E151628AED2A6ABF7158809CF4F3CEF4359D8D580AA4F7F036D6F04FC6A94"
ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"


@pytest.mark.parametrize(
    ("octets", "radix", "tweak", "clear", "sealed"),
    [
        (16, 10, "", "0123456789", "2433477484"),
        (16, 10, "39383736353433323130", "0123456789", "6124200773"),
        (16, 36, "3737373770717273373737", "0123456789abcdefghi", "a9tv40mll9kdu509eum"),
        (32, 10, "", "0123456789", "6657667009"),
        (32, 10, "39383736353433323130", "0123456789", "1001623463"),
        (32, 36, "3737373770717273373737", "0123456789abcdefghi", "xs8a0azh2avyalyzuwd"),
    ],
)
def test_ff1_by_the_samples_of_nist(
    octets: int, radix: int, tweak: str, clear: str, sealed: str
) -> None:
    from lablib.ff1 import Ff1

    cipher = Ff1(bytes.fromhex(SAMPLE_KEY)[:octets], radix)
    numerals = [ALPHABET.index(sign) for sign in clear]
    found = cipher.encrypt(bytes.fromhex(tweak), numerals)
    assert "".join(ALPHABET[n] for n in found) == sealed
    assert cipher.decrypt(bytes.fromhex(tweak), found) == numerals


def test_x25519_and_hkdf_by_their_rfcs() -> None:
    from lablib.portkeys import hkdf, public_of, x25519

    # RFC 7748, sections 5.2 and 6.1.
    scalar = "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4"
    point = "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c"
    found = x25519(bytes.fromhex(scalar), bytes.fromhex(point))
    assert found.hex() == "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"
    alice = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f92ebc099e670a15e4e9d4d4ae4"[:64])
    assert len(public_of(alice)) == 32
    # RFC 5869, A.1.
    made = hkdf(b"\x0b" * 22, bytes(range(13)), bytes(range(0xF0, 0xFA)), 42)
    assert made.hex() == (
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    )


def test_keys_of_two_files_are_those_of_another_implementation(tmp_path: Any) -> None:
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF
    from lablib import portkeys

    pair = [X25519PrivateKey.generate() for _ in range(2)]
    files = [tmp_path / "one", tmp_path / "other"]
    for key, file in zip(pair, files, strict=True):
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
    one, other = (portkeys.private_octets(file) for file in files)
    public = [portkeys.public_of(one), portkeys.public_of(other)]
    assert public == [key.public_key().public_bytes_raw() for key in pair]
    secret = portkeys.x25519(one, public[1])
    assert secret == portkeys.x25519(other, public[0]) == pair[0].exchange(pair[1].public_key())
    info = b"".join(sorted(public)) + b"\x02" + struct.pack("!I", 20000)
    assert portkeys.port_key(secret, *public, 2, 20000) == HKDF(
        hashes.SHA256(), 32, b"SST1", info
    ).derive(secret)


# The table of sst.md, section 3: key 00 01 .. 0f.
FLOWS = [
    ("192.0.2.1", "198.51.100.7", 6, (40000, 443), (46071, 20824)),
    ("198.51.100.7", "192.0.2.1", 6, (443, 40000), (20824, 46071)),
    ("192.0.2.1", "198.51.100.7", 17, (40000, 443), (47835, 17658)),
    ("192.0.2.1", "198.51.100.7", 6, (40001, 443), (57362, 5102)),
    ("2001:db8:1::1", "2001:db8:2::2", 17, (500, 500), (45360, 27797)),
]


def _packet(flow: tuple[Any, ...], ports: tuple[int, int], flagged: bool, payload: bytes) -> bytes:
    """By scapy, with right checksums."""
    from scapy.all import IP, TCP, UDP, IPv6, Raw

    source, destination, protocol = flow[:3]
    transport = TCP if protocol == 6 else UDP
    if ":" in source:
        start = IPv6(src=source, dst=destination, tc=3 << 2 if flagged else 0)
    else:
        flags = "evil+DF" if flagged else 0
        start = IP(src=source, dst=destination, id=7, flags=flags)
    made = start / transport(sport=ports[0], dport=ports[1]) / Raw(payload)
    return bytes(made)


def _captured(octets: bytes) -> Any:
    """As a frame of a capture."""
    from lablib import pcap

    frame = bytes(12) + (b"\x86\xdd" if octets[0] >> 4 == 6 else b"\x08\0") + octets
    kind = "ipv6" if octets[0] >> 4 == 6 else "ipv4"
    packet = pcap.Packet(86400.0 * 20000, kind, frame)
    return pcap._ipv6(packet, 14) if kind == "ipv6" else pcap._ipv4(packet, 14)


@pytest.mark.parametrize("flow", FLOWS)
def test_ports_open_as_in_the_table(flow: tuple[Any, ...]) -> None:
    from lablib.ff1 import Ff1
    from lablib.sealed import Candidate, ported, wrong_checksum

    one = ported(_packet(flow, flow[4], True, b"x" * 9))
    assert one is not None
    assert (one.flagged, one.whole, wrong_checksum(one)) == (True, True, "")
    assert Candidate("", 1, Ff1(bytes(range(16)))).opened(one) == flow[3]


@pytest.mark.parametrize("flow", FLOWS)
def test_a_packet_is_like_its_sealed_twin_and_no_other(flow: tuple[Any, ...]) -> None:
    from lablib.sealed import likeness, ported

    clear, sealed, other = (
        ported(_packet(flow, ports, flagged, payload))
        for ports, flagged, payload in (
            (flow[3], False, b"abc"),
            (flow[4], True, b"abc"),
            (flow[4], True, b"abd"),
        )
    )
    assert clear is not None
    assert sealed is not None
    assert other is not None
    assert (clear.flagged, sealed.flagged) == (False, True)
    assert likeness(clear) == likeness(sealed) != likeness(other)


@pytest.mark.parametrize("flow", FLOWS)
def test_each_octet_that_changes_is_seen(flow: tuple[Any, ...]) -> None:
    from lablib.sealed import ported, wrong_checksum

    good = _packet(flow, flow[4], True, b"abcd")
    for place in range(len(good)):
        for bit in (1, 0x80):
            octets = bytearray(good)
            octets[place] ^= bit
            one = ported(bytes(octets))
            if one is None or not one.whole:
                continue
            header = 40 if ":" in flow[0] else 20
            silent = place < 8 and header == 40  # IPv6 has no checksum of its first words
            assert wrong_checksum(one) or silent, place


def test_what_comes_cut_or_at_random_is_read_without_fault() -> None:
    from lablib import sealed

    dice = random.Random(6)
    for flow in FLOWS:
        whole = _packet(flow, flow[4], True, b"abcd")
        for length in range(len(whole)):
            sealed.ported(whole[:length])
    for _ in range(3000):
        octets = bytearray(dice.randbytes(dice.randrange(90)))
        if octets:
            octets[0] = dice.choice((0x45, 0x46, 0x4F, 0x60))
        one = sealed.ported(bytes(octets))
        if one is not None:
            sealed.wrong_checksum(one)
            sealed.likeness(one)


# What the fact itself finds.

SECRET_FILES = ("sg-a.x25519", "sg-b.x25519")


class Network:
    """A lab with a capture that was made by hand, and keys of its own."""

    def __init__(self, folder: Any) -> None:
        from lablib import portkeys
        from lablib.ff1 import Ff1

        self.captured: dict[str, list[Any]] = {"west": [], "as1": []}
        self.clock_days = 0
        private = [bytes([n]) * 32 for n in (1, 2)]
        import base64

        for name, octets in zip(SECRET_FILES, private, strict=True):
            text = base64.b64encode(portkeys.PKCS8_PREFIX + octets).decode()
            (folder / name).write_text(f"-----BEGIN\n{text}\n-----END\n")
        self._folder = folder
        public = [portkeys.public_of(octets) for octets in private]
        secret = portkeys.x25519(private[0], public[1])
        self.ciphers = {
            day: Ff1(portkeys.port_key(secret, *public, 1, day)) for day in (None, 20000, 20001)
        }
        self.topology = SimpleNamespace()

    def address(self, name: str) -> Any:
        from ipaddress import ip_address

        return ip_address({"alice": "192.1.0.65", "bob": "192.2.0.66"}[name])

    def port_key_files(self, gateway: str) -> list[Any]:
        return [self._folder / f"{gateway}.x25519"]

    def seal(self, ports: tuple[int, int], back: bool, day: int | None = 20000) -> tuple[int, int]:
        from ipaddress import ip_address

        from lablib.ff1 import seal_block

        tweak = b"SST1\0\4\6" + ip_address("192.1.0.65").packed + ip_address("192.2.0.66").packed
        low, high = reversed(ports) if back else ports
        block = seal_block(self.ciphers[day], tweak, low << 16 | high)
        sealed = block >> 16, block & 0xFFFF
        return (sealed[1], sealed[0]) if back else sealed

    def talk(self, client: int = 40000, day: int | None = 20000) -> None:
        """One packet there, one back; in clear on as1, sealed on west."""
        for back in (False, True):
            ports = (22, client) if back else (client, 22)
            ends = ("192.2.0.66", "192.1.0.65") if back else ("192.1.0.65", "192.2.0.66")
            payload = f"{client} {back}".encode()
            for link, flagged, shown in (
                ("as1", False, ports),
                ("west", True, self.seal(ports, back, day)),
            ):
                octets = bytearray(_packet((*ends, 6), shown, flagged, payload))
                if back:
                    octets[33] |= 0x10  # SYN ACK
                    octets[36:38] = bytes(2)
                    octets = bytearray(_resummed(octets))
                self.captured[link].append(_captured(bytes(octets)))


def _resummed(octets: bytearray) -> bytes:
    from scapy.all import IP

    packet = IP(bytes(octets))
    del packet.payload.chksum
    del packet.chksum
    return bytes(packet)


def _fact(**more: Any) -> dict[str, Any]:
    return {
        "kind": "sealed", "link": "west", "hosts": ["alice", "bob"], "services": ["tcp 22"],
        "gateways": ["sg-a", "sg-b"], "against": "as1", **more,
    }  # fmt: skip


@pytest.fixture
def network(tmp_path: Any) -> Network:
    made = Network(tmp_path)
    made.talk(40000)
    made.talk(40001)
    return made


def test_a_good_capture_is_good(network: Network) -> None:
    from lablib.sealedfacts import in_clear, is_sealed

    said = is_sealed(network, _fact())  # type: ignore[arg-type]
    assert "4 packets of tcp 22" in said
    assert "day 20000" in said
    assert "4 flows as on as1" in said
    assert is_sealed(network, {k: v for k, v in _fact().items() if k != "gateways"})  # type: ignore[arg-type]
    clear = {"kind": "in-clear", "link": "west", "count": 0}
    assert in_clear(network, clear) == "0 packets"  # type: ignore[arg-type]
    assert in_clear(network, {**clear, "link": "as1", "services": ["tcp 22"], "count": 4})  # type: ignore[arg-type]


def _amiss(network: Network, words: str, **more: Any) -> None:
    from lablib.sealedfacts import is_sealed
    from lablib.stage import Missed

    with pytest.raises(Missed, match=words):
        is_sealed(network, _fact(**more))  # type: ignore[arg-type]


def test_a_packet_without_the_flag_is_found(network: Network) -> None:
    network.captured["west"].append(network.captured["as1"][0])
    _amiss(network, "1 of 5 are not flagged")


def test_a_flow_sealed_with_another_key_is_found(network: Network) -> None:
    network.talk(40002, day=20001)
    _amiss(network, "1 keys don't open all flows")
    from lablib.sealedfacts import is_sealed

    assert "day 20001" in is_sealed(network, _fact(keys=2))  # type: ignore[arg-type]


def test_a_packet_that_got_lost_is_found_unless_it_may_be(network: Network) -> None:
    from lablib.sealedfacts import is_sealed

    del network.captured["as1"][-1]
    _amiss(network, "1 are not among the packets in clear")
    assert "1 packets got lost" in is_sealed(network, _fact(lost=1))  # type: ignore[arg-type]
    del network.captured["as1"][-1]
    _amiss(network, "2 are not among the packets in clear", lost=1)


def test_two_keys_that_should_be_there_are_missed(network: Network) -> None:
    _amiss(network, "only 1 keys were used", keys=2)


def test_a_service_that_is_not_there_is_missed(network: Network) -> None:
    _amiss(network, "no packet of udp 53", services=["tcp 22", "udp 53"])


def test_a_packet_that_was_never_sent_is_found(network: Network) -> None:
    del network.captured["as1"][0]
    _amiss(network, "not among the packets in clear")


def test_a_flow_that_is_not_sealed_as_its_answers_is_found(network: Network) -> None:
    octets = bytearray(network.captured["west"][1].frame[14:])
    octets[20:22] = b"\x12\x34"
    network.captured["west"][1] = _captured(_resummed(octets))
    _amiss(network, "not sealed as it is, swapped")
    _without_twins(network, "opens to no such service with any key")


def _without_twins(network: Network, words: str) -> None:
    from lablib.sealedfacts import is_sealed
    from lablib.stage import Missed

    with pytest.raises(Missed, match=words):
        is_sealed(network, {k: v for k, v in _fact().items() if k != "against"})  # type: ignore[arg-type]


def test_a_wrong_checksum_is_found(network: Network) -> None:
    octets = bytearray(network.captured["west"][0].frame[14:])
    octets[36] ^= 1
    network.captured["west"][0] = _captured(bytes(octets))
    _amiss(network, "checksum of TCP")


def test_ports_in_the_quote_of_an_error_are_seen(network: Network) -> None:
    from scapy.all import ICMP, IP, Raw

    good = network.captured["west"][0].frame[14:]
    clear = network.captured["as1"][0].frame[14:]
    for about, words in ((good, ""), (clear, "1 quotes of 1 are not flagged")):
        error = IP(src="192.1.1.71", dst="192.1.0.65") / ICMP(type=3, code=3) / Raw(about[:28])
        before = list(network.captured["west"])
        network.captured["west"].append(_captured(bytes(error)))
        if words:
            _amiss(network, words)
        else:
            from lablib.sealedfacts import is_sealed

            assert "1 ICMP errors" in is_sealed(network, _fact(returned=1))  # type: ignore[arg-type]
            _amiss(network, "1 ICMP errors about them", returned=2)
        network.captured["west"][:] = before


@pytest.mark.parametrize(
    "what", ["syn", "datagram", "truncated", "quote", "nested", "fragment", "request"]
)
@pytest.mark.parametrize("family", [4, 6])
def test_forged_packets_are_those_that_they_are_called(what: str, family: int) -> None:
    from lablib import forgeports, sealed

    ends = ("192.1.1.70", "192.2.0.66") if family == 4 else ("2001:db8::70", "2001:db8::66")
    forger = forgeports.Forger(*ends, random.Random(1))
    for _ in range(50):
        packet = getattr(forger, what)()
        assert len(packet) >= 20
        one = sealed.ported(packet)
        if what in ("syn", "datagram"):
            assert one is not None
            assert one.flagged
            assert not sealed.wrong_checksum(one)
        if what in ("quote", "nested"):
            assert not sealed.wrong_icmp_checksum(_captured(packet))
