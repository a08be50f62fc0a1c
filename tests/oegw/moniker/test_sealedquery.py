"""Encrypted questions and answers (MK-16), against HPKE written out from RFC 9180."""

from __future__ import annotations

import hmac
import random
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from oegw.moniker import sealedquery, wire
from oegw.moniker.names import ServiceName, Version
from oegw.moniker.sealedquery import (
    ANSWER_OCTETS,
    INFO,
    SealedQuery,
    UnknownKey,
    nonce_of,
    seal,
    seal_answer,
    unseal,
    unseal_answer,
)
from oegw.moniker.wire import Answer, Code, MalformedMessage, Query, Refusal, padded
from oegw.sst.statickey import StaticKey, sealed_to

VECTORS = Path(__file__).parents[2] / "vectors" / "moniker"


def vectors(file: str) -> dict[str, str]:
    lines = (VECTORS / file).read_text(encoding="ascii").splitlines()
    pairs = (line.split(" = ", 1) for line in lines if not line.startswith("#"))
    return {name: value for name, value in pairs}  # noqa: C416  (mypy: pairs are lists)


RFC = {name: bytes.fromhex(value) for name, value in vectors("hpke.txt").items()}
BOB = StaticKey(RFC["skRm"])
EVE = StaticKey(bytes(range(32)))
LINE = "MON/1 Q 0123456789abcdef tcp - starwars *"
RANDOM = random.Random(16).randbytes


# ------------------------------------------------- RFC 9180, written out with hmac

KEM, SUITE = b"KEM" + b"\0\x20", b"HPKE" + b"\0\x20" + b"\0\x01" + b"\0\x03"


def extracted(suite: bytes, salt: bytes, label: bytes, ikm: bytes) -> bytes:
    """LabeledExtract of section 4."""
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + ikm, "sha256")


def expanded(suite: bytes, prk: bytes, label: bytes, info: bytes, length: int) -> bytes:
    """LabeledExpand of section 4, for one block of HKDF."""
    labeled = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    return hmac.digest(prk, labeled + b"\1", "sha256")[:length]


def shared_secret(mine: bytes, theirs: bytes, enc: bytes, receiver: bytes) -> bytes:
    """Encap and Decap of section 4.1, which differ in whose private key there is."""
    dh = X25519PrivateKey.from_private_bytes(mine).exchange(
        X25519PublicKey.from_public_bytes(theirs)
    )
    return expanded(KEM, extracted(KEM, b"", b"eae_prk", dh), b"shared_secret", enc + receiver, 32)


def key_and_nonce(secret: bytes, info: bytes) -> tuple[bytes, bytes]:
    """KeySchedule of section 5.1 in base mode."""
    hashes = extracted(SUITE, b"", b"psk_id_hash", b"") + extracted(SUITE, b"", b"info_hash", info)
    prk = extracted(SUITE, secret, b"secret", b"")
    return (
        expanded(SUITE, prk, b"key", b"\0" + hashes, 32),
        expanded(SUITE, prk, b"base_nonce", b"\0" + hashes, 12),
    )


def test_what_is_written_out_here_gives_the_rfc_s_values() -> None:
    secret = shared_secret(RFC["skEm"], RFC["pkRm"], RFC["enc"], RFC["pkRm"])
    assert secret == RFC["shared_secret"]
    assert secret == shared_secret(RFC["skRm"], RFC["enc"], RFC["enc"], RFC["pkRm"])
    key, nonce = key_and_nonce(secret, RFC["info"])
    assert (key, nonce) == (RFC["key"], RFC["base_nonce"])
    assert ChaCha20Poly1305(key).encrypt(nonce, RFC["pt"], RFC["aad"]) == RFC["ct"]


def box_of(line: str) -> bytes:
    body = line.removeprefix("MON/1 E ")
    return urlsafe_b64decode(body + "=" * (-len(body) % 4))


def line_of(box: bytes) -> str:
    return "MON/1 E " + urlsafe_b64encode(box).decode().rstrip("=")


