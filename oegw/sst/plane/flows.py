"""What is in the kernel's maps of ours: written, replaced, forgotten."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from oegw.sst.interface import Entry, IPAddress, Leg, PortFlow
from oegw.sst.plane.elements import entered, no_longer_declined, now_declined, removed
from oegw.sst.plane.netlink import NfTables, RefusedError
from oegw.sst.plane.settings import PlaneSettings
from oegw.sst.plane.wire import Message

# Our choice: messages of one transaction, so that none has to wait for thousands.
_BATCH = 256

_Key = tuple[Leg, PortFlow]
_Sealed = tuple[Leg, bytes, bytes, int, int, int]


class Flows:
    """Entries and declined flows, as many as the maps have room for.

    ``clock`` gives monotonic seconds.
    """

    def __init__(
        self, settings: PlaneSettings, kernel: NfTables, clock: Callable[[], float]
    ) -> None:
        self._table = settings.table
        self._limit = settings.sst.flows * 4  # two legs, two families
        self._kernel = kernel
        self._clock = clock
        self._entries: dict[_Key, tuple[Entry, float]] = {}
        self._sealed: dict[_Sealed, Entry] = {}
        self._declined: dict[_Key, float] = {}
        # Both by host, since one host after the other is forgotten, while nothing else is done.
        self._by_host: dict[tuple[Leg, IPAddress], dict[_Key, None]] = {}
        self.full = 0  # times that there was no room

    def enter(self, entry: Entry) -> bool:
        """In place of what is there for the flow.  False: there is no room."""
        key = (entry.leg, entry.flow)
        if key in self._declined:
            self._undecline(key)
        if not self._entries_have_room(key) or not self._replace(entry):
            self.full += 1
            return False
        self._entries[key] = entry, self._clock() + entry.lifespan
        self._sealed[_sealed(entry)] = entry
        self._note(key)
        return True

    def decline(self, leg: Leg, flow: PortFlow, lifespan: float) -> None:
        """Without room for it, its packets come up one by one."""
        key = (leg, flow)
        self.remove(key)
        self._undecline(key)
        if lifespan <= 0:
            return
        if not self._declined_have_room():
            self.full += 1
            return
        try:
            self._kernel.run([now_declined(self._table, leg, flow, lifespan)])
        except RefusedError as refusal:
            if not (refusal.full or refusal.missing):  # somebody took the table away
                raise
            self.full += 1
            return
        self._declined[key] = self._clock() + lifespan
        self._note(key)

    def remove(self, key: _Key) -> None:
        """Take a flow out of the fast path; no error if it is gone already."""
        entry = self._take_entry(key)
        if entry is not None:
            self._run_what_is_there(removed(self._table, entry))

    def forget(self, leg: Leg, remote: IPAddress | None) -> None:
        """All flows to one host, or all."""
        self._forget(self._keys(leg, remote))

    def forget_between(
        self, leg: Leg, local: IPAddress, remote: IPAddress, ports: Iterable[int]
    ) -> None:
        """The flows of two hosts that have one of these ports on our side."""
        wanted = frozenset(ports)
        self._forget(
            key
            for key in self._keys(leg, remote)
            if key[1].local == local and key[1].local_port in wanted
        )

    def declined_forgotten(self) -> None:
        """Another policy has emptied the sets."""
        gone, self._declined = self._declined, {}
        for key in gone:
            self._unnote(key)

    def put_back(self) -> None:
        """All that lasts, into maps that are empty.  Raises RefusedError."""
        now, messages = self._clock(), list[Message]()
        for entry, expires in self._entries.values():
            if expires > now:
                messages += entered(self._table, replace(entry, lifespan=expires - now))
        messages += [
            now_declined(self._table, leg, flow, expires - now)
            for (leg, flow), expires in self._declined.items()
            if expires > now
        ]
        for first in range(0, len(messages), _BATCH):
            self._kernel.run(messages[first : first + _BATCH])

    def of_sealed(
        self, leg: Leg, local: bytes, remote: bytes, protocol: int, ports: tuple[int, int]
    ) -> Entry | None:
        """The entry whose packets leave with these packed addresses and sealed ports."""
        return self._sealed.get((leg, local, remote, protocol, *ports))

    def of(self, leg: Leg, flow: PortFlow) -> Entry | None:
        """The entry of a flow."""
        found = self._entries.get((leg, flow))
        return None if found is None else found[0]

    def __len__(self) -> int:
        return len(self._entries)

    def _keys(self, leg: Leg, remote: IPAddress | None) -> Iterator[_Key]:
        if remote is not None:
            yield from self._by_host.get((leg, remote), ())
            return
        for (each, _), keys in self._by_host.items():
            if each is leg:
                yield from keys

    def _note(self, key: _Key) -> None:
        leg, flow = key
        self._by_host.setdefault((leg, flow.remote), {})[key] = None

    def _unnote(self, key: _Key) -> None:
        """It is no longer entered, or no longer declined, and perhaps the other."""
        if key in self._entries or key in self._declined:
            return
        host = key[0], key[1].remote
        keys = self._by_host.get(host, {})
        keys.pop(key, None)
        if not keys:
            self._by_host.pop(host, None)

    def _take_entry(self, key: _Key) -> Entry | None:
        """Out of our books; the kernel's maps are the caller's affair."""
        found = self._entries.pop(key, None)
        if found is None:
            return None
        self._sealed.pop(_sealed(found[0]), None)
        self._unnote(key)
        return found[0]

    def _take_declined(self, key: _Key) -> bool:
        found = self._declined.pop(key, None)
        self._unnote(key)
        return found is not None

    def _forget(self, keys: Iterator[_Key]) -> None:
        messages = []
        for key in list(keys):
            entry = self._take_entry(key)
            if entry is not None:
                messages += removed(self._table, entry)
            elif self._take_declined(key):
                messages.append(no_longer_declined(self._table, *key))
        for first in range(0, len(messages), _BATCH):
            self._run_what_is_there(messages[first : first + _BATCH])

    def _replace(self, entry: Entry) -> bool:
        new = entered(self._table, entry)
        found = self._take_entry((entry.leg, entry.flow))
        old = [] if found is None else removed(self._table, found)
        try:
            self._kernel.run([*old, *new])
        except RefusedError as refusal:
            if not (refusal.exists or refusal.missing or refusal.full):
                raise
        else:
            return True
        # The old one timed out meanwhile, in part perhaps; and a full map has no room for the new
        # one before the old one is gone.
        if old:
            self._run_what_is_there(old)
            try:
                self._kernel.run(new)
            except RefusedError as refusal:
                if not (refusal.exists or refusal.full):
                    raise
            else:
                return True
        return False

    def _undecline(self, key: _Key) -> None:
        if self._take_declined(key):
            self._run_what_is_there([no_longer_declined(self._table, *key)])

    def _run_what_is_there(self, deletions: list[Message]) -> None:
        """Delete what has not timed out."""
        try:
            self._kernel.run(deletions)
        except RefusedError as refusal:
            if not refusal.missing:
                raise
            for each in deletions if len(deletions) > 1 else ():
                self._run_what_is_there([each])

    def _entries_have_room(self, key: _Key) -> bool:
        if key not in self._entries and len(self._entries) >= self._limit:
            now = self._clock()
            for each in [each for each, (_, expires) in self._entries.items() if expires <= now]:
                self._take_entry(each)
        return key in self._entries or len(self._entries) < self._limit

    def _declined_have_room(self) -> bool:
        if len(self._declined) >= self._limit:
            now = self._clock()
            for each in [each for each, expires in self._declined.items() if expires <= now]:
                self._take_declined(each)
        return len(self._declined) < self._limit


def _sealed(entry: Entry) -> _Sealed:
    flow = entry.flow
    return (
        entry.leg,
        flow.local.packed,
        flow.remote.packed,
        flow.protocol,
        entry.sealed_local,
        entry.sealed_remote,
    )
