"""A Debian that is booted by systemd-nspawn, with a disk that outlives it.

    with Machine("a", folder) as machine:
        machine.boot(namespace)
        machine.run("dpkg -i /root/oegw.deb")
        machine.cut_power()
        machine.boot(another_namespace)

This host may have another init than systemd, so nspawn is told to register nowhere
(``--register=no --keep-unit``), and each machine gets a cgroup of its own before it starts: two
would share one else, and their systemds would end each other's services.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.deploy.root import base_root

BOOT_SECONDS = 60.0
_numbers = itertools.count()
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ENTER = """
for place in "$@"; do
    [ "$place" = -- ] && break
    mkdir -p "$place" && echo $$ >"$place/cgroup.procs" || exit 125
    shift
done
shift
exec "$@"
"""


class CommandFailed(AssertionError):  # noqa: N818  (it says what happened)
    """A command inside ended with another code than 0; the text has what it said."""


def await_true(condition: Callable[[], Any], what: str, seconds: float = 20.0) -> Any:
    """Wait until ``condition`` is true, and return what it said."""
    deadline = time.monotonic() + seconds * float(os.environ.get("OEGW_LAB_PATIENCE") or 1)
    while not (said := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain: {what}"
        time.sleep(0.02)
    return said


class Machine:
    """``root``: its files; what is written there by a test is on its disk as well.  ``more``:
    packages of Debian that it has, beside those of all."""

    def __init__(self, name: str, folder: Path, *more: str) -> None:
        self.name = name
        self._more = more
        self.root = folder / name / "root"
        self._layers = folder / name
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader = 0
        own = f"oegw-deploy-{os.getpid()}-{next(_numbers)}{name}"
        self._cgroups = [place / own for place in _cgroups()]

    def __enter__(self) -> Machine:
        upper, work = self._layers / "upper", self._layers / "work"
        for folder in (self.root, upper, work):
            folder.mkdir(parents=True)
        layers = f"lowerdir={base_root(*self._more) / 'root'},upperdir={upper},workdir={work}"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", layers, self.root], check=True)
        self.write("/etc/machine-id", f"{uuid.uuid4().hex}\n")  # without, it is a first boot
        return self

    def __exit__(self, *_: object) -> None:
        self.cut_power()
        subprocess.run(["umount", self.root], check=False)

    # -------------------------------------------------------------------- its disk

    def write(self, path: str, text: str) -> None:
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)

    def read(self, path: str) -> str:
        return (self.root / path.lstrip("/")).read_text()

    # -------------------------------------------------------------------- its life

    def boot(self, namespace: str, *, wait: bool = True) -> None:
        """Boot into a network namespace, which should be new: its rules are in the kernel."""
        assert self._nspawn is None, f"{self.name} is running"
        log = (self._layers / "console.log").open("ab")
        self._nspawn = subprocess.Popen(
            [
                "/bin/sh", "-c", _ENTER, "sh", *map(str, self._cgroups), "--",
                "systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit",
                "--console=pipe", "--resolv-conf=off", "--timezone=off", "--link-journal=no",
                # Of another run's machine of the same name nspawn would take what is in /run.
                f"--machine={self.name}-{os.getpid()}", f"--hostname={self.name}",
                f"--directory={self.root}", f"--network-namespace-path=/run/netns/{namespace}",
                # What a router has, and nspawn does not give.
                "--capability=CAP_NET_ADMIN,CAP_BPF", "--system-call-filter=pidfd_getfd",
            ],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            env={**os.environ, "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network"},
        )  # fmt: skip
        log.close()
        self._leader = int(await_true(self._first_process, f"{self.name} starts", BOOT_SECONDS))
        if wait:
            self.await_boot()

    def await_boot(self) -> None:
        """Until all that belongs to a boot has been started, or has failed."""
        await_true(
            lambda: self.says("systemctl is-system-running") in ("running", "degraded"),
            f"{self.name} boots", BOOT_SECONDS,
        )  # fmt: skip

    def _first_process(self) -> str:
        """The systemd inside, once it can be entered: nspawn's child in a PID namespace of its
        own."""
        assert self._nspawn is not None
        if self._nspawn.poll() is not None:
            raise AssertionError((self._layers / "console.log").read_text()[-3000:])
        for child in _children(self._nspawn.pid):
            try:
                if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                    return child
            except OSError:
                continue
        return ""

    def cut_power(self) -> None:
        """End everything at once: no process inside learns of it."""
        if self._nspawn is None:
            return
        for pid in (self._leader, self._nspawn.pid):
            if pid:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
        self._nspawn.wait(20)
        self._nspawn, self._leader = None, 0
        for place in self._cgroups:
            await_true(lambda place=place: _removed(place), f"{place} is empty")

    # -------------------------------------------------------------------- in it

    def entering(self) -> list[str]:
        """What stands before a command that shall run inside."""
        spaces = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd")
        words = ["nsenter", f"--target={self._leader}", *spaces, "env", "-i", f"PATH={_PATH}"]
        return [*words, "HOME=/root", "LC_ALL=C.UTF-8", "TERM=dumb"]

    def attempt(self, command: str, seconds: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Run a line of shell as root; whatever comes of it."""
        return subprocess.run(
            [*self.entering(), "/bin/sh", "-c", command],
            text=True, capture_output=True, timeout=seconds, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def run(self, command: str, seconds: float = 120.0) -> str:
        """The output of a line of shell that succeeds."""
        done = self.attempt(command, seconds)
        if done.returncode != 0:
            raise CommandFailed(
                f"{self.name}: {command}: code {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done.stdout

    def says(self, command: str) -> str:
        """Its output without the last line end, whatever its code."""
        return self.attempt(command).stdout.strip()

    def background(self, command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*self.entering(), "/bin/sh", "-c", f"exec {command}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def journal(self, unit: str = "oegw") -> str:
        return self.says(f"journalctl --no-pager -o cat -u {unit}")


def _cgroups() -> list[Path]:
    """Where this process is, in systemd's hierarchy and in that of version 2."""
    found = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "name=systemd"):
            continue
        named = ("systemd",) if controllers else ("unified", "")
        for name in named:
            place = Path("/sys/fs/cgroup", name, path.lstrip("/"))
            if (place / "cgroup.procs").exists():
                found.append(place)
                break
    return found


def _children(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []


def _removed(place: Path) -> bool:
    """Whether a cgroup and those below it are gone: they go when their last process has."""
    for folder in sorted(place.rglob("*"), reverse=True):
        if folder.is_dir():
            try:
                folder.rmdir()
            except OSError:
                return False
    try:
        place.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
