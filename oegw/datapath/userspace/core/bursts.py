"""AES-GCM for many packets by one call: ipsec-mb (``multibuffer.py``) for the pure Python core.

To call anything by ctypes takes Python as long as `cryptography` takes for a packet.  So rows of
packets, that are as long as each other and as far apart, are described in the library's ring of
jobs, a column of all at once, and go by two calls: 0.3 microseconds for a packet of 1,400 octets in
place of 1.2.

Places of a job's fields are those of ``struct IMB_JOB`` of one release, so it has to be that.
"""

from __future__ import annotations

import ctypes
import functools
import hmac
import random
import sys
from collections.abc import Callable
from itertools import product
from struct import Struct
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from oegw.datapath.userspace.core.columns import lanes
from oegw.datapath.userspace.core.multibuffer import LIBRARY, PACKAGE, NoLibraryError

LEAST = 6  # packets that are worth it
MOST = 64  # at once

_VERSION = b"1.3.0"
_SETS = {
    "avx512_t2": "vaes_avx512", "avx512_t1": "avx512", "avx2_t1": "avx_gen4",
    "avx2_t2": "avx_gen4", "avx_t1": "avx_gen2", "avx_t2": "avx_gen2", "sse_t1": "sse",
    "sse_t2": "sse", "sse_t3": "sse",
}  # fmt: skip
"""The library's kinds of CPU, and how it calls its functions for AES-GCM there."""

# struct IMB_JOB, in words of 8 octets, and IMB_MGR.
_WORDS = 25
_RING = 256
_HEAD = 1024  # octets of IMB_MGR before the ring: the library's pointers to functions
_KEY, _KEY_TOO, _KEY_OCTETS, _SOURCE, _TARGET, _OCTETS = 0, 1, 2, 3, 4, 6
_IV, _IV_OCTETS, _TAG, _TAG_OCTETS, _ADDED, _ADDED_OCTETS = 9, 10, 11, 12, 13, 14
_MODE, _WAY, _ORDER = 16, 17, 18
_GCM = 5 << 32  # IMB_CIPHER_GCM, behind the status
_GMAC = 9 << 32  # IMB_AUTH_AES_GMAC, behind the direction
ENCRYPT, DECRYPT = 1, 2  # IMB_DIR_
_CIPHER_FIRST = {ENCRYPT: 1, DECRYPT: 2}  # IMB_ORDER_: what is authenticated is ciphertext

_NONCE = 12
_ICV = 16
_EXPANDED = 1024  # octets of struct gcm_key_data, which begins at a multiple of 64
_ALIGNMENT = 64
_LOW = 0xFFFFFFFF

# What is tried before it is used: some of all remainders of a block, near strides of the library's.
_LENGTHS = (*range(4, 52, 3), *range(248, 1600, 123), 255, 256, 257, 768, 1440)
_ROWS = {1440: MOST + LEAST}  # packets; of other lengths _FEW
_FEW = 4
_POINTER = Struct("=Q")


