"""Our messages read by others: scapy's dissector, and the formulas of RFC 2409 written out anew.

Nothing of ``ike`` computes here.  The test plays the responder's secrets by taking
them from the wire with a key pair of its own.
"""

from __future__ import annotations

import hashlib
import hmac
from ipaddress import ip_address

import pytest
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from scapy.layers.isakmp import (
    ISAKMP,
    ISAKMP_payload_KE,
    ISAKMP_payload_Nonce,
    ISAKMP_payload_SA,
)

from ike import events as e
from tests.support.ike_pair import Pair
from tests.support.ike_stranger import PRIMES

CIPHERS = {5: (TripleDES, 24, 8), 7: (AES, 32, 16)}
HASHES = {1: "md5", 2: "sha1", 4: "sha256"}


def test_scapy_reads_messages_1_and_2() -> None:
    pair = Pair()
    pair.initiate()
    first = ISAKMP(pair.transfer().data)
    second = ISAKMP(pair.transfer().data)
    assert first.init_cookie != bytes(8)
    assert first.resp_cookie == bytes(8)
    assert (first.version, first.exch_type, first.flags, first.id) == (0x10, 2, 0, 0)
    association = first[ISAKMP_payload_SA]
    assert (association.doi, association.situation) == (1, 1)
    (proposal,) = association.prop
    assert (proposal.proto, proposal.SPIsize, proposal.trans_nb) == (1, 0, 8)
    offered = []
    transform = proposal.trans[0]
    while transform:
        offered.append(dict(transform.transforms))
        transform = transform.payload
    assert [(t["Encryption"], t.get("KeyLength"), t["Hash"], t["GroupDesc"]) for t in offered] == [
        ("AES-CBC", 256, "SHA2-256", "2048MODPgr"),
        ("AES-CBC", 128, "SHA2-256", "2048MODPgr"),
        ("AES-CBC", 256, "SHA2-256", "3072MODPgr"),
        ("AES-CBC", 128, "SHA2-256", "3072MODPgr"),
        ("3DES-CBC", None, "SHA", "1536MODPgr"),
        ("3DES-CBC", None, "MD5", "1536MODPgr"),
        ("3DES-CBC", None, "SHA", "1024MODPgr"),
        ("3DES-CBC", None, "MD5", "1024MODPgr"),
    ]
    assert {t["Authentication"] for t in offered} == {"RSA Sig"}
    assert {(t["LifeType"], t["LifeDuration"]) for t in offered} == {("Seconds", 28800)}
    assert second.init_cookie == first.init_cookie
    assert second.resp_cookie != bytes(8)
    (chosen,) = second[ISAKMP_payload_SA].prop
    assert chosen.trans_nb == 1
    assert dict(chosen.trans[0].transforms) == offered[0]
    assert len(pair.sent[0].data) < 600


