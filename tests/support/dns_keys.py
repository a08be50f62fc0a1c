"""The keys of tests/vectors/dns, and shorthands for RDATA."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa

from dnsrecords import rsakey

VECTORS = Path(__file__).parent.parent / "vectors" / "dns"


def vector(file: str) -> dict[str, list[str]]:
    """The values of each name in a vector file, in order."""
    found: dict[str, list[str]] = {}
    for line in (VECTORS / file).read_text(encoding="ascii").splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.partition(" = ")
            found.setdefault(name, []).append(value)
    return found


def base64_key(bits: int) -> str:
    return vector(f"rsa{bits}.txt")["key"][0]


KEY_1024, KEY_2048, KEY_4096 = (
    rsakey.parse_base64(base64_key(bits)) for bits in (1024, 2048, 4096)
)


def txt(*strings: str | bytes) -> bytes:
    """TXT RDATA of these strings."""
    octets = [each.encode("latin-1") if isinstance(each, str) else each for each in strings]
    return b"".join(bytes([len(each)]) + each for each in octets)


def many_keys(count: int) -> list[rsa.RSAPublicKey]:
    """Different keys that parse; nobody has their private halves."""
    return [rsa.RSAPublicNumbers(3, (1 << 1023) + 2 * i + 1).public_key() for i in range(count)]


def key_rdata(key: rsa.RSAPublicKey, head: str = "42000401") -> bytes:
    return bytes.fromhex(head) + rsakey.serialize(key)
