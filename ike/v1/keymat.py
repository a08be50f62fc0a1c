"""Keys from secrets: RFC 2409 sections 5 and 5.5 and appendix B."""

from __future__ import annotations

from dataclasses import dataclass, field

from ike.algorithms import CipherAlgorithm, HashAlgorithm

_ZERO, _ONE, _TWO = b"\x00", b"\x01", b"\x02"


@dataclass(frozen=True, slots=True)
class ChannelKeys:
    """What phase 1 leaves behind for everything that follows.

    ``derivation`` is SKEYID_d, ``authentication`` SKEYID_a, ``cipher_key`` is made
    from SKEYID_e.
    """

    hash: HashAlgorithm
    cipher: CipherAlgorithm
    cookies: tuple[bytes, bytes]
    master: bytes = field(repr=False)  # SKEYID, for HASH_I and HASH_R
    derivation: bytes = field(repr=False)
    authentication: bytes = field(repr=False)
    cipher_key: bytes = field(repr=False)

    @classmethod
    def derive(
        cls,
        hash_: HashAlgorithm,
        cipher: CipherAlgorithm,
        cookies: tuple[bytes, bytes],
        nonces: tuple[bytes, bytes],
        shared: bytes,
    ) -> ChannelKeys:
        """For authentication with signatures.

        ``nonces`` are the bodies Ni_b and Nr_b, ``shared`` is g^xy padded to the group.

            SKEYID   = prf(Ni_b | Nr_b, g^xy)
            SKEYID_d = prf(SKEYID, g^xy | CKY-I | CKY-R | 0)
            SKEYID_a = prf(SKEYID, SKEYID_d | g^xy | CKY-I | CKY-R | 1)
            SKEYID_e = prf(SKEYID, SKEYID_a | g^xy | CKY-I | CKY-R | 2)
        """
        both = cookies[0] + cookies[1]
        master = hash_.prf(nonces[0] + nonces[1], shared)
        derivation = hash_.prf(master, shared, both, _ZERO)
        authentication = hash_.prf(master, derivation, shared, both, _ONE)
        encryption = hash_.prf(master, authentication, shared, both, _TWO)
        return cls(
            hash_,
            cipher,
            cookies,
            master,
            derivation,
            authentication,
            _cipher_key(hash_, encryption, cipher.key_length),
        )

    def signed_hash(
        self,
        own_public: bytes,
        other_public: bytes,
        own_is_initiator: bool,
        offer: bytes,
        identification: bytes,
    ) -> bytes:
        """HASH_I or HASH_R of the side whose public value and ID body come first.

        HASH_I = prf(SKEYID, g^xi | g^xr | CKY-I | CKY-R | SAi_b | IDii_b), and HASH_R the
        same with the roles of g^x and CKY exchanged.
        """
        first, second = self.cookies if own_is_initiator else self.cookies[::-1]
        return self.hash.prf(
            self.master, own_public, other_public, first, second, offer, identification
        )

    def first_iv(self, initiator_public: bytes, responder_public: bytes) -> bytes:
        """For message 5: hash(g^xi | g^xr), cut to the block."""
        return self.hash.digest(initiator_public, responder_public)[: self.cipher.block]

    def exchange_iv(self, last_block: bytes, message_id: int) -> bytes:
        """For the first message of a later exchange: hash(last block of phase 1 | M-ID)."""
        return self.hash.digest(last_block, message_id.to_bytes(4, "big"))[: self.cipher.block]

    def exchange_hash(self, message_id: int, *parts: bytes) -> bytes:
        """HASH(1) and HASH(2) of quick mode, and the HASH of informational exchanges."""
        return self.hash.prf(self.authentication, message_id.to_bytes(4, "big"), *parts)

    def closing_hash(self, message_id: int, nonces: tuple[bytes, bytes]) -> bytes:
        """HASH(3) = prf(SKEYID_a, 0 | M-ID | Ni_b | Nr_b)."""
        return self.hash.prf(
            self.authentication, _ZERO, message_id.to_bytes(4, "big"), nonces[0], nonces[1]
        )

    def tunnel_keys(
        self, shared: bytes, protocol: int, spi: bytes, nonces: tuple[bytes, bytes], length: int
    ) -> bytes:
        """KEYMAT of one direction, ``length`` octets.

        K1 = prf(SKEYID_d, g(qm)^xy | protocol | SPI | Ni_b | Nr_b), K2 has K1 before all
        that, and so on.  ``shared``, g(qm)^xy, is empty without perfect forward secrecy.
        ``spi`` is the one that the receiver chose.
        """
        return self.expanded(shared + bytes((protocol,)) + spi + nonces[0] + nonces[1], length)

    def expanded(self, seed: bytes, length: int) -> bytes:
        """K1 | K2 | .., K1 = prf(SKEYID_d, seed), K2 = prf(SKEYID_d, K1 | seed): ``length`` octets.

        RFC 2409 section 5.5 and its construction for long keys.
        """
        block = self.hash.prf(self.derivation, seed)
        material = block
        while len(material) < length:
            block = self.hash.prf(self.derivation, block, seed)
            material += block
        return material[:length]


def _cipher_key(hash_: HashAlgorithm, encryption: bytes, length: int) -> bytes:
    """SKEYID_e itself when it is long enough, else K1 | K2 | ..., K1 = prf(SKEYID_e, 0)."""
    if len(encryption) >= length:
        return encryption[:length]
    block = hash_.prf(encryption, _ZERO)
    material = block
    while len(material) < length:
        block = hash_.prf(encryption, block)
        material += block
    return material[:length]
