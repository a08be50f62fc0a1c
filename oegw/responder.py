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
from policy.rule import Category

# Our choice.
PROOFS_KEPT = 16384


@dataclass(frozen=True, slots=True)
class Authority:
    """Our question: does the claimed client delegate to this gateway (5G2)?"""

    proposal: TunnelProposed
    selectors: Selectors


@dataclass(frozen=True, slots=True)
class KeyQuestion:
    """Our question: is the key of this channel, which we began, that of the identity?"""

    proposal: TunnelProposed
    selectors: Selectors


class Responder:
    """What we do when a peer begins.

    A key says who somebody is only if it was found under the identity.  On a channel that a peer
    began, it was; on one that we began for some destination, it is what that destination's
    delegation says: whoever owns a reverse zone can name any gateway there, with a key of its own.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._proven: dict[int, None] = {}  # channels whose key is that of their identity

    def forget_proofs(self) -> None:
        """The policy has changed, and with it the configured keys."""
        self._proven.clear()

    def _prove(self, channel: int) -> None:
        self._proven[channel] = None
        if len(self._proven) > PROOFS_KEPT:  # who is forgotten costs a look-up
            del self._proven[next(iter(self._proven))]

    def peer_key_needed(self, event: PeerKeyNeeded, now: float) -> None:  # (5F1)
        ledger = self._ledger
        configured = [p for p in ledger.peers.values() if p.expected_identity == event.identity]
        keys = tuple(p.key for p in configured if p.key is not None)
        if keys:  # never by DNS: an opportunistic peer must not take a configured identity
            self._prove(event.channel)
            ledger.do(do.ProvidePeerKeys(event.channel, keys))
        elif configured or isinstance(event.identity, str) or ledger.may_look_up(event.identity):
            ledger.do(do.StartKeyLookup(ledger.start_lookup(event), event.identity))
        else:
            ledger.do(do.RefusePeerKeys(event.channel, "identity in a private or reserved range"))

    def keys_known(self, asker: PeerKeyNeeded, outcome: KeyOutcome, now: float) -> None:  # (5F2)
        ledger = self._ledger
        if isinstance(outcome, KeysFound):
            self._prove(asker.channel)
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
            if event.channel not in self._proven and (
                rule is None or ledger.peers[rule.name].key is None
            ):
                lookup = ledger.start_lookup(KeyQuestion(event, selectors))
                ledger.do(do.StartKeyLookup(lookup, event.identity))
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
        with_keys = event.channel not in self._proven
        ledger.do(do.StartLookup(lookup, client, with_keys=with_keys, purpose="authority"))

    def identity_known(self, asker: KeyQuestion, outcome: KeyOutcome, now: float) -> None:
        """The KEY records of who speaks for itself, or is configured with its key in the DNS."""
        event = asker.proposal
        if isinstance(outcome, KeysFound) and any(
            peers.same_key(event.key, key) for key in outcome.keys
        ):
            self._prove(event.channel)
            self._accept(event, asker.selectors, now)
            return
        try:
            if not peers.speaks_for_itself(event.identity, event.remote_selector):
                raise peers.Refusal(f"{event.identity} has another key")
            self._ask_authority(event, asker.selectors)  # its TXT record may have the key
        except peers.Refusal as refusal:
            self._refuse(event, str(refusal))

    def authority_known(
        self, asker: Authority, outcome: GatewayOutcome, now: float
    ) -> None:  # (5G3)
        event = asker.proposal
        client = asker.selectors.remote.network_address
        if not isinstance(outcome, GatewaysFound):
            self._refuse(event, f"no delegation by {client}: {outcome.detail}")
        elif not peers.delegated(
            outcome.gateways, event.identity, event.key, proven=event.channel in self._proven
        ):
            self._refuse(event, f"{client} does not delegate to {event.identity} with this key")
        else:
            self._accept(event, asker.selectors, now)
            connection = self._ledger.connections.of_tunnel(event.tunnel)
            if connection is not None:  # whom its destination would rather be reached by
                connection.homes = outcome.gateways

    def _accept(self, event: TunnelProposed, selectors: Selectors, now: float) -> None:  # (5G4)
        ledger = self._ledger
        # The policy may have changed while the DNS was asked.
        rule = peers.configured_rule(event, selectors, ledger.table, ledger.peers)
        proven = event.channel in self._proven
        if rule is not None and not proven and ledger.peers[rule.name].key is None:
            self._refuse(event, "the policy has changed")
            return
        if rule is None:
            try:
                rule = peers.opportunistic_rule(selectors, ledger.table)
            except peers.Refusal as refusal:
                self._refuse(event, str(refusal))
                return
        connection = ledger.connections.exact(selectors, rule)
        if connection is None:
            stranger = rule.category is Category.OPPORTUNISTIC
            if stranger and not ledger.connections.admits(event.identity):
                self._refuse(event, "too many connections of this peer, or of all")
                return
            if not ledger.room(now):
                self._refuse(event, "too many connections")
                return
            beginner = event.identity if stranger else None
            connection = ledger.connections.create(selectors, rule, now, beginner)
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
        if connection.standing is State.DENIED:
            ledger.await_peer(connection, now)
        ledger.do(do.AcceptTunnel(event.tunnel))

    def _refuse(self, event: TunnelProposed, reason: str) -> None:
        ledger = self._ledger
        ledger.trace.drop(
            "gateway", "tunnel_refused", identity=event.identity,
            local=event.local_selector.network, remote=event.remote_selector.network, reason=reason,
        )  # fmt: skip
        ledger.do(do.RefuseTunnel(event.tunnel, reason))
