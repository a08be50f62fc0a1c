"""The file of the trace: whole lines, appended.  A disk that is full costs lines, and nothing else.

The gateway, and the daemons beside it, append to the same file; each line is one write.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


class TraceFile:
    """Where `JsonTrace` writes.  What can't be written is told once, and counted in the file."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        """Raises OSError, whose reason names key and file."""
        self._name = f"gateway.trace: {path}"
        self._clock = clock
        self._lost = 0
        self._torn = False
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
        try:  # a pipe without a reader must not stop us: it is an error, and a full one loses lines
            self._descriptor = os.open(path, flags | os.O_NONBLOCK, 0o666)
        except OSError as error:
            raise OSError(error.errno, f"{self._name}: {error.strerror}") from error

    def write(self, line: str) -> None:
        """Append a line, or count it."""
        octets = line.encode("utf-8", "backslashreplace")
        if self._lost:
            told = {
                "time": round(self._clock(), 6), "category": "trace", "event": "lost",
                "lines": self._lost,
            }  # fmt: skip
            octets = json.dumps(told).encode() + b"\n" + octets
        if self._torn:  # half a line stands there
            octets = b"\n" + octets
        try:
            written = os.write(self._descriptor, octets)
        except OSError as error:
            self._miss(error.strerror or str(error))
            return
        if written < len(octets):
            self._torn = True
            self._miss("not the whole line fits in")
            return
        if self._lost:
            self._say(f"recorded again; {self._lost} events were lost")
        self._lost, self._torn = 0, False

    def _miss(self, reason: str) -> None:
        if not self._lost:
            self._say(f"{reason}: events are not recorded")
        self._lost += 1

    def _say(self, text: str) -> None:
        with suppress(OSError):  # that may be the same disk
            print(f"oegw: {self._name}: {text}", file=sys.stderr, flush=True)

    def close(self) -> None:
        os.close(self._descriptor)


def trace_file(path: Path | None, clock: Callable[[], float]) -> TraceFile | None:
    """None where there is no trace.  Raises OSError."""
    return None if path is None else TraceFile(path, clock)
