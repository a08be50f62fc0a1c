"""A filter of system calls: what no process without rights of ours has a use for, is refused.

Most of it the kernel refuses whoever has no capability; the filter keeps strangers' messages away
from the code that would have to notice, where flaws of the kernel are found.  Refused is EPERM, so
that a library which tries something is told, and goes on.
"""

from __future__ import annotations

import errno
import platform
from collections.abc import Iterable

from oegw.bpf.classic import (
    JUMP_IF_AT_LEAST,
    JUMP_IF_EQUAL,
    LOAD_WORD,
    RETURN,
    Instruction,
)

# Specification values: linux/seccomp.h, linux/audit.h.
_ALLOW = 0x7FFF0000
_REFUSE = 0x00050000 | errno.EPERM
_NUMBER, _MACHINE = 0, 4  # offsets in struct seccomp_data
_OTHER_NUMBERS = 0x40000000  # from here on x86_64 has another table
_MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# By name, the numbers on both machines; None: it does not have the call.
_CALLS: dict[str, tuple[int | None, int | None]] = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "adjtimex": (159, 171),
    "bpf": (321, 280),
    "chroot": (161, 51),
    "clock_adjtime": (305, 266),
    "clock_settime": (227, 112),
    "delete_module": (176, 106),
    "execve": (59, 221),
    "execveat": (322, 281),
    "finit_module": (313, 273),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "init_module": (175, 105),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "ioperm": (173, None),
    "iopl": (172, None),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "modify_ldt": (154, None),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "open": (2, None),
    "open_tree": (428, 428),
    "openat": (257, 56),
    "openat2": (437, 437),
    "perf_event_open": (298, 241),
    "personality": (135, 92),
    "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "settimeofday": (164, 170),
    "socket": (41, 198),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
    "vhangup": (153, 58),
}

EXECUTING = frozenset(("execve", "execveat"))
TAKING = frozenset(("pidfd_getfd",))  # descriptors of other processes
OPENING = frozenset(("open", "openat", "openat2", "socket"))

NEVER = frozenset(_CALLS) - EXECUTING - TAKING - OPENING
"""What nothing of ours does that has no rights."""


def refusing(names: Iterable[str], machine: str | None = None) -> list[Instruction] | None:
    """The filter's program; None where we don't know the machine's numbers."""
    machine = machine or platform.machine()
    if machine not in _MACHINES:
        return None
    place = list(_MACHINES).index(machine)
    found = (_CALLS[name][place] for name in names)
    numbers = sorted(number for number in found if number is not None)
    checks = [(JUMP_IF_AT_LEAST, _OTHER_NUMBERS), *((JUMP_IF_EQUAL, each) for each in numbers)]
    # Behind the checks stand two ends: allowed, then refused.
    jumps = [(code, len(checks) - at, 0, k) for at, (code, k) in enumerate(checks)]
    return [
        (LOAD_WORD, 0, 0, _MACHINE),
        (JUMP_IF_EQUAL, 0, len(checks) + 2, _MACHINES[machine]),
        (LOAD_WORD, 0, 0, _NUMBER),
        *jumps,
        (RETURN, 0, 0, _ALLOW),
        (RETURN, 0, 0, _REFUSE),
    ]
