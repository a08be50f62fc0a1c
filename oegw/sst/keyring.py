"""Which keys a packet may be sealed or opened with, the likeliest first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from oegw.sst.epochs import EPOCHS, candidates, epoch_of
from oegw.sst.paths import OwnKey, Path, Paths
from oegw.sst.permutation import Permutation
from oegw.sst.probe import Terms
from oegw.sst.relations import PeerKey, Relation, Relations, TunnelKey
from oegw.sst.statickey import key_id

# Our choices.
PERMUTATIONS_LIMIT = 2048
CANDIDATES_LIMIT = 16  # keys that one packet is tried with
LINGERING = 2 * 86400.0  # seconds after a restart in which flows of the earlier run are looked for


@dataclass(frozen=True, slots=True)
class Choice:
    """A key, and the two bits that are kept with a flow.

    ``terms``: those of a static key; ``number``: of a tunnel's.
    """

    permutation: Permutation = field(repr=False)
    epoch: int
    terms: Terms | None = None
    number: int | None = None


class Keyring:
    """Static keys by their terms.  ``lingering``: epochs of flows that an earlier run left, which
    count until ``lingering_until``."""

    def __init__(
        self,
        own: Sequence[OwnKey],
        relations: Relations,
        paths: Paths,
        lingering: Iterable[int],
        lingering_until: float,
    ) -> None:
        self._own = {key.key_id: key for key in own}
        self._relations = relations
        self._paths = paths
        self._lingering = frozenset(lingering)
        self._lingering_until = lingering_until
        self._permutations: OrderedDict[tuple[Terms, bytes], Permutation] = OrderedDict()

    def choice(self, terms: Terms, public_key: bytes) -> Choice | None:
        """The key of some terms; None if we don't have our half of it."""
        own = self._own.get(terms.own)
        if own is None:
            return None
        place = terms, public_key
        permutation = self._permutations.get(place)
        if permutation is None:
            key = own.port_key(public_key, terms.algorithm, terms.day)
            permutation = self._permutations[place] = Permutation(key)
            if len(self._permutations) > PERMUTATIONS_LIMIT:
                self._permutations.popitem(last=False)
        else:
            self._permutations.move_to_end(place)
        return Choice(permutation, epoch_of(terms.day), terms)

    def opening(self, relation: Relation, now: float, wall: float) -> list[Choice]:
        """Keys that a host may have sealed a packet with: what its gateway announced; today's;
        those of flows that we know; where nobody announced anything, the days beside today."""
        return self._choices(relation, self._opening_terms(relation, now, wall))

    def kept(self, relation: Relation, epoch: int | None, now: float, wall: float) -> list[Choice]:
        """Keys that a flow may have been born with, by the epoch that was kept with it; behind
        them those for new flows."""
        today = self._paths.day(wall)
        found: list[Choice] = []
        if epoch is not None:
            days = _four_days(today)
            terms = [*reversed(relation.seen), *self._all_terms(relation, days)]
            found = self._choices(
                relation, (t for t in terms if epoch_of(t.day) == epoch and _is_recent(t, today))
            )
        agreed = [path.agreed for path in self._paths_of(relation) if path.agreed is not None]
        # Of several keys of ours the peer may not know the newest yet, and opens by any that it
        # knows what belongs to a connection.
        pairs = {(terms.own, terms.peer) for terms in agreed}
        found.sort(key=lambda c: c.terms is None or (c.terms.own, c.terms.peer) not in pairs)
        return found + self._choices(relation, [*agreed, *self._all_terms(relation, (today,))])

    def still_good(self, choice: Choice, wall: float) -> bool:
        """Whether a flow may go on with the key that it was born with (sst.md section 7.5)."""
        return choice.terms is None or _is_recent(choice.terms, self._paths.day(wall))

    def _choices(self, relation: Relation, terms: Iterable[Terms]) -> list[Choice]:
        keys = self._relations.keys_at(relation)
        publics = {key_id(key.public_key): key.public_key for key in keys}
        found: dict[Terms, Choice] = {}
        for each in terms:
            public_key = publics.get(each.peer)
            if each in found or public_key is None:
                continue
            choice = self.choice(each, public_key)
            if choice is not None:
                found[each] = choice
            if len(found) == CANDIDATES_LIMIT:
                break
        return list(found.values())

    def _opening_terms(self, relation: Relation, now: float, wall: float) -> Iterator[Terms]:
        today = self._paths.day(wall)
        announced = self.announced(relation)
        yield from announced
        yield from self._all_terms(relation, (today,), relation.keys)
        yield from reversed(relation.seen)
        if now < self._lingering_until:
            days = [day for day in _four_days(today) if epoch_of(day) in self._lingering]
            yield from self._all_terms(relation, days)
        if not announced:
            yield from self._all_terms(relation, candidates(today), relation.keys)
        keys = self._relations.keys_at(relation)
        if len(self._own) > 1 or len({key.public_key for key in keys}) > 1:
            # While keys change, a peer that was started again with another one does not know
            # any more which of them a flow was born with, only the day.
            yield from self._all_terms(relation, candidates(today), keys)

    def announced(self, relation: Relation) -> list[Terms]:
        """What a host's gateway has said that it seals new flows with, the latest first."""
        paths = list(self._paths_of(relation))
        paths.sort(key=lambda path: path.announced_sent, reverse=True)
        return [path.announced for path in paths if path.announced is not None]

    def _paths_of(self, relation: Relation) -> Iterator[Path]:
        for key in self._relations.keys_at(relation):
            path = self._paths.find(key.gateway, key.public_key)
            if path is not None:
                yield path

    def _all_terms(
        self,
        relation: Relation,
        days: Iterable[int | None],
        keys: Sequence[PeerKey] | None = None,
    ) -> Iterator[Terms]:
        for day in days:
            for own in self._own:
                for key in relation.known_keys if keys is None else keys:
                    yield Terms(key.algorithm, day, own, key_id(key.public_key))


def of_tunnel(key: TunnelKey) -> Choice:
    """A tunnel's key."""
    return Choice(key.permutation, key.number % EPOCHS, number=key.number)


def _four_days(today: int | None) -> tuple[int | None, ...]:
    """Those that two bits tell apart."""
    days = candidates(today)
    if today is None or today < 2:
        return days
    return (*days, today - 2)


def _is_recent(terms: Terms, today: int | None) -> bool:
    """Whether a peer whose clock differs still opens it, too."""
    if terms.day is None or today is None:
        return True
    return today - 1 <= terms.day <= today + 1
