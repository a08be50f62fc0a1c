"""The compiled core behind the door: the C files beside this one, loaded by cffi with ``core.h`` as
declarations.

It is built when the package is installed, if there is a C compiler and OpenSSL's headers.
"""

from __future__ import annotations

import functools
import mmap
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import cffi

from oegw.datapath.interface import DatapathError
from oegw.datapath.userspace.core import interface, multibuffer
from oegw.datapath.userspace.core.interface import (
    Frame,
    Gathers,
    Moved,
    OpeningLoop,
    Outer,
    Places,
    Run,
    SealingLoop,
    SocketWay,
    Unchecked,
    Unopened,
)
from oegw.datapath.userspace.esp import InboundSa, OutboundSa
from oegw.datapath.userspace.record import Record, record_size
from oegw.datapath.userspace.transform import GCM, Random
from oegw.packet.ip import Buffer

_HERE = Path(__file__).parent
_NAME = "_core"
_HEADERS = ("/usr/include/openssl/evp.h", "/usr/local/include/openssl/evp.h")
_CONSTANTS = (
    "RUN_PACKETS",
    "RUN_OCTETS",
    "SMALLEST_SEGMENT",
    "BATCH_FRAMES",
    "BATCH_OCTETS",
    "JOINED_PACKETS",
    "LARGEST_FRAME",
    "FLOWS",
)
_STRUCTURES = (
    "sa", "sa_now", "run", "frame", "care", "moved", "seen", "made", "way", "outer", "counters",
    "crowd", "gcm",
)  # fmt: skip
_ANSWERS = {"DONE": 0, "CARE": 1, "RANDOM": 2, "UNOPENED": 3, "UNCHECKED": 4, "BROKEN": 5}
_ANSWERS |= {"CONTROL": 6, "LEFT": 7, "SEEN": 8, "PLACE": 9}
_DONE, _CARE, _RANDOM, _, _UNCHECKED, _BROKEN, _CONTROL, _LEFT, _SEEN, _PLACE = _ANSWERS.values()
_NO_LIMIT = 2**64 - 1
_PLACED_AT_ONCE = 64
_OUTER = 8  # sockets of a loop at most
_LIBCRYPTO = "the compiled core: libcrypto failed"
_OUTBOUND = {"packets": "esp_out_packets", "octets": "esp_out_octets", "lost": "drop_out_queue"}
_INBOUND = {
    "packets": "esp_in_packets",
    "octets": "esp_in_octets",
    "lost": "drop_in_device",
    "replay": "drop_in_replay",
    "invalid": "drop_in_invalid",
    "socket": "drop_in_socket",
}


class CoreMissingError(Exception):
    """The compiled core cannot run here; the text says what is missing."""


@functools.cache
def library() -> tuple[Any, Any]:
    """cffi's view of the declarations, and the loaded library.  Raises CoreMissingError."""
    built = [_HERE / f"{_NAME}{suffix}" for suffix in EXTENSION_SUFFIXES]
    path = next((path for path in built if path.exists()), None)
    if path is None:
        raise CoreMissingError(f"it was not built when oegw was installed: {_why_not_built()}")
    return load(path)


def load(path: Path) -> tuple[Any, Any]:
    """The same of one file."""
    declarations = cffi.FFI()
    declarations.cdef((_HERE / "core.h").read_text())
    try:
        loaded = declarations.dlopen(str(path))
        version, layout = loaded.oegw_core_version(), loaded.oegw_core_layout()
    except (OSError, AttributeError) as error:
        raise CoreMissingError(f"it cannot be loaded: {error}") from None
    expected = loaded.OEGW_CORE_VERSION
    if version != expected:
        raise CoreMissingError(
            f"it was built from another version ({version}, this is {expected}); install oegw again"
        )
    constants = {**_ANSWERS, **{name: getattr(interface, name) for name in _CONSTANTS}}
    if layout != sum(declarations.sizeof(f"struct oegw_{name}") for name in _STRUCTURES) or any(
        getattr(loaded, f"OEGW_{name}") != value for name, value in constants.items()
    ):
        raise CoreMissingError("it was built from other files than these; install oegw again")
    return declarations, loaded


