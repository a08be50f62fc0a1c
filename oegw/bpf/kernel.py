"""The system call bpf(2), and programs in the kernel."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from oegw.bpf.program import Program

# Specification: linux/bpf.h.
_PROG_LOAD = 5
_ANY_ALIGNMENT = 1 << 1  # option values are aligned; the verifier of some machines doubts it
_NUMBERS = {
    "x86_64": 321, "aarch64": 280, "riscv64": 280, "loongarch64": 280, "i686": 357, "i386": 357,
    "armv7l": 386, "armv6l": 386, "ppc64le": 361, "ppc64": 361, "s390x": 351,
}  # fmt: skip

# Ours.
_LICENSE = b"MIT\0"  # none of the kernel's functions that we call needs another
_LOG = 65536
_ATTRIBUTES = 256  # octets; the kernel takes any length whose rest is zero


class BpfError(Exception):
    """The kernel did not do what it was asked for; the message says what and why."""


class BpfNotPermitted(BpfError):  # noqa: N818  (it names the fact)
    """It needs root."""


def bpf(command: int, attributes: bytes) -> int:
    """The call.  Raises BpfError, OSError."""
    return bpf_answered(command, bytearray(attributes))


def bpf_answered(command: int, attributes: bytearray) -> int:
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


def fault(what: str, error: OSError, why: str = "") -> BpfError:
    """What to raise for ``error``."""
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
        return bpf(
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
        needed = f"needs {program.needs}"
        why = f"{needed} ({why})" if why else needed
    raise fault(f"loading the BPF program {program.name}", error, why)
