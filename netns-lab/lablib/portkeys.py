"""The keys of sealed ports, derived from the key files of both gateways (RFC 7748, RFC 5869).

It shares no code with the gateway, on purpose; see `ff1`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import struct
from pathlib import Path

from lablib.errors import LabError

FIELD = 2**255 - 19
SECONDS_A_DAY = 86400
KEY_LENGTHS = {1: 16, 2: 32}  # octets, by the algorithm's number
# The DER of a private key of X25519 (RFC 8410, section 7) up to its 32 octets.
PKCS8_PREFIX = bytes.fromhex("302e020100300506032b656e04220420")


def x25519(scalar: bytes, point: bytes) -> bytes:
    """RFC 7748, section 5: the Montgomery ladder."""
    octets = bytearray(scalar)
    octets[0] &= 248
    octets[31] = octets[31] & 127 | 64
    multiplier = int.from_bytes(octets, "little")
    u = int.from_bytes(point, "little") & (1 << 255) - 1
    x2, z2, x3, z3, swapped = 1, 0, u, 1, 0
    for place in reversed(range(255)):
        bit = multiplier >> place & 1
        if swapped ^ bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swapped = bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a, b * b, d * a, c * b
        e = aa - bb
        x3, z3 = (da + cb) ** 2 % FIELD, u * (da - cb) ** 2 % FIELD
        x2, z2 = aa * bb % FIELD, e * (aa + 121665 * e) % FIELD
    if swapped:
        x2, z2 = x3, z3
    return (x2 * pow(z2, FIELD - 2, FIELD) % FIELD).to_bytes(32, "little")


def public_of(private: bytes) -> bytes:
    return x25519(private, (9).to_bytes(32, "little"))


def hkdf(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869 with SHA-256."""
    key = hmac.digest(salt, secret, "sha256")
    block, result = b"", b""
    for count in range(1, -(-length // hashlib.sha256().digest_size) + 1):
        block = hmac.digest(key, block + info + bytes([count]), "sha256")
        result += block
    return result[:length]


def private_octets(path: Path) -> bytes:
    """The 32 octets of a private key in a PEM file.  Raises LabError."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("-")]
    octets = base64.b64decode("".join(lines))
    if not octets.startswith(PKCS8_PREFIX) or len(octets) != len(PKCS8_PREFIX) + 32:
        raise LabError(f"{path}: no private key of X25519 in PKCS #8")
    return octets[len(PKCS8_PREFIX) :]


def port_key(secret: bytes, one: bytes, other: bytes, algorithm: int, day: int | None) -> bytes:
    """The key of two gateways (sst.md, section 14, 5), from the secret that their keys have in
    common and both public keys: the same whoever of them derives it."""
    lower, higher = sorted((one, other))
    info = lower + higher + bytes([algorithm])
    info += struct.pack("!I", day) if day is not None else b""
    return hkdf(secret, b"SST1", info, KEY_LENGTHS[algorithm])