class Reading:
    """A recorded setup, decrypted with one secret exponent and the formulas of the RFC."""

    def __init__(self, pair: Pair, exponents: dict[bytes, int]) -> None:
        data = [datagram.data for datagram in pair.sent]
        self.messages = [ISAKMP(octets) for octets in data]
        self.data = data
        end = 28 + int.from_bytes(data[1][30:32], "big")  # vendor IDs follow
        choice = data[1][28 + 4 + 8 + 4 + 4 + 4 + 4 : end]
        attributes = {}
        for offset in range(0, len(choice), 4):
            kind = int.from_bytes(choice[offset : offset + 2], "big") & 0x7FFF
            attributes[kind] = int.from_bytes(choice[offset + 2 : offset + 4], "big")
        self.group = attributes[4]
        self.hash = HASHES[attributes[2]]
        kind, length, self.block = CIPHERS[attributes[1]]
        length = attributes.get(14, length * 8) // 8
        prime = PRIMES[self.group]
        ke_i, ke_r = (m[ISAKMP_payload_KE].ke for m in self.messages[2:4])
        self.ni, self.nr = (m[ISAKMP_payload_Nonce].nonce for m in self.messages[2:4])
        size = (prime.bit_length() + 7) // 8
        shared = pow(int.from_bytes(ke_r, "big"), exponents[ke_i], prime).to_bytes(size, "big")
        cky_i, cky_r = data[1][:8], data[1][8:16]
        skeyid = self.prf(self.ni + self.nr, shared)
        self.skeyid_d = self.prf(skeyid, shared + cky_i + cky_r + b"\x00")
        self.skeyid_a = self.prf(skeyid, self.skeyid_d + shared + cky_i + cky_r + b"\x01")
        skeyid_e = self.prf(skeyid, self.skeyid_a + shared + cky_i + cky_r + b"\x02")
        self.key = kind(self.stretched(skeyid_e, length))
        sa_length = int.from_bytes(data[0][30:32], "big")
        sa_i = data[0][32 : 28 + sa_length]
        self.message_5 = self.decrypt(4, hashlib.new(self.hash, ke_i + ke_r).digest())
        self.message_6 = self.decrypt(5, data[4])
        id_i, id_r = self.bodies(4, self.message_5)[0], self.bodies(5, self.message_6)[0]
        self.hash_i = self.prf(skeyid, ke_i + ke_r + cky_i + cky_r + sa_i + id_i)
        self.hash_r = self.prf(skeyid, ke_r + ke_i + cky_r + cky_i + sa_i + id_r)
        self.m_id = data[6][20:24]
        iv = hashlib.new(self.hash, data[5][-self.block :] + self.m_id).digest()
        self.quick_1 = self.decrypt(6, iv)
        self.quick_2 = self.decrypt(7, data[6])
        self.quick_3 = self.decrypt(8, data[7])

    def prf(self, key: bytes, octets: bytes) -> bytes:
        return hmac.new(key, octets, self.hash).digest()

    def stretched(self, skeyid_e: bytes, length: int) -> bytes:
        if len(skeyid_e) >= length:
            return skeyid_e[:length]
        k1 = self.prf(skeyid_e, b"\x00")
        k2 = self.prf(skeyid_e, k1)
        return (k1 + k2)[:length]

    def decrypt(self, index: int, iv_source: bytes) -> bytes:
        whole = len(iv_source) > 64
        iv = iv_source[-self.block :] if whole else iv_source[: self.block]
        cipher = Cipher(self.key, modes.CBC(iv)).decryptor()
        return cipher.update(self.data[index][28:]) + cipher.finalize()

    def bodies(self, index: int, plaintext: bytes) -> list[bytes]:
        bodies, offset, kind = [], 0, self.data[index][16]
        while kind:
            length = int.from_bytes(plaintext[offset + 2 : offset + 4], "big")
            bodies.append(plaintext[offset + 4 : offset + length])
            kind, offset = plaintext[offset], offset + length
        assert not any(plaintext[offset:])  # zero padding
        assert len(plaintext) - offset < self.block
        return bodies


def recorded(monkeypatch, **settings) -> tuple[Pair, Reading]:
    """A setup whose Diffie-Hellman exponents are known, since ``pow`` and our octets make them."""
    from ike import groups

    exponents: dict[bytes, int] = {}
    portable = groups.portable_pair

    def spied(group, random_octets):
        drawn = random_octets(48)
        pair = portable(group, lambda count: drawn)
        exponents[pair.public] = int.from_bytes(drawn, "big") | 1 << 255
        return pair

    monkeypatch.setattr(groups, "generate", spied)
    pair = Pair(a=settings, b=settings)
    pair.initiate()
    pair.run()
    assert pair.tunnel_up()
    reading = Reading(pair, exponents)
    reading.exponents = exponents
    return pair, reading


def raw_rsa(key, signature: bytes) -> bytes:
    """What the public key makes of a signature: the padded block."""
    numbers = key.public_key().public_numbers()
    value = pow(int.from_bytes(signature, "big"), numbers.e, numbers.n)
    return value.to_bytes(len(signature), "big")


