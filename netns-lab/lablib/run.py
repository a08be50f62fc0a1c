"""One run of the lab: its directory, its namespaces and the processes that it started.

All that must be undone is written to ``state.json`` before it is done, so that
``lab down`` can undo it after the program that did it is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lablib import enter, whole
from lablib.errors import DeadlineMissed, LabError
from lablib.waiting import patient, wait_until

SECRETS = (
    "*.pem",
    "*.x25519*",
    "*.key",
    "ssh-host",
    "ssh-user",
)  # files that no failure leaves behind

# Hosts have their files in common.  One that has daemons with well-known sockets needs this folder
# for itself; `ip netns exec` gives each command a mount namespace, in which it gets that.
OWN_PLACE = Path("/run/oegw")
MOUNT = f'mount --bind "$0" {OWN_PLACE} && exec "$@"'

# A Unix socket's path has at most 107 octets; the longest name in a run directory has 30.
LONGEST_DIRECTORY = 107 - 30


def base_directory() -> Path:
    """Where run directories are made: ``$TMPDIR/oegw-lab``, else ``/run/oegw-lab``."""
    return Path(os.environ.get("TMPDIR") or "/run") / "oegw-lab"


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def surroundings() -> dict[str, str]:
    """The environment of what a run starts: ours, but Python may keep what it has compiled.

    Without that, each start of the gateway takes a quarter of a second longer.
    """
    return {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


@dataclass(slots=True)
class Process:
    """A process that this run started.  ``popen`` is None if another program started it."""

    name: str
    pid: int
    ticks: int
    log: Path
    popen: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        if self.popen is not None:
            return self.popen.poll() is None
        return start_ticks(self.pid) == self.ticks

    def text(self) -> str:
        """What it printed so far, both streams."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def send(self, number: signal.Signals) -> None:
        """Send a signal, only if the process is still the one that was started."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def end(self, first: signal.Signals = signal.SIGTERM, patience: float = 5.0) -> None:
        """Ask it to end, wait, and kill it if it does not."""
        self.send(first)
        try:
            wait_until(f"end of {self.name}", lambda: not self.running, patience)
        except DeadlineMissed:
            self.send(signal.SIGKILL)
            wait_until(f"end of {self.name}", lambda: not self.running, 5.0)

    def await_text(self, text: str, seconds: float = 30.0) -> None:
        """Wait until it printed ``text``.  Raises LabError with its output if it ends before."""

        def printed() -> bool:
            if text in self.text():
                return True
            if not self.running:
                raise LabError(f"{self.name} ended too early; it said:\n{self.text()}")
            return False

        wait_until(f"{self.name} saying {text!r}", printed, seconds)


class Run:
    """A run by its identifier.  ``create`` makes a new one, ``open`` finds one again."""

    def __init__(self, identifier: str) -> None:
        if not identifier.isalnum() or len(identifier) > 8:
            raise LabError(f"a run's identifier is 1 to 8 letters and digits, not {identifier!r}")
        self.identifier = identifier
        self.directory = base_directory() / identifier
        self.namespaces: list[str] = []
        self.processes: list[Process] = []
        self.variant = ""  # of the topology

    @classmethod
    def create(cls, identifier: str | None = None) -> Run:
        """Raises LabError if there is such a run already."""
        run = cls(identifier or secrets.token_hex(3))
        if len(str(run.directory)) > LONGEST_DIRECTORY:
            raise LabError(f"{run.directory}: too long a path for Unix sockets; set TMPDIR")
        if (run.directory / "state.json").exists():
            raise LabError(f"run {run.identifier} is there already: lab --id {run.identifier} down")
        shutil.rmtree(run.directory, ignore_errors=True)  # files that a failure left
        run.directory.mkdir(mode=0o700, parents=True)
        run.save()
        return run

    @classmethod
    def open(cls, identifier: str) -> Run:
        """Raises LabError if there is no such run."""
        run = cls(identifier)
        try:
            state = json.loads((run.directory / "state.json").read_text())
        except FileNotFoundError:
            raise LabError(f"no run {identifier}; `lab up` makes one") from None
        run.namespaces = state["namespaces"]
        run.variant = state["variant"]
        run.processes = [
            Process(entry["name"], entry["pid"], entry["ticks"], Path(entry["log"]))
            for entry in state["processes"]
        ]
        return run

    @staticmethod
    def identifiers() -> list[str]:
        """Of all runs that left a state behind."""
        return sorted(path.parent.name for path in base_directory().glob("*/state.json"))

    def save(self) -> None:
        state = {
            "variant": self.variant,
            "namespaces": self.namespaces,
            "processes": [
                {"name": p.name, "pid": p.pid, "ticks": p.ticks, "log": str(p.log)}
                for p in self.processes
            ],
        }
        whole.put(self.directory / "state.json", json.dumps(state, indent=1))

    def namespace(self, host: str) -> str:
        return f"oegw-{self.identifier}-{host}"

    def own_place(self, host: str) -> Path:
        return self.directory / "hosts" / host

    def inside(self, host: str, argv: Sequence[str]) -> list[str]:
        """The command line that runs ``argv`` on ``host``.

        If the host has a folder of its own for `OWN_PLACE`, that is there.
        """
        if self.own_place(host).exists():
            argv = ["sh", "-c", MOUNT, str(self.own_place(host)), *argv]
        if enter.needed():
            return [sys.executable, "-S", enter.__file__, self.namespace(host), *argv]
        return ["ip", "netns", "exec", self.namespace(host), *argv]

    def on_network_of(self, host: str, argv: Sequence[str]) -> list[str]:
        """The same, but with the machine's own file systems: `ip netns exec` hides control groups.

        So it has no resolver of the lab.
        """
        return ["nsenter", f"--net=/run/netns/{self.namespace(host)}", *argv]

    def start(
        self, name: str, host: str | None, argv: Sequence[str], heard: int = subprocess.DEVNULL
    ) -> Process:
        """Start a process on a host (or outside all of them); its output goes to ``NAME.log``.

        ``heard``: the file descriptor of its input.
        """
        log = self.directory / f"{name}.log"
        command = self.inside(host, argv) if host else list(argv)
        with log.open("ab") as stream:
            popen = subprocess.Popen(
                command,
                stdin=heard,
                stdout=stream,
                stderr=stream,
                start_new_session=True,  # Ctrl-C is for us, who then end it in order
                cwd=self.directory,
                env=surroundings(),
            )
        process = Process(name, popen.pid, start_ticks(popen.pid) or 0, log, popen)
        self.processes.append(process)
        self.save()
        return process

    def call(
        self,
        host: str | None,
        argv: Sequence[str],
        seconds: float = 60.0,
        text: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end and return its exit code and output (never raises on code).

        ``text``: its input.
        """
        command = self.inside(host, argv) if host else list(argv)
        seconds = patient(seconds)
        try:
            return subprocess.run(
                command,
                input=text or "",
                capture_output=True,
                text=True,
                errors="replace",
                timeout=seconds,
                cwd=self.directory,
                env=surroundings(),
            )
        except subprocess.TimeoutExpired as error:
            raise DeadlineMissed(f"{' '.join(argv)}: not done within {seconds:g} s") from error

    @contextlib.contextmanager
    def control_group(self) -> Iterator[Path]:
        """A control group (version 2) of this run, for as long as this lasts."""
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        places = [line.split()[4] for line in mounts if " - cgroup2 " in line]
        if not places:
            raise LabError("no cgroup2 file system is mounted")
        group = Path(places[0]) / f"oegw-lab-{self.identifier}"
        group.mkdir()
        try:
            yield group
        finally:
            wait_until("end of the group", lambda: not (group / "cgroup.procs").read_text(), 5.0)
            group.rmdir()

    def _left_over(self) -> list[int]:
        """What runs in our namespaces yet: children of programs that were killed."""
        ours = {
            path.stat().st_ino
            for name in self.namespaces
            if (path := Path("/run/netns") / name).exists()
        }
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (entry / "ns" / "net").stat().st_ino in ours:
                    found.append(int(entry.name))
        return found

    def close(self, keep_files: bool = False) -> None:
        """End the processes, last one first, remove the namespaces and, unless kept, the files."""
        for process in reversed(self.processes):
            process.end()
        self.processes.clear()
        for pid in self._left_over():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        present = {path.name for path in Path("/run/netns").glob(f"oegw-{self.identifier}-*")}
        batch = "".join(f"netns del {name}\n" for name in self.namespaces if name in present)
        if batch:
            subprocess.run(["ip", "-batch", "-"], input=batch, text=True, check=True)
        for name in self.namespaces:
            shutil.rmtree(Path("/etc/netns") / name, ignore_errors=True)
        with contextlib.suppress(OSError):
            Path("/etc/netns").rmdir()
        self.namespaces.clear()
        if keep_files:
            (self.directory / "state.json").unlink()
            for pattern in SECRETS:
                for key in self.directory.glob(pattern):
                    key.unlink()
        else:
            shutil.rmtree(self.directory)
            with contextlib.suppress(OSError):
                self.directory.parent.rmdir()
