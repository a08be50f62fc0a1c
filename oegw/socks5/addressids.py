"""The table of ADDRESS IDs (SK-11 to SK-23): four octets that stand for an address or a name.

A REALID is an identifier and a key at once.  Each scope has a table of its own, so the same number
may be two clients' (SK-16), and no scope can guess, fill or empty another's.  What a scope gets
wrong counts against it alone, and only where there is something to be guessed: a scope without IDs
costs no memory.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from oegw.socks5.codes import AddressType, ReplyCode
from oegw.socks5.settings import AddressIdSettings
from oegw.socks5.terms import TCP, Refused, Resolved, Scope
from oegw.socks5.wire import AddressId, IPAddress

# Specification: CLASS is reserved, REALID has 3 octets.
CATEGORY = 0
REALID_OCTETS = 3

# Our choices.
# A number is drawn again if it is 0, or taken.  So many of 2^24 are never taken that this ends it
# with broken randomness only.
MAX_DRAWS = 64
# Numbers in quarantine, in multiples of the IDs that there may be.  A scope that frees more of them
# gets no new ID until some have come back.  If all scopes do, the oldest comes back early: that it
# is drawn then, and its client still uses it, is less likely than one in ten million.
QUARANTINED_OF_A_SCOPE = 16
QUARANTINED_IN_ALL = 4


class UnknownId(Refused):
    """Never issued to this scope, or over (SK-18): ``reason`` tells us which, not the client.

    An ID that was the scope's own until lately is no guess, and does not count as one.
    """

    def __init__(self, reason: str = "unknown_id") -> None:
        super().__init__(ReplyCode.INVALID_ADDRESS, reason)


class LockedOut(Refused):
    """This scope has been wrong too often: nothing with an ID, be it the right one (SK-17)."""

    def __init__(self) -> None:
        super().__init__(ReplyCode.INVALID_ADDRESS, "locked_out")


class TableFull(Refused):
    """No room that nobody uses (SK-20, SK-28)."""

    def __init__(self, reason: str) -> None:
        super().__init__(ReplyCode.FAILURE, reason)


@dataclass(slots=True, eq=False)
class Entry:
    """What an ID stands for.

    ``preference``: what later replies that use it heed, where the settings say ``reply = "id"``.
    ``uses``: sessions that hold it (SK-19).  ``made``: when it was asked for last; ``used``: when
    it was of use last.
    """

    id: AddressId
    scope: Scope
    destination: IPAddress | str
    preference: AddressType | None
    made: float
    used: float
    uses: int = 0
    _resolved: Resolved | None = None
    _transport: str = TCP
    _until: float = 0.0

    def learn(self, resolved: Resolved, now: float, transport: str = TCP) -> None:
        """The destination is a name, and it leads there."""
        self._resolved, self._transport = resolved, transport
        self._until = now + resolved.seconds

    def resolved(self, now: float, transport: str = TCP) -> Resolved | None:
        """Where the name led; None if that is not known, or its time is over.

        A name that says its port itself says another one for another transport.
        """
        found = self._resolved
        if found is None or now >= self._until:
            return None
        return found if found.port is None or transport == self._transport else None


_Destination = tuple[IPAddress | str, AddressType | None]


@dataclass(slots=True)
class _Table:
    """One scope's.  ``unused``: those that nobody holds, the least recently used first.
    ``wrong``: numbers that it got wrong of late, and when."""

    entries: dict[int, Entry] = field(default_factory=dict)
    of: dict[_Destination, Entry] = field(default_factory=dict)
    unused: OrderedDict[int, Entry] = field(default_factory=OrderedDict)
    quarantined: set[int] = field(default_factory=set)
    wrong: dict[int, float] = field(default_factory=dict)
    locked_until: float = 0.0


class AddressIds:
    """``random`` gives so many octets that nobody can foresee (SK-13)."""

    def __init__(self, settings: AddressIdSettings, random: Callable[[int], bytes]) -> None:
        self._settings = settings
        self._random = random
        self._tables: dict[Scope, _Table] = {}
        self._unused: OrderedDict[tuple[Scope, int], Entry] = OrderedDict()  # of all scopes
        self._freed: deque[tuple[float, Scope, int]] = deque()  # in quarantine, until when
        self._sizes = _Sizes()
        self._number = 0
        self.counters: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._number

    def associate(
        self,
        scope: Scope,
        destination: IPAddress | str,
        now: float,
        *,
        preference: AddressType | None = None,
        resolved: Resolved | None = None,
        transport: str = TCP,
    ) -> AddressId:
        """An ID that stands for ``destination``, which for this transport is already ``resolved``,
        if it is a name.  Raises TableFull.

        Who asks for the same again gets the same, and its time begins anew (SK-21).
        """
        self.expire(now)
        table = self._tables.get(scope)
        known = (_key(destination), preference)
        entry = table.of.get(known) if table is not None and self._settings.refresh else None
        if entry is not None:
            entry.made = now
            self._touch(entry, now)
            self.counters["refreshed"] += 1
        else:
            try:
                entry = self._make(scope, destination, preference, now)
            except TableFull as full:
                self.counters[full.reason] += 1
                raise
            self.counters["associated"] += 1
        if resolved is not None:
            entry.learn(resolved, now, transport)
        return entry.id

    def associated(self, scope: Scope, number: AddressId) -> Entry:
        """What `associate` has just made, for the server itself: no client's claim is looked at."""
        return self._tables[scope].entries[number.realid]

    def look_up(self, scope: Scope, number: AddressId, now: float) -> Entry:
        """What a client means.  Raises UnknownId or LockedOut, which look alike to the client."""
        self.expire(now)
        table = self._tables.get(scope)
        if table is None:
            self.counters["unknown_id"] += 1
            raise UnknownId
        if now < table.locked_until:
            self.counters["locked_out"] += 1
            raise LockedOut
        if number.category != CATEGORY:
            self.counters["id_of_other_class"] += 1
            raise UnknownId("id_of_other_class")
        entry = table.entries.get(number.realid)
        if entry is not None and not entry.uses and self._over(entry, now):
            self._free(entry, now, "expired")
            entry = None
        if entry is None:
            reason = "expired_id" if number.realid in table.quarantined else "unknown_id"
            self.counters[reason] += 1
            if reason == "unknown_id":
                self._got_wrong(table, number.realid, now)
            raise UnknownId(reason)
        self._touch(entry, now)
        return entry

    def hold(self, entry: Entry) -> None:
        """A session uses it: it lasts as long as that does (SK-19)."""
        entry.uses += 1
        table = self._tables.get(entry.scope)
        if table is not None and table.unused.get(entry.id.realid) is entry:
            self._is_used(table, entry)

    def release(self, entry: Entry, now: float) -> None:
        """That session is over.  One call for each of `hold`."""
        entry.uses -= 1
        table = self._tables.get(entry.scope)
        if entry.uses or table is None or table.entries.get(entry.id.realid) is not entry:
            return
        entry.used = now
        self._is_unused(table, entry)
        if self._over(entry, now):
            self._free(entry, now, "expired")

    def expire(self, now: float) -> None:
        """What nobody has used for too long is forgotten; numbers come back from quarantine."""
        while self._unused:
            entry = next(iter(self._unused.values()))
            if not self._over(entry, now):
                break
            self._free(entry, now, "expired")
        while self._freed and self._freed[0][0] <= now:
            self._come_back()

    def forget(self, scope: Scope, now: float) -> None:
        """A scope that was a connection's (SK-15), which is over: it never comes again."""
        table = self._tables.get(scope)
        for entry in list(table.entries.values()) if table is not None else ():
            self._free(entry, now, "forgotten")

    def snapshot(self) -> dict[str, int]:
        """Numbers for status and metrics."""
        return {
            "ids": self._number,
            "used": self._number - len(self._unused),
            "scopes": len(self._tables),
            "quarantined": len(self._freed),
            **self.counters,
        }

    # ------------------------------------------------------------------ inside

    def _make(
        self, scope: Scope, destination: IPAddress | str, preference: AddressType | None, now: float
    ) -> Entry:
        table = self._tables.get(scope) or _Table()
        settings = self._settings
        if len(table.quarantined) >= QUARANTINED_OF_A_SCOPE * settings.per_scope:
            raise TableFull("ids_in_quarantine")
        if len(table.entries) >= settings.per_scope:
            if not table.unused:
                raise TableFull("ids_of_scope")
            self._free(next(iter(table.unused.values())), now, "evicted")
        if self._number >= settings.total:
            # Who has most loses one, so whoever fills the table empties no other scope.
            crowd = self._sizes.largest()
            if crowd is None:
                raise TableFull("ids_in_all")
            self._free(next(iter(self._tables[crowd].unused.values())), now, "evicted")
        entry = Entry(
            AddressId(self._draw(table), CATEGORY), scope, destination, preference, now, now
        )
        self._tables[scope] = table  # it may have been empty, and gone
        table.entries[entry.id.realid] = entry
        table.of[_key(destination), preference] = entry
        self._number += 1
        self._is_unused(table, entry)
        return entry

    def _draw(self, table: _Table) -> int:
        for _ in range(MAX_DRAWS):
            number = int.from_bytes(self._random(REALID_OCTETS), "big")
            if number and number not in table.entries and number not in table.quarantined:
                return number
        raise TableFull("no_random_id")

    def _is_unused(self, table: _Table, entry: Entry) -> None:
        table.unused[entry.id.realid] = entry
        self._unused[entry.scope, entry.id.realid] = entry
        self._sizes.more(entry.scope)

    def _is_used(self, table: _Table, entry: Entry) -> None:
        del table.unused[entry.id.realid]
        del self._unused[entry.scope, entry.id.realid]
        self._sizes.less(entry.scope)

    def _touch(self, entry: Entry, now: float) -> None:
        entry.used = now
        if not entry.uses:
            self._tables[entry.scope].unused.move_to_end(entry.id.realid)
            self._unused.move_to_end((entry.scope, entry.id.realid))

    def _over(self, entry: Entry, now: float) -> bool:
        return (
            now - entry.used >= self._settings.idle or now - entry.made >= self._settings.lifetime
        )

    def _free(self, entry: Entry, now: float, why: str) -> None:
        """The entry goes; its number stays in quarantine, so that it leads nowhere else (SK-18)."""
        scope, realid = entry.scope, entry.id.realid
        table = self._tables[scope]
        del table.entries[realid]
        if table.of.get(known := (_key(entry.destination), entry.preference)) is entry:
            del table.of[known]
        if not entry.uses:
            self._is_used(table, entry)
        self._number -= 1
        self.counters[why] += 1
        table.quarantined.add(realid)
        self._freed.append((now + self._settings.quarantine, scope, realid))
        if len(self._freed) > QUARANTINED_IN_ALL * self._settings.total:
            self._come_back()

    def _come_back(self) -> None:
        _, scope, realid = self._freed.popleft()
        table = self._tables[scope]
        table.quarantined.discard(realid)
        if not table.entries and not table.quarantined:
            del self._tables[scope]

    def _got_wrong(self, table: _Table, realid: int, now: float) -> None:
        """Counted once for each number: repeating it is no guess."""
        table.wrong = {
            number: when
            for number, when in table.wrong.items()
            if now - when < self._settings.window
        }
        table.wrong[realid] = now
        if len(table.wrong) >= self._settings.failures:
            table.wrong.clear()
            table.locked_until = now + self._settings.lockout
            self.counters["lockouts"] += 1


class _Sizes:
    """How many unused IDs each scope has, and which has most, without looking at all of them."""

    def __init__(self) -> None:
        self._of: dict[Scope, int] = {}
        self._with: dict[int, dict[Scope, None]] = {}
        self._most = 0

    def more(self, scope: Scope) -> None:
        self._move(scope, 1)

    def less(self, scope: Scope) -> None:
        self._move(scope, -1)

    def largest(self) -> Scope | None:
        return next(iter(self._with[self._most])) if self._most else None

    def _move(self, scope: Scope, step: int) -> None:
        before = self._of.pop(scope, 0)
        after = before + step
        if before:
            self._with[before].pop(scope)
            if not self._with[before]:
                del self._with[before]
        if after:
            self._of[scope] = after
            self._with.setdefault(after, {})[scope] = None
        if after > self._most or (before == self._most and before not in self._with):
            self._most = after


def _key(destination: IPAddress | str) -> IPAddress | str:
    """Names are the same in capital and in small letters."""
    return destination.lower() if isinstance(destination, str) else destination
