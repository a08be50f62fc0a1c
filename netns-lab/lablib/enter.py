"""Runs a command in a namespace, where `ip netns exec` can't: in a plain chroot.

``python3 enter.py NAMESPACE COMMAND...`` does what `ip netns exec` does: it joins
the network namespace and puts the namespace's own files (resolv.conf) over those
of the machine's /etc, for this command alone.  For the latter `ip` asks that ``/`` be a
mount point, and in a chroot it is a mere directory; so this finds the mount
below it, makes it private, and gives the chroot a mount of its own in it.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000  # sched.h
MS_BIND, MS_REC, MS_PRIVATE, MS_SLAVE = 4096, 16384, 1 << 18, 1 << 19  # sys/mount.h
MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


def needed() -> bool:
    """Whether ``/`` is no mount point."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return not any(line.split()[4] == "/" for line in mounts)


def _check(what: str, result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _mount(source: str, target: str, kind: str | None, flags: int) -> None:
    arguments = [text.encode() if text is not None else None for text in (source, target, kind)]
    _check(f"mount on {target}", _libc.mount(*arguments, ctypes.c_ulong(flags), None))


def _private_root() -> None:
    """In a mount namespace of our own: leave the chroot, and enter it again by a mount."""
    inner = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    os.chroot("/proc")  # any directory below: then the old root lies outside of the new one
    os.fchdir(inner)
    while not Path("..").samefile("."):
        os.chdir("..")
    os.chroot(".")
    os.fchdir(inner)
    path = str(Path.cwd())
    os.close(inner)
    _mount("none", "/", None, MS_REC | MS_PRIVATE)
    _mount(path, path, None, MS_BIND | MS_REC)
    os.chroot(path)
    os.chdir("/")


def main() -> None:
    namespace, command = sys.argv[1], sys.argv[2:]
    here = Path.cwd()
    with open(f"/run/netns/{namespace}") as network:  # noqa: PTH123  (a file descriptor is wanted)
        _check("setns", _libc.setns(network.fileno(), CLONE_NEWNET))
    _check("unshare", _libc.unshare(CLONE_NEWNS))
    _private_root()
    _libc.umount2(b"/sys", MNT_DETACH)
    _mount("sysfs", "/sys", "sysfs", 0)  # /sys/class/net shows the namespace that mounted it
    for own in (Path("/etc/netns") / namespace).glob("*"):
        _mount(str(own), f"/etc/{own.name}", None, MS_BIND)
    os.chdir(here)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
