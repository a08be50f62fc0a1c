"""The coordinator: what happens to packets, look-ups and negotiations comes in, commands go out.

It does no IO and is told the time.  One call of ``receive`` takes one event
and returns the commands that follow from it, in the order in which they must
be executed.  The time points in brackets are those of draft section 3.2.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network, IPv6Network
from typing import Any

import ike.events as keying
from dnsrecords.outcome import (
    GatewayOutcome,
    GatewaysFound,
    KeysFound,
    Malformed,
    NothingFound,
    Unanswered,
)
from ike.events import TrafficSelector, TunnelRequest
from oegw import commands as do
from oegw import events as happened
from oegw import peer as peers
from oegw.commands import Command, Verdict
from oegw.connection import (
    Connection,
    Happening,
    Selectors,
    State,
    Tunnel,
    host_network,
    selectors_for,
)
from oegw.connections import ConnectionTable
from oegw.datapath.interface import (
    DatapathEvent,
    Direction,
    SaExpired,
    SecurityAssociation,
    Selector,
    UdpEncapsulation,
    UnknownSpiReceived,
)
from oegw.hold import Hold, HoldSettings
from oegw.peer import ConfiguredPeer
from oegw.trace import Trace
from policy.builtin import never_public
from policy.flow import Flow, IPAddress, IPNetwork
from policy.rule import Category, OnFailure, Rule, Scope
from policy.table import PolicyTable


@dataclass(frozen=True, slots=True)
class Lifespans:
    """How long, in seconds, a verdict is useful after each class of failure (RFC 4322 3.2.5)."""

    silence: float = 60.0  # nobody answered: they may come up any moment
    refused: float = 600.0
    bad_signature: float = 600.0
    no_record: float = 300.0  # at most; less where the SOA minimum is smaller
    malformed: float = 60.0
    policy: float = 300.0  # permit and deny verdicts in the kernel


@dataclass(frozen=True, slots=True)
class CoordinatorSettings:
    """``addresses``: our outer addresses, at most one per family.  ``local_reverse``: private
    ranges whose reverse zones our resolvers serve."""

    addresses: tuple[IPAddress, ...]
    peers: dict[str, ConfiguredPeer] = field(default_factory=dict)
    local_reverse: tuple[IPNetwork, ...] = ()
    lifespans: Lifespans = field(default_factory=Lifespans)
    hold: HoldSettings = field(default_factory=HoldSettings)
    setups_per_source: int = 32
    connections: int = 65536
    configured_retry: float = 10.0  # seconds between two tries for a configured tunnel
    udp_encapsulation: bool = False
    replay_window: int = 1024


@dataclass(frozen=True, slots=True)
class _Authority:
    """A responder's question: does the claimed client delegate to this gateway (5G2)?"""

    proposal: keying.TunnelProposed
    selectors: Selectors


