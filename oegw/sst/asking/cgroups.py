"""Control groups, version 2: where they are mounted, and groups of our own in them."""

from __future__ import annotations

import errno
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Ours.
_RUN_NAME = "oegw-sst-run"  # of the groups of `oegw sst run`: this, a process, its start
_RUN = re.compile(rf"{_RUN_NAME}\.(\d+)\.(\d+)\.[0-9a-f]+")
_MOST_GROUPS = 100_000  # that are looked at; a box with containers has a few thousand
_LEAVING = 0.5  # seconds: so long a process that has ended may count as one of its group


class CgroupError(Exception):
    """There is no such group, or it can't be made; the message names it."""


class CgroupNotPermitted(CgroupError):  # noqa: N818  (it names the fact)
    """It needs root."""


def mounted(mounts: Path = Path("/proc/self/mountinfo")) -> Path:
    """Where version 2 is mounted: the root of all groups.  Raises CgroupError."""
    for line in mounts.read_text(errors="surrogateescape").splitlines():
        fields, _, more = line.partition(" - ")
        if more.split(" ", 1)[0] == "cgroup2":
            place = fields.split(" ")[4]
            return Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), place))
    raise CgroupError(
        "no cgroup2 file system is mounted: mount -t cgroup2 none /sys/fs/cgroup, or boot with "
        "systemd.unified_cgroup_hierarchy=1"
    )


@contextmanager
def opened(group: Path) -> Iterator[int]:
    """A group as a file descriptor.  Raises CgroupError if it is none of version 2."""
    try:
        descriptor = os.open(group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _fault(group, error) from error
    try:
        if not (group / "cgroup.procs").exists() or (group / "tasks").exists():
            raise CgroupError(f"{group}: is no cgroup of version 2")
        yield descriptor
    finally:
        os.close(descriptor)


def groups(root: Path) -> Iterator[Path]:
    """``root`` and all groups below it; those that vanish meanwhile are left out."""
    for count, (folder, folders, _) in enumerate(os.walk(root)):
        if count == _MOST_GROUPS:
            raise CgroupError(f"{root}: has more than {_MOST_GROUPS} groups")
        folders.sort()
        yield Path(folder)


def own(root: Path, listing: Path = Path("/proc/self/cgroup")) -> Path:
    """The group that this process is in; the root if it is outside of what is mounted."""
    for line in listing.read_text(errors="surrogateescape").splitlines():
        if line.startswith("0::/"):
            inside = root / line[4:]
            if ".." not in inside.parts and inside.is_dir():
                return inside
    return root


def make_run_group(root: Path) -> Path:
    """A new group below our own, whose limits so stay in force.  Raises CgroupError.

    Its name says whose it is, so that `sweep` finds those whose owner was killed.
    """
    parent = own(root)
    pid = os.getpid()
    path = parent / f"{_RUN_NAME}.{pid}.{_started(pid)}.{secrets.token_hex(4)}"
    try:
        path.mkdir()
    except OSError as error:
        raise _fault(path, error) from error
    return path


def remove_run_group(group: Path) -> bool:
    """Remove a group.  False: processes that the command left behind are still in it."""
    deadline = time.monotonic() + _LEAVING
    while True:
        try:
            group.rmdir()
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise _fault(group, error) from error
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        else:
            return True


def sweep(root: Path) -> None:
    """Remove groups of earlier runs that nobody is in any more, and whose owner has gone."""
    for group in run_groups(root):
        found = _RUN.fullmatch(group.name)
        if found and _started(int(found[1])) != int(found[2]):
            with suppress(OSError):
                group.rmdir()


def run_groups(root: Path) -> Iterator[Path]:
    """The groups of `oegw sst run`."""
    return (group for group in groups(root) if is_run_group(group))


def is_run_group(group: Path) -> bool:
    return _RUN.fullmatch(group.name) is not None


def _started(pid: int) -> int:
    """When a process began, in ticks since boot; -1 if there is none (proc(5))."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return -1
    return int(text.rpartition(")")[2].split()[19])


def _fault(group: Path, error: OSError) -> CgroupError:
    if isinstance(error, PermissionError) and os.geteuid() != 0:
        return CgroupNotPermitted(f"{group}: {error.strerror}: be root")
    return CgroupError(f"{group}: {error.strerror}")
