"""Builds the test kernel from Debian's source package and ``kernel.config``, once.

The result stands in a folder named by a hash of all that it depends on.  It is
built beside that folder and renamed into place, so a half-built kernel is never
taken for a whole one; a lock keeps two builds of the same kernel apart.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
FRAGMENT = HERE / "kernel.config"
PACKAGE = "linux-source-6.1"
ARCHIVE = Path(f"/usr/src/{PACKAGE}.tar.xz")

RECIPE = "1"  # counts changes of this file after which a kernel must be built anew
REPORT_SECONDS = 15.0
TAIL_LINES = 25
NEEDED_OCTETS = 2 << 30  # the unpacked source takes 0.6 GB, the objects 0.2 GB

# Most of the source is for other machines; not to write it, and not to remove it again, saves more
# than a minute on a slow disk.  Each Kconfig file stays: the configuration program reads them all.
LEFT_OUT = (
    *(f"arch/{name}/*.[chS]" for name in (
        "alpha", "arc", "arm", "arm64", "csky", "hexagon", "ia64", "loongarch", "m68k",
        "microblaze", "mips", "nios2", "openrisc", "parisc", "powerpc", "riscv", "s390", "sh",
        "sparc", "xtensa",
    )),
    *(f"{folder}/*.[chS]" for folder in (
        "drivers/gpu", "drivers/infiniband", "drivers/media", "drivers/net/ethernet",
        "drivers/net/wireless", "drivers/scsi", "drivers/staging", "sound",
    )),
    "arch/*/boot/dts", "Documentation/*/*.rst", "Documentation/devicetree", "tools/testing",
    "tools/perf",
)  # fmt: skip


class BuildFailed(Exception):  # noqa: N818  (it says what happened)
    """The kernel could not be built; the text gives the reason and the end of the log."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel in the cache; ``image`` is there only when it is whole."""

    folder: Path

    @property
    def image(self) -> Path:
        return self.folder / "linux"


def say(line: str) -> None:
    print(f"kernel: {line}", file=sys.stderr, flush=True)


def cache_folder() -> Path:
    """``$OEGW_KERNEL_CACHE``, else ``oegw`` in ``$XDG_CACHE_HOME``, else ``~/.cache/oegw``."""
    own = os.environ.get("OEGW_KERNEL_CACHE")
    if own:
        return Path(own).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "oegw"


def key(fragment: str, version: str, machine: str) -> str:
    """What names a kernel: its configuration, its source, what it runs on, and how it is built."""
    parts = "\0".join((fragment, version, machine, RECIPE))
    return hashlib.sha256(parts.encode()).hexdigest()[:16]


def not_accepted(fragment: str, configuration: str) -> list[str]:
    """Lines of the fragment that the kernel's own configuration program did not keep."""
    kept = set(configuration.splitlines())
    return [
        line for line in fragment.splitlines() if line.startswith("CONFIG_") and line not in kept
    ]


def source_version() -> str:
    """Version of the installed source package.  Raises BuildFailed without one."""
    answer = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Version}", PACKAGE], capture_output=True, text=True
    )
    if answer.returncode or not answer.stdout or not ARCHIVE.exists():
        raise BuildFailed(f"{PACKAGE} is not installed: netns-lab/setup kernel")
    return answer.stdout


def built(jobs: int | None = None) -> Kernel:
    """The kernel from the cache, after building it if it is not there.  Raises BuildFailed."""
    machine = platform.machine()
    if machine != "x86_64":
        raise BuildFailed(f"User-Mode Linux exists for x86 only, and this machine is {machine}")
    if subprocess.run([str(ROOT / "netns-lab" / "setup"), "kernel"], stdout=2).returncode:
        raise BuildFailed("netns-lab/setup kernel could not install what the build needs")
    fragment, version = FRAGMENT.read_text(), source_version()
    cache = cache_folder()
    kernel = Kernel(cache / f"kernel-{key(fragment, version, machine)}")
    if kernel.image.exists():
        return kernel
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache / f"{kernel.folder.name}.lock"):
        if not kernel.image.exists():
            _build(kernel, fragment, version, jobs or os.cpu_count() or 1)
    return kernel


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another build of this kernel is under way; waiting for it")
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _build(kernel: Kernel, fragment: str, version: str, jobs: int) -> None:
    cache, started = kernel.folder.parent, time.monotonic()
    free = shutil.disk_usage(cache).free
    if free < NEEDED_OCTETS:
        raise BuildFailed(
            f"{cache} has {free >> 20} MB free, the build takes up to {NEEDED_OCTETS >> 20} MB; "
            "OEGW_KERNEL_CACHE names another place"
        )
    say(f"building User-Mode Linux {version} with {jobs} jobs, once; it takes some minutes")
    work = cache / f"{kernel.folder.name}.building"
    shutil.rmtree(work, ignore_errors=True)  # of a build that was killed
    work.mkdir()
    try:
        result, log = work / "result", work / "result" / "build.log"
        result.mkdir()
        source, objects = work / PACKAGE, work / "objects"
        objects.mkdir()
        make = ["make", "-C", str(source), f"O={objects}", "ARCH=um"]
        with log.open("ab") as stream:
            unpack = ["tar", "-C", str(work), "-xJf", str(ARCHIVE)]
            unpack += [f"--exclude={PACKAGE}/{part}" for part in LEFT_OUT]
            _step("unpacking the source", unpack, stream.fileno(), log, started)
            configure = [*make, f"KCONFIG_ALLCONFIG={FRAGMENT}", "allnoconfig"]
            _step("configuring", configure, stream.fileno(), log, started)
            refused = not_accepted(fragment, (objects / ".config").read_text())
            if refused:
                raise BuildFailed("the kernel did not accept these lines: " + ", ".join(refused))
            compile_all = [*make, f"-j{jobs}", "linux"]
            _step("compiling", compile_all, stream.fileno(), log, started)
            strip = ["strip", "-o", str(result / "linux"), str(objects / "linux")]
            _step("stripping", strip, stream.fileno(), log, started)
        shutil.copy(objects / ".config", result / "config")
        shutil.rmtree(kernel.folder, ignore_errors=True)  # a folder without an image
        result.rename(kernel.folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    say(f"built in {time.monotonic() - started:.0f} s: {kernel.image}")


def _step(what: str, command: list[str], output: int, log: Path, started: float) -> None:
    """Run a step to its end; tell every few seconds how far it is."""
    say(f"{what} ({time.monotonic() - started:.0f} s)")
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
    )
    try:
        while True:
            try:
                code = process.wait(REPORT_SECONDS)
                break
            except subprocess.TimeoutExpired:
                lines = log.read_text(errors="replace").splitlines()
                say(f"{what} ({time.monotonic() - started:.0f} s): {len(lines)} lines of log")
    except BaseException:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        raise
    if code:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-TAIL_LINES:])
        raise BuildFailed(f"{what} failed with exit code {code}; the log ends so:\n{tail}")


def interrupted(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(arguments: list[str]) -> int:
    """Prints the kernel's path.  Exit code 1, with the reason, if it can't be built."""
    if arguments and (len(arguments) != 2 or arguments[0] != "-j" or not arguments[1].isdigit()):
        print("usage: build [-j JOBS]", file=sys.stderr)
        return 2
    for number in (signal.SIGINT, signal.SIGTERM):  # the first, too: a shell's jobs ignore it
        signal.signal(number, interrupted)
    try:
        kernel = built(int(arguments[1]) if arguments else None)
    except BuildFailed as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    print(kernel.image)
    return 0
