"""Ciphers and hashes of the key exchange, and what ESP may use: one row each."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.algorithms import AES

from ike.registry import Encryption, EspAuthentication, EspTransform, Hash


@dataclass(frozen=True, slots=True)
class HashAlgorithm:
    """A hash whose HMAC is the PRF (RFC 2409 section 4: no PRF is ever negotiated)."""

    number: Hash
    name: str  # as status shows it
    library_name: str
    length: int  # octets

    def digest(self, *parts: bytes) -> bytes:
        return hashlib.new(self.library_name, b"".join(parts), usedforsecurity=True).digest()

    def prf(self, key: bytes, *parts: bytes) -> bytes:
        return hmac.digest(key, b"".join(parts), self.library_name)


@dataclass(frozen=True, slots=True)
class CipherAlgorithm:
    """A CBC cipher that protects phase 1 and phase 2 messages."""

    number: Encryption
    key_bits: int | None  # the Key Length attribute; None: the cipher has only one, unsaid
    name: str
    key_length: int  # octets
    block: int  # octets

    def _cipher(self, key: bytes, iv: bytes) -> Cipher[modes.CBC]:
        kind = TripleDES if self.number is Encryption.TRIPLE_DES_CBC else AES
        return Cipher(kind(key), modes.CBC(iv))

    def encrypt(self, key: bytes, iv: bytes, plaintext: bytes) -> bytes:
        """``plaintext`` is whole blocks."""
        cipher = self._cipher(key, iv).encryptor()
        return cipher.update(plaintext) + cipher.finalize()

    def decrypt(self, key: bytes, iv: bytes, ciphertext: bytes) -> bytes:
        """``ciphertext`` is whole blocks."""
        cipher = self._cipher(key, iv).decryptor()
        return cipher.update(ciphertext) + cipher.finalize()


@dataclass(frozen=True, slots=True)
class EspCipher:
    """Key lengths of one ESP cipher, in octets.  ``salt`` follows the key (RFC 4106 8.1)."""

    number: EspTransform
    key_bits: int | None
    name: str  # as ``EspSa.cipher`` says it
    key_length: int
    salt: int
    combined: bool  # whether it needs no separate integrity algorithm


@dataclass(frozen=True, slots=True)
class EspIntegrity:
    number: EspAuthentication
    name: str  # as ``EspSa.integrity`` says it
    key_length: int


MD5 = HashAlgorithm(Hash.MD5, "hmac-md5", "md5", 16)
SHA1 = HashAlgorithm(Hash.SHA1, "hmac-sha1", "sha1", 20)
SHA2_256 = HashAlgorithm(Hash.SHA2_256, "hmac-sha2-256", "sha256", 32)

TRIPLE_DES_CBC = CipherAlgorithm(Encryption.TRIPLE_DES_CBC, None, "3des-cbc", 24, 8)
AES_CBC_128 = CipherAlgorithm(Encryption.AES_CBC, 128, "aes-cbc-128", 16, 16)
AES_CBC_256 = CipherAlgorithm(Encryption.AES_CBC, 256, "aes-cbc-256", 32, 16)

ESP_AES_GCM_128 = EspCipher(EspTransform.AES_GCM_16, 128, "aes-gcm-16", 16, 4, True)
ESP_AES_GCM_256 = EspCipher(EspTransform.AES_GCM_16, 256, "aes-gcm-16", 32, 4, True)
ESP_AES_CBC_128 = EspCipher(EspTransform.AES_CBC, 128, "aes-cbc", 16, 0, False)
ESP_AES_CBC_256 = EspCipher(EspTransform.AES_CBC, 256, "aes-cbc", 32, 0, False)
ESP_TRIPLE_DES = EspCipher(EspTransform.TRIPLE_DES, None, "3des-cbc", 24, 0, False)

ESP_HMAC_MD5 = EspIntegrity(EspAuthentication.HMAC_MD5, "hmac-md5-96", 16)
ESP_HMAC_SHA1 = EspIntegrity(EspAuthentication.HMAC_SHA1, "hmac-sha1-96", 20)
ESP_HMAC_SHA2_256 = EspIntegrity(EspAuthentication.HMAC_SHA2_256, "hmac-sha2-256-128", 32)
