"""Messages of DNS-SD (RFC 6763) by unicast DNS: questions and replies, perhaps signed by TSIG.

Both ends of it, as octets: who tells services answers questions with `reply_octets`, who looks for
them asks with `ask`.  dnspython writes and reads the messages; nothing here opens a socket.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv4Address, ip_address
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import dns.tsig

from dnsrecords.errors import RecordError, shown
from dnsrecords.outcome import IPAddress
from dnsrecords.published import TsigKey

# Specification.
HEADER_OCTETS = 12
LEAST_RECORD_OCTETS = 11  # of the root, with no content (RFC 1035 section 4.1.3)

# Our choices.
MAX_QUESTION_OCTETS = 1024  # a name of 255, EDNS with a cookie, a TSIG of 255 and a MAC of 64
MAX_REPLY_RECORDS = 512  # of a peer: each costs a millisecond if its names are made to
MAX_REPLY_OCTETS = 65535
SOA_SECONDS = (3600, 600, 86400)  # refresh, retry, expire: nobody has a copy of such a zone

# What dnspython raises for octets that it can't read; the last for a TSIG algorithm that it lacks.
_UNREADABLE = (dns.exception.DNSException, ValueError, NotImplementedError)

Labels = tuple[str, ...]  # of a name, from the left, without the root


class MalformedQuestion(RecordError):  # noqa: N818  (see errors.py)
    """A question that gets no answer, or just a code: ``reply`` is that, if anything."""

    trigger = "dnssd_question_malformed"

    def __init__(self, text: str, reply: bytes | None = None) -> None:
        super().__init__(text)
        self.reply = reply


class UnprovenQuestion(MalformedQuestion):
    """Signed by a key that we don't have, or wrongly."""

    trigger = "dnssd_question_unproven"


class MalformedReply(RecordError):  # noqa: N818  (see errors.py)
    """Not a reply to our question, or not by whom it should be."""

    trigger = "dnssd_reply_malformed"