def aes_gcm() -> tuple[Any, str, str]:
    """What does AES-GCM in place of libcrypto, as the C has it, or NULL; the name of the library
    that does it; and why it is no faster one."""
    return _aes_gcm(*library())


@functools.cache
def _aes_gcm(ffi: Any, lib: Any) -> tuple[Any, str, str]:
    try:
        found = multibuffer.functions()
    except multibuffer.NoLibraryError as error:
        return ffi.NULL, "OpenSSL", str(error)
    by = ffi.new(
        "struct oegw_gcm *",
        {
            "expand": [ffi.cast("oegw_gcm_expand", address) for address in found.expand],
            "encrypt": [ffi.cast("oegw_gcm_crypt", address) for address in found.encrypt],
            "decrypt": [ffi.cast("oegw_gcm_crypt", address) for address in found.decrypt],
        },
    )
    if not lib.oegw_gcm_check(by):
        return ffi.NULL, "OpenSSL", f"{found.name} does not do as OpenSSL does"
    return by, found.name, ""


def _why_not_built() -> str:
    missing = []
    if not any(shutil.which(compiler) for compiler in ("cc", "gcc", "clang")):
        missing.append("a C compiler (Debian: build-essential)")
    if not any(Path(header).exists() for header in _HEADERS):
        missing.append("OpenSSL's header openssl/evp.h (Debian: libssl-dev)")
    if missing:
        return f"{' and '.join(missing)} is missing; then install oegw again"
    return "install oegw again, with pip's -v, which shows why"


class SharedRecord(Record):
    """A record that the compiled core takes numbers from too: here in the same way as there, since
    a lock would not hold the core back."""

    __slots__ = ("_pointer", "_take")

    def __init__(self, record: Record, pointer: Any, take: Any) -> None:
        super().__init__(record.memory, record.at, record.offset)
        self._pointer = pointer
        self._take = take

    def take(self, numbers: int, octets: int, now: float, last: int) -> int | None:
        return self._take(self._pointer, numbers, octets, last, int(now * 1e9)) or None


class _Core:
    """What both directions share: the library, the memory, and the SAs by their numbers."""

    name = "compiled"

    def __init__(self, octets: int) -> None:
        self._ffi, self._lib = library()
        # Python's memory, so that no view outlives it, whatever becomes of the core.
        self._memory = mmap.mmap(-1, octets)
        self._view = memoryview(self._memory)
        self._pointer = self._ffi.from_buffer("uint8_t[]", self._memory, require_writable=True)
        self._sas: dict[int, Any] = {}
        self._records: dict[int, Any] = {}  # keep their memory mapped

    def _made(self, core: Any, free: Any) -> Any:
        if core == self._ffi.NULL:
            raise DatapathError("the compiled core: no memory, or libcrypto lacks an algorithm")
        return self._ffi.gc(core, free)

    def _record_of(self, sa: InboundSa | OutboundSa) -> Any:
        """A pointer to the record of ``sa``; the memory stays mapped as long as that."""
        return self._ffi.from_buffer("uint8_t[]", sa.record.memory, require_writable=True)

    def _add(self, sa: InboundSa | OutboundSa, install: Any, core: Any) -> None:
        ffi, lib, said = self._ffi, self._lib, sa.sa
        whole = self._record_of(sa)
        at = sa.record.at
        window = said.replay_window if isinstance(sa, InboundSa) else 0
        if at + record_size(window) > len(whole):
            raise DatapathError(f"SA {said.spi:#010x}: its record is not in the memory")
        key, integrity_key = (
            ffi.from_buffer(said.encryption_key),
            ffi.from_buffer(said.integrity_key),
        )
        ciphers = {GCM: lib.OEGW_GCM, "aes-cbc": lib.OEGW_AES_CBC, "3des-cbc": lib.OEGW_3DES_CBC}
        integrities = {
            None: 0,
            "hmac-sha2-256-128": lib.OEGW_HMAC_SHA256_128,
            "hmac-sha1-96": lib.OEGW_HMAC_SHA1_96,
            "hmac-md5-96": lib.OEGW_HMAC_MD5_96,
        }
        described = ffi.new(
            "struct oegw_sa *",
            {
                "record": whole + at,
                "record_octets": len(whole) - at,
                "key": ffi.cast("uint8_t *", key),
                "integrity_key": ffi.cast("uint8_t *", integrity_key),
                "key_octets": len(said.encryption_key),
                "integrity_key_octets": len(said.integrity_key),
                "cipher": ciphers[said.cipher],
                "integrity": integrities[said.integrity],
                "spi": said.spi,
                "extended": said.extended_sequence_numbers,
            },
        )
        number = install(core, described, self._now_of(sa))
        if not number:
            raise DatapathError(f"SA {said.spi:#010x}: the compiled core refuses it")
        sa.core = number
        self._sas[number] = sa
        self._records[number] = whole
        if isinstance(sa, OutboundSa):
            sa.record = SharedRecord(sa.record, whole + at, lib.oegw_take)

    def _take_out(self, sa: InboundSa | OutboundSa, remove: Any, core: Any) -> None:
        remove(core, sa.core)
        del self._sas[sa.core], self._records[sa.core]
        sa.core = None

    def _now_of(self, sa: InboundSa | OutboundSa) -> Any:
        said = sa.sa
        now = self._ffi.new("struct oegw_sa_now *")
        now.soft_octets = _NO_LIMIT if sa.soft_bytes is None else sa.soft_bytes
        now.hard_octets = _NO_LIMIT if sa.hard_bytes is None else sa.hard_bytes
        if isinstance(sa, OutboundSa):
            now.mtu = sa.mtu
            now.dont_fragment = sa.dont_fragment
            return now
        destination = said.destination.packed
        address, port = sa.peer
        now.window = said.replay_window
        now.encapsulated = said.encapsulation is not None
        now.address_octets = len(destination)
        now.destination = destination.ljust(16, b"\0")
        now.peer = address.ljust(16, b"\0")
        now.peer_port = port
        return now


