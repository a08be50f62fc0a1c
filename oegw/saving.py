"""When what is remembered is written down: in batches, by another thread, as the disk keeps up.

A disk that hangs costs memory for one batch, not for all that comes.  After a batch that could not
be written, everything is: a verdict that was withdrawn must not stay on the disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor

from oegw.lasting import Lasting, LastingChanges
from oegw.memory import Changes, KeyMemory

PAUSE = 1.0  # seconds between two batches
AFTER_FAILURE = 30.0  # the same after one that could not be written: the operator is told each time

Batch = tuple[Changes, LastingChanges]


class Saving:
    """``disk``: one thread; ``save``: writes a batch down there, and says whether it could."""

    def __init__(
        self,
        disk: Executor,
        save: Callable[[Batch], bool],
        memory: KeyMemory,
        lasting: Lasting,
    ) -> None:
        self._disk = disk
        self._save = save
        self._memory = memory
        self._lasting = lasting
        self._timer: asyncio.TimerHandle | None = None
        self._ended = False

    def begin(self) -> None:
        """From now on, until ``end``."""
        self._again()

    def look(self) -> None:
        """Something has happened: is there what must not wait for the next batch?"""
        if self._lasting.urgent and self._timer is not None:
            self._timer.cancel()
            self._write()

    def last(self) -> None:
        """Have the rest written down."""
        self.end()
        self._disk.submit(self._save, self._batch())

    def end(self) -> None:
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _batch(self) -> Batch:
        return self._memory.take_changes(), self._lasting.take_changes()

    def _written(self, done: asyncio.Future[bool]) -> None:
        if done.cancelled() or done.result():
            self._again()
            return
        self._memory.write_all()
        self._lasting.write_all()
        self._again(AFTER_FAILURE)

    def _again(self, pause: float = PAUSE) -> None:
        if self._ended:
            return
        if self._lasting.urgent:
            pause = 0.0
        self._timer = asyncio.get_running_loop().call_later(pause, self._write)

    def _write(self) -> None:
        self._timer = None
        if not (self._memory.changed or self._lasting.changed):
            self._again()
            return
        loop = asyncio.get_running_loop()
        written = loop.run_in_executor(self._disk, self._save, self._batch())
        written.add_done_callback(self._written)
