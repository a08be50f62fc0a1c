"""A gateway of the lab as a patient: faults are planted on it, and the real `oegw doctor` looks."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.intercept_net import wait_for
from tests.support.lab_commands import ROOT, lab

BIN = ROOT / ".venv" / "bin"
STARTS = 40.0  # seconds that a gateway may take to work
Diagnosis = dict[str, Any]


@dataclass(slots=True)
class Patient:
    """SG-A of a lab of its own.  ``configuration``: the file that `oegw doctor` is given."""

    identifier: str
    configuration: Path = Path()
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def directory(self) -> Path:
        return Path(os.environ.get("TMPDIR") or "/run") / "oegw-lab" / self.identifier

    @property
    def own(self) -> Path:
        """The configuration that the gateway runs with."""
        return self.directory / "sg-a.toml"

    def words(self, host: str, command: str) -> list[str]:
        return ["ip", "netns", "exec", f"oegw-{self.identifier}-{host}", "bash", "-c", command]

    def sh(self, command: str, host: str = "sg-a", *, code: int | None = 0) -> str:
        """A command of the shell on a host; ``code`` is how it must end."""
        done = subprocess.run(
            self.words(host, command),
            capture_output=True,
            text=True,
            timeout=60,
            cwd=self.directory,
            env=_surroundings(),
        )
        assert code in (None, done.returncode), (command, done.stdout, done.stderr)
        return done.stdout

    def start(self, command: str) -> None:
        """The same in the background, until the end of the lab."""
        log = (self.directory / "doctor-started.log").open("ab")
        self.processes.append(
            subprocess.Popen(
                self.words("sg-a", command),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self.directory,
                env=_surroundings(),
                start_new_session=True,
            )
        )

    def doctor(self, before: str = "", after: str = "", whole: bool = True) -> Diagnosis:
        """What it finds; the exit code must agree.  ``before`` and ``after`` are further words.

        ``whole``: all subjects can be examined."""
        command = f"{before} oegw doctor --config {self.configuration} --json {after}"
        done = subprocess.run(
            self.words("sg-a", command),
            capture_output=True,
            text=True,
            timeout=60,
            cwd=self.directory,
            env=_surroundings(),
        )
        assert done.stdout, done.stderr
        found: Diagnosis = json.loads(done.stdout)
        assert done.returncode == bool(found["problems"]), done.stderr
        assert not (whole and found["unexamined"]), found["unexamined"]
        return found

    def status(self) -> dict[str, Any] | None:
        done = subprocess.run(
            [BIN / "oegw", "status", "--json", "--config", str(self.own)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        return json.loads(done.stdout) if done.returncode == 0 else None

    def await_gateway(self, not_this: int = 0) -> None:
        """Until one runs, which is another one than ``not_this``."""

        def works() -> bool:
            for process in self.processes:
                process.poll()
            status = self.status()
            return status is not None and status["pid"] != not_this

        wait_for(works, STARTS)

    def number(self) -> int:
        """Of the gateway's process."""
        status = self.status()
        assert status is not None
        return int(status["pid"])

    def begin(self) -> None:
        self.start(f"exec oegw run --config {self.own}")
        self.await_gateway()

    def stop(self, signal: str = "TERM") -> None:
        number = self.number()
        os.kill(number, {"TERM": 15, "KILL": 9}[signal])
        wait_for(lambda: _is_gone(number), 20)

    @contextmanager
    def variant(self, *edits: tuple[str, str], add: str = "") -> Iterator[Path]:
        """The doctor is given another configuration; the gateway keeps its own."""
        text = self.own.read_text()
        for old, new in edits:
            assert old in text, old
            text = text.replace(old, new)
        other = self.directory / "planted.toml"
        other.write_text(text + add)
        self.configuration = other
        try:
            yield other
        finally:
            self.configuration = self.own
            other.unlink(missing_ok=True)


def _is_gone(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def _surroundings() -> dict[str, str]:
    return {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}


def names(found: Diagnosis, severities: Sequence[str] = ("problem", "warning")) -> set[str]:
    return {each["name"] for each in found["findings"] if each["severity"] in severities}


def mends(found: Diagnosis, name: str) -> list[str]:
    """The commands printed for a finding, each once."""
    return list(dict.fromkeys(e["mend"] for e in found["findings"] if e["name"] == name))


@contextmanager
def patient(scenario: str = "alice-bob") -> Iterator[Patient]:
    """A lab with running gateways, in which Alice has reached Bob."""
    found = Patient(f"dr{secrets.token_hex(2)}")
    code, output = lab("--id", found.identifier, "up", scenario)
    assert code == 0, output
    try:
        found.configuration = found.own
        found.sh("ping -4 -qc 1 -W 20 bob", "alice")
        yield found
    finally:
        code, output = lab("--id", found.identifier, "down")
        for process in found.processes:
            process.wait(timeout=10)
        assert code == 0, output
