"""Peers that may hold tunnels of ours, on disk: whom to tell INITIAL-CONTACT after a crash.

RFC 4322 section 9.3 asks for this memory; RFC 2407 section 4.6.3.3 defines the notify.
A clean stop deletes all tunnels and leaves the file empty.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

from ike.events import Identity
from ike.identity import normal_identity

_VERSION = 1  # of the tables, in SQLite's user_version


class StateError(Exception):
    """The file can't be used; the message names it and says why."""


class Contacts:
    """A set of identities that survives the process.  Not to be shared by two gateways."""

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
                self._database = self._open()
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
                self._database = self._open()
        except (OSError, sqlite3.Error) as error:
            reason = getattr(error, "strerror", None) or error
            raise StateError(f"gateway.state: {path}: {reason}") from error

    def _open(self) -> sqlite3.Connection:
        # Used from one worker thread at a time; the daemon sees to the order.
        database = sqlite3.connect(
            self._path, timeout=1.0, isolation_level=None, check_same_thread=False
        )
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version not in (0, _VERSION):
                raise sqlite3.OperationalError(f"written by a newer oegw (version {version})")
            database.execute("CREATE TABLE IF NOT EXISTS contact (identity TEXT PRIMARY KEY)")
            database.execute(f"PRAGMA user_version = {_VERSION}")
            [(sound,)] = database.execute("PRAGMA quick_check(1)").fetchall()
            if sound != "ok":
                raise sqlite3.DatabaseError(sound.splitlines()[0])
        except sqlite3.Error:
            database.close()
            raise
        return database

    def all(self) -> frozenset[Identity]:
        """Those remembered.  Raises StateError."""
        with self._trouble():
            rows = self._database.execute("SELECT identity FROM contact").fetchall()
        found = (_identity(text) for (text,) in rows)
        return frozenset(identity for identity in found if identity is not None)

    def remember(self, identity: Identity) -> None:
        """Add one, durably.  Raises StateError."""
        with self._trouble():
            self._database.execute("INSERT OR IGNORE INTO contact VALUES (?)", (_text(identity),))

    def forget(self, identity: Identity) -> None:
        """Remove one.  Raises StateError."""
        with self._trouble():
            self._database.execute("DELETE FROM contact WHERE identity = ?", (_text(identity),))

    def close(self) -> None:
        with suppress(sqlite3.Error):
            self._database.close()

    def _trouble(self) -> _Trouble:
        return _Trouble(self._path)


def _may_be_ours(path: Path) -> bool:
    """Whether it was a database once: what never was is somebody else's file, and stays."""
    with path.open("rb") as file:
        head = file.read(16)
    return head == b"SQLite format 3\0" or not any(head)


class _Trouble:
    """Turns SQLite's errors into ours."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, sqlite3.Error):
            raise StateError(f"gateway.state: {self._path}: {error}") from error


def _text(identity: Identity) -> str:
    return "@" + identity if isinstance(identity, str) else str(identity)


def _identity(text: str) -> Identity | None:
    """None for what was not written by us."""
    try:
        return normal_identity(text[1:]) if text.startswith("@") else ip_address(text)
    except ValueError:
        return None
