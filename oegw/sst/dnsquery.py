"""Questions that a forwarder passes on, and what it has to see of the answers.  Sans IO.

Messages go through as they are, but for the ID (RFC 5625: a proxy that understands less than it
forwards must not change it).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from dnsrecords.errors import RecordError
from dnsrecords.message import HEADER_SIZE, TYPE_CNAME, TYPE_OPT, Labels, MessageReader, Record
from oegw.sst.interface import IPAddress

# Specification: RFC 1035 section 4.1.1, RFC 5936, RFC 1995, RFC 6891 section 6.1.2.
RESPONSE, RECURSION_DESIRED, RECURSION_AVAILABLE = 0x8000, 0x0100, 0x0080
TRUNCATED = 0x0200
OPCODE = 0x7800
RCODE = 0x000F
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = range(6)
TYPE_A, TYPE_AAAA, TYPE_IXFR, TYPE_AXFR = 1, 28, 251, 252
CLASS_IN = 1

# Our choices.
MAX_ALIASES = 8
MAX_ADDRESSES = 32  # of one answer
PAYLOAD = 1232  # octets, what we tell of ourselves where the answer is our own

# Those to whom another server may know better.
UNHELPFUL = (FORMERR, SERVFAIL, NOTIMP, REFUSED)


class UnanswerableQuery(Exception):  # noqa: N818  (it names the fact)
    """What came is no question that is passed on; ``code`` says so, if an answer is due."""

    def __init__(self, reason: str, code: int | None = None) -> None:
        self.code = code
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class DnsQuery:
    """``octets``: the message; ``end``: where its question ends."""

    octets: bytes = field(repr=False)
    name: Labels
    rdtype: int
    rdclass: int
    end: int
    extended: bool  # has EDNS

    @classmethod
    def parse(cls, octets: bytes) -> DnsQuery:
        """Raises UnanswerableQuery."""
        if len(octets) < HEADER_SIZE:
            raise UnanswerableQuery(f"message of {len(octets)} octets")
        flags = int.from_bytes(octets[2:4], "big")
        if flags & RESPONSE:
            raise UnanswerableQuery("a response")  # and never an answer to it: it could go on
        if flags & OPCODE:
            raise UnanswerableQuery(f"opcode {(flags & OPCODE) >> 11}", NOTIMP)
        try:
            reader = MessageReader(octets)
            if reader.counts[0] != 1:
                raise UnanswerableQuery(f"{reader.counts[0]} questions", FORMERR)
            name, rdtype, rdclass = reader.question()
            end = reader.position
            rest = list(reader.records(sum(reader.counts[1:])))
            reader.end()
        except RecordError as error:
            raise UnanswerableQuery(str(error), FORMERR) from None
        if rdtype in (TYPE_AXFR, TYPE_IXFR):  # answers of many messages are not passed on
            raise UnanswerableQuery("zone transfer", REFUSED)
        extended = any(each.rdtype == TYPE_OPT for each in rest)
        return cls(octets, name, rdtype, rdclass, end, extended)

    @property
    def host(self) -> str | None:
        """The name, if it is asked for addresses and can be a host's."""
        if self.rdtype not in (TYPE_A, TYPE_AAAA) or self.rdclass != CLASS_IN:
            return None
        return _text(self.name)

    def with_id(self, query_id: bytes) -> bytes:
        """The message as it is passed on."""
        return query_id + self.octets[2:]

    def failure(self, code: int = SERVFAIL) -> bytes:
        """Our own answer that there is none."""
        options = b""
        if self.extended:
            options = b"\0" + TYPE_OPT.to_bytes(2, "big") + PAYLOAD.to_bytes(2, "big") + bytes(6)
        counts = b"\0\1" + bytes(4) + bytes([0, 1 if options else 0])
        return _header(self.octets, code) + counts + self.octets[HEADER_SIZE : self.end] + options

    def answered_by(self, response: bytes, query_id: bytes) -> bool:
        """Whether these octets are the response: same ID and question (RFC 5452 section 9.1), and
        whole."""
        if response[:2] != query_id or len(response) < HEADER_SIZE:
            return False
        try:
            reader = MessageReader(response)
            if not reader.flags & RESPONSE:
                return False
            if not reader.counts[0]:
                return reader.flags & RCODE in (FORMERR, NOTIMP)
            asked = (self.name, self.rdtype, self.rdclass)
            if reader.counts[0] != 1 or reader.question() != asked:
                return False
            if not reader.flags & TRUNCATED:
                for _ in reader.records(sum(reader.counts[1:])):
                    pass  # what is cut short is no answer
        except RecordError:
            return False
        return True

    def addresses_in(self, response: bytes) -> tuple[tuple[IPAddress, ...], str | None]:
        """The addresses in the response to a question for them, and the name that has them.

        Aliases are followed.  What can't be read has none: it is the asker's business.
        """
        try:
            reader = MessageReader(response)
            for _ in range(reader.counts[0]):
                reader.question()
            records: dict[tuple[Labels, int], list[Record]] = {}
            for each in reader.records(reader.counts[1]):
                if each.rdclass == CLASS_IN:
                    records.setdefault((each.owner, each.rdtype), []).append(each)
            name = self.name
            for _ in range(MAX_ALIASES):
                if (alias := records.get((name, TYPE_CNAME))) is None:
                    break
                name = reader.name_in(alias[0])
        except RecordError:
            return (), None
        kind, size = (IPv4Address, 4) if self.rdtype == TYPE_A else (IPv6Address, 16)
        found: list[IPAddress] = [
            kind(each.rdata)
            for each in records.get((name, self.rdtype), ())
            if len(each.rdata) == size
        ]
        return tuple(dict.fromkeys(found))[:MAX_ADDRESSES], _text(name)


def code_of(response: bytes) -> int:
    """The response code."""
    return response[3] & RCODE


def refusal(octets: bytes, code: int) -> bytes:
    """An answer to what is no question: the header alone."""
    return _header(octets, code) + bytes(8)


def _header(octets: bytes, code: int) -> bytes:
    flags = int.from_bytes(octets[2:4], "big") & (OPCODE | RECURSION_DESIRED)
    return octets[:2] + (flags | RESPONSE | RECURSION_AVAILABLE | code).to_bytes(2, "big")


def _text(labels: Labels) -> str | None:
    """None for a name with octets that no name of a host has."""
    if not labels or any(b"." in each or not each.isascii() for each in labels):
        return None
    return b".".join(labels).decode("ascii")
