"""DNS messages, as the resolver needs them: a query's octets, and what a response says.

dnspython writes the queries and knows the names; nothing here opens a socket.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype

from dnsrecords.errors import RecordError
from dnsrecords.message import (
    HEADER_SIZE,
    TYPE_CNAME,
    TYPE_OPT,
    TYPE_SOA,
    Labels,
    MessageReader,
    Record,
    extended_code,
    extended_errors,
)

# Specification.
QUERY_OR_RESPONSE = 0x8000
TRUNCATED = 0x0200
TTL_SIGN_BIT = 1 << 31  # RFC 2181 section 8: a TTL with it counts as 0
# RFC 8914 sections 4.7 to 4.13: the ways in which DNSSEC validation fails.
BOGUS_CODES = frozenset(range(6, 13))

# Our choices.
EDNS_PAYLOAD = 1232  # octets: what passes everywhere without fragments
MAX_ALIASES = 8  # CNAMEs followed from one question, over all messages
MAX_TTL = 86400.0
MAX_NEGATIVE_TTL = 3600.0  # RFC 2308 section 5 recommends one to three hours


class MismatchedResponse(RecordError):  # noqa: N818  (see errors.py)
    """Not the response to our query: another's, or a forger's."""

    trigger = "dns_response_mismatched"


class Verdict(Enum):
    ANSWERED = "answered"
    NO_DATA = "no_data"
    NO_NAME = "no_name"
    ALIAS = "alias"  # ends in a CNAME without an answer about its target: ask for that
    TRUNCATED = "truncated"  # ask by TCP
    UNSUPPORTED = "unsupported"  # the server does not like EDNS: ask without
    FAILED = "failed"  # this server does not know; ask another
    BOGUS = "bogus"  # it knows, and DNSSEC says that the answer is forged


@dataclass(frozen=True, slots=True)
class Response:
    """What a message says about ``name``, the end of the chain of CNAMEs in it.

    ``ttl`` in seconds, at most MAX_TTL or MAX_NEGATIVE_TTL; ``aliases`` is the
    length of the chain; ``authentic`` is the AD flag.
    """

    verdict: Verdict
    name: dns.name.Name
    records: tuple[bytes, ...] = ()
    ttl: float = 0.0
    aliases: int = 0
    authentic: bool = False
    detail: str = ""


def query_octets(
    name: dns.name.Name,
    rdtype: dns.rdatatype.RdataType,
    query_id: int,
    *,
    edns: bool = True,
    authentic: bool = False,
) -> bytes:
    """A query with recursion desired; ``authentic`` asks for the AD flag (RFC 6840 section 5.7)."""
    flags = dns.flags.RD | (dns.flags.AD if authentic else 0)
    message = dns.message.make_query(
        name,
        rdtype,
        use_edns=0 if edns else False,
        payload=EDNS_PAYLOAD if edns else None,
        id=query_id,
        flags=flags,
    )
    return message.to_wire()


def read_response(
    octets: bytes,
    name: dns.name.Name,
    rdtype: dns.rdatatype.RdataType,
    query_id: int,
    *,
    trusted: bool = False,
) -> Response:
    """What ``octets`` say to the question for ``name`` with ``query_id``.

    With ``trusted``, the server's word about DNSSEC is passed on.  Raises
    MismatchedResponse and MalformedResponse; both mean: go on waiting.
    """
    if len(octets) < HEADER_SIZE:
        raise MismatchedResponse(f"response of {len(octets)} octets")
    if int.from_bytes(octets[:2], "big") != query_id:
        raise MismatchedResponse("response has another ID")
    reader = MessageReader(octets)
    if not reader.flags & QUERY_OR_RESPONSE:
        raise MismatchedResponse("response is a query")
    questions = [reader.question() for _ in range(reader.counts[0])]
    plain_code = extended_code(reader.flags, None)
    # The question is the only thing besides ports and ID that a blind forger must repeat.
    if questions != [(_labels(name), rdtype, dns.rdataclass.IN)]:
        if questions or plain_code not in (dns.rcode.FORMERR, dns.rcode.NOTIMP):
            raise MismatchedResponse("response repeats another question")
        return Response(Verdict.UNSUPPORTED, name, detail=_text(plain_code))
    if reader.flags & TRUNCATED:
        return Response(Verdict.TRUNCATED, name)
    return _Sections(reader).read(_labels(name), rdtype, trusted)


class _Sections:
    """The records of a response, indexed; each record of a class other than IN is left out."""

    def __init__(self, reader: MessageReader) -> None:
        self._reader = reader
        self._answer: dict[tuple[Labels, int], list[Record]] = {}
        for each in reader.records(reader.counts[1]):
            if each.rdclass == dns.rdataclass.IN:
                self._answer.setdefault((each.owner, each.rdtype), []).append(each)
        authority = list(reader.records(reader.counts[2]))
        self._soa = next((each for each in authority if each.rdtype == TYPE_SOA), None)
        additional = list(reader.records(reader.counts[3]))
        self._options = next((each for each in additional if each.rdtype == TYPE_OPT), None)
        reader.end()

    def read(self, labels: Labels, rdtype: int, trusted: bool) -> Response:
        code = extended_code(self._reader.flags, self._options)
        if code not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            return self._failure(labels, code, trusted)
        authentic = trusted and bool(self._reader.flags & dns.flags.AD)
        ttl, aliases = MAX_TTL, 0
        while (found := self._answer.get((labels, rdtype))) is None:
            if (alias := self._answer.get((labels, TYPE_CNAME))) is None:
                break
            if aliases == MAX_ALIASES:
                return Response(
                    Verdict.FAILED, _name(labels), detail=f"more than {MAX_ALIASES} CNAMEs"
                )
            ttl, aliases = min(ttl, _ttl(alias)), aliases + 1
            labels = self._reader.name_in(alias[0])
        name = _name(labels)
        if found is not None:
            records = tuple(dict.fromkeys(each.rdata for each in found))
            return Response(
                Verdict.ANSWERED, name, records, min(ttl, _ttl(found)), aliases, authentic
            )
        soa_ttl = self._negative_ttl(labels)
        if code == dns.rcode.NOERROR and soa_ttl is None:
            if aliases:
                return Response(Verdict.ALIAS, name, (), ttl, aliases, authentic)
            if not self._reader.flags & (dns.flags.RA | dns.flags.AA):
                return Response(Verdict.FAILED, name, detail="server neither knows nor asks for us")
        ttl = min(ttl, soa_ttl or 0.0)
        if code == dns.rcode.NXDOMAIN:
            return Response(Verdict.NO_NAME, name, (), ttl, aliases, authentic, "no such name")
        return Response(Verdict.NO_DATA, name, (), ttl, aliases, authentic, "no such record")

    def _failure(self, labels: Labels, code: int, trusted: bool) -> Response:
        if code in (dns.rcode.FORMERR, dns.rcode.NOTIMP):
            return Response(Verdict.UNSUPPORTED, _name(labels), detail=_text(code))
        bogus = BOGUS_CODES.intersection(extended_errors(self._options))
        if trusted and bogus:
            detail = f"{_text(code)}, extended error {min(bogus)}"
            return Response(Verdict.BOGUS, _name(labels), detail=detail)
        return Response(Verdict.FAILED, _name(labels), detail=_text(code))

    def _negative_ttl(self, labels: Labels) -> float | None:
        """How long "there is nothing" holds (RFC 2308 section 5); None if no SOA says so."""
        soa = self._soa
        if soa is None or labels[len(labels) - len(soa.owner) :] != soa.owner:
            return None
        minimum = int.from_bytes(soa.rdata[-4:], "big")
        return min(_ttl([soa]), float(minimum), MAX_NEGATIVE_TTL)


def _labels(name: dns.name.Name) -> Labels:
    return tuple(label.lower() for label in name.labels[:-1])


def _name(labels: Labels) -> dns.name.Name:
    return dns.name.Name((*labels, b""))


def _text(code: int) -> str:
    return dns.rcode.to_text(dns.rcode.Rcode.make(code))


def _ttl(records: list[Record]) -> float:
    return min(0.0 if each.ttl & TTL_SIGN_BIT else float(each.ttl) for each in records)
