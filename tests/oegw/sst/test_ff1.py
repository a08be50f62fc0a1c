"""FF1 against NIST's samples, and against a second FF1 that shares nothing with it."""

from __future__ import annotations

import random
import tomllib
from pathlib import Path
from typing import Any

import pytest

from oegw.sst.ff1 import Ff1, Ff1Block, Ff1Key
from tests.support import ff1_reference

VECTORS = Path(__file__).parents[2] / "vectors" / "sst"


def samples(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = tomllib.loads((VECTORS / name).read_text())["sample"]
    return found


NIST = samples("ff1-nist.toml")
BINARY = samples("ff1-binary32.toml")


def digits(text: str) -> tuple[int, ...]:
    return tuple(ff1_reference.ALPHABET.index(each) for each in text)


@pytest.mark.parametrize("sample", NIST, ids=[each["name"] for each in NIST])
def test_nist_samples(sample: dict[str, Any]) -> None:
    ff1 = Ff1(bytes.fromhex(sample["key"]), sample["radix"])
    tweak = bytes.fromhex(sample["tweak"])
    assert ff1.encrypt(tweak, digits(sample["plain"])) == digits(sample["sealed"])
    assert ff1.decrypt(tweak, digits(sample["sealed"])) == digits(sample["plain"])


@pytest.mark.parametrize("sample", NIST, ids=[each["name"] for each in NIST])
def test_the_second_ff1_gives_nist_samples_too(sample: dict[str, Any]) -> None:
    terms = bytes.fromhex(sample["key"]), sample["radix"], bytes.fromhex(sample["tweak"])
    assert ff1_reference.encrypt(*terms, sample["plain"]) == sample["sealed"]
    assert ff1_reference.decrypt(*terms, sample["sealed"]) == sample["plain"]


def test_the_samples_are_all_nine_of_nist() -> None:
    sizes = [(len(each["key"]) * 4, each["radix"]) for each in NIST]
    assert sizes == [(size, radix) for size in (128, 192, 256) for radix in (10, 10, 36)]


@pytest.mark.parametrize("number", range(len(BINARY)))
def test_binary_blocks_of_32_digits(number: int) -> None:
    sample = BINARY[number]
    key, tweak = bytes.fromhex(sample["key"]), bytes.fromhex(sample["tweak"])
    plain, sealed = int(sample["plain"], 16), int(sample["sealed"], 16)
    block = Ff1Block(Ff1Key(key), tweak)
    assert block.encrypt(plain) == sealed
    assert block.decrypt(sealed) == plain
    assert Ff1(key, 2).encrypt(tweak, digits(f"{plain:032b}")) == digits(f"{sealed:032b}")


def test_the_fast_path_agrees_with_the_second_ff1() -> None:
    rng = random.Random(61)
    for _ in range(500):
        key, tweak = rng.randbytes(rng.choice((16, 24, 32))), rng.randbytes(rng.randrange(70))
        plain = rng.choice((rng.getrandbits(32), 0, 0xFFFFFFFF, 0xFFFF, 0xFFFF0000))
        sealed = int(ff1_reference.encrypt(key, 2, tweak, f"{plain:032b}"), 2)
        block = Ff1Block(Ff1Key(key), tweak)
        assert block.encrypt(plain) == sealed
        assert block.decrypt(sealed) == plain


def test_the_general_form_agrees_with_the_second_ff1() -> None:
    """Odd lengths, other radixes, and halves so long that y needs more than one block of AES."""
    rng = random.Random(62)
    stretched = 0
    for _ in range(300):
        radix = rng.choice((2, 3, 7, 10, 16, 26, 36))
        length = rng.randrange(20, 90)
        key, tweak = rng.randbytes(rng.choice((16, 24, 32))), rng.randbytes(rng.randrange(40))
        text = "".join(rng.choice(ff1_reference.ALPHABET[:radix]) for _ in range(length))
        sealed = ff1_reference.encrypt(key, radix, tweak, text)
        ff1 = Ff1(key, radix)
        assert ff1.encrypt(tweak, digits(text)) == digits(sealed)
        assert ff1.decrypt(tweak, digits(sealed)) == digits(text)
        stretched += radix ** (length - length // 2) > 2**96
    assert stretched > 50


def test_halves_of_more_than_255_digits() -> None:
    """Their length is in P modulo 256 (step 5)."""
    text = "01" * 300
    sealed = ff1_reference.encrypt(bytes(16), 2, b"", text)
    assert Ff1(bytes(16), 2).encrypt(b"", digits(text)) == digits(sealed)


def test_one_block_object_keeps_nothing_from_block_to_block() -> None:
    block = Ff1Block(Ff1Key(bytes(16)), b"tweak")
    first = block.encrypt(7)
    block.encrypt(8)
    block.decrypt(9)
    assert block.encrypt(7) == first


@pytest.mark.parametrize("radix", [-1, 0, 1, 65537])
def test_a_radix_out_of_range_is_refused(radix: int) -> None:
    with pytest.raises(ValueError, match="radix"):
        Ff1(bytes(16), radix)


def test_what_is_no_numeral_string_is_refused() -> None:
    ff1 = Ff1(bytes(16), 10)
    with pytest.raises(ValueError, match="digit"):
        ff1.encrypt(b"", (1, 2, 3, 4, 5, 6, 10))
    with pytest.raises(ValueError, match="possible values"):
        ff1.encrypt(b"", (1, 2, 3, 4, 5))


def test_a_key_that_is_none_of_aes_is_refused() -> None:
    with pytest.raises(ValueError, match="key"):
        Ff1Key(bytes(15))


def test_secrets_are_silent() -> None:
    key = bytes(range(16))
    for thing in (Ff1(key, 10), Ff1Key(key), Ff1Block(Ff1Key(key), b"")):
        assert key.hex() not in repr(thing)
        assert repr(key) not in repr(thing)