class Gateway:
    """One gateway's decisions.  The shell executes what ``receive`` and its siblings return."""

    def __init__(self, table: PolicyTable, settings: CoordinatorSettings, trace: Trace) -> None:
        self._table = table
        self._settings = settings
        self._peers = settings.peers
        self._trace = trace
        self._hold = Hold(settings.hold)
        self._connections = ConnectionTable(settings.connections)
        self._commands: list[Command] = []
        self._next_tunnel = 0
        self._next_lookup = 1
        self._lookups: dict[int, Connection | _Authority | keying.PeerKeyNeeded] = {}
        self._expiries: list[tuple[float, int]] = []
        self._steps: dict[type, Callable[[Any, float], None]] = {
            happened.PacketTrapped: self._packet_trapped,
            happened.LookupEnded: self._lookup_ended,
            happened.KeyLookupEnded: self._key_lookup_ended,
            happened.SaInstalled: self._sa_installed,
            happened.SaInstallFailed: self._sa_install_failed,
            keying.PeerKeyNeeded: self._peer_key_needed,
            keying.TunnelProposed: self._tunnel_proposed,
            keying.InboundSaEstablished: self._inbound_sa_established,
            keying.OutboundSaEstablished: self._outbound_sa_established,
            keying.TunnelClosed: self._tunnel_closed,
            keying.NegotiationFailed: self._negotiation_failed,
            SaExpired: self._sa_expired,
            UnknownSpiReceived: self._unknown_spi_received,
        }

    # ------------------------------------------------------------------ doors

    @property
    def table(self) -> PolicyTable:
        return self._table

    @property
    def held(self) -> tuple[int, int]:
        """Packets and octets in the hold."""
        return self._hold.packets, self._hold.octets

    @property
    def lookups_under_way(self) -> int:
        return len(self._lookups)

    def receive(
        self, event: happened.Event | keying.Event | DatapathEvent, now: float
    ) -> list[Command]:
        """Take one event in; returns what is to be done, in order."""
        step = self._steps.get(type(event))
        if step is not None:
            step(event, now)
        return self._take_commands()

    def next_timer(self) -> float | None:
        """When ``handle_timer`` wants to be called; None if never."""
        return self._expiries[0][0] if self._expiries else None

    def handle_timer(self, now: float) -> list[Command]:
        """End the connections whose lifespan is over."""
        while self._expiries and self._expiries[0][0] <= now:
            _, number = heapq.heappop(self._expiries)
            connection = self._connections.get(number)
            if connection and connection.expires is not None and connection.expires <= now:
                self._end(connection, Happening.LIFESPAN_OVER, "lifespan over", now)
        return self._take_commands()

    def probe(self, flow: Flow, now: float) -> list[Command]:
        """Negotiate for ``flow`` as if a packet of it had come; a stale verdict is forgotten."""
        connection = self.find(flow)
        if connection is not None and connection.state in (State.CLEAR, State.DENIED):
            self._end(connection, Happening.FORGOTTEN, "probe", now)
        self._packet_trapped(happened.PacketTrapped(flow, -1, 0), now)
        return self._take_commands()

    def forget(self, destination: IPNetwork, now: float) -> tuple[int, list[Command]]:
        """Drop clear and denied verdicts towards ``destination`` early; returns how many."""
        forgotten = 0
        for connection in self._connections:
            remote = connection.selectors.remote
            if (
                connection.state in (State.CLEAR, State.DENIED)
                and remote.version == destination.version
                and remote.overlaps(destination)
            ):
                self._end(connection, Happening.FORGOTTEN, "forgotten by the operator", now)
                forgotten += 1
        return forgotten, self._take_commands()

    def replace_policy(
        self, table: PolicyTable, configured: dict[str, ConfiguredPeer], now: float
    ) -> list[Command]:
        """Go over to a new policy; tunnels that it still wants stay as they are."""
        old_peers = self._peers
        self._table, self._peers = table, configured
        for connection in self._connections:
            selectors = connection.selectors
            flow = Flow(
                selectors.local.network_address,
                selectors.remote.network_address,
                selectors.protocol,
                selectors.local_port or None,
                selectors.remote_port or None,
            )
            rule = table.lookup(flow).rule
            wanted = rule.category is connection.rule.category and (
                (
                    rule.category is Category.OPPORTUNISTIC
                    and peers.configured_claim(selectors, table) is None
                )
                or (
                    rule.category is Category.CONFIGURED
                    and rule.name == connection.rule.name
                    and old_peers[rule.name] == configured[rule.name]
                    and selectors_for(flow, rule) == connection.selectors
                )
            )
            if not wanted or connection.state in (State.CLEAR, State.DENIED):
                self._end(connection, Happening.FORGOTTEN, "new policy", now)
            else:
                # The tunnel stays; what enters it is decided anew, packet by packet.
                connection.rule = rule
                for scope in connection.scopes:
                    self._do(do.RemovePolicy(scope))
                connection.scopes.clear()
        return self._take_commands()

    def release_all_held(self) -> list[Command]:
        """Give up every packet held, because we stop."""
        self._discard(self._hold.take_all(), "stopping")
        return self._take_commands()

    def connections(self) -> Iterator[Connection]:
        """All connections, for status."""
        return iter(self._connections)

    def find(self, flow: Flow) -> Connection | None:
        """The connection that a packet of ``flow`` would belong to."""
        rule = self._table.lookup(flow).rule
        if rule.category in (Category.PERMIT, Category.DENY):
            return None
        return self._connections.for_packet(flow, self._selectors(flow, rule), rule)

    def _selectors(self, flow: Flow, rule: Rule) -> Selectors:
        """What we propose for ``flow``: never what a configured rule claims for itself."""
        selectors = selectors_for(flow, rule)
        if rule.category is Category.OPPORTUNISTIC and peers.configured_claim(
            selectors, self._table
        ):
            return replace(
                selectors, protocol=flow.protocol, remote_port=flow.destination_port or 0
            )
        return selectors

    # -------------------------------------------------------------- initiator

    def _packet_trapped(self, event: happened.PacketTrapped, now: float) -> None:  # (5)
        flow = event.flow
        decision = self._table.lookup(flow)
        rule, scope = decision.rule, decision.scope
        if rule.category in (Category.PERMIT, Category.DENY):
            verdict = Verdict.CLEAR if rule.category is Category.PERMIT else Verdict.DENY
            if decision.cacheable:
                self._do(do.InstallPolicy(scope, verdict, self._settings.lifespans.policy))
            self._let_go((event.packet,), verdict, "denied")
            return
        selectors = self._selectors(flow, rule)
        connection = self._connections.for_packet(flow, selectors, rule)
        if connection is None:
            if not self._room(now):
                self._discard((event.packet,), "connections_full")
                return
            if self._connections.under_way(flow.source) >= self._settings.setups_per_source:
                self._discard((event.packet,), "source_limit")
                return
            connection = self._connections.create(selectors, rule, now)
        if connection.state is State.NONEXISTENT:  # new, or the peer's proposal is under way
            self._begin(connection, flow, now)
        if rule.category is Category.OPPORTUNISTIC:
            scope = _narrowed(scope, flow)
        self._settle(connection, event, scope, decision.cacheable, now)

    def _room(self, now: float) -> bool:
        """Whether there is room for one more connection: a verdict that would end soon goes."""
        while self._connections.full and self._expiries:
            _, number = heapq.heappop(self._expiries)
            connection = self._connections.get(number)
            if connection is not None and connection.expires is not None:
                self._end(connection, Happening.FORGOTTEN, "room for a new connection", now)
        return not self._connections.full

    def _begin(self, connection: Connection, flow: Flow, now: float) -> None:
        rule = connection.rule
        self._connections.set_under_way(connection, flow.source)
        if rule.category is Category.CONFIGURED:
            self._move(connection, Happening.GATEWAY_KNOWN, f"rule {rule.name!r}", now)
            self._negotiate_configured(connection)
            return
        destination = flow.destination
        if not self.may_look_up(destination):
            reason = f"{destination} is in a private or reserved range: not looked up"
            self._fall_back(connection, self._settings.lifespans.no_record, reason, now)
            return
        self._move(connection, Happening.LOOKUP_STARTED, str(destination), now)
        connection.lookup = self._start_lookup(connection)
        self._do(do.StartLookup(connection.lookup, destination, purpose="gateway"))  # (5B)

    def _settle(
        self,
        connection: Connection,
        event: happened.PacketTrapped,
        scope: Scope,
        cacheable: bool,
        now: float,
    ) -> None:
        """Do with a packet what its connection's state says."""
        if connection.under_way:
            if cacheable:
                connection.scopes.setdefault(scope)
            if event.packet >= 0:
                discard = self._hold.keep(connection.number, event.packet, event.size)
                if discard is not None:
                    self._discard((discard.packet,), discard.trigger)
            return
        verdict = _VERDICT_OF[connection.state]
        if cacheable:
            connection.scopes.setdefault(scope)
            self._install(connection, scope, verdict, now)
        self._let_go((event.packet,), verdict, "denied")

    def may_look_up(self, address: IPAddress) -> bool:
        """Whether the reverse name of an address may be asked for: not of private ranges."""
        return not never_public(address) or any(
            address.version == n.version and address in n for n in self._settings.local_reverse
        )

    def _lookup_ended(self, event: happened.LookupEnded, now: float) -> None:  # (5C), (5G3)
        asker = self._lookups.pop(event.lookup, None)
        if isinstance(asker, _Authority):
            self._authority_known(asker, event.outcome, now)
        elif isinstance(asker, Connection) and asker.state is State.POTENTIAL:
            asker.lookup = None
            self._gateways_known(asker, event.outcome, now)

    def _gateways_known(self, connection: Connection, outcome: GatewayOutcome, now: float) -> None:
        lifespans = self._settings.lifespans
        match outcome:
            case Malformed(detail=detail):
                self._trace.event(
                    "gateway", "malformed_record", destination=connection.selectors.remote,
                    detail=detail,
                )  # fmt: skip
                self._fall_back(connection, lifespans.malformed, detail, now, deny=True)
            case Unanswered(detail=detail):
                self._fall_back(connection, lifespans.silence, f"DNS: {detail}", now)
            case NothingFound(ttl=ttl, detail=detail):
                lifespan = min(max(ttl, 1.0), lifespans.no_record)
                self._fall_back(connection, lifespan, detail or "no record", now)
            case GatewaysFound(gateways=gateways, trust=trust, ttl=ttl):
                connection.trust = trust
                own = self._settings.addresses
                families = {a.version for a in own}
                connection.candidates = [
                    g
                    for g in gateways
                    if g.address is not None
                    and g.keys
                    and g.address not in own
                    and g.address.version in families
                ]
                if connection.candidates:
                    self._try_next_gateway(connection, now)
                else:
                    lifespan = min(max(ttl, 1.0), lifespans.no_record)
                    self._fall_back(connection, lifespan, "no gateway that we can use", now)

    def _try_next_gateway(self, connection: Connection, now: float) -> None:  # (5D)
        gateway = connection.candidates.pop(0)
        assert gateway.address is not None
        self._move(connection, Happening.GATEWAY_KNOWN, str(gateway.address), now)
        self._negotiate(connection, gateway.address, gateway.keys, None)

    def _negotiate_configured(self, connection: Connection) -> None:
        peer = self._peers[connection.rule.name]
        self._negotiate(connection, peer.address, (peer.key,), peer.identity)

    def _negotiate(
        self,
        connection: Connection,
        gateway: IPAddress,
        keys: tuple[Any, ...],
        identity: keying.Identity | None,
    ) -> None:
        selectors = connection.selectors
        number = self._next_tunnel
        self._next_tunnel += 2  # odd numbers are the responder's
        self._connections.add_tunnel(connection, Tunnel(number, gateway, initiator=True))
        local = next(a for a in self._settings.addresses if a.version == gateway.version)
        request = TunnelRequest(
            local,
            gateway,
            TrafficSelector(selectors.local, selectors.protocol, selectors.local_port),
            TrafficSelector(selectors.remote, selectors.protocol, selectors.remote_port),
            keys,
            identity,
        )
        self._do(do.StartNegotiation(number, request))

    def _negotiation_failed(self, event: keying.NegotiationFailed, now: float) -> None:
        connection = self._connections.of_tunnel(event.tunnel)
        if connection is None:
            self._proposal_over(event.tunnel)
            return
        self._take_down(connection, event.tunnel)
        if connection.state is not State.PENDING or connection.tunnels:
            return
        self._trace.event(
            "gateway", "negotiation_failed", destination=connection.selectors.remote,
            reason=event.reason.value, detail=event.detail,
        )  # fmt: skip
        if connection.candidates:  # a failure counts only when all were tried (RFC 4322 3.2.5)
            self._try_next_gateway(connection, now)
            return
        self._fall_back(
            connection,
            self._lifespan_after(event.reason),
            f"{event.reason.value}: {event.detail}",
            now,
        )

    def _lifespan_after(self, reason: keying.Failure) -> float:
        lifespans = self._settings.lifespans
        match reason:
            case keying.Failure.BAD_SIGNATURE | keying.Failure.WRONG_IDENTITY:
                return lifespans.bad_signature
            case keying.Failure.REFUSED | keying.Failure.NO_PROPOSAL:
                return lifespans.refused
            case _:
                return lifespans.silence

    def _fall_back(
        self, connection: Connection, lifespan: float, reason: str, now: float, deny: bool = False
    ) -> None:
        """No tunnel: clear or deny, as the rule says; a configured connection is never clear."""
        rule = connection.rule
        if rule.category is Category.CONFIGURED:
            deny, lifespan = True, self._settings.configured_retry
        deny = deny or rule.on_failure is OnFailure.DROP
        happening = Happening.FELL_BACK_DENY if deny else Happening.FELL_BACK_CLEAR
        self._move(connection, happening, reason, now)
        self._connections.no_longer_under_way(connection)
        connection.expires = now + lifespan
        heapq.heappush(self._expiries, (connection.expires, connection.number))
        self._apply_state(connection, now)

    # -------------------------------------------------------------- responder

    def _peer_key_needed(self, event: keying.PeerKeyNeeded, now: float) -> None:  # (5F1)
        configured = tuple(
            p.key for p in self._peers.values() if p.expected_identity == event.identity
        )
        if configured:  # never by DNS: an opportunistic peer must not take a configured identity
            self._do(do.ProvidePeerKeys(event.channel, configured))
        elif not isinstance(event.identity, str) and not self.may_look_up(event.identity):
            self._do(do.RefusePeerKeys(event.channel, "identity in a private or reserved range"))
        else:
            lookup = self._start_lookup(event)
            self._do(do.StartKeyLookup(lookup, event.identity))

    def _key_lookup_ended(self, event: happened.KeyLookupEnded, now: float) -> None:  # (5F2)
        asker = self._lookups.pop(event.lookup, None)
        if not isinstance(asker, keying.PeerKeyNeeded):
            return
        if isinstance(event.outcome, KeysFound):
            self._do(do.ProvidePeerKeys(asker.channel, event.outcome.keys))
        else:
            reason = f"no key for {asker.identity}: {event.outcome.detail}"
            self._trace.drop("gateway", "peer_without_key", identity=asker.identity, detail=reason)
            self._do(do.RefusePeerKeys(asker.channel, reason))

    def _tunnel_proposed(self, event: keying.TunnelProposed, now: float) -> None:  # (5G1)
        try:
            selectors = peers.proposed_selectors(event)
            rule = peers.configured_rule(event, selectors, self._table, self._peers)
            if rule is None:
                rule = peers.opportunistic_rule(selectors, self._table)
                if selectors.remote.network_address in self._settings.addresses:
                    raise peers.Refusal("the far side claims an address of ours")
                if not peers.speaks_for_itself(event.identity, event.remote_selector):
                    client = selectors.remote.network_address
                    if not self.may_look_up(client):
                        raise peers.Refusal(f"{client} is in a private or reserved range")
                    lookup = self._start_lookup(_Authority(event, selectors))
                    self._do(
                        do.StartLookup(lookup, client, with_keys=False, purpose="authority")
                    )  # (5G2)
                    return
        except peers.Refusal as refusal:
            self._refuse(event, str(refusal))
            return
        self._accept(event, selectors, now)

    def _authority_known(
        self, asker: _Authority, outcome: GatewayOutcome, now: float
    ) -> None:  # (5G3)
        event = asker.proposal
        client = asker.selectors.remote.network_address
        if not isinstance(outcome, GatewaysFound):
            self._refuse(event, f"no delegation by {client}: {outcome.detail}")
        elif not peers.delegated(outcome.gateways, event.identity, event.key):
            self._refuse(event, f"{client} does not delegate to {event.identity} with this key")
        else:
            self._accept(event, asker.selectors, now)

    def _accept(
        self, event: keying.TunnelProposed, selectors: Selectors, now: float
    ) -> None:  # (5G4)
        # The policy may have changed while the DNS was asked.
        rule = peers.configured_rule(event, selectors, self._table, self._peers)
        if rule is None:
            try:
                rule = peers.opportunistic_rule(selectors, self._table)
            except peers.Refusal as refusal:
                self._refuse(event, str(refusal))
                return
        connection = self._connections.exact(selectors, rule)
        if connection is None:
            if not self._room(now):
                self._refuse(event, "too many connections")
                return
            connection = self._connections.create(selectors, rule, now)
        tunnel = Tunnel(event.tunnel, event.remote.address, initiator=False)
        self._connections.add_tunnel(connection, tunnel)
        self._do(do.AcceptTunnel(event.tunnel))

    def _refuse(self, event: keying.TunnelProposed, reason: str) -> None:
        self._trace.drop(
            "gateway", "tunnel_refused", identity=event.identity,
            local=event.local_selector.network, remote=event.remote_selector.network, reason=reason,
        )  # fmt: skip
        self._do(do.RefuseTunnel(event.tunnel, reason))

    # ---------------------------------------------------------------- tunnels

    def _inbound_sa_established(self, event: keying.InboundSaEstablished, now: float) -> None:
        self._install_sa(event.tunnel, event.sa, Direction.INBOUND)

    def _outbound_sa_established(self, event: keying.OutboundSaEstablished, now: float) -> None:
        connection = self._connections.of_tunnel(event.tunnel)
        if connection is not None:
            connection.tunnels[event.tunnel].agreed = True
        self._install_sa(event.tunnel, event.sa, Direction.OUTBOUND)

    def _install_sa(self, number: int, sa: keying.EspSa, direction: Direction) -> None:
        connection = self._connections.of_tunnel(number)
        if connection is None:
            self._do(do.CloseTunnel(number))
            return
        connection.tunnels[number].cipher = _cipher_text(sa)
        self._do(do.InstallSa(number, self._association(sa, direction)))

    def _association(self, sa: keying.EspSa, direction: Direction) -> SecurityAssociation:
        def selector(s: TrafficSelector) -> Selector:
            return Selector(s.network, s.protocol, s.port)

        hard = sa.lifetime_bytes
        return SecurityAssociation(
            direction=direction,
            spi=sa.spi,
            source=sa.source,
            destination=sa.destination,
            source_selector=selector(sa.source_selector),
            destination_selector=selector(sa.destination_selector),
            cipher=sa.cipher,
            encryption_key=sa.encryption_key,
            integrity=sa.integrity,
            integrity_key=sa.integrity_key,
            extended_sequence_numbers=sa.extended_sequence_numbers,
            replay_window=self._settings.replay_window,
            encapsulation=UdpEncapsulation() if self._settings.udp_encapsulation else None,
            soft_bytes=None if hard is None else hard * 9 // 10,
            hard_bytes=hard,
        )

    def _sa_installed(self, event: happened.SaInstalled, now: float) -> None:
        connection = self._connections.of_tunnel(event.tunnel)
        tunnel = connection.tunnels.get(event.tunnel) if connection else None
        if connection is None or tunnel is None:  # closed while it was being installed
            self._do(do.RemoveSa(event.key))
            return
        if event.key.direction is Direction.INBOUND:
            tunnel.inbound = event.key
            self._do(do.ConfirmInbound(event.tunnel))
            return
        tunnel.outbound, tunnel.up = event.key, True
        self._keyed(connection, tunnel, now)

    def _keyed(self, connection: Connection, tunnel: Tunnel, now: float) -> None:  # (5H), (6)
        self._move(connection, Happening.TUNNEL_UP, str(tunnel.gateway), now)
        self._connections.no_longer_under_way(connection)
        connection.expires = None
        self._trace.event(
            "tunnel", "keyed", source=connection.selectors.local,
            destination=connection.selectors.remote, gateway=tunnel.gateway, tunnel=tunnel.number,
            initiator=tunnel.initiator, spi_in=tunnel.inbound and f"{tunnel.inbound.spi:08x}",
            spi_out=tunnel.outbound and f"{tunnel.outbound.spi:08x}", cipher=tunnel.cipher,
        )  # fmt: skip
        if not connection.scopes:
            self._foresee_scope(connection)
        self._apply_state(connection, now)

    def _foresee_scope(self, connection: Connection) -> None:
        """The peer began: put our own answers into the tunnel before the first is trapped.

        Only where one answer of the policy holds for all that the tunnel covers.
        """
        s = connection.selectors
        if s.protocol:
            return
        flow = Flow(s.local.network_address, s.remote.network_address, 0)
        decision = self._table.lookup(flow)
        scope = decision.scope
        whole = scope.protocol is None and _contains(scope.source, s.local)
        if decision.rule is connection.rule and whole and _contains(scope.destination, s.remote):
            connection.scopes.setdefault(Scope(s.local, s.remote))

    def _sa_install_failed(self, event: happened.SaInstallFailed, now: float) -> None:
        connection = self._connections.of_tunnel(event.tunnel)
        self._trace.drop("gateway", "sa_install_failed", tunnel=event.tunnel, reason=event.reason)
        self._do(do.CloseTunnel(event.tunnel))
        if connection is None:
            return
        self._take_down(connection, event.tunnel)
        if connection.state is State.PENDING and not connection.tunnels:
            reason = f"not installed: {event.reason}"
            self._fall_back(connection, self._settings.lifespans.silence, reason, now)

    def _sa_expired(self, event: SaExpired, now: float) -> None:
        if not event.hard:
            return
        for connection in self._connections:
            for tunnel in list(connection.tunnels.values()):
                if event.key in (tunnel.inbound, tunnel.outbound):
                    self._do(do.CloseTunnel(tunnel.number))
                    self._tunnel_gone(connection, tunnel.number, "byte lifetime over", now)
                    return

    def _unknown_spi_received(self, event: UnknownSpiReceived, now: float) -> None:
        self._trace.drop("gateway", "unknown_spi", source=event.source, spi=f"{event.spi:08x}")

    def _tunnel_closed(self, event: keying.TunnelClosed, now: float) -> None:
        connection = self._connections.of_tunnel(event.tunnel)
        if connection is not None:
            self._tunnel_gone(connection, event.tunnel, event.reason, now)
        else:
            self._proposal_over(event.tunnel)

    def _proposal_over(self, number: int) -> None:
        """The peer gave its proposal up while we asked the DNS about it: don't accept it later."""
        for lookup, asker in list(self._lookups.items()):
            if isinstance(asker, _Authority) and asker.proposal.tunnel == number:
                del self._lookups[lookup]
                self._do(do.CancelLookup(lookup))

    def _tunnel_gone(self, connection: Connection, number: int, reason: str, now: float) -> None:
        """A tunnel that was agreed is over; what of the connection depends on the others."""
        others = [t for n, t in connection.tunnels.items() if n != number]
        if any(t.agreed for t in others):
            # The other's SAs are in place, or on their way there before these are removed.
            self._trace.event("tunnel", "closed", tunnel=number, reason=reason)
            self._take_down(connection, number)
        elif connection.state not in (State.KEYED, State.PENDING):
            self._take_down(connection, number)
        elif not others:
            self._end(connection, Happening.TUNNEL_DOWN, reason, now)
        else:
            if connection.state is State.KEYED:
                self._move(connection, Happening.HALF_DOWN, reason, now)
                for scope in connection.scopes:
                    self._do(do.RemovePolicy(scope))
            self._trace.event("tunnel", "closed", tunnel=number, reason=reason)
            self._take_down(connection, number)

    def _take_down(self, connection: Connection, number: int) -> None:
        tunnel = self._connections.remove_tunnel(connection, number)
        if tunnel is not None:
            for key in (tunnel.outbound, tunnel.inbound):
                if key is not None:
                    self._do(do.RemoveSa(key))
        if connection.state is State.NONEXISTENT and not connection.tunnels:
            self._connections.discard(connection)

    # ------------------------------------------------------------- one's ends

    def _end(self, connection: Connection, happening: Happening, reason: str, now: float) -> None:
        """The connection is over: its verdicts go first, so that its packets are held again."""
        self._move(connection, happening, reason, now)
        for scope in connection.scopes:
            self._do(do.RemovePolicy(scope))
        if connection.lookup is not None:
            self._lookups.pop(connection.lookup, None)
            self._do(do.CancelLookup(connection.lookup))
        for number, tunnel in list(connection.tunnels.items()):
            if happening is not Happening.TUNNEL_DOWN or not tunnel.up:
                self._do(do.CloseTunnel(number))
            self._trace.event("tunnel", "closed", tunnel=number, reason=reason)
            self._take_down(connection, number)
        self._discard(self._hold.take(connection.number), "connection_over")
        self._connections.discard(connection)

    def _apply_state(self, connection: Connection, now: float) -> None:
        """Put the verdict of the state into the kernel, then let the held packets go by it."""
        verdict = _VERDICT_OF[connection.state]
        for scope in connection.scopes:
            self._install(connection, scope, verdict, now)
        self._let_go(self._hold.take(connection.number), verdict, "no_tunnel")

    def _install(self, connection: Connection, scope: Scope, verdict: Verdict, now: float) -> None:
        lifespan = None if connection.expires is None else connection.expires - now
        keyed_drop = verdict is Verdict.TUNNEL and (
            connection.rule.category is Category.OPPORTUNISTIC and connection.rule.protected
        )
        self._do(do.InstallPolicy(scope, verdict, lifespan, keyed_drop))

    def _let_go(self, packets: tuple[int, ...], verdict: Verdict, trigger: str) -> None:
        packets = tuple(p for p in packets if p >= 0)  # a probe has no packet
        if not packets:
            return
        if verdict is Verdict.DENY:
            self._do(do.DiscardHeld(packets, trigger))
        else:
            self._do(do.ReleaseHeld(packets, verdict))

    def _discard(self, packets: tuple[int, ...], trigger: str) -> None:
        self._let_go(packets, Verdict.DENY, trigger)

    def _move(self, connection: Connection, happening: Happening, reason: str, now: float) -> None:
        old = connection.move(happening, now, reason)
        if old is not connection.state:
            self._trace.event(
                "connection", "state", connection=connection.number,
                source=connection.selectors.local, destination=connection.selectors.remote,
                old=old.value, new=connection.state.value, reason=reason,
            )  # fmt: skip

    def _start_lookup(self, asker: Connection | _Authority | keying.PeerKeyNeeded) -> int:
        number = self._next_lookup
        self._next_lookup += 1
        self._lookups[number] = asker
        return number

    def _do(self, command: Command) -> None:
        self._commands.append(command)

    def _take_commands(self) -> list[Command]:
        taken, self._commands = self._commands, []
        return taken


_VERDICT_OF = {
    State.KEYED: Verdict.TUNNEL,
    State.CLEAR: Verdict.CLEAR,
    State.DENIED: Verdict.DENY,
}


def _cipher_text(sa: keying.EspSa) -> str:
    octets = len(sa.encryption_key) - (4 if sa.cipher == "aes-gcm-16" else 0)
    esn = " esn" if sa.extended_sequence_numbers else ""
    return f"{sa.cipher}-{octets * 8} {sa.integrity or ''}".strip() + esn


def _contains(outer: IPNetwork, inner: IPNetwork) -> bool:
    if isinstance(outer, IPv4Network) and isinstance(inner, IPv4Network):
        return inner.subnet_of(outer)
    if isinstance(outer, IPv6Network) and isinstance(inner, IPv6Network):
        return inner.subnet_of(outer)
    return False


def _narrowed(scope: Scope, flow: Flow) -> Scope:
    """The part of a policy scope that one pair of hosts covers: what a look-up was made for."""
    return Scope(
        host_network(flow.source),
        host_network(flow.destination),
        scope.protocol,
        scope.source_ports,
        scope.destination_ports,
    )