class Code(IntEnum):
    """What a reply says besides records."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5
    NOTAUTH = 9


@dataclass(frozen=True, slots=True)
class Pointer:
    """PTR: an instance of a service (section 4.1), a type (section 9) or a domain (section 11)."""

    target: Labels


@dataclass(frozen=True, slots=True)
class Place:
    """SRV (RFC 2782)."""

    priority: int
    weight: int
    port: int
    target: Labels


@dataclass(frozen=True, slots=True)
class Text:
    """TXT: strings ``key=value`` (section 6)."""

    strings: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Address:
    """A or AAAA."""

    address: IPAddress


@dataclass(frozen=True, slots=True)
class Start:
    """SOA: ``minimum`` is how long "there is nothing" may be believed (RFC 2308)."""

    server: Labels
    serial: int
    minimum: int


@dataclass(frozen=True, slots=True)
class Server:
    """NS."""

    name: Labels


Content = Pointer | Place | Text | Address | Start | Server


@dataclass(frozen=True, slots=True)
class Record:
    owner: Labels
    ttl: int
    content: Content

    @property
    def rdtype(self) -> str:
        return type_of(self.content)

    @property
    def line(self) -> str:
        """As a zone file has it.  Raises RecordError."""
        name, rdata = _name(self.owner), _rdata(self.content)
        return f"{name} {self.ttl} IN {self.rdtype} {rdata}"


def type_of(content: Content) -> str:
    if isinstance(content, Address):
        return "A" if isinstance(content.address, IPv4Address) else "AAAA"
    return {Pointer: "PTR", Place: "SRV", Text: "TXT", Start: "SOA", Server: "NS"}[type(content)]


# ----------------------------------------------------------------- who answers


@dataclass(frozen=True, slots=True)
class Question:
    """``name`` in lower case, as names are compared.  ``key``: the name of the key that signed it.

    ``recursion``: whether others are to be asked, too (RD).
    """

    name: Labels
    rdtype: str
    recursion: bool
    key: str | None
    _message: Any = field(repr=False)

    @property
    def same(self) -> tuple[Labels, str, bool]:
        """What it has in common with all questions that get the same reply: name, type, EDNS."""
        return self.name, self.rdtype, self._message.edns >= 0


@dataclass(frozen=True, slots=True)
class Reply:
    """What is said to a question; read or to be written."""

    code: Code
    answers: tuple[Record, ...] = ()
    authority: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()


def read_question(octets: bytes, keys: Sequence[TsigKey]) -> Question:
    """Raises MalformedQuestion, UnprovenQuestion."""
    if len(octets) < HEADER_OCTETS or octets[2] & 0x80:
        raise MalformedQuestion("is no question")  # and gets no answer: two could go on for ever
    counts = [int.from_bytes(octets[at : at + 2], "big") for at in range(4, 12, 2)]
    if octets[2] & 0x78:
        raise MalformedQuestion("is no query", _bare(octets, Code.NOTIMP))
    if counts[:3] != [1, 0, 0] or counts[3] > 2 or len(octets) > MAX_QUESTION_OCTETS:
        raise MalformedQuestion("is not one question", _bare(octets, Code.FORMERR))
    try:
        message = dns.message.from_wire(octets, keyring=_ring(keys))
    except (dns.message.UnknownTSIGKey, dns.tsig.BadSignature, dns.tsig.BadTime) as error:
        raise UnprovenQuestion(_why(error), _bare(octets, Code.NOTAUTH)) from None
    except (dns.tsig.BadKey, dns.tsig.BadAlgorithm, dns.tsig.PeerError) as error:
        raise UnprovenQuestion(_why(error), _bare(octets, Code.NOTAUTH)) from None
    except _UNREADABLE as error:
        raise MalformedQuestion(_why(error), _bare(octets, Code.FORMERR)) from None
    asked = message.question[0]
    if asked.rdclass != dns.rdataclass.IN:
        raise MalformedQuestion("is not of class IN", _bare(octets, Code.REFUSED))
    return Question(
        tuple(label.lower() for label in _labels(asked.name)),
        dns.rdatatype.to_text(asked.rdtype),
        bool(message.flags & dns.flags.RD),
        str(message.keyname).rstrip(".").lower() if message.had_tsig else None,
        message,
    )


def reply_octets(question: Question, reply: Reply, room: int) -> bytes:
    """The reply, signed if the question was.  If it has no room, it says so (TC) and nothing else.

    Raises RecordError: a record that can't be written.
    """
    records = len(reply.answers) + len(reply.authority) + len(reply.additional)
    asked = _asked_octets(question)
    if HEADER_OCTETS + len(asked) + records * LEAST_RECORD_OCTETS > room:
        return _without_room(question)  # which is known before anything is written
    response = dns.message.make_response(question._message, our_payload=MAX_QUESTION_OCTETS)
    response.flags |= dns.flags.AA
    response.set_rcode(dns.rcode.Rcode(reply.code))
    for section, rows in (
        (response.answer, reply.answers),
        (response.authority, reply.authority),
        (response.additional, reply.additional),
    ):
        section.extend(_rrsets(rows))
    try:
        octets = bytes(response.to_wire(max_size=MAX_REPLY_OCTETS))
    except (dns.exception.DNSException, ValueError) as error:
        raise RecordError(f"reply can't be written: {_why(error)}") from None
    return octets if len(octets) <= room else _without_room(question)


def _without_room(question: Question) -> bytes:
    short = dns.message.make_response(question._message, our_payload=MAX_QUESTION_OCTETS)
    short.flags |= dns.flags.AA | dns.flags.TC
    return bytes(short.to_wire())


def readdressed(octets: bytes, question: Question) -> bytes:
    """The reply ``octets`` to an unsigned question as a reply to another, whose `Question.same` is
    the same: ID, the bit RD and how the name is written are those of ``question``."""
    asked = _asked_octets(question)
    recursion = dns.flags.RD >> 8
    flags = octets[2] & ~recursion | (recursion if question.recursion else 0)
    number: int = question._message.id
    return b"".join(
        (
            number.to_bytes(2, "big"),
            bytes([flags]),
            octets[3:HEADER_OCTETS],
            asked,
            octets[HEADER_OCTETS + len(asked) :],
        )
    )


def _asked_octets(question: Question) -> bytes:
    """The question's section: name, type, class."""
    asked = question._message.question[0]
    return bytes(asked.name.to_wire()) + struct.pack("!HH", asked.rdtype, asked.rdclass)


def _bare(octets: bytes, code: Code) -> bytes:
    """Just a header with ``code``: of what can't be read, nothing is repeated."""
    flags = 0x8000 | (octets[2] & 0x79) << 8 | code
    return octets[:2] + flags.to_bytes(2, "big") + bytes(8)


# -------------------------------------------------------------------- who asks


@dataclass(frozen=True, slots=True)
class Asked:
    """A question on its way: ``octets`` to be sent, the rest to know its reply by."""

    octets: bytes
    _message: Any = field(repr=False)
    _signed: bool

    def read(self, octets: bytes) -> Reply:
        """What the reply says; signed, if the question was.  Raises MalformedReply."""
        counts = [int.from_bytes(octets[at : at + 2], "big") for at in range(6, 12, 2)]
        if len(octets) < HEADER_OCTETS or sum(counts) > MAX_REPLY_RECORDS:
            raise MalformedReply("is no reply, or one of too many records")
        if self._signed and not counts[2]:  # where a signature would be
            code = dns.rcode.from_flags(octets[3], 0)
            why = ": it has another key, or another time" if code == dns.rcode.NOTAUTH else ""
            raise MalformedReply(f"is not signed ({code.name}{why})")
        query = self._message
        try:
            message = dns.message.from_wire(octets, keyring=query.keyring, request_mac=query.mac)
        except _UNREADABLE as error:
            raise MalformedReply(_why(error)) from None
        if not query.is_response(message):
            raise MalformedReply("is a reply to another question")
        code = message.rcode()
        try:
            known = Code(code)
        except ValueError:
            raise MalformedReply(f"code {dns.rcode.to_text(code)}") from None
        return Reply(
            known,
            tuple(_records(message.answer)),
            tuple(_records(message.authority)),
            tuple(_records(message.additional)),
        )


