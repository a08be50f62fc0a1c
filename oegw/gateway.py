"""The coordinator: what happens to packets, look-ups and negotiations comes in, commands go out.

It does no IO and is told the time.  One call of ``receive`` takes one event
and returns the commands that follow from it, in the order in which they must
be executed.  What is decided stands at the desks: `initiator`, `responder`,
`tunnels` and those beside them; what is known stands in the `ledger`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa

import ike.events as keying
from oegw import assurance
from oegw import commands as do
from oegw import events as happened
from oegw import peer as peers
from oegw.ahead import Ahead, LookAhead
from oegw.commands import Command
from oegw.connection import Connection, Happening, State, selectors_for
from oegw.datapath.interface import (
    DatapathEvent,
    PeerAddressChanged,
    SaExpired,
    UnknownSpiReceived,
)
from oegw.decision import DecisionPoint
from oegw.decisions import Approval, Decisions
from oegw.initiator import Initiator
from oegw.lasting import Lasting
from oegw.latekeys import GatewayKey
from oegw.ledger import CoordinatorSettings, Ledger, Lifespans
from oegw.memory import KeyMemory
from oegw.multihoming import Homecoming
from oegw.nat import Nat
from oegw.peer import ConfiguredPeer
from oegw.portencryption import lacks
from oegw.recovery import Greeting, Recovery
from oegw.refusals import Refusals
from oegw.responder import AddressKey, Authority, KeyQuestion, OwnClient, Responder
from oegw.resume import resume
from oegw.selfknowledge import OwnQuestion
from oegw.trace import Trace
from oegw.tunnels import Tunnels
from policy.flow import Flow, IPAddress, IPNetwork
from policy.rule import Category
from policy.table import PolicyTable

__all__ = ["CoordinatorSettings", "Gateway", "Lifespans"]

_VERDICTS = (State.CLEAR, State.DENIED, State.EXPIRING)


_ENDS = (keying.NegotiationFailed, keying.TunnelClosed, happened.SaInstallFailed)


class Gateway:
    """One gateway's decisions.  The shell executes what ``receive`` and its siblings return."""

    def __init__(
        self,
        table: PolicyTable,
        settings: CoordinatorSettings,
        trace: Trace,
        memory: KeyMemory | None = None,
        lasting: Lasting | None = None,
    ) -> None:
        self._ledger = ledger = Ledger(table, settings, trace, memory, lasting)
        self._decisions = decisions = Decisions(ledger)
        self._initiator = initiator = Initiator(ledger, decisions)
        self._responder = responder = Responder(ledger, decisions, initiator.ports)
        self._tunnels = tunnels = Tunnels(ledger, initiator)
        self._ageing = initiator.ageing
        self._recovery = recovery = Recovery(ledger, initiator)
        self._ahead = ahead = Ahead(ledger)
        self._steps: dict[type, Callable[[Any, float], None]] = {
            happened.PacketTrapped: initiator.packet_trapped,
            happened.LookupEnded: self._lookup_ended,
            happened.KeyLookupEnded: self._lookup_ended,
            happened.PeerLookupEnded: self._lookup_ended,
            happened.DecisionsEnded: self._lookup_ended,
            happened.SaInstalled: tunnels.sa_installed,
            happened.SaInstallFailed: tunnels.sa_install_failed,
            happened.SaMoveFailed: tunnels.sa_move_failed,
            happened.GatewayShielded: initiator.ports.gateway_shielded,
            happened.UsageReported: tunnels.usage_reported,
            keying.KeyingChannelEstablished: self._channel_established,
            keying.ExchangeStarted: ahead.exchange_started,
            keying.PeerKeyNeeded: responder.peer_key_needed,
            keying.TunnelProposed: responder.tunnel_proposed,
            keying.InboundSaEstablished: tunnels.inbound_sa_established,
            keying.OutboundSaEstablished: tunnels.outbound_sa_established,
            keying.TunnelExpiring: tunnels.tunnel_expiring,
            keying.TunnelPreferred: tunnels.tunnel_preferred,
            keying.TunnelClosed: tunnels.tunnel_closed,
            keying.PeerMoved: tunnels.peer_moved,
            keying.NegotiationFailed: initiator.negotiation_failed,
            SaExpired: tunnels.sa_expired,
            UnknownSpiReceived: recovery.unknown_spi_received,
            keying.SpiRefused: recovery.spi_refused,
            keying.KeyingChannelClosed: self._channel_closed,
            PeerAddressChanged: tunnels.peer_address_changed,
        }

    @property
    def table(self) -> PolicyTable:
        return self._ledger.table

    @property
    def decision_points(self) -> tuple[DecisionPoint, ...]:
        """Those that are asked; the shell's replies are in their order."""
        return self._ledger.decision_points

    @property
    def nat(self) -> Nat:
        """Which of our hosts have another address outside."""
        return self._ledger.nat

    @nat.setter
    def nat(self, nat: Nat) -> None:
        self._ledger.nat = nat

    @property
    def held(self) -> tuple[int, int]:
        """Packets and octets in the hold."""
        return self._ledger.hold.packets, self._ledger.hold.octets

    @property
    def lookups_under_way(self) -> int:
        return len(self._ledger.lookups)

    @property
    def refusals(self) -> Refusals:
        """What we refused lately."""
        return self._ledger.refusals

    def resume(self, now: float) -> None:
        """Before the first packet: go on with what the last life has left."""
        initiator = self._initiator
        resume(self._ledger, initiator.selectors, initiator.homes.silent, now)

    def begin(self, now: float) -> list[Command]:
        """We have just started: ask what will be asked for the first packet anyway."""
        ledger = self._ledger
        for question in ledger.own.key_questions(now):
            ledger.ask_own(ledger.start_lookup(question), question)
        return ledger.take_commands()

    def use_key(self, key: rsa.RSAPublicKey) -> None:
        """We sign with another key from now on."""
        self._ledger.own.replace_key(key)

    def receive(
        self, event: happened.Event | keying.Event | DatapathEvent, now: float
    ) -> list[Command]:
        """Take one event in; returns what is to be done, in order."""
        step = self._steps.get(type(event))
        if step is not None:
            step(event, now)
        if isinstance(event, _ENDS):
            self._initiator.homes.over(event.tunnel, now)
        self._initiator.ports.settle(now)
        return self._ledger.take_commands()

    def next_timer(self) -> float | None:
        """When ``handle_timer`` wants to be called; None if never."""
        desks = (self._ledger, self._ageing, self._initiator.homes, self._initiator.ports)
        moments = (desk.next_timer() for desk in desks)
        return min((moment for moment in moments if moment is not None), default=None)

    def handle_timer(self, now: float) -> list[Command]:
        """Do what is due."""
        self._ageing.handle_timer(now)
        self._ledger.end_lingering(now)
        self._initiator.give_up_slow_ones(now)
        self._initiator.homes.handle_timer(now)
        self._initiator.ports.settle(now)
        self._initiator.ports.handle_timer(now)
        return self._ledger.take_commands()

    def may_look_up(self, address: IPAddress) -> bool:
        """Whether the reverse name of an address may be asked for."""
        return self._ledger.may_look_up(address)

    def connections(self) -> Iterator[Connection]:
        """All connections, for status."""
        return iter(self._ledger.connections)

    def find(self, flow: Flow) -> Connection | None:
        """The connection that a packet of ``flow`` would belong to."""
        seen = self._ledger.nat.seen(flow, self._ledger.table)
        flow, rule = seen.flow, seen.rule
        if rule.category in (Category.PERMIT, Category.DENY):
            return None
        selectors = self._initiator.selectors(flow, rule)
        return self._ledger.connections.for_packet(flow, selectors, rule)

    def _lookup_ended(
        self,
        event: happened.Answer,
        now: float,
    ) -> None:
        asker = self._ledger.lookups.pop(event.lookup, None)
        match event, asker:
            case happened.LookupEnded(outcome=outcome), Authority():
                self._responder.authority_known(asker, outcome, now)
            case happened.KeyLookupEnded(outcome=outcome), keying.PeerKeyNeeded():
                self._responder.keys_known(asker, outcome, now)
            case happened.KeyLookupEnded(outcome=outcome), Greeting():
                self._recovery.keys_known(asker, outcome, now)
            case happened.KeyLookupEnded(outcome=outcome), KeyQuestion():
                self._responder.identity_known(asker, outcome, now)
            case happened.KeyLookupEnded(outcome=outcome), AddressKey():
                self._responder.address_key_known(asker, outcome, now)
            case happened.LookupEnded(outcome=outcome), Homecoming():
                self._initiator.homes.homes_known(asker, outcome, now)
            case happened.LookupEnded(outcome=outcome), OwnClient():
                self._responder.own_client_known(asker, outcome, now)
            case happened.KeyLookupEnded(outcome=outcome), GatewayKey():
                self._initiator.late_keys.known(asker, outcome, now)
            case happened.KeyLookupEnded(outcome=outcome), OwnQuestion():
                self._ledger.own.learned(asker, outcome, now)
            case happened.KeyLookupEnded(), LookAhead():
                self._ahead.ended(asker)
            case happened.DecisionsEnded(replies=replies), Approval():
                self._responder.approval_known(asker, replies, now)
            case _, Connection():
                self._initiator.answered(asker, event, now)

    def _channel_established(self, event: keying.KeyingChannelEstablished, now: float) -> None:
        """A peer has proven to live, and to have a key."""
        ledger = self._ledger
        if ledger.memory.key_shown(event.identity, event.key, not event.initiator):
            ledger.trace.event(
                "memory", "key_changed", identity=event.identity, remote=event.remote.address
            )
        self._initiator.homes.heard(event.remote.address, now)
        self._initiator.ports.channel_established(event)
        self._recovery.channel_established(event, now)

    def _channel_closed(self, event: keying.KeyingChannelClosed, now: float) -> None:
        self._initiator.ports.channel_closed(event)
        self._recovery.channel_closed(event, now)

    @property
    def memory(self) -> KeyMemory:
        """What was encrypted last time, for who writes it down."""
        return self._ledger.memory

    @property
    def lasting(self) -> Lasting:
        """What is learned for a while, the same."""
        return self._ledger.lasting

    def silent_gateways(self, now: float) -> dict[IPAddress, float]:
        """Gateways that were silent lately, and for how many seconds they are tried last."""
        return self._initiator.homes.silent.left(now)

    # The operator's orders.

    def probe(self, flow: Flow, now: float) -> list[Command]:
        """Negotiate for ``flow`` as if a packet of it had come; a stale verdict is forgotten."""
        ledger, connection = self._ledger, self.find(flow)
        if connection is not None and connection.state in _VERDICTS:
            ledger.end(connection, Happening.FORGOTTEN, "probe", now)
        self._initiator.packet_trapped(happened.PacketTrapped(flow, -1, 0), now)
        return ledger.take_commands()

    def forget(self, destination: IPNetwork, now: float) -> tuple[int, list[Command]]:
        """Drop clear and denied verdicts towards ``destination`` early; returns how many.

        That its pairs were encrypted before is forgotten, too.
        """
        ledger, forgotten = self._ledger, 0
        ledger.memory.forget(destination)
        for connection in ledger.connections:
            remote = connection.selectors.remote
            if (
                connection.state in _VERDICTS
                and remote.version == destination.version
                and remote.overlaps(destination)
            ):
                ledger.end(connection, Happening.FORGOTTEN, "forgotten by the operator", now)
                forgotten += 1
        return forgotten, ledger.take_commands()

    def close(self, destination: IPNetwork, now: float) -> tuple[int, list[Command]]:
        """Close the tunnels towards ``destination``, or through a gateway in it; returns how many.

        The keying channels with these gateways go too.
        """
        ledger, closed, gateways = self._ledger, 0, dict[IPAddress, None]()
        for connection in ledger.connections:
            tunnels = [t for t in connection.tunnels.values() if t.up]
            remote = connection.selectors.remote
            if any(_within(t.gateway, destination) for t in tunnels) or (
                tunnels and remote.version == destination.version and remote.overlaps(destination)
            ):
                closed += len(tunnels)
                gateways |= dict.fromkeys(t.gateway for t in tunnels)
                ledger.end(connection, Happening.FORGOTTEN, "closed by the operator", now)
        for gateway in gateways:
            ledger.do(do.CloseChannels(gateway))
        return closed, ledger.take_commands()

    def replace_policy(
        self,
        table: PolicyTable,
        configured: dict[str, ConfiguredPeer],
        now: float,
        decision_points: tuple[DecisionPoint, ...] = (),
    ) -> list[Command]:
        """Go over to a new policy; tunnels that it still wants stay as they are."""
        ledger = self._ledger
        old_peers = ledger.peers
        ledger.table, ledger.peers = table, configured
        new_points = decision_points != ledger.decision_points
        ledger.decision_points = decision_points
        self._responder.forget_proofs()
        for connection in ledger.connections:
            selectors = connection.selectors
            flow = selectors.flow()
            decision = table.lookup(flow)
            rule = decision.rule
            agreed = [t for t in connection.tunnels.values() if t.cipher]
            unsealed = any(lacks(rule, tunnel) for tunnel in agreed)
            wanted = (rule.category is connection.rule.category and not unsealed) and (
                (
                    rule.category is Category.OPPORTUNISTIC
                    and peers.configured_claim(selectors, table) is None
                    and all(
                        assurance.is_enough(rule, tunnel.trust)
                        for tunnel in connection.tunnels.values()
                    )
                )
                or (
                    rule.category is Category.CONFIGURED
                    and rule.name == connection.rule.name
                    and old_peers[rule.name] == configured[rule.name]
                    and selectors_for(flow, rule) == connection.selectors
                )
            )
            # What must not be begun any more, or not so, is not gone on with, unless the peer has
            # begun it.  Where others are to be asked, nothing goes on that they have no say in.
            forbidden = connection.state is State.POTENTIAL and (
                not rule.initiate or self._initiator.selectors(flow, rule) != selectors
            )
            unasked = new_points and connection.under_way
            if not wanted or forbidden or unasked or connection.state in _VERDICTS:
                ledger.end(connection, Happening.FORGOTTEN, "new policy", now)
            else:
                # The tunnel stays; what enters it is decided anew, packet by packet.
                self._decisions.hold_on(connection, rule)
                # Not all that it holds need have the same rule now.
                if not (decision.cacheable and selectors.are_within(decision.scope)):
                    ledger.discard(ledger.hold.take(connection.number), "policy_changed")
                for scope in connection.scopes:
                    ledger.do(do.RemovePolicy(scope))
                connection.scopes.clear()
        return ledger.take_commands()

    def release_all_held(self) -> list[Command]:
        """Give up every packet held, because we stop."""
        self._ledger.discard(self._ledger.hold.take_all(), "stopping")
        return self._ledger.take_commands()


def _within(address: IPAddress, network: IPNetwork) -> bool:
    return address.version == network.version and address in network
