"""`oegw apply` in the daemon: another configuration taken into use, for good or on trial.

The clock of a trial is the daemon's.  So it falls back whatever becomes of the command, the
terminal or the connection by which it was begun, which may be what the new configuration has cut.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from oegw import applyrecord, config
from oegw.applyrecord import Record, RecordError
from oegw.decision import PointError
from oegw.environment import UnsuitableBox
from oegw.intercept.interface import InterceptError
from oegw.keys import KeyFileError
from oegw.settings import Settings
from oegw.sst.interface import SstError
from policy.errors import PolicyError

RELOAD_FAILURES = (
    config.ConfigError, PolicyError, UnsuitableBox, InterceptError, KeyFileError, PointError,
    SstError,
)  # fmt: skip
"""Why another configuration can't be taken into use; then nothing has changed."""

# Our choices, seconds.
AGAIN = 5.0  # between two tries to fall back
LONGEST_TRIAL = 7 * 86400.0

Use = Callable[[Settings], Awaitable[list[str]]]
Say = Callable[[str, str], None]
Spawn = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]


class ApplyError(Exception):
    """What was asked for can't be done now; the message says why."""


class Applying:
    """The configuration at ``path`` and whether it is in use.

    ``settings``: with which the daemon starts.  ``use`` goes over to others, and raises one of
    RELOAD_FAILURES; ``say`` tells the operator; ``spawn`` begins a task that ends with the daemon.
    """

    def __init__(self, path: Path, settings: Settings, use: Use, say: Say, spawn: Spawn) -> None:
        self._path = path
        self._at_start = self._settings = settings
        self._note = _note_of(path)  # why that is not what stands in the files
        self._use = use
        self._say = say
        self._spawn = spawn
        self._record = applyrecord.record_file(settings.gateway.state)
        self._before: Settings | None = None  # during a trial
        self._deadline = 0.0
        self._timer: asyncio.Task[None] | None = None
        self._alone = asyncio.Lock()

    # ------------------------------------------------------------- the files again

    async def read(self) -> Settings:
        """What is to be in use by the files as they are now.  Raises ConfigError."""
        found = await asyncio.to_thread(applyrecord.in_use, self._path)
        self._note = found.note
        return found.settings

    def taken(self, settings: Settings) -> list[str]:
        """Settings are in use now; returns what the operator should know."""
        if self._before is not None and settings.texts != self._settings.texts:
            self._goes_on(settings, self._before)
        self._settings = settings
        return self.notes()

    def _goes_on(self, settings: Settings, before: Settings) -> None:
        """The files were edited and read again during the trial, which is of them now."""
        if settings.texts == before.texts:
            return
        record = Record(applyrecord.digest_of(settings.texts), before.texts, False, time.time())
        try:
            applyrecord.write(self._record, record)
        except RecordError as error:
            self._say("apply", f"the next start may take {self._path}: {error}")

    def notes(self) -> list[str]:
        """What the operator should know of the configuration in use."""
        hidden = [path for path, _ in self._settings.texts if not os.access(path, os.R_OK)]
        notes = [f"{path}: only root may read it, so a reload will fail" for path in hidden]
        if self._before is not None:
            left = max(0.0, self._deadline - time.monotonic())
            return [*notes, f"the configuration in use is on trial: without oegw confirm, the one "
                            f"before it is in use again in {left:.0f} s"]  # fmt: skip
        return [*notes, self._note] if self._note else notes

    def row(self) -> dict[str, Any]:
        """What `oegw status --json` says of it."""
        trial = self._before is not None
        left = round(max(0.0, self._deadline - time.monotonic()), 3) if trial else None
        state = "on trial" if trial else "refused" if self._note else "in use"
        return {"file": str(self._path), "state": state, "seconds_left": left}

    def texts(self) -> dict[str, list[list[str]]]:
        """The files as they were read: of the configuration in use, and of the one at the start."""
        return {"files": _plain(self._settings), "at_start": _plain(self._at_start)}

    # ---------------------------------------------------------------------- apply

    def meant(self, file: str | None) -> None:
        """``file``: the configuration that somebody means, if they say so.  Raises ApplyError."""
        if file is not None and Path(file).resolve() != self._path.resolve():
            raise ApplyError(f"the running gateway has {self._path}, and not {file}")

    async def apply(self, file: str | None, seconds: float | None) -> list[str]:
        """Take what stands in the files into use; with ``seconds`` on trial.

        ``file``: the configuration that is meant, if that is not sure.  Returns notes.  Raises
        ApplyError, ConfigError and what ``use`` does: then nothing has changed.
        """
        async with self._alone:
            self.meant(file)
            if seconds is None and self._before is not None:
                raise ApplyError("a configuration is on trial: oegw confirm, or confirm --refuse")
            settings = await asyncio.to_thread(config.load, self._path)
            if seconds is None:
                return await self._for_good(settings)
            return await self._on_trial(settings, seconds)

    async def _for_good(self, settings: Settings) -> list[str]:
        old = await self._old_record()
        await self._forget()  # first: what it says of these files does not hold any more
        try:
            notes = await self._take(settings)
        except BaseException:
            self._put_back(old)
            raise
        return notes

    async def _on_trial(self, settings: Settings, seconds: float) -> list[str]:
        if settings.gateway.state != self._settings.gateway.state:
            raise ApplyError("gateway.state changed: that can't be tried, it takes a restart")
        before = self._before or self._settings
        if not before.texts:
            raise ApplyError("there is no configuration to fall back to")
        if settings == before and self._before is None:  # files of prefixes included
            return [*await self._take(settings), "nothing in it has changed: that needs no trial"]
        self._deadline = time.monotonic() + seconds
        old = await self._old_record()
        await self._write(settings, before, refused=False)  # first: a crash may come at any time
        try:
            notes = await self._take(settings)
        except RELOAD_FAILURES:
            self._put_back(old)
            raise
        except BaseException:  # nobody knows how far it came
            self._begin(before, seconds)
            raise
        self._begin(before, seconds)
        return notes

    def _begin(self, before: Settings, seconds: float) -> None:
        self._before = before
        self._wait(seconds)

    async def _old_record(self) -> Record | None:
        try:
            return await asyncio.to_thread(applyrecord.read, self._record)
        except RecordError:
            return None

    def _put_back(self, old: Record | None) -> None:
        with suppress(RecordError):
            if old is None:
                applyrecord.remove(self._record)
            else:
                applyrecord.write(self._record, old)

    async def confirm(self) -> None:
        """The trial is a success.  Raises ApplyError if there is none."""
        async with self._alone:
            self._of_trial()
            await self._forget()
            self._end()

    async def refuse(self) -> None:
        """Fall back now.  Raises ApplyError if there is nothing to fall back from."""
        self._of_trial()
        await self._fall_back()

    # --------------------------------------------------------------------- falling back

    def _wait(self, seconds: float) -> None:
        self._stop_waiting()
        self._deadline = time.monotonic() + seconds
        self._timer = self._spawn(self._when_over(seconds))

    async def _when_over(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._timer = None  # what follows must not be cancelled in its middle
        await self._fall_back()

    async def _fall_back(self) -> None:
        async with self._alone:
            if self._before is None:  # confirmed meanwhile
                return
            try:
                await self._write(self._settings, self._before, refused=True)
            except ApplyError as error:
                self._say("apply", f"the next start may take {self._path}: {error}")
            try:
                await self._use(self._before)
            except RELOAD_FAILURES as error:
                self._say("apply", f"can't fall back, again in {AGAIN:g} s: {error}")
                self._wait(AGAIN)
                return
            self._note = (
                f"{self._path} was not confirmed: what was in use before it is in use again; edit "
                "the file, or take it over all the same by oegw apply"
            )
            self._end()
            self._say("apply", self._note)

    async def _take(self, settings: Settings) -> list[str]:
        note, self._note = self._note, ""
        try:
            return await self._use(settings)
        except BaseException:
            self._note = note
            raise

    async def _write(self, tried: Settings, before: Settings, *, refused: bool) -> None:
        digest = applyrecord.digest_of(tried.texts)
        record = Record(digest, before.texts, refused, time.time())
        try:
            await asyncio.to_thread(applyrecord.write, self._record, record)
        except RecordError as error:
            raise ApplyError(str(error)) from error

    async def _forget(self) -> None:
        try:
            await asyncio.to_thread(applyrecord.remove, self._record)
        except RecordError as error:
            raise ApplyError(str(error)) from error

    def _of_trial(self) -> None:
        if self._before is None:
            raise ApplyError("no configuration is on trial")

    def _end(self) -> None:
        self._before = None
        self._stop_waiting()

    def _stop_waiting(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()


def _plain(settings: Settings) -> list[list[str]]:
    return [[str(path), text] for path, text in settings.texts]


def _note_of(path: Path) -> str:
    try:
        return applyrecord.in_use(path).note
    except config.ConfigError:  # edited since the start
        return ""
