"""The TXT record of an SST key: both ways, strict, and what belongs to others."""

from __future__ import annotations

import base64
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsrecords.delegation import Delegation
from dnsrecords.errors import MalformedSstKey, RecordError, UnknownSstAlgorithm, UnsafeSstKey
from dnsrecords.sstkey import PRIME, QUESTIONS, SstKey
from tests.support.dns_keys import KEY_1024, txt
from tests.support.sst_keys import public_key

SG_B = ip_address("192.1.1.5")
SG_B6 = ip_address("2001:db8:1:1::5")
KEY = public_key(1)
NO_POINT = base64.b64encode(b"\xff" * 32).decode()
DIGITS = base64.b64encode(KEY).decode()


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (SstKey(10, SG_B, 1, KEY), f"X-SST-Key(10)=192.1.1.5 1 {DIGITS}"),
        (SstKey(0, SG_B6, 2, KEY), f"X-SST-Key(0)=2001:db8:1:1::5 2 {DIGITS}"),
        (SstKey(65535, SG_B, 2, KEY), f"X-SST-Key(65535)=192.1.1.5 2 {DIGITS}"),
        (SstKey(10, SG_B, QUESTIONS, KEY), f"X-SST-Key(10)=192.1.1.5 254 {DIGITS}"),
    ],
)
def test_both_ways(key: SstKey, text: str) -> None:
    assert key.text() == text
    assert key.serialize() == txt(text)
    assert key.presentation() == f'"{text}"'
    assert SstKey.parse(txt(text)) == key
    assert SstKey.parse_text(text) == key


@given(
    st.integers(0, 65535),
    st.ip_addresses(v=4).filter(lambda a: a.is_global and not a.is_multicast),
    st.sampled_from((1, 2)),
    st.integers(1, 2**256 - 1),
)
def test_every_key_comes_back(precedence: int, gateway: object, number: int, key: int) -> None:
    made = SstKey(precedence, gateway, number, public_key(key))  # type: ignore[arg-type]
    assert SstKey.parse(made.serialize()) == made


@pytest.mark.parametrize(
    "text",
    [
        f"x-sst-key(10)=192.1.1.5 1 {DIGITS}",
        f"X-SST-KEY(10)=192.1.1.5   1\t{DIGITS}",
    ],
)
def test_other_forms_of_the_same(text: str) -> None:
    assert SstKey.parse(txt(text)) == SstKey(10, SG_B, 1, KEY)


def test_strings_are_joined_without_a_blank() -> None:
    text = SstKey(10, SG_B, 1, KEY).text()
    assert SstKey.parse(txt(text[:40], text[40:])) == SstKey(10, SG_B, 1, KEY)


@pytest.mark.parametrize(
    "rdata",
    [
        txt(""),
        txt("v=spf1 -all"),
        txt("X-SST-Key-Old(10)=192.1.1.5"),
        txt("X-SST-Keyring"),
        txt("X-SST"),
        txt("about X-SST-Key(10)=192.1.1.5"),
        Delegation(10, SG_B, None, KEY_1024).serialize(),
    ],
)
def test_foreign_records_are_left_alone(rdata: bytes) -> None:
    assert SstKey.parse(rdata) is None


