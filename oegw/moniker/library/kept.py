"""What this process has registered, and what is said about it to the daemon.  Without IO.

    connected() -> requests          all that is kept is registered again (MK-31)
    keep(), change(), drop() -> requests, where there is a connection
    received(line) -> events
    lost()                           nothing is registered until there is a connection again

A request carries the key of what it is about, so that the socket can go along with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from oegw.moniker.localwire import MAX_LINE_OCTETS
from oegw.moniker.names import MonikerError


class DaemonConfused(MonikerError):  # noqa: N818  (it names the fact)
    """What the daemon sent can't be read; the text says why."""


@dataclass(frozen=True, slots=True)
class Request:
    """``line`` with its end.  ``socket_of``: the key of what was kept whose socket goes along."""

    line: bytes
    socket_of: int | None = None


@dataclass(frozen=True, slots=True)
class Registered:
    key: int
    namespace: str


@dataclass(frozen=True, slots=True)
class Refused:
    """``first``: it never was registered, and is kept no longer; else it was before."""

    key: int
    code: str
    text: str
    first: bool


@dataclass(frozen=True, slots=True)
class Changed:
    key: int


@dataclass(frozen=True, slots=True)
class Dropped:
    key: int


@dataclass(frozen=True, slots=True)
class ChangeRefused:
    key: int
    code: str
    text: str


@dataclass(frozen=True, slots=True)
class HandedOver:
    """A connection that the daemon accepted; ``key`` None: for nothing that we have."""

    key: int | None
    peer: tuple[str, int]


@dataclass(frozen=True, slots=True)
class SendNow:
    """What follows from the answer: it was dropped, or changed, while its registration was under
    way."""

    request: Request


Event = Registered | Refused | Changed | Dropped | ChangeRefused | HandedOver | SendNow

_CHANGING = ("weight", "exported", "text")


@dataclass(slots=True)
class _Entry:
    request: dict[str, Any]
    number: int | None = None  # the daemon's, while it is registered
    known: bool = False  # it was registered once
    changed: bool = False  # while its registration was under way


@dataclass(slots=True)
class Kept:
    """All of it.  Keys are ours; numbers are the daemon's, and others after each connection."""

    _entries: dict[int, _Entry] = field(default_factory=dict)
    _waiting: dict[int, tuple[str, int]] = field(default_factory=dict)  # by tag: what, of which
    _numbers: dict[int, int] = field(default_factory=dict)  # key by number
    _connected: bool = False
    _last: int = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def idle(self) -> bool:
        """Nothing is kept, and no answer is awaited."""
        return not self._entries and not self._waiting

    def registered(self, key: int) -> bool:
        entry = self._entries.get(key)
        return entry is not None and entry.number is not None

    def connected(self) -> list[Request]:
        self._connected = True
        return [self._register(key, entry) for key, entry in self._entries.items()]

    def lost(self) -> None:
        self._connected = False
        self._waiting.clear()
        self._numbers.clear()
        for entry in self._entries.values():
            entry.number = None

    def keep(self, request: Mapping[str, Any]) -> tuple[int, list[Request]]:
        """The key of a new one.  Raises ValueError if it is longer than a line may be."""
        key = self._next()
        entry = _Entry(dict(request))
        if len(_line({**entry.request, "do": "register", "tag": 2**53})) > MAX_LINE_OCTETS:
            raise ValueError(f"a registration of more than {MAX_LINE_OCTETS} octets")
        self._entries[key] = entry
        return key, [self._register(key, entry)] if self._connected else []

    def again(self, key: int) -> list[Request]:
        """Register once more what was refused after it had been registered before."""
        entry = self._entries.get(key)
        if entry is None or entry.number is not None or not self._connected:
            return []
        return [self._register(key, entry)]

    def change(self, key: int, changes: Mapping[str, Any]) -> list[Request]:
        """What changes is registered like that after a restart too."""
        entry = self._entries.get(key)
        if entry is None:
            return []
        entry.request |= changes
        entry.changed = entry.number is None and self._connected
        return self._about("update", key, entry, changes)

    def drop(self, key: int) -> list[Request]:
        entry = self._entries.pop(key, None)
        if entry is None:
            return []
        requests = self._about("unregister", key, entry, {})
        if entry.number is not None:
            del self._numbers[entry.number]
        return requests

    def received(self, line: bytes) -> list[Event]:
        """Raises DaemonConfused."""
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            raise DaemonConfused("the daemon sent what is not JSON") from None
        if not isinstance(message, dict):
            raise DaemonConfused("the daemon sent what is not an object")
        if message.get("event") == "tcpmux":
            return [self._handed_over(message)]
        tag = message.get("tag")
        what, key = self._waiting.pop(tag, ("", 0)) if isinstance(tag, int) else ("", 0)
        match what:
            case "register":
                return self._answered(key, message)
            case "update" if message.get("ok") is True:
                return [Changed(key)]
            case "update":
                return [ChangeRefused(key, *_reason(message))]
            case "unregister":
                return [Dropped(key)]
        return []

    def _answered(self, key: int, message: dict[str, Any]) -> list[Event]:
        entry = self._entries.get(key)
        if message.get("ok") is not True:
            if entry is None:
                return []
            if not entry.known:
                del self._entries[key]
            return [Refused(key, *_reason(message), first=not entry.known)]
        number, namespace = message.get("number"), message.get("namespace")
        if not isinstance(number, int) or not isinstance(namespace, str):
            raise DaemonConfused("the daemon registered something without a number or namespace")
        if entry is None:  # dropped meanwhile
            gone = _Entry({}, number)
            return [SendNow(each) for each in self._about("unregister", key, gone, {})]
        entry.number, entry.known = number, True
        self._numbers[number] = key
        events: list[Event] = [Registered(key, namespace)]
        if entry.changed:
            entry.changed = False
            changes = {each: entry.request[each] for each in _CHANGING if each in entry.request}
            events += [SendNow(each) for each in self._about("update", key, entry, changes)]
        return events

    def _handed_over(self, message: dict[str, Any]) -> HandedOver:
        number, peer = message.get("number"), message.get("peer")
        if not (isinstance(peer, list) and len(peer) >= 2 and isinstance(peer[0], str)):
            raise DaemonConfused("the daemon handed over a connection without its peer")
        key = self._numbers.get(number) if isinstance(number, int) else None
        return HandedOver(key, (peer[0], peer[1] if isinstance(peer[1], int) else 0))

    def _register(self, key: int, entry: _Entry) -> Request:
        request = {**entry.request, "do": "register", "tag": self._tag("register", key)}
        return Request(_line(request), key)

    def _about(
        self, what: str, key: int, entry: _Entry, fields: Mapping[str, Any]
    ) -> list[Request]:
        if entry.number is None:
            return []
        tag = self._tag(what, key)
        return [Request(_line({**fields, "do": what, "tag": tag, "number": entry.number}))]

    def _tag(self, what: str, key: int) -> int:
        tag = self._next()
        self._waiting[tag] = (what, key)
        return tag

    def _next(self) -> int:
        self._last += 1
        return self._last


def _line(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode("utf-8") + b"\n"


def _reason(message: Mapping[str, Any]) -> tuple[str, str]:
    """Code and text of a refusal, as far as it has them."""
    code, text = message.get("code"), message.get("text")
    return (
        code if isinstance(code, str) else "other",
        text if isinstance(text, str) else "the daemon gives no reason",
    )
