"""Runs a command on a kernel that seems to lack something: a seccomp filter refuses it.

    python refusing_kernel.py NAME[,NAME...] COMMAND...

The filter holds for the command and all that it starts.  NAME is one of `LACKING`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Iterable, Iterator

# <linux/filter.h>, <linux/seccomp.h>, <linux/prctl.h>
_LOAD, _IF_EQUAL, _IF_BITS, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NUMBER, _ARGUMENTS = 0, 16  # offsets in struct seccomp_data
_SET_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER = 38, 22, 2

# <asm/unistd.h>
_CALLS = {
    "x86_64": {
        "ioctl": 16, "setsockopt": 54, "sendmmsg": 307, "recvmmsg": 299, "recvmsg": 47, "bpf": 321,
    },
    "aarch64": {
        "ioctl": 29, "setsockopt": 208, "sendmmsg": 269, "recvmmsg": 243, "recvmsg": 212,
        "bpf": 280,
    },
}  # fmt: skip

Condition = tuple[int, int, int]
"""Which argument, `_IF_EQUAL` or `_IF_BITS`, value."""
Rule = tuple[str, tuple[Condition, ...], int]
"""System call, all of these, what it answers."""


def _option(number: int) -> tuple[Condition, ...]:
    return (1, _IF_EQUAL, 17), (2, _IF_EQUAL, number)  # of SOL_UDP


LACKING: dict[str, Rule] = {
    "tun-offload": ("ioctl", ((1, _IF_EQUAL, 0x400454D0),), errno.EINVAL),  # TUNSETOFFLOAD
    "tun-uso": (  # the same with TUN_F_USO4 or TUN_F_USO6
        "ioctl",
        ((1, _IF_EQUAL, 0x400454D0), (2, _IF_BITS, 0x60)),
        errno.EINVAL,
    ),
    "tun-features": ("ioctl", ((1, _IF_EQUAL, 0x800454CF),), errno.EINVAL),  # TUNGETFEATURES
    "tun-header": ("ioctl", ((1, _IF_EQUAL, 0x400454D8),), errno.EINVAL),  # TUNSETVNETHDRSZ
    "steering": ("ioctl", ((1, _IF_EQUAL, 0x800454E0),), errno.EINVAL),  # TUNSETSTEERINGEBPF
    "bpf": ("bpf", (), errno.EPERM),
    "udp-segment": ("setsockopt", _option(103), errno.ENOPROTOOPT),
    "udp-gro": ("setsockopt", _option(104), errno.ENOPROTOOPT),
    "sendmmsg": ("sendmmsg", (), errno.ENOSYS),
    "recvmmsg": ("recvmmsg", (), errno.ENOSYS),
    "recvmmsg-allowed": ("recvmmsg", (), errno.EPERM),
    "recvmsg": ("recvmsg", (), errno.EPERM),
}


def _program(rules: Iterable[Rule]) -> Iterator[tuple[int, int, int, int]]:
    """Code, jump if true, jump if false, value."""
    calls = _CALLS[platform.machine()]
    for call, conditions, answer in rules:
        tests = [(_NUMBER, _IF_EQUAL, calls[call])]
        tests += [(_ARGUMENTS + 8 * which, test, value) for which, test, value in conditions]
        for left, (offset, test, value) in zip(range(len(tests) - 1, -1, -1), tests, strict=True):
            yield _LOAD, 0, 0, offset
            yield test, 0, 2 * left + 1, value
        yield _RETURN, 0, 0, _ERRNO | answer
    yield _RETURN, 0, 0, _ALLOW


def refuse(names: Iterable[str]) -> None:
    """From now on this process and its children find the kernel without these."""
    program = list(_program(LACKING[name] for name in names))
    instructions = ctypes.create_string_buffer(
        b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    )
    address = struct.pack("@HP", len(program), ctypes.addressof(instructions))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0) or libc.prctl(
        _SET_SECCOMP, _FILTER, ctypes.create_string_buffer(address), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "seccomp")


def main() -> None:
    refuse(name for name in sys.argv[1].split(",") if name)
    os.execv(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
