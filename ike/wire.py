"""Bounds-checked reading and writing of network order octets."""

from __future__ import annotations

from struct import Struct

from ike.errors import TrailingOctets, TruncatedMessage


class Reader:
    """Reads a message front to back and cannot overrun.

    Raises ``TruncatedMessage`` when fewer octets are left than asked for.
    """

    __slots__ = ("_end", "_octets", "_position")

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._position = 0
        self._end = len(octets)

    @property
    def remaining(self) -> int:
        """How many octets are left."""
        return self._end - self._position

    def octets(self, count: int) -> bytes:
        """Take exactly ``count`` octets."""
        start = self._position
        if count < 0 or count > self._end - start:
            raise TruncatedMessage(f"{count} octets wanted, {self.remaining} left")
        self._position = start + count
        return self._octets[start : start + count]

    def rest(self) -> bytes:
        """Take all that is left."""
        return self.octets(self.remaining)

    def number(self, length: int) -> int:
        """Take an unsigned number of ``length`` octets."""
        start = self._position
        end = start + length
        if end > self._end:
            raise TruncatedMessage(f"{length} octets wanted, {self.remaining} left")
        self._position = end
        return int.from_bytes(self._octets[start:end], "big")

    def numbers(self, form: Struct) -> tuple[int, ...]:
        """Take several unsigned numbers at once."""
        start = self._position
        end = start + form.size
        if end > self._end:
            raise TruncatedMessage(f"{form.size} octets wanted, {self.remaining} left")
        self._position = end
        return form.unpack_from(self._octets, start)

    def finish(self) -> None:
        """Raise ``TrailingOctets`` unless everything was taken."""
        if self.remaining:
            raise TrailingOctets(f"{self.remaining} octets left over")


class Writer:
    """Collects octets; the twin of ``Reader``."""

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts = bytearray()

    def octets(self, octets: bytes) -> None:
        self._parts += octets

    def number(self, value: int, length: int) -> None:
        """Append an unsigned number; ``OverflowError`` when it does not fit."""
        self._parts += value.to_bytes(length, "big")

    def numbers(self, form: Struct, *values: int) -> None:
        """Append several unsigned numbers at once; ``struct.error`` when one does not fit."""
        self._parts += form.pack(*values)

    def bytes(self) -> bytes:
        """All that was written."""
        return bytes(self._parts)