def test_mk_16_the_format_is_what_the_documentation_says() -> None:
    """A question that was sealed by the code opens here, octet by octet."""
    sealed = seal(LINE, BOB.public, RANDOM)
    box = box_of(sealed.text)
    assert box[:8] == sha256(BOB.public).digest()[:8]
    enc, ct = box[8:40], box[40:]
    key, nonce = key_and_nonce(shared_secret(RFC["skRm"], enc, enc, BOB.public), INFO)
    plain = ChaCha20Poly1305(key).decrypt(nonce, ct, b"")
    assert plain == padded(LINE, 256).encode() + sealed.answer_key


def test_mk_16_a_question_that_was_sealed_elsewhere_is_read() -> None:
    plain = LINE.encode() + b"   " + b"k" * 32
    key, nonce = key_and_nonce(shared_secret(RFC["skEm"], BOB.public, RFC["enc"], BOB.public), INFO)
    box = BOB.key_id + RFC["enc"] + ChaCha20Poly1305(key).encrypt(nonce, plain, b"")
    assert unseal(line_of(box), BOB) == (LINE, b"k" * 32)


def test_mk_16_the_format_stays_what_it_is() -> None:
    """Else a daemon and a client of two versions would not understand each other."""
    kept = vectors("sealed.txt")
    answer_key = bytes.fromhex(kept["answer_key"])
    assert unseal(kept["sealed_question"], BOB) == (kept["question"], answer_key)
    nonce = bytes.fromhex(kept["answer_nonce"])
    sealed = seal_answer(kept["answer"], answer_key, lambda octets: nonce[:octets])
    assert sealed == kept["sealed_answer"]
    assert unseal_answer(sealed, answer_key) == kept["answer"]
    assert nonce_of(kept["sealed_question"]) == kept["clear_nonce"]


# ----------------------------------------------------------------- both directions


def test_mk_16_question_and_answer() -> None:
    sealed = seal(LINE, BOB.public, RANDOM)
    assert "starwars" not in sealed.text
    line, answer_key = unseal(sealed.text, BOB)
    assert line == LINE
    answer = seal_answer("MON/1 + 0123456789abcdef 40000 tcp 1 46 60", answer_key, RANDOM)
    assert "40000" not in answer
    assert unseal_answer(answer, sealed.answer_key) == "MON/1 + 0123456789abcdef 40000 tcp 1 46 60"


def test_mk_16_lengths_say_nothing() -> None:
    questions = [
        wire.text(Query("0" * 16, ServiceName.parse(name), "tcp"))
        for name in ("a", "starwars", "reynolds::http@>=1,<2", "é" * 80)
    ]
    assert len({len(seal(line, BOB.public, RANDOM).text) for line in questions}) == 1
    answers = [
        wire.text(message)
        for message in (
            Answer("0" * 16, 1, "tcp", Version.parse("1"), "4", 0),
            Answer("f" * 32, 65535, "a" * 16, Version.parse("9" * 9), "46", 86400, sst=True),
            Refusal("0" * 16, Code.UNKNOWN, "no such service"),
            Refusal("f" * 32, Code.TRANSPORT, "x" * 500),
        )
    ]
    assert {len(line) <= ANSWER_OCTETS for line in answers} == {True}
    assert len({len(seal_answer(line, bytes(32), RANDOM)) for line in answers}) == 1


def test_mk_27_an_answer_is_shorter_than_any_question() -> None:
    question = seal("MON/1 Q 0123456789abcdef * - a *", BOB.public, RANDOM).text
    assert len(seal_answer("x" * ANSWER_OCTETS, bytes(32), RANDOM)) < len(question)


def test_the_longest_question_fits_into_a_line_and_a_datagram() -> None:
    longest = f"{'é' * 127}::{'ü' * 127}@>=999999999.1,<=999999999.2,>1,<2"
    line = wire.text(Query("f" * 32, ServiceName.parse(longest), "a" * 16, "c" * 64))
    sealed = seal(line, BOB.public, RANDOM).text
    assert len(sealed) <= min(wire.MAX_LINE_OCTETS, 1280 - 48)  # IPv6 without fragments
    assert unseal(sealed, BOB)[0] == line


