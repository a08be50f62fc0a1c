"""Programs of cgroups: attached, found, detached by bpf(2)."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from oegw.bpf.kernel import bpf, bpf_answered, fault

# Specification: linux/bpf.h.
_PROG_ATTACH, _PROG_DETACH = 8, 9
_PROG_GET_FD_BY_ID, _OBJ_GET_INFO_BY_FD, _PROG_QUERY = 13, 15, 16
_ALLOW_MULTI, _REPLACE = 1 << 1, 1 << 2
_NAME_LENGTH, _TAG_LENGTH = 16, 8
_INFO_LENGTH, _INFO_TAG, _INFO_NAME = 80, 8, 64  # of bpf_prog_info, to the end of its name

_MOST_PROGRAMS = 64  # the kernel allows as many in one place


@dataclass(frozen=True, slots=True)
class Attached:
    """A program of a cgroup: number, name, and a hash of its instructions."""

    number: int
    name: str
    tag: bytes


def attach(
    cgroup: int, program: int, at: int, replaced: int | None = None, *, alone: bool = False
) -> None:
    """Attach beside what others attached, or in place of ``replaced``.  All but ``at`` are file
    descriptors.  It stays until `detach`, or until the cgroup is removed.  ``alone``: others are
    not admitted beside it.  Raises BpfError."""
    flags = (0 if alone else _ALLOW_MULTI) | (0 if replaced is None else _REPLACE)
    try:
        bpf(_PROG_ATTACH, struct.pack("=IIIII", cgroup, program, at, flags, replaced or 0))
    except OSError as error:
        why = ""
        if error.errno == errno.EPERM:
            why = "a BPF program of others, here or further up, allows none beside it"
        elif error.errno == errno.EINVAL:
            why = "the kernel has no BPF for cgroups (CONFIG_CGROUP_BPF)"
        raise fault("attaching a BPF program to a cgroup", error, why) from error


def detach(cgroup: int, program: int, at: int) -> None:
    """Take one away; that it is gone already is fine.  Raises BpfError."""
    try:
        bpf(_PROG_DETACH, struct.pack("=III", cgroup, program, at))
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise fault("detaching a BPF program from a cgroup", error) from error


def attached(cgroup: int, at: int) -> tuple[Attached, ...]:
    """What is attached to this cgroup itself, in order.  Raises BpfError."""
    numbers = (ctypes.c_uint32 * _MOST_PROGRAMS)()
    attributes = bytearray(
        struct.pack("=IIIIQII", cgroup, at, 0, 0, ctypes.addressof(numbers), _MOST_PROGRAMS, 0)
    )
    try:
        bpf_answered(_PROG_QUERY, attributes)
    except OSError as error:
        why = "the kernel has no BPF for cgroups" if error.errno == errno.EINVAL else ""
        raise fault("looking at the BPF programs of a cgroup", error, why) from error
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
        raise fault("looking at a BPF program", error) from error


@contextmanager
def by_number(number: int) -> Iterator[int]:
    """A program in the kernel as a file descriptor.  Raises OSError."""
    descriptor = bpf(_PROG_GET_FD_BY_ID, struct.pack("=III", number, 0, 0))
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def described(descriptor: int, number: int = 0) -> Attached:
    """A program of which there is a file descriptor.  Raises OSError."""
    info = ctypes.create_string_buffer(_INFO_LENGTH)
    bpf(
        _OBJ_GET_INFO_BY_FD,
        struct.pack("=IIQ", descriptor, _INFO_LENGTH, ctypes.addressof(info)),
    )
    name = info.raw[_INFO_NAME : _INFO_NAME + _NAME_LENGTH].split(b"\0", 1)[0]
    return Attached(
        number or struct.unpack_from("=I", info.raw, 4)[0],
        name.decode("ascii", "replace"),
        info.raw[_INFO_TAG : _INFO_TAG + _TAG_LENGTH],
    )
