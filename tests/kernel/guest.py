"""Runs one command inside the test kernel, as if it ran here.

User-Mode Linux is a process of this machine with a network stack, processes and
time of its own.  Its root is this machine's root, read-only below an overlay in
memory: what the command writes vanishes with the guest, but for the shared
folders.  `init` is its first process.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from tests.kernel.building import HERE, BuildFailed, built, say

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NOT_STARTED, TIMED_OUT = 125, 124  # exit codes of ours, as those of `timeout` and `env`
CONSOLE_TAIL = 3000  # octets of the kernel's messages that a failed start shows
PR_SET_PDEATHSIG = 1  # sys/prctl.h

DESCRIPTION = """
Run CMD as root in a User-Mode Linux that sees this machine's files.  Writes
vanish, except below --share folders.  Both outputs and the exit code are CMD's;
124: ended after --timeout; 125: the kernel did not start or died (its last
messages are on stderr).  The environment inside holds PATH, HOME, LANG and what
--env adds.
"""


@dataclass(frozen=True, slots=True)
class Errand:
    """What to run, and in what kind of guest.  Memory in MB, times in real seconds."""

    command: tuple[str, ...]
    folder: Path
    shares: tuple[Path, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    memory: int = 1024
    timeout: float = 3600.0
    cpu: int | None = None
    words: str = ""  # more words for the kernel's command line
    console: Path | None = None


@contextmanager
def _one_cpu(wanted: int | None) -> Iterator[int]:
    """The number of a CPU that no other guest has taken, if there is one.

    A guest that wanders between CPUs is two to four times slower: it and its
    processes hand over to each other at every system call.
    """
    cpus = sorted(os.sched_getaffinity(0), reverse=True)
    if wanted is not None:
        yield wanted
        return
    for cpu in cpus:
        path = Path(tempfile.gettempdir()) / f"oegw-guest-on-cpu{cpu}.{os.geteuid()}"
        with path.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield cpu
            return
    yield cpus[os.getpid() % len(cpus)]


def _memory_folder(errand: Errand) -> Path | None:
    """Where the guest's memory can be a file; None if a tmpfs has to be made for it.

    It is a sparse file of which the kernel runs code, and containers often have
    a /dev/shm that is small or forbids that.
    """
    shm = Path("/dev/shm")
    if not shm.is_mount():
        return None
    state = os.statvfs(shm)
    roomy = state.f_bavail * state.f_frsize > (errand.memory + 64) << 20
    return shm if roomy and not state.f_flag & os.ST_NOEXEC else None


def _pump(source: int, target: int) -> None:
    """Copy until the end.  A reader that is gone does not stop the guest."""
    with os.fdopen(source, "rb", buffering=0) as stream:
        while octets := stream.read(65536):
            with suppress(OSError):
                while octets:
                    octets = octets[os.write(target, octets) :]


def _write_errand(place: Path, errand: Errand) -> None:
    """The files that `init` reads."""
    variables = {"PATH": PATH, "HOME": "/root", "USER": "root", "TERM": "dumb", "LANG": "C.UTF-8"}
    pairs = [f"{name}={value}" for name, value in (variables | errand.environment).items()]
    (place / "command").write_text(
        f"cd {shlex.quote(str(errand.folder))} || exit 126\n"
        f"exec env -i {shlex.join(pairs)} {shlex.join(errand.command)}\n"
    )
    (place / "shares").write_text("".join(f"{share.resolve()}\n" for share in errand.shares))


def _command_line(
    kernel: Path, place: Path, errand: Errand, console: int, out: int, err: int
) -> list[str]:
    """The kernel's command line; README.md has a reason for each word."""
    words = [
        str(kernel), f"mem={errand.memory}M", "rootfstype=hostfs", "rootflags=/", "ro",
        f"init={HERE / 'init'}", f"oegw_job={place}",
        "con=null", f"con0=null,fd:{console}",
        "ssl=null", f"ssl0=null,fd:{out}", f"ssl1=null,fd:{err}",
        f"uml_dir={place}/uml", "umid=guest", "panic=-1", "noreboot", "quiet",
        *shlex.split(errand.words),
    ]  # fmt: skip
    # With its first process, all of a PID namespace ends: nothing outlives a killed guest.
    apart, prepare = ["unshare", "--pid", "--fork", "--kill-child"], ""
    if _memory_folder(errand) is None:
        apart.append("--mount")
        prepare = f"mount -t tmpfs -o exec,size={errand.memory + 64}M tmpfs {place}/memory && "
    return [*apart, "--", "/bin/sh", "-c", prepare + '"$@"; exit $?', "sh", *words]


