"""The audit log: a line for each decision that a packet goes in clear, not at all, or encrypted.

It listens to the trace (`decided.py`); a thread writes, so that a disk may take its time.  What it
can't write is counted and told, once: the gateway goes on.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import stat
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

# Our choices.
WAITING_MOST = 16384  # lines that a slow disk may be behind
AT_ONCE = 256  # lines in one write
PATIENCE = 5.0  # seconds that the end waits for a disk
MODE = 0o640  # as Debian's logs: a group of readers

_BEGUN = ("clear", "deny", "encrypt")
_LIFE = ("started", "reloaded", "stopping", "failed")  # of the gateway: with it all decisions end


@dataclass(frozen=True, slots=True)
class AuditSettings:
    """``file``: where the lines are appended; None (the default): nowhere."""

    file: Path | None = None


def audit_line(line: Mapping[str, Any]) -> dict[str, Any] | None:
    """What of a line of the trace belongs into the audit log; None if it is about no decision."""
    if not _belongs(line):
        return None
    moment = float(line["time"])
    event = str(line["event"])
    fields = {name: line[name] for name in line if name not in ("time", "category", "event")}
    told: dict[str, Any] = {
        "time": moment,
        "at": datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds"),
        "event": event,
    }
    if line["category"] == "gateway":
        return told | {name: fields[name] for name in ("pid", "reason") if name in fields}
    if event in _BEGUN:
        told["event"] = "renewed" if fields.pop("renewed", False) else "begun"
        told["decision"] = event
    fields["category"] = fields.pop("rule_category", None)
    return told | {name: _plain(value) for name, value in fields.items() if value is not None}


def _belongs(line: Mapping[str, Any]) -> bool:
    return line["category"] == "verdict" or (
        line["category"] == "gateway" and line["event"] in _LIFE
    )


def _plain(value: object) -> object:
    """A host without the length of its prefix; what JSON doesn't know as text."""
    if isinstance(value, IPv4Network | IPv6Network) and value.prefixlen == value.max_prefixlen:
        return str(value.network_address)
    return value if isinstance(value, str | int | float | bool) else str(value)


class AuditFile:
    """The file: opened to append, whole lines, given back as it was where one can't be written."""

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        self.path = path
        self._descriptor = _opened(path)

    def write(self, octets: bytes) -> None:
        """Append whole lines, all or none.  Raises OSError."""
        before = os.fstat(self._descriptor)
        written = 0
        try:
            while written < len(octets):
                written += os.write(self._descriptor, octets[written:])
        except OSError:
            if written and stat.S_ISREG(before.st_mode):  # no half a line for the next to follow
                os.ftruncate(self._descriptor, before.st_size)
            raise

    def reopen(self) -> None:
        """The file may have been renamed (logrotate).  Raises OSError; the old one stays open."""
        fresh = _opened(self.path)
        os.close(self._descriptor)
        self._descriptor = fresh

    def close(self) -> None:
        os.close(self._descriptor)


def _opened(path: Path) -> int:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, MODE)
    except FileExistsError:
        descriptor = os.open(path, flags)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)  # a pipe's reader could keep us waiting, or read half a line
        raise OSError(errno.EINVAL, "is no regular file", str(path)) from None
    os.fchmod(descriptor, MODE)  # whatever the umask took away
    return descriptor


class AuditThread:
    """A listener of the trace with a thread behind it.  ``say`` tells the operator; it is called
    from that thread."""

    def __init__(self, file: AuditFile, say: Callable[[str], None]) -> None:
        self._file = file
        self._say = say
        self._wake = threading.Condition()
        self._waiting: deque[Mapping[str, Any]] = deque()
        self._reopening = self._closing = False
        self._lost = 0
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()

    @property
    def path(self) -> Path:
        return self._file.path

    def listen(self, line: Mapping[str, Any]) -> None:
        """Take a line of the trace; never waits."""
        if not _belongs(line):
            return
        with self._wake:
            if len(self._waiting) >= WAITING_MOST:
                self._lost += 1
                return
            self._waiting.append(line)
            self._wake.notify()

    def reopen(self) -> None:
        """The file may have another name now."""
        with self._wake:
            self._reopening = True
            self._wake.notify()

    def close(self) -> None:
        """Write what waits, as far as the disk lets us."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(PATIENCE)

    def _run(self) -> None:
        closing = False
        while not closing:
            with self._wake:
                self._wake.wait_for(lambda: self._waiting or self._reopening or self._closing)
                reopening, self._reopening = self._reopening, False
                closing = self._closing
                batch = [self._waiting.popleft() for _ in range(min(AT_ONCE, len(self._waiting)))]
                closing = closing and not self._waiting
                lost, self._lost = self._lost, 0
            self._write(batch, lost, reopening=reopening)
        self._file.close()

    def _write(self, batch: list[Mapping[str, Any]], lost: int, *, reopening: bool) -> None:
        lines = [told for line in batch if (told := audit_line(line)) is not None]
        number = len(lines)
        if lost and lines:
            lines.insert(0, {"time": lines[0]["time"], "event": "lost", "lines": lost})
        octets = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        if reopening:
            try:
                self._file.reopen()
            except OSError as error:
                self._say(_in_words(self.path, error) + ": the file before is still in use")
        try:
            if octets:
                self._file.write(octets)
        except OSError as error:
            with self._wake:
                self._lost += lost + number
            if not self._failing:
                self._failing = True
                self._say(_in_words(self.path, error) + ": decisions are not recorded")
            return
        if lost and octets:
            self._failing = False
            self._say(f"audit.file: {self.path}: recorded again; {lost} lines were lost")


class Audit:
    """The audit log as the daemon has it: none, or one that `follow` has opened."""

    def __init__(
        self, listeners: list[Callable[[Mapping[str, Any]], None]], say: Callable[[str], None]
    ) -> None:
        """``listeners``: those of the trace.  ``say`` is called in the event loop."""
        self._listeners = listeners
        self._say = say
        self._thread: AuditThread | None = None

    def follow(self, settings: AuditSettings) -> None:
        """Write where the settings say.  Raises OSError, and then all is as before."""
        loop = asyncio.get_running_loop()

        def say(text: str) -> None:
            with suppress(RuntimeError):  # the loop is gone: the disk took longer than our end
                loop.call_soon_threadsafe(self._say, text)

        if settings.file == (self._thread and self._thread.path):
            return
        try:
            file = None if settings.file is None else AuditFile(settings.file)
        except OSError as error:
            assert settings.file is not None
            raise OSError(error.errno, _in_words(settings.file, error)) from error
        self.close()
        if file is not None:
            self._thread = AuditThread(file, say)
            self._listeners.append(self._thread.listen)

    def moved(self, settings: AuditSettings) -> list[str]:
        """The same after a reload; what can't be is a note for the operator."""
        try:
            self.follow(settings)
        except OSError as error:
            return [f"{error.strerror}: the audit log stays where it was"]
        return []

    def reopen(self) -> None:
        """The file may have another name now."""
        if self._thread is not None:
            self._thread.reopen()

    def close(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            self._listeners.remove(thread.listen)
            thread.close()


def _in_words(path: Path, error: OSError) -> str:
    return f"audit.file: {path}: {error.strerror or error}"
