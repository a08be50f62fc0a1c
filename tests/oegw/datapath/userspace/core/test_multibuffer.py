"""AES-GCM by another library than OpenSSL: where it is looked for, what is said where it can't be
used, and that one which does anything else is found out."""

from __future__ import annotations

import ctypes
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from oegw.datapath.userspace.core import compiled, multibuffer
from oegw.datapath.userspace.core.choice import choose
from oegw.datapath.userspace.core.multibuffer import NoLibraryError, functions

KEYS = (128, 192, 256)


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    """What is found is kept; here others are to be found."""
    functions.cache_clear()
    compiled._aes_gcm.cache_clear()
    yield
    functions.cache_clear()
    compiled._aes_gcm.cache_clear()


def test_it_is_there() -> None:
    """netns-lab/setup installs it; without, all that follows would compare nothing."""
    assert functions().name.startswith("ipsec-mb 1.")
    assert choose("compiled").libraries == (("AES-GCM", functions().name, ""),)


def can_run(name: str) -> bool:
    return multibuffer._SETS[name] <= multibuffer._abilities()


@pytest.mark.parametrize("name", list(multibuffer._SETS))
def test_each_set_of_functions_does_what_openssl_does(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that this CPU runs, also where it has better ones."""
    needed = multibuffer._SETS[name]
    monkeypatch.setattr(multibuffer, "_abilities", lambda: needed)
    assert functions().name.endswith(name)
    if can_run(name):
        assert compiled.aes_gcm()[1:] == (functions().name, "")


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ("aes pclmulqdq ssse3 sse4_1 sse4_2", "sse"),
        ("aes pclmulqdq ssse3 sse4_1 sse4_2 avx avx2 bmi2 vaes vpclmulqdq", "avx_gen4"),
        ("aes pclmulqdq ssse3 sse4_1 sse4_2 avx avx2 bmi2 avx512f vaes", "avx_gen4"),
    ],
)
def test_what_this_cpu_runs_is_what_the_kernel_says(
    flags: str, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said = tmp_path / "cpuinfo"
    said.write_text(f"processor\t: 0\nflags\t\t: fpu {flags}\nbugs\t:\n\nflags\t\t: none\n")
    monkeypatch.setattr(multibuffer, "_PROCESSORS", said)
    assert functions().name.endswith(f", {name}")


def test_a_cpu_of_another_kind_has_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = tmp_path / "cpuinfo"
    said.write_text("processor\t: 0\nFeatures\t: fp asimd aes pmull\n")
    monkeypatch.setattr(multibuffer, "_PROCESSORS", said)
    with pytest.raises(NoLibraryError, match="this CPU has no instructions for AES"):
        functions()
    monkeypatch.setattr(multibuffer, "_PROCESSORS", tmp_path / "nothing")
    with pytest.raises(NoLibraryError, match=r"nothing cannot be read: No such file or directory"):
        functions()


def made(tmp_path: Path, source: str) -> str:
    path = tmp_path / "other.so"
    (tmp_path / "other.c").write_text(source)
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-o", str(path), str(tmp_path / "other.c")], check=True
    )
    return str(path)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (None, "libIPSec_MB.so.77 is not installed (Debian: libipsec-mb1)"),
        ("", "other.so is another library than it should be"),
        ('char *imb_get_version_str(void) { return "1.9"; }', "other.so has no AES-GCM for this"),
    ],
)
def test_openssl_does_it_where_the_library_is_missing_or_another(
    source: str | None, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    missing = "libIPSec_MB.so.77" if source is None else made(tmp_path, source)
    monkeypatch.setattr(multibuffer, "LIBRARY", missing)
    pointer, name, reason = compiled.aes_gcm()
    assert pointer == compiled.library()[0].NULL
    assert name == "OpenSSL"
    assert said in reason


# What one may do wrong: in which of the functions, and how.
WRONG = {
    "a tag": ("enc", "icv[15] ^= 1;"),
    "a tag, opening": ("dec", "icv[0] ^= 1;"),
    "one octet": ("enc", "if (octets > 700 && octets % 16 == 7) to[octets - 1] ^= 1;"),
    "one octet, opening": ("dec", "if (octets > 1400 && octets % 16 == 0) to[0] ^= 1;"),
    "with extended numbers": ("enc", "if (added_octets == 12) to[0] ^= 1;"),
    "an octet behind": ("enc", "icv[16] = 0;"),
    "an octet before": ("dec", "to[-1] = 0;"),
    "nothing": ("dec", ""),
}
LIKE_IT = """
#include <stdint.h>
#define TAKES const void *expanded, void *scratch, uint8_t *to, const uint8_t *from, \\
    uint64_t octets, const uint8_t *nonce, const uint8_t *added, uint64_t added_octets, \\
    uint8_t *icv, uint64_t icv_octets
void (*right)(TAKES);
void wrong(TAKES)
{
    right(expanded, scratch, to, from, octets, nonce, added, added_octets, icv, icv_octets);
    WRONG
}
"""


@pytest.mark.parametrize("key", range(len(KEYS)))
@pytest.mark.parametrize("what", list(WRONG))
def test_one_that_does_something_else_is_not_used(
    what: str, key: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kind, wrong = WRONG[what]
    other = ctypes.CDLL(made(tmp_path, LIKE_IT.replace("WRONG", wrong)))
    right = functions()
    addresses = {"enc": right.encrypt, "dec": right.decrypt}[kind]
    ctypes.c_void_p.in_dll(other, "right").value = addresses[key]
    changed = list(addresses)
    changed[key] = _at(other.wrong)
    planted = multibuffer.Functions(
        "planted",
        right.expand,
        tuple(changed) if kind == "enc" else right.encrypt,
        tuple(changed) if kind == "dec" else right.decrypt,
    )
    monkeypatch.setattr(multibuffer, "functions", lambda: planted)
    pointer, name, reason = compiled.aes_gcm()
    if what == "nothing":  # so that what is found is what was planted
        assert name == "planted"
        return
    assert pointer == compiled.library()[0].NULL
    assert (name, reason) == ("OpenSSL", "planted does not do as OpenSSL does")
    assert choose("compiled").libraries == (("AES-GCM", name, reason),)


@pytest.mark.parametrize("what", ["nothing", "too much", "another key"])
def test_an_expansion_that_is_another_is_not_used(
    what: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    right = functions()
    source = "#include <string.h>\nvoid nothing(void *key, void *to) {}\n"
    source += "void more(void *key, char *to) { memset(to, 7, 5000); }\n"
    other = ctypes.CDLL(made(tmp_path, source))
    expand = {
        "nothing": (_at(other.nothing),) * 3,
        "too much": (_at(other.more),) * 3,
        "another key": (right.expand[0], *right.expand[:2]),
    }[what]
    planted = multibuffer.Functions("planted", expand, right.encrypt, right.decrypt)
    monkeypatch.setattr(multibuffer, "functions", lambda: planted)
    assert compiled.aes_gcm()[1:] == ("OpenSSL", "planted does not do as OpenSSL does")


def _at(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def test_the_check_lets_no_length_of_a_packet_go_by() -> None:
    """It takes a selection of lengths; here are all, once, by the functions themselves."""
    source = random.Random(3)
    found = functions()
    place, count, octets_ = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_char_p
    takes = place, place, place, place, count, octets_, octets_, count, place, count
    crypt = ctypes.CFUNCTYPE(None, *takes)
    expand = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_void_p)
    for index, bits in enumerate(KEYS):
        key = source.randbytes(bits // 8)
        aead = AESGCM(key)
        room = ctypes.create_string_buffer(1024 + 512 + 64)
        expanded = (ctypes.addressof(room) + 63) & ~63
        expand(found.expand[index])(key, expanded)
        run = crypt(found.encrypt[index])
        for octets in range(1600):
            nonce, added = source.randbytes(12), source.randbytes(8 + octets % 2 * 4)
            plain = source.randbytes(octets)
            text = ctypes.create_string_buffer(plain, octets + 16)
            at = ctypes.addressof(text)
            run(
                expanded, expanded + 1024, at, at, octets, nonce, added, len(added), at + octets, 16
            )
            assert text.raw == aead.encrypt(nonce, plain, added), (bits, octets)