def test_each_question_has_its_own_key_and_looks_new() -> None:
    sealed = [seal(LINE, BOB.public, RANDOM) for _ in range(50)]
    assert len({each.text for each in sealed}) == len({each.answer_key for each in sealed}) == 50


def test_secrets_are_silent() -> None:
    sealed = SealedQuery("MON/1 E x", b"\xaa" * 32)
    assert "aa" not in repr(sealed)
    assert "xaa" not in str(sealed)


# ------------------------------------------------------------------------- faults


def test_another_host_s_key_is_said_to_be_another() -> None:
    sealed = seal(LINE, EVE.public, RANDOM)
    with pytest.raises(UnknownKey):
        unseal(sealed.text, BOB)


def test_each_changed_octet_is_noticed_and_all_faults_look_alike() -> None:
    box = box_of(seal(LINE, BOB.public, RANDOM).text)
    said = set()
    for at in range(8, len(box)):
        changed = bytearray(box)
        changed[at] ^= 1 << at % 8
        with pytest.raises(MalformedMessage) as caught:
            unseal(line_of(bytes(changed)), BOB)
        said.add(str(caught.value))
    for cut in (8, 9, 39, 40, 41, 55, len(box) - 1):
        with pytest.raises(MalformedMessage) as caught:
            unseal(line_of(box[:cut]), BOB)
        said.add(str(caught.value))
    assert len(said) == 1


@pytest.mark.parametrize("octets", [b"", b"k" * 31, b"k" * 32, b"\xff" + b"k" * 32])
def test_a_question_without_a_question(octets: bytes) -> None:
    box = BOB.key_id + sealed_to(BOB.public, octets, INFO)
    with pytest.raises(MalformedMessage):
        unseal(line_of(box), BOB)


@pytest.mark.parametrize("body", ["", "A", "AB=", "AB", "A" * 4, "é", "A B", "A" * 5000])
def test_what_is_no_sealed_message(body: str) -> None:
    for read in (lambda line: unseal(line, BOB), lambda line: unseal_answer(line, bytes(32))):
        with pytest.raises((MalformedMessage, UnknownKey)):
            read(f"MON/1 E {body}")
    with pytest.raises(MalformedMessage):
        unseal_answer(LINE, bytes(32))


def test_there_is_one_text_for_a_box() -> None:
    """Else a question could be repeated by somebody else without looking like it."""
    sealed = seal(LINE, BOB.public, RANDOM).text
    last = sealed[-1]
    alike = [
        sealed[:-1] + each
        for each in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        if each != last
    ]
    for text in alike:
        with pytest.raises(MalformedMessage):
            unseal(text, BOB)
    assert nonce_of(sealed + "   ") == nonce_of(sealed) != nonce_of(alike[0])


def test_an_answer_of_another_question_is_refused() -> None:
    answer = seal_answer("MON/1 + x", b"a" * 32, RANDOM)
    with pytest.raises(MalformedMessage):
        unseal_answer(answer, b"b" * 32)
    box = bytearray(box_of(answer))
    box[3] ^= 1
    with pytest.raises(MalformedMessage):
        unseal_answer(line_of(bytes(box)), b"a" * 32)


@pytest.mark.parametrize("public", [bytes(32), b"\1" + bytes(31), b"\xff" * 32, b"x" * 31, b""])
def test_nothing_is_sealed_to_a_key_that_is_none(public: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        seal(LINE, public, RANDOM)


def test_hostile_boxes_are_refused() -> None:
    rng = random.Random(9180)
    for _ in range(2000):
        box = BOB.key_id + rng.randbytes(rng.choice((0, 1, 31, 32, 48, 49, 100, 300)))
        with pytest.raises(MalformedMessage):
            unseal(line_of(box), BOB)


def test_the_module_needs_no_clock_and_draws_what_it_is_given() -> None:
    drawn: list[int] = []

    def counted(octets: int) -> bytes:
        drawn.append(octets)
        return bytes(octets)

    sealed = sealedquery.seal(LINE, BOB.public, counted)
    sealedquery.seal_answer(LINE, sealed.answer_key, counted)
    assert drawn == [32, 12]
