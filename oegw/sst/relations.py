"""Whose keys we know: what the DNS says of hosts (SST-32, SST-36), and tunnels' keys (SST-34)."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from ipaddress import ip_network

from dnsrecords.trust import Trust
from oegw.sst.allowance import Allowance
from oegw.sst.interface import Algorithm, IPAddress, IPNetwork, PortKey
from oegw.sst.permutation import Permutation
from oegw.sst.probe import Terms

# Our choices.
RELATIONS_LIMIT = 16384  # hosts of which we know a key, or that they have none
KEYS_LIMIT = 4  # of one host: two gateways, or an old key beside the new one, by two algorithms
FORMER_LIMIT = 2  # keys that the DNS no longer names; flows may be left that were born with them
RETRY = 10.0  # seconds until the DNS is asked again that did not answer
SHORTEST = 5.0  # seconds that an answer holds at least, whatever its TTL
LONGEST = 86400.0  # and at most
RETIRED = 60.0  # seconds that a tunnel's key is good for opening after its tunnel is gone


class KeySource(Enum):
    """Who told us of a key."""

    DNS_ADDRESS = "dns-address"  # the reverse zone of the host's address
    DNS_NAME = "dns-name"  # the name by which somebody inside asked for the host
    IKE = "ike"


@dataclass(frozen=True, slots=True)
class PeerKey:
    """A key that a host's gateway has published."""

    gateway: IPAddress
    algorithm: Algorithm
    public_key: bytes
    precedence: int = 10
    trust: Trust = Trust.INSECURE
    source: KeySource = KeySource.DNS_ADDRESS


@dataclass(slots=True)
class Relation:
    """What is known of one remote host.  No keys: it has none, until ``until``.

    ``seen``: terms by which flows with it were entered.  ``guessed``: a flow was opened by the most
    likely key, since nobody had said which one the peer uses.
    """

    remote: IPAddress
    keys: tuple[PeerKey, ...] = ()
    former: tuple[PeerKey, ...] = ()
    until: float = float("-inf")
    asking: bool = False
    answered: bool = False
    seen: dict[Terms, float] = field(default_factory=dict)
    guessed: bool = False
    openings: Allowance | None = None

    @property
    def known_keys(self) -> tuple[PeerKey, ...]:
        """Those of today first."""
        return self.keys + self.former


class Relations:
    """By host, the longest unused one is forgotten first."""

    def __init__(self) -> None:
        self._relations: OrderedDict[IPAddress, Relation] = OrderedDict()

    def __len__(self) -> int:
        return len(self._relations)

    def __iter__(self) -> Iterator[Relation]:
        return iter(self._relations.values())

    def find(self, remote: IPAddress) -> Relation | None:
        relation = self._relations.get(remote)
        if relation is not None:
            self._relations.move_to_end(remote)
        return relation

    def of(self, remote: IPAddress) -> Relation:
        relation = self.find(remote)
        if relation is None:
            relation = self._relations[remote] = Relation(remote)
            if len(self._relations) > RELATIONS_LIMIT:
                self._relations.popitem(last=False)
        return relation

    def found(
        self, remote: IPAddress, keys: Iterable[PeerKey], ttl: float, now: float
    ) -> Relation:
        """An answer with keys; those that it no longer names are kept for flows under way."""
        relation = self.of(remote)
        fresh = tuple(keys)[:KEYS_LIMIT]
        named = {(key.public_key, key.algorithm) for key in fresh}
        gone = [k for k in relation.known_keys if (k.public_key, k.algorithm) not in named]
        relation.former = tuple(gone[:FORMER_LIMIT])
        relation.keys = fresh
        self._answered(relation, ttl, now)
        return relation

    def absent(self, remote: IPAddress, ttl: float, now: float) -> Relation:
        """The DNS says that there is no key."""
        return self.found(remote, (), ttl, now)

    def unanswered(self, remote: IPAddress, now: float) -> Relation:
        """What was known goes on to hold; somebody asks again in a while."""
        relation = self.of(remote)
        relation.asking = False
        relation.until = now + RETRY
        return relation

    def forget(self, network: IPNetwork) -> list[IPAddress]:
        gone = [remote for remote in self._relations if remote in network]
        for remote in gone:
            del self._relations[remote]
        return gone

    def _answered(self, relation: Relation, ttl: float, now: float) -> None:
        relation.asking = False
        relation.answered = True
        relation.until = now + min(max(ttl, SHORTEST), LONGEST)


