"""The tunnels' desk: SAs are installed, come to an end, are succeeded by others, and move.

The time points in brackets are those of draft section 3.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import ike.events as keying
from dnsrecords.trust import Trust
from oegw import commands as do
from oegw import events as happened
from oegw.commands import Verdict
from oegw.connection import Connection, Happening, State, Tunnel
from oegw.datapath.interface import (
    Direction,
    PeerAddressChanged,
    SaExpired,
    SaKey,
    SecurityAssociation,
    Selector,
    UdpEncapsulation,
    Usage,
)
from oegw.decided import tunnel_begins
from oegw.initiator import Initiator
from oegw.ledger import Ledger
from policy.rule import Category

# Our choices.
SOFT_BYTES = 0.9  # of the hard limit: time to negotiate a successor in
SLACK = 60  # seconds that an SA outlives its lifetime in the datapath, should we not end it
# A responder has its SAs before it answers (RFC 4322 section 11.2, step 5O), but some install them
# upon quick mode's message 3, and what we send right behind that is lost (strongSwan 5.9.8: every
# second time).  Strangers do as RFC 4322 says; a configured peer may be any.
FIRST_WAIT = 0.02  # seconds until a configured peer is sent its first packet
SUCCESSOR_WAIT = 0.15  # the same for a successor: the tunnel before it carries on meanwhile


class Tunnels:
    """From the first SA of a tunnel to the removal of the last."""

    def __init__(self, ledger: Ledger, initiator: Initiator) -> None:
        self._ledger = ledger
        self._initiator = initiator
        self._ageing = initiator.ageing
        self._homes = initiator.homes

    # Into place.

    def inbound_sa_established(self, event: keying.InboundSaEstablished, now: float) -> None:
        connection = self._ledger.connections.of_tunnel(event.tunnel)
        if connection is not None:
            tunnel = connection.tunnels[event.tunnel]
            reason = self._initiator.ports.keyed(connection, tunnel, event)
            if reason is not None:
                self._ledger.do(do.CloseTunnel(event.tunnel))
                failed = keying.NegotiationFailed(event.tunnel, keying.Failure.REFUSED, reason)
                self._initiator.negotiation_failed(failed, now)
                return
        connection = self._ledger.connections.of_tunnel(event.tunnel)
        if connection is not None:
            connection.tunnels[event.tunnel].encapsulation = event.encapsulation
        self._install(event.tunnel, event.sa, Direction.INBOUND)

    def outbound_sa_established(self, event: keying.OutboundSaEstablished, now: float) -> None:
        connection = self._ledger.connections.of_tunnel(event.tunnel)
        after = 0.0
        if connection is not None:
            tunnel = connection.tunnels[event.tunnel]
            tunnel.agreed = True
            after = _until_peer_receives(connection, tunnel)
        self._install(event.tunnel, event.sa, Direction.OUTBOUND, after)

    def _install(
        self, number: int, sa: keying.EspSa, direction: Direction, after: float = 0.0
    ) -> None:
        ledger = self._ledger
        connection = ledger.connections.of_tunnel(number)
        if connection is None:
            ledger.do(do.CloseTunnel(number))
            return
        tunnel = connection.tunnels[number]
        tunnel.cipher = _cipher_text(sa)
        if sa.ports is not None:
            ports = (sa.ports.source, sa.ports.destination)
            tunnel.udp = ports if direction is Direction.OUTBOUND else ports[::-1]
        configured = connection.rule.category is Category.CONFIGURED
        assurance = _assurance(connection, tunnel) if direction is Direction.INBOUND else None
        association = self._association(sa, direction, configured)
        ledger.do(do.InstallSa(number, association, after, assurance))

    def _association(
        self, sa: keying.EspSa, direction: Direction, configured: bool
    ) -> SecurityAssociation:
        def selector(s: keying.TrafficSelector) -> Selector:
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
            replay_window=self._ledger.settings.replay_window,
            encapsulation=_encapsulation(sa.ports),
            soft_bytes=None if hard is None else int(hard * SOFT_BYTES),
            hard_bytes=hard,
            hard_seconds=sa.lifetime_seconds + SLACK,
            configured=configured,
        )

    def sa_installed(self, event: happened.SaInstalled, now: float) -> None:
        ledger = self._ledger
        connection = ledger.connections.of_tunnel(event.tunnel)
        tunnel = connection.tunnels.get(event.tunnel) if connection else None
        if connection is None or tunnel is None:  # closed while it was being installed
            ledger.do(do.RemoveSa(event.key))
            return
        ledger.connections.add_sa(event.key, event.tunnel)
        if event.key.direction is Direction.INBOUND:
            tunnel.inbound = event.key
            if tunnel.late:
                tunnel.late = False
                self._move_inbound(tunnel)
            if not tunnel.initiator and connection.standing is State.CLEAR:
                # The peer may take clear answers no more as soon as it knows that we receive.
                ledger.await_peer(connection, now)
            ledger.do(do.ConfirmInbound(event.tunnel))
            return
        tunnel.up = True
        if tunnel.receives_only:
            self._ledger.connections.remove_sa(event.key)
            ledger.do(do.RemoveSa(event.key))
            return
        tunnel.outbound = event.key
        if tunnel.late:
            tunnel.late = False
            self._move_outbound(tunnel)
        self._keyed(connection, tunnel, now)

    def _keyed(self, connection: Connection, tunnel: Tunnel, now: float) -> None:  # (5H), (6)
        ledger = self._ledger
        ledger.move(connection, Happening.TUNNEL_UP, str(tunnel.gateway), now)
        if tunnel.trust is not None and tunnel.trust is not connection.trust:
            ledger.rests_on(connection, tunnel.trust, tunnel.gateway)
        ledger.connections.no_longer_under_way(connection)
        connection.expires = None
        self._ageing.tunnel_up(connection, now)
        connection.encrypted_before = ""
        if connection.rule.category is Category.OPPORTUNISTIC:
            by_peer = connection.beginner is not None
            ledger.memory.pair_encrypted(connection.selectors, tunnel.peer, by_peer)
        self._homes.keyed(connection, tunnel, now)
        ledger.seal_by_sender(connection)
        tunnel_begins(ledger.trace, connection, tunnel, ledger.memory, now)
        ledger.trace.event(
            "tunnel", "keyed", source=connection.selectors.local,
            destination=connection.selectors.remote, gateway=tunnel.gateway, tunnel=tunnel.number,
            initiator=tunnel.initiator, spi_in=tunnel.inbound and f"{tunnel.inbound.spi:08x}",
            spi_out=tunnel.outbound and f"{tunnel.outbound.spi:08x}", cipher=tunnel.cipher,
            replaces=tunnel.request.replaces if tunnel.request else None,
            sealed=tunnel.sealed, shielded=tunnel.shielded, udp=tunnel.udp is not None,
            encapsulation_reason=tunnel.encapsulation and tunnel.encapsulation.value,
        )  # fmt: skip
        if not connection.scopes:
            self._foresee_scope(connection)
        for other in ledger.connections.within(connection):
            potential = other.state is State.POTENTIAL and not other.tunnels
            if potential or other.standing in (State.CLEAR, State.DENIED):
                # Narrower: it would precede ours, and let its packets out beside the tunnel.
                ledger.let_go(ledger.hold.take(other.number), Verdict.TUNNEL, "no_tunnel")
                ledger.end(other, Happening.FORGOTTEN, "a tunnel carries it now", now)
        ledger.apply_state(connection, now)

    def _foresee_scope(self, connection: Connection) -> None:
        """The peer began: put our own answers into the tunnel before the first is trapped.

        Only where one answer of the policy holds for all that the tunnel covers.
        """
        s = connection.selectors
        flow = s.flow()
        if s.local_port or s.remote_port:  # any port is as good as the other: see what is within
            flow = replace(flow, source_port=s.local_port, destination_port=s.remote_port)
        decision = self._ledger.table.lookup(flow)
        whole = connection.rule if connection.unruled is None else connection.unruled
        if decision.rule is whole and decision.cacheable and s.are_within(decision.scope):
            connection.scopes.setdefault(s.scope())

    def sa_install_failed(self, event: happened.SaInstallFailed, now: float) -> None:
        ledger = self._ledger
        connection = ledger.connections.of_tunnel(event.tunnel)
        ledger.trace.drop("gateway", "sa_install_failed", tunnel=event.tunnel, reason=event.reason)
        ledger.do(do.CloseTunnel(event.tunnel))
        if connection is None:
            return
        reason = f"not installed: {event.reason}"
        ledger.take_down(connection, event.tunnel)
        if connection.state is State.KEYED:
            if not any(t.carries for t in connection.tunnels.values()):
                # The one before ended meanwhile, or must not send any more.
                self._gone(connection, event.tunnel, reason, now)
        elif connection.state is State.PENDING and all(
            t.receives_only for t in connection.tunnels.values()
        ):
            for number in list(connection.tunnels):
                ledger.do(do.CloseTunnel(number))
                ledger.take_down(connection, number)
            ledger.fall_back(connection, ledger.settings.lifespans.silence, reason, now)
        else:
            self._ageing.left_alone(connection, reason, now)

    def sa_move_failed(self, event: happened.SaMoveFailed, now: float) -> None:
        """Neither the old place nor the new one can be trusted: the tunnel ends."""
        ledger = self._ledger
        ledger.trace.drop("gateway", "sa_move_failed", tunnel=event.tunnel, reason=event.reason)
        ledger.do(do.RemoveSa(event.key))  # it is still there, under its name before
        connection = ledger.connections.of_tunnel(event.tunnel)
        if connection is not None:
            ledger.do(do.CloseTunnel(event.tunnel))
            self._gone(connection, event.tunnel, f"not moved: {event.reason}", now)

    # Towards the end.

    def tunnel_expiring(self, event: keying.TunnelExpiring, now: float) -> None:
        """Order a successor before the end (RFC 4322 section 3.2.6): make before break."""
        connection = self._ledger.connections.of_tunnel(event.tunnel)
        if connection is None or connection.state is not State.KEYED:
            return
        tunnel = connection.tunnels[event.tunnel]
        if not self._homes.idle(connection, tunnel, now):
            self._ageing.renew(connection, tunnel, now)

    def sa_expired(self, event: SaExpired, now: float) -> None:
        number = self._ledger.connections.tunnel_of_sa(event.key)
        if number is None:
            return
        if not event.hard:
            self._ledger.do(do.ReportExpiring(number))
            return
        connection = self._ledger.connections.of_tunnel(number)
        self._ledger.do(do.CloseTunnel(number))
        if connection is not None:
            self._gone(connection, number, "byte lifetime over", now)

    def tunnel_closed(self, event: keying.TunnelClosed, now: float) -> None:
        connection = self._ledger.connections.of_tunnel(event.tunnel)
        if connection is not None:
            if event.reason == keying.DEAD_PEER:
                self._homes.gateway_died(connection.tunnels[event.tunnel].gateway, now)
            self._gone(connection, event.tunnel, event.reason, now)
        else:
            self._ledger.proposal_over(event.tunnel)

    def _gone(self, connection: Connection, number: int, reason: str, now: float) -> None:
        """A tunnel that was agreed is over; what of the connection depends on the others."""
        ledger = self._ledger
        others = [
            t
            for n, t in connection.tunnels.items()
            if n != number and not t.receives_only and (t.agreed or not self._homes.leads_back(n))
        ]
        if any(t.agreed for t in others):
            # The other's SAs are in place, or on their way there before these are removed.
            ledger.trace.event("tunnel", "closed", tunnel=number, reason=reason)
            ledger.take_down(connection, number, now)
            ledger.seal_by_sender(connection)
        elif connection.state not in (State.KEYED, State.PENDING):
            ledger.take_down(connection, number)
            self._ageing.left_alone(connection, reason, now)
        elif not others:
            ledger.end(connection, Happening.TUNNEL_DOWN, reason, now)
        else:
            if connection.state is State.KEYED:
                ledger.move(connection, Happening.HALF_DOWN, reason, now)
                # The tunnel has carried packets of other rules, too: they wait under their own.
                for scope in connection.scopes:
                    ledger.do(do.RemovePolicy(scope))
                connection.scopes.clear()
            ledger.trace.event("tunnel", "closed", tunnel=number, reason=reason)
            ledger.take_down(connection, number)

    def tunnel_preferred(self, event: keying.TunnelPreferred, now: float) -> None:
        """Two tunnels were begun at once: send on this one, and on the other no more.

        Sending on the other would go wrong as soon as its Delete is late.  A tunnel of the pair
        with another gateway has no part in this (RFC 4322 section 8).
        """
        ledger = self._ledger
        connection = ledger.connections.of_tunnel(event.tunnel)
        preferred = connection.tunnels[event.tunnel] if connection else None
        for tunnel in connection.tunnels.values() if connection else ():
            if tunnel is preferred or not tunnel.agreed:
                continue
            if preferred is not None and tunnel.peer != preferred.peer:
                continue
            tunnel.receives_only = True
            if tunnel.outbound is not None:
                ledger.connections.remove_sa(tunnel.outbound)
                ledger.do(do.RemoveSa(tunnel.outbound))
                tunnel.outbound = None
        if connection is not None:
            ledger.seal_by_sender(connection)

    # Elsewhere.

    def peer_address_changed(self, event: PeerAddressChanged, now: float) -> None:
        """The datapath saw the peer elsewhere; the keying core decides whether to follow."""
        number = self._ledger.connections.tunnel_of_sa(event.key)
        if number is not None:
            remote = keying.TransportAddress(event.address, event.port)
            self._ledger.do(do.ReportPeerMoved(number, remote))

    def peer_moved(self, event: keying.PeerMoved, now: float) -> None:
        """Lead the SAs of these tunnels to the peer's new address and port (RFC 3947 section 7)."""
        ledger = self._ledger
        for number in event.tunnels:
            connection = ledger.connections.of_tunnel(number)
            tunnel = connection.tunnels.get(number) if connection else None
            if tunnel is not None and tunnel.udp is not None and tunnel.request is not None:
                self._lead(tunnel, tunnel.udp, tunnel.request, event.remote)
        ledger.trace.event(
            "tunnel", "peer_moved", remote=event.remote.address, port=event.remote.port,
            tunnels=event.tunnels,
        )  # fmt: skip

    def _lead(
        self,
        tunnel: Tunnel,
        udp: tuple[int, int],
        request: keying.TunnelRequest,
        remote: keying.TransportAddress,
    ) -> None:
        tunnel.udp = (udp[0], remote.port)
        self._ledger.connections.lead(tunnel, remote.address)
        # It still calls itself what it has called itself.
        identity = request.remote if request.peer_identity is None else request.peer_identity
        tunnel.request = replace(request, remote=remote.address, peer_identity=identity)
        if tunnel.outbound is not None:
            self._move_outbound(tunnel)
        elif tunnel.agreed:
            tunnel.late = True
        if tunnel.inbound is not None:
            self._move_inbound(tunnel)
        else:
            tunnel.late = True

    def _move_outbound(self, tunnel: Tunnel) -> None:
        assert tunnel.udp is not None
        assert tunnel.request is not None
        assert tunnel.outbound is not None
        ledger, there = self._ledger, tunnel.gateway
        old, tunnel.outbound = tunnel.outbound, replace(tunnel.outbound, destination=there)
        ledger.connections.remove_sa(old)
        ledger.connections.add_sa(tunnel.outbound, tunnel.number)
        ports = UdpEncapsulation(*tunnel.udp)
        ledger.do(do.MoveSa(tunnel.number, old, tunnel.request.local, there, ports))

    def _move_inbound(self, tunnel: Tunnel) -> None:
        assert tunnel.udp is not None
        assert tunnel.request is not None
        assert tunnel.inbound is not None
        here, there = tunnel.request.local, tunnel.gateway
        ports = UdpEncapsulation(*tunnel.udp[::-1])
        self._ledger.do(do.MoveSa(tunnel.number, tunnel.inbound, there, here, ports))

    # Counters.

    def usage_reported(self, event: happened.UsageReported, now: float) -> None:
        """Traffic is proof of life (RFC 3706 section 5.4), and of use."""
        usage: Mapping[SaKey, Usage] = event.usage
        for connection in self._ledger.connections:
            for tunnel in connection.tunnels.values():
                if not tunnel.up or tunnel.inbound is None or tunnel.outbound is None:
                    continue
                received = usage.get(tunnel.inbound)
                sent = usage.get(tunnel.outbound)
                heard = received.last_used if received else None
                spoke = sent.last_used if sent else None
                if (heard, spoke) != tunnel.traffic:
                    tunnel.traffic = (heard, spoke)
                    moments = (m for m in (connection.used, heard, spoke) if m is not None)
                    connection.used = max(moments, default=None)
                    self._ledger.do(do.ReportTraffic(tunnel.number, heard, spoke))
        self._ageing.usage_known(usage, now)
        self._homes.usage_reported()


