"""The gateway's books: connections, what is held, look-ups under way, and what is to be done.

The desks (`initiator`, `responder`, `tunnels` and those beside them) and the gateway write into
them; nothing here takes a decision about policy.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import ike.events as keying
from dnsrecords.trust import Trust
from ike.events import Identity
from oegw import commands as do
from oegw.assurance import UnsignedDelegation
from oegw.commands import Command, Verdict
from oegw.connection import Connection, Happening, State, Tunnel
from oegw.connections import ConnectionTable
from oegw.datapath.interface import SaKey
from oegw.decided import DECISIONS, ends, verdict_begins
from oegw.decision import DecisionPoint
from oegw.gateways import MultihomingSettings
from oegw.hold import Hold, HoldSettings
from oegw.lasting import Lasting
from oegw.memory import KeyMemory
from oegw.nat import Nat
from oegw.peer import ConfiguredPeer
from oegw.refusals import Refusals
from oegw.selfknowledge import OwnQuestion, OwnSettings, Record, SelfKnowledge
from oegw.setups import SetupBudget
from oegw.shields import Shields
from oegw.trace import Trace
from policy.builtin import never_public
from policy.flow import IPAddress, IPNetwork
from policy.rule import Category, Scope
from policy.table import PolicyTable

if TYPE_CHECKING:
    from oegw.ahead import LookAhead
    from oegw.decisions import Approval
    from oegw.latekeys import GatewayKey
    from oegw.multihoming import Homecoming
    from oegw.recovery import Greeting
    from oegw.responder import AddressKey, Authority, KeyQuestion, OwnClient

    Asker: TypeAlias = (
        Connection
        | Approval
        | Authority
        | AddressKey
        | KeyQuestion
        | OwnClient
        | OwnQuestion
        | GatewayKey
        | Homecoming
        | Greeting
        | LookAhead
        | keying.PeerKeyNeeded
    )

# Our choice, seconds: what the peer sent into a tunnel before it closed may still be under way.
LINGER = 2.0
# Our choice: scopes of one connection that the kernel is told of.  A pair of hosts has a few; a
# connection that many hosts share has some for each of them.  The packets of others are trapped.
SCOPES_KEPT = 1024
# One part in so many of all set-ups may be for the gateway's own addresses.
OWN_SHARE = 4

_STANDING = (State.CLEAR, State.DENIED)
_VERDICT_OF = {
    State.KEYED: Verdict.TUNNEL,
    State.CLEAR: Verdict.CLEAR,
    State.DENIED: Verdict.DENY,
}


def verdict_of(connection: Connection) -> Verdict:
    """What becomes of its packets, once it has come to something."""
    if connection.standing is State.DENIED and connection.rule.icmp:
        return Verdict.REFUSE
    return _VERDICT_OF[connection.standing]


@dataclass(frozen=True, slots=True)
class Lifespans:
    """How long, in seconds, a verdict is useful after each class of failure (RFC 4322 3.2.5), and
    a tunnel by what goes through it (section 3.4.1)."""

    silence: float = 60.0  # nobody answered: they may come up any moment
    refused: float = 600.0
    bad_signature: float = 3600.0  # at most; less where the records' TTL is over before
    no_record: float = 300.0  # at most; less where the SOA minimum is smaller
    malformed: float = 60.0
    policy: float = 300.0  # permit and deny verdicts in the kernel
    unused: float = 120.0  # after its lifespan, until a verdict that no packet needed is forgotten
    first_look: float = 60.0  # after a tunnel came up: is it used?
    look: float = 1200.0  # the same from then on
    in_use: float = 30.0  # before a look, in which a packet went through

    @property
    def longest(self) -> float:
        """How long a verdict stands at most."""
        return max(
            self.silence, self.refused, self.bad_signature, self.no_record, self.malformed,
            self.policy,
        )  # fmt: skip

    def without_record(self, ttl: float) -> float:
        """After an answer, good for ``ttl`` seconds, without a record that helps."""
        return min(max(ttl, 1.0), self.no_record)


@dataclass(frozen=True, slots=True)
class CoordinatorSettings:
    """``addresses``: our outer addresses, at most one per family.  ``local_reverse``: private
    ranges whose reverse zones our resolvers serve.  ``nat``: which of our hosts have another
    address outside.  ``own``: what the DNS must say of ourselves; None: that is not looked at.
    ``contacts``: peers that may hold tunnels of our former life.  ``encrypts_ports``: port
    encryption runs.  ``came_shielded``: whether IKE of a peer, our address first, came with its
    ports encrypted, and is answered so."""

    addresses: tuple[IPAddress, ...]
    peers: dict[str, ConfiguredPeer] = field(default_factory=dict)
    local_reverse: tuple[IPNetwork, ...] = ()
    unsigned_delegation: UnsignedDelegation = UnsignedDelegation.ANY
    lifespans: Lifespans = field(default_factory=Lifespans)
    hold: HoldSettings = field(default_factory=HoldSettings)
    setups_per_source: int = 32
    contacts: frozenset[Identity] = frozenset()
    setups: int = 1000
    setups_per_second: float = 250.0
    connections: int = 65536
    configured_retry: float = 10.0  # seconds between two tries for a configured tunnel
    replay_window: int = 1024
    nat: Nat = field(default_factory=Nat)
    multihoming: MultihomingSettings = field(default_factory=MultihomingSettings)
    own: OwnSettings | None = None
    decision_points: tuple[DecisionPoint, ...] = ()
    encrypts_ports: bool = False
    came_shielded: Callable[[IPAddress, IPAddress], bool] = lambda local, remote: False


class Ledger:
    """What the gateway knows and what it wants done.  Commands leave in the order written."""

    def __init__(
        self,
        table: PolicyTable,
        settings: CoordinatorSettings,
        trace: Trace,
        memory: KeyMemory | None = None,
        lasting: Lasting | None = None,
    ) -> None:
        self.memory = KeyMemory() if memory is None else memory
        self.lasting = Lasting() if lasting is None else lasting
        self.table = table
        self.settings = settings
        self.peers = settings.peers
        self.decision_points = settings.decision_points
        self.nat = settings.nat
        self.trace = trace
        self.hold = Hold(settings.hold)
        self.connections = ConnectionTable(settings.connections)
        self.budget = SetupBudget(settings.setups, settings.setups_per_second)
        self.shields = Shields()
        self.own = SelfKnowledge(settings.own, settings.addresses, self.may_look_up)
        self.refusals = Refusals()
        self.lookups: dict[int, Asker] = {}
        self.approvals: dict[int, Approval] = {}  # by the number of the proposed tunnel
        self._commands: list[Command] = []
        self._next_lookup = 1
        self._expiries: list[tuple[float, int]] = []
        self._lingering: list[tuple[float, int, SaKey, bool]] = []

    # Orders.

    def do(self, command: Command) -> None:
        self._commands.append(command)

    def take_commands(self) -> list[Command]:
        """What is to be done since the last call, in order."""
        taken, self._commands = self._commands, []
        return taken

    def start_lookup(self, asker: Asker) -> int:
        """A number for a look-up whose answer is for ``asker``."""
        number = self._next_lookup
        self._next_lookup += 1
        self.lookups[number] = asker
        return number

    def stop_asking(self, connection: Connection) -> None:
        """Give up the questions about a connection that are under way."""
        inquiry, connection.inquiry, connection.renewing = connection.inquiry, None, None
        for number in inquiry.open if inquiry else ():
            self.cancel(number)

    def cancel(self, lookup: int) -> None:
        """Nobody wants the answer any more."""
        if self.lookups.pop(lookup, None) is not None:
            self.do(do.CancelLookup(lookup))

    def ask_own(self, lookup: int, question: OwnQuestion) -> None:
        """Ask the DNS about ourselves.

        There are few names of ours; but whoever forges sources, or proposes tunnels, chooses the
        client that is asked about: that is no question of ours as far as the budget goes.
        """
        if question.record is Record.KEY:
            self.do(do.StartKeyLookup(lookup, question.about, purpose="own", ours=True))
        elif not isinstance(question.about, str):
            self.do(do.StartLookup(lookup, question.about, purpose="own"))

    def refuses_setup(self, source: IPAddress, now: float) -> str | None:
        """Take a set-up for this inside host out of the budget; else the trigger to count."""
        limit = self.settings.setups_per_source
        if source in self.settings.addresses:  # of many: all clients of the SOCKS server
            limit = max(limit, self.settings.setups // OWN_SHARE)
        if self.connections.under_way(source) >= limit:
            return "source_limit"
        return self.budget.refuses(self.connections.all_under_way, now)

    def may_look_up(self, address: IPAddress) -> bool:
        """Whether the reverse name of an address may be asked for: not of private ranges."""
        return not never_public(address) or any(
            address.version == n.version and address in n for n in self.settings.local_reverse
        )

    def objection(self, source: IPAddress) -> str:
        """Why no opportunistic tunnel can be had for a source; empty if it can (7.2, 7.3)."""
        return self.nat.objection(source, self.settings.local_reverse)

    # Time.

    def next_timer(self) -> float | None:
        moments = [queue[0][0] for queue in (self._expiries, self._lingering) if queue]
        return min(moments, default=None)

    def expire_at(self, connection: Connection, moment: float | None) -> None:
        """Set the end of what the connection is now; None: there is none."""
        connection.expires = moment
        if moment is not None:
            heapq.heappush(self._expiries, (moment, connection.number))

    def due(self, now: float) -> Iterator[Connection]:
        """The connections whose ``expires`` is over."""
        while self._expiries and self._expiries[0][0] <= now:
            moment, number = heapq.heappop(self._expiries)
            connection = self.connections.get(number)
            if connection is not None and connection.expires == moment:
                yield connection

    def end_lingering(self, now: float) -> None:
        """Remove the SAs that lingered."""
        while self._lingering and self._lingering[0][0] <= now:
            _, number, key, sealed = heapq.heappop(self._lingering)
            self.do(do.RemoveSa(key))
            if sealed:
                self.do(do.UnsealTunnel(number))

    def room(self, now: float) -> bool:
        """Whether there is room for one more connection: a verdict that would end soon goes."""
        while self.connections.full and self._expiries:
            moment, number = heapq.heappop(self._expiries)
            connection = self.connections.get(number)
            if connection is not None and connection.expires == moment:
                self.end(connection, Happening.FORGOTTEN, "room for a new connection", now)
        return not self.connections.full

    # A connection's states.

    def move(self, connection: Connection, happening: Happening, reason: str, now: float) -> None:
        old = connection.move(happening, now, reason)
        if old is not connection.state:
            self.trace.event(
                "connection", "state", connection=connection.number,
                source=connection.selectors.local, destination=connection.selectors.remote,
                old=old.value, new=connection.state.value, reason=reason,
            )  # fmt: skip
        if old in _STANDING and connection.state is not old:
            tunnel = connection.state in (State.PENDING, State.KEYED)
            self.lasting.withdraw(connection.selectors, connection.rule.name, urgent=tunnel)
        if connection.decided and DECISIONS.get(connection.standing) != connection.decided[0]:
            ends(self.trace, connection, reason, now)
        if connection.state is State.CLEAR and not connection.encrypted_before:
            self._clear_now(connection, reason)

    def _clear_now(self, connection: Connection, reason: str) -> None:
        """Its packets pass in clear from now on: did they so last time?"""
        before = self.memory.encrypted_by(connection.selectors)
        if before is not None:
            connection.encrypted_before = before
            self.trace.event(
                "memory", "encrypted_before", source=connection.selectors.local,
                destination=connection.selectors.remote, gateway=before, reason=reason,
            )  # fmt: skip

    def rests_on(self, connection: Connection, trust: Trust, gateway: IPAddress) -> None:
        """How far the records can be trusted that a tunnel with ``gateway`` rests on."""
        connection.trust = trust
        self.trace.event(
            "connection", "trust", connection=connection.number, gateway=gateway,
            source=connection.selectors.local, destination=connection.selectors.remote,
            trust=trust.value,
        )  # fmt: skip

    def fall_back(
        self, connection: Connection, lifespan: float, reason: str, now: float, deny: bool = False
    ) -> None:
        """No tunnel: clear or deny, as the rule says; a configured connection is never clear.

        Unless the peer is about to have one with us: then its tunnel is awaited.
        """
        if connection.tunnels and connection.standing is not State.CLEAR:
            self.await_peer(connection, now)
            return
        rule = connection.rule
        if rule.category is Category.CONFIGURED:
            deny, lifespan = True, self.settings.configured_retry
        if connection.ruled_until is not None:
            lifespan = min(lifespan, max(connection.ruled_until - now, 1.0))
        deny = deny or rule.protected
        if not deny and self.connections.carried_beside(connection):
            self.let_go(self.hold.take(connection.number), Verdict.TUNNEL, "no_tunnel")
            self.end(connection, Happening.FORGOTTEN, "a tunnel carries it now", now)
            return
        happening = Happening.FELL_BACK_DENY if deny else Happening.FELL_BACK_CLEAR
        asked = connection.state is not State.NONEXISTENT
        self.move(connection, happening, reason, now)
        self.stop_asking(connection)  # the renewal of a tunnel that has gone meanwhile
        self.connections.no_longer_under_way(connection)
        self.expire_at(connection, now + lifespan)
        verdict_begins(self.trace, connection, lifespan, now)
        if asked:
            self._outlasts_us(connection, deny, reason, now + lifespan)
        self.apply_state(connection, now)

    def _outlasts_us(self, connection: Connection, denied: bool, reason: str, until: float) -> None:
        """A verdict that it took time to find: a restart need not find it again.

        Not what others have a say in, a decision point or a peer.
        """
        rule = connection.rule
        if (
            rule.category is Category.OPPORTUNISTIC
            and not self.decision_points
            and connection.ruled_until is None
            and connection.beginner is None
        ):
            self.lasting.stands(connection.selectors, rule, denied, until, reason)

    def await_peer(self, connection: Connection, now: float) -> None:
        """The peer began, and we accepted: hold what its tunnel will carry (RFC 4322 section 3.1).

        The peer sends into the tunnel as soon as it has said so; our answers are as quick, and must
        not be lost because our side of it is still being installed.
        """
        if connection.standing in (State.CLEAR, State.DENIED):
            for scope in connection.scopes:
                self.do(do.RemovePolicy(scope))
            self.stop_asking(connection)
        self.move(connection, Happening.PEER_BEGAN, Happening.PEER_BEGAN.value, now)
        connection.expires = None

    def end(self, connection: Connection, happening: Happening, reason: str, now: float) -> None:
        """The connection is over: its verdicts go first, so that its packets are held again."""
        self.move(connection, happening, reason, now)
        for scope in connection.scopes:
            self.do(do.RemovePolicy(scope))
        self.stop_asking(connection)
        for number, tunnel in list(connection.tunnels.items()):
            if happening is not Happening.TUNNEL_DOWN or not tunnel.up or tunnel.receives_only:
                self.do(do.CloseTunnel(number))
            self.trace.event("tunnel", "closed", tunnel=number, reason=reason)
            self.take_down(connection, number, now if happening is Happening.UNUSED else None)
        self.discard(self.hold.take(connection.number), "connection_over")
        self.connections.discard(connection)

    def apply_state(self, connection: Connection, now: float) -> None:
        """Put the verdict of the state into the kernel, then let the held packets go by it."""
        verdict = verdict_of(connection)
        for scope in connection.scopes:
            self.install(connection, scope, verdict, now)
        self.let_go(self.hold.take(connection.number), verdict, "no_tunnel")

    def remember(self, connection: Connection, scope: Scope) -> bool:
        """Whether the kernel may be told of one scope more."""
        if scope not in connection.scopes and len(connection.scopes) >= SCOPES_KEPT:
            return False
        connection.scopes.setdefault(scope)
        return True

    def install(self, connection: Connection, scope: Scope, verdict: Verdict, now: float) -> None:
        """Cache a verdict in the kernel, for as long as the connection is good for it."""
        lifespan = None if connection.expires is None else connection.expires - now
        keyed_drop = verdict is Verdict.TUNNEL and (
            connection.rule.category is Category.OPPORTUNISTIC and connection.rule.protected
        )
        self.do(do.InstallPolicy(scope, verdict, lifespan, keyed_drop))

    # Packets.

    def let_go(self, packets: Iterable[int], verdict: Verdict, trigger: str) -> None:
        """Packets leave the hold; ``trigger`` is counted where they are dropped."""
        packets = tuple(p for p in packets if p >= 0)  # a probe has no packet
        if not packets:
            return
        if verdict is Verdict.DENY:
            self.do(do.DiscardHeld(packets, trigger))
        else:
            self.do(do.ReleaseHeld(packets, verdict))

    def discard(self, packets: Iterable[int], trigger: str) -> None:
        self.let_go(packets, Verdict.DENY, trigger)

    # Tunnels.

    def take_down(self, connection: Connection, number: int, now: float | None = None) -> None:
        """Forget a tunnel and remove its SAs; with ``now``, the inbound one a little later."""
        tunnel = self.connections.remove_tunnel(connection, number)
        if tunnel is not None:
            if tunnel.key_lookup is not None:
                self.cancel(tunnel.key_lookup)
            self._remove(tunnel, now)
            self.shields.tunnel_over(number)
            if connection.seals == number:
                connection.seals = None
        if connection.state is State.NONEXISTENT and not connection.tunnels:
            self.connections.discard(connection)

    def _remove(self, tunnel: Tunnel, now: float | None) -> None:
        if tunnel.outbound is not None:
            self.do(do.RemoveSa(tunnel.outbound))
        if tunnel.inbound is not None and now is not None:
            lingers = (now + LINGER, tunnel.number, tunnel.inbound, tunnel.sealed)
            heapq.heappush(self._lingering, lingers)
            return
        if tunnel.inbound is not None:
            self.do(do.RemoveSa(tunnel.inbound))
        if tunnel.sealed:
            self.do(do.UnsealTunnel(tunnel.number))

    def seal_by_sender(self, connection: Connection) -> None:
        """The tunnel that sends may be another one now: ports are encrypted by its key, if it has
        one, for its peer knows no other."""
        live = connection.live_tunnel
        if live is not None and live.sealed:
            if connection.seals != live.number:
                connection.seals = live.number
                self.do(do.SendSealed(live.number))
        elif connection.seals is not None:
            self.do(do.SendUnsealed(connection.seals))
            connection.seals = None

    def proposal_over(self, number: int) -> None:
        """The peer gave its proposal up while we asked about it: don't accept it later."""
        self.approvals.pop(number, None)
        for lookup, asker in list(self.lookups.items()):
            proposal: Any = getattr(asker, "proposal", None)
            if proposal is not None and proposal.tunnel == number:
                del self.lookups[lookup]
                self.do(do.CancelLookup(lookup))
