"""The compiled core behind the door: ``core.c``, loaded by cffi with ``core.h`` as declarations.

It is built when the package is installed, if there is a C compiler and OpenSSL's headers.
"""

from __future__ import annotations

import functools
import shutil
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import cffi

from oegw.datapath.userspace.core.interface import Frame, Moved, Run, Unchecked, Unopened
from oegw.datapath.userspace.esp import InboundSa, OutboundSa
from oegw.datapath.userspace.transform import Random
from oegw.packet.ip import Buffer

_HERE = Path(__file__).parent
_NAME = "_core"
_HEADERS = ("/usr/include/openssl/evp.h", "/usr/local/include/openssl/evp.h")


class CoreMissingError(Exception):
    """The compiled core cannot run here; the text says what is missing."""


@functools.cache
def library() -> Any:
    """The loaded library, and its cffi.  Raises CoreMissingError."""
    built = [_HERE / f"{_NAME}{suffix}" for suffix in EXTENSION_SUFFIXES]
    path = next((path for path in built if path.exists()), None)
    if path is None:
        raise CoreMissingError(f"it was not built when oegw was installed: {_why_not_built()}")
    declarations = cffi.FFI()
    declarations.cdef((_HERE / "core.h").read_text())
    try:
        loaded = declarations.dlopen(str(path))
        version = loaded.oegw_core_version()
    except (OSError, AttributeError) as error:
        raise CoreMissingError(f"it cannot be loaded: {error}") from None
    if version != loaded.OEGW_CORE_VERSION:
        raise CoreMissingError(
            f"it was built from another version ({version}, this is {loaded.OEGW_CORE_VERSION});"
            " install oegw again"
        )
    return declarations, loaded


def _why_not_built() -> str:
    missing = []
    if not any(shutil.which(compiler) for compiler in ("cc", "gcc", "clang")):
        missing.append("a C compiler (Debian: build-essential)")
    if not any(Path(header).exists() for header in _HEADERS):
        missing.append("OpenSSL's header openssl/evp.h (Debian: libssl-dev)")
    if missing:
        return f"{' and '.join(missing)} is missing; then install oegw again"
    return "install oegw again, with pip's -v, which shows why"


class CompiledSealingCore:
    """See `SealingCore`.  The arguments are those of ``PureSealingCore``."""

    name = "compiled"

    def __init__(self, offloads: bool, random: Random) -> None:
        raise NotImplementedError

    def install(self, sa: OutboundSa) -> None:
        raise NotImplementedError

    def remove(self, sa: OutboundSa) -> None:
        raise NotImplementedError

    def refresh(self, sa: OutboundSa) -> None:
        raise NotImplementedError

    def learn(self, key: bytes, sa: OutboundSa) -> None:
        raise NotImplementedError

    def forget(self) -> None:
        raise NotImplementedError

    def fill(self, device: int) -> int:
        raise NotImplementedError

    def seal(self, now: float) -> tuple[list[Run], int | None]:
        raise NotImplementedError

    def frame(self, index: int) -> Frame:
        raise NotImplementedError


class CompiledOpeningCore:
    """See `OpeningCore`.  The arguments are those of ``PureOpeningCore``."""

    name = "compiled"

    def __init__(self, offloads: bool, joins_udp: bool, random: Random) -> None:
        raise NotImplementedError

    def install(self, sa: InboundSa) -> None:
        raise NotImplementedError

    def remove(self, sa: InboundSa) -> None:
        raise NotImplementedError

    def refresh(self, sa: InboundSa) -> None:
        raise NotImplementedError

    def learn(self, key: bytes, sa: InboundSa) -> None:
        raise NotImplementedError

    def fill(self, outer: int, version: int, encapsulated: bool) -> int:
        raise NotImplementedError

    def open(self, now: float) -> Unopened | Unchecked | None:
        raise NotImplementedError

    def append(self, packet: Buffer) -> None:
        raise NotImplementedError

    def deliver(self, device: int) -> int:
        raise NotImplementedError

    def counted(self) -> dict[str, int]:
        raise NotImplementedError

    def moved(self) -> list[Moved]:
        raise NotImplementedError

    def softened(self) -> list[InboundSa]:
        raise NotImplementedError
