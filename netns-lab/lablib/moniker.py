"""Moniker's daemons: of hosts, and beside gateways; where each is, and what it says."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from string import Template
from typing import Any

from lablib.errors import LabError
from lablib.gateway import COMMAND, Gateway
from lablib.run import Process, Run
from lablib.waiting import patient, wait_until

FOLDER = "moniker"  # of a scenario: HOST.toml, the configuration of the daemon of that host
START_SECONDS = 60.0


def socket_of(run: Run, host: str) -> Path:
    """Where the daemon of a host listens to its programs, seen from outside of the host."""
    return run.own_place(host) / "moniker.sock"


@dataclass(slots=True)
class MonikerDaemon:
    """`oegw moniker serve` on a host."""

    host: str
    run: Run
    configuration: Path
    process: Process | None = None

    @property
    def trace(self) -> Path:
        return self.run.directory / f"{self.host}.jsonl"

    def begin(self) -> None:
        """Start the process; ``ready`` waits until it works."""
        command = [str(COMMAND), "moniker", "serve", "--config", str(self.configuration)]
        self.process = self.run.start(f"moniker-{self.host}", self.host, command)

    def ready(self) -> None:
        """Wait until it answers its own host."""
        process = self.process
        assert process is not None

        def answers() -> bool:
            if not process.running:
                raise LabError(f"moniker on {self.host} ended; it said:\n{process.text()}")
            return answering(socket_of(self.run, self.host)) == process.pid

        wait_until(f"moniker on {self.host}", answers, START_SECONDS)

    def end(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.end(number, 10.0)
        if self.process in self.run.processes:
            self.run.processes.remove(self.process)
            self.run.save()
        self.process = None

    def events(self) -> list[dict[str, Any]]:
        """The lines of its trace so far."""
        if not self.trace.exists():
            return []
        lines = self.trace.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]


def await_children(run: Run, gateways: Iterable[Gateway]) -> None:
    """Wait until the daemons that these gateways start, if they are to, answer their own hosts."""
    for gateway in gateways:
        if "\n[moniker" in gateway.configuration.read_text():
            question = partial(answering, socket_of(run, gateway.name))
            wait_until(f"moniker on {gateway.name}", question, START_SECONDS)


def answering(path: Path) -> int:
    """The process that answers at the daemon's socket; 0: none does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(patient(2.0))
        try:
            connection.connect(str(path))
            connection.sendall(b'{"do": "list", "tag": 1}\n')
            line = connection.makefile("rb").readline()
            if not (line and json.loads(line).get("ok")):
                return 0
        except OSError:
            return 0
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int.from_bytes(credentials[:4], "little")


def write_configuration(run: Run, host: str, template: Path, values: dict[str, str]) -> Path:
    """Fill in ``$RUN``, ``$NAME`` and the keys.  Raises LabError."""
    path = run.directory / f"{host}-moniker.toml"
    values = {"RUN": str(run.directory), "NAME": host, **values}
    try:
        path.write_text(Template(template.read_text()).substitute(values))
    except (KeyError, ValueError) as error:
        raise LabError(f"{template}: placeholder {error}") from error
    return path
