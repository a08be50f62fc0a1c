"""RSA public keys as KEY and TXT records carry them: RFC 3110 section 2 (RFC 2537 before it).

    exponent length: 1 octet, or 0 and 2 octets | exponent | modulus

Both numbers are unsigned, most significant octet first, without leading zero octets.
"""

from __future__ import annotations

import base64
import binascii

from cryptography.hazmat.primitives.asymmetric import rsa

from dnsrecords.errors import MalformedRsaKey, UnsafeRsaKey
from dnsrecords.wire import Reader

# Our choices.  A smaller modulus can be factored (CVE-2018-17540), a larger
# one costs the verifier time; RFC 3110 itself stops at 4096 bits.
MIN_MODULUS_BITS = 1024
MAX_MODULUS_BITS = 8192
# Larger exponents exist only to make a verifier work; OpenSSL draws the same line.
MAX_EXPONENT_BITS = 64

_MAX_TEXT = 4096  # characters of a key in text: 8192 bits are 1380 in base64, 2070 in hex
_BLANKS = str.maketrans("", "", " \t\r\n")


def parse(octets: bytes) -> rsa.RSAPublicKey:
    """The key in ``octets``.

    Raises MalformedRsaKey, or its subclass UnsafeRsaKey for a key that can be
    read but must not be believed (CVE-2026-14957: exponent 0).  Every check on
    size comes before any arithmetic.
    """
    reader = Reader(octets, MalformedRsaKey)
    length = reader.uint8("exponent length")
    if length == 0:
        length = reader.uint16("exponent length")
        if length < 256:
            raise MalformedRsaKey(f"exponent length {length} in the form for 256 octets and more")
    exponent = _positive(reader.take(length, "exponent"), "exponent", MAX_EXPONENT_BITS)
    modulus = _positive(reader.rest(), "modulus", MAX_MODULUS_BITS)
    if modulus.bit_length() < MIN_MODULUS_BITS:
        raise UnsafeRsaKey(
            f"modulus of {modulus.bit_length()} bits, at least {MIN_MODULUS_BITS} are needed"
        )
    if modulus % 2 == 0:
        raise UnsafeRsaKey("modulus is even")
    if exponent < 3 or exponent % 2 == 0:
        raise UnsafeRsaKey(f"exponent {exponent} is not an odd number from 3 on")
    try:
        return rsa.RSAPublicNumbers(exponent, modulus).public_key()
    except ValueError as error:  # the library may become stricter than we are
        raise UnsafeRsaKey(f"the cryptographic library refuses the key: {error}") from error


def _positive(octets: bytes, what: str, max_bits: int) -> int:
    if not octets:
        raise MalformedRsaKey(f"{what} is missing")
    if octets[0] == 0:
        raise MalformedRsaKey(f"{what} has a leading zero octet")
    bits = (len(octets) - 1) * 8 + octets[0].bit_length()
    if bits > max_bits:
        raise UnsafeRsaKey(f"{what} of {bits} bits, at most {max_bits} are accepted")
    return int.from_bytes(octets, "big")


def serialize(key: rsa.RSAPublicKey) -> bytes:
    """``key`` as RFC 3110 has it."""
    numbers = key.public_numbers()
    exponent = _octets(numbers.e)
    if len(exponent) < 256:
        length = bytes([len(exponent)])
    else:
        length = b"\x00" + len(exponent).to_bytes(2, "big")
    return length + exponent + _octets(numbers.n)


def _octets(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def parse_base64(text: str) -> rsa.RSAPublicKey:
    """The key in ``text``: base64 without a prefix, blanks ignored (RFC 4322 section 5.2.1)."""
    if len(text) > _MAX_TEXT:
        raise MalformedRsaKey(f"key text of {len(text)} characters, at most {_MAX_TEXT} are read")
    try:
        octets = base64.b64decode(text.translate(_BLANKS), validate=True)
    except ValueError as error:
        raise MalformedRsaKey(f"key is not base64: {error}") from error
    return parse(octets)


def format_base64(key: rsa.RSAPublicKey) -> str:
    """``key`` in base64 as DNS records have it: one word, no prefix."""
    return base64.b64encode(serialize(key)).decode("ascii")


def parse_text(text: str) -> rsa.RSAPublicKey:
    """The key in a configuration's ``text``: "0s" and base64, or "0x" and hexadecimal.

    Raises MalformedRsaKey; a key without one of the prefixes is refused, as it
    could be read either way.
    """
    word = text.strip()
    prefix, digits = word[:2].lower(), word[2:]
    if prefix == "0s":
        return parse_base64(digits)
    if prefix == "0x":
        if len(digits) > _MAX_TEXT:
            raise MalformedRsaKey(
                f"key text of {len(digits)} characters, at most {_MAX_TEXT} are read"
            )
        try:
            octets = binascii.unhexlify(digits.translate(_BLANKS))
        except ValueError as error:
            raise MalformedRsaKey(f"key is not hexadecimal: {error}") from error
        return parse(octets)
    raise MalformedRsaKey("key begins neither with 0s (base64) nor with 0x (hexadecimal)")


def format_text(key: rsa.RSAPublicKey) -> str:
    """``key`` for a configuration: "0s" and base64."""
    return "0s" + format_base64(key)
