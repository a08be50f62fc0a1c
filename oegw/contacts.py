"""Peers that may hold tunnels of ours, on disk: whom to tell INITIAL-CONTACT after a crash.

RFC 4322 section 9.3 asks for this memory; RFC 2407 section 4.6.3.3 defines the notify.
A clean stop deletes all tunnels and leaves the table empty.
"""

from __future__ import annotations

from ipaddress import ip_address

from ike.events import Identity
from ike.identity import normal_identity
from oegw.statefile import StateFile


class Contacts:
    """A set of identities that survives the process."""

    def __init__(self, file: StateFile) -> None:
        self._file = file

    def all(self) -> frozenset[Identity]:
        """Those remembered.  Raises StateError."""
        with self._file.trouble():
            rows = self._file.database.execute("SELECT identity FROM contact").fetchall()
        found = (_identity(text) for (text,) in rows if isinstance(text, str))
        return frozenset(identity for identity in found if identity is not None)

    def remember(self, identity: Identity) -> None:
        """Add one, durably.  Raises StateError."""
        with self._file.trouble():
            self._file.database.execute(
                "INSERT OR IGNORE INTO contact VALUES (?)", (_text(identity),)
            )

    def forget(self, identity: Identity) -> None:
        """Remove one.  Raises StateError."""
        with self._file.trouble():
            self._file.database.execute(
                "DELETE FROM contact WHERE identity = ?", (_text(identity),)
            )


def _text(identity: Identity) -> str:
    return "@" + identity if isinstance(identity, str) else str(identity)


def _identity(text: str) -> Identity | None:
    """None for what was not written by us."""
    try:
        return normal_identity(text[1:]) if text.startswith("@") else ip_address(text)
    except ValueError:
        return None
