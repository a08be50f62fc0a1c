"""DNS messages, as the resolver needs them: a query's octets, and what a response says.

dnspython takes the messages apart; nothing here opens a socket.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from dnsrecords.errors import RecordError

# Specification.
HEADER_SIZE = 12  # RFC 1035 section 4.1.1
QUERY_OR_RESPONSE = 0x8000
TRUNCATED = 0x0200
TTL_SIGN_BIT = 1 << 31  # RFC 2181 section 8: a TTL with it counts as 0
# RFC 8914 sections 4.7 to 4.13: the ways in which DNSSEC validation fails.
BOGUS_CODES = frozenset(range(6, 13))

# Our choices.
EDNS_PAYLOAD = 1232  # octets: what passes everywhere without fragments
MAX_RECORDS = 2048  # of one message; 64 KiB of compressed names would cost seconds
MAX_ALIASES = 8  # CNAMEs followed from one question, over all messages
MAX_TTL = 86400.0
MAX_NEGATIVE_TTL = 3600.0  # RFC 2308 section 5 recommends one to three hours


class MismatchedResponse(RecordError):  # noqa: N818  (see errors.py)
    """Not the response to our query: another's, or a forger's."""

    trigger = "dns_response_mismatched"


class MalformedResponse(RecordError):  # noqa: N818
    """The response to our query, as it seems, and it can't be read."""

    trigger = "dns_response_malformed"


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
    flags = _check_header(octets, query_id)
    asked = _parse(octets, question_only=True)
    # The question is the only thing besides ports and ID that a blind forger must repeat.
    if [(each.name, each.rdtype, each.rdclass) for each in asked.question] != [
        (name, rdtype, dns.rdataclass.IN)
    ]:
        if asked.rcode() not in (dns.rcode.FORMERR, dns.rcode.NOTIMP) or asked.question:
            raise MismatchedResponse("response repeats another question")
        return Response(Verdict.UNSUPPORTED, name, detail=dns.rcode.to_text(asked.rcode()))
    if flags & TRUNCATED:
        return Response(Verdict.TRUNCATED, name)
    return _read(_parse(octets, question_only=False), name, rdtype, trusted)


def _check_header(octets: bytes, query_id: int) -> int:
    if len(octets) < HEADER_SIZE:
        raise MismatchedResponse(f"response of {len(octets)} octets")
    numbers = [int.from_bytes(octets[i : i + 2], "big") for i in range(0, HEADER_SIZE, 2)]
    if numbers[0] != query_id:
        raise MismatchedResponse("response has another ID")
    if not numbers[1] & QUERY_OR_RESPONSE:
        raise MismatchedResponse("response is a query")
    if sum(numbers[2:]) > MAX_RECORDS:
        raise MalformedResponse(f"response claims {sum(numbers[2:])} records")
    return numbers[1]


def _parse(octets: bytes, *, question_only: bool) -> dns.message.Message:
    try:
        return dns.message.from_wire(octets, question_only=question_only)
    except (dns.exception.DNSException, ValueError) as error:
        raise MalformedResponse(f"response: {type(error).__name__}") from error


def _read(
    message: dns.message.Message,
    name: dns.name.Name,
    rdtype: dns.rdatatype.RdataType,
    trusted: bool,
) -> Response:
    code = message.rcode()
    if code not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        return _read_failure(message, name, trusted)
    authentic = trusted and bool(message.flags & dns.flags.AD)
    ttl, aliases = MAX_TTL, 0
    while True:
        if (found := _rrset(message.answer, name, rdtype)) is not None:
            records = tuple(record.to_wire() or b"" for record in found)
            ttl = min(ttl, _ttl(found))
            return Response(Verdict.ANSWERED, name, records, ttl, aliases, authentic)
        alias = _rrset(message.answer, name, dns.rdatatype.CNAME)
        if alias is None:
            break
        if aliases == MAX_ALIASES:
            return Response(Verdict.FAILED, name, detail=f"more than {MAX_ALIASES} CNAMEs")
        name, aliases, ttl = alias[0].target, aliases + 1, min(ttl, _ttl(alias))
    soa_ttl = _negative_ttl(message, name)
    if code == dns.rcode.NXDOMAIN:
        ttl = min(ttl, soa_ttl or 0.0)
        return Response(Verdict.NO_NAME, name, (), ttl, aliases, authentic, "no such name")
    if aliases and soa_ttl is None:
        return Response(Verdict.ALIAS, name, (), ttl, aliases, authentic)
    if soa_ttl is None and not message.flags & (dns.flags.RA | dns.flags.AA):
        return Response(Verdict.FAILED, name, detail="server neither knows nor asks for us")
    ttl = min(ttl, soa_ttl or 0.0)
    return Response(Verdict.NO_DATA, name, (), ttl, aliases, authentic, "no such record")


def _read_failure(message: dns.message.Message, name: dns.name.Name, trusted: bool) -> Response:
    code = message.rcode()
    text = dns.rcode.to_text(code)
    if code in (dns.rcode.FORMERR, dns.rcode.NOTIMP):
        return Response(Verdict.UNSUPPORTED, name, detail=text)
    for option in message.options:
        if trusted and isinstance(option, dns.edns.EDEOption) and option.code in BOGUS_CODES:
            return Response(Verdict.BOGUS, name, detail=f"{text}, extended error {option.code:d}")
    return Response(Verdict.FAILED, name, detail=text)


def _rrset(
    section: list[dns.rrset.RRset], name: dns.name.Name, rdtype: dns.rdatatype.RdataType
) -> dns.rrset.RRset | None:
    for each in section:
        if each.rdtype == rdtype and each.rdclass == dns.rdataclass.IN and each.name == name:
            return each
    return None


def _ttl(rrset: dns.rrset.RRset) -> float:
    return 0.0 if rrset.ttl & TTL_SIGN_BIT else float(rrset.ttl)


def _negative_ttl(message: dns.message.Message, name: dns.name.Name) -> float | None:
    """How long "there is nothing" holds (RFC 2308 section 5); None if no SOA says so."""
    for each in message.authority:
        if each.rdtype == dns.rdatatype.SOA and name.is_subdomain(each.name):
            return min(_ttl(each), float(each[0].minimum), MAX_NEGATIVE_TTL)
    return None
