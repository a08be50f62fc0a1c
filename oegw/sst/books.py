"""The books that the desks of port encryption share: keys, paths, held packets, fates of pairs.

Without IO, as all that `sealing` is made of.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from oegw.sst.allowance import Allowance
from oegw.sst.directory import KeyDirectory, Knowledge, KnownKeys
from oegw.sst.holding import Held, Holding
from oegw.sst.interface import (
    ALGORITHMS,
    Caught,
    Entry,
    IPAddress,
    Leg,
    Plane,
    PortFlow,
    SstError,
    Way,
    Wish,
)
from oegw.sst.keyring import LINGERING, Choice, Keyring
from oegw.sst.orders import AskKeys, Order
from oegw.sst.packet import open_sealed, seal
from oegw.sst.paths import OwnKey, Paths
from oegw.sst.place import Fragment, Place
from oegw.sst.relations import PeerKey, Relations, TunnelKey, TunnelKeys, peer_keys
from oegw.sst.settings import Epochs, SstSettings
from oegw.sst.signal import Signal
from oegw.trace import Trace
from policy.flow import Flow

# Our choices.
QUESTIONS_LIMIT = 1000  # hosts about which the DNS is being asked
STRANGERS_PER_SECOND = 50.0  # questions that flagged packets from unknown hosts cause
STRANGERS_BURST = 100.0
LINES_PER_SECOND = 50.0  # of the trace, about what comes from outside
LINES_BURST = 500.0
DECLINED_LIMIT = 4096  # hosts that we remember flows of as declined; beyond it all are forgotten
MISTAKES_LIMIT = 4096  # flows that were opened with the wrong key
FORGET_ONE_BY_ONE = 64  # hosts; more are forgotten with all others
FATES_LIMIT = 4096  # pairs of hosts of which the status tells what a flow got
SHORTEST_DECLINE = 2.0  # seconds that a flow goes on without at least, until it is asked again ...
LONGEST_DECLINE = 60.0  # ... and at most

WishOf = Callable[[Flow], Wish]
Knows = Callable[[PortFlow], bool]


@dataclass(frozen=True, slots=True)
class Wait:
    """Not yet: ``what`` says for which event."""

    what: Hashable


@dataclass(frozen=True, slots=True)
class Refused:
    """Port encryption can't be had: why, and for how many seconds that holds."""

    reason: str
    lifespan: float


Answer = Choice | Wait | Refused


