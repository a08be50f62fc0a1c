"""Programs in network namespaces: started, waited for, and ended by their process id."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

FACTOR = float(os.environ.get("OEGW_LAB_PATIENCE") or 1)  # what all deadlines are multiplied by
PATIENCE = 20.0  # seconds
COMMAND_SECONDS = 60.0


class InteropError(Exception):
    """Something of the test bed did not do what the cell needs; the message says what."""


def wait_until(what: str, condition: Callable[[], T], seconds: float = PATIENCE) -> T:
    """Ask ``condition`` until its answer is true, and return it.

    Raises InteropError after ``seconds``, or in User-Mode Linux, where programs start slowly, after
    as many times that as ``FACTOR`` says.
    """
    seconds *= FACTOR
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise InteropError(f"{what}: not within {seconds:g} s")
        time.sleep(0.01)


def inside(namespace: str | None, argv: Sequence[str]) -> list[str]:
    """The command line that runs ``argv`` in a namespace."""
    program = shutil.which(argv[0], path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if program is None:
        raise InteropError(f"{argv[0]} is not installed: netns-lab/setup runtime test interop")
    command = [program, *argv[1:]]
    if namespace is None:
        return command
    return [str(shutil.which("nsenter")), f"--net=/run/netns/{namespace}", *command]


def call(
    namespace: str | None,
    *argv: str,
    check: bool = True,
    environment: dict[str, str] | None = None,
    text: str | None = None,
    seconds: float = COMMAND_SECONDS,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end.  Raises InteropError for an exit code if ``check``."""
    seconds *= FACTOR
    try:
        done = subprocess.run(
            inside(namespace, argv),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            env={**os.environ, **(environment or {})},
            **({"stdin": subprocess.DEVNULL} if text is None else {"input": text}),
        )
    except subprocess.TimeoutExpired:
        raise InteropError(f"{' '.join(argv)}: not done within {seconds:g} s") from None
    if check and done.returncode:
        raise InteropError(
            f"{' '.join(argv)}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
        )
    return done


@dataclass(slots=True)
class Process:
    """A program that we started; what it prints goes to ``log``."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path

    @classmethod
    def start(
        cls,
        name: str,
        namespace: str | None,
        argv: Sequence[str],
        log: Path,
        environment: dict[str, str] | None = None,
    ) -> Process:
        with log.open("ab") as stream:
            popen = subprocess.Popen(
                inside(namespace, argv),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
                env={**os.environ, **(environment or {})},
                cwd=log.parent,
            )
        return cls(name, popen, log)

    @property
    def running(self) -> bool:
        return self.popen.poll() is None

    def text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def require(self) -> None:
        if not self.running:
            raise InteropError(f"{self.name} ended too early; it said:\n{self.text()[-4000:]}")

    def require_success(self) -> None:
        if self.popen.wait(COMMAND_SECONDS * FACTOR):
            raise InteropError(f"{self.name} failed; it said:\n{self.text()[-4000:]}")

    def send(self, number: signal.Signals) -> None:
        if self.running:
            self.popen.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGTERM, patience: float = 15.0) -> bool:
        """Ask it to end; whether it did so without being killed."""
        self.send(number)
        try:
            self.popen.wait(patience * FACTOR)
        except subprocess.TimeoutExpired:
            self.kill()
            return False
        return True

    def kill(self) -> None:
        """End it without a chance to say goodbye, as a crash would."""
        self.send(signal.SIGKILL)
        self.popen.wait(10.0)
