"""Each algorithm against published packets and against scapy, an independent ESP, both ways."""

from __future__ import annotations

import hashlib
import hmac
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.ipsec import ESP
from scapy.layers.ipsec import SecurityAssociation as ScapySa

from oegw.datapath.interface import Direction, SecurityAssociation
from oegw.datapath.userspace.esp import InboundSa, OutboundSa, ReplayError
from oegw.datapath.userspace.transform import (
    AuthenticatedEncryption,
    AuthenticationError,
    EncryptThenMac,
    transform_of,
)
from tests.support.datapath_sas import A4, ALGORITHMS, B4, GATEWAY_A4, GATEWAY_B4, make_sa

VECTORS = tomllib.loads((Path(__file__).parents[3] / "vectors/oegw/datapath/esp.toml").read_text())[
    "packet"
]
SCAPY_CIPHERS = {"aes-gcm-16": "AES-GCM", "aes-cbc": "AES-CBC", "3des-cbc": "3DES"}
SCAPY_INTEGRITIES = {
    "hmac-sha2-256-128": "SHA2-256-128",
    "hmac-sha1-96": "HMAC-SHA1-96",
    "hmac-md5-96": "HMAC-MD5-96",
    None: "NULL",
}
INNER = bytes(IP(src=A4, dst=B4) / UDP(sport=1000, dport=2000) / (b"payload " * 9 + b"odd"))


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["name"]))
def test_published_packets(vector: dict[str, Any]) -> None:
    key, high = bytes.fromhex(vector["key"]), bytes.fromhex(vector["high"])
    packet, plain = bytes.fromhex(vector["packet"]), bytes.fromhex(vector["plain"])
    if vector["cipher"] == "aes-gcm-16":
        gcm = AuthenticatedEncryption(key)
        assert gcm.open(packet, high) == plain
        with pytest.raises(AuthenticationError):
            gcm.open(packet, b"\x87\x65\x43\x22")
        return
    mac_key = bytes(range(32))
    cbc = EncryptThenMac("aes-cbc", key, "hmac-sha2-256-128", mac_key, os.urandom)
    packet += hmac.digest(mac_key, packet, hashlib.sha256)[:16]
    for _ in range(2):  # whatever the decryptor saw before
        assert cbc.open(packet, high) == plain


def scapy_sa(sa: SecurityAssociation, extended: bool) -> ScapySa:
    return ScapySa(
        ESP,
        spi=sa.spi,
        crypt_algo=SCAPY_CIPHERS[sa.cipher],
        crypt_key=sa.encryption_key,
        auth_algo=SCAPY_INTEGRITIES[sa.integrity],
        auth_key=sa.integrity_key,
        tunnel_header=IP(src=GATEWAY_A4, dst=GATEWAY_B4),
        esn_en=extended,
        esn=0,
    )


@pytest.mark.parametrize("extended", [False, True])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_scapy_opens_ours_and_we_open_scapys(algorithm: str, extended: bool) -> None:
    sa = make_sa(algorithm, extended_sequence_numbers=extended)
    theirs = scapy_sa(sa, extended)
    ours = OutboundSa(sa, os.urandom)
    for sequence in range(1, 20):
        inner = bytes(IP(src=A4, dst=B4) / UDP() / (b"x" * sequence))
        sealed = ours.seal(inner, 4)
        assert sealed[:8] == sa.spi.to_bytes(4, "big") + sequence.to_bytes(4, "big")
        outer = IP(bytes(IP(src=GATEWAY_A4, dst=GATEWAY_B4, proto=50) / sealed))
        assert bytes(theirs.decrypt(outer)) == inner

    receiver = InboundSa(
        make_sa(algorithm, Direction.INBOUND, extended_sequence_numbers=extended), os.urandom
    )
    for sequence in range(1, 20):
        inner = bytes(IP(src=A4, dst=B4) / UDP() / (b"x" * sequence))
        sent = theirs.encrypt(IP(inner), seq_num=sequence)
        assert receiver.open(bytes(sent[ESP]), sequence) == (4, inner)


@pytest.mark.parametrize("extended", [False, True])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_flipped_bit_is_refused(algorithm: str, extended: bool) -> None:
    sa = make_sa(algorithm, extended_sequence_numbers=extended)
    sealed = OutboundSa(sa, os.urandom).seal(INNER, 4)
    receiver = transform_of(sa, os.urandom)
    high = bytes(4) if extended else b""
    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1 << place % 8
        with pytest.raises(AuthenticationError):
            receiver.open(bytes(changed), high)
    for length in range(len(sealed)):
        with pytest.raises(AuthenticationError):
            receiver.open(sealed[:length], high)
    assert receiver.open(sealed, high).startswith(INNER)


@pytest.mark.parametrize("algorithm", ["gcm-128", "cbc-sha2", "3des-md5"])
def test_wrong_padding_looks_like_a_wrong_icv(algorithm: str) -> None:
    sa = make_sa(algorithm, Direction.INBOUND)
    transform = transform_of(sa, os.urandom)
    receiver = InboundSa(sa, os.urandom)
    block = transform.block
    for number, trailer in enumerate((b"\x02\x01\x02\x04", b"\x01\x02\xff\x04"), 1):
        plain = bytes(-(4 + len(INNER)) % block) + INNER + trailer
        head = sa.spi.to_bytes(4, "big") + number.to_bytes(4, "big")
        with pytest.raises(AuthenticationError) as error:
            receiver.open(transform.seal(head, b"", plain), number)
        assert str(error.value) == ""


def test_initialization_vectors_differ() -> None:
    for algorithm in ALGORITHMS:
        sender = OutboundSa(make_sa(algorithm), os.urandom)
        iv = sender.transform.iv
        assert len({sender.seal(INNER, 4)[8 : 8 + iv] for _ in range(200)}) == 200


def test_replay_before_and_after_authentication() -> None:
    sa = make_sa(direction=Direction.INBOUND)
    sender, receiver = OutboundSa(make_sa(), os.urandom), InboundSa(sa, os.urandom)
    packets = [sender.seal(INNER, 4) for _ in range(3)]
    forged = packets[0][:4] + (10**6).to_bytes(4, "big") + packets[0][8:]
    with pytest.raises(AuthenticationError):
        receiver.open(forged, 10**6)  # must not move the window
    for number in (2, 1, 3):
        assert receiver.open(packets[number - 1], number)[1] == INNER
        with pytest.raises(ReplayError):
            receiver.open(packets[number - 1], number)


def test_keys_stay_out_of_reprs() -> None:
    sa = make_sa("cbc-sha2")
    for value in (sa, OutboundSa(sa, os.urandom), transform_of(sa, os.urandom)):
        assert repr(sa.encryption_key)[2:-1] not in repr(value)
        assert sa.encryption_key.hex() not in repr(value)
