"""What ESP's algorithms do to one packet: a row for each, two ways to combine them.

A `Transform` is made once for an SA and keeps its cipher objects: making them anew for
each packet would cost more than the cipher.
"""

from __future__ import annotations

import hmac as constant_time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.hashes import MD5, SHA1, SHA256, HashAlgorithm
from cryptography.hazmat.primitives.hmac import HMAC

from oegw.datapath.interface import SecurityAssociation
from oegw.packet.ip import Buffer

Random = Callable[[int], bytes]

ESP_HEADER = 8  # SPI and sequence number (RFC 4303 section 2)


class AuthenticationError(Exception):
    """The packet was not made by the peer; where it went wrong is not said."""


class AlgorithmError(Exception):
    """No such cipher, or a key that does not fit it; the message shows no key."""


@dataclass(frozen=True, slots=True)
class CipherRow:
    key_sizes: tuple[int, ...]  # octets, as ike.EspSa gives them
    block: int  # alignment of the plaintext, octets
    iv: int


@dataclass(frozen=True, slots=True)
class IntegrityRow:
    key_size: int
    hash: Callable[[], HashAlgorithm]
    icv: int


GCM = "aes-gcm-16"
_SALT = 4  # RFC 4106 section 8.1: the last octets of the key
_GCM_IV = 8
_GCM_ICV = 16

CIPHERS = {
    GCM: CipherRow((20, 28, 36), 4, _GCM_IV),  # RFC 4106
    "aes-cbc": CipherRow((16, 24, 32), 16, 16),  # RFC 3602
    "3des-cbc": CipherRow((24,), 8, 8),  # RFC 2451
}
INTEGRITIES = {
    "hmac-sha2-256-128": IntegrityRow(32, SHA256, 16),  # RFC 4868
    "hmac-sha1-96": IntegrityRow(20, SHA1, 12),  # RFC 2404
    "hmac-md5-96": IntegrityRow(16, MD5, 12),  # RFC 2403
}


class Transform(Protocol):
    """``head`` is SPI and the low sequence number, ``high`` the other half with ESN, else empty."""

    block: int
    iv: int
    icv: int

    def seal(self, head: bytes, high: bytes, plain: bytes) -> bytes:
        """The ESP packet of ``plain``, which is padded already."""

    def open(self, packet: Buffer, high: bytes) -> bytes:
        """The plaintext with its padding.  Raises AuthenticationError."""


class AuthenticatedEncryption:
    """AES-GCM (RFC 4106).  The IV is the sequence number, which no key sees twice."""

    __slots__ = ("aead", "block", "icv", "iv", "key", "salt")

    def __init__(self, key: bytes) -> None:
        self.key = key[:-_SALT]
        self.aead = AESGCM(self.key)
        self.salt = key[-_SALT:]
        self.block = CIPHERS[GCM].block
        self.iv = _GCM_IV
        self.icv = _GCM_ICV

    def seal(self, head: bytes, high: bytes, plain: bytes) -> bytes:
        iv = (high or b"\0\0\0\0") + head[4:]
        associated = head[:4] + high + head[4:]  # RFC 4106 section 5
        return head + iv + self.aead.encrypt(self.salt + iv, plain, associated)

    def open(self, packet: Buffer, high: bytes) -> bytes:
        if len(packet) < ESP_HEADER + _GCM_IV + 4 + _GCM_ICV:
            raise AuthenticationError
        associated = bytes(packet[:4]) + high + bytes(packet[4:8])
        try:
            return self.aead.decrypt(self.salt + bytes(packet[8:16]), packet[16:], associated)
        except InvalidTag:
            raise AuthenticationError from None


