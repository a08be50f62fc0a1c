"""A daemon beside a running gateway: a process of its own, started again when it ends.

What goes wrong in it does not touch the gateway, and strangers' questions don't take the gateway's
time.  It ends with the gateway, however that ends.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import oegw
from oegw.control import ControlError
from oegw.trace import Trace

# Our choices, seconds.
FIRST_PAUSE = 0.5  # before it is started again; twice as long each time
LONGEST_PAUSE = 30.0
LONG_ENOUGH = 60.0  # that it ran, for the next pause to be the first again
END_PATIENCE = 5.0  # after SIGTERM
STATUS_PATIENCE = 1.0


class ChildSettings(Protocol):
    """The daemon's part of a configuration.  ``present``: it is to run.  ``socket``: where it says
    how it is."""

    @property
    def present(self) -> bool: ...

    @property
    def socket(self) -> Path: ...


SettingsT = TypeVar("SettingsT", bound=ChildSettings)


@dataclass(frozen=True, slots=True)
class Program(Generic[SettingsT]):
    """What is particular to one daemon.

    ``name``: its table in the configuration, and its category in the trace.  ``words``: what it is
    called to the operator.  ``module``: what is started, with the arguments: the configuration, the
    numbers of a pipe that has an end when the gateway has, and of its door to the hands, and what
    only this program is told.
    ``unset``: the settings before any.  ``status``: asks it at a socket, within seconds; raises
    ControlError.  ``restart_notes``: what of new settings takes effect at its restart only.
    ``refusal``: why it stays with the old ones, None if it does not, by the settings and the
    configuration that they are of; may read files.  ``remains``: what its end leaves behind.
    """

    name: str
    words: str
    module: str
    unset: SettingsT
    status: Callable[[Path, float], dict[str, Any]]
    restart_notes: Callable[[SettingsT, SettingsT], list[str]]
    refusal: Callable[[SettingsT, Path], str | None]
    remains: Callable[[SettingsT], list[str]] = lambda _: []


Door = Callable[[], Awaitable[int]]
"""Opens a descriptor by which a process asks the hands for what it has no right to do itself.
Raises OSError."""


class ChildProcess(Generic[SettingsT]):
    """The daemon's process, as long as the configuration at ``path`` has its table."""

    def __init__(
        self,
        program: Program[SettingsT],
        path: Path,
        trace: Trace,
        more: tuple[str, ...] = (),
        door: Door | None = None,
    ) -> None:
        """``more``: further arguments of the process.  ``door``: None: it keeps what rights it
        has."""
        self._program = program
        self._path = path
        self._trace = trace
        self._door = door
        self._more = more
        self._settings = program.unset
        self._at_start = program.unset  # of the process
        self._reason = "it is being started"  # why there is no process
        self._process: Process | None = None
        self._again = asyncio.Event()  # the pause before the next try is over
        self._keeping: asyncio.Task[None] | None = None

    async def follow(self, settings: SettingsT) -> list[str]:
        """Start it, end it, or have it read the configuration again, as the settings say.

        Returns notes for the operator: what takes effect at its restart only, or can't.
        """
        self._settings = settings
        if not settings.present:
            running = self._process is not None
            await self.close()
            if running:
                return self._program.remains(self._at_start)
        elif self._keeping is None:
            self._keeping = asyncio.create_task(self._keep())
        elif self._process is None:
            self._again.set()  # perhaps what kept it from starting is mended
        else:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGHUP)
            refusal = await asyncio.to_thread(self._program.refusal, settings, self._path)
            if refusal is not None:
                return [f"[{self._program.name}] the old settings stay: {refusal}"]
            return self._program.restart_notes(self._at_start, settings)
        return []

    async def close(self) -> None:
        """End it, and don't start it again."""
        keeping, self._keeping = self._keeping, None
        if keeping is None:
            return
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def row(self) -> dict[str, Any] | None:
        """What `oegw status` says of it; None where there is none."""
        if self._keeping is None:
            return None
        if self._process is None:
            return {"reason": self._reason}
        try:
            return await asyncio.to_thread(
                self._program.status, self._at_start.socket, STATUS_PATIENCE
            )
        except ControlError as error:
            return {"reason": str(error)}

    async def _keep(self) -> None:
        pause = FIRST_PAUSE
        while True:
            began = time.monotonic()
            try:
                reason = await self._run_once()
            except OSError as error:
                reason = f"cannot be started: {error.strerror}"
            if time.monotonic() - began >= LONG_ENOUGH:
                pause = FIRST_PAUSE
            self._reason = f"it {reason}; again in {pause:g} s"
            self._trace.event(self._program.name, "ended", reason=reason, again_in=pause)
            text = f"{self._program.words} {reason}; again in {pause:g} s"
            print(f"oegw: {text}", file=sys.stderr)
            self._again.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._again.wait(), pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _run_once(self) -> str:
        """Until it ends; says how.  A cancellation ends it.  Raises OSError."""
        door = -1 if self._door is None else await self._door()
        theirs, ours = os.pipe()
        try:
            self._at_start = self._settings
            # SIGHUP is blocked in a process that we start: until it can read its configuration
            # again, it would be its end.  `serve` lets it through.
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
            try:
                self._process = process = await self._started(theirs, door)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
                if door >= 0:
                    os.close(door)
                    door = -1
            os.close(theirs)
            theirs = -1
            try:
                code = await process.wait()
            except asyncio.CancelledError:
                await _end(process)
                raise
        finally:
            self._process = None
            os.close(ours)
            for left in (theirs, door):
                if left >= 0:
                    os.close(left)
        return f"ended by signal {-code}" if code < 0 else f"ended with exit code {code}"

    async def _started(self, pipe: int, door: int) -> Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # nothing is imported from the working directory
            "-m",
            self._program.module,
            str(self._path),
            str(pipe),
            str(door),
            *self._more,
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=(pipe, door) if door >= 0 else (pipe,),
            env={**os.environ, "PYTHONPATH": str(Path(oegw.__file__).resolve().parent.parent)},
        )


async def _end(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), END_PATIENCE)
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
