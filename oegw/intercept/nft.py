"""The nft language, spoken to the kernel through libnftables."""

from __future__ import annotations

import ctypes
import json
from contextlib import suppress
from typing import Any

from oegw.intercept.firewall import Ruleset
from oegw.intercept.interface import InterceptError, InterceptSettings
from oegw.powers import elsewhere
from oegw.powers.orders import Spoken

_LIBRARY = "libnftables.so.1"
# nftables/libnftables.h: NFT_CTX_OUTPUT_..., NFT_CTX_INPUT_NO_DNS
_JSON, _TERSE = 1 << 4, 1 << 11
_NO_DNS = 1 << 0
OUTPUTS = frozenset((0, _JSON, _JSON | _TERSE))
"""The flags that we use; another has addresses looked up in the DNS."""
_SHOWN = 300  # characters of a refused command in an error message: enough to recognise it


class NftError(InterceptError):
    """The kernel or libnftables refused a command; nothing of its transaction was done."""

    def __init__(self, command: str, words: str) -> None:
        shown = command if len(command) <= _SHOWN else command[:_SHOWN] + " ..."
        first = next((line for line in words.splitlines() if "Error" in line), words)
        super().__init__(f"nft refused {shown.strip()!r}: {first.strip()}")
        self.words = words

    @property
    def exists(self) -> bool:
        """Whether something to be created is there already, or overlaps what is there."""
        return "File exists" in self.words or "overlap" in self.words

    @property
    def missing(self) -> bool:
        """Whether something to be deleted isn't there."""
        return "No such file or directory" in self.words or "does not exist" in self.words

    @property
    def full(self) -> bool:
        """Whether a set has reached its size."""
        return "Too many open files in system" in self.words


class Nft:
    """libnftables, of this process or of the one that has the rights (`oegw.powers`).

    Of this process it is a handle bound to the network namespace of the thread that makes it.
    Raises InterceptError if the library is missing.
    """

    def __init__(self) -> None:
        self._kernel = elsewhere.kernel()
        self._handle = NftHandle() if self._kernel is None else None
        self._closed = False

    def run(self, command: str, *, dry: bool = False) -> str:
        """Execute commands as one transaction, and return what they print.

        ``dry``: the kernel checks the transaction and doesn't commit it.
        Raises NftError.
        """
        return self._run(command, 0, dry=dry)

    def listing(self, command: str) -> str:
        """What a ``list`` command says, as JSON.  Raises NftError."""
        return self._run(command, _JSON)

    def ruleset(self) -> Ruleset:
        """The rules of all tables, and of the named sets those that interfaces are compared with.

        Raises InterceptError.
        """
        ruleset = Ruleset(_read(self._run("list ruleset", _JSON | _TERSE)))
        for family, table, name in ruleset.sets_of_interfaces():
            ruleset.add_set(_read(self.listing(f"list set {family} {table} {name}")))
        return ruleset

    def close(self) -> None:
        """Free the handle."""
        self._closed = True
        if self._handle is not None:
            self._handle.close()

    def _run(self, command: str, flags: int, *, dry: bool = False) -> str:
        if self._closed:
            raise InterceptError("the nft handle is closed")
        if self._handle is not None:
            spoken = self._handle.speak(command, flags, dry=dry)
        else:
            assert self._kernel is not None
            spoken = self._kernel.nft(command, flags, dry=dry)
        if spoken.failed:
            raise NftError(command, spoken.words)
        return spoken.output


class NftHandle:
    """One handle of libnftables.  Raises InterceptError."""

    def __init__(self) -> None:
        try:
            library = ctypes.CDLL(_LIBRARY)
        except OSError as error:
            raise InterceptError(f"{_LIBRARY} can't be loaded: {error}") from error
        library.nft_ctx_new.restype = ctypes.c_void_p
        library.nft_ctx_new.argtypes = [ctypes.c_uint32]
        library.nft_ctx_free.argtypes = [ctypes.c_void_p]
        library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        library.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
        library.nft_ctx_set_dry_run.argtypes = [ctypes.c_void_p, ctypes.c_bool]
        for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error"):
            getattr(library, name).argtypes = [ctypes.c_void_p]
        for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
            getattr(library, name).argtypes = [ctypes.c_void_p]
            getattr(library, name).restype = ctypes.c_char_p
        self._library: Any = library
        self._handle: int | None = library.nft_ctx_new(0)
        if not self._handle:
            raise InterceptError("libnftables has no handle for us")
        with suppress(AttributeError):  # libnftables before 1.0.7
            library.nft_ctx_input_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
            library.nft_ctx_input_set_flags(self._handle, _NO_DNS)
        library.nft_ctx_buffer_output(self._handle)
        library.nft_ctx_buffer_error(self._handle)

    def speak(self, command: str, flags: int, *, dry: bool) -> Spoken:
        """One transaction; ``flags`` of its output."""
        library, handle = self._library, self._handle
        library.nft_ctx_output_set_flags(handle, flags)
        library.nft_ctx_set_dry_run(handle, dry)
        failed = library.nft_run_cmd_from_buffer(handle, command.encode())
        output: bytes = library.nft_ctx_get_output_buffer(handle) or b""
        words: bytes = library.nft_ctx_get_error_buffer(handle) or b""
        return Spoken(bool(failed), output.decode(errors="replace"), words.decode(errors="replace"))

    def close(self) -> None:
        if self._handle is not None:
            self._library.nft_ctx_free(self._handle)
            self._handle = None


def firewall_gaps(settings: InterceptSettings) -> list[str]:
    """What is to be said of the firewalls of this box (`firewall`), one sentence a chain.

    Raises InterceptError if the rules can't be read.
    """
    nft = Nft()
    try:
        return [str(gap) for gap in nft.ruleset().gaps(settings)]
    finally:
        nft.close()


def _read(listing: str) -> Any:
    try:
        return json.loads(listing)
    except ValueError as error:
        raise InterceptError(f"libnftables lists no JSON: {error}") from None
