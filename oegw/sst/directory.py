"""What is known of the SST keys of each host: keys, none, or no answer, each for a while.  Sans IO.

    learn(address, outcome of SstKeyLookup(address), now)
    learn_by_name(name, addresses, outcome of SstKeyLookup(name), now)
    find(address, now) -> KnownKeys | NoKeys | NotToBeTrusted | Silence | None

None: ask.  Who owns an address is said by its reverse zone, so what that says wins, and a key found
by a name counts only where the reverse zone says that there is none (SST-32).  Anybody can put
anybody's address beside a name of his, and must not choose by it which key is used on the way to
others.  So of the keys at a name those count whose gateway is the address itself, which then has to
answer a probe; others only where the reverse zone confirms that the address has that name (PTR).
Among names that are as good the first that has keys is believed, until they expire.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

from dnsrecords.outcome import (
    IPAddress,
    Malformed,
    NamesFound,
    NothingFound,
    SstKeyOutcome,
    SstKeysFound,
    Unanswered,
)
from dnsrecords.sstkey import SstKey
from dnsrecords.trust import Trust, weakest
from oegw.sst.interface import Algorithm
from oegw.sst.statickey import key_id

# Our choices.
MAX_ADDRESSES = 16384  # of each kind
MIN_SECONDS = 5.0  # a TTL of 0 must not mean a question for each flow
MAX_SECONDS = 86400.0
SILENCE_SECONDS = 10.0  # then it is asked again: who was silent may be well again
MAX_ROWS = 64  # of a snapshot


class Source(Enum):
    """Where a key was found."""

    REVERSE = "reverse"  # at the address's reverse name
    NAME = "name"  # at a name that a host asked for, which has the address


@dataclass(frozen=True, slots=True)
class KnownKeys:
    """``keys`` by precedence.  ``expires``: when to ask again.  ``name``: at which they were found,
    if by name; ``confirmed``: the reverse zone says that the address has that name."""

    keys: tuple[SstKey, ...]
    trust: Trust
    source: Source
    expires: float
    name: str = ""
    confirmed: bool = False

    def usable(self, algorithms: Sequence[Algorithm]) -> tuple[SstKey, ...]:
        """The keys for ``algorithms``, which come in our order of preference: the best first."""
        order = {each: place for place, each in enumerate(algorithms)}
        mine = [key for key in self.keys if key.algorithm in order]
        return tuple(
            sorted(mine, key=lambda key: (key.precedence, order[Algorithm(key.algorithm)]))
        )


@dataclass(frozen=True, slots=True)
class NoKeys:
    """The DNS says that there is none, or none that would do."""

    detail: str
    expires: float


@dataclass(frozen=True, slots=True)
class NotToBeTrusted:
    """A record that can't be read, or an answer that DNSSEC calls bogus."""

    detail: str
    expires: float


@dataclass(frozen=True, slots=True)
class Silence:
    """The DNS did not answer (SST-36)."""

    detail: str
    expires: float


Lack = NoKeys | NotToBeTrusted | Silence
Knowledge = KnownKeys | Lack


class _Expiring(Protocol):
    @property
    def expires(self) -> float: ...


_Kept = TypeVar("_Kept", bound=_Expiring)