class EncryptThenMac:
    """A cipher in CBC mode and an HMAC over the result (RFC 4303 section 3.3.2.1).

    One CBC stream serves all packets.  Sealing, a random block goes through the cipher first, freed
    from the chain to what was sealed before, and what comes out is the packet's IV: as
    unpredictable as the block, and the next block is chained to it just as RFC 3602 wants.
    Opening, the IV goes through as if it were ciphertext; its own "plaintext" is cut off, and the
    next block is right whatever came before.
    """

    __slots__ = ("_chained", "_decryptor", "_encryptor", "_hmac", "_random", "block", "icv", "iv")

    def __init__(
        self, cipher: str, key: bytes, integrity: str, integrity_key: bytes, random: Random
    ) -> None:
        row = CIPHERS[cipher]
        self.block = row.block
        self.iv = row.iv
        self.icv = INTEGRITIES[integrity].icv
        algorithm = AES(key) if cipher == "aes-cbc" else TripleDES(key)
        self._chained = 0  # what the stream adds to the next block: the last of ciphertext
        stream = Cipher(algorithm, modes.CBC(bytes(row.iv)))
        self._encryptor = stream.encryptor()
        self._decryptor = stream.decryptor()
        self._hmac = HMAC(integrity_key, INTEGRITIES[integrity].hash())
        self._random = random

    def seal(self, head: bytes, high: bytes, plain: bytes) -> bytes:
        return self.seal_with(self._random(self.iv), head, high, plain)

    def seal_with(self, block: bytes, head: bytes, high: bytes, plain: bytes) -> bytes:
        """As ``seal``, with this random block."""
        first = (int.from_bytes(block, "big") ^ self._chained).to_bytes(self.iv, "big")
        packet = head + self._encryptor.update(first + plain)
        self._chained = int.from_bytes(packet[-self.iv :], "big")
        mac = self._hmac.copy()
        mac.update(packet)
        if high:
            mac.update(high)
        return packet + mac.finalize()[: self.icv]

    def open(self, packet: Buffer, high: bytes) -> bytes:
        end = len(packet) - self.icv
        size = end - ESP_HEADER - self.iv
        if size < self.block or size % self.block:
            raise AuthenticationError
        mac = self._hmac.copy()
        mac.update(packet[:end])
        if high:
            mac.update(high)
        if not constant_time.compare_digest(mac.finalize()[: self.icv], packet[end:]):
            raise AuthenticationError
        return self._decryptor.update(packet[ESP_HEADER:end])[self.iv :]


def warm_up(random: Random) -> None:
    """Use every algorithm once.

    The first use makes OpenSSL look its implementation up, which takes about a
    millisecond: better at start than when the first packet waits.
    """
    pairs: list[tuple[str, str | None]] = [(GCM, None), ("3des-cbc", "hmac-md5-96")]
    pairs += [("aes-cbc", integrity) for integrity in INTEGRITIES]
    for cipher, integrity in pairs:
        key = random(CIPHERS[cipher].key_sizes[0])
        transform: Transform
        if integrity is None:
            transform = AuthenticatedEncryption(key)
        else:
            mac_key = random(INTEGRITIES[integrity].key_size)
            transform = EncryptThenMac(cipher, key, integrity, mac_key, random)
        sealed = transform.seal(bytes(ESP_HEADER), b"", bytes(transform.block))
        transform.open(sealed, b"")


def check_algorithms(sa: SecurityAssociation) -> None:
    """Raises AlgorithmError unless the algorithms exist and the keys fit."""
    cipher = CIPHERS.get(sa.cipher)
    if cipher is None:
        raise AlgorithmError(f"cipher {sa.cipher!r} is unknown")
    if len(sa.encryption_key) not in cipher.key_sizes:
        raise AlgorithmError(f"{sa.cipher}: a key of {len(sa.encryption_key)} octets")
    if sa.cipher == GCM:
        if sa.integrity is not None:
            raise AlgorithmError(f"{sa.cipher} goes without integrity, not {sa.integrity!r}")
        return
    integrity = INTEGRITIES.get(sa.integrity or "")
    if integrity is None:
        raise AlgorithmError(f"integrity {sa.integrity!r} is unknown")
    if len(sa.integrity_key) != integrity.key_size:
        raise AlgorithmError(f"{sa.integrity}: a key of {len(sa.integrity_key)} octets")


def transform_of(sa: SecurityAssociation, random: Random) -> Transform:
    """The transform of one SA.  Raises AlgorithmError."""
    check_algorithms(sa)
    if sa.integrity is None:
        return AuthenticatedEncryption(sa.encryption_key)
    return EncryptThenMac(sa.cipher, sa.encryption_key, sa.integrity, sa.integrity_key, random)