class CompiledSealingCore(_Core):
    """See `SealingCore`.  The arguments are those of ``PureSealingCore``."""

    def __init__(self, offloads: bool, random: Random) -> None:
        lib = library()[1]
        super().__init__(lib.oegw_sealing_memory())
        self._random = random
        self._core = self._made(
            lib.oegw_sealing_new(offloads, aes_gcm()[0], self._pointer), lib.oegw_sealing_free
        )
        self._runs = lib.oegw_sealing_runs(self._core)
        self._made_now = lib.oegw_sealing_made(self._core)

    def install(self, sa: OutboundSa) -> None:
        self._add(sa, self._lib.oegw_sealing_install, self._core)

    def remove(self, sa: OutboundSa) -> None:
        self._take_out(sa, self._lib.oegw_sealing_remove, self._core)

    def refresh(self, sa: OutboundSa) -> None:
        self._lib.oegw_sealing_refresh(self._core, sa.core, self._now_of(sa))

    def learn(self, key: bytes, sa: OutboundSa) -> None:
        self._lib.oegw_sealing_learn(self._core, key, len(key), sa.core)

    def forget(self) -> None:
        self._lib.oegw_sealing_forget(self._core)

    def fill(self, device: int) -> int:
        return _counted(self._lib.oegw_sealing_fill(self._core, device))

    def seal(self, now: float) -> tuple[list[Run], int | None]:
        core, lib = self._core, self._lib
        nanoseconds = int(now * 1e9)
        said = lib.oegw_sealing_seal(core, nanoseconds)
        while said == _RANDOM:
            lib.oegw_sealing_give(core, self._random(self._made_now.wanted))
            said = lib.oegw_sealing_seal(core, nanoseconds)
        if said == _BROKEN:
            raise RuntimeError(_LIBCRYPTO)
        runs = [self._run(index) for index in range(self._made_now.runs)]
        return runs, self._made_now.care if said == _CARE else None

    def _run(self, index: int) -> Run:
        run = self._runs[index]
        start = run.offset
        return Run(
            self._sas[run.sa],
            self._view[start : start + run.length],
            run.size,
            run.count,
            run.octets,
            run.traffic_class,
            run.dont_fragment != 0,
            run.first,
            run.last,
        )

    def frame(self, index: int) -> Frame:
        frame = self._lib.oegw_sealing_frame(self._core, index)
        if frame == self._ffi.NULL:
            raise IndexError(index)
        start, middle = frame.offset, frame.offset + frame.header
        return Frame(self._view[start:middle], self._view[middle : middle + frame.packet])

    def loop(self, device: int, counters: Places, gathering: Gathers) -> SealingLoop:
        return _Sealing(self, device, counters, gathering)

    def set_way(self, sa: OutboundSa, way: SocketWay) -> None:
        said = self._ffi.new("struct oegw_way *")
        said.until = int(way.until * 1e9)
        said.descriptor, said.version = way.descriptor, way.version
        said.encapsulated, said.segments = way.encapsulated, way.segments
        said.name_octets, said.control_octets = len(way.name), len(way.control)
        self._ffi.memmove(said.name, way.name, len(way.name))
        self._ffi.memmove(said.control, way.control, len(way.control))
        self._lib.oegw_sealing_way(self._core, sa.core, said)

    def turn(self, polled: int, device: int, places: Any, crowd: _Crowd) -> Run | int | None:
        said = crowd.placed(
            self._lib.oegw_sealing_loop, self._core, polled, device, places, crowd.said
        )
        if said == _BROKEN:
            raise RuntimeError(_LIBCRYPTO)
        if said == _LEFT:
            return self._run(self._made_now.left)
        return int(self._made_now.care) if said == _CARE else None


