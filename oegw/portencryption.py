"""The desk of port encryption in and around tunnels: the placements ``inner`` and ``outer``.

``inner``: quick mode agrees upon a key, and what goes through the tunnel has its ports encrypted
with it.  A peer's offer is accepted whatever our own rule says: it lets the peer's rule work, and
our answers are encrypted because its packets were.
``outer``: before message 1 leaves, the shell is asked to encrypt the gateways' own ports.  ESP then
goes in UDP, since protocol 50 has no ports; with a NAT between the gateways it can't be had.
What can't be had is done without where the rule is opportunistic, and said; where it requires port
encryption there is no tunnel, and nothing passes (SST-29).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import ike.events as keying
from ike.events import Encapsulation, Failure, NegotiationFailed, TunnelProposed, TunnelRequest
from oegw import commands as do
from oegw import peer as peers
from oegw.connection import Connection, Selectors, Tunnel
from oegw.events import GatewayShielded
from oegw.shields import Ends
from policy.rule import Category, Rule, Sst, SstStrength

if TYPE_CHECKING:
    from oegw.ledger import Ledger

OFF = "port encryption does not run here"
NAMES_PORTS = "the tunnel is for single ports, which show what is encrypted"
NOT_KNOWN = "the peer does not encrypt ports inside of tunnels"
NAT_BETWEEN = "a NAT between the gateways rewrites ports"
UNSHIELDED = "the ports of IKE were not encrypted"


class PortEncryption:
    """``failed`` is told of a negotiation that the rule does not allow to go on."""

    def __init__(self, ledger: Ledger, failed: Callable[[NegotiationFailed, float], None]) -> None:
        self._ledger = ledger
        self._failed = failed

    # We begin.

    def order(self, connection: Connection, tunnel: Tunnel) -> None:
        """Have a tunnel negotiated, if need be behind a shield that is raised before."""
        ledger = self._ledger
        assert tunnel.request is not None
        tunnel.request = self._request(connection, tunnel.request)
        if connection.rule.sst is not Sst.OUTER:
            ledger.do(do.StartNegotiation(tunnel.number, tunnel.request))
            return
        tunnel.awaits_shield = True
        ends = Ends(tunnel.request.local, tunnel.request.remote)
        ledger.shields.raise_for(tunnel.number, ends)
        ledger.do(do.ShieldGateway(tunnel.number, ends.local, ends.remote))

    def _request(self, connection: Connection, request: TunnelRequest) -> TunnelRequest:
        """What of a request, new or that of a tunnel before, depends on the rule."""
        ledger, rule = self._ledger, connection.rule
        replaced = connection.tunnels.get(-1 if request.replaces is None else request.replaces)
        inside = rule.sst is Sst.INNER or (replaced is not None and replaced.sealed)
        inside = inside and self._inside_is_possible(connection.selectors)
        encapsulation = request.encapsulation
        if replaced is not None and replaced.shielded:  # that was for the shield
            peer = ledger.peers.get(rule.name) if rule.category is Category.CONFIGURED else None
            encapsulation = None if peer is None else peer.encapsulation
        return replace(request, sst=inside, encapsulation=encapsulation)

    def _inside_is_possible(self, selectors: Selectors) -> bool:
        return self._ledger.settings.encrypts_ports and not _names_ports(selectors)

    def gateway_shielded(self, event: GatewayShielded, now: float) -> None:
        """The answer before message 1."""
        ledger = self._ledger
        connection = ledger.connections.of_tunnel(event.tunnel)
        tunnel = connection.tunnels[event.tunnel] if connection is not None else None
        if connection is None or tunnel is None or not tunnel.awaits_shield:
            return  # it has ended meanwhile, and with it what it was for
        assert tunnel.request is not None
        tunnel.awaits_shield = False
        if event.reason is None:
            tunnel.shielded = True
            ledger.shields.raised(tunnel.number)
            tunnel.request = replace(tunnel.request, encapsulation=Encapsulation.UDP)
        else:
            ledger.shields.tunnel_over(tunnel.number)
            reason = f"{UNSHIELDED}: {event.reason}"
            if _requires(connection.rule, Sst.OUTER):
                # Not the gateway's failure: the path, or its records, may be better soon.
                failed = NegotiationFailed(tunnel.number, Failure.CANCELLED, reason)
                self._failed(failed, now)
                return
            self._go_without(connection, tunnel, reason)
        ledger.do(do.StartNegotiation(tunnel.number, tunnel.request))

    # The peer begins.

    def accepts(
        self, event: TunnelProposed, selectors: Selectors, rule: Rule, shielded: bool
    ) -> bool:
        """Whether ports are encrypted inside of a tunnel that a peer proposes.

        ``shielded``: see ``came_shielded``.  Raises Refusal where ``rule`` requires what the peer
        does not do.
        """
        inside = event.sst and self._inside_is_possible(selectors)
        if _requires(rule, Sst.INNER) and not inside:
            raise peers.Refusal(self._why_not_inside(selectors))
        if _requires(rule, Sst.OUTER) and not shielded:
            raise peers.Refusal(UNSHIELDED)
        return inside

    def came_shielded(self, event: TunnelProposed) -> bool:
        """Whether a proposal came, and is answered, with the gateways' ports encrypted."""
        local, remote = event.local.address, event.remote.address
        shields, came_so = self._ledger.shields, self._ledger.settings.came_shielded
        return Ends(local, remote) in shields or came_so(local, remote)

    def _why_not_inside(self, selectors: Selectors) -> str:
        if not self._ledger.settings.encrypts_ports:
            return OFF
        return NAMES_PORTS if _names_ports(selectors) else NOT_KNOWN

    # Keys.

    def keyed(
        self, connection: Connection, tunnel: Tunnel, event: keying.InboundSaEstablished
    ) -> str | None:
        """Quick mode is agreed upon; returns why the tunnel must not be, if so."""
        ledger, rule, s = self._ledger, connection.rule, connection.selectors
        if event.sst_key is not None:
            tunnel.sealed = True
            ledger.do(do.SealTunnel(tunnel.number, s.local, s.remote, event.sst_key))
        elif rule.sst is Sst.INNER:
            self._go_without(connection, tunnel, self._why_not_inside(s))
        if tunnel.shielded and tunnel.initiator and event.translated:
            tunnel.shielded = False
            ends = ledger.shields.lower_for(tunnel.number)
            if ends is not None:  # it does more harm than good
                ledger.do(do.UnshieldGateway(ends.local, ends.remote))
            self._go_without(connection, tunnel, NAT_BETWEEN)
        elif rule.sst is Sst.OUTER and not tunnel.shielded and not tunnel.unsealed:
            self._go_without(connection, tunnel, UNSHIELDED)
        return tunnel.unsealed if lacks(rule, tunnel) else None

    def _go_without(self, connection: Connection, tunnel: Tunnel, reason: str) -> None:
        tunnel.unsealed = reason
        self._ledger.trace.event(
            "sst", "tunnel_without", source=connection.selectors.local,
            destination=connection.selectors.remote, gateway=tunnel.gateway, tunnel=tunnel.number,
            wanted=connection.rule.sst.value, strength=connection.rule.sst_strength.value,
            reason=reason,
        )  # fmt: skip

    # Shields.

    def channel_established(self, event: keying.KeyingChannelEstablished) -> None:
        ends = Ends(event.local.address, event.remote.address)
        self._ledger.shields.channel_up(event.channel, ends)

    def channel_closed(self, event: keying.KeyingChannelClosed) -> None:
        self._ledger.shields.channel_over(event.channel)

    def settle(self, now: float) -> None:
        """After each event: what has it ended?"""
        self._ledger.shields.settle(now)

    def next_timer(self) -> float | None:
        return self._ledger.shields.next_timer()

    def handle_timer(self, now: float) -> None:
        for ends in self._ledger.shields.take_over(now):
            self._ledger.do(do.UnshieldGateway(ends.local, ends.remote))


def lacks(rule: Rule, tunnel: Tunnel) -> bool:
    """Whether ``rule`` requires port encryption that a tunnel, agreed upon, does not have."""
    return (_requires(rule, Sst.INNER) and not tunnel.sealed) or (
        _requires(rule, Sst.OUTER) and not tunnel.shielded
    )


def _requires(rule: Rule, placement: Sst) -> bool:
    return rule.sst is placement and rule.sst_strength is SstStrength.REQUIRED


def _names_ports(selectors: Selectors) -> bool:
    return bool(selectors.local_port or selectors.remote_port)
