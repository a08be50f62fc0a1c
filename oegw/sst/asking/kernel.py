"""The system call bpf(2), as far as programs of cgroups need it."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from oegw.sst.asking.programs import Program

# Specification: linux/bpf.h.
_PROG_LOAD, _PROG_ATTACH, _PROG_DETACH = 5, 8, 9
_PROG_GET_FD_BY_ID, _OBJ_GET_INFO_BY_FD, _PROG_QUERY = 13, 15, 16
_ALLOW_MULTI, _REPLACE = 1 << 1, 1 << 2
_ANY_ALIGNMENT = 1 << 1  # option values are aligned; the verifier of some machines doubts it
_NAME_LENGTH, _TAG_LENGTH = 16, 8
_INFO_LENGTH, _INFO_TAG, _INFO_NAME = 80, 8, 64  # of bpf_prog_info, to the end of its name
_NUMBERS = {
    "x86_64": 321, "aarch64": 280, "riscv64": 280, "loongarch64": 280, "i686": 357, "i386": 357,
    "armv7l": 386, "armv6l": 386, "ppc64le": 361, "ppc64": 361, "s390x": 351,
}  # fmt: skip

# Ours.
_LICENSE = b"MIT\0"  # none of the kernel's functions that we call needs another
_LOG = 65536
_ATTRIBUTES = 256  # octets; the kernel takes any length whose rest is zero
_MOST_PROGRAMS = 64  # the kernel allows as many in one place


class BpfError(Exception):
    """The kernel did not do what it was asked for; the message says what and why."""


class BpfNotPermitted(BpfError):  # noqa: N818  (it names the fact)
    """It needs root."""


@dataclass(frozen=True, slots=True)
class Attached:
    """A program of a cgroup: number, name, and a hash of its instructions."""

    number: int
    name: str
    tag: bytes


def _bpf(command: int, attributes: bytes) -> int:
    return _bpf_answered(command, bytearray(attributes))


def _bpf_answered(command: int, attributes: bytearray) -> int:
    """The call; what the kernel answers is then in ``attributes``."""
    number = _NUMBERS.get(platform.machine())
    if number is None:
        raise BpfError(f"the number of bpf(2) on {platform.machine()} is not known")
    libc = ctypes.CDLL(None, use_errno=True)
    attributes.extend(bytes(_ATTRIBUTES - len(attributes)))  # newer kernels may write behind
    area = (ctypes.c_char * _ATTRIBUTES).from_buffer(attributes)
    result: int = libc.syscall(
        ctypes.c_long(number), ctypes.c_long(command), area, ctypes.c_ulong(_ATTRIBUTES)
    )
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _fault(what: str, error: OSError, why: str = "") -> BpfError:
    if error.errno in (errno.EPERM, errno.EACCES) and os.geteuid() != 0:
        return BpfNotPermitted(f"{what}: {error.strerror}: be root")
    if error.errno == errno.ENOSYS:
        why = "the kernel has no BPF (CONFIG_BPF_SYSCALL)"
    return BpfError(f"{what}: {error.strerror}" + (f": {why}" if why else ""))


@contextmanager
def loaded(program: Program) -> Iterator[int]:
    """The program in the kernel, as a file descriptor.  Raises BpfError."""
    descriptor = _load(program)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _load(program: Program) -> int:
    code = ctypes.create_string_buffer(program.code, len(program.code))
    license_ = ctypes.create_string_buffer(_LICENSE)
    log = ctypes.create_string_buffer(_LOG)

    def load(level: int) -> int:
        return _bpf(
            _PROG_LOAD,
            struct.pack(
                    "=IIQQIIQII16sII", program.kind, len(program.code) // 8,
                    ctypes.addressof(code), ctypes.addressof(license_),
                    level, _LOG if level else 0, ctypes.addressof(log) if level else 0,
                    0, _ANY_ALIGNMENT, program.name.encode(), 0, program.at,
            ),
        )  # fmt: skip

    try:
        return load(0)
    except OSError as first:
        error = first
    try:
        return load(1)  # the same, and it says why
    except OSError:
        words = log.value.decode("ascii", "replace").splitlines()
    why = next((line for line in reversed(words) if line and not line.startswith("processed")), "")
    if error.errno == errno.EINVAL:
        needed = "needs Linux 5.18 with CONFIG_CGROUP_BPF"
        why = f"{needed} ({why})" if why else needed
    raise _fault(f"loading the BPF program {program.name}", error, why)


def attach(
    cgroup: int, program: int, at: int, replaced: int | None = None, *, alone: bool = False
) -> None:
    """Attach beside what others attached, or in place of ``replaced``.  All but ``at`` are file
    descriptors.  It stays until `detach`, or until the cgroup is removed.  ``alone``: others are
    not admitted beside it.  Raises BpfError."""
    flags = (0 if alone else _ALLOW_MULTI) | (0 if replaced is None else _REPLACE)
    try:
        _bpf(_PROG_ATTACH, struct.pack("=IIIII", cgroup, program, at, flags, replaced or 0))
    except OSError as error:
        why = ""
        if error.errno == errno.EPERM:
            why = "a BPF program of others, here or further up, allows none beside it"
        elif error.errno == errno.EINVAL:
            why = "the kernel has no BPF for cgroups (CONFIG_CGROUP_BPF)"
        raise _fault("attaching a BPF program to a cgroup", error, why) from error


def detach(cgroup: int, program: int, at: int) -> None:
    """Take one away; that it is gone already is fine.  Raises BpfError."""
    try:
        _bpf(_PROG_DETACH, struct.pack("=III", cgroup, program, at))
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise _fault("detaching a BPF program from a cgroup", error) from error


def attached(cgroup: int, at: int) -> tuple[Attached, ...]:
    """What is attached to this cgroup itself, in order.  Raises BpfError."""
    numbers = (ctypes.c_uint32 * _MOST_PROGRAMS)()
    attributes = bytearray(
        struct.pack("=IIIIQII", cgroup, at, 0, 0, ctypes.addressof(numbers), _MOST_PROGRAMS, 0)
    )
    try:
        _bpf_answered(_PROG_QUERY, attributes)
    except OSError as error:
        why = "the kernel has no BPF for cgroups" if error.errno == errno.EINVAL else ""
        raise _fault("looking at the BPF programs of a cgroup", error, why) from error
    count = struct.unpack_from("=I", attributes, 24)[0]
    found = []
    for number in numbers[:count]:
        with suppressed_absence(), by_number(number) as descriptor:
            found.append(described(descriptor, number))
    return tuple(found)


@contextmanager
def suppressed_absence() -> Iterator[None]:
    """A program that has just been detached is none."""
    try:
        yield
    except FileNotFoundError:
        pass
    except OSError as error:
        raise _fault("looking at a BPF program", error) from error


@contextmanager
def by_number(number: int) -> Iterator[int]:
    """A program in the kernel as a file descriptor.  Raises OSError."""
    descriptor = _bpf(_PROG_GET_FD_BY_ID, struct.pack("=III", number, 0, 0))
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def described(descriptor: int, number: int = 0) -> Attached:
    """A program of which there is a file descriptor.  Raises OSError."""
    info = ctypes.create_string_buffer(_INFO_LENGTH)
    _bpf(
        _OBJ_GET_INFO_BY_FD,
        struct.pack("=IIQ", descriptor, _INFO_LENGTH, ctypes.addressof(info)),
    )
    name = info.raw[_INFO_NAME : _INFO_NAME + _NAME_LENGTH].split(b"\0", 1)[0]
    return Attached(
        number or struct.unpack_from("=I", info.raw, 4)[0],
        name.decode("ascii", "replace"),
        info.raw[_INFO_TAG : _INFO_TAG + _TAG_LENGTH],
    )
