"""Static keys: X25519 of RFC 7748, HKDF of RFC 5869, and keys that must not be used."""

from __future__ import annotations

import hmac
from hashlib import sha256
from pathlib import Path

import pytest

from dnsrecords.sstkey import PRIME
from oegw.sst.interface import Algorithm, PortKey, SstError
from oegw.sst.statickey import NotOpened, StaticKey, WeakPeerKey, key_id, sealed_to

VECTORS = Path(__file__).parents[2] / "vectors" / "sst" / "static-keys.txt"
LINES = [
    line.split(" = ")
    for line in VECTORS.read_text(encoding="ascii").splitlines()
    if not line.startswith("#")
]
NAMED = {name: value for name, value in LINES if name != "port"}
ALICE, BOB = (StaticKey(bytes.fromhex(NAMED[each])) for each in "ab")
SHARED = bytes.fromhex(NAMED["shared"])
PORT_KEYS = [value.split() for name, value in LINES if name == "port"]

# The points of order 1, 2, 4 and 8, on the curve and on its twist (Curve25519's page), in both
# encodings where there are two.
SMALL_ORDER = [
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    PRIME - 1,
    PRIME,
    PRIME + 1,
]


def day_of(word: str) -> int | None:
    return None if word == "-" else int(word)


def hkdf(info: bytes, length: int) -> bytes:
    """RFC 5869 section 2, written out."""
    extracted = hmac.new(b"SST1", SHARED, sha256).digest()
    out, block, count = b"", b"", 0
    while len(out) < length:
        count += 1
        block = hmac.new(extracted, block + info + bytes([count]), sha256).digest()
        out += block
    return out[:length]


def test_the_key_pair_of_rfc_7748() -> None:
    assert ALICE.public.hex() == NAMED["A"]
    assert BOB.public.hex() == NAMED["B"]
    assert ALICE.key_id.hex() == NAMED["id_A"] == key_id(ALICE.public).hex()
    assert len(ALICE.key_id) == 8


def test_sst31_both_ends_have_the_same_key_without_a_packet() -> None:
    for algorithm in Algorithm:
        for day in (None, 0, 20000, 0xFFFFFFFF):
            ours = ALICE.port_key(BOB.public, algorithm, day)
            assert ours == BOB.port_key(ALICE.public, algorithm, day)
            assert len(ours.octets) == algorithm.key_length
    assert ALICE.probe_key(BOB.public) == BOB.probe_key(ALICE.public)


@pytest.mark.parametrize(("algorithm", "day", "wanted"), PORT_KEYS)
def test_keys_as_openssl_derives_them(algorithm: str, day: str, wanted: str) -> None:
    number = Algorithm(int(algorithm))
    key = ALICE.port_key(BOB.public, number, day_of(day))
    assert key == PortKey(number, bytes.fromhex(wanted))


@pytest.mark.parametrize(("algorithm", "day", "wanted"), PORT_KEYS)
def test_the_vectors_by_rfc_5869_written_out(algorithm: str, day: str, wanted: str) -> None:
    info = b"".join(sorted((ALICE.public, BOB.public))) + bytes([int(algorithm)])
    if day != "-":
        info += int(day).to_bytes(4, "big")
    assert hkdf(info, len(wanted) // 2).hex() == wanted


def test_the_probe_key() -> None:
    assert ALICE.probe_key(BOB.public).hex() == NAMED["probe"]
    assert hkdf(b"probe" + ALICE.public + BOB.public, 32).hex() == NAMED["probe"]


def test_sst37_no_two_algorithms_or_days_share_a_key() -> None:
    keys = {
        ALICE.port_key(BOB.public, algorithm, day).octets[:16]
        for algorithm in Algorithm
        for day in (None, 0, 1, 20000, 20001)
    }
    keys.add(ALICE.probe_key(BOB.public)[:16])
    assert len(keys) == 11


@pytest.mark.parametrize("point", SMALL_ORDER)
def test_points_of_small_order_are_refused(point: int) -> None:
    public = point.to_bytes(32, "little")
    for derive in (
        lambda: ALICE.port_key(public, Algorithm.FF1_AES_128, 1),
        lambda: ALICE.probe_key(public),
    ):
        with pytest.raises(WeakPeerKey, match="can't be used"):
            derive()


@pytest.mark.parametrize("octets", [b"", bytes(31), bytes(33), b"\xff" * 32])
def test_what_is_no_public_key_is_refused(octets: bytes) -> None:
    with pytest.raises(WeakPeerKey):
        ALICE.port_key(octets, Algorithm.FF1_AES_128, None)


def test_the_other_encoding_of_a_good_point_is_refused() -> None:
    """Its ids and keys would differ from those of the one whose point it is."""
    other = bytearray(BOB.public)
    other[31] |= 0x80
    with pytest.raises(WeakPeerKey, match="usual encoding"):
        ALICE.port_key(bytes(other), Algorithm.FF1_AES_128, None)


def test_our_own_key_is_no_peers() -> None:
    with pytest.raises(WeakPeerKey, match="our own"):
        ALICE.port_key(ALICE.public, Algorithm.FF1_AES_128, None)
    with pytest.raises(SstError):
        ALICE.probe_key(StaticKey(bytes.fromhex(NAMED["a"])).public)


def test_secrets_are_silent() -> None:
    secret = bytes.fromhex(NAMED["a"])
    key = ALICE.port_key(BOB.public, Algorithm.FF1_AES_128, None)
    for text in (repr(ALICE), str(ALICE), f"{ALICE}", repr(key)):
        assert secret.hex() not in text
        assert key.octets.hex() not in text
        assert repr(secret) not in text
    assert repr(ALICE) == f"StaticKey({NAMED['id_A']})"
    with pytest.raises(ValueError, match="of 31 octets") as caught:
        StaticKey(secret[:31])
    assert secret[:31].hex() not in str(caught.value)


def test_what_is_sealed_to_a_key_is_opened_by_it_alone() -> None:
    """HPKE; its vectors are those of `tests/oegw/moniker/test_sealedquery.py`."""
    sealed = sealed_to(BOB.public, b"a question", b"a use")
    assert BOB.opened(sealed, b"a use") == b"a question"
    for key, info in ((ALICE, b"a use"), (BOB, b"another use")):
        with pytest.raises(NotOpened):
            key.opened(sealed, info)
    for octets in (b"", sealed[:31], sealed[:32], sealed[:-1], bytes(60)):
        with pytest.raises(NotOpened):
            BOB.opened(octets, b"a use")


@pytest.mark.parametrize("point", SMALL_ORDER)
def test_nothing_is_sealed_to_a_point_of_small_order(point: int) -> None:
    with pytest.raises(ValueError, match=r".+"):
        sealed_to(point.to_bytes(32, "little"), b"a question", b"a use")
