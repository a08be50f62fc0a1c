"""Whose keys we know: what the DNS says of hosts (SST-32, SST-36), and tunnels' keys (SST-34)."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from ipaddress import ip_network

from dnsrecords.trust import Trust
from oegw.sst.allowance import Allowance
from oegw.sst.directory import KnownKeys, Source
from oegw.sst.interface import Algorithm, IPAddress, IPNetwork, PortFlow, PortKey
from oegw.sst.permutation import Permutation
from oegw.sst.probe import Terms

# Our choices.
RELATIONS_LIMIT = 16384  # hosts with keys, or about which the DNS is being asked
KEYS_LIMIT = 4  # of one host: two gateways, or an old key beside the new one, by two algorithms
FORMER_LIMIT = 2  # keys that the DNS no longer names; flows may be left that were born with them
GUESSES_LIMIT = 256  # flows of one host that were opened by guess
SEEN_LIMIT = 8  # terms by which flows with one host were entered
RETIRED = 86400.0  # seconds that a key outlives its tunnels for flows that were born with it ...
WITHOUT_TUNNEL = 60.0  # ... and for what is still under way, where no tunnel of the pair is left


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
    trust: Trust = Trust.INSECURE
    source: KeySource = KeySource.DNS_ADDRESS


def peer_keys(known: KnownKeys, algorithms: Sequence[Algorithm]) -> tuple[PeerKey, ...]:
    """The usable ones, the best first.  A gateway of the other family has no path to probe."""
    source = KeySource.DNS_NAME if known.source is Source.NAME else KeySource.DNS_ADDRESS
    return tuple(
        PeerKey(key.gateway, Algorithm(key.algorithm), key.public_key, known.trust, source)
        for key in known.usable(algorithms)
    )[:KEYS_LIMIT]


@dataclass(slots=True)
class Relation:
    """What we have with one remote host.

    ``former``: keys that were its until lately.  ``seen``: terms by which flows with it were
    entered, the latest last.  ``guesses``: flows that were opened by the most likely key, since
    nobody had said which one the peer uses, and by which.  ``openings``: how many flows that
    nobody here knows it may bring in.
    """

    remote: IPAddress
    keys: tuple[PeerKey, ...] = ()
    former: tuple[PeerKey, ...] = ()
    seen: dict[Terms, None] = field(default_factory=dict)
    knowledge: KnownKeys | None = None  # the answer that ``keys`` are of
    guesses: OrderedDict[PortFlow, Terms] = field(default_factory=OrderedDict)
    openings: Allowance | None = None

    @property
    def known_keys(self) -> tuple[PeerKey, ...]:
        """Those of today first."""
        return self.keys + self.former

    def learn(self, keys: tuple[PeerKey, ...]) -> None:
        """What the DNS says now; flows under way may still need what it said before."""
        self.knowledge = None
        if keys == self.keys:
            return
        named = {(key.gateway, key.public_key, key.algorithm) for key in keys}
        self.former = tuple(
            key
            for key in self.known_keys
            if (key.gateway, key.public_key, key.algorithm) not in named
        )[:FORMER_LIMIT]
        self.keys = keys

    def guess(self, flow: PortFlow, terms: Terms) -> None:
        self.guesses[flow] = terms
        if len(self.guesses) > GUESSES_LIMIT:
            self.guesses.popitem(last=False)

    def enter(self, terms: Terms) -> None:
        self.seen.pop(terms, None)
        self.seen[terms] = None
        if len(self.seen) > SEEN_LIMIT:
            del self.seen[next(iter(self.seen))]


class Relations:
    """By host; the longest unused one is forgotten first."""

    def __init__(self) -> None:
        self._relations: OrderedDict[IPAddress, Relation] = OrderedDict()

    def __len__(self) -> int:
        return len(self._relations)

    def __iter__(self) -> Iterator[Relation]:
        return iter(list(self._relations.values()))

    def find(self, remote: IPAddress) -> Relation | None:
        return self._relations.get(remote)

    def of(self, remote: IPAddress) -> Relation:
        relation = self._relations.get(remote)
        if relation is None:
            relation = self._relations[remote] = Relation(remote)
            if len(self._relations) > RELATIONS_LIMIT:
                self._relations.popitem(last=False)
        else:
            self._relations.move_to_end(remote)
        return relation

    def keys_at(self, relation: Relation) -> tuple[PeerKey, ...]:
        """A host's keys, and others that its gateways have published at their own addresses.

        The records of a gateway and of its hosts expire at different times; when its key changes
        one may be known here before the other.
        """
        found = dict.fromkeys(relation.known_keys)
        for gateway in {key.gateway for key in relation.keys}:
            own = self._relations.get(gateway)
            for key in () if own is None else own.keys:
                if key.gateway == gateway:
                    found[key] = None
        return tuple(found)

    def forget(self, network: IPNetwork) -> list[IPAddress]:
        gone = [remote for remote in self._relations if remote in network]
        for remote in gone:
            del self._relations[remote]
        return gone


@dataclass(frozen=True, slots=True)
class TunnelKey:
    """A key that IKE agreed on, for all packets between two networks.

    ``number`` counts the keys; ``sending``: the peer has it, too.  ``until``: when it ends, None
    while a tunnel has it; ``kept``: flows that were born with it go on with it until then.
    """

    tunnel: int
    local: IPNetwork
    remote: IPNetwork
    octets: bytes = field(repr=False)
    number: int
    permutation: Permutation = field(repr=False)
    sending: bool = False
    until: float | None = None
    kept: bool = False

    @property
    def seals(self) -> bool:
        """Whether flows that were born with it may leave with it."""
        return self.kept or self.sending

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

    def send_sealed(self, tunnel: int, *, sealed: bool = True) -> TunnelKey | None:
        """The peer has the tunnel's key; or (``sealed`` False) nothing new is sealed with it."""
        key = self._tunnels.get(tunnel)
        if key is not None:
            key = replace(key, sending=sealed)
            self._put(key)
        return key

    def closed(self, tunnel: int, now: float) -> TunnelKey | None:
        """The tunnel is gone.  Returns its key if it was the last of its pair, so that the peer may
        have lost all their keys, and flows need another."""
        key = self._tunnels.pop(tunnel, None)
        if key is None:
            return None
        pair = key.local, key.remote
        others = self._pairs[pair]
        del others[tunnel]
        if any(each.octets == key.octets for each in others.values()):
            return None
        if others:
            self._retired.append(replace(key, sending=False, kept=True, until=now + RETIRED))
            return None
        del self._pairs[pair]
        lengths = _lengths(key)
        self._lengths[lengths] -= 1
        if not self._lengths[lengths]:
            del self._lengths[lengths]
        end = now + WITHOUT_TUNNEL
        self._retired = [
            replace(old, kept=False, until=end)
            if (old.local, old.remote) == pair and old.until is not None and old.until > end
            else old
            for old in (*self._retired, replace(key, sending=False, until=now + RETIRED))
        ]
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