@dataclass(frozen=True, slots=True)
class TunnelKey:
    """A key that IKE agreed on, for all packets between two networks.

    ``number`` counts the keys; ``sending``: the peer has it, too.  ``until``: when it ends, None
    while a tunnel has it.
    """

    tunnel: int
    local: IPNetwork
    remote: IPNetwork
    octets: bytes = field(repr=False)
    number: int
    permutation: Permutation = field(repr=False)
    sending: bool = False
    until: float | None = None

    def covers(self, local: IPAddress, remote: IPAddress) -> bool:
        return local in self.local and remote in self.remote


_Pair = tuple[IPNetwork, IPNetwork]


class TunnelKeys:
    """The keys of tunnels, and for a while of those that are gone."""

    def __init__(self) -> None:
        self._pairs: dict[_Pair, dict[int, TunnelKey]] = {}
        self._tunnels: dict[int, TunnelKey] = {}
        self._lengths: Counter[tuple[int, int, int]] = Counter()  # version, local, remote prefix
        self._retired: list[TunnelKey] = []
        self._numbers = 0

    def __iter__(self) -> Iterator[TunnelKey]:
        return iter(self._tunnels.values())

    def __len__(self) -> int:
        return len(self._tunnels)

    def keyed(
        self, tunnel: int, local: IPNetwork, remote: IPNetwork, octets: bytes, now: float
    ) -> None:
        """Raises ValueError for a key of the wrong length."""
        self.closed(tunnel, now)
        alike = [
            each
            for each in (*self._pairs.get((local, remote), {}).values(), *self._retired)
            if each.octets == octets and (each.local, each.remote) == (local, remote)
        ]
        if alike:
            number, permutation = alike[0].number, alike[0].permutation
        else:
            number = self._numbers
            permutation = Permutation(PortKey(Algorithm.FF1_AES_128, octets))
            self._numbers += 1
        key = TunnelKey(tunnel, local, remote, octets, number, permutation)
        self._put(key)

    def send_sealed(self, tunnel: int) -> TunnelKey | None:
        key = self._tunnels.get(tunnel)
        if key is not None:
            key = replace(key, sending=True)
            self._put(key)
        return key

    def closed(self, tunnel: int, now: float) -> TunnelKey | None:
        """The tunnel is gone; returns its key if no other tunnel of the pair has it."""
        key = self._tunnels.pop(tunnel, None)
        if key is None:
            return None
        pair = self._pairs[key.local, key.remote]
        del pair[tunnel]
        if any(each.octets == key.octets for each in pair.values()):
            return None
        if not pair:
            del self._pairs[key.local, key.remote]
            lengths = _lengths(key)
            self._lengths[lengths] -= 1
            if not self._lengths[lengths]:
                del self._lengths[lengths]
        self._retired.append(replace(key, sending=False, until=now + RETIRED))
        return key

    def covering(self, local: IPAddress, remote: IPAddress, now: float) -> list[TunnelKey]:
        """Each key for a pair of hosts once: narrower networks first, then the newest."""
        found: dict[int, TunnelKey] = {}
        live = [key for key in self._candidates(local, remote) if key.covers(local, remote)]
        live.sort(key=lambda key: (-_width(key), -key.number, not key.sending))
        for key in live:
            other = found.get(key.number)
            if other is None or (key.sending and not other.sending):
                found[key.number] = key
        for key in self._retired:
            if key.until is not None and key.until > now and key.covers(local, remote):
                found.setdefault(key.number, key)
        return list(found.values())

    def tidy(self, now: float) -> None:
        self._retired = [k for k in self._retired if k.until is not None and k.until > now]

    def next_end(self) -> float | None:
        return min((key.until for key in self._retired if key.until is not None), default=None)

    def _put(self, key: TunnelKey) -> None:
        self._tunnels[key.tunnel] = key
        pair = (key.local, key.remote)
        if pair not in self._pairs:
            self._pairs[pair] = {}
            self._lengths[_lengths(key)] += 1
        self._pairs[pair][key.tunnel] = key

    def _candidates(self, local: IPAddress, remote: IPAddress) -> Iterator[TunnelKey]:
        """Of all pairs of networks those around two hosts, by their lengths, which are few."""
        for version, mine, theirs in self._lengths:
            if version == local.version == remote.version:
                pair = _around(local, mine), _around(remote, theirs)
                yield from self._pairs.get(pair, {}).values()


def _width(key: TunnelKey) -> int:
    return key.local.prefixlen + key.remote.prefixlen


def _lengths(key: TunnelKey) -> tuple[int, int, int]:
    return key.local.version, key.local.prefixlen, key.remote.prefixlen


def _around(address: IPAddress, length: int) -> IPNetwork:
    return ip_network((address, length), strict=False)
