"""The SQLite file of what must survive a crash.

`contacts.py` and `memorytable.py` have tables in it.  Not to be shared by two gateways.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

# What makes a file of each version one of the next; the version is SQLite's user_version.  A new
# table is a new version, too: an older program would leave in it what is true no longer.
_STEPS = (
    (  # from nothing, or from a start that was cut short
        "CREATE TABLE IF NOT EXISTS contact (identity TEXT PRIMARY KEY)",
        "CREATE TABLE IF NOT EXISTS pair (selectors TEXT PRIMARY KEY, gateway TEXT NOT NULL)",
        "CREATE TABLE IF NOT EXISTS gateway (identity TEXT PRIMARY KEY, key TEXT NOT NULL)",
    ),
    (
        "CREATE TABLE verdict (pair TEXT PRIMARY KEY, verdict TEXT NOT NULL)",
        "CREATE TABLE silence (gateway TEXT PRIMARY KEY, until TEXT NOT NULL)",
    ),
)
_VERSION = len(_STEPS)
_COLUMNS = {
    "contact": "identity",
    "pair": "selectors, gateway",
    "gateway": "identity, key",
    "verdict": "pair, verdict",
    "silence": "gateway, until",
}
# Of the errors that SQLite calls operational: our statements do not fit the file; there is no room.
_DAMAGED = frozenset((sqlite3.SQLITE_ERROR,))
_NO_ROOM = frozenset((sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR))


class StateError(Exception):
    """The file can't be used; the message names it and says why."""


class StateFile:
    """An open file with all its tables.  Used from one worker thread at a time."""

    def __init__(self, path: Path) -> None:
        """Open or make the file.  A damaged one is set aside, and without room on the disk what is
        remembered is lost at the end; see ``note``.

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
            except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
                if _code(error) in _NO_ROOM:
                    self.database = self._in_memory()
                    self.note = f"{path}: {error}; what is remembered is lost at the end"
                    return
                if isinstance(error, sqlite3.OperationalError) and _code(error) not in _DAMAGED:
                    raise  # no access, locked, of somebody else
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
        return _made_ready(database)

    def _in_memory(self) -> sqlite3.Connection:
        """What is in the file, as far as it can be read without writing beside it."""
        try:
            database = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            with closing(
                sqlite3.connect(f"{self._path.absolute().as_uri()}?immutable=1", uri=True)
            ) as there:
                there.backup(database)
            return _made_ready(database)
        except (sqlite3.Error, UnicodeDecodeError):
            database = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            return _made_ready(database)

    def trouble(self) -> Trouble:
        """``with file.trouble():`` SQLite's errors in it become StateError."""
        return Trouble(self._path)

    def close(self) -> None:
        with suppress(sqlite3.Error):
            self.database.close()


def _made_ready(database: sqlite3.Connection) -> sqlite3.Connection:
    """The same, sound and with our tables.  Raises sqlite3.Error, and has closed it then."""
    # What is damaged in a text makes it another text, which nobody finds or understands.
    database.text_factory = lambda octets: octets.decode(errors="replace")
    try:
        if (version := _version(database)) > _VERSION:  # nothing of it is touched
            raise sqlite3.OperationalError(
                f"written by a newer oegw (version {version}, and this one knows up to "
                f"{_VERSION}): install that one again, or move the file away"
            )
        [(sound,)] = database.execute("PRAGMA quick_check(1)").fetchall()
        if sound != "ok":
            raise sqlite3.DatabaseError(sound.splitlines()[0])
        _refuse_strangers(database)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        _bring_up_to_date(database)
        for table, columns in _COLUMNS.items():
            database.execute(f"SELECT {columns} FROM {table} LIMIT 0")
    except BaseException:
        database.close()
        raise
    return database


def _refuse_strangers(database: sqlite3.Connection) -> None:
    """Raises sqlite3.OperationalError for a database that is another program's."""
    names = {name for (name,) in database.execute("SELECT name FROM sqlite_schema")}
    tables = {name for name in names if not name.startswith("sqlite_")}
    if tables and tables.isdisjoint(_COLUMNS):
        raise sqlite3.OperationalError("is the database of another program")


def _code(error: Exception) -> int | None:
    """SQLite's, without what is said more exactly; None for what is not SQLite's."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _version(database: sqlite3.Connection) -> int:
    return int(database.execute("PRAGMA user_version").fetchone()[0])


def _bring_up_to_date(database: sqlite3.Connection) -> None:
    """Take all steps that are missing, or none: a power cut leaves what was there."""
    database.execute("BEGIN IMMEDIATE")
    try:
        done = max(_version(database), 0)
        for number, step in enumerate(_STEPS[done:], done + 1):
            for statement in step:
                database.execute(statement)
            database.execute(f"PRAGMA user_version = {number}")
        database.execute("COMMIT")
    except BaseException:
        roll_back(database)
        raise


def roll_back(database: sqlite3.Connection) -> None:
    """What was begun, unless SQLite has done it already, as it does on a full disk."""
    if database.in_transaction:
        database.execute("ROLLBACK")


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
