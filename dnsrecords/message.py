"""The sections of a DNS message (RFC 1035 section 4.1), with RDATA left as it is.

Why not dnspython's reader: it refuses a whole message for one record that it
can't read, but such a TXT record must reach `Delegation`, as it means deny; and
2000 records with long compressed names keep it busy for seconds.  Here a name
is read once, however often it is pointed to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dnsrecords.errors import RecordError

# Specification: RFC 1035 sections 2.3.4 and 4.1, RFC 6891 section 6.1.
HEADER_SIZE = 12
MAX_NAME_OCTETS = 255
RCODE_MASK = 0x000F
POINTER = 0xC0
TYPE_CNAME = 5
TYPE_SOA = 6
TYPE_PTR = 12
TYPE_OPT = 41
OPTION_EXTENDED_ERROR = 15  # RFC 8914 section 2

# Our choice, far above what any owner of an address needs.
MAX_RECORDS = 2048

Labels = tuple[bytes, ...]  # of a name, in lower case, without the root


class MalformedResponse(RecordError):  # noqa: N818  (see errors.py)
    """The response to our query, as it seems, and it can't be read."""

    trigger = "dns_response_malformed"


@dataclass(frozen=True, slots=True)
class Record:
    """One resource record; ``start`` is where its RDATA begins in the message."""

    owner: Labels
    rdtype: int
    rdclass: int
    ttl: int
    start: int
    rdata: bytes


class MessageReader:
    """Reads questions and records in order; raises MalformedResponse."""

    def __init__(self, octets: bytes) -> None:
        if len(octets) < HEADER_SIZE:
            raise MalformedResponse(f"message of {len(octets)} octets")
        numbers = [int.from_bytes(octets[i : i + 2], "big") for i in range(0, HEADER_SIZE, 2)]
        self.query_id, self.flags = numbers[:2]
        self.counts = tuple(numbers[2:])  # questions, answers, authority, additional
        if sum(self.counts) > MAX_RECORDS:
            raise MalformedResponse(f"message claims {sum(self.counts)} records")
        self._octets = octets
        self._position = HEADER_SIZE
        self._names: dict[int, Labels] = {}  # by where they begin

    @property
    def position(self) -> int:
        """How many octets are read."""
        return self._position

    def question(self) -> tuple[Labels, int, int]:
        """Name, type and class."""
        name = self._name()
        return name, self._number(2), self._number(2)

    def records(self, count: int) -> Iterator[Record]:
        for _ in range(count):
            owner = self._name()
            rdtype, rdclass, ttl = self._number(2), self._number(2), self._number(4)
            length = self._number(2)
            start = self._position
            yield Record(owner, rdtype, rdclass, ttl, start, self._take(length))

    def end(self) -> None:
        """Nothing may follow."""
        if self._position != len(self._octets):
            raise MalformedResponse("octets follow the last record")

    def name_in(self, record: Record) -> Labels:
        """The name that is the whole RDATA of ``record``."""
        labels, after = self._name_at(record.start)
        if after != record.start + len(record.rdata):
            raise MalformedResponse("name does not fill its record")
        return labels

    def _take(self, count: int) -> bytes:
        start = self._position
        if count > len(self._octets) - start:
            raise MalformedResponse("message is cut short")
        self._position += count
        return self._octets[start : self._position]

    def _number(self, size: int) -> int:
        return int.from_bytes(self._take(size), "big")

    def _name(self) -> Labels:
        labels, self._position = self._name_at(self._position)
        return labels

    def _name_at(self, start: int) -> tuple[Labels, int]:
        """The name at ``start``, and where what follows it begins.

        A pointer must lead to before the piece that it ends, so there is no
        loop (RFC 1035 section 4.1.4: "a prior occurrence").
        """
        octets, at, limit = self._octets, start, start
        labels: list[bytes] = []
        seen: list[tuple[int, int]] = []  # offsets passed, and how many labels came before
        after: int | None = None
        while (known := self._names.get(at)) is None:
            if at >= len(octets):
                raise MalformedResponse("name is cut short")
            seen.append((at, len(labels)))
            length = octets[at]
            if length >= POINTER:
                if at + 1 >= len(octets):
                    raise MalformedResponse("name is cut short")
                target = (length - POINTER) << 8 | octets[at + 1]
                after = at + 2 if after is None else after
                if not HEADER_SIZE <= target < limit:
                    raise MalformedResponse("name points forward")
                at = limit = target
            elif length > 63:
                raise MalformedResponse("label of an unknown kind")
            elif length == 0:
                after = at + 1 if after is None else after
                known = ()
                break
            else:
                if at + 1 + length > len(octets):
                    raise MalformedResponse("name is cut short")
                labels.append(octets[at + 1 : at + 1 + length].lower())
                at += 1 + length
        whole = (*labels, *known)
        if sum(map(len, whole)) + len(whole) + 1 > MAX_NAME_OCTETS:
            raise MalformedResponse("name is too long")
        for offset, count in seen:
            self._names[offset] = whole[count:]
        if after is None:
            after = self._after(at)
        return whole, after

    def _after(self, at: int) -> int:
        """Where the name at ``at``, already read, ends in place."""
        while 0 < self._octets[at] < POINTER:
            at += 1 + self._octets[at]
        return at + (2 if self._octets[at] else 1)


def extended_code(flags: int, options: Record | None) -> int:
    """The response code with the upper bits that EDNS adds (RFC 6891 section 6.1.3)."""
    upper = 0 if options is None else options.ttl >> 24
    return upper << 4 | flags & RCODE_MASK


def extended_errors(options: Record | None) -> list[int]:
    """The info codes of RFC 8914 in an OPT record; broken options end the list."""
    found: list[int] = []
    rdata = b"" if options is None else options.rdata
    while len(rdata) >= 4:
        code, length = int.from_bytes(rdata[:2], "big"), int.from_bytes(rdata[2:4], "big")
        if code == OPTION_EXTENDED_ERROR and 2 <= length <= len(rdata) - 4:
            found.append(int.from_bytes(rdata[4:6], "big"))
        rdata = rdata[4 + length :]
    return found
