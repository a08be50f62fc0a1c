"""ESP packets become plaintext where they are: alone, or many that came together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import pairwise, repeat
from struct import Struct

from cryptography.exceptions import InvalidTag

from oegw.datapath.userspace.core.bursts import (
    LEAST,
    Bursts,
    Expanded,
    added_of,
    address_of,
    begins_anew,
)
from oegw.datapath.userspace.esp import LAST_EXTENDED_SEQUENCE, LAST_SEQUENCE, InboundSa
from oegw.datapath.userspace.transform import (
    ESP_HEADER,
    AuthenticatedEncryption,
    AuthenticationError,
    Transform,
)

# RFC 4106: where the plaintext begins, and what is behind it.
GCM_PLAIN = ESP_HEADER + 8
GCM_ICV = 16
_GCM_LEAST = 4

_LOW = 0xFFFFFFFF
_HIGH = Struct("!I")
_GCM_EXTENDED = Struct("!IQ")  # RFC 4106 section 5

Decrypt = Callable[[memoryview, int, int, int], tuple[int, int]]
"""Called with octets, where in them a packet begins and ends, and its number: where its plaintext
with the padding begins and ends in them now.  Raises AuthenticationError."""

DecryptRow = Callable[[memoryview, int, int, int, int], int]
"""Called with octets, where in them the first packet begins, the size of each, how many there are
one behind the other and numbered one by one, and the number of the first: how many are authentic,
and have their plaintext now where `Decrypt` leaves it."""


def row_ends(payload: memoryview, size: int) -> Iterator[int]:
    """Where packets of ``size`` octets cease to be of one SA and numbered one by one, by what their
    headers say, and where the last whole one ends."""
    count = len(payload) // size if size >= ESP_HEADER else 0
    if count > 1:
        numbers = _numbers(size, count).unpack_from(payload)
        first = numbers[0]
        if begins_anew(first, count) or numbers != tuple(range(first, first + count)):
            for at, (before, its) in enumerate(pairwise(numbers), 1):
                if its != before + 1 or not its & _LOW:
                    yield at * size
    yield count * size


@lru_cache(maxsize=256)
def _numbers(size: int, count: int) -> Struct:
    """SPI and sequence number as one number, of ``count`` packets of ``size`` octets."""
    return Struct("!" + f"Q{size - ESP_HEADER}x" * count)


def gcm(sa: InboundSa, transform: AuthenticatedEncryption) -> Decrypt:
    decrypt, salt, spi = transform.aead.decrypt_into, transform.salt, sa.sa.spi
    extended, associated = sa.extended, _GCM_EXTENDED.pack

    def decrypted(payload: memoryview, place: int, stop: int, sequence: int) -> tuple[int, int]:
        start, finish = place + GCM_PLAIN, stop - GCM_ICV
        if finish - start < _GCM_LEAST:
            raise AuthenticationError
        try:
            decrypt(
                salt + payload[place + ESP_HEADER : start],
                payload[start:stop],
                associated(spi, sequence) if extended else payload[place : place + ESP_HEADER],
                payload[start:finish],
            )
        except InvalidTag:
            raise AuthenticationError from None
        return start, finish

    return decrypted


def gcm_row(sa: InboundSa, transform: AuthenticatedEncryption) -> DecryptRow:
    decrypt, salt, spi = transform.aead.decrypt_into, transform.salt, sa.sa.spi
    extended = sa.extended
    last = LAST_EXTENDED_SEQUENCE if extended else LAST_SEQUENCE

    def decrypted(payload: memoryview, place: int, size: int, count: int, sequence: int) -> int:
        count = min(count, last + 1 - sequence)
        if count < 1 or size < GCM_PLAIN + _GCM_LEAST + GCM_ICV:
            return 0
        fields = _gcm_headers(size, count).unpack_from(payload, place)
        added = fields[::2]
        if extended:
            numbers = range(sequence, sequence + count)
            added = tuple(map(_GCM_EXTENDED.pack, repeat(spi), numbers))
        opened = 0
        start = place + GCM_PLAIN
        sealed = size - GCM_PLAIN
        plain = sealed - GCM_ICV
        try:
            for iv, its in zip(fields[1::2], added, strict=True):
                decrypt(
                    salt + iv, payload[start : start + sealed], its, payload[start : start + plain]
                )
                start += size
                opened += 1
        except InvalidTag:
            # It is looked at by itself, and is decrypted already: it must not be authentic now.
            payload[start + plain : start + sealed] = bytes(GCM_ICV)
        return opened

    return decrypted


def gcm_bursts(sa: InboundSa, transform: AuthenticatedEncryption, bursts: Bursts) -> DecryptRow:
    """As `gcm_row`, many at once."""
    singly, salt, spi, extended = gcm_row(sa, transform), transform.salt, sa.sa.spi, sa.extended
    last = LAST_EXTENDED_SEQUENCE if extended else LAST_SEQUENCE
    expanded: Expanded | None = None

    def decrypted(payload: memoryview, place: int, size: int, count: int, sequence: int) -> int:
        nonlocal expanded
        row = min(count, last + 1 - sequence)
        octets = size - GCM_PLAIN - GCM_ICV
        if row < LEAST or octets < _GCM_LEAST:
            return singly(payload, place, size, count, sequence)
        fields = _gcm_sealed(size, row).unpack_from(payload, place)
        if expanded is None:
            expanded = bursts.expanded(transform.key)
        if bursts.decrypt(
            expanded,
            address_of(payload, place) + GCM_PLAIN,
            size,
            row,
            octets,
            salt.join((b"", *fields[::2])),
            *added_of(spi, sequence, row, extended),
            b"".join(fields[1::2]),
        ):
            return row
        return singly(payload, place, size, count, sequence)

    return decrypted


@lru_cache(maxsize=256)
def _gcm_sealed(size: int, count: int) -> Struct:
    """IV and ICV of ``count`` packets of ``size`` octets."""
    text = size - GCM_PLAIN - GCM_ICV
    return Struct(f"{ESP_HEADER}x{GCM_PLAIN - ESP_HEADER}s{text}x{GCM_ICV}s" * count)


@lru_cache(maxsize=256)
def _gcm_headers(size: int, count: int) -> Struct:
    """What is authenticated, and the IV, of ``count`` packets of ``size`` octets."""
    return Struct(f"{ESP_HEADER}s{GCM_PLAIN - ESP_HEADER}s{size - GCM_PLAIN}x" * count)


def cbc(sa: InboundSa, transform: Transform) -> Decrypt:
    def decrypted(payload: memoryview, place: int, stop: int, sequence: int) -> tuple[int, int]:
        high = _HIGH.pack(sequence >> 32) if sa.extended else b""
        plain = transform.open(payload[place:stop], high)
        payload[place : place + len(plain)] = plain
        return place, place + len(plain)

    return decrypted
