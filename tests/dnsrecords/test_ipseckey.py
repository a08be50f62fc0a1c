"""The IPSECKEY record of RFC 4025: both ways, in octets and in text, and hostile ones."""

import contextlib
from ipaddress import ip_address

import dns.rdata
import dns.rdataclass
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsrecords import rsakey
from dnsrecords.errors import MalformedIpsecKey
from dnsrecords.ipseckey import ALGORITHM_NONE, GatewayType, IpsecKey
from tests.support.dns_keys import KEY_2048, vector

EXAMPLES = vector("ipseckey.txt")
SG_B = ip_address("192.1.1.5")
KEY = rsakey.serialize(KEY_2048)


@pytest.mark.parametrize(
    ("text", "wire"), list(zip(EXAMPLES["text"], EXAMPLES["wire"], strict=True))
)
def test_examples_of_the_rfc_both_ways(text: str, wire: str) -> None:
    record = IpsecKey.parse(bytes.fromhex(wire))
    assert record is not None
    assert record.serialize().hex() == wire
    assert record.presentation() == text
    assert IpsecKey.from_text(text) == record
    assert IpsecKey.from_text(f"( {text} )") == record
    with pytest.raises(MalformedIpsecKey, match="modulus of 255 bits"):
        record.public_key()  # to be read, and not to be believed


@pytest.mark.parametrize(
    ("record", "kind"),
    [
        (IpsecKey.of(10, None, None, KEY_2048), GatewayType.NONE),
        (IpsecKey.of(0, SG_B, None, KEY_2048), GatewayType.IPV4),
        (IpsecKey.of(255, ip_address("2001:db8::5"), None, KEY_2048), GatewayType.IPV6),
        (IpsecKey.of(7, None, "sg-b.example", KEY_2048), GatewayType.NAME),
        (IpsecKey.of(7, None, "sg-b.example", None), GatewayType.NAME),
        (IpsecKey.of(7, None, None, None), GatewayType.NONE),
        (IpsecKey(7, SG_B), GatewayType.IPV4),  # RSA, and the key is elsewhere
    ],
)
def test_both_ways(record: IpsecKey, kind: GatewayType) -> None:
    assert record.gateway_type is kind
    assert IpsecKey.parse(record.serialize()) == record
    assert IpsecKey.from_text(record.presentation()) == record
    if record.key:
        assert record.public_key() == KEY_2048
        rdata = dns.rdata.from_text(
            dns.rdataclass.IN, dns.rdatatype.IPSECKEY, record.presentation()
        )
        assert rdata.to_wire() == record.serialize(), "as another implementation has it"
    else:
        assert record.public_key() is None


@pytest.mark.parametrize(
    "rdata",
    [
        bytes([10, 1, 1, 192, 1, 1, 5]) + b"DSA key",
        bytes([10, 1, 1]),  # of another algorithm, whatever is in it
        bytes([10, 0, 3]) + b"key",
        bytes([10, 4, 2]) + b"gateway of a later RFC",
        bytes([10, 255, 0]),
    ],
)
def test_other_algorithms_and_gateways_are_foreign(rdata: bytes) -> None:
    assert IpsecKey.parse(rdata) is None


def name(*labels: bytes) -> bytes:
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\x00"


@pytest.mark.parametrize(
    ("rdata", "why"),
    [
        (b"", "precedence"),
        (bytes([10]), "gateway type"),
        (bytes([10, 1]), "algorithm"),
        (bytes([10, 1, 2, 192, 1, 1]), "gateway: 4 octets"),
        (bytes([10, 2, 2]) + bytes(15), "gateway: 16 octets"),
        (bytes([10, 1, 2, 0, 0, 0, 0]), "unspecified"),
        (bytes([10, 1, 2, 255, 255, 255, 255]), "broadcast"),
        (bytes([10, 2, 2]) + bytes(15) + b"\x01", "loopback"),
        (bytes([10, 1, 0, 192, 1, 1, 5]) + KEY, "the algorithm says that there is none"),
        (bytes([10, 3, 2, 0]), "1 to 253 characters"),
        (bytes([10, 3, 2, 3]) + b"sg", "label: 3 octets"),
        (bytes([10, 3, 2]) + name(b"sg-b", b"example")[:-1], "label: 1 octets"),
        (bytes([10, 3, 2, 0xC0, 0x0C]), "compressed"),
        (bytes([10, 3, 2, 0x40]), "compressed, or"),
        (bytes([10, 3, 2]) + name(b"a.b", b"example"), "a dot within a label"),
        (bytes([10, 3, 2]) + name(b"sg b", b"example"), "not a domain name"),
        (bytes([10, 3, 2]) + name(*[b"a" * 63] * 4), "too long"),
        (bytes([10, 3, 2]) + name(b"192", b"1"), "ends like an address"),
    ],
)
def test_what_can_not_be_read(rdata: bytes, why: str) -> None:
    with pytest.raises(MalformedIpsecKey, match=why):
        IpsecKey.parse(rdata)


@pytest.mark.parametrize(
    "text",
    [
        "", "10 1 2", "10 1 2 192.1.1", "10 0 2 192.1.1.5", "10 1 2 .", "10 2 2 192.1.1.5",
        "010 1 2 192.1.1.5", "256 1 2 192.1.1.5", "10 9 2 192.1.1.5", "10 1 2 192.1.1.5 ?",
        "10 1 0 192.1.1.5 AQNR", "10 3 2 a..b AQNR", "10 1 1 192.1.1.5 AQNR",
    ],
)  # fmt: skip
def test_text_that_is_none(text: str) -> None:
    with pytest.raises(MalformedIpsecKey):
        IpsecKey.from_text(text)


def test_values_that_no_record_has() -> None:
    for arguments in (
        (256, SG_B), (-1, SG_B), (1, SG_B, "a.example"), (1, None, "A.example"), (1, None, "a b"),
        (1, None, "a.example", 1), (1, SG_B, None, ALGORITHM_NONE, b"x"),
    ):  # fmt: skip
        with pytest.raises(MalformedIpsecKey):
            IpsecKey(*arguments)  # type: ignore[arg-type]


def test_every_truncation_is_noticed_or_leaves_a_shorter_key() -> None:
    for record in (IpsecKey.of(1, SG_B, None, KEY_2048), IpsecKey.of(1, None, "b.example", None)):
        octets = record.serialize()
        head = len(octets) - len(record.key)
        for length in range(len(octets)):
            if length < head:
                with pytest.raises(MalformedIpsecKey):
                    IpsecKey.parse(octets[:length])
            else:
                assert IpsecKey.parse(octets[:length]) == IpsecKey(
                    1, SG_B, None, 2, octets[head:length]
                )


@given(st.binary(max_size=300))
def test_any_octets_parse_or_are_refused(octets: bytes) -> None:
    with contextlib.suppress(MalformedIpsecKey):  # and nothing else
        record = IpsecKey.parse(octets)
        if record is not None:
            assert IpsecKey.parse(record.serialize()) == record
            record.public_key()
