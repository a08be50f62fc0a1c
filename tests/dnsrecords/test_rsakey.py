"""RSA keys in the form of RFC 3110, against BIND's encoding and against what attackers send."""

import base64
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsrecords import rsakey
from dnsrecords.errors import MalformedRsaKey, UnsafeRsaKey
from tests.support.dns_keys import KEY_1024, KEY_2048, vector

MODULUS = (1 << 1023) + 1


def octets(exponent: bytes, modulus: int | bytes, length: bytes | None = None) -> bytes:
    head = bytes([len(exponent)]) if length is None else length
    if isinstance(modulus, int):
        modulus = modulus.to_bytes((modulus.bit_length() + 7) // 8, "big")
    return head + exponent + modulus


@pytest.mark.parametrize("bits", [1024, 2048, 4096])
def test_keys_as_bind_encodes_them(bits: int) -> None:
    case = {name: values[0] for name, values in vector(f"rsa{bits}.txt").items()}
    key = rsakey.parse_base64(case["key"])
    assert key.key_size == bits
    assert key.public_numbers().e == int(case["exponent"], 16)
    assert key.public_numbers().n == int(case["modulus"], 16)
    assert rsakey.serialize(key) == base64.b64decode(case["key"])
    assert rsakey.format_base64(key) == case["key"]


def test_the_key_of_rfc_4025_is_read_and_refused_for_its_size() -> None:
    case = {name: values[0] for name, values in vector("rfc4025-section3.2.txt").items()}
    with pytest.raises(UnsafeRsaKey, match="modulus of 255 bits"):
        rsakey.parse_base64(case["key"])
    assert octets(bytes.fromhex(case["exponent"]), int(case["modulus"], 16)) == base64.b64decode(
        case["key"]
    )


@pytest.mark.parametrize("text", vector("abbreviated.txt")["key"])
def test_abbreviated_keys_of_the_specification_are_refused(text: str) -> None:
    with pytest.raises(MalformedRsaKey):
        rsakey.parse_base64(text)


def test_smallest_and_largest() -> None:
    for bits in (1024, 8192):
        assert rsakey.parse(octets(b"\x03", (1 << (bits - 1)) + 1)).key_size == bits
    wide = octets(b"\xff" * 8, MODULUS)
    assert rsakey.serialize(rsakey.parse(wide)) == wide


def test_an_exponent_of_more_than_255_octets_is_written_in_the_long_form() -> None:
    class Numbers:
        e = 1 << (8 * 299)
        n = MODULUS

    class Key:
        def public_numbers(self) -> Numbers:
            return Numbers()

    written = rsakey.serialize(Key())  # type: ignore[arg-type]
    assert written[:4] == b"\x00\x01\x2c\x01"
    with pytest.raises(UnsafeRsaKey, match="exponent of 2393 bits"):
        rsakey.parse(written)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"", "exponent length: 1 octets needed, 0 left"),
        (b"\x00\x01", "exponent length: 2 octets needed"),
        (b"\x00\x00\x00", "exponent length 0 in the form"),
        (octets(b"\x03", MODULUS, b"\x00\x00\x01"), "exponent length 1 in the form for 256"),
        (octets(b"\x03", MODULUS, b"\x00\xff\xff"), "exponent: 65535 octets needed"),
        (octets(b"\x03", MODULUS, b"\xff"), "exponent: 255 octets needed"),
        (octets(b"\x03", MODULUS, b"\x81"), "exponent of 1026 bits"),
        (octets(b"\x00\x03", MODULUS), "exponent has a leading zero"),
        (octets(b"\x00", MODULUS), "exponent has a leading zero"),
        (octets(b"\x01", MODULUS), "exponent 1 is not"),
        (octets(b"\x02", MODULUS), "exponent 2 is not"),
        (octets(b"\x01\x00\x00", MODULUS), "exponent 65536 is not"),
        (octets(b"\x01" * 9, MODULUS), "exponent of 65 bits"),
        (octets(b"\x03", b""), "modulus is missing"),
        (octets(b"\x03", b"\x00" + MODULUS.to_bytes(128, "big")), "modulus has a leading zero"),
        (octets(b"\x03", MODULUS + 1), "modulus is even"),
        (octets(b"\x03", (1 << 1022) + 1), "modulus of 1023 bits"),
        (octets(b"\x03", (1 << 8192) + 1), "modulus of 8193 bits"),
        (octets(b"\x03", b"\xff" * 65000), "modulus of 520000 bits"),
    ],
)
def test_hostile_keys_are_refused_quickly(bad: bytes, reason: str) -> None:
    started = time.process_time()
    with pytest.raises(MalformedRsaKey, match=reason):
        rsakey.parse(bad)
    assert time.process_time() - started < 0.01


def test_the_library_is_asked_last(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("not today")

    monkeypatch.setattr("cryptography.hazmat.primitives.asymmetric.rsa.RSAPublicNumbers", refuse)
    with pytest.raises(UnsafeRsaKey, match="not today"):
        rsakey.parse(octets(b"\x03", MODULUS))


def test_a_key_cut_off_anywhere_is_refused() -> None:
    whole = rsakey.serialize(KEY_1024)
    for length in range(len(whole)):
        with pytest.raises(MalformedRsaKey):
            rsakey.parse(whole[:length])


def test_text_for_a_configuration() -> None:
    text = rsakey.format_text(KEY_2048)
    assert text.startswith("0sAwEAA")
    hexadecimal = "0x" + rsakey.serialize(KEY_2048).hex()
    for form in (text, f"  {text}\n", hexadecimal, hexadecimal.upper(), text.replace("A", " A")):
        assert rsakey.parse_text(form) == KEY_2048


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "neither with 0s"),
        (rsakey.format_base64(KEY_1024), "neither with 0s"),
        ("0sA*B", "not base64"),
        ("0sAwEAAaN", "not base64"),
        ("0s\u00e4", "not base64"),
        ("0x0301zz", "not hexadecimal"),
        ("0x030", "not hexadecimal"),
        ("0s" + "A" * 4097, "4097 characters"),
        ("0x" + "A" * 4097, "4097 characters"),
    ],
)
def test_text_that_is_no_key(text: str, reason: str) -> None:
    with pytest.raises(MalformedRsaKey, match=reason):
        rsakey.parse_text(text)


@given(
    st.integers(1, (1 << 63) - 1).map(lambda n: 2 * n + 1),
    st.integers(1 << 1022, (1 << 2047) - 1).map(lambda n: 2 * n + 1),
)
def test_every_good_key_survives_the_way_there_and_back(exponent: int, modulus: int) -> None:
    raw = exponent.to_bytes((exponent.bit_length() + 7) // 8, "big")
    written = octets(raw, modulus)
    key = rsakey.parse(written)
    assert rsakey.serialize(key) == written
    assert rsakey.parse_text(rsakey.format_text(key)) == key


@given(st.binary(max_size=300))
def test_any_octets_are_a_key_or_an_error_of_ours(data: bytes) -> None:
    try:
        key = rsakey.parse(data)
    except MalformedRsaKey:
        return
    assert rsakey.serialize(key) == data
