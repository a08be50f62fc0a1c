"""Where AES-GCM may come from besides OpenSSL: Intel's Multi-Buffer Crypto for IPsec Library, which
Debian has as libipsec-mb1 for amd64.

The functions for one whole packet are looked up in it by name, for which no header is needed.  What
they take is alike in all releases with this SONAME; how large an expanded key is, is measured
(``gcm.c``).  There is a set of them for each kind of CPU, and which of them this one can run is
found out here.
"""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass
from itertools import product
from pathlib import Path

LIBRARY = "libIPSec_MB.so.1"
PACKAGE = "libipsec-mb1"

_PROCESSORS = Path("/proc/cpuinfo")
_ENOUGH = 8192  # octets of it: what it says of the first one
_KEYS = (128, 192, 256)
_KINDS = ("pre", "enc", "dec")

# What each set of functions needs, as Linux names it, the fastest first.
_AES = frozenset({"aes", "pclmulqdq", "sse4_1", "sse4_2", "ssse3"})
_AVX2 = _AES | {"avx", "avx2", "bmi2"}
_AVX512 = _AVX2 | {"avx512f", "avx512dq", "avx512cd", "avx512bw", "avx512vl"}
_SETS = {
    "vaes_avx512": _AVX512 | {"vaes", "vpclmulqdq"},
    "avx512": _AVX512,
    "avx_gen4": _AVX2,
    "avx_gen2": _AES | {"avx"},
    "sse": _AES,
}


class NoLibraryError(Exception):
    """It cannot be used here; the text says why."""


@dataclass(frozen=True, slots=True)
class Functions:
    """Their addresses, for keys of 16, 24 and 32 octets; ``core.h`` says what each takes."""

    name: str  # of library, version and set
    expand: tuple[int, ...]
    encrypt: tuple[int, ...]
    decrypt: tuple[int, ...]


@functools.cache
def functions() -> Functions:
    """The fastest that this CPU runs; nobody has tried yet whether they do what they should.
    Raises NoLibraryError."""
    able = _abilities()
    known = [name for name, needed in _SETS.items() if needed <= able]
    if not known:
        raise NoLibraryError("this CPU has no instructions for AES")
    try:
        library = ctypes.CDLL(LIBRARY)
        version = ctypes.CFUNCTYPE(ctypes.c_char_p)(("imb_get_version_str", library))()
    except OSError:
        raise NoLibraryError(f"{LIBRARY} is not installed (Debian: {PACKAGE})") from None
    except AttributeError:
        raise NoLibraryError(f"{LIBRARY} is another library than it should be") from None
    for name in known:
        try:
            found = [
                _address(library[f"aes_gcm_{kind}_{key}_{name}"])
                for kind, key in product(_KINDS, _KEYS)
            ]
        except AttributeError:
            continue
        shown = f"ipsec-mb {(version or b'?').decode('ascii', 'replace')}, {name}"
        return Functions(shown, tuple(found[:3]), tuple(found[3:6]), tuple(found[6:]))
    raise NoLibraryError(f"{LIBRARY} has no AES-GCM for this CPU")


def _address(function: object) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0  # type: ignore[arg-type]


def _abilities() -> frozenset[str]:
    """What the kernel says that programs may use; nothing on CPUs of other kinds."""
    try:
        with _PROCESSORS.open("rb") as file:
            said = file.read(_ENOUGH).decode("ascii", "replace")
    except OSError as error:
        raise NoLibraryError(f"{_PROCESSORS} cannot be read: {error.strerror}") from None
    for line in said.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            return frozenset(value.split())
    return frozenset()
