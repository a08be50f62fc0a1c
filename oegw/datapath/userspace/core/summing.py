"""Ones' complement sums (RFC 1071), of which checksums are made and by which they are checked.

Only a sum's remainder modulo 0xFFFF means something.

They are the largest part of pure Python's work: for 1,400 octets its own numbers take 1.75 of the
3.3 microseconds of sealing a packet.  So where GMP is installed (Debian's coreutils need it) its
remainder modulo 2^48 - 1 is used, of which 0xFFFF is a divisor, by ctypes: 0.15 microseconds.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import repeat
from operator import add, mod
from struct import Struct

from oegw.datapath.userspace.core.columns import alike
from oegw.packet.ip import Buffer

_LIBRARY = "libgmp.so.10"
_LIMB = 8  # octets of its words
# A sum of words in the other byte order is that of the swapped words, swapped: times 256.
_SWAP = 8 if sys.byteorder == "little" else 0

# Our choices.
_PARTS = 8  # the best of some, for payloads of 1000 to 1500 octets
_LEAST = 256  # octets; for fewer, one number of Python's is as fast as anything

Remainder = Callable[[bytes, int], int]
"""Called with words of the machine and their number: something alike modulo 2^48 - 1, in a word
(``mpn_mod_34lsub1`` of GMP)."""


def _remainder() -> Remainder | None:
    """None if there is no such library."""
    try:
        library = ctypes.PyDLL(_LIBRARY)  # keeps the interpreter's lock: it is that short
        bits = ctypes.c_int.in_dll(library, "__gmp_bits_per_limb").value
        function = library["__gmpn_mod_34lsub1"]
    except (OSError, ValueError, AttributeError):
        return None
    if bits != 8 * _LIMB or ctypes.sizeof(ctypes.c_ulong) != _LIMB:
        return None
    # Without argtypes: a call takes a third less, and an int is as good as a long here.
    function.restype = ctypes.c_ulong
    # It is for GMP's own use: that it does what it should is tried.
    for words in range(1, 256):
        octets = (words * 0x9E3779B97F4A7C15).to_bytes(16, "little") * words
        whole = int.from_bytes(octets[: words * _LIMB], sys.byteorder)
        if (function(octets, words) - whole) % 0xFFFF:
            return None
    return function


remainder = _remainder()


def told() -> tuple[str, str]:
    """What divides, and why nothing faster."""
    if remainder is not None:
        return "GMP", ""
    return "Python", f"{_LIBRARY} is not installed, or another than it should be (Debian: libgmp10)"


def sum_of(octets: Buffer) -> int:
    """The sum of the 16-bit words; an odd octet is the first of its word."""
    size = len(octets)
    if size < _LEAST:
        return int.from_bytes(octets, "big") % 0xFFFF << size % 2 * 8
    if remainder is not None:
        words, rest = divmod(size, _LIMB)
        total = remainder(bytes(octets), words) << _SWAP
        return total + (int.from_bytes(octets[-rest:], "big") << rest % 2 * 8 if rest else 0)
    if size % 2:
        return int.from_bytes(octets, "big") % 0xFFFF << 8
    return sum(map(int.from_bytes, _parts_of(size).unpack(octets)))


def pieces(octets: Buffer, start: int, size: int, stride: int, count: int) -> tuple[bytes, ...]:
    """``count`` pieces of ``size`` octets each, the first at ``start`` and the next ``stride``
    behind."""
    return _pieces(size, stride - size, count).unpack_from(octets, start)


def with_sum(octets: Buffer, start: int, size: int, stride: int, count: int, due: int) -> int:
    """How many such pieces, from the first on, have the sum ``due``."""
    if remainder is None or size % _LIMB or size < _LEAST:
        sums = [each % 0xFFFF for each in pieces_of(octets, start, size, stride, count)[1]]
    else:
        found = pieces(octets, start, size, stride, count)
        sums = list(map(mod, map(remainder, found, repeat(size // _LIMB)), repeat(0xFFFF)))
        due <<= _SWAP  # once more, and it is as it was
    return alike(sums, [due % 0xFFFF] * count)


def pieces_of(
    octets: Buffer, start: int, size: int, stride: int, count: int
) -> tuple[Sequence[bytes], Sequence[int]]:
    """The same pieces, and the sum of each."""
    found = pieces(octets, start, size, stride, count)
    if size < _LEAST or size % 2:
        return found, list(map(sum_of, found))
    if remainder is None:
        parts, number = _parts_of(size).unpack, int.from_bytes
        return found, [sum(map(number, parts(piece))) for piece in found]
    words, rest = divmod(size, _LIMB)
    sums = map(remainder, found, repeat(words))
    if not rest:
        return found, [each << _SWAP for each in sums]
    ends = _ends(size, stride - size, count).unpack_from(octets, start)
    if rest == 6:
        ends = tuple(map(add, ends[::2], ends[1::2]))
    return found, [(each << _SWAP) + end for each, end in zip(sums, ends, strict=True)]


@lru_cache(maxsize=512)
def _pieces(size: int, gap: int, count: int) -> Struct:
    """The last has no gap behind it."""
    return Struct(f"{gap}x".join([f"{size}s"] * count))


@lru_cache(maxsize=256)
def _ends(size: int, gap: int, count: int) -> Struct:
    """Of an even ``size``, what is left over behind whole words: a number, or two of six octets."""
    rest = size % _LIMB
    end = f"{size - rest}x" + "I" * (rest // 4) + "H" * (rest // 2 % 2)
    return Struct("!" + f"{gap}x".join([end] * count))


@lru_cache(maxsize=256)
def _parts_of(size: int) -> Struct:
    """Parts of ``size`` octets, an even number, whose sum as numbers is that of all, modulo 0xFFFF:
    the remainder of one long number takes twice the time of some short ones and theirs."""
    part = size // _PARTS // 2 * 2
    return Struct(f"{part}s" * (_PARTS - 1) + f"{size - part * (_PARTS - 1)}s")
