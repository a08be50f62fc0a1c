"""KEY records: which are ours, which are foreign, which are wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsrecords import rsakey
from dnsrecords.errors import MalformedHostKey
from dnsrecords.key import HostKey
from tests.support.dns_keys import KEY_1024, KEY_2048, key_rdata


@pytest.mark.parametrize("key", [KEY_1024, KEY_2048])
def test_both_ways(key: rsakey.rsa.RSAPublicKey) -> None:
    rdata = bytes.fromhex("42000401") + rsakey.serialize(key)
    assert HostKey.parse(rdata) == HostKey(key)
    assert HostKey(key).serialize() == rdata


@pytest.mark.parametrize(
    ("head", "why_ours"),
    [
        ("42000401", "as published"),
        ("00000401", "of a user, for anything"),
        ("02000401", "of a host, for anything"),
        ("4201 0401", "signatory bits are meaningless to IPsec"),
        ("0100 0401", "of a zone"),
    ],
)
def test_ours(head: str, why_ours: str) -> None:
    rdata = key_rdata(KEY_1024, head)
    parsed = HostKey.parse(rdata)
    assert parsed is not None, why_ours
    assert parsed.key == KEY_1024
    assert parsed.serialize() == rdata


@pytest.mark.parametrize(
    ("head", "why_foreign"),
    [
        ("42000301", "protocol 3: DNSSEC"),
        ("42000101", "protocol 1: TLS"),
        ("4200ff01", "protocol 255: any"),
        ("42000403", "algorithm 3: DSA"),
        ("42000405", "algorithm 5: RSA/SHA-1, for signing zones"),
        ("c2000401", "no key"),
        ("82000401", "prohibited for authentication"),
    ],
)
def test_foreign(head: str, why_foreign: str) -> None:
    assert HostKey.parse(key_rdata(KEY_1024, head)) is None, why_foreign


@pytest.mark.parametrize("bit", [0x2000, 0x1000, 0x0800, 0x0400, 0x0080, 0x0040, 0x0020, 0x0010])
def test_reserved_bits_are_malformed(bit: int) -> None:
    with pytest.raises(MalformedHostKey, match="reserved bits"):
        HostKey.parse(key_rdata(KEY_1024, f"{0x4200 | bit:04x}0401"))


def test_cut_off_anywhere() -> None:
    whole = key_rdata(KEY_1024)
    for length in range(len(whole)):
        with pytest.raises(MalformedHostKey):
            HostKey.parse(whole[:length])


def test_an_unsafe_key_says_why() -> None:
    with pytest.raises(MalformedHostKey, match="KEY record: exponent 1 is not"):
        HostKey.parse(bytes.fromhex("42000401 0101") + b"\xff" * 128)


@given(st.binary(max_size=200))
def test_any_octets_are_a_key_foreign_or_an_error_of_ours(data: bytes) -> None:
    try:
        parsed = HostKey.parse(data)
    except MalformedHostKey:
        return
    if parsed is not None:
        assert parsed.serialize() == data
