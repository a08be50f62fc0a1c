"""One connection: what a pair of hosts (or of configured networks) has come to.

The rules of this module: every state changes by ``Connection.move``, which
checks the table; an illegal pair raises and changes nothing; nothing here does
IO or knows the time except as told.  The states are those of RFC 4322 section 3.2;
`docs/states.md` maps them, and every row of the table, to its diagrams.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from dnsrecords.outcome import Gateway, KeyOutcome
from dnsrecords.trust import Trust
from ike.events import EncapsulationReason, Failure, Identity, TunnelRequest
from oegw.datapath.interface import SaKey
from oegw.inquiry import Inquiry
from policy.flow import Flow, IPNetwork
from policy.rule import Category, PortRange, Rule, Scope


class State(Enum):
    NONEXISTENT = "nonexistent"
    POTENTIAL = "potential"  # looking for a gateway
    PENDING = "pending"  # negotiating with one
    KEYED = "keyed"  # a tunnel carries it
    CLEAR = "clear"  # no tunnel to be had: passes as it is, for a lifespan
    DENIED = "denied"  # no tunnel to be had, or the records are bad: dropped, for a lifespan
    EXPIRING = "expiring"  # is it still used, and still right?  Meanwhile it is as it was before
    EXPIRED = "expired"  # gone; the next packet starts anew


class Happening(Enum):
    LOOKUP_STARTED = "look-up started"
    GATEWAY_KNOWN = "gateway known"
    PEER_BEGAN = "the peer began"  # its proposal is accepted, and its tunnel will carry our packets
    TUNNEL_UP = "tunnel up"
    TUNNEL_DOWN = "last tunnel down"
    HALF_DOWN = "last tunnel down, another under negotiation"
    FELL_BACK_CLEAR = "fell back to clear"
    FELL_BACK_DENY = "fell back to deny"
    LIFESPAN_OVER = "lifespan over"  # of an opportunistic verdict: the next packet shows its use
    RETRY_DUE = "retry due"  # of a configured tunnel
    LOOK_DUE = "look due"  # whether the tunnel is used
    STILL_USED = "still used"
    UNUSED = "unused"
    FORGOTTEN = "forgotten"  # by the operator, or by a new policy


S, H = State, Happening
TRANSITIONS: dict[tuple[State, Happening], State] = {
    (S.NONEXISTENT, H.LOOKUP_STARTED): S.POTENTIAL,  # opportunistic, time point (5B)
    (S.NONEXISTENT, H.GATEWAY_KNOWN): S.PENDING,  # configured: no look-up needed
    (S.NONEXISTENT, H.PEER_BEGAN): S.PENDING,
    (S.NONEXISTENT, H.TUNNEL_UP): S.KEYED,  # the peer began
    (S.NONEXISTENT, H.FELL_BACK_CLEAR): S.CLEAR,  # no look-up possible: private range
    (S.NONEXISTENT, H.FELL_BACK_DENY): S.DENIED,
    (S.NONEXISTENT, H.FORGOTTEN): S.EXPIRED,  # the peer began, and the policy changed
    (S.POTENTIAL, H.GATEWAY_KNOWN): S.PENDING,  # (5C), (5D)
    (S.POTENTIAL, H.PEER_BEGAN): S.PENDING,  # and our look-up found nothing to begin with
    (S.POTENTIAL, H.TUNNEL_UP): S.KEYED,  # the peer was faster
    (S.POTENTIAL, H.FELL_BACK_CLEAR): S.CLEAR,
    (S.POTENTIAL, H.FELL_BACK_DENY): S.DENIED,
    (S.POTENTIAL, H.FORGOTTEN): S.EXPIRED,
    (S.PENDING, H.GATEWAY_KNOWN): S.PENDING,  # the next of several gateways
    (S.PENDING, H.TUNNEL_UP): S.KEYED,  # (5H)
    (S.PENDING, H.TUNNEL_DOWN): S.EXPIRED,  # agreed, and deleted before it carried anything
    (S.PENDING, H.FELL_BACK_CLEAR): S.CLEAR,
    (S.PENDING, H.FELL_BACK_DENY): S.DENIED,
    (S.PENDING, H.FORGOTTEN): S.EXPIRED,
    (
        S.KEYED,
        H.TUNNEL_UP,
    ): S.KEYED,  # a second tunnel: crossed initiation, or a peer that restarted
    (S.KEYED, H.LOOK_DUE): S.EXPIRING,
    (S.KEYED, H.TUNNEL_DOWN): S.EXPIRED,
    (S.KEYED, H.HALF_DOWN): S.PENDING,  # its packets are held until the other is up
    (S.KEYED, H.FORGOTTEN): S.EXPIRED,
    (S.CLEAR, H.PEER_BEGAN): S.PENDING,  # once we can receive: until then it stays clear
    (S.CLEAR, H.TUNNEL_UP): S.KEYED,  # the peer got its gateway meanwhile
    (S.CLEAR, H.LIFESPAN_OVER): S.EXPIRING,
    (S.CLEAR, H.FORGOTTEN): S.EXPIRED,
    (S.DENIED, H.PEER_BEGAN): S.PENDING,
    (S.DENIED, H.TUNNEL_UP): S.KEYED,
    (S.DENIED, H.LIFESPAN_OVER): S.EXPIRING,
    (S.DENIED, H.RETRY_DUE): S.EXPIRED,
    (S.DENIED, H.FORGOTTEN): S.EXPIRED,
    (S.EXPIRING, H.LOOKUP_STARTED): S.EXPIRING,  # it is used: the DNS is asked again, behind it
    (S.EXPIRING, H.GATEWAY_KNOWN): S.EXPIRING,  # negotiated with, behind it
    (S.EXPIRING, H.PEER_BEGAN): S.PENDING,
    (S.EXPIRING, H.TUNNEL_UP): S.KEYED,
    (S.EXPIRING, H.FELL_BACK_CLEAR): S.CLEAR,
    (S.EXPIRING, H.FELL_BACK_DENY): S.DENIED,
    (S.EXPIRING, H.STILL_USED): S.KEYED,
    (S.EXPIRING, H.UNUSED): S.EXPIRED,
    (S.EXPIRING, H.FORGOTTEN): S.EXPIRED,
}
"""From a state, by what happens, to the state after."""

_VERDICTS = frozenset((S.CLEAR, S.DENIED))
WHILE_EXPIRING: dict[Happening, frozenset[State]] = {
    H.LOOKUP_STARTED: _VERDICTS,
    H.GATEWAY_KNOWN: _VERDICTS,
    H.PEER_BEGAN: _VERDICTS,
    H.TUNNEL_UP: _VERDICTS,
    H.FELL_BACK_CLEAR: _VERDICTS,
    H.FELL_BACK_DENY: _VERDICTS,
    H.STILL_USED: frozenset((S.KEYED,)),
    H.UNUSED: _VERDICTS | {S.KEYED},
    H.FORGOTTEN: _VERDICTS | {S.KEYED},
}
"""The states before EXPIRING in which each of its rows holds."""


class IllegalTransition(Exception):  # noqa: N818  (names the fact, not the error class)
    """Our own misuse: the table has no row for it."""


@dataclass(frozen=True, slots=True)
class Selectors:
    """What a tunnel carries, from our side outwards; 0 is any protocol, any port.

    ``port`` is the destination's port in the direction from ``local`` to ``remote``.
    """

    local: IPNetwork
    remote: IPNetwork
    protocol: int = 0
    local_port: int = 0
    remote_port: int = 0

    def covers(self, flow: Flow) -> bool:
        """Whether a packet of ``flow``, outward bound, may enter the tunnel."""
        return (
            flow.source.version == self.local.version
            and flow.source in self.local
            and flow.destination in self.remote
            and self.protocol in (0, flow.protocol)
            and self.local_port in (0, flow.source_port)
            and self.remote_port in (0, flow.destination_port)
        )

    def flow(self) -> Flow:
        """A flow that stands for all that it carries, to ask the policy about."""
        return Flow(
            self.local.network_address,
            self.remote.network_address,
            self.protocol,
            self.local_port or None,
            self.remote_port or None,
        )

    def scope(self) -> Scope:
        """All that it carries."""
        source, destination = PortRange.of(self.local_port), PortRange.of(self.remote_port)
        return Scope(self.local, self.remote, self.protocol or None, source, destination)

    def are_within(self, scope: Scope) -> bool:
        """Whether one answer of the policy holds for all that it carries."""
        mine = self.scope()
        return (
            _is_within(self.local, scope.source)
            and _is_within(self.remote, scope.destination)
            and scope.protocol in (None, mine.protocol)
            and _are_within(mine.source_ports, scope.source_ports)
            and _are_within(mine.destination_ports, scope.destination_ports)
        )

    def __contains__(self, other: Selectors) -> bool:
        """Whether all that ``other`` carries between the same two sides may enter the tunnel."""
        return (
            (self.local, self.remote) == (other.local, other.remote)
            and self.protocol in (0, other.protocol)
            and self.local_port in (0, other.local_port)
            and self.remote_port in (0, other.remote_port)
        )


def _is_within(inner: IPNetwork, outer: IPNetwork) -> bool:
    return (
        inner.version == outer.version
        and inner.prefixlen >= outer.prefixlen
        and inner.network_address in outer
    )


def _are_within(inner: PortRange, outer: PortRange) -> bool:
    return outer.first <= inner.first and inner.last <= outer.last


def host_network(address: IPv4Address | IPv6Address) -> IPNetwork:
    """The /32 or /128 of one address."""
    if isinstance(address, IPv4Address):
        return IPv4Network((address, 32))
    return IPv6Network((address, 128))


def selectors_for(flow: Flow, rule: Rule) -> Selectors:
    """What we propose for ``flow`` under ``rule``.

    Opportunistic tunnels are for one pair of hosts (draft section 4.12.1),
    configured ones for the rule's two networks.  A rule that gives a protocol
    narrows the tunnel to it, and to a port where the rule gives a single one:
    an IKEv1 ID can't say a range (RFC 2407 section 4.6.2).
    """
    if rule.category is Category.CONFIGURED:
        return configured_selectors(rule)
    return _narrowed_to(rule, host_network(flow.source), host_network(flow.destination))


def configured_selectors(rule: Rule) -> Selectors:
    """What the tunnel of a configured rule carries: its two networks."""
    assert rule.source is not None
    assert rule.destination is not None
    return _narrowed_to(rule, next(iter(rule.source)), next(iter(rule.destination)))


def _narrowed_to(rule: Rule, local: IPNetwork, remote: IPNetwork) -> Selectors:
    if rule.protocol is None:
        return Selectors(local, remote)
    source, destination = rule.source_ports, rule.destination_ports
    return Selectors(
        local,
        remote,
        rule.protocol,
        source.first if source.first == source.last else 0,
        destination.first if destination.first == destination.last else 0,
    )


@dataclass(slots=True)
class Tunnel:
    """The SAs of one quick mode, as far as they are installed.

    ``request``: what a successor is ordered with.  ``udp``: our and the peer's port, if ESP is
    in UDP.  ``traffic``: when a packet was last received, and sent, as far as was reported.
    """

    number: int
    gateway: IPv4Address | IPv6Address
    initiator: bool
    inbound: SaKey | None = None
    outbound: SaKey | None = None
    request: TunnelRequest | None = None
    cipher: str = ""
    udp: tuple[int, int] | None = None
    encapsulation: EncapsulationReason | None = None  # why it is in UDP, or is not
    traffic: tuple[float | None, float | None] = (None, None)
    trust: Trust | None = None  # of the records that it rests on
    agreed: bool = False  # the keying core is done with it
    up: bool = False  # both SAs are installed
    receives_only: bool = False  # another one is preferred for sending; it ends soon
    key_lookup: int | None = None  # under way while main mode runs: the gateway's KEY records
    late: bool = False  # the peer moved while an SA was being installed, where it was before
    sealed: bool = False  # ports are encrypted inside of it
    awaits_shield: bool = False  # message 1 waits until the gateways' own ports are encrypted
    shielded: bool = False  # they are
    unsealed: str = ""  # why neither is so, though the rule wants it

    @property
    def carries(self) -> bool:
        """Whether it sends, or will."""
        return self.agreed and not self.receives_only

    @property
    def peer(self) -> Identity:
        """Who is at the other end: gateways behind one NAT have the same address."""
        if self.request is None or self.request.peer_identity is None:
            return self.gateway
        return self.request.peer_identity


@dataclass(slots=True)
class Connection:
    """Everything known of one connection.  Times are monotonic seconds."""

    number: int
    selectors: Selectors
    rule: Rule
    state: State = State.NONEXISTENT
    since: float = 0.0
    reason: str = ""
    expires: float | None = None
    before: State | None = None  # it began to expire
    beginner: Identity | None = None  # the peer that began it, if it was not us
    records_until: float | None = None  # when the DNS records in use run out
    used: float | None = None  # when a packet last went through a tunnel, either way
    renewing: int | None = None  # the tunnel that the DNS is being asked about again
    trust: Trust | None = None
    inquiry: Inquiry | None = None  # under way
    candidates: list[Gateway] = field(default_factory=list)  # not tried yet
    homes: tuple[Gateway, ...] = ()  # all that the DNS names and we can use, without their keys
    failure: tuple[Failure, str] | None = None  # the most telling, of those tried
    key_failure: KeyOutcome | None = None  # the worst that came of looking a gateway's keys up
    patience_ends: float = 0.0
    turned: tuple[int, float | None] | None = None  # whose turn it is, and when it last sent before
    seals: int | None = None  # the tunnel by whose key ports are encrypted that leave
    encrypted_before: str = ""  # it is clear now: by whom it was encrypted last time
    unruled: Rule | None = None  # the local rule, where a decision point has changed it
    ruled_until: float | None = None  # when what it said is over
    scopes: dict[Scope, None] = field(default_factory=dict)  # in the kernel, in the order installed
    tunnels: dict[int, Tunnel] = field(default_factory=dict)  # the last of those up sends
    decided: tuple[str, float] | None = None  # what its packets do, and since when: `decided.py`

    def sends_by(self, tunnel: Tunnel) -> None:
        """This one sends from now on."""
        self.tunnels[tunnel.number] = self.tunnels.pop(tunnel.number)

    def move(self, happening: Happening, now: float, reason: str) -> State:
        """Change the state by the table; returns the state before.

        Raises IllegalTransition, and then nothing has changed.
        """
        new = TRANSITIONS.get((self.state, happening))
        expiring = self.state is State.EXPIRING
        if new is None or (expiring and self.before not in WHILE_EXPIRING[happening]):
            raise IllegalTransition(f"{self.state.name}: {happening.value}")
        if new is not State.EXPIRING:
            self.before = None
        elif not expiring:
            self.before = self.state
        old, self.state, self.since, self.reason = self.state, new, now, reason
        return old

    def clients(self) -> list[IPv4Address | IPv6Address]:
        """The hosts inside whose packets it carries under its own address."""
        local = self.selectors.local
        sources = dict.fromkeys(scope.source for scope in self.scopes)
        return [
            source.network_address
            for source in sources
            if source.prefixlen == source.max_prefixlen and source.network_address not in local
        ]

    @property
    def standing(self) -> State:
        """The state by which packets go: while it expires, the one before (RFC 4322 3.2.7)."""
        return self.state if self.before is None else self.before

    @property
    def under_way(self) -> bool:
        """Whether somebody waits for a look-up or a negotiation of ours."""
        return self.state in (State.POTENTIAL, State.PENDING)

    @property
    def live_tunnel(self) -> Tunnel | None:
        """The tunnel that sends: the newest, or the one preferred since."""
        return next((t for t in reversed(self.tunnels.values()) if t.up and t.carries), None)
