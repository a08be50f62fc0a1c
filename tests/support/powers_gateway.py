"""A running gateway in a network namespace of its own, seen from outside: its processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oegw.control import ControlError, request
from oegw.keys import write_private
from tests.support.ike_pair import private_key
from tests.support.own_network import ip, own_network

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0


@dataclass
class Gateway:
    """``place``: its directory.  ``process``: what was started."""

    place: Path
    process: subprocess.Popen[str]
    said: list[str] = field(default_factory=list)

    def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = {}
        for line in request(self.place / "oegw" / "control.sock", {"command": "status"}, 10.0):
            answer |= line
        return answer

    def ask(self, command: str) -> dict[str, Any]:
        answer: dict[str, Any] = {}
        for line in request(self.place / "oegw" / "control.sock", {"command": command}, 30.0):
            answer |= line
        return answer

    def processes(self) -> dict[str, dict[str, Any]]:
        return {row["name"]: row for row in self.status()["processes"]}

    def ready(self) -> dict[str, Any]:
        def answers() -> dict[str, Any] | None:
            assert self.process.poll() is None, self.errors()
            try:
                status = self.status()
            except (ControlError, OSError):
                return None
            return None if "error" in status else status

        status: dict[str, Any] = until(answers)
        return status

    def events(self) -> list[dict[str, Any]]:
        lines = (self.place / "trace.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def errors(self) -> str:
        return (self.place / "errors").read_text()

    def nft(self) -> str:
        done = subprocess.run(
            ["nft", "list", "tables"], capture_output=True, text=True, timeout=20, check=True
        )
        return done.stdout


def until(condition: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """What it says once that is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)
    return found


def is_there(pid: int) -> bool:
    """Not even as a zombie that somebody has yet to look at."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def configuration(place: Path, more: str = "", gateway: str = "") -> Path:
    """One gateway on a link that leads nowhere."""
    path = place / "oegw.toml"
    path.write_text(
        f"""version = 1
[gateway]
private_key = "gateway.pem"
control_socket = "oegw/control.sock"
state = "oegw/state.db"
trace = "trace.jsonl"
{gateway}
[dns]
resolvers = "127.0.0.1"
timeout = 0.2
tries = 1
check_own = false
{more}
"""
    )
    return path


@contextmanager
def a_place() -> Iterator[Path]:
    """A directory that every user may enter, with a key that only root may read."""
    place = Path(tempfile.mkdtemp(prefix="oegw-powers-"))
    place.chmod(0o755)
    try:
        write_private(place / "gateway.pem", private_key("powers"))
        yield place
    finally:
        shutil.rmtree(place)


@contextmanager
def a_link() -> Iterator[None]:
    with own_network():
        ip("link", "add", "out0", "type", "veth", "peer", "name", "far0")
        ip("link", "set", "far0", "up")
        ip("link", "set", "out0", "up")
        ip("addr", "add", "192.1.1.4/24", "dev", "out0")
        ip("route", "add", "default", "dev", "out0")
        yield


def started(path: Path) -> Gateway:
    """`oegw run`; it may not be ready yet, or never."""
    with (path.parent / "errors").open("a") as errors:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "oegw", "run", "--config", str(path)],
            stderr=errors,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    return Gateway(path.parent, process)


@contextmanager
def running(more: str = "", gateway: str = "") -> Iterator[Gateway]:
    """Until the end of the block; then it ends in order."""
    with a_place() as place, a_link():
        its = started(configuration(place, more, gateway))
        try:
            its.ready()
            yield its
            if its.process.poll() is None:
                its.process.send_signal(signal.SIGTERM)
                assert its.process.wait(PATIENCE) == 0, its.errors()
        finally:
            if its.process.poll() is None:
                its.process.kill()
                its.process.wait()
