"""What a process gives up for good: its user, its capabilities, and what could bring them back.

Capabilities are those of one thread, so this is done before there is a second one.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from oegw.bpf.classic import Instruction, pointed_at
from oegw.powers.systemcalls import NEVER, refusing

# Specification values: prctl(2), linux/capability.h, linux/securebits.h.
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_KEEPCAPS = 8
_PR_CAPBSET_DROP = 24
_PR_SET_SECCOMP = 22
_PR_SET_SECUREBITS = 28
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_NO_ROOT = 1 << 0 | 1 << 1  # SECBIT_NOROOT, and locked: user 0 is nobody special to execve
_SECCOMP_MODE_FILTER = 2
_VERSION_3 = 0x20080522
_ALL = 64  # bits of a set


class Cap(IntEnum):
    """Those that any process of ours has a use for."""

    CHOWN = 0
    DAC_OVERRIDE = 1
    FOWNER = 3
    KILL = 5
    SETGID = 6
    SETUID = 7
    SETPCAP = 8
    NET_BIND_SERVICE = 10
    NET_ADMIN = 12
    NET_RAW = 13
    IPC_LOCK = 14
    SYS_PTRACE = 19
    SYS_ADMIN = 21
    SYS_RESOURCE = 24
    BPF = 39


class PowerError(Exception):
    """Something can't be given up, or is lacking; the message says what."""


@dataclass(frozen=True, slots=True)
class User:
    """Somebody whom a process may become."""

    name: str
    uid: int
    gid: int

    @classmethod
    def named(cls, name: str) -> User | None:
        """None if there is nobody of that name."""
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            return None
        return cls(name, found.pw_uid, found.pw_gid)

    def words(self) -> str:
        """For the arguments of a process; `user_of` reads it."""
        return f"{self.uid}:{self.gid}:{self.name}"


def user_of(words: str) -> User | None:
    """None for the empty string.  Raises ValueError."""
    if not words:
        return None
    uid, gid, name = words.split(":", 2)
    return User(name, int(uid), int(gid))


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Half(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


_LIBC = ctypes.CDLL(None, use_errno=True)


def drop(
    user: User | None = None,
    keep: Iterable[Cap] = (),
    *,
    pass_on: bool = False,
    end_with_parent: bool = False,
    forbid: Iterable[str] = (),
) -> None:
    """Become ``user`` (None: stay who we are), and keep of the capabilities that we have ``keep``.

    Nothing that is executed from now on gains anything; what is given up never comes back; no
    process of the same user can look into this one, and no core of it is written.  ``pass_on``:
    programs that are executed have what is kept.  ``end_with_parent``: see `die_with_parent`.
    ``forbid``: system calls that it does without, beside `systemcalls.NEVER`.

    Raises PowerError.
    """
    if threading.active_count() > 1:
        raise PowerError("capabilities are dropped before there is a second thread")
    before = permitted()
    kept = {each for each in keep if each in before}
    if Cap.SETPCAP in before:
        for number in range(last() + 1):
            if number not in kept:
                _prctl(_PR_CAPBSET_DROP, number)
        _prctl(_PR_SET_SECUREBITS, _NO_ROOT)
    if user is not None and (user.uid, user.gid) != (os.geteuid(), os.getegid()):
        _prctl(_PR_SET_KEEPCAPS, 1)
        try:
            os.setgroups([])
            os.setresgid(user.gid, user.gid, user.gid)
            os.setresuid(user.uid, user.uid, user.uid)
        except OSError as error:
            raise PowerError(f"can't become the user {user.name}: {error.strerror}") from None
    bits = sum(1 << each for each in kept)
    _capset(bits, bits if pass_on else 0)
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    for each in kept if pass_on else ():
        _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, each)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_DUMPABLE, 0)
    if end_with_parent:
        die_with_parent()  # again, if it was said before: another user has undone it
    program = refusing((*NEVER, *forbid))
    if program is not None:
        _filter(program)


def die_with_parent() -> None:
    """SIGKILL when who started us dies.  Raises PowerError."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@contextmanager
def only_effective(one: Cap) -> Iterator[None]:
    """For a moment nothing is done with any other right.  Raises PowerError."""
    held = sum(1 << each for each in permitted())
    _capset(held, 0, 1 << one & held)
    try:
        yield
    finally:
        _capset(held, 0)


def keep_only(wanted: Iterable[Cap]) -> None:
    """Confine a process that goes on being privileged, and what it executes, to ``wanted``.

    Raises PowerError.
    """
    kept = {each for each in wanted if each in permitted()}
    if Cap.SETPCAP in kept:
        for number in range(last() + 1):
            if number not in kept:
                _prctl(_PR_CAPBSET_DROP, number)
    _capset(sum(1 << each for each in kept), 0)


def look_up_no_hosts() -> None:
    """From now on a host's name is looked up in /etc/hosts only, whatever asks for it.

    libnftables does, of names in rules; what the DNS answers is written by strangers.
    """
    with suppress(AttributeError):  # a C library without a switch
        _LIBC.__nss_configure_lookup(b"hosts", b"files")


def permitted() -> frozenset[int]:
    """The numbers of what this process may do, or could."""
    return of_bits(int(status_of("self")["CapPrm"], 16))


def of_bits(bits: int) -> frozenset[int]:
    """The numbers of a set as the kernel writes it."""
    return frozenset(number for number in range(_ALL) if bits >> number & 1)


def status_of(pid: int | str) -> dict[str, str]:
    """The lines of /proc/PID/status.  Raises OSError."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def last() -> int:
    """The highest number that this kernel knows."""
    try:
        return int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    except OSError:
        return max(Cap)


def _capset(bits: int, inheritable: int, effective: int | None = None) -> None:
    """``effective``: what is in effect of ``bits``; None: all."""
    header = _Header(_VERSION_3, 0)
    sets = (bits if effective is None else effective, bits, inheritable)
    halves = (_Half * 2)(
        _Half(*(each & 0xFFFFFFFF for each in sets)), _Half(*(each >> 32 for each in sets))
    )
    if _LIBC.capset(ctypes.byref(header), halves):
        raise PowerError(f"capset: {os.strerror(ctypes.get_errno())}")


def _filter(program: list[Instruction]) -> None:
    """Of system calls; a kernel without it has none."""
    pointer, octets = pointed_at(program)
    held = ctypes.create_string_buffer(pointer)
    with suppress(PowerError):
        _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(held))
    del octets


def _prctl(option: int, first: int, second: int = 0) -> None:
    words = (ctypes.c_ulong(each) for each in (first, second, 0, 0))
    if _LIBC.prctl(option, *words):
        raise PowerError(f"prctl {option}: {os.strerror(ctypes.get_errno())}")
