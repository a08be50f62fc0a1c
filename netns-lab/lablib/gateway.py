"""Gateways under test: their keys, their configuration, their process, what they say."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

from lablib.errors import LabError
from lablib.run import Process, Run
from lablib.topology import Topology
from lablib.waiting import patient, wait_until

ROOT = Path(__file__).resolve().parent.parent.parent
COMMAND = ROOT / ".venv" / "bin" / "oegw"
SHARED_KEYS = "OEGW_LAB_KEYS"
CLOCK_FILE = "clock"  # in the run directory: how far the clocks of gateways are ahead
CLOCK_LIBRARY = "*/faketime/libfaketimeMT.so.1"
ANSWER_SECONDS = 15.0
START_SECONDS = 60.0  # on a busy machine; one that ends before is told at once


def ask(
    path: Path, command: str, seconds: float = ANSWER_SECONDS, **arguments: Any
) -> dict[str, Any]:
    """Put one request to a control socket; returns the fields of all lines of the answer.

    Raises LabError if the gateway says that it failed, OSError if it is not there.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(patient(seconds))
        connection.connect(str(path))
        connection.sendall(json.dumps({"command": command, **arguments}).encode() + b"\n")
        answer: dict[str, Any] = {}
        with connection.makefile("rb") as lines:
            for line in lines:
                answer.update(json.loads(line))
                if answer.get("done"):
                    break
    if not answer.get("done"):
        raise LabError(f"{path.name}: {command}: no complete answer")
    if "error" in answer:
        raise LabError(f"{path.name}: {command}: {answer['error']}")
    return answer


@dataclass(slots=True)
class Keys:
    """The key pair of a gateway and the records that publish it; and those of spare keys."""

    gateway: str
    path: Path
    records: list[str]
    spare_records: list[str] = field(default_factory=list)

    @property
    def public(self) -> str:
        """The public key as configurations have it: 0s and base64."""
        for record in self.records:
            found = re.search(r"\sKEY\s+(?:0x4200|16896)\s+4\s+1\s+(.*)", record, re.DOTALL)
            if found:
                return "0s" + re.sub(r"[\s()]", "", found[1])
        raise LabError(f"{self.gateway}: oegw dns-records printed no KEY record")


def placeholder(gateway: str) -> str:
    """What a gateway's public key is called in the files of a scenario: ``SG_B_KEY``."""
    return gateway.upper().replace("-", "_") + "_KEY"


class Oegw:
    """The installed command, run beside the lab (not inside a namespace) to its end.

    ``$OEGW_LAB_KEYS`` is a folder in which the labs of one series share their keys, and what the
    command printed as their records: to make them is a large part of what a lab needs to come up.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        folder = os.environ.get(SHARED_KEYS)
        self._shared = Path(folder) if folder else None
        self._to_keep: dict[int, Path] = {}  # by PID: where the others find what this one prints
        if not COMMAND.exists():
            raise LabError("oegw is not installed: netns-lab/setup runtime lab")

    def begin_keygen(self, gateway: str, bits: int) -> Process:
        path = self._run.directory / f"{gateway}.pem"
        arguments = ["keygen", "--out", str(path), "--bits", str(bits)]
        return self._run.start(f"keygen-{gateway}", None, [str(COMMAND), *arguments])

    def begin_port_keygen(self, path: Path, *, roll: bool = False) -> Process:
        """The key with which ports are encrypted; ``roll``: in place of the one that is there."""
        command = [str(COMMAND), "sst", "keygen", *(["--roll"] if roll else []), str(path)]
        return self._run.start(f"keygen-{path.stem}-ports", None, command)

    def has_key(self, gateway: str, bits: int) -> bool:
        """Whether another lab of this series made one, which this run then has as well."""
        path = self._shared / f"{gateway}-{bits}.pem" if self._shared else None
        if path is None or not path.exists():
            return False
        shutil.copy(path, self._run.directory / f"{gateway}.pem")  # with its mode
        return True

    def keep_key(self, gateway: str, bits: int) -> None:
        """For the other labs of this series, if there is one."""
        if self._shared is not None:
            own = self._run.directory / f"{gateway}.pem"
            self._share(own, self._shared / f"{gateway}-{bits}.pem")

    def _share(self, own: Path, place: Path) -> None:
        """For the other labs of this series, none of which finds half of it."""
        fresh = place.with_suffix(f".{self._run.identifier}")
        shutil.copy(own, fresh)  # with its mode
        fresh.replace(place)

    def begin_records(
        self,
        gateway: str,
        identity: list[str],
        clients: list[str],
        name: str,
        port_key: Path | None = None,
    ) -> Process:
        """``identity``: the options that say what the gateway is called, and its precedence.

        With a ``port_key`` its records are among them; it is known by a configuration only.  The
        same records of the same key are printed once for all labs of a series.
        """
        key = self._run.directory / f"{gateway}.pem"
        source = ["--key", str(key)]
        words = [*identity, *(word for client in clients for word in ("--client", client))]
        if port_key is not None:
            file = self._run.directory / f"{name}.publishing"
            text = f'[gateway]\nprivate_key = "{key}"\n\n[sst]\nprivate_key = "{port_key}"\n'
            file.write_text(f"version = 1\n\n{text}")
            source = ["--config", str(file)]
        kept = None
        if self._shared is not None and port_key is None:
            asked = key.read_bytes() + b"\0".join(word.encode() for word in words)
            kept = self._shared / f"{hashlib.sha256(asked).hexdigest()}.records"
            if kept.exists():
                return self._run.start(name, None, ["cat", str(kept)])
        command = [str(COMMAND), "dns-records", *source, *words]
        process = self._run.start(name, None, command)
        if kept is not None:
            self._to_keep[process.pid] = kept
        return process

    def begin_question_records(self, host: str, key: Path, addresses: list[str]) -> Process:
        """The records of the key to which questions for the host's services are encrypted."""
        file = self._run.directory / f"records-{host}-questions.publishing"
        file.write_text(f'version = 1\n\n[moniker]\nprivate_key = "{key}"\n')
        words = [word for address in addresses for word in ("--address", address)]
        command = [str(COMMAND), "moniker", "dns-records", "--config", str(file), *words]
        return self._run.start(f"records-{host}-questions", None, command)

    def finish(self, process: Process) -> str:
        """Wait for a command.  Raises LabError with what it said if it failed."""
        wait_until(process.name, lambda: not process.running, 60.0)
        assert process.popen is not None
        self._run.processes.remove(process)
        self._run.save()
        if process.popen.returncode:
            raise LabError(f"{process.name}: {process.text().strip()}")
        if kept := self._to_keep.pop(process.pid, None):
            self._share(process.log, kept)
        return process.text()


