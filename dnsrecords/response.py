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

from dnsrecords import extended
from dnsrecords.errors import RecordError
from dnsrecords.message import (
    HEADER_SIZE,
    TYPE_CNAME,
    TYPE_OPT,
    TYPE_PTR,
    TYPE_SOA,
    Labels,
    MessageReader,
    Record,
    extended_code,
    extended_errors,
)
from dnsrecords.trust import Trust

# Specification.
QUERY_OR_RESPONSE = 0x8000
TRUNCATED = 0x0200
TTL_SIGN_BIT = 1 << 31  # RFC 2181 section 8: a TTL with it counts as 0

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
    UNVALIDATED = "unvalidated"  # SERVFAIL of a validating server: forged, or just not to be had


@dataclass(frozen=True, slots=True)
class Response:
    """What a message says about ``name``, the end of the chain of CNAMEs in it.

    ``ttl`` in seconds, at most MAX_TTL or MAX_NEGATIVE_TTL; ``aliases`` is the
    length of the chain.  ``trust`` is that of the whole message, as the AD flag and extended errors
    say it.
    """

    verdict: Verdict
    name: dns.name.Name
    records: tuple[bytes, ...] = ()
    ttl: float = 0.0
    aliases: int = 0
    trust: Trust = Trust.INSECURE
    detail: str = ""


def query_octets(
    name: dns.name.Name,
    rdtype: dns.rdatatype.RdataType,
    query_id: int,
    *,
    edns: bool = True,
    authentic: bool = False,
    unchecked: bool = False,
) -> bytes:
    """A query with recursion desired.

    ``authentic`` asks for the AD flag (RFC 6840 section 5.7), ``unchecked`` for what is there,
    validated or not (CD: RFC 4035 section 3.2.2).
    """
    flags = dns.flags.RD | (dns.flags.AD if authentic else 0) | (dns.flags.CD if unchecked else 0)
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

    With ``trusted``, the server validates and the path to it is safe: its word about DNSSEC is
    passed on.  From others nothing is more than INSECURE.

    Raises MismatchedResponse and MalformedResponse; both mean: go on waiting.
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
        errors = set(extended_errors(self._options)) if trusted else set()
        if code not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            return self._failure(labels, code, trusted, errors)
        trust, remark = self._trust(trusted, errors), extended.named(errors)
        if trust is Trust.BOGUS:  # a resolver that only warns (RFC 8914 section 2)
            return Response(Verdict.BOGUS, _name(labels), trust=trust, detail=remark)
        if errors & extended.NOT_THE_ZONES_WORD:
            return Response(Verdict.FAILED, _name(labels), detail=remark)
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
            records = tuple(dict.fromkeys(self._rdata(each) for each in found))
            ttl = min(ttl, _ttl(found))
            return Response(Verdict.ANSWERED, name, records, ttl, aliases, trust, remark)
        soa_ttl = self._negative_ttl(labels)
        if code == dns.rcode.NOERROR and soa_ttl is None:
            if aliases:
                return Response(Verdict.ALIAS, name, (), ttl, aliases, trust, remark)
            if not self._reader.flags & (dns.flags.RA | dns.flags.AA):
                return Response(Verdict.FAILED, name, detail="server neither knows nor asks for us")
        ttl = min(ttl, soa_ttl or 0.0)
        verdict, what = Verdict.NO_DATA, "no such record"
        if code == dns.rcode.NXDOMAIN:
            verdict, what = Verdict.NO_NAME, "no such name"
        return Response(
            verdict, name, (), ttl, aliases, trust, f"{what}; {remark}" if remark else what
        )

    def _rdata(self, record: Record) -> bytes:
        """As it is; but a name that may be compressed (RFC 3597 section 4) in full."""
        if record.rdtype == TYPE_PTR:
            labels = self._reader.name_in(record)
            return b"".join(bytes([len(each)]) + each for each in labels) + b"\0"
        return record.rdata

    def _trust(self, trusted: bool, errors: set[int]) -> Trust:
        """RFC 4033 section 5, by the word of a server that validates."""
        if errors & extended.FOUND_WRONG:
            return Trust.BOGUS
        if errors & {extended.ExtendedError.DNSSEC_INDETERMINATE, *extended.FOUND_MISSING}:
            return Trust.INDETERMINATE
        authentic = trusted and bool(self._reader.flags & dns.flags.AD)
        return Trust.SECURE if authentic else Trust.INSECURE

    def _failure(self, labels: Labels, code: int, trusted: bool, errors: set[int]) -> Response:
        name, detail = _name(labels), _text(code)
        if code in (dns.rcode.FORMERR, dns.rcode.NOTIMP):
            return Response(Verdict.UNSUPPORTED, name, detail=detail)
        if errors:
            detail += f": {extended.named(errors)}"
        if not trusted or code != dns.rcode.SERVFAIL or errors & extended.FAILED:
            return Response(Verdict.FAILED, name, detail=detail)
        if errors & extended.FOUND_WRONG:
            return Response(Verdict.BOGUS, name, trust=Trust.BOGUS, detail=detail)
        indeterminate = extended.ExtendedError.DNSSEC_INDETERMINATE in errors
        trust = Trust.INDETERMINATE if indeterminate else Trust.BOGUS
        return Response(Verdict.UNVALIDATED, name, trust=trust, detail=detail)

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
