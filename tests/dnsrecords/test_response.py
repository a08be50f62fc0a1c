"""DNS messages: what is believed, what is ignored, and how long it holds."""

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from dnsrecords.message import MalformedResponse
from dnsrecords.response import (
    MAX_NEGATIVE_TTL,
    MAX_TTL,
    MismatchedResponse,
    Response,
    Verdict,
    query_octets,
    read_response,
)
from dnsrecords.trust import Trust
from tests.support import dns_server

NAME = dns.name.from_text("66.0.2.192.in-addr.arpa.")
TXT = dns.rdatatype.TXT
SOA = "2.192.in-addr.arpa. {ttl} IN SOA ns.example. h.example. 1 2 3 4 {minimum}"


def message(
    *answer: str, authority: str = "", rcode: int = 0, flags: int = dns.flags.RA, query_id: int = 7
) -> bytes:
    query = dns.message.from_wire(query_octets(NAME, TXT, query_id))
    made = dns.message.make_response(query)
    made.flags |= flags
    made.set_rcode(dns.rcode.Rcode.make(rcode))
    for section, lines in ((made.answer, answer), (made.authority, (authority,))):
        for line in filter(None, lines):
            owner, ttl, _, rdtype, text = line.split(maxsplit=4)
            section.append(dns.rrset.from_text(owner, int(ttl), "IN", rdtype, text))
    return made.to_wire(max_size=65535)


def read(octets: bytes, trusted: bool = False) -> Response:
    return read_response(octets, NAME, TXT, 7, trusted=trusted)


def test_the_query() -> None:
    asked = dns.message.from_wire(query_octets(NAME, TXT, 0xBEEF))
    assert (asked.id, asked.edns, asked.payload) == (0xBEEF, 0, 1232)
    assert asked.flags == dns.flags.RD
    asked = dns.message.from_wire(query_octets(NAME, TXT, 1, edns=False, authentic=True))
    assert asked.edns == -1
    assert asked.flags == dns.flags.RD | dns.flags.AD


@pytest.mark.parametrize(
    ("ttl", "kept"), [(300, 300.0), (0, 0.0), (1 << 30, MAX_TTL), ((1 << 31) + 5, 0.0)]
)
def test_an_answer(ttl: int, kept: float) -> None:
    octets = message('66.0.2.192.in-addr.arpa. 77 IN TXT "a" "b"')
    octets = octets.replace((77).to_bytes(4, "big"), ttl.to_bytes(4, "big"))
    assert read(octets) == Response(Verdict.ANSWERED, NAME, (b"\x01a\x01b",), kept)


def test_aliases_are_followed_within_the_message() -> None:
    """RFC 2317: the reverse zone of a part of a network is reached by CNAME."""
    response = read(
        message(
            "66.0.2.192.in-addr.arpa. 300 IN CNAME 66.64/26.0.2.192.in-addr.arpa.",
            "66.64/26.0.2.192.in-addr.arpa. 200 IN CNAME bob.example.",
            'bob.example. 400 IN TXT "a"',
        )
    )
    assert response == Response(
        Verdict.ANSWERED, dns.name.from_text("bob.example."), (b"\x01a",), 200.0, 2
    )


def test_an_alias_without_an_answer_is_to_be_asked_for() -> None:
    response = read(message("66.0.2.192.in-addr.arpa. 30 IN CNAME bob.example."))
    assert response == Response(Verdict.ALIAS, dns.name.from_text("bob.example."), (), 30.0, 1)


def test_a_loop_of_aliases_ends() -> None:
    response = read(
        message(
            "66.0.2.192.in-addr.arpa. 300 IN CNAME b.example.",
            "b.example. 300 IN CNAME 66.0.2.192.in-addr.arpa.",
        )
    )
    assert response.verdict is Verdict.FAILED
    assert response.detail == "more than 8 CNAMEs"


@pytest.mark.parametrize(
    ("ttl", "minimum", "kept"),
    [(600, 120, 120.0), (60, 120, 60.0), (99999, 99999, MAX_NEGATIVE_TTL), (0, 120, 0.0)],
)
@pytest.mark.parametrize(
    ("rcode", "verdict"), [(dns.rcode.NOERROR, Verdict.NO_DATA), (3, Verdict.NO_NAME)]
)
def test_nothing_holds_for_the_minimum(
    ttl: int, minimum: int, kept: float, rcode: int, verdict: Verdict
) -> None:
    response = read(message(authority=SOA.format(ttl=ttl, minimum=minimum), rcode=rcode))
    assert (response.verdict, response.ttl) == (verdict, kept)


