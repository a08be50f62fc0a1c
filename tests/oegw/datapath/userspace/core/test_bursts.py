"""Many packets by one call: what is told where that can't be, and that one which does anything else
is found out."""

from __future__ import annotations

import ctypes
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from oegw.datapath.userspace.core import bursts as module
from oegw.datapath.userspace.core.bursts import (
    Bursts,
    added_of,
    address_of,
    begins_anew,
    bursts,
    nonces_of,
)
from oegw.datapath.userspace.core.choice import PYTHON_BY_OPENSSL, choose
from oegw.datapath.userspace.core.multibuffer import NoLibraryError

SPI, SALT = 0x80000001, b"salt"


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    bursts.cache_clear()
    yield
    bursts.cache_clear()


def test_it_is_there_and_told_of() -> None:
    libraries = choose("python").libraries
    assert libraries[0] == ("AES-GCM", f"{bursts().name}, and alone by OpenSSL", "")
    assert libraries[1][:2] == ("checksums", "GMP")


def test_after_crashes_openssl_does_it_all() -> None:
    choice = choose(PYTHON_BY_OPENSSL)
    assert choice.name == "python"
    assert choice.libraries[0] == ("AES-GCM", "OpenSSL", "others are not tried after crashes")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("LIBRARY", "libIPSec_MB.so.77", "is not installed (Debian: libipsec-mb1)"),
        ("LIBRARY", "libc.so.6", "is another library than it should be"),
        ("_VERSION", b"1.2.9", "is version 1.3.0, and only 1.2.9 is known"),
    ],
)
def test_openssl_does_it_where_the_library_is_missing_or_another(
    name: str, value: object, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, name, value)
    assert choose("python").libraries[0][1] == "OpenSSL"
    assert said in choose("python").libraries[0][2]


@pytest.mark.parametrize("count", [1, 5, 37, 38, 63, 64, 65, 130, 200])
@pytest.mark.parametrize("extended", [False, True])
@pytest.mark.parametrize("key_octets", [16, 24, 32])
def test_rows_of_any_number(count: int, extended: bool, key_octets: int) -> None:
    source = random.Random(count)
    key, octets, stride = source.randbytes(key_octets), 300 + count, 400 + count
    first = 2**32 - count + 1 - 1 if not extended else 2**40
    text = source.randbytes(count * stride)
    row = bytearray(text)
    ring, aead = bursts(), AESGCM(key)
    known, nonces = ring.expanded(key), nonces_of(SALT, first, count)
    lanes = added_of(SPI, first, count, extended)
    ring.encrypt(known, address_of(row), stride, count, octets, nonces, *lanes)
    icvs = b""
    for index in range(count):
        number = (first + index).to_bytes(8, "big")
        start = index * stride
        head = SPI.to_bytes(4, "big") + number[0 if extended else 4 :]
        sealed = aead.encrypt(SALT + number, text[start : start + octets], head)
        whole = sealed + text[start + len(sealed) : start + stride]
        assert row[start : start + stride] == whole
        icvs += sealed[-16:]
    sealed_row = bytes(row)
    rest = address_of(row), stride, count, octets, nonces
    for place in {0, 16 * (count // 2), len(icvs) - 1}:
        wrong = bytearray(icvs)
        wrong[place] ^= 1
        assert not ring.decrypt(known, *rest, *lanes, bytes(wrong))
        assert row == sealed_row
    assert ring.decrypt(known, *rest, *lanes, icvs)
    opened = bytearray(sealed_row)
    for start in range(0, len(text), stride):
        opened[start : start + octets] = text[start : start + octets]
    assert row == opened


@pytest.mark.parametrize("count", [1, 2, 64])
def test_where_the_low_halves_of_numbers_begin_anew(count: int) -> None:
    for first in (2**32 - count, 2**40 - count):
        assert not begins_anew(first, count)
        assert begins_anew(first, count + 1)


def flip(pointer: int) -> None:
    octet = ctypes.c_ubyte.from_address(pointer)
    octet.value ^= 1


def word(job: int, field: int) -> int:
    return ctypes.c_uint64.from_address(job + 8 * field).value


CHANGES: dict[str, Callable[[Any, int], None]] = {
    "nothing": lambda jobs, count: None,
    "a text": lambda jobs, count: flip(word(jobs[0], 4)),
    "the end of a text": lambda jobs, count: flip(word(jobs[0], 4) + word(jobs[0], 6) - 1),
    "an icv": lambda jobs, count: flip(word(jobs[count - 1], 11) + 15),
    "a job that stands late": lambda jobs, count: flip(word(jobs[37], 4)) if count > 37 else None,
    "behind": lambda jobs, count: flip(word(jobs[0], 4) + word(jobs[0], 6) + 16),
    "before": lambda jobs, count: flip(word(jobs[1], 4) - 1) if count > 1 else None,
}


@pytest.mark.parametrize("what", list(CHANGES))
def test_one_that_does_something_else_is_not_used(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Bursts()
    right = made._submit

    def submit(at: ctypes.c_void_p, count: int, jobs: Any) -> int:
        done: int = right(at, count, jobs)
        CHANGES[what](jobs, count)
        return done

    made._submit = submit
    monkeypatch.setattr(module, "Bursts", lambda: made)
    if what == "nothing":
        assert bursts() is made
        return
    with pytest.raises(NoLibraryError, match="does not do as OpenSSL does"):
        bursts()
    assert choose("python").libraries[0][1] == "OpenSSL"
