"""Texts by key, bounded in number, with what has changed since they were last written down."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable


class Shelf:
    """The least recently written comes first.  Of more than ``most``, those go first that strangers
    brought, then the oldest."""

    def __init__(self, entries: Iterable[tuple[str, str]], most: int) -> None:
        self._most = most
        self._texts: OrderedDict[str, str] = OrderedDict(entries)
        self._changed: dict[str, str | None] = {}
        self._guests: OrderedDict[str, None] = OrderedDict()  # keys that strangers brought
        while len(self._texts) > most:
            self._change(self._texts.popitem(last=False)[0], None)

    def __len__(self) -> int:
        return len(self._texts)

    def get(self, key: str) -> str | None:
        return self._texts.get(key)

    def put(self, key: str, text: str, guest: bool = False) -> None:
        """``guest``: a stranger brought it.  What they bring displaces only its like."""
        if guest and (key not in self._texts or key in self._guests):
            self._guests[key] = None
            self._guests.move_to_end(key)
        else:
            self._guests.pop(key, None)
        self._texts[key] = text
        self._texts.move_to_end(key)
        self._change(key, text)
        if len(self._texts) > self._most:
            self.drop(next(iter(self._guests or self._texts)))

    def drop(self, key: str) -> None:
        self._guests.pop(key, None)
        if self._texts.pop(key, None) is not None:
            self._change(key, None)

    def keys(self) -> list[str]:
        return list(self._texts)

    @property
    def overflowed(self) -> bool:
        """Whether the list of changes is longer than what there is to write."""
        return len(self._changed) > 2 * self._most

    @property
    def changed(self) -> bool:
        return bool(self._changed)

    def take(self, whole: bool) -> dict[str, str | None]:
        changed: dict[str, str | None] = {**self._texts} if whole else self._changed
        self._changed = {}
        return changed

    def _change(self, key: str, text: str | None) -> None:
        self._changed.pop(key, None)  # what was written last comes last
        self._changed[key] = text
