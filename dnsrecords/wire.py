"""A reader of RDATA that can't run over the end."""

from __future__ import annotations

from dnsrecords.errors import RecordError


class Reader:
    """Reads ``octets`` from the front; what is missing raises ``error``, a class of ours."""

    __slots__ = ("_error", "_octets", "_position")

    def __init__(self, octets: bytes, error: type[RecordError]) -> None:
        self._octets = octets
        self._error = error
        self._position = 0

    @property
    def left(self) -> int:
        """How many octets have not been read."""
        return len(self._octets) - self._position

    def take(self, count: int, what: str) -> bytes:
        """The next ``count`` octets; ``what`` names them in the error."""
        if count > self.left:
            raise self._error(f"{what}: {count} octets needed, {self.left} left")
        start = self._position
        self._position += count
        return self._octets[start : self._position]

    def uint8(self, what: str) -> int:
        return self.take(1, what)[0]

    def uint16(self, what: str) -> int:
        return int.from_bytes(self.take(2, what), "big")

    def rest(self) -> bytes:
        """All that is left, possibly nothing."""
        return self.take(self.left, "rest")
