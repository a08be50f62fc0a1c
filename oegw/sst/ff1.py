"""FF1, format-preserving encryption (NIST SP 800-38G, algorithms 7 and 8).

``Ff1`` is the algorithm as it stands, for any radix, so that NIST's examples judge it.
``Ff1Block`` is the same for radix 2 and 32 digits under one tweak: what does not depend on the
block is computed once, and a block costs ten calls of AES.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

# Specification values: SP 800-38G section 5.1 and algorithm 7.
_BLOCK = 16
_ROUNDS = 10
_PREFIX = b"\x01\x02\x01"  # version, method FF1, addition
_SMALLEST_DOMAIN = 1_000_000  # section 5.1 as of revision 1

# Specification values of port encryption: the 32 bits of two ports.
_DIGITS = 32
_HALF = 0xFFFF


def _aes(key: bytes) -> Callable[[bytes], bytes]:
    """AES of single blocks.  ECB keeps nothing from block to block, so one encryptor serves all."""
    return Cipher(AES(key), ECB()).encryptor().update  # the mode of a single block


def _chained(aes: Callable[[bytes], bytes], octets: bytes, state: int = 0) -> int:
    """PRF (algorithm 6): CBC-MAC of whole blocks, going on from ``state``."""
    for place in range(0, len(octets), _BLOCK):
        block = state ^ int.from_bytes(octets[place : place + _BLOCK], "big")
        state = int.from_bytes(aes(block.to_bytes(_BLOCK, "big")), "big")
    return state


def _parameters(radix: int, digits: int, tweak: bytes) -> bytes:
    """P of step 5."""
    left = digits // 2
    return b"".join(
        (
            _PREFIX,
            radix.to_bytes(3, "big"),
            bytes((_ROUNDS, left % 256)),
            digits.to_bytes(4, "big"),
            len(tweak).to_bytes(4, "big"),
        )
    )


class Ff1:
    """FF1 with one key and radix, on sequences of digits."""

    def __init__(self, key: bytes, radix: int) -> None:
        if not 2 <= radix <= 1 << 16:
            raise ValueError("a radix is within 2 to 65536")
        self._aes = _aes(key)
        self._radix = radix

    def encrypt(self, tweak: bytes, digits: Sequence[int]) -> tuple[int, ...]:
        """Algorithm 7."""
        return self._rounds(tweak, digits, range(_ROUNDS))

    def decrypt(self, tweak: bytes, digits: Sequence[int]) -> tuple[int, ...]:
        """Algorithm 8."""
        return self._rounds(tweak, digits, range(_ROUNDS - 1, -1, -1))

    def _rounds(self, tweak: bytes, digits: Sequence[int], rounds: range) -> tuple[int, ...]:
        """Both algorithms; they differ in the order of rounds, and in what is added to what."""
        if any(not 0 <= digit < self._radix for digit in digits):
            raise ValueError("a digit is not within the radix")
        if self._radix ** len(digits) < _SMALLEST_DOMAIN:
            raise ValueError(f"fewer than {_SMALLEST_DOMAIN} possible values are not safe")
        left = len(digits) // 2
        right = len(digits) - left
        width = (((self._radix**right - 1).bit_length()) + 7) // 8  # b
        parameters = _parameters(self._radix, len(digits), tweak)
        padded = tweak + bytes((-len(tweak) - width - 1) % _BLOCK)
        a, b = self._number(digits[:left]), self._number(digits[left:])
        forwards = rounds.step > 0
        for i in rounds:
            modulus = self._radix ** (right if i % 2 else left)
            known = b if forwards else a
            message = parameters + padded + bytes((i,)) + known.to_bytes(width, "big")
            y = self._stretched(_chained(self._aes, message), 4 * ((width + 3) // 4) + 4)
            if forwards:
                a, b = b, (a + y) % modulus
            else:
                a, b = (b - y) % modulus, a
        return self._digits(a, left) + self._digits(b, right)

    def _stretched(self, block: int, length: int) -> int:
        """NUM(S) of step 6: the first ``length`` octets of R, R xor 1 encrypted, and so on."""
        octets = block.to_bytes(_BLOCK, "big")
        for j in range(1, -(-length // _BLOCK)):
            octets += self._aes((block ^ j).to_bytes(_BLOCK, "big"))
        return int.from_bytes(octets[:length], "big")

    def _number(self, digits: Sequence[int]) -> int:
        number = 0
        for digit in digits:
            number = number * self._radix + digit
        return number

    def _digits(self, number: int, length: int) -> tuple[int, ...]:
        digits = []
        for _ in range(length):
            number, digit = divmod(number, self._radix)
            digits.append(digit)
        return tuple(reversed(digits))


class Ff1Key:
    """A key, made ready once for all tweaks."""

    __slots__ = ("aes",)

    def __init__(self, key: bytes) -> None:
        self.aes = _aes(key)


class Ff1Block:
    """FF1 with radix 2 on 32 binary digits, under one key and tweak.

    With 16 bits a side, b is 2 and d is 8 (steps 3 and 4), so that the last block of P || Q ends
    in the round's number and the 16 known bits, and y modulo 2**16 is octets 6 and 7 of R.
    """

    __slots__ = ("_aes", "_base")

    def __init__(self, key: Ff1Key, tweak: bytes) -> None:
        self._aes = key.aes
        fixed = _parameters(2, _DIGITS, tweak) + tweak + bytes((-len(tweak) - 3) % _BLOCK)
        whole = len(fixed) // _BLOCK * _BLOCK
        last = int.from_bytes(fixed[whole:] + bytes(3), "big")
        self._base = _chained(key.aes, fixed[:whole]) ^ last

    def encrypt(self, block: int) -> int:
        """32 bits to 32 bits."""
        aes, base = self._aes, self._base
        a, b = block >> 16, block & _HALF
        for i in range(0, _ROUNDS << 16, 1 << 16):
            y = aes((base ^ (i | b)).to_bytes(_BLOCK, "big"))
            a, b = b, (a + (y[6] << 8 | y[7])) & _HALF
        return a << 16 | b

    def decrypt(self, block: int) -> int:
        """The inverse of ``encrypt``."""
        aes, base = self._aes, self._base
        a, b = block >> 16, block & _HALF
        for i in range((_ROUNDS - 1) << 16, -1, -1 << 16):
            y = aes((base ^ (i | a)).to_bytes(_BLOCK, "big"))
            a, b = (b - (y[6] << 8 | y[7])) & _HALF, a
        return a << 16 | b
