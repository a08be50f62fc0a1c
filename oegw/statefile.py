"""The SQLite file of what must survive a crash.

`contacts.py` and `memorytable.py` have tables in it.  Not to be shared by two gateways.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from pathlib import Path

_VERSION = 1  # of the tables, in SQLite's user_version; a new table is no new version
_TABLES = (
    "CREATE TABLE IF NOT EXISTS contact (identity TEXT PRIMARY KEY)",
    "CREATE TABLE IF NOT EXISTS pair (selectors TEXT PRIMARY KEY, gateway TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS gateway (identity TEXT PRIMARY KEY, key TEXT NOT NULL)",
)


class StateError(Exception):
    """The file can't be used; the message names it and says why."""


class StateFile:
    """An open file with all its tables.  Used from one worker thread at a time."""

    def __init__(self, path: Path) -> None:
        """Open or make the file.  A file that is no database is set aside; see ``note``.

        Raises StateError.
        """
        self.note = ""
        self._path = path
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Whom we talk to is nobody's business; SQLite's other files get the same mode.
            with suppress(OSError):  # SQLite says what is wrong
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            try:
                self.database = self._open()
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError):  # no access, no space, locked
                    raise
                if not _may_be_ours(path):
                    raise
                aside = path.with_name(path.name + ".corrupt")
                for suffix in ("-wal", "-shm"):
                    path.with_name(path.name + suffix).unlink(missing_ok=True)
                path.replace(aside)
                self.note = f"{path}: {error}; set aside as {aside.name}"
                self.database = self._open()
        except (OSError, sqlite3.Error) as error:
            reason = getattr(error, "strerror", None) or error
            raise StateError(f"gateway.state: {path}: {reason}") from error

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(
            self._path, timeout=1.0, isolation_level=None, check_same_thread=False
        )
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version not in (0, _VERSION):
                raise sqlite3.OperationalError(f"written by a newer oegw (version {version})")
            for table in _TABLES:
                database.execute(table)
            database.execute(f"PRAGMA user_version = {_VERSION}")
            [(sound,)] = database.execute("PRAGMA quick_check(1)").fetchall()
            if sound != "ok":
                raise sqlite3.DatabaseError(sound.splitlines()[0])
        except sqlite3.Error:
            database.close()
            raise
        return database

    def trouble(self) -> Trouble:
        """``with file.trouble():`` SQLite's errors in it become StateError."""
        return Trouble(self._path)

    def close(self) -> None:
        with suppress(sqlite3.Error):
            self.database.close()


def _may_be_ours(path: Path) -> bool:
    """Whether it was a database once: what never was is somebody else's file, and stays."""
    with path.open("rb") as file:
        head = file.read(16)
    return head == b"SQLite format 3\0" or not any(head)


class Trouble:
    """Turns SQLite's errors into ours."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, sqlite3.Error):
            raise StateError(f"gateway.state: {self._path}: {error}") from error