class _Table(Generic[_Kept]):
    """At most ``limit`` rows; the one that was wanted least lately goes first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rows: OrderedDict[IPAddress, _Kept] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[tuple[IPAddress, _Kept]]:
        """The last wanted first."""
        return reversed(self._rows.items())

    def find(self, address: IPAddress, now: float) -> _Kept | None:
        row = self._rows.get(address)
        if row is None:
            return None
        if row.expires <= now:
            del self._rows[address]
            return None
        self._rows.move_to_end(address)
        return row

    def keep(self, address: IPAddress, row: _Kept) -> None:
        self._rows[address] = row
        self._rows.move_to_end(address)
        if len(self._rows) > self._limit:
            self._rows.popitem(last=False)

    def drop(self, address: IPAddress) -> int:
        return self._rows.pop(address, None) is not None

    def clear(self) -> int:
        count = len(self._rows)
        self._rows.clear()
        return count


class KeyDirectory:
    """``limit``: the most addresses of each kind that are remembered.

    Lacks have a table of their own: strangers can make us look for keys of any number of
    addresses, and must not push out those that are there.
    """

    def __init__(self, limit: int = MAX_ADDRESSES) -> None:
        if limit < 1:
            raise ValueError(f"a directory of {limit} addresses")
        self._keys: _Table[KnownKeys] = _Table(limit)
        self._lacks: _Table[Lack] = _Table(limit)
        self._by_name: _Table[KnownKeys] = _Table(limit)

    def find(self, address: IPAddress, now: float, *, secure: bool = False) -> Knowledge | None:
        """What is known; None if nothing is, and the reverse zone has to be asked.

        ``secure``: a rule says ``require = "secure"``: only keys that DNSSEC vouches for count
        (SST-33); a name's owner alone can't vouch for an address, so a key by name must be
        confirmed.
        """
        known = self._keys.find(address, now)
        if known is not None:
            return _vouched(address, known) if secure else known
        lack = self._lacks.find(address, now)
        if isinstance(lack, NoKeys) and (by_name := self._by_name.find(address, now)) is not None:
            return _vouched(address, by_name) if secure else by_name
        return lack

    def learn(self, address: IPAddress, outcome: SstKeyOutcome, now: float) -> Knowledge:
        """Take what the reverse zone says; returns what ``find`` would give."""
        if isinstance(outcome, Unanswered):
            # What is known holds until it expires.
            known = self._keys.find(address, now) or self._lacks.find(address, now)
            return known or self._lacking(address, Silence(outcome.detail, now + SILENCE_SECONDS))
        self._keys.drop(address)
        match outcome:
            case SstKeysFound(keys=keys, ttl=ttl, trust=trust):
                self._lacks.drop(address)
                known = KnownKeys(keys, trust, Source.REVERSE, _end(now, ttl))
                self._keys.keep(address, known)
                return known
            case NothingFound(ttl=ttl, detail=detail):
                lack = self._lacking(address, NoKeys(detail, _end(now, ttl)))
                return self._by_name.find(address, now) or lack
            case Malformed(ttl=ttl, detail=detail):
                return self._lacking(address, NotToBeTrusted(detail, _end(now, ttl)))

    def _lacking(self, address: IPAddress, lack: Lack) -> Lack:
        self._lacks.keep(address, lack)
        return lack

    def learn_by_name(
        self,
        name: str,
        addresses: Iterable[IPAddress],
        outcome: SstKeyOutcome,
        now: float,
        reverse: Mapping[IPAddress, NamesFound] | None = None,
    ) -> int:
        """Take what stands at ``_sst.`` and a name that has these addresses.

        ``reverse``: what the reverse zone calls them.  Returns for how many there is a key.
        """
        taught = 0
        for address in addresses:
            by_reverse = None if reverse is None else reverse.get(address)
            if by_reverse is not None and name not in by_reverse.names:
                by_reverse = None
            before = self._by_name.find(address, now)
            if before is not None and before.name != name:
                if by_reverse is None or before.confirmed:
                    continue
                if not isinstance(outcome, SstKeysFound):
                    continue
            match outcome:
                case SstKeysFound(keys=keys, ttl=ttl, trust=trust):
                    if by_reverse is None:
                        keys = tuple(key for key in keys if key.gateway == address)
                    else:
                        trust = weakest(trust, by_reverse.trust)
                        ttl = min(ttl, by_reverse.ttl)
                    if keys:
                        row = KnownKeys(
                            keys, trust, Source.NAME, _end(now, ttl), name, by_reverse is not None
                        )
                        self._by_name.keep(address, row)
                        taught += 1
                    else:
                        self._by_name.drop(address)
                case NothingFound() | Malformed():
                    self._by_name.drop(address)
                case Unanswered():
                    pass  # what is known holds until it expires
        return taught

    def forget(self, address: IPAddress | None = None) -> int:
        """Forget one address, or all; returns how many entries there were."""
        tables: tuple[_Table[Any], ...] = (self._keys, self._lacks, self._by_name)
        return sum(table.clear() if address is None else table.drop(address) for table in tables)

    def snapshot(self, now: float) -> dict[str, Any]:
        """For ``oegw status``: counts, and rows of the addresses with keys, the last used first."""
        rows = [
            _row(address, known, now)
            for table in (self._keys, self._by_name)
            for address, known in islice(table, MAX_ROWS)
            if known.expires > now
        ]
        return {
            "with_keys": len(self._keys),
            "by_name": len(self._by_name),
            "without": len(self._lacks),
            "keys": rows[:MAX_ROWS],
        }


def _vouched(address: IPAddress, known: KnownKeys) -> KnownKeys | NoKeys:
    """The keys, if DNSSEC vouches for all that leads from the address to them."""
    if known.trust is not Trust.SECURE:
        detail = f"{address}: its keys are {known.trust.value}, not secure"
    elif known.source is Source.NAME and not known.confirmed:
        detail = f"{address}: its keys are those of {known.name}, which can't vouch for it"
    else:
        return known
    return NoKeys(detail, known.expires)


def _end(now: float, ttl: float) -> float:
    return now + min(max(ttl, MIN_SECONDS), MAX_SECONDS)


def _row(address: IPAddress, known: KnownKeys, now: float) -> dict[str, Any]:
    return {
        "address": str(address),
        "source": known.source.value,
        "name": known.name,
        "confirmed": known.confirmed,
        "trust": known.trust.value,
        "seconds": round(known.expires - now, 1),
        "keys": [
            {
                "id": key_id(key.public_key).hex(),
                "gateway": str(key.gateway),
                "algorithm": key.algorithm,
                "precedence": key.precedence,
            }
            for key in known.keys
        ],
    }
