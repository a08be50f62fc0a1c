"""What the two gateways of a cell are told, and what they say came of it, in common words.

Proposals are in the words that strongSwan's configuration and ours share:
``aes128-sha256-modp2048`` for phase 1, ``aes128gcm16`` or ``3des-md5`` for phase 2, ``modp2048``
for the group of perfect forward secrecy.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

KEY_BITS = 2048


@dataclass(frozen=True)
class KeyPair:
    """An RSA key in the forms that the two programs read."""

    private: rsa.RSAPrivateKey = field(repr=False)

    @classmethod
    def make(cls) -> KeyPair:
        return cls(rsa.generate_private_key(65537, KEY_BITS))

    @cached_property
    def public_pem(self) -> bytes:
        return self.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    @cached_property
    def public_record(self) -> str:
        """The form of RFC 3110 section 2, as our configuration has it."""
        numbers = self.private.public_key().public_numbers()
        exponent = numbers.e.to_bytes((numbers.e.bit_length() + 7) // 8, "big")
        modulus = numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8, "big")
        return "0s" + base64.b64encode(bytes([len(exponent)]) + exponent + modulus).decode()

    def write_private(self, path: Path) -> None:
        path.touch(mode=0o600)
        path.write_bytes(
            self.private.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
        )


@dataclass(frozen=True)
class Party:
    """One end of the tunnel as the configurations of both ends describe it."""

    address: str  # where it is, to itself
    public: str  # where it is, to the other
    identity: str  # an address, or @ and a domain name
    network: str  # what is behind it
    key: KeyPair


@dataclass(frozen=True)
class Terms:
    """What one gateway is configured for; ``mirrored`` is the same for the other."""

    local: Party
    remote: Party
    phase1: str
    phase2: str
    pfs: str | None
    encapsulation: str = "auto"  # ours: auto, esp or udp
    port_encryption: str = "off"  # ours: the placement that our rule says
    fragment: bool = False  # strongSwan cuts its IKE messages into pieces
    channel_lifetime: int | None = None  # seconds; None: the program's default
    tunnel_lifetime: int | None = None
    dead_peer_seconds: int | None = None  # silence until the first question; None: no questions

    def mirrored(self) -> Terms:
        return replace(self, local=self.remote, remote=self.local)


@dataclass(frozen=True)
class Agreed:
    """One tunnel as one gateway tells of it.  ``pfs``: its group, ``"none"``, or ``None``
    if this gateway does not say."""

    phase1: str
    phase2: str
    pfs: str | None
    initiator: bool
    local_network: str
    remote_network: str
    remote_identity: str
    spis: tuple[str, str]  # inbound, outbound
    encapsulation: str  # esp or udp
    channel: str  # what names the keying channel under this gateway; a new one has another