def check_setup(pair: Pair, reading: Reading, pfs: str = "required") -> None:
    id_i, sig_i = reading.bodies(4, reading.message_5)
    id_r, sig_r = reading.bodies(5, reading.message_6)
    assert id_i == bytes((1, 0, 0, 0)) + ip_address("192.1.1.4").packed
    assert id_r == bytes((1, 0, 0, 0)) + ip_address("192.1.1.5").packed
    for key, signature, digest in (
        (pair.a.key, sig_i, reading.hash_i),
        (pair.b.key, sig_r, reading.hash_r),
    ):
        padding = b"\xff" * (256 - 3 - len(digest))
        assert raw_rsa(key, signature) == b"\x00\x01" + padding + b"\x00" + digest

    hash_1, sa_1, ni, *ke_i, id_ci, id_cr = reading.bodies(6, reading.quick_1)
    hash_2, sa_2, nr, *ke_r = reading.bodies(7, reading.quick_2)
    ids = [ke_r.pop(-2), ke_r.pop()]
    (hash_3,) = reading.bodies(8, reading.quick_3)
    assert id_ci == bytes((4, 0, 0, 0)) + bytes((192, 1, 0, 65)) + b"\xff" * 4
    assert id_cr == bytes((4, 0, 0, 0)) + bytes((192, 2, 0, 66)) + b"\xff" * 4
    assert ids == [id_ci, id_cr]
    rest_1 = unpadded(reading.data[6][16], reading.quick_1)[4 + len(hash_1) :]
    rest_2 = unpadded(reading.data[7][16], reading.quick_2)[4 + len(hash_2) :]
    assert hash_1 == reading.prf(reading.skeyid_a, reading.m_id + rest_1)
    assert hash_2 == reading.prf(reading.skeyid_a, reading.m_id + ni + rest_2)
    assert hash_3 == reading.prf(reading.skeyid_a, b"\x00" + reading.m_id + ni + nr)

    prime = PRIMES[reading.group]
    assert len(ke_i) == len(ke_r) == (0 if pfs == "off" else 1)
    shared = b""  # RFC 2409 section 5.5: without KE no g(qm)^xy
    for public_i, public_r in zip(ke_i, ke_r, strict=True):
        secret = pow(int.from_bytes(public_r, "big"), reading.exponents[public_i], prime)
        shared = secret.to_bytes((prime.bit_length() + 7) // 8, "big")
    ((inbound, outbound),) = pair.a.pairs().values()
    assert sa_1[16:20] == inbound.spi.to_bytes(4, "big")
    assert sa_2[16:20] == outbound.spi.to_bytes(4, "big")
    for association in (inbound, outbound):
        seed = shared + b"\x03" + association.spi.to_bytes(4, "big") + ni + nr
        material = block = reading.prf(reading.skeyid_d, seed)
        while len(material) < 80:
            block = reading.prf(reading.skeyid_d, block + seed)
            material += block
        keys = association.encryption_key + association.integrity_key
        assert keys == material[: len(keys)]


def unpadded(kind: int, plaintext: bytes) -> bytes:
    offset = 0
    while kind:
        kind, offset = (
            plaintext[offset],
            offset + int.from_bytes(plaintext[offset + 2 : offset + 4], "big"),
        )
    return plaintext[:offset]


def test_modern_setup_by_the_formulas(monkeypatch) -> None:
    pair, reading = recorded(monkeypatch)
    assert (reading.group, reading.hash, reading.block) == (14, "sha256", 16)
    check_setup(pair, reading)
    ((inbound, _),) = pair.a.pairs().values()
    assert (inbound.cipher, inbound.integrity) == ("aes-gcm-16", None)
    assert len(inbound.encryption_key) == 20
    assert inbound.integrity_key == b""
    assert inbound.extended_sequence_numbers


def test_draft_setup_by_the_formulas(monkeypatch) -> None:
    pair, reading = recorded(monkeypatch, profiles=("draft",))
    assert (reading.group, reading.hash, reading.block) == (5, "sha1", 8)
    check_setup(pair, reading)
    ((inbound, _),) = pair.a.pairs().values()
    assert (inbound.cipher, inbound.integrity) == ("3des-cbc", "hmac-sha1-96")
    assert (len(inbound.encryption_key), len(inbound.integrity_key)) == (24, 20)
    assert inbound.lifetime_bytes == 1 << 30
    assert not inbound.extended_sequence_numbers


@pytest.mark.parametrize("pfs", ["off", "optional"])
@pytest.mark.parametrize("channel", ["3des-md5-modp1024", "aes128-sha1-modp3072"])
@pytest.mark.parametrize("tunnel", ["aes256-sha256", "3des-md5", "aes128gcm16"])
def test_named_setups_by_the_formulas(monkeypatch, channel: str, tunnel: str, pfs: str) -> None:
    settings = {"channel_proposals": (channel,), "tunnel_proposals": (tunnel,), "pfs": pfs}
    pair, reading = recorded(monkeypatch, **settings)
    check_setup(pair, reading, pfs)


def test_the_initiator_is_told_the_same(monkeypatch) -> None:
    pair, _ = recorded(monkeypatch)
    (channel,) = pair.a.seen(e.KeyingChannelEstablished)
    assert channel.proposal == "modern: aes-cbc-256 hmac-sha2-256 modp-2048"