@dataclass(slots=True)
class Gateway:
    """One gateway of a run."""

    name: str
    run: Run
    configuration: Path
    process: Process | None = None
    has_clock: bool = False  # of its own, which a step can set

    @property
    def socket(self) -> Path:
        return self.run.directory / f"{self.name}.sock"

    @property
    def trace(self) -> Path:
        return self.run.directory / f"{self.name}.jsonl"

    def begin(self) -> None:
        """Start the process; ``ready`` waits until it works."""
        command = [str(COMMAND), "run", "--config", str(self.configuration)]
        if self.has_clock:
            command = [*self._clock(), *command]
        self.process = self.run.start(f"oegw-{self.name}", self.name, command)

    def _clock(self) -> list[str]:
        """A command that gives another the time of day that ``CLOCK_FILE`` says.

        What it measures (the monotonic clock) stays as it is.
        """
        libraries = list(Path("/usr/lib").glob(CLOCK_LIBRARY))
        if not libraries:
            raise LabError("faketime is not installed: netns-lab/setup lab")
        return [
            *("env", f"LD_PRELOAD={libraries[0]}", "FAKETIME_DONT_FAKE_MONOTONIC=1"),
            *(f"FAKETIME_TIMESTAMP_FILE={self.run.directory / CLOCK_FILE}",),
            *("FAKETIME_CACHE_DURATION=1", "NO_FAKE_STAT=1"),
        ]

    def ready(self) -> dict[str, Any]:
        """Wait until this very process traced that it works, and its control socket answers.

        The socket alone is no sign: it is there before the first packet is intercepted.
        """
        process = self.process
        assert process is not None

        def answers() -> dict[str, Any] | None:
            if not process.running:
                raise LabError(f"gateway {self.name} ended too early; it said:\n{process.text()}")
            if not any(
                f"{e['category']}.{e['event']}" == "gateway.started" and e.get("pid") == process.pid
                for e in self.events()
            ):
                return None
            try:
                status = self.status()
            except (OSError, LabError):  # not there yet, or it says that it is starting
                return None
            return status if status.get("pid") == process.pid else None

        status = wait_until(f"gateway {self.name} answering", answers, START_SECONDS)
        assert status is not None
        return status

    def status(self) -> dict[str, Any]:
        return ask(self.socket, "status")

    def events(self) -> list[dict[str, Any]]:
        """The lines of its trace so far, of all its lives in this run."""
        if not self.trace.exists():
            return []
        lines = self.trace.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def stop(self) -> None:
        if self.process is not None:
            self.process.end(signal.SIGTERM, 10.0)
            self._forget()

    def kill(self) -> None:
        """End it without a chance to clean up, as a crash would."""
        assert self.process is not None
        process = self.process
        process.send(signal.SIGKILL)
        wait_until(f"end of {self.name}", lambda: not process.running, 5.0)
        self._forget()

    def _forget(self) -> None:
        if self.process in self.run.processes:
            self.run.processes.remove(self.process)
            self.run.save()
        self.process = None


def with_datapath(configuration: str, values: Mapping[str, str]) -> str:
    """The configuration with these values, as TOML has them, in its ``[datapath]`` section."""
    lines = configuration.splitlines()
    if "[datapath]" not in lines:
        lines += ["", "[datapath]"]
    section = lines.index("[datapath]") + 1
    end = next((n for n in range(section, len(lines)) if lines[n].startswith("[")), len(lines))
    kept = [line for line in lines[section:end] if line.partition("=")[0].strip() not in values]
    chosen = [f"{key} = {value}" for key, value in values.items()]
    return "\n".join([*lines[:section], *chosen, *kept, *lines[end:]]) + "\n"


def write_configuration(
    run: Run,
    topology: Topology,
    name: str,
    template: Path,
    public_keys: dict[str, str],
    datapath: Mapping[str, str],
) -> Gateway:
    """Fill in ``$RUN`` (the run directory), ``$NAME``, and the ``public_keys``, ``$SG_B_KEY`` etc.

    ``datapath``: what its section ``[datapath]`` shall say, as TOML has it, if anything.
    """
    gateway = Gateway(name, run, run.directory / f"{name}.toml")
    values = {"RUN": str(run.directory), "NAME": name, **public_keys}
    topology.host(name)
    try:
        text = Template(template.read_text()).substitute(values)
        gateway.configuration.write_text(with_datapath(text, datapath) if datapath else text)
    except (KeyError, ValueError) as error:
        raise LabError(f"{template}: placeholder {error}") from error
    return gateway