def _until_peer_receives(connection: Connection, tunnel: Tunnel) -> float:
    """Seconds from message 3 until our outbound SA is put to use."""
    if not tunnel.initiator:
        return 0.0  # message 3 was the peer's, who had its SAs before it
    others = connection.tunnels.values()
    if any(other.outbound is not None for other in others if other is not tunnel):
        return SUCCESSOR_WAIT
    return FIRST_WAIT if connection.rule.category is Category.CONFIGURED else 0.0


def _assurance(connection: Connection, tunnel: Tunnel) -> do.Assurance:
    """How well we know who sends (RFC 4322 sections 12.1 and 12.2)."""
    if connection.rule.category is Category.CONFIGURED:
        return do.Assurance.CONFIGURED
    return do.Assurance.SECURE if tunnel.trust is Trust.SECURE else do.Assurance.INSECURE


def _encapsulation(ports: keying.UdpPorts | None) -> UdpEncapsulation | None:
    return UdpEncapsulation(ports.source, ports.destination) if ports else None


def _cipher_text(sa: keying.EspSa) -> str:
    octets = len(sa.encryption_key) - (4 if sa.cipher == "aes-gcm-16" else 0)
    esn = " esn" if sa.extended_sequence_numbers else ""
    return f"{sa.cipher}-{octets * 8} {sa.integrity or ''}".strip() + esn
