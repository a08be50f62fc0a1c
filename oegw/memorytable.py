"""The key memory on disk: two tables of the state file, written in batches off the event loop."""

from __future__ import annotations

from collections.abc import Mapping

from oegw.memory import REMEMBERED_MOST, Changes, KeyMemory
from oegw.statefile import StateFile

# A row that is written again gets a new rowid, so their order is that of the writing.
_READ = {
    "pair": "SELECT selectors, gateway FROM pair ORDER BY rowid DESC LIMIT ?",
    "gateway": "SELECT identity, key FROM gateway ORDER BY rowid DESC LIMIT ?",
}
_CLEAR = {"pair": "DELETE FROM pair", "gateway": "DELETE FROM gateway"}
_WRITE = {
    "pair": "INSERT OR REPLACE INTO pair VALUES (?, ?)",
    "gateway": "INSERT OR REPLACE INTO gateway VALUES (?, ?)",
}
_DROP = {
    "pair": "DELETE FROM pair WHERE selectors = ?",
    "gateway": "DELETE FROM gateway WHERE identity = ?",
}


class MemoryTable:
    """What of `KeyMemory` outlives the process.  A crash costs what was not written yet."""

    def __init__(self, file: StateFile) -> None:
        self._file = file

    def load(self, most: int = REMEMBERED_MOST) -> KeyMemory:
        """What was saved, the most recent ``most`` of each kind.  Raises StateError."""
        return KeyMemory(self._read("pair", most), self._read("gateway", most), most)

    def _read(self, table: str, most: int) -> list[tuple[str, str]]:
        with self._file.trouble():
            rows = self._file.database.execute(_READ[table], (most,)).fetchall()
        return [row for row in reversed(rows) if all(isinstance(text, str) for text in row)]

    def save(self, changes: Changes) -> None:
        """Write ``changes`` down, all or nothing.  Raises StateError."""
        database = self._file.database
        with self._file.trouble():
            database.execute("BEGIN IMMEDIATE")
            try:
                for table, entries in (("pair", changes.pairs), ("gateway", changes.gateways)):
                    if changes.whole:
                        database.execute(_CLEAR[table])
                    self._write(table, entries)
            except BaseException:
                database.execute("ROLLBACK")
                raise
            database.execute("COMMIT")

    def _write(self, table: str, entries: Mapping[str, str | None]) -> None:
        database = self._file.database
        gone = [(key,) for key, text in entries.items() if text is None]
        kept = [(key, text) for key, text in entries.items() if text is not None]
        database.executemany(_DROP[table], gone)
        database.executemany(_WRITE[table], kept)
