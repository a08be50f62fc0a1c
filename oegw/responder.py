"""The responder's desk: a stranger wants a tunnel with us (draft sections 4.9 to 4.12).

The time points in brackets are those of draft section 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dnsrecords.outcome import (
    Gateway,
    GatewayOutcome,
    GatewaysFound,
    KeyOutcome,
    KeysFound,
    Malformed,
    NothingFound,
    Unanswered,
)
from dnsrecords.trust import Trust, weakest
from ike.events import PeerKeyNeeded, TunnelProposed, TunnelRequest
from oegw import assurance
from oegw import commands as do
from oegw import peer as peers
from oegw.connection import Connection, Selectors, State, Tunnel
from oegw.decision import Replies
from oegw.decisions import Approval, Decisions
from oegw.ledger import Ledger
from oegw.multihoming import without_keys
from oegw.portencryption import PortEncryption
from oegw.selfknowledge import NotOurs, OwnQuestion
from policy.rule import Category

# Our choice.
PROOFS_KEPT = 16384


@dataclass(slots=True, eq=False)
class Claim:
    """A proposal that is being looked into, from both ends at the same time.

    ``entitled``: the peer may speak for its client; ``ours``: we may speak for ours.  ``open`` are
    the numbers of the look-ups under way.  ``trust`` is that of the records that it rests on, None
    if there are none.
    """

    proposal: TunnelProposed
    selectors: Selectors
    entitled: bool = False
    ours: bool = False
    homes: tuple[Gateway, ...] = ()  # whom the peer's client would rather be reached by
    open: set[int] = field(default_factory=set)
    trust: Trust | None = None

    def depends_on(self, trust: Trust | None) -> None:
        """One record more; None is a key of the configuration."""
        if trust is not None:
            self.trust = trust if self.trust is None else weakest(self.trust, trust)


@dataclass(frozen=True, slots=True)
class _AboutClaim:
    """What we ask about a claim."""

    claim: Claim

    @property
    def proposal(self) -> TunnelProposed:
        return self.claim.proposal


@dataclass(frozen=True, slots=True)
class Authority(_AboutClaim):
    """Our question: does the claimed client delegate to this gateway (5G2)?"""


@dataclass(frozen=True, slots=True)
class KeyQuestion(_AboutClaim):
    """Our question: is the key of this channel, which we began, that of the identity?

    ``again``: whoever is at the address proposes it, and is asked for its authority once more.
    """

    again: bool = False


@dataclass(frozen=True, slots=True)
class AddressKey(_AboutClaim):
    """Our question: has the address that a peer known by name is at a key of its own?"""


@dataclass(frozen=True, slots=True)
class OwnClient(_AboutClaim):
    """Our question: has the client that the peer asks for delegated to us?"""

    question: OwnQuestion


class Responder:
    """What we do when a peer begins.

    A key says who somebody is only if it was found under the identity.  On a channel that a peer
    began, it was; on one that we began for some destination, it is what that destination's
    delegation says: whoever owns a reverse zone can name any gateway there, with a key of its own.
    """

    def __init__(self, ledger: Ledger, decisions: Decisions, ports: PortEncryption) -> None:
        self._ledger = ledger
        self._decisions = decisions
        self._ports = ports
        # Channels whose key is that of their identity, and how far that can be trusted: None for
        # a key of the configuration.
        self._proven: dict[int, Trust | None] = {}

    def forget_proofs(self) -> None:
        """The policy has changed, and with it the configured keys."""
        self._proven.clear()

    def _prove(self, channel: int, trust: Trust | None = None) -> None:
        self._proven[channel] = trust
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
            lookup = ledger.start_lookup(event)
            ledger.do(do.StartKeyLookup(lookup, event.identity, ours=bool(configured)))
        else:
            self._refuse_keys(event, "identity in a private or reserved range", now)

    def keys_known(self, asker: PeerKeyNeeded, outcome: KeyOutcome, now: float) -> None:  # (5F2)
        ledger = self._ledger
        if isinstance(outcome, KeysFound):
            self._prove(asker.channel, outcome.trust)
            ledger.do(do.ProvidePeerKeys(asker.channel, outcome.keys))
            return
        reason = f"no key for {asker.identity}: {outcome.detail}"
        ledger.trace.drop("gateway", "peer_without_key", identity=asker.identity, detail=reason)
        self._refuse_keys(asker, reason, now)

    def _refuse_keys(self, event: PeerKeyNeeded, reason: str, now: float) -> None:
        if not event.initiator:  # else it is our own negotiation that fails
            address = event.remote.address
            self._ledger.refusals.note(event.identity, address, "its key", reason, now)
        self._ledger.do(do.RefusePeerKeys(event.channel, reason))

    def tunnel_proposed(self, event: TunnelProposed, now: float) -> None:  # (5G1)
        ledger = self._ledger
        self._decisions.proposed(event)
        missed = ""
        claim: Claim | None = None
        try:
            selectors = peers.proposed_selectors(event)
            missed = peers.near_miss(event, selectors, ledger.table, ledger.peers)
            rule = peers.configured_rule(event, selectors, ledger.table, ledger.peers)
            claim = Claim(event, selectors, ours=rule is not None)
            if rule is None:
                peers.opportunistic_rule(selectors, ledger.table)
                if selectors.remote.network_address in ledger.settings.addresses:
                    raise peers.Refusal("the far side claims an address of ours")
                self._refuse_hidden(selectors)
                if not peers.speaks_for_itself(event.identity, event.remote_selector):
                    self._ask_authority(claim)
                else:
                    self._ask_identity(claim)
                self._ask_own(claim, now)
            elif ledger.peers[rule.name].key is None:
                self._ask_identity(claim)
            else:
                claim.entitled = True
        except peers.Refusal as refusal:
            reason = f"{missed}; {refusal}" if missed else str(refusal)
            if claim is None:
                self._refuse(event, reason, now)
            else:
                self._reject(claim, reason, now)
            return
        self._decide(claim, now)

    def _refuse_hidden(self, selectors: Selectors) -> None:
        """Nobody outside can mean a host of ours by the address that it has inside (7.1, 7.3).

        Raises Refusal.
        """
        by = self._ledger.nat.hides(selectors.local)
        if by is not None:
            raise peers.Refusal(f"{selectors.local} is inside, and known outside as {by.outside}")
        if reason := self._ledger.objection(selectors.local.network_address):
            raise peers.Refusal(reason)

    def _decide(self, claim: Claim, now: float) -> None:
        """Accept when both ends are found in order."""
        if claim.entitled and claim.ours and not self._decisions.awaited(claim):
            self._accept(claim, now)
            connection = self._ledger.connections.of_tunnel(claim.proposal.tunnel)
            if connection is not None and claim.homes:
                connection.homes = claim.homes

    def _reject(self, claim: Claim, reason: str, now: float) -> None:
        for lookup in claim.open:
            self._ledger.cancel(lookup)
        claim.open.clear()
        self._refuse(claim.proposal, reason, now)

    def _open(self, claim: Claim, asker: Authority | KeyQuestion | AddressKey | OwnClient) -> int:
        lookup = self._ledger.start_lookup(asker)
        claim.open.add(lookup)
        return lookup

    def _ask_identity(self, claim: Claim) -> None:
        """Is the key that of the identity?  On a channel that the peer began, we know."""
        event = claim.proposal
        if event.channel in self._proven:
            claim.entitled = True
            claim.depends_on(self._proven[event.channel])
        else:
            lookup = self._open(claim, KeyQuestion(claim))
            self._ledger.do(do.StartKeyLookup(lookup, event.identity, ours=claim.ours))

    def _ask_authority(self, claim: Claim) -> None:  # (5G2)
        """Raises Refusal."""
        ledger = self._ledger
        client = claim.selectors.remote.network_address
        if not ledger.may_look_up(client):
            raise peers.Refusal(f"{client} is in a private or reserved range")
        lookup = self._open(claim, Authority(claim))
        with_keys = claim.proposal.channel not in self._proven
        ledger.do(do.StartLookup(lookup, client, with_keys=with_keys, purpose="authority"))

    def _ask_own(self, claim: Claim, now: float) -> None:
        """Has the client that the peer asks for delegated to us?  Raises Refusal.

        RFC 4322 does not say so, but else anybody could have us send for any address, and receive
        what is meant for it (FreeS/WAN's oe-fail-without-resp-client-txt-01).
        """
        ledger = self._ledger
        client = claim.selectors.local.network_address
        if client in ledger.settings.addresses:  # we speak for it as itself
            claim.ours = True
            return
        questions = ledger.own.client_questions(client, now)
        for question in questions:
            lookup = self._open(claim, OwnClient(claim, question))
            ledger.ask_own(lookup, question)
        if not questions:
            self._check_own(claim)

    def _check_own(self, claim: Claim) -> None:
        """Raises Refusal."""
        try:
            self._ledger.own.check_client(claim.selectors.local.network_address)
        except NotOurs as why:
            raise peers.Refusal(str(why)) from None
        claim.ours = True

    def own_client_known(self, asker: OwnClient, outcome: GatewayOutcome, now: float) -> None:
        claim = asker.claim
        self._ledger.own.learned(asker.question, outcome, now)
        try:
            self._check_own(claim)
        except peers.Refusal as refusal:
            self._reject(claim, str(refusal), now)
            return
        self._decide(claim, now)

    def identity_known(self, asker: KeyQuestion, outcome: KeyOutcome, now: float) -> None:
        """The KEY records of who speaks for itself, or is configured with its key in the DNS."""
        claim, event = asker.claim, asker.proposal
        if isinstance(outcome, KeysFound) and any(
            peers.same_key(event.key, key) for key in outcome.keys
        ):
            self._prove(event.channel, outcome.trust)
            if asker.again:
                self._ask_authority(claim)
                return
            claim.depends_on(outcome.trust)
            claim.entitled = True
            self._decide(claim, now)
            return
        try:
            if not peers.speaks_for_itself(event.identity, event.remote_selector):
                raise peers.Refusal(f"{event.identity} has another key")
            self._ask_authority(claim)  # its TXT record may have the key
        except peers.Refusal as refusal:
            self._reject(claim, str(refusal), now)

    def authority_known(
        self, asker: Authority, outcome: GatewayOutcome, now: float
    ) -> None:  # (5G3)
        claim, event = asker.claim, asker.proposal
        client = claim.selectors.remote.network_address
        proven = event.channel in self._proven
        if proven:
            claim.depends_on(self._proven[event.channel])
        if isinstance(outcome, GatewaysFound):
            try:
                delegation = self._delegation(claim, outcome, proven)
            except peers.Refusal as refusal:
                self._reject(claim, str(refusal), now)
                return
            claim.depends_on(delegation.trust)
            claim.homes = without_keys(outcome.gateways)
        elif isinstance(outcome, NothingFound) and peers.is_at(event, client):
            self._ask_address(claim, proven)
            return
        else:
            self._reject(claim, f"no delegation by {client}: {outcome.detail}", now)
            return
        claim.entitled = True
        self._decide(claim, now)

    def _ask_address(self, claim: Claim, proven: bool) -> None:
        """A peer known by name is at an address that delegates to nobody.

        Draft section 6.3 is for those without a suitable reverse map.  An address with a KEY record
        has one, and its own tunnels: whoever can send from there must not get them by some name.
        """
        ledger, event = self._ledger, claim.proposal
        if not proven:  # the policy is new, say, and the channel older
            lookup = self._open(claim, KeyQuestion(claim, again=True))
            ledger.do(do.StartKeyLookup(lookup, event.identity))
            return
        lookup = self._open(claim, AddressKey(claim))
        ledger.do(do.StartKeyLookup(lookup, event.remote.address))

    def address_key_known(self, asker: AddressKey, outcome: KeyOutcome, now: float) -> None:
        """The KEY records of the address that the peer is at."""
        claim, event = asker.claim, asker.proposal
        found = outcome.keys if isinstance(outcome, KeysFound) else ()
        if found and not any(peers.same_key(event.key, key) for key in found):
            reason = f"{event.remote.address} has a key of its own, and {event.identity} another"
            self._reject(claim, reason, now)
            return
        if isinstance(outcome, Unanswered | Malformed):
            self._reject(claim, f"key of {event.remote.address}: {outcome.detail}", now)
            return
        # No record says that this name is at this address.
        claim.depends_on(Trust.INSECURE)
        claim.entitled = True
        self._decide(claim, now)

    def _delegation(self, claim: Claim, outcome: GatewaysFound, proven: bool) -> Gateway:
        """The record that lets the peer speak for its client.  Raises Refusal."""
        ledger, event = self._ledger, claim.proposal
        client = claim.selectors.remote.network_address
        rule = peers.opportunistic_rule(claim.selectors, ledger.table)
        try:
            admitted = assurance.admitted(
                outcome, client, rule, ledger.settings.unsigned_delegation
            )
        except assurance.Unassured as why:
            raise peers.Refusal(str(why)) from None
        found = peers.delegated(tuple(admitted), event.identity, event.key, proven=proven)
        if found is None:
            raise peers.Refusal(f"{client} does not delegate to {event.identity} with this key")
        return found

    def _accept(self, claim: Claim, now: float) -> None:  # (5G4)
        ledger, event, selectors = self._ledger, claim.proposal, claim.selectors
        # The policy may have changed while the DNS was asked.
        rule = unruled = peers.configured_rule(event, selectors, ledger.table, ledger.peers)
        proven = event.channel in self._proven
        if rule is not None and not proven and ledger.peers[rule.name].key is None:
            self._refuse(event, "the policy has changed", now)
            return
        if rule is None:
            try:
                unruled = peers.opportunistic_rule(selectors, ledger.table)
                rule = self._decisions.approved(event, selectors, unruled)
            except peers.Refusal as refusal:
                self._refuse(event, str(refusal), now)
                return
        self._decisions.over(event.tunnel)  # asked of what is configured now
        try:
            assurance.check(rule, claim.trust)
        except assurance.Unassured as why:
            self._refuse(event, str(why), now)
            return
        try:
            shielded = self._ports.came_shielded(event)
            sst = self._ports.accepts(event, selectors, rule, shielded)
        except peers.Refusal as refusal:
            self._refuse(event, str(refusal), now)
            return
        connection = ledger.connections.exact(selectors, rule)
        if connection is not None and _weaker(claim, connection):
            self._refuse(event, "a tunnel stands that rests on secure records", now)
            return
        if connection is None:
            stranger = rule.category is Category.OPPORTUNISTIC
            if stranger and not ledger.connections.admits(event.identity):
                self._refuse(event, "too many connections of this peer, or of all", now)
                return
            if not ledger.room(now):
                self._refuse(event, "too many connections", now)
                return
            beginner = event.identity if stranger else None
            connection = ledger.connections.create(selectors, rule, now, beginner)
            if rule is not unruled:
                connection.unruled = unruled
        request = TunnelRequest(  # what we shall ask for when this tunnel expires
            event.local.address,
            event.remote.address,
            event.local_selector,
            event.remote_selector,
            (event.key,),
            event.identity,
            sst=sst,
        )
        tunnel = Tunnel(event.tunnel, event.remote.address, initiator=False, request=request)
        ledger.connections.add_tunnel(connection, tunnel)
        tunnel.trust = claim.trust
        tunnel.shielded = shielded
        if claim.trust is not None and connection.live_tunnel is None:
            ledger.rests_on(connection, claim.trust, event.remote.address)
        if connection.standing is State.DENIED:
            ledger.await_peer(connection, now)
        ledger.do(do.AcceptTunnel(event.tunnel, sst))

    def approval_known(self, asker: Approval, replies: Replies, now: float) -> None:
        claim = self._decisions.answered(asker, replies)
        if claim is not None:
            self._decide(claim, now)

    def _refuse(self, event: TunnelProposed, reason: str, now: float) -> None:
        ledger = self._ledger
        self._decisions.over(event.tunnel)
        ledger.trace.drop(
            "gateway", "tunnel_refused", identity=event.identity,
            local=event.local_selector.network, remote=event.remote_selector.network, reason=reason,
        )  # fmt: skip
        what = f"a tunnel for {event.local_selector.network} and {event.remote_selector.network}"
        ledger.refusals.note(event.identity, event.remote.address, what, reason, now)
        ledger.do(do.RefuseTunnel(event.tunnel, reason))


def _weaker(claim: Claim, connection: Connection) -> bool:
    """Whether a tunnel by weaker records, of another peer or key, would replace a better one.

    Who has the tunnel may renew it, whatever the DNS says by now.
    """
    live, event = connection.live_tunnel, claim.proposal
    if live is None or connection.trust is not Trust.SECURE or claim.trust in (None, Trust.SECURE):
        return False
    keys = live.request.peer_keys if live.request else ()
    return live.peer != event.identity or not any(peers.same_key(event.key, key) for key in keys)
