"""AES and FF1 by the standards (FIPS 197; NIST SP 800-38G), in plain Python.

It shares no code with the gateway, on purpose: what the lab says of sealed ports rests on this
file.  It is slow, and no secret is safe in it from one who measures its time: it reads captures.
"""

from __future__ import annotations

from collections.abc import Sequence


def _doubled(octet: int) -> int:
    """Times x in the field of AES (FIPS 197, section 4.2.1)."""
    return (octet << 1 ^ 0x11B) & 0xFF if octet & 0x80 else octet << 1


def _substitution() -> bytes:
    """The S-box (FIPS 197, section 5.1.1): inverses in the field, then an affine map."""
    powers, value = [], 1
    for _ in range(255):
        powers.append(value)
        value ^= _doubled(value)  # times x + 1, which generates the field
    logarithm = {power: exponent for exponent, power in enumerate(powers)}
    box = []
    for octet in range(256):
        inverse = powers[-logarithm[octet] % 255] if octet else 0
        mixed = 0x63
        for turn in range(5):
            mixed ^= (inverse << turn | inverse >> (8 - turn)) & 0xFF
        box.append(mixed)
    return bytes(box)


SBOX = _substitution()
# One octet's share of a column after SubBytes and MixColumns, for the first row.
_COLUMN = [
    _doubled(s) << 24 | s << 16 | s << 8 | (_doubled(s) ^ s) for s in SBOX
]  # fmt: skip
_COLUMNS = [[w >> 8 * n | (w << (32 - 8 * n)) & 0xFFFFFFFF for w in _COLUMN] for n in range(4)]


class Aes:
    """AES with a key of 16 or 32 octets, one way: FF1 never decrypts."""

    def __init__(self, key: bytes) -> None:
        length = len(key) // 4
        self._rounds = length + 6
        words = [int.from_bytes(key[at : at + 4], "big") for at in range(0, len(key), 4)]
        constant = 1
        while len(words) < 4 * (self._rounds + 1):
            word = words[-1]
            if len(words) % length == 0:
                word = _substituted((word << 8 | word >> 24) & 0xFFFFFFFF) ^ constant << 24
                constant = _doubled(constant)
            elif length > 6 and len(words) % length == 4:
                word = _substituted(word)
            words.append(words[-length] ^ word)
        self._words = words

    def encrypt(self, block: bytes) -> bytes:
        """One block of 16 octets."""
        words, (first, second, third, fourth) = self._words, _COLUMNS
        state = [int.from_bytes(block[4 * n : 4 * n + 4], "big") ^ words[n] for n in range(4)]
        for turn in range(1, self._rounds):
            state = [
                first[state[n] >> 24]
                ^ second[state[(n + 1) % 4] >> 16 & 0xFF]
                ^ third[state[(n + 2) % 4] >> 8 & 0xFF]
                ^ fourth[state[(n + 3) % 4] & 0xFF]
                ^ words[4 * turn + n]
                for n in range(4)
            ]
        last = 4 * self._rounds
        return b"".join(
            (
                (
                    SBOX[state[n] >> 24] << 24
                    | SBOX[state[(n + 1) % 4] >> 16 & 0xFF] << 16
                    | SBOX[state[(n + 2) % 4] >> 8 & 0xFF] << 8
                    | SBOX[state[(n + 3) % 4] & 0xFF]
                )
                ^ words[last + n]
            ).to_bytes(4, "big")
            for n in range(4)
        )


def _substituted(word: int) -> int:
    return int.from_bytes(bytes(SBOX[octet] for octet in word.to_bytes(4, "big")), "big")


def _number(numerals: Sequence[int], radix: int) -> int:
    """NUM (SP 800-38G, algorithm 1): the first numeral weighs most."""
    value = 0
    for numeral in numerals:
        value = value * radix + numeral
    return value


def _numerals(value: int, radix: int, length: int) -> list[int]:
    """STR (SP 800-38G, algorithm 3)."""
    result = []
    for _ in range(length):
        value, numeral = divmod(value, radix)
        result.append(numeral)
    return result[::-1]


class Ff1:
    """FF1 (SP 800-38G, section 5.1) under one key, for numerals of one radix."""

    ROUNDS = 10

    def __init__(self, key: bytes, radix: int = 2) -> None:
        self._aes, self._radix = Aes(key), radix

    def encrypt(self, tweak: bytes, numerals: Sequence[int]) -> list[int]:
        """Algorithm 7."""
        half = len(numerals) // 2
        left, right = list(numerals[:half]), list(numerals[half:])
        for turn in range(self.ROUNDS):
            length = half if turn % 2 == 0 else len(numerals) - half
            mixed = _number(left, self._radix) + self._round(tweak, turn, right, len(numerals))
            left, right = right, _numerals(mixed % self._radix**length, self._radix, length)
        return left + right

    def decrypt(self, tweak: bytes, numerals: Sequence[int]) -> list[int]:
        """Algorithm 8."""
        half = len(numerals) // 2
        left, right = list(numerals[:half]), list(numerals[half:])
        for turn in reversed(range(self.ROUNDS)):
            length = half if turn % 2 == 0 else len(numerals) - half
            mixed = _number(right, self._radix) - self._round(tweak, turn, left, len(numerals))
            left, right = _numerals(mixed % self._radix**length, self._radix, length), left
        return left + right

    def _round(self, tweak: bytes, turn: int, numerals: Sequence[int], length: int) -> int:
        """The number y of steps 6.i to 6.iv."""
        half = length // 2
        octets = ((self._radix ** (length - half) - 1).bit_length() + 7) // 8
        wanted = 4 * -(-octets // 4) + 4
        prefix = bytes([1, 2, 1]) + self._radix.to_bytes(3, "big") + bytes([self.ROUNDS])
        prefix += bytes([half % 256]) + length.to_bytes(4, "big") + len(tweak).to_bytes(4, "big")
        tail = bytes([turn]) + _number(numerals, self._radix).to_bytes(octets, "big")
        mixed = tweak + bytes(-(len(tweak) + len(tail)) % 16) + tail
        chained = self._chained(prefix + mixed)
        stream, count = chained, 1
        while len(stream) < wanted:
            stream += self._aes.encrypt(_xor(chained, count.to_bytes(16, "big")))
            count += 1
        return int.from_bytes(stream[:wanted], "big")

    def _chained(self, octets: bytes) -> bytes:
        """PRF (algorithm 6): the last block of CBC from a block of zeros."""
        block = bytes(16)
        for at in range(0, len(octets), 16):
            block = self._aes.encrypt(_xor(block, octets[at : at + 16]))
        return block


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


def open_block(cipher: Ff1, tweak: bytes, block: int) -> int:
    """The 32 bits that were sealed: decrypted until neither half is 0, as sealing encrypts until
    neither is (sst.md, section 3)."""
    while True:
        bits = cipher.decrypt(tweak, _numerals(block, 2, 32))
        block = _number(bits, 2)
        if block >> 16 and block & 0xFFFF:
            return block


def seal_block(cipher: Ff1, tweak: bytes, block: int) -> int:
    """The other way."""
    while True:
        block = _number(cipher.encrypt(tweak, _numerals(block, 2, 32)), 2)
        if block >> 16 and block & 0xFFFF:
            return block