class Expanded:
    """A key as the library wants it."""

    __slots__ = ("_memory", "at", "octets")

    def __init__(self, key_octets: int) -> None:
        self._memory = ctypes.create_string_buffer(_EXPANDED + _ALIGNMENT)
        self.at = -(-ctypes.addressof(self._memory) // _ALIGNMENT) * _ALIGNMENT
        self.octets = key_octets

    def __del__(self, clear: Callable[..., object] = ctypes.memset) -> None:
        clear(self._memory, 0, _EXPANDED + _ALIGNMENT)


class Bursts:
    """The ring of this process.  A row is ``count`` texts of ``octets`` octets, the first of which
    is at the address ``place``, ``stride`` apart."""

    def __init__(self) -> None:
        library = _library()
        library.alloc_mb_mgr.restype = ctypes.c_void_p
        self._at = ctypes.c_void_p(library.alloc_mb_mgr(0))
        if not self._at.value:
            raise NoLibraryError(f"{LIBRARY} gets no memory")
        library.init_mb_mgr_auto(self._at, None)
        pointers = (ctypes.c_uint64 * (_HEAD // 8)).from_address(self._at.value)
        kinds = [kind for kind in _SETS if _address(library, f"submit_burst_{kind}") in pointers]
        if len(kinds) != 1:
            raise NoLibraryError(f"{LIBRARY} has no functions for this CPU")
        kind, names = kinds[0], _SETS[kinds[0]]
        self.name = f"ipsec-mb {_VERSION.decode()}, {names}"
        self._expand = {bits: library[f"aes_gcm_pre_{bits}_{names}"] for bits in (128, 192, 256)}
        if any(
            _address(library, f"aes_gcm_pre_{bits}_{names}") not in pointers
            for bits in self._expand
        ):
            raise NoLibraryError(f"{LIBRARY} has other functions than it should have")
        self._next, self._submit = (
            library[f"get_next_burst_{kind}"],
            library[f"submit_burst_{kind}"],
        )
        self._jobs = (ctypes.c_uint64 * MOST)()
        self._first = self._at.value + _HEAD
        words: Any = (ctypes.c_uint64 * (_RING * _WORDS)).from_address(self._first)
        self._words = memoryview(words).cast("B").cast("Q")
        self._nonces, self._added = bytearray(MOST * _NONCE), bytearray(MOST * _NONCE)
        self._tags = bytearray(MOST * _ICV)
        for field, memory, width in (
            (_IV, self._nonces, _NONCE), (_ADDED, self._added, _NONCE), (_TAG, self._tags, _ICV),
        ):  # fmt: skip
            self._set(field, 0, _addresses(address_of(memory), width, MOST))
        for field, value in ((_IV_OCTETS, _NONCE), (_TAG_OCTETS, _ICV), (_MODE, _GCM)):
            self._set_all(field, value)
        self._tag_lanes = _addresses(address_of(self._tags), _ICV, MOST)
        self._known: dict[int, int] = {}  # what stands in a field of the first jobs
        self._prepared: tuple[int, ...] = ()  # of which this was asked for last
        self._begin_anew()

    def expanded(self, key: bytes) -> Expanded:
        made = Expanded(len(key))
        self._expand[8 * len(key)](key, ctypes.c_void_p(made.at))
        return made

    def encrypt(
        self, key: Expanded, place: int, stride: int, count: int, octets: int, nonces: bytes,
        added: bytes, added_octets: int,
    ) -> None:  # fmt: skip
        """Each text, and its ICV behind it."""
        self._prepare(ENCRYPT, key, octets, added_octets)
        self._crypt(place, stride, count, nonces, added, place + octets)

    def decrypt(
        self, key: Expanded, place: int, stride: int, count: int, octets: int, nonces: bytes,
        added: bytes, added_octets: int, icvs: bytes,
    ) -> bool:  # fmt: skip
        """Each text, if all are authentic; else they stay as they were."""
        self._prepare(DECRYPT, key, octets, added_octets)
        right = self._crypt(place, stride, count, nonces, added)
        if hmac.compare_digest(right, icvs):
            return True
        # What was decrypted is encrypted again: in counter mode that is the text that was there.
        self._prepare(ENCRYPT, key, octets, added_octets)
        self._crypt(place, stride, count, nonces, added)
        return False

    def _prepare(self, way: int, key: Expanded, octets: int, added_octets: int) -> None:
        """What is alike in all jobs of this row, and mostly in the next row, too."""
        prepared = way, key.at, key.octets, octets, added_octets
        if prepared == self._prepared:
            return
        self._prepared, known = prepared, self._known
        for field, value in (
            (_KEY, key.at), (_KEY_TOO, key.at), (_KEY_OCTETS, key.octets), (_OCTETS, octets),
            (_ADDED_OCTETS, added_octets), (_WAY, way | _GMAC), (_ORDER, _CIPHER_FIRST[way]),
        ):  # fmt: skip
            if known.get(field) != value:
                known[field] = value
                self._set_all(field, value)

    def _crypt(
        self, place: int, stride: int, count: int, nonces: bytes, added: bytes, icvs: int = 0
    ) -> bytes:
        """The ICVs, or nothing if they go to the address ``icvs``, as far apart as the texts."""
        found = []
        for done in range(0, count, MOST):
            taken = min(count - done, MOST)
            self._take(taken)
            texts = _addresses(place + done * stride, stride, taken)
            self._set(_SOURCE, 0, texts)
            self._set(_TARGET, 0, texts)
            part = slice(done * _NONCE, (done + taken) * _NONCE)
            self._nonces[: taken * _NONCE] = nonces[part]
            self._added[: taken * _NONCE] = added[part]
            self._set(
                _TAG,
                0,
                _addresses(icvs + done * stride, stride, taken)
                if icvs
                else self._tag_lanes[: 8 * taken],
            )
            if self._submit(self._at, taken, self._jobs) != taken:
                raise RuntimeError(f"{LIBRARY} did not do {taken} jobs")
            if not icvs:
                found.append(bytes(self._tags[: taken * _ICV]))
        return found[0] if len(found) == 1 else b"".join(found)

    def _begin_anew(self) -> None:
        """The library tried itself with some jobs and stopped among them.  Do one there."""
        if self._next(self._at, 1, self._jobs) != 1:
            raise NoLibraryError(f"{LIBRARY} has no job")
        start, rest = divmod(self._jobs[0] - self._first, 8 * _WORDS)
        if rest or not 0 <= start < _RING:
            raise NoLibraryError(f"{LIBRARY} has other jobs than it should have")
        text = bytearray(_ICV)
        self._prepare(ENCRYPT, self.expanded(bytes(16)), len(text), 8)
        for field in (_SOURCE, _TARGET):
            self._set(field, 0, _POINTER.pack(address_of(text)))
        its = slice(start * _WORDS, (start + 1) * _WORDS)
        kept = self._words[its].tobytes()
        self._words[its] = self._words[:_WORDS]
        if self._submit(self._at, 1, self._jobs) != 1:
            raise NoLibraryError(f"{LIBRARY} does not do a job")
        self._words[its] = memoryview(kept).cast("Q")
        self._known.clear()
        self._prepared = ()

    def _take(self, count: int) -> None:
        """The first jobs of the ring: when none is under way, it begins anew."""
        if self._next(self._at, count, self._jobs) != count or self._jobs[0] != self._first:
            raise RuntimeError(f"{LIBRARY} gives other jobs than it should")

    def _set(self, field: int, start: int, values: bytes) -> None:
        end = start * _WORDS + field + len(values) // 8 * _WORDS
        column = self._words[start * _WORDS + field : end : _WORDS]
        column[:] = memoryview(values).cast("Q")

    def _set_all(self, field: int, value: int) -> None:
        self._set(field, 0, _POINTER.pack(value) * MOST)


def nonces_of(salt: bytes, first: int, count: int) -> bytes:
    """RFC 4106 section 4, where the IV is the sequence number."""
    return lanes(_NONCE, int.from_bytes(salt, "big") << 64 | first, 1, count)


def added_of(spi: int, first: int, count: int, extended: bool) -> tuple[bytes, int]:
    """What is authenticated besides (RFC 4106 section 5), in lanes of 12 octets, and how much it is
    of each."""
    if extended:
        return lanes(_NONCE, spi << 64 | first, 1, count), 12
    return lanes(_NONCE, spi << 64 | first << 32, 1 << 32, count), 8


def begins_anew(first: int, count: int) -> bool:
    """Whether the low halves of these numbers pass their end."""
    return (first & _LOW) + count > _LOW + 1


def address_of(octets: Any, place: int = 0) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(octets, place))


def _addresses(first: int, step: int, count: int) -> bytes:
    """As they stand in memory."""
    ones, ramp = _rising(count)
    return (first * ones + step * ramp).to_bytes(8 * count, "little")


@functools.lru_cache(maxsize=512)
def _rising(count: int) -> tuple[int, int]:
    """As in `columns.lanes` of 8 octets, but that the first is the least significant."""
    ones = sum(1 << 64 * lane for lane in range(count))
    return ones, sum(lane << 64 * lane for lane in range(count))


def _library() -> Any:
    try:
        library = ctypes.PyDLL(LIBRARY)  # keeps the interpreter's lock: it is that short
        version = ctypes.CFUNCTYPE(ctypes.c_char_p)(("imb_get_version_str", library))()
    except OSError:
        raise NoLibraryError(f"{LIBRARY} is not installed (Debian: {PACKAGE})") from None
    except AttributeError:
        raise NoLibraryError(f"{LIBRARY} is another library than it should be") from None
    if version != _VERSION or sys.byteorder != "little":
        shown = (version or b"?").decode("ascii", "replace")
        raise NoLibraryError(f"{LIBRARY} is version {shown}, and only {_VERSION.decode()} is known")
    return library


@functools.cache
def bursts() -> Bursts:
    """The one of this process, which was tried.  Raises NoLibraryError."""
    made = Bursts()
    if not _does_as_openssl(made):
        raise NoLibraryError(f"{made.name} does not do as OpenSSL does")
    return made


def _does_as_openssl(tried: Bursts) -> bool:
    """Rows of many lengths, all keys, with and without extended numbers, both ways."""
    source = random.Random(1)
    salt, spi = source.randbytes(4), 0x80000001
    for key_octets, octets in product((16, 24, 32), _LENGTHS):
        count = _ROWS.get(octets, _FEW)
        key = source.randbytes(key_octets)
        aead, expanded = AESGCM(key), tried.expanded(key)
        extended = octets % 8 > 3
        first = source.getrandbits(60 if extended else 31)
        stride = octets + _ICV + 7
        text = source.randbytes(count * stride)
        row = bytearray(text)
        nonces = nonces_of(salt, first, count)
        associated = added_of(spi, first, count, extended)
        place = address_of(row)
        tried.encrypt(expanded, place, stride, count, octets, nonces, *associated)
        due = bytearray(text)
        for index, start in enumerate(range(0, len(text), stride)):
            number = (first + index).to_bytes(8, "big")
            head = spi.to_bytes(4, "big") + (number if extended else number[4:])
            plain = text[start : start + octets]
            sealed = aead.encrypt(salt + number, plain, head)
            due[start : start + len(sealed)] = sealed
        if row != due:
            return False
        starts = range(octets, len(text), stride)
        icvs = [bytes(row[start : start + _ICV]) for start in starts]
        wrong = b"".join(icvs[:-1]) + bytes(_ICV)
        if (
            tried.decrypt(expanded, place, stride, count, octets, nonces, *associated, wrong)
            or row != due
        ):
            return False
        if not tried.decrypt(
            expanded, place, stride, count, octets, nonces, *associated, b"".join(icvs)
        ) or any(
            row[start : start + octets] != text[start : start + octets]
            for start in range(0, len(text), stride)
        ):
            return False
    return True


def _address(library: Any, name: str) -> int:
    return ctypes.cast(library[name], ctypes.c_void_p).value or 0