class _Sealing:
    """See `SealingLoop`."""

    def __init__(
        self, core: CompiledSealingCore, device: int, counters: Places, gathering: Gathers
    ) -> None:
        self._core = core
        self._device = device
        self._places = _Places(counters, _OUTBOUND)
        self._crowd = _Crowd(gathering)
        self.way = core.set_way
        self.attended: tuple[int, ...] = (device,)

    def turn(self, polled: int) -> Run | int | None:
        return self._core.turn(polled, self._device, self._places.said, self._crowd)


class CompiledOpeningCore(_Core):
    """See `OpeningCore`.  The arguments are those of ``PureOpeningCore``."""

    def __init__(self, offloads: bool, joins_udp: bool, random: Random) -> None:
        lib = library()[1]
        super().__init__(lib.oegw_opening_memory())
        self._core = self._made(
            lib.oegw_opening_new(offloads, joins_udp, aes_gcm()[0], self._pointer),
            lib.oegw_opening_free,
        )
        self._care = lib.oegw_opening_care(self._core)
        self._seen = lib.oegw_opening_seen(self._core)
        self._list = self._ffi.new("struct oegw_moved[]", _PLACED_AT_ONCE)
        self._numbers = self._ffi.new("uint32_t[]", _PLACED_AT_ONCE)
        self._appended: list[Any] = []
        self._batch = 0

    def install(self, sa: InboundSa) -> None:
        self._add(sa, self._lib.oegw_opening_install, self._core)

    def remove(self, sa: InboundSa) -> None:
        self._take_out(sa, self._lib.oegw_opening_remove, self._core)

    def refresh(self, sa: InboundSa) -> None:
        self._lib.oegw_opening_refresh(self._core, sa.core, self._now_of(sa))

    def learn(self, key: bytes, sa: InboundSa) -> None:
        self._lib.oegw_opening_learn(self._core, key, len(key), sa.core)

    def fill(self, outer: int, version: int, encapsulated: bool) -> int:
        self._appended.clear()
        return _counted(self._lib.oegw_opening_fill(self._core, outer, version, encapsulated))

    def open(self, now: float) -> Unopened | Unchecked | None:
        said = self._lib.oegw_opening_open(self._core, int(now * 1e9))
        return None if said == _DONE else self._asked_for(said)

    def _asked_for(self, said: int) -> Unopened | Unchecked:
        care = self._care
        payload = self._view[care.offset : care.offset + care.length]
        if said == _UNCHECKED:
            return Unchecked(self._sas[care.sa], care.next_header, payload, care.traffic_class)
        octets = care.address_octets
        source, destination = bytes(care.source[0:octets]), bytes(care.destination[0:octets])
        return Unopened(
            payload, source, care.port, destination if care.destined else b"", care.traffic_class
        )

    def append(self, packet: Buffer) -> None:
        kept = self._ffi.from_buffer("uint8_t[]", packet)
        self._appended.append(kept)
        if not self._lib.oegw_opening_append(self._core, kept, len(kept)):
            raise MemoryError

    def deliver(self, device: int) -> int:
        return int(self._lib.oegw_opening_deliver(self._core, device))

    def counted(self) -> dict[str, int]:
        seen, counted = self._seen, Counter[str]()
        if seen.packets:
            counted["esp_in_packets"] = seen.packets
            counted["esp_in_octets"] = seen.octets
            seen.packets = seen.octets = 0
        if seen.replay:
            counted["drop_in_replay"] = seen.replay
            seen.replay = 0
        if seen.invalid:
            counted["drop_in_invalid"] = seen.invalid
            seen.invalid = 0
        return counted

    def moved(self) -> list[Moved]:
        found: list[Moved] = []
        while self._seen.moved:
            count = self._lib.oegw_opening_moved(self._core, self._list, _PLACED_AT_ONCE)
            for said in self._list[0:count]:
                sa = self._sas[said.sa]
                octets = len(sa.sa.destination.packed)
                found.append(Moved(sa, (bytes(said.address[0:octets]), said.port)))
        return found

    def softened(self) -> list[InboundSa]:
        found: list[InboundSa] = []
        while self._seen.softened:
            count = self._lib.oegw_opening_softened(self._core, self._numbers, _PLACED_AT_ONCE)
            found += [self._sas[number] for number in self._numbers[0:count]]
        return found

    def loop(
        self, device: int, outer: Sequence[Outer], counters: Places, gathering: Gathers
    ) -> OpeningLoop | None:
        if len(outer) > _OUTER:
            return None
        return _Opening(self, device, outer, counters, gathering)

    def errors(self) -> int:
        return int(self._seen.vain)

    def turn(
        self, polled: int, device: int, outer: Any, places: Any, crowd: _Crowd
    ) -> tuple[Unopened | Unchecked, bool] | bool:
        lib = self._lib
        said = crowd.placed(
            lib.oegw_opening_loop,
            self._core,
            polled,
            device,
            outer,
            len(outer),
            places,
            crowd.said,
        )
        if said in (_CONTROL, _SEEN):
            return bool(said == _SEEN)
        if self._care.batch != self._batch:
            self._batch = self._care.batch
            self._appended.clear()  # the batch that they were of is delivered
        return self._asked_for(said), self._care.encapsulated != 0