def test_delegations_beside_it_are_not_disturbed() -> None:
    assert Delegation.parse(SstKey(10, SG_B, 1, KEY).serialize()) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("X-SST-Key", "is not X-SST-Key"),
        ("X-SST-Key(10)", "is not X-SST-Key"),
        ("X-SST-Key(10)=192.1.1.5", "is not X-SST-Key"),
        ("X-SST-Key(10)=192.1.1.5 1", "is not X-SST-Key"),
        (f"X-SST-Key (10)=192.1.1.5 1 {DIGITS}", "is not X-SST-Key"),
        (f" X-SST-Key(10)=192.1.1.5 1 {DIGITS}", "is not X-SST-Key"),
        (f"X-SST-Key(10)=192.1.1.5 1 {DIGITS} ", "is not X-SST-Key"),
        (f"X-SST-Key(10)= 192.1.1.5 1 {DIGITS}", "is not X-SST-Key"),
        (f"X-SST-Key(10)=192.1.1.5 1 {DIGITS} more", "is not X-SST-Key"),
        (f"X-SST-Key()=192.1.1.5 1 {DIGITS}", "precedence"),
        (f"X-SST-Key(-1)=192.1.1.5 1 {DIGITS}", "precedence"),
        (f"X-SST-Key(010)=192.1.1.5 1 {DIGITS}", "precedence"),
        (f"X-SST-Key(0x10)=192.1.1.5 1 {DIGITS}", "precedence"),
        (f"X-SST-Key(65536)=192.1.1.5 1 {DIGITS}", "precedence"),
        (f"X-SST-Key(\u0661)=192.1.1.5 1 {DIGITS}", "precedence"),
        (f"X-SST-Key(10)=@sg-b.example 1 {DIGITS}", "is not an address"),
        (f"X-SST-Key(10)=192.1.1 1 {DIGITS}", "is not an address"),
        (f"X-SST-Key(10)=2001::db8:: 1 {DIGITS}", "is not an address"),
        (f"X-SST-Key(10)=127.0.0.1 1 {DIGITS}", "loopback"),
        (f"X-SST-Key(10)=0.0.0.0 1 {DIGITS}", "unspecified"),
        (f"X-SST-Key(10)=224.0.0.1 1 {DIGITS}", "multicast"),
        (f"X-SST-Key(10)=255.255.255.255 1 {DIGITS}", "broadcast"),
        (f"X-SST-Key(10)=fe80::1 1 {DIGITS}", "link-local"),
        (f"X-SST-Key(10)=2001:db8::5%eth0 1 {DIGITS}", "zone index"),
        (f"X-SST-Key(10)=::ffff:192.1.1.5 1 {DIGITS}", "IPv6 clothes"),
        (f"X-SST-Key(10)=192.1.1.5 0 {DIGITS}", "algorithm"),
        (f"X-SST-Key(10)=192.1.1.5 256 {DIGITS}", "algorithm"),
        (f"X-SST-Key(10)=192.1.1.5 01 {DIGITS}", "algorithm"),
        (f"X-SST-Key(10)=192.1.1.5 aes128 {DIGITS}", "algorithm"),
        ("X-SST-Key(10)=192.1.1.5 1 AAAA", "of 3 octets"),
        (f"X-SST-Key(10)=192.1.1.5 1 {DIGITS[:-1]}", "not base64"),
        (f"X-SST-Key(10)=192.1.1.5 1 {DIGITS[:-5]}=", "of 29 octets"),
        (f"X-SST-Key(10)=192.1.1.5 1 {DIGITS[:20]}!{DIGITS[21:]}", "not base64"),
        (f"X-SST-Key(10)=192.1.1.5 1 {base64.b64encode(KEY + KEY).decode()}", "of 64 octets"),
        (f"X-SST-Key(10)=192.1.1.5 1 {NO_POINT}", "usual encoding"),
        (f"X-SST-Key(10)=192.1.1.5 {' ' * 500}1 {DIGITS}", "at most 512"),
    ],
)
def test_what_can_not_be_read(text: str, reason: str) -> None:
    octets = text.encode("utf-8")
    pieces = [octets[i : i + 255] for i in range(0, len(octets), 255)]
    with pytest.raises(MalformedSstKey, match=reason):
        SstKey.parse(txt(*pieces))


def test_bits_beyond_the_last_octet_are_refused() -> None:
    """Else one key would have four texts."""
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    changed = last[last.index(DIGITS[-2]) | 1]
    with pytest.raises(MalformedSstKey, match="beyond its last octet"):
        SstKey.parse_text(f"X-SST-Key(10)=192.1.1.5 1 {DIGITS[:-2]}{changed}=")


@pytest.mark.parametrize("point", [0, 1, PRIME - 1])
def test_points_of_small_order_are_unsafe(point: int) -> None:
    digits = base64.b64encode(point.to_bytes(32, "little")).decode()
    with pytest.raises(UnsafeSstKey, match="small order"):
        SstKey.parse_text(f"X-SST-Key(10)=192.1.1.5 1 {digits}")


@pytest.mark.parametrize("tail", [DIGITS, "AAAA", "any-other:form"])
def test_sst37_other_algorithms_are_told_apart_from_mistakes(tail: str) -> None:
    for number in (3, 77, 255):
        with pytest.raises(UnknownSstAlgorithm, match=f"algorithm {number}"):
            SstKey.parse_text(f"X-SST-Key(10)=192.1.1.5 {number} {tail}")


def test_strings_that_lie_about_their_length() -> None:
    rdata = SstKey(10, SG_B, 1, KEY).serialize()
    for length in range(1, len(rdata)):
        with pytest.raises(MalformedSstKey):
            SstKey.parse(rdata[:length])
    with pytest.raises(MalformedSstKey):
        SstKey.parse(rdata + b"\x05")


def test_a_value_is_as_strict_as_a_record() -> None:
    for precedence in (-1, 65536):
        with pytest.raises(MalformedSstKey, match="precedence"):
            SstKey(precedence, SG_B, 1, KEY)
    with pytest.raises(MalformedSstKey, match="loopback"):
        SstKey(10, ip_address("::1"), 1, KEY)
    with pytest.raises(UnknownSstAlgorithm):
        SstKey(10, SG_B, 3, KEY)
    with pytest.raises(RecordError):
        SstKey(10, SG_B, 1, KEY[1:])
