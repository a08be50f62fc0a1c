"""The responder's desk: a stranger wants a tunnel with us (draft sections 4.9 to 4.12).

The time points in brackets are those of draft section 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass

from dnsrecords.outcome import GatewayOutcome, GatewaysFound, KeyOutcome, KeysFound
from ike.events import PeerKeyNeeded, TunnelProposed, TunnelRequest
from oegw import commands as do
from oegw import peer as peers
from oegw.connection import Selectors, State, Tunnel
from oegw.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Authority:
    """Our question: does the claimed client delegate to this gateway (5G2)?"""

    proposal: TunnelProposed
    selectors: Selectors


class Responder:
    """What we do when a peer begins."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def peer_key_needed(self, event: PeerKeyNeeded, now: float) -> None:  # (5F1)
        ledger = self._ledger
        configured = [p for p in ledger.peers.values() if p.expected_identity == event.identity]
        keys = tuple(p.key for p in configured if p.key is not None)
        if keys:  # never by DNS: an opportunistic peer must not take a configured identity
            ledger.do(do.ProvidePeerKeys(event.channel, keys))
        elif configured or isinstance(event.identity, str) or ledger.may_look_up(event.identity):
            ledger.do(do.StartKeyLookup(ledger.start_lookup(event), event.identity))
        else:
            ledger.do(do.RefusePeerKeys(event.channel, "identity in a private or reserved range"))

    def keys_known(self, asker: PeerKeyNeeded, outcome: KeyOutcome, now: float) -> None:  # (5F2)
        ledger = self._ledger
        if isinstance(outcome, KeysFound):
            ledger.do(do.ProvidePeerKeys(asker.channel, outcome.keys))
            return
        reason = f"no key for {asker.identity}: {outcome.detail}"
        ledger.trace.drop("gateway", "peer_without_key", identity=asker.identity, detail=reason)
        ledger.do(do.RefusePeerKeys(asker.channel, reason))

    def tunnel_proposed(self, event: TunnelProposed, now: float) -> None:  # (5G1)
        ledger = self._ledger
        missed = ""
        try:
            selectors = peers.proposed_selectors(event)
            missed = peers.near_miss(event, selectors, ledger.table, ledger.peers)
            rule = peers.configured_rule(event, selectors, ledger.table, ledger.peers)
            if rule is None:
                peers.opportunistic_rule(selectors, ledger.table)
                if selectors.remote.network_address in ledger.settings.addresses:
                    raise peers.Refusal("the far side claims an address of ours")
                if not peers.speaks_for_itself(event.identity, event.remote_selector):
                    self._ask_authority(event, selectors)
                    return
        except peers.Refusal as refusal:
            self._refuse(event, f"{missed}; {refusal}" if missed else str(refusal))
            return
        self._accept(event, selectors, now)

    def _ask_authority(self, event: TunnelProposed, selectors: Selectors) -> None:  # (5G2)
        """Raises Refusal."""
        ledger = self._ledger
        client = selectors.remote.network_address
        if not ledger.may_look_up(client):
            raise peers.Refusal(f"{client} is in a private or reserved range")
        lookup = ledger.start_lookup(Authority(event, selectors))
        ledger.do(do.StartLookup(lookup, client, with_keys=False, purpose="authority"))

    def authority_known(
        self, asker: Authority, outcome: GatewayOutcome, now: float
    ) -> None:  # (5G3)
        event = asker.proposal
        client = asker.selectors.remote.network_address
        if not isinstance(outcome, GatewaysFound):
            self._refuse(event, f"no delegation by {client}: {outcome.detail}")
        elif not peers.delegated(outcome.gateways, event.identity, event.key):
            self._refuse(event, f"{client} does not delegate to {event.identity} with this key")
        else:
            self._accept(event, asker.selectors, now)

    def _accept(self, event: TunnelProposed, selectors: Selectors, now: float) -> None:  # (5G4)
        ledger = self._ledger
        # The policy may have changed while the DNS was asked.
        rule = peers.configured_rule(event, selectors, ledger.table, ledger.peers)
        if rule is None:
            try:
                rule = peers.opportunistic_rule(selectors, ledger.table)
            except peers.Refusal as refusal:
                self._refuse(event, str(refusal))
                return
        connection = ledger.connections.exact(selectors, rule)
        if connection is None:
            if not ledger.room(now):
                self._refuse(event, "too many connections")
                return
            connection = ledger.connections.create(selectors, rule, now)
        request = TunnelRequest(  # what we shall ask for when this tunnel expires
            event.local.address,
            event.remote.address,
            event.local_selector,
            event.remote_selector,
            (event.key,),
            event.identity,
        )
        tunnel = Tunnel(event.tunnel, event.remote.address, initiator=False, request=request)
        ledger.connections.add_tunnel(connection, tunnel)
        if connection.state is State.DENIED:
            ledger.await_peer(connection, now)
        ledger.do(do.AcceptTunnel(event.tunnel))

    def _refuse(self, event: TunnelProposed, reason: str) -> None:
        ledger = self._ledger
        ledger.trace.drop(
            "gateway", "tunnel_refused", identity=event.identity,
            local=event.local_selector.network, remote=event.remote_selector.network, reason=reason,
        )  # fmt: skip
        ledger.do(do.RefuseTunnel(event.tunnel, reason))