def test_nothing_without_a_soa_is_not_kept() -> None:
    assert read(message()).ttl == 0.0
    assert read(message(rcode=dns.rcode.NXDOMAIN)).ttl == 0.0
    foreign = SOA.format(ttl=60, minimum=60).replace("2.192.", "3.192.", 1)
    assert read(message(authority=foreign)).ttl == 0.0


def test_nothing_at_the_end_of_an_alias() -> None:
    alias = "66.0.2.192.in-addr.arpa. 30 IN CNAME bob.2.192.in-addr.arpa."
    soa = SOA.format(ttl=60, minimum=60)
    response = read(message(alias, authority=soa))
    assert (response.verdict, response.ttl) == (Verdict.NO_DATA, 30.0)
    response = read(message(alias, authority=soa, rcode=dns.rcode.NXDOMAIN))
    assert (response.verdict, response.ttl) == (Verdict.NO_NAME, 30.0)


def test_a_server_that_does_not_ask_for_us() -> None:
    referral = "192.in-addr.arpa. 60 IN NS ns.example."
    assert read(message(authority=referral, flags=0)).verdict is Verdict.FAILED
    assert read(message(authority=referral, flags=dns.flags.AA)).verdict is Verdict.NO_DATA


@pytest.mark.parametrize(
    ("rcode", "verdict"),
    [
        (dns.rcode.SERVFAIL, Verdict.FAILED),
        (dns.rcode.REFUSED, Verdict.FAILED),
        (dns.rcode.FORMERR, Verdict.UNSUPPORTED),
        (dns.rcode.NOTIMP, Verdict.UNSUPPORTED),
    ],
)
def test_servers_that_do_not_know(rcode: int, verdict: Verdict) -> None:
    assert read(message(rcode=rcode)).verdict is verdict


def test_a_refusal_may_leave_out_the_question() -> None:
    header = bytes.fromhex("0007 8181 0000 0000 0000 0000")
    assert read(header).verdict is Verdict.UNSUPPORTED
    with pytest.raises(MismatchedResponse):
        read(bytes.fromhex("0007 8180 0000 0000 0000 0000"))


def test_truncated_is_seen_before_the_missing_half() -> None:
    octets = message('66.0.2.192.in-addr.arpa. 77 IN TXT "abcdef"', flags=dns.flags.TC)
    assert read(octets[:-30]).verdict is Verdict.TRUNCATED


def test_the_authentic_flag_counts_on_a_trusted_path_only() -> None:
    octets = message('66.0.2.192.in-addr.arpa. 77 IN TXT "a"', flags=dns.flags.AD)
    assert read(octets, trusted=True).trust is Trust.SECURE
    assert read(octets).trust is Trust.INSECURE
    plain = message('66.0.2.192.in-addr.arpa. 77 IN TXT "a"')
    assert read(plain, trusted=True).trust is Trust.INSECURE


@pytest.mark.parametrize(
    "forge",
    [
        dns_server.wrong_id,
        dns_server.not_a_response,
        dns_server.wrong_question,
        lambda octets: octets[:11],
        lambda _: b"",
        lambda octets: octets.replace(b"\x00\x10\x00\x01", b"\x00\x10\x00\x03", 1),
    ],
)
def test_responses_to_somebody_else(forge) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(MismatchedResponse):
        read(forge(message('66.0.2.192.in-addr.arpa. 77 IN TXT "a"')))


def test_cut_off_anywhere() -> None:
    whole = message('66.0.2.192.in-addr.arpa. 77 IN TXT "abcdef"')
    for length in range(len(whole)):
        with pytest.raises((MismatchedResponse, MalformedResponse)):
            read(whole[:length])
    with pytest.raises(MalformedResponse, match="claims 6553"):
        read(dns_server.too_many_records(whole))
    with pytest.raises(MalformedResponse):
        read(whole + b"\x00")


def test_a_record_that_lies_about_its_strings_is_passed_on() -> None:
    """Delegation must see it: a malformed record means deny, no response at all may not."""
    whole = message('66.0.2.192.in-addr.arpa. 77 IN TXT "abcdef"')
    assert read(whole.replace(b"\x06abcdef", b"\x07abcdef")).records == (b"\x07abcdef",)


def test_records_of_another_class_and_doubles_do_not_count() -> None:
    line = '66.0.2.192.in-addr.arpa. 77 IN TXT "abcdef"'
    whole = message(line, line.replace("77", "55"))
    response = read(whole)
    assert (response.records, response.ttl) == ((b"\x06abcdef",), 55.0)
    tail = b"\x00\x00\x00\x4d"  # the TTL, behind type and class
    chaos = message(line).replace(b"\x00\x10\x00\x01" + tail, b"\x00\x10\x00\x03" + tail)
    assert read(chaos).verdict is Verdict.NO_DATA