class _Opening:
    """See `OpeningLoop`."""

    def __init__(
        self,
        core: CompiledOpeningCore,
        device: int,
        outer: Sequence[Outer],
        counters: Places,
        gathering: Gathers,
    ) -> None:
        self._core = core
        self._device = device
        self._places = _Places(counters, _INBOUND)
        self._crowd = _Crowd(gathering)
        said = [(each.descriptor, each.version, each.encapsulated) for each in outer]
        self.attended = tuple(each.descriptor for each in outer)
        self._outer = library()[0].new("struct oegw_outer[]", said)

    def errors(self) -> int:
        return self._core.errors()

    def turn(self, polled: int) -> tuple[Unopened | Unchecked, bool] | bool:
        return self._core.turn(polled, self._device, self._outer, self._places.said, self._crowd)


class _Places:
    """Where a loop counts; keeps that memory mapped."""

    def __init__(self, counters: Places, names: dict[str, str]) -> None:
        ffi = library()[0]
        self._kept = {
            field: ffi.from_buffer("uint64_t[]", counters.place(name), require_writable=True)
            for field, name in names.items()
        }
        self.said = ffi.new("struct oegw_counters *", self._kept)


class _Crowd:
    """What a loop knows of crowds, and whom it tells."""

    def __init__(self, gathering: Gathers) -> None:
        ffi = library()[0]
        self._place = gathering.place
        # A view of its own: at the end of a process one that cffi still has can't be cleared.
        self._from = ffi.from_buffer("uint64_t[]", gathering.gather_from[:], require_writable=True)
        self.said = ffi.new("struct oegw_crowd *", {"from": self._from})

    def placed(self, loop: Any, *arguments: Any) -> int:
        """What ``loop`` says in the end; in between, where the worker is to run."""
        while (said := _counted(loop(*arguments))) == _PLACE:
            self._place(self.said.gathered != 0)
        return said


def _counted(said: int) -> int:
    if said < 0:
        raise OSError(-said, os.strerror(-said))
    return said
