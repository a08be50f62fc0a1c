"""What is remembered, on disk: tables of the state file, written in batches off the event loop."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from oegw.lasting import VERDICTS_MOST, Lasting, LastingChanges
from oegw.memory import REMEMBERED_MOST, Changes, KeyMemory
from oegw.statefile import StateFile, roll_back

# A row that is written again gets a new rowid, so their order is that of the writing.
_READ = {
    "pair": "SELECT selectors, gateway FROM pair ORDER BY rowid DESC LIMIT ?",
    "gateway": "SELECT identity, key FROM gateway ORDER BY rowid DESC LIMIT ?",
    "verdict": "SELECT pair, verdict FROM verdict ORDER BY rowid DESC LIMIT ?",
    "silence": "SELECT gateway, until FROM silence ORDER BY rowid DESC LIMIT ?",
}
_CLEAR = {
    "pair": "DELETE FROM pair",
    "gateway": "DELETE FROM gateway",
    "verdict": "DELETE FROM verdict",
    "silence": "DELETE FROM silence",
}
_WRITE = {
    "pair": "INSERT OR REPLACE INTO pair VALUES (?, ?)",
    "gateway": "INSERT OR REPLACE INTO gateway VALUES (?, ?)",
    "verdict": "INSERT OR REPLACE INTO verdict VALUES (?, ?)",
    "silence": "INSERT OR REPLACE INTO silence VALUES (?, ?)",
}
_DROP = {
    "pair": "DELETE FROM pair WHERE selectors = ?",
    "gateway": "DELETE FROM gateway WHERE identity = ?",
    "verdict": "DELETE FROM verdict WHERE pair = ?",
    "silence": "DELETE FROM silence WHERE gateway = ?",
}

_BOOT = Path("/proc/sys/kernel/random/boot_id")  # random(4)


def boot_of_box() -> str:
    """What names this boot of the system; empty if that can't be read."""
    try:
        return _BOOT.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


class MemoryTable:
    """What of `KeyMemory` and `Lasting` outlives the process.

    A crash costs what was not written yet.
    """

    def __init__(self, file: StateFile) -> None:
        self._file = file

    def load(self, most: int = REMEMBERED_MOST) -> KeyMemory:
        """What was saved, the most recent ``most`` of each kind.  Raises StateError."""
        return KeyMemory(self._read("pair", most), self._read("gateway", most), most)

    def load_lasting(self, boot: str, basis: str, most: int = VERDICTS_MOST) -> Lasting:
        """What was learned for a while, the same.  Raises StateError."""
        verdicts, silences = self._read("verdict", most), self._read("silence", most)
        return Lasting(boot, basis, verdicts, silences, most)

    def _read(self, table: str, most: int) -> list[tuple[str, str]]:
        with self._file.trouble():
            rows = self._file.database.execute(_READ[table], (most,)).fetchall()
        return [row for row in reversed(rows) if all(isinstance(text, str) for text in row)]

    def save(self, *changes: Changes | LastingChanges) -> None:
        """Write ``changes`` down, all or nothing.  Raises StateError."""
        database = self._file.database
        with self._file.trouble():
            database.execute("BEGIN IMMEDIATE")
            try:
                for each in changes:
                    self._save(each.tables, each.whole)
                database.execute("COMMIT")
            except BaseException:
                roll_back(database)
                raise

    def _save(self, tables: Mapping[str, Mapping[str, str | None]], whole: bool) -> None:
        for table, entries in tables.items():
            if whole:
                self._file.database.execute(_CLEAR[table])
            self._write(table, entries)

    def _write(self, table: str, entries: Mapping[str, str | None]) -> None:
        database = self._file.database
        gone = [(key,) for key, text in entries.items() if text is None]
        kept = [(key, text) for key, text in entries.items() if text is not None]
        database.executemany(_DROP[table], gone)
        database.executemany(_WRITE[table], kept)