@dataclass(frozen=True, slots=True)
class Fate:
    """What the latest flow between two hosts got.  ``reason``: why not.  ``dropped``: what can't
    be sealed does not leave."""

    leg: Leg
    sealed: bool
    reason: str
    at: float
    dropped: bool = False


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What port encryption is given.

    ``own``: our static keys, the current one first; ``addresses``: our outer addresses; ``wish``:
    what the policy says of a flow; ``knows``: whether the kernel tracks a connection that a packet
    with these ports belongs to; ``random``: so many octets; ``lingering``: epochs of connections
    that an earlier run left; ``started``: when this one began.
    """

    plane: Plane
    directory: KeyDirectory
    own: tuple[OwnKey, ...]
    addresses: tuple[IPAddress, ...]
    wish: WishOf
    knows: Knows
    trace: Trace
    random: Callable[[int], bytes]
    started: float
    lingering: frozenset[int] = frozenset(range(4))


class Books:
    """See above.  Methods write one thing down, or look one thing up."""

    def __init__(self, settings: SstSettings, given: Surroundings) -> None:
        self.settings = settings
        self.plane = given.plane
        self.directory = given.directory
        self.own = given.own
        self.addresses = frozenset(given.addresses)
        self.wish = given.wish
        self.knows = given.knows
        self.trace = given.trace
        self.signal = Signal.of(settings)
        self.algorithms = tuple(ALGORITHMS[name] for name in settings.algorithms)
        self.orders: list[Order] = []
        self.holding = Holding(settings.hold_packets)
        self.relations = Relations()
        self.tunnels = TunnelKeys()
        self.paths = Paths(
            given.own,
            given.addresses,
            self.algorithms,
            self.signal,
            given.random,
            self.orders.append,
            patience=settings.patience,
            interval=settings.probe_interval,
            lifespan=settings.flow_lifespan,
            daily=settings.epochs is Epochs.DAILY,
        )
        self.keyring = Keyring(
            given.own, self.relations, self.paths, given.lingering, given.started + LINGERING
        )
        self.asking: set[IPAddress] = set()
        self.strangers = Allowance(STRANGERS_PER_SECOND, STRANGERS_BURST)
        self.born: OrderedDict[tuple[Leg, PortFlow], Choice] = OrderedDict()
        self.declined: OrderedDict[tuple[Leg, IPAddress], None] = OrderedDict()
        self.fates: OrderedDict[tuple[IPAddress, IPAddress], Fate] = OrderedDict()
        self.mistaken: OrderedDict[PortFlow, None] = OrderedDict()
        self._declined_more = False
        self._lines = Allowance(LINES_PER_SECOND, LINES_BURST)
        self._left_out = 0
        self.moment = given.started  # of the packet that is being decided on

    # ---------------------------------------------------------------------- keys

    def known(self, remote: IPAddress, now: float, *, secure: bool = False) -> Knowledge | None:
        """What the directory says; keys go into the relation."""
        knowledge = self.directory.find(remote, now, secure=secure)
        if isinstance(knowledge, KnownKeys):
            relation = self.relations.find(remote)
            if relation is not None and relation.knowledge is knowledge:
                self.relations.of(remote)  # it is in use
                return knowledge
            keys = tuple(key for key in peer_keys(knowledge, self.algorithms) if self._usable(key))
            keys = tuple(key for key in keys if key.gateway.version == remote.version)
            if keys or self.relations.find(remote) is not None:
                relation = self.relations.of(remote)
                before = relation.keys
                relation.learn(keys)
                relation.knowledge = knowledge
                for key in before:
                    if key.public_key not in {each.public_key for each in keys}:
                        self.paths.rest(key)
        return knowledge

    def _usable(self, key: PeerKey) -> bool:
        """Whether each key of ours has a secret with it, and its owner is another."""
        if key.gateway in self.addresses or not self.own:
            return False
        if self.paths.find(key.gateway, key.public_key) is not None:
            return True
        try:
            for own in self.own:
                own.probe_key(key.public_key)
        except SstError as error:
            self.trace.drop("sst", "peer_key_weak", gateway=key.gateway, detail=str(error))
            return False
        return True

    def ask(self, remote: IPAddress, now: float, *, stranger: bool) -> Wait | None:
        """Ask the DNS, unless that is under way; None if too much is."""
        if remote not in self.asking:
            if len(self.asking) >= QUESTIONS_LIMIT:
                return None
            if stranger and not self.strangers.take(now):
                return None
            self.asking.add(remote)
            self.orders.append(AskKeys(remote, not stranger and bool(self.relation_keys(remote))))
        return Wait(("keys", remote))

    def relation_keys(self, remote: IPAddress) -> tuple[PeerKey, ...]:
        relation = self.relations.find(remote)
        return () if relation is None else relation.known_keys

    # --------------------------------------------------------------------- flows

    def tracks(self, flow: PortFlow) -> bool:
        """Whether the kernel knows a connection, and not because we opened something wrongly."""
        return flow not in self.mistaken and self.knows(flow)

    def mistake(self, flow: PortFlow) -> None:
        """It never was: another key opens what came."""
        self.mistaken[flow] = None
        self.born.pop((Leg.OUTSIDE, flow), None)
        if len(self.mistaken) > MISTAKES_LIMIT:
            self.mistaken.popitem(last=False)

    def enter(
        self, caught: Caught, place: Place, flow: PortFlow, choice: Choice, now: float, *,
        fast: bool = True,
    ) -> None:  # fmt: skip
        """Let a packet go on sealed, or opened, and those behind it without us."""
        self._remember_birth(caught.leg, flow, choice)
        self._tell_fate(caught.leg, flow, now, sealed=True, reason="")
        plain = place.source_port, place.destination_port
        entered = False
        if fast and place.fragment is Fragment.WHOLE and _straight(caught.packet, place):
            sealed_local, sealed_remote = choice.permutation.seal_ports(
                flow.local.packed, flow.remote.packed, flow.protocol, flow.local_port,
                flow.remote_port,
            )  # fmt: skip
            entered = self.plane.enter(
                Entry(
                    caught.leg, flow, sealed_local, sealed_remote, choice.epoch,
                    self.settings.flow_lifespan,
                )
            )  # fmt: skip
        if entered:
            self.plane.release(caught.number)
        else:
            change = seal if caught.way is Way.SEAL else open_sealed
            packet = change(caught.packet, choice.permutation, self.signal)
            self.plane.release(caught.number, packet, choice.epoch)
        self.note(
            "sealed" if caught.way is Way.SEAL else "opened",
            by_stranger=caught.way is Way.OPEN or caught.sticky, leg=caught.leg.value,
            source=host(place.source), destination=host(place.destination),
            protocol=flow.protocol, ports=plain if caught.way is Way.SEAL else None,
            epoch=choice.epoch, fast=entered,
        )  # fmt: skip

    def decline(
        self, caught: Caught, flow: PortFlow | None, remote: IPAddress, refused: Refused,
        now: float,
    ) -> None:  # fmt: skip
        """Let a packet, and for a while its flow, go on without (SST-29: opportunistic)."""
        lifespan = min(max(refused.lifespan, SHORTEST_DECLINE), LONGEST_DECLINE)
        if flow is not None:
            self.plane.decline(caught.leg, flow, lifespan)
            self.declined[caught.leg, remote] = None
            if len(self.declined) > DECLINED_LIMIT:
                self.declined.popitem(last=False)
                self._declined_more = True
            self._tell_fate(caught.leg, flow, now, sealed=False, reason=refused.reason)
        self.plane.release(caught.number)
        self.trace.event(
            "sst", "declined", leg=caught.leg.value, remote=remote, reason=refused.reason,
            lifespan=round(lifespan, 3),
        )  # fmt: skip

    def block(
        self, caught: Caught, trigger: str, flow: PortFlow | None, remote: IPAddress,
        refused: Refused, now: float,
    ) -> None:  # fmt: skip
        """Drop a packet that must not go on without (SST-29: required, SST-18)."""
        self.drop(caught, trigger, remote=remote, reason=refused.reason)
        if flow is not None:
            reason = refused.reason
            self._tell_fate(caught.leg, flow, now, sealed=False, reason=reason, dropped=True)

    def note(self, event: str, *, by_stranger: bool, **fields: object) -> None:
        """Trace something.  Of what packets from outside can cause there are so many lines, and no
        more: ``left_out`` says how many there would have been besides."""
        if by_stranger:
            if not self._lines.take(self.moment):
                self._left_out += 1
                return
            if self._left_out:
                fields["left_out"], self._left_out = self._left_out, 0
        self.trace.event("sst", event, **fields)

    def drop(self, caught: Caught, trigger: str, **fields: object) -> None:
        self.plane.drop(caught.number)
        self.trace.drop("sst", trigger, leg=caught.leg.value, way=caught.way.value, **fields)

    def hold(
        self, caught: Caught, wait: Wait, remote: IPAddress, until: float, *, stranger: bool
    ) -> bool:
        return self.holding.hold(Held(caught, wait.what, remote, until, stranger))

    def birth(self, leg: Leg, flow: PortFlow) -> Choice | None:
        """The key that a flow was born with, as far as we remember it."""
        return self.born.get((leg, flow))

    def forget_declines(self, leg: Leg | None = None, remote: IPAddress | None = None) -> None:
        """Have declined flows asked again: of one leg, or host, or all."""
        if self._declined_more and remote is None:
            for each in Leg if leg is None else (leg,):
                self.plane.forget(each)
            self._declined_more = leg is not None
        for each, host_ in list(self.declined):
            if leg in (None, each) and remote in (None, host_):
                del self.declined[each, host_]
                self.plane.forget(each, host_)

    def forget_tunnel(self, key: TunnelKey) -> None:
        """Have the flows of a pair of networks looked at again: their tunnel is gone."""
        hosts = {
            flow.remote
            for leg, flow in self.born
            if leg is Leg.TUNNEL and key.covers(flow.local, flow.remote)
        }
        if len(hosts) > FORGET_ONE_BY_ONE or len(self.born) >= self.settings.flows:
            self.plane.forget(Leg.TUNNEL)
            return
        for remote in hosts:
            self.plane.forget(Leg.TUNNEL, remote)

    def _remember_birth(self, leg: Leg, flow: PortFlow, choice: Choice) -> None:
        self.born[leg, flow] = choice
        self.born.move_to_end((leg, flow))
        if len(self.born) > self.settings.flows:
            self.born.popitem(last=False)
        if choice.terms is not None:
            relation = self.relations.find(flow.remote)
            if relation is not None:
                relation.enter(choice.terms)

    def _tell_fate(
        self, leg: Leg, flow: PortFlow, now: float, *, sealed: bool, reason: str,
        dropped: bool = False,
    ) -> None:  # fmt: skip
        pair = flow.local, flow.remote
        self.fates[pair] = Fate(leg, sealed, reason, now, dropped)
        self.fates.move_to_end(pair)
        if len(self.fates) > FATES_LIMIT:
            self.fates.popitem(last=False)


def host(packed: bytes) -> IPAddress:
    """An address of a packet."""
    return IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)


def _straight(packet: bytes, place: Place) -> bool:
    """Whether the header has the addresses that the ports are sealed for: the kernel sees those.

    With a Routing header on its way it has not.
    """
    if place.version == 4:
        return True
    return packet[8:24] == place.source and packet[24:40] == place.destination