def _start(
    kernel: Path, place: Path, errand: Errand, cpu: int, console: IO[bytes]
) -> tuple[subprocess.Popen[bytes], list[threading.Thread]]:
    """Start the guest and what copies its three outputs."""
    libc = ctypes.CDLL(None)

    def in_child() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.sched_setaffinity(0, {cpu})

    pipes = [os.pipe() for _ in range(3)]
    ends = [end for _, end in pipes]
    process = subprocess.Popen(
        _command_line(kernel, place, errand, *ends),
        stdin=subprocess.DEVNULL,
        stdout=console,
        stderr=console,
        pass_fds=ends,
        start_new_session=True,
        preexec_fn=in_child,
        env={"PATH": PATH, "HOME": "/", "TMPDIR": str(_memory_folder(errand) or place / "memory")},
    )
    for end in ends:
        os.close(end)
    threads = []
    for (source, _), target in zip(pipes, (console.fileno(), 1, 2), strict=True):
        threads.append(threading.Thread(target=_pump, args=(source, target), daemon=True))
        threads[-1].start()
    return process, threads


def _await_end(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """Wait for the guest.  The code that says why it was ended from outside, or None."""
    ended: list[int] = []

    def end(code: int) -> None:
        ended.append(code)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda n, frame: end(128 + n))
    deadline = time.monotonic() + seconds
    while True:
        try:
            process.wait(min(1.0, max(0.0, deadline - time.monotonic())))
            break
        except subprocess.TimeoutExpired:
            if time.monotonic() >= deadline and not ended:
                say(f"ended after {seconds:g} s")
                end(TIMED_OUT)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    return ended[0] if ended else None


def run(kernel: Path, errand: Errand) -> int:
    """Run an errand in a guest of its own; its outputs go to ours.  Returns the exit code."""
    place = Path(tempfile.mkdtemp(prefix="oegw-guest-"))
    try:
        (place / "uml").mkdir()
        (place / "memory").mkdir()
        _write_errand(place, errand)
        with (
            (errand.console or place / "console").open("wb+") as console,
            _one_cpu(errand.cpu) as cpu,
        ):
            process, threads = _start(kernel, place, errand, cpu, console)
            code = _await_end(process, errand.timeout)
            for thread in threads:
                thread.join(2)
            if code is not None:
                return code
            with suppress(OSError, ValueError):
                return int((place / "status").read_text())
            console.seek(0)
            last = console.read()[-CONSOLE_TAIL:].decode(errors="replace")
            say(f"the guest ended without an exit code; its last messages:\n{last}")
            return NOT_STARTED
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="boot", description=DESCRIPTION)
    add = parser.add_argument
    add("--share", type=Path, action="append", default=[], metavar="DIR", help="writable inside")
    add("--env", action="append", default=[], metavar="NAME[=VALUE]", help="VALUE: as it is here")
    add("--memory", type=int, default=1024, metavar="MB")
    add("--timeout", type=float, default=3600.0, metavar="SECONDS", help="real seconds")
    add("--cpu", type=int, help="CPU to run on (one that no other guest has)")
    add("--time-travel", nargs="?", const="", metavar="inf-cpu", help="virtual time")
    add("--console", type=Path, metavar="FILE", help="keep the kernel's messages")
    add("--kernel", type=Path, help="a kernel (the one that `build` prints)")
    add("command", nargs=argparse.REMAINDER, metavar="-- CMD")
    return parser


def main(arguments: list[str]) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        parser.error("no command")
    if os.geteuid():
        parser.error("a guest needs namespaces around it: run this as root")
    for share in options.share:
        if not share.is_dir():
            parser.error(f"--share: no folder {share}")
    environment = {}
    for entry in options.env:
        name, given, value = entry.partition("=")
        if given or name in os.environ:
            environment[name] = value if given else os.environ[name]
    words = ""
    if options.time_travel is not None:
        words = f"time-travel={options.time_travel}" if options.time_travel else "time-travel"
    try:
        kernel = options.kernel or built().image
    except BuildFailed as error:
        say(str(error))
        return NOT_STARTED
    errand = Errand(
        command=tuple(command),
        folder=Path.cwd(),
        shares=tuple(options.share),
        environment=environment,
        memory=options.memory,
        timeout=options.timeout,
        cpu=options.cpu,
        words=words,
        console=options.console,
    )
    return run(kernel.absolute(), errand)
