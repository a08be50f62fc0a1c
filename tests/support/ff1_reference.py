"""FF1 a second time, to judge the first: numerals as strings, a step of the standard for each line.

Written from NIST SP 800-38G sections 4.5, 5.1 and 6.1 (algorithms 1 to 8), with the names that the
standard uses.  Nothing is shared with `oegw/sst/ff1.py`: AES comes as a CBC-MAC of the whole of
P || Q each time, halves are texts, and the logarithm of step 3 is found by trying.
"""

from __future__ import annotations

from math import ceil

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"


def ciph(key: bytes, block: bytes) -> bytes:
    encryptor = Cipher(algorithms.AES(key), modes.CBC(bytes(16))).encryptor()
    return encryptor.update(block) + encryptor.finalize()


def prf(key: bytes, message: bytes) -> bytes:
    """Algorithm 6."""
    return ciph(key, message)[-16:]


def num_radix(text: str, radix: int) -> int:
    """Algorithm 1."""
    return int(text, radix) if text else 0


def num(octets: bytes) -> int:
    """Algorithm 2, of the octets' bits."""
    return int("".join(f"{octet:08b}" for octet in octets), 2)


def str_m_radix(x: int, radix: int, m: int) -> str:
    """Algorithm 3."""
    text = ""
    for _ in range(m):
        text = ALPHABET[x % radix] + text
        x //= radix
    return text


def octets_of(x: int, s: int) -> bytes:
    """[x]^s of section 4.5."""
    return bytes(int(f"{x:0{8 * s}b}"[8 * i : 8 * i + 8], 2) for i in range(s))


def _steps_1_to_5(text: str, radix: int, tweak: bytes) -> tuple[int, int, int, int, bytes]:
    n, t = len(text), len(tweak)
    u = n // 2
    v = n - u
    bits = 0
    while 2**bits < radix**v:
        bits += 1
    b = ceil(bits / 8)
    d = 4 * ceil(b / 4) + 4
    p = b"\x01\x02\x01" + octets_of(radix, 3) + b"\x0a" + octets_of(u % 256, 1)
    return u, v, b, d, p + octets_of(n, 4) + octets_of(t, 4)


def _y(key: bytes, p: bytes, tweak: bytes, b: int, d: int, i: int, known: int) -> int:
    """Steps 6.i to 6.iv: what is added in round ``i``."""
    q = tweak + bytes((-len(tweak) - b - 1) % 16) + octets_of(i, 1) + octets_of(known, b)
    r = prf(key, p + q)
    s = r
    for j in range(1, ceil(d / 16)):
        s += ciph(key, bytes(x ^ y for x, y in zip(r, octets_of(j, 16), strict=True)))
    return num(s[:d])


def encrypt(key: bytes, radix: int, tweak: bytes, text: str) -> str:
    """Algorithm 7."""
    u, v, b, d, p = _steps_1_to_5(text, radix, tweak)
    left, right = text[:u], text[u:]
    for i in range(10):
        y = _y(key, p, tweak, b, d, i, num_radix(right, radix))
        m = v if i % 2 else u
        c = (num_radix(left, radix) + y) % radix**m
        left, right = right, str_m_radix(c, radix, m)
    return left + right


def decrypt(key: bytes, radix: int, tweak: bytes, text: str) -> str:
    """Algorithm 8."""
    u, v, b, d, p = _steps_1_to_5(text, radix, tweak)
    left, right = text[:u], text[u:]
    for i in (9, 8, 7, 6, 5, 4, 3, 2, 1, 0):
        y = _y(key, p, tweak, b, d, i, num_radix(left, radix))
        m = v if i % 2 else u
        c = (num_radix(right, radix) - y) % radix**m
        left, right = str_m_radix(c, radix, m), left
    return left + right
