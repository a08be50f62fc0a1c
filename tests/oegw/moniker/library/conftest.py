"""A host with its daemon, on the loopback addresses and in a thread of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from oegw import moniker
from oegw.moniker.daemon.service import Daemon
from oegw.moniker.library import client
from oegw.moniker.settings import MonikerSettings
from oegw.trace import JsonTrace

ROOT = Path(__file__).parents[4]
LOOPBACK = (ip_address("127.0.0.1"), ip_address("::1"))
PATIENCE = 20.0  # seconds for what takes a moment, on a machine with other work


class Host:
    """Verbs for its daemon; ``serve``, ``connect`` and ``resolve`` as this host's applications."""

    def __init__(self, folder: Path) -> None:
        self.settings = MonikerSettings(
            port=0, addresses=LOOPBACK, socket=folder / "moniker.sock", queries=10000.0
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._daemon: Daemon | None = None

    @property
    def daemon(self) -> Path:
        return self.settings.socket

    @property
    def port(self) -> int:
        return self.settings.port

    def start(self, **changes: Any) -> None:
        self.settings = replace(self.settings, **changes)
        self._daemon = Daemon(self.settings, JsonTrace(None, time.time))
        self._call(self._daemon.start())
        self.settings = replace(self.settings, port=self._daemon.port)

    def stop(self) -> None:
        if self._daemon is not None:
            self._call(self._daemon.close())
            self._daemon = None

    def close(self) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def serve(self, name: str, **options: Any) -> moniker.Service:
        return moniker.serve(name, daemon=self.daemon, **options)

    def connect(self, host: str, name: str, **options: Any) -> moniker.Session:
        return moniker.connect(host, name, question_port=self.port, daemon=self.daemon, **options)

    def resolve(self, host: str, name: str, **options: Any) -> moniker.Resolved:
        return moniker.resolve(host, name, question_port=self.port, daemon=self.daemon, **options)

    def registered(self) -> list[str]:
        """What the daemon has, as text."""
        assert self._daemon is not None
        entries = self._daemon.registry.entries()
        return sorted(f"{e.service.service}@{e.service.version}" for e in entries)

    def _call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(PATIENCE)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    client.answers.forget_all()
    host = Host(tmp_path)
    try:
        host.start()
        yield host
    finally:
        host.close()


@pytest.fixture
def soon() -> Callable[[Callable[[], Any]], None]:
    """Waits until something is so."""

    def wait(condition: Callable[[], Any]) -> None:
        until = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < until, "it did not become so"
            time.sleep(0.005)

    return wait


DAEMON = """
import asyncio, time
from oegw.moniker.daemon.service import Daemon
from oegw.moniker.settings import MonikerSettings
from oegw.trace import JsonTrace

async def main():
    await Daemon(MonikerSettings(), JsonTrace(None, time.time)).start()
    print("up", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


class Box:
    """A network with its own loopback device and its own /run, so that port 1 and the usual socket
    are free: as it is on a host of its own.  ``python`` starts programs there."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[str]] = []
        script = "ip link set lo up && mount -t tmpfs none /run && exec sleep 600"
        apart = ["unshare", "--net", "--mount", "--propagation", "private"]
        self._first = self._started([*apart, "sh", "-c", f"{script}"])
        until = time.monotonic() + PATIENCE
        while not self._is_apart():
            assert time.monotonic() < until
            time.sleep(0.005)

    def daemon(self) -> subprocess.Popen[str]:
        return self.python("-c", DAEMON)

    def python(self, *arguments: str | Path, ready: str | None = "up") -> subprocess.Popen[str]:
        """A program that has said that it is ``ready``."""
        process = self._started(self._inside(arguments))
        assert process.stdout is not None
        assert ready is None or process.stdout.readline() == ready + "\n"
        return process

    def run(self, *arguments: str | Path, fails: bool = False) -> str:
        """What a program writes, to stderr if it fails, until it ends."""
        done = subprocess.run(
            self._inside(arguments), cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        assert bool(done.returncode) == fails, done.stderr
        return done.stderr if fails else done.stdout

    def close(self) -> None:
        for each in self._processes:
            with suppress(ProcessLookupError):
                os.killpg(each.pid, signal.SIGKILL)
            each.communicate()

    def _inside(self, arguments: Sequence[str | Path]) -> list[str]:
        there = ["nsenter", "-t", str(self._first.pid), "--net", "--mount", f"--wd={ROOT}"]
        ours = ["env", f"PYTHONPATH={ROOT}"]  # whichever project is installed
        return [*there, *ours, sys.executable, *map(str, arguments)]

    def _started(self, command: list[str]) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        self._processes.append(process)
        return process

    def _is_apart(self) -> bool:
        assert self._first.poll() is None, "no box could be made"
        return Path(f"/proc/{self._first.pid}/comm").read_text() == "sleep\n"


@pytest.fixture
def box() -> Iterator[Box]:
    box = Box()
    try:
        yield box
    finally:
        box.close()
