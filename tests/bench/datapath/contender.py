"""What is measured: a way to carry packets between the two gateways, and one that stands."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.accounts import descendants
from tests.bench.datapath.row import ALICE, BOB, Row
from tests.bench.datapath.urgency import hurry
from tests.interop.processes import InteropError, Process, call, wait_until

UP_SECONDS = 20.0
_VERSION = re.compile(r"\d+\.\d+|\bv\d+")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(slots=True)
class Standing:
    """A contender at work in a row of its own; ``folder`` is for its keys and logs.

    ``programs``: one on each gateway.
    ``says``: what it is, in its own words, where only one at work can tell.
    """

    name: str
    row: Row
    folder: Path
    stack: ExitStack
    programs: dict[str, Process] = field(default_factory=dict)
    says: str = ""

    def start(
        self, side: str, argv: list[str], environment: dict[str, str] | None = None
    ) -> Process:
        """A program on that gateway, which ends with this contender."""
        log = self.folder / f"{side}.log"
        process = Process.start(
            f"{self.name} on sg{side}", self.row.gateway(side), argv, log, environment
        )
        return self.adopt(side, process)

    def adopt(self, side: str, process: Process) -> Process:
        self.stack.callback(process.end, patience=5.0)
        self.programs[side] = process
        hurry(process.popen.pid)
        return process

    def side_folder(self, side: str) -> Path:
        folder = self.folder / side
        folder.mkdir(exist_ok=True)
        return folder

    def pids(self) -> list[int]:
        """Of both gateways: what we started, and all that descends from it."""
        return [pid for side in self.programs for pid in self.pids_of(side)]

    def pids_of(self, side: str) -> list[int]:
        return descendants(self.programs[side].popen.pid)

    def require(self) -> None:
        """Raises InteropError if one of its programs has ended."""
        for process in self.programs.values():
            process.require()


@dataclass(frozen=True, slots=True)
class Contender:
    """``begin`` lets it stand; ``programs`` are what it needs, a command or a file each.

    ``in_clear``: it has no tunnel.  ``version`` is the command that says which one it is.
    ``crowd`` gives the first gateway so many more tunnels, where that can be done while it runs.
    """

    name: str
    title: str
    begin: Callable[[Standing], None]
    programs: tuple[str, ...] = ()
    version: tuple[str, ...] = ()
    in_clear: bool = False
    ours: bool = False
    crowd: Callable[[Standing, int], None] | None = None

    def missing(self) -> list[str]:
        return [each for each in self.programs if program(each) is None]

    @contextmanager
    def standing(self, parent: Path, row: Row | None = None) -> Iterator[Standing]:
        """In a row of its own, of another kind if one is given.  Raises InteropError if it does
        not come up."""
        with ExitStack() as stack:
            row = row or Row()
            stack.callback(row.take_down)
            row.put_up()
            folder = parent / self.name
            folder.mkdir()
            standing = Standing(self.name, row, folder, stack)
            if not self.in_clear:
                row.refuse_clear()
            self.begin(standing)
            _await_passage(standing)
            yield standing

    def said_version(self) -> str:
        """The first line with a number of what it says of itself."""
        if not self.version:
            return ""
        path = program(self.version[0])
        if path is None:
            return ""
        done = call(None, path, *self.version[1:], check=False)
        lines = (done.stdout + done.stderr).splitlines()
        return next((line for line in lines if _VERSION.search(line)), "")


def program(name: str) -> str | None:
    if "/" in name:
        return name if Path(name).exists() else None
    return shutil.which(name, path=_PATH)


def _await_passage(standing: Standing) -> None:
    """Until Alice's ping reaches Bob, and one of full size, too."""
    ping = ["ping", "-n", "-q", "-c", "1", "-W", "1", "-I", ALICE]
    alice = standing.row.host("a")

    def passes(*size: str) -> bool:
        standing.require()
        return call(alice, *ping, *size, BOB, check=False).returncode == 0

    try:
        wait_until(f"{standing.name}: a ping from Alice to Bob", passes, UP_SECONDS)
        # Paths learn their MTU by what was too big: not while something is measured.
        wait_until(f"{standing.name}: a large ping", lambda: passes("-s", "1472", "-M", "dont"), 10)
    except InteropError as error:
        time.sleep(0.1)
        said = "\n".join(
            log.read_text(errors="replace")[-2000:] for log in standing.folder.rglob("*.log")
        )
        raise InteropError(f"{error}\n{said}") from None
