"""What is known of the SST keys of each host: keys, none, or no answer, each for a while.  Sans IO.

    learn(address, outcome of SstKeyLookup(address), now)
    learn_by_name(name, addresses, outcome of SstKeyLookup(name), now)
    find(address, now) -> KnownKeys | NoKeys | NotToBeTrusted | Silence | None

None: ask.  Who owns an address is said by its reverse zone, so what that says wins, and a key found
by a name counts only where the reverse zone says that there is none (SST-32).  Of the keys at a name
only those count whose gateway is the address itself: anybody can put anybody's address beside a name
of his, and must not choose by it through whose hands flows to that address go.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Generic, TypeVar

from dnsrecords.outcome import (
    IPAddress,
    Malformed,
    NothingFound,
    SstKeyOutcome,
    SstKeysFound,
    Unanswered,
)
from dnsrecords.sstkey import SstKey
from dnsrecords.trust import Trust
from oegw.sst.interface import Algorithm

# Our choices.
MAX_ADDRESSES = 16384  # of each kind
MIN_SECONDS = 30.0  # a TTL of 0 must not mean a question for each flow
MAX_SECONDS = 86400.0
SILENCE_SECONDS = 10.0  # then it is asked again: whoever is silent may be well again
MAX_SHOWN = 64  # rows of a snapshot


class Source(Enum):
    """Where a key was found."""

    REVERSE = "reverse"  # at the address's reverse name
    NAME = "name"  # at a name that a host asked for, which has the address


@dataclass(frozen=True, slots=True)
class KnownKeys:
    """``keys`` by precedence.  ``name``: at which they were found, if by name.  ``expires``: when
    to ask again."""

    keys: tuple[SstKey, ...]
    trust: Trust
    source: Source
    expires: float
    name: str = ""

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


Knowledge = KnownKeys | NoKeys | NotToBeTrusted | Silence


class KeyDirectory:
    """``limit``: the most addresses of each kind that are remembered; the least wanted go first.

    Lacks have a table of their own: strangers can make us look for keys of any number of
    addresses, and must not push out those that are there.
    """

    def __init__(self, limit: int = MAX_ADDRESSES) -> None:
        raise NotImplementedError

    def find(self, address: IPAddress, now: float, *, secure: bool = False) -> Knowledge | None:
        """What is known; None if nothing is, and the reverse zone has to be asked.

        ``secure``: a rule says ``require = "secure"``: only keys that DNSSEC vouches for count
        (SST-33), and those of the reverse zone only, since a name's owner can't vouch for an
        address.
        """
        raise NotImplementedError

    def learn(self, address: IPAddress, outcome: SstKeyOutcome, now: float) -> Knowledge:
        """Take what the reverse zone says; returns what ``find`` would give."""
        raise NotImplementedError

    def learn_by_name(
        self, name: str, addresses: Iterable[IPAddress], outcome: SstKeyOutcome, now: float
    ) -> int:
        """Take what stands at ``_sst.`` and a name that has these addresses.

        Returns for how many of them there is a key.
        """
        raise NotImplementedError

    def forget(self, address: IPAddress | None = None) -> int:
        """Forget one address, or all; returns how many there were."""
        raise NotImplementedError

    def snapshot(self, now: float) -> dict[str, Any]:
        """For ``oegw status``: counts, and rows of the addresses with keys, the last used first."""
        raise NotImplementedError
