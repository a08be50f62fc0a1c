"""A server of ours in a process and a network namespace of its own, seen from outside."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.intercept_net import wait_for

ROOT = Path(__file__).parents[2]
MEGABYTE = 1_000_000


class Serving:
    """``oegw ARGUMENTS --config ...`` in a namespace; a context that ends it again."""

    def __init__(self, namespace: str, folder: Path, arguments: Sequence[str]) -> None:
        self.folder = folder
        self.trace = folder / "trace.jsonl"
        self.log = folder / "server.log"
        self._namespace = namespace
        self._arguments = arguments
        self._configuration = folder / "oegw.toml"
        self._process: subprocess.Popen[bytes] | None = None

    def write(self, configuration: str) -> None:
        """What follows the table of the gateway."""
        self._configuration.write_text(
            f'version = 1\n[gateway]\ntrace = "{self.trace}"\n{configuration}'
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self.end()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                ["nsenter", f"--net=/run/netns/{self._namespace}", sys.executable, "-m", "oegw",
                 *self._arguments, "--config", str(self._configuration)],
                cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        wait_for(self._started, 20)

    def _started(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()
        return self.is_ready()

    def is_ready(self) -> bool:
        """Whether it serves, as far as its trace says."""
        return any(e["event"] == "started" and e["pid"] == self.pid for e in self.events())

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def tell(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it, and see that it never wrote a traceback."""
        assert self._process is not None
        process, self._process = self._process, None
        process.send_signal(number)
        process.wait(20)
        assert "Traceback" not in self.log.read_text(), self.log.read_text()

    def events(self) -> list[dict[str, Any]]:
        if not self.trace.exists():
            return []
        lines = self.trace.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def processes(self) -> list[int]:
        """It, and those that it has started."""
        found = [self.pid]
        for pid in found:
            with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
                for task in Path(f"/proc/{pid}/task").iterdir():
                    found += map(int, (task / "children").read_text(encoding="ascii").split())
        return found

    def resident(self) -> dict[int, int]:
        """Octets of memory of each process."""
        octets = {}
        for pid in self.processes():
            with suppress(FileNotFoundError, ProcessLookupError):
                text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
                for kilobytes in re.findall(r"VmRSS:\s+(\d+) kB", text):
                    octets[pid] = int(kilobytes) * 1024
        return octets

    def grown(self, before: Mapping[int, int]) -> int:
        """By how many octets those processes have that were there before."""
        now = self.resident()
        return sum(now[pid] - octets for pid, octets in before.items() if pid in now)

    @property
    def descriptors(self) -> int:
        """Its own, not its children's."""
        return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())

    @property
    def processor_seconds(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def stays_small(
    server: Serving, attack: Callable[[], object], times: int = 3, most: int = MEGABYTE
) -> None:
    """The same again and again: what the first time took is all that is ever taken."""
    attack()
    before = server.resident()
    for _ in range(times):
        attack()
    grown = server.grown(before)
    assert grown < most, f"{grown} octets more after {times} times the same"