def ask(
    name: Labels, rdtype: str, number: int, key: TsigKey | None = None, *, recursion: bool = False
) -> Asked:
    """A question with the ID ``number``, signed by ``key``.  Raises RecordError."""
    query = dns.message.make_query(
        _name(name), rdtype, id=number, flags=dns.flags.RD if recursion else 0
    )
    if key is not None:
        query.use_tsig(_ring([key]), dns.name.from_text(key.name))
    return Asked(bytes(query.to_wire()), query, key is not None)


# ------------------------------------------------------- names and records, both ways


def _ring(keys: Iterable[TsigKey]) -> dict[dns.name.Name, dns.tsig.Key]:
    named = ((dns.name.from_text(key.name), key) for key in keys)
    return {name: dns.tsig.Key(name, key.secret, key.algorithm) for name, key in named}


def _name(labels: Labels) -> dns.name.Name:
    """Raises RecordError: a label or all of them are too long, or empty."""
    try:
        return dns.name.Name((*(label.encode() for label in labels), b""))
    except (dns.exception.DNSException, ValueError) as error:
        raise RecordError(f"name {shown('.'.join(labels))}: {_why(error)}") from None


def _labels(name: dns.name.Name) -> Labels:
    return tuple(label.decode("utf-8", "backslashreplace") for label in name.labels if label)


def _rdata(content: Content) -> dns.rdata.Rdata:
    """Raises RecordError."""
    octets, rdtype = _content_octets(content), dns.rdatatype.from_text(type_of(content))
    try:
        return dns.rdata.from_wire(dns.rdataclass.IN, rdtype, octets, 0, len(octets))
    except (dns.exception.DNSException, ValueError) as error:
        raise RecordError(f"{type_of(content)}: {_why(error)}") from None


def _content_octets(content: Content) -> bytes:
    match content:
        case Pointer(name) | Server(name):
            return _octets(name)
        case Place(priority, weight, port, target):
            return struct.pack("!HHH", priority, weight, port) + _octets(target)
        case Text(strings):  # at least one, if an empty one (RFC 6763 section 6.1)
            return b"".join(bytes([len(each)]) + each for each in strings or (b"",))
        case Address(address):
            return address.packed
        case Start(server, serial, minimum):
            times = struct.pack("!IIIII", serial, *SOA_SECONDS, minimum)
            return _octets(server) + _octets(("hostmaster", *server[1:])) + times


def _octets(labels: Labels) -> bytes:
    return bytes(_name(labels).to_wire() or b"")


def _rrsets(records: Iterable[Record]) -> list[dns.rrset.RRset]:
    sets: dict[tuple[Labels, str], dns.rrset.RRset] = {}
    for record in records:
        where = (record.owner, record.rdtype)
        if where not in sets:
            rdtype = dns.rdatatype.from_text(record.rdtype)
            sets[where] = dns.rrset.RRset(_name(record.owner), dns.rdataclass.IN, rdtype)
        sets[where].add(_rdata(record.content), record.ttl)
    return list(sets.values())


def _records(section: Iterable[dns.rrset.RRset]) -> Iterable[Record]:
    """Those of the types that we know; of others nothing is wanted."""
    for rrset in section:
        read = _READERS.get(dns.rdatatype.to_text(rrset.rdtype))
        if read is not None and rrset.rdclass == dns.rdataclass.IN:
            for rdata in rrset:
                yield Record(_labels(rrset.name), rrset.ttl, read(rdata))


_READERS: dict[str, Any] = {
    "PTR": lambda r: Pointer(_labels(r.target)),
    "SRV": lambda r: Place(r.priority, r.weight, r.port, _labels(r.target)),
    "TXT": lambda r: Text(tuple(r.strings)),
    "A": lambda r: Address(ip_address(r.address)),
    "AAAA": lambda r: Address(ip_address(r.address)),
    "SOA": lambda r: Start(_labels(r.mname), r.serial, r.minimum),
    "NS": lambda r: Server(_labels(r.target)),
}


def _why(error: Exception) -> str:
    return shown(str(error) or type(error).__name__)
