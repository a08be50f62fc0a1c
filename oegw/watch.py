"""Whether files of the policy have changed, so that they are read again by themselves."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

Stamps = dict[Path, tuple[int, int, int] | None]


def stamps_of(paths: Iterable[Path]) -> Stamps:
    """What tells one state of a file from another; None for one that can't be looked at."""
    stamps: Stamps = {}
    for path in paths:
        try:
            found = path.stat()
        except OSError:
            stamps[path] = None
        else:
            stamps[path] = found.st_mtime_ns, found.st_size, found.st_ino
    return stamps


class Watch:
    """Says once that files have changed, when they have come to rest.

    A file that is being written may look complete: so it has to be the same at two looks.
    """

    def __init__(self, known: Stamps) -> None:
        self._known = known
        self._moving: Stamps | None = None

    def has_changed(self, stamps: Stamps) -> bool:
        """Take in what the files look like now."""
        if stamps == self._known:
            self._moving = None
            return False
        if stamps != self._moving:
            self._moving = stamps
            return False
        self._known, self._moving = stamps, None
        return True
