"""Trust, and what the extended errors of RFC 8914 make of it."""

from itertools import permutations

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rrset
import pytest

from dnsrecords import extended
from dnsrecords.extended import ExtendedError
from dnsrecords.response import Response, Verdict, query_octets, read_response
from dnsrecords.trust import Trust, weakest

NAME = dns.name.from_text("66.0.2.192.in-addr.arpa.")
TXT = dns.rdatatype.TXT


def response(*codes: int, rcode: int = dns.rcode.NOERROR, ad: bool = False) -> bytes:
    message = dns.message.make_response(
        dns.message.from_wire(query_octets(NAME, TXT, 7)), recursion_available=True
    )
    message.set_rcode(dns.rcode.Rcode.make(rcode))
    if ad:
        message.flags |= dns.flags.AD
    if rcode == dns.rcode.NOERROR:
        message.answer.append(dns.rrset.from_text(NAME, 60, "IN", "TXT", '"a"'))
    options = [dns.edns.EDEOption(dns.edns.EDECode.make(code)) for code in codes]
    message.use_edns(0, options=options)
    return message.to_wire()


def read(octets: bytes, trusted: bool = True) -> Response:
    return read_response(octets, NAME, TXT, 7, trusted=trusted)


def test_a_chain_is_as_strong_as_its_weakest_link() -> None:
    order = (Trust.BOGUS, Trust.INDETERMINATE, Trust.INSECURE, Trust.SECURE)
    for place, trust in enumerate(order):
        for links in permutations(order[place:]):
            assert weakest(*links) is trust
    assert weakest() is Trust.SECURE


@pytest.mark.parametrize(
    ("codes", "ad", "trust"),
    [
        ((), True, Trust.SECURE),
        ((), False, Trust.INSECURE),
        ((1,), False, Trust.INSECURE),  # an algorithm that nobody knows is as none
        ((2,), False, Trust.INSECURE),
        ((27,), False, Trust.INSECURE),
        ((3,), True, Trust.SECURE),  # stale, but it was validated once
        ((5,), False, Trust.INDETERMINATE),
        ((5,), True, Trust.INDETERMINATE),
        ((10,), False, Trust.INDETERMINATE),
        ((49152,), True, Trust.SECURE),  # for private use: says nothing
    ],
)
def test_answers(codes: tuple[int, ...], ad: bool, trust: Trust) -> None:
    found = read(response(*codes, ad=ad))
    assert (found.verdict, found.trust) == (Verdict.ANSWERED, trust)
    untrusted = read(response(*codes, ad=ad), trusted=False)
    assert (untrusted.verdict, untrusted.trust) == (Verdict.ANSWERED, Trust.INSECURE)
    assert untrusted.detail == ""


@pytest.mark.parametrize("code", sorted(extended.FOUND_WRONG))
def test_an_answer_that_its_server_calls_bogus_is(code: int) -> None:
    """Some resolvers only warn."""
    found = read(response(code))
    assert (found.verdict, found.trust) == (Verdict.BOGUS, Trust.BOGUS)
    assert f"({code})" in found.detail
    assert read(response(code), trusted=False).verdict is Verdict.ANSWERED


@pytest.mark.parametrize("code", sorted(extended.NOT_THE_ZONES_WORD))
def test_an_answer_that_its_server_made_up_is_none(code: int) -> None:
    assert read(response(code)).verdict is Verdict.FAILED


@pytest.mark.parametrize("code", range(32))
def test_servfail_by_its_code(code: int) -> None:
    """Each code has one meaning, and a reason in the network outweighs the others."""
    found = read(response(code, rcode=dns.rcode.SERVFAIL))
    if code in extended.FAILED:
        wanted = Verdict.FAILED
    else:
        wanted = Verdict.BOGUS if code in extended.FOUND_WRONG else Verdict.UNVALIDATED
    assert found.verdict is wanted
    assert found.detail.startswith("SERVFAIL: ")
    beside = read(response(code, ExtendedError.NETWORK_ERROR, rcode=dns.rcode.SERVFAIL))
    assert beside.verdict is Verdict.FAILED
    untrusted = read(response(code, rcode=dns.rcode.SERVFAIL), trusted=False)
    assert (untrusted.verdict, untrusted.detail) == (Verdict.FAILED, "SERVFAIL")


def test_a_code_is_in_one_set_at_most() -> None:
    sets = [extended.FOUND_WRONG, extended.FOUND_MISSING, extended.FAILED]
    assert len(set.union(*map(set, sets))) == sum(map(len, sets))


def test_other_response_codes_are_never_bogus() -> None:
    assert read(response(6, rcode=dns.rcode.REFUSED)).verdict is Verdict.FAILED


def test_codes_have_names() -> None:
    assert extended.named([9, 7, 7]) == "signature expired (7), DNSKEY missing (9)"
    assert extended.named([27, 6]) == "DNSSEC bogus (6), unsupported NSEC3 iterations (27)"
    assert extended.named([49152]) == "extended error 49152"
    assert extended.named([]) == ""
