"""The initiator's desk: from a trapped packet to a negotiation (draft sections 4.1 to 4.4).

The time points in brackets are those of draft section 3.2.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from itertools import chain

from dnsrecords.outcome import (
    Gateway,
    GatewayOutcome,
    GatewaysFound,
    Malformed,
    NothingFound,
    PeerFound,
    PeerOutcome,
    Unanswered,
)
from ike.events import Failure, NegotiationFailed, TrafficSelector, TunnelRequest
from oegw import assurance
from oegw import commands as do
from oegw import events as happened
from oegw import peer as peers
from oegw.ageing import Ageing
from oegw.commands import Verdict
from oegw.connection import (
    Connection,
    Happening,
    Selectors,
    State,
    Tunnel,
    host_network,
    selectors_for,
)
from oegw.decided import ruled
from oegw.decision import Replies
from oegw.decisions import Decisions
from oegw.inquiry import Inquiry, Part
from oegw.latekeys import LateKeys
from oegw.ledger import Ledger, verdict_of
from oegw.multihoming import Multihoming
from oegw.nat import Seen
from oegw.peer import ConfiguredPeer
from oegw.portencryption import PortEncryption
from oegw.selfknowledge import NotOurs
from policy.flow import Flow, IPAddress
from policy.rule import Category, PortRange, Require, Rule, Scope


class Initiator:
    """What we do for a packet of ours."""

    def __init__(self, ledger: Ledger, decisions: Decisions) -> None:
        self._ledger = ledger
        self._decisions = decisions
        self._next_tunnel = 0
        self.ageing = Ageing(ledger, self)
        self.ports = PortEncryption(ledger, self.negotiation_failed)
        self.late_keys = LateKeys(ledger, self._key_not_found)
        self.homes = Multihoming(ledger, self._acceptable, self._negotiate_with)

    def selectors(self, flow: Flow, rule: Rule) -> Selectors:
        """What we propose for ``flow``: never what a configured rule claims for itself."""
        selectors = selectors_for(flow, rule)
        if rule.category is Category.OPPORTUNISTIC and peers.configured_claim(
            selectors, self._ledger.table
        ):
            return replace(
                selectors, protocol=flow.protocol, remote_port=flow.destination_port or 0
            )
        return selectors

    def packet_trapped(self, event: happened.PacketTrapped, now: float) -> None:  # (5)
        ledger = self._ledger
        seen = ledger.nat.seen(event.flow, ledger.table)  # draft section 7.1
        flow, rule, scope = seen.flow, seen.rule, seen.scope
        if rule.category in (Category.PERMIT, Category.DENY):
            verdict = Verdict.CLEAR if rule.category is Category.PERMIT else Verdict.DENY
            lifespan = ledger.settings.lifespans.policy
            if rule.icmp and seen.cacheable:  # the kernel has to know of it to answer
                verdict = Verdict.REFUSE
            if seen.cacheable:
                ledger.do(do.InstallPolicy(scope, verdict, lifespan))
            ruled(ledger.trace, rule, verdict, flow, scope if seen.cacheable else None, lifespan)
            ledger.let_go((event.packet,), verdict, "denied")
            return
        selectors = self.selectors(flow, rule)
        connection = ledger.connections.for_packet(flow, selectors, rule)
        if connection is None:
            if not ledger.room(now):
                ledger.discard((event.packet,), "connections_full")
                return
            refusal = ledger.refuses_setup(event.flow.source, now)
            if refusal is not None:
                ledger.discard((event.packet,), refusal)
                return
            connection = ledger.connections.create(selectors, rule, now)
        if connection.state is State.NONEXISTENT:
            if any(tunnel.inbound for tunnel in connection.tunnels.values()):
                # The peer's tunnel is nearly up, and it sends already: none of our own is needed.
                ledger.connections.set_under_way(connection, event.flow.source)
                ledger.await_peer(connection, now)
            else:
                self.begin(connection, flow, now, event.flow.source)
        if rule.category is Category.OPPORTUNISTIC:
            scope = _narrowed(scope, event.flow, connection.selectors)
        if connection.state is State.EXPIRING:
            event = replace(event, flow=flow)
            self.ageing.in_use(connection, event, scope if seen.cacheable else None, now)
            return
        if seen.by is not None and seen.cacheable:
            self._shared_pair(connection, seen, now)
        self._settle(connection, event, scope, seen.cacheable, now)

    def _shared_pair(self, connection: Connection, seen: Seen, now: float) -> None:
        """What the translated pair has on the wire: no clear packets of it may come back in."""
        ledger, scope = self._ledger, seen.policy_scope
        if connection.rule.category is Category.OPPORTUNISTIC:
            scope = _narrowed(scope, seen.flow, connection.selectors)
        if scope in connection.scopes or not ledger.remember(connection, scope):
            return
        if not connection.under_way:
            ledger.install(connection, scope, verdict_of(connection), now)

    def _settle(
        self,
        connection: Connection,
        event: happened.PacketTrapped,
        scope: Scope,
        cacheable: bool,
        now: float,
    ) -> None:
        """Do with a packet what its connection's state says."""
        ledger = self._ledger
        if connection.under_way:
            if cacheable:
                ledger.remember(connection, scope)
            if event.packet >= 0:
                client = event.flow.source
                discard = ledger.hold.keep(connection.number, event.packet, event.size, client)
                if discard is not None:
                    ledger.discard((discard.packet,), discard.trigger)
            return
        verdict = verdict_of(connection)
        if cacheable and ledger.remember(connection, scope):
            ledger.install(connection, scope, verdict, now)
        ledger.let_go((event.packet,), verdict, "denied")

    # Finding the far gateway.

    def begin(
        self, connection: Connection, flow: Flow, now: float, client: IPAddress | None = None
    ) -> None:
        """Find out how packets of ``flow`` are to go, and have it so.

        ``client``: the host inside that they come from, if it has another address there.
        """
        self._decisions.put_aside(connection)
        ledger, rule = self._ledger, connection.rule
        ledger.connections.set_under_way(connection, client or flow.source)
        if rule.category is Category.CONFIGURED:
            self._begin_configured(connection, ledger.peers[rule.name], flow, now)
            return
        if not rule.initiate:  # RFC 4322 section 3.3.2: the peer's tunnel is used once it begins
            reason = f"rule {rule.name!r} accepts tunnels and begins none"
            ledger.fall_back(connection, ledger.settings.lifespans.policy, reason, now)
            return
        destination = flow.destination
        if (reason := ledger.objection(flow.source)) and not ledger.decision_points:
            ledger.trace.drop("gateway", "source_refused", source=flow.source, reason=reason)
            ledger.fall_back(connection, ledger.settings.lifespans.no_record, reason, now)
            return
        if not ledger.may_look_up(destination) and not ledger.decision_points:
            reason = f"{destination} is in a private or reserved range: not looked up"
            ledger.fall_back(connection, ledger.settings.lifespans.no_record, reason, now)
            return
        ledger.move(connection, Happening.LOOKUP_STARTED, str(destination), now)
        self.inquire(connection, flow, now)

    def inquire(self, connection: Connection, flow: Flow, now: float) -> None:
        """Ask all that a decision on an opportunistic connection rests on, at the same time."""
        ledger = self._ledger
        connection.inquiry = inquiry = Inquiry(flow)
        if ledger.decision_points:
            self._decisions.ask(self._open(connection, inquiry, Part.DECISIONS), connection)
        reason = ledger.objection(flow.source)
        if not ledger.may_look_up(flow.destination):
            reason = f"{flow.destination} is in a private or reserved range: not looked up"
        if reason:
            inquiry.gateways = NothingFound(ledger.settings.lifespans.no_record, reason)
            return
        number = self._open(connection, inquiry, Part.GATEWAYS)
        # Where the policy demands something of the keys' records, it is known before we begin.
        with_keys = connection.rule.require is Require.SECURE or bool(ledger.decision_points)
        # One that is to go on; but what a peer began, it can have go on as often as it likes.
        ours = connection.live_tunnel is not None and connection.beginner is None
        ledger.do(do.StartLookup(number, flow.destination, with_keys=with_keys, ours=ours))  # (5B)
        for question in ledger.own.questions(connection.selectors.local.network_address, now):
            number = self._open(connection, inquiry, Part.OWN)
            inquiry.own[number] = question
            ledger.ask_own(number, question)

    def _open(self, connection: Connection, inquiry: Inquiry, part: Part) -> int:
        number = self._ledger.start_lookup(connection)
        inquiry.open[number] = part
        return number

    def answered(
        self,
        connection: Connection,
        event: happened.Answer,
        now: float,
    ) -> None:
        """One answer more; with the last of them the connection is decided on (draft 5.4)."""
        inquiry = connection.inquiry
        if inquiry is None or (part := inquiry.open.pop(event.lookup, None)) is None:
            return
        match part, event:
            case Part.GATEWAYS, happened.LookupEnded(outcome=outcome):
                inquiry.gateways = outcome
            case Part.PEER, happened.PeerLookupEnded(outcome=peer):
                inquiry.peer = peer
            case Part.KEYS, happened.KeyLookupEnded(outcome=keys):
                inquiry.keys = keys
            case Part.OWN, happened.LookupEnded(outcome=own) | happened.KeyLookupEnded(outcome=own):
                self._ledger.own.learned(inquiry.own[event.lookup], own, now)
                self._drop_needless(connection, inquiry)
            case Part.DECISIONS, happened.DecisionsEnded(replies=replies):
                inquiry.replies = replies
        if not inquiry.complete:
            return
        connection.inquiry = None
        if inquiry.replies is not None and self._decided(connection, inquiry.replies, now):
            return
        if self.ageing.leaves_to_initiator(connection, inquiry, now):
            self._conclude(connection, inquiry, now)

    def _decided(self, connection: Connection, replies: Replies, now: float) -> bool:
        """Whether a decision point has decided, so that nothing else is looked at."""
        if connection.renewing is not None:
            reason = self._decisions.against_renewal(connection, replies, now)
            if reason is not None:
                self.ageing.not_renewed(connection, reason)
            return reason is not None
        if connection.state not in (State.POTENTIAL, State.EXPIRING):
            return False
        return self._decisions.settles(connection, replies, now)

    def _drop_needless(self, connection: Connection, inquiry: Inquiry) -> None:
        """Our first choice of an identity will do: don't wait for what is known of the second."""
        if self._ledger.own.settled(connection.selectors.local.network_address):
            for number in [n for n, part in inquiry.open.items() if part is Part.OWN]:
                del inquiry.open[number]
                self._ledger.cancel(number)

    def assured(self, connection: Connection, outcome: GatewayOutcome) -> GatewayOutcome:
        """Of the gateways found, those whose records are as good as the policy demands."""
        ledger, rule = self._ledger, connection.rule
        if not isinstance(outcome, GatewaysFound) or rule.category is not Category.OPPORTUNISTIC:
            return outcome
        client = connection.selectors.remote.network_address
        unsigned = ledger.settings.unsigned_delegation
        assured = assurance.filtered(outcome, client, rule, unsigned)
        if isinstance(assured, NothingFound):
            ledger.trace.drop(
                "gateway", "not_assured", destination=connection.selectors.remote,
                trust=outcome.trust.value, reason=assured.detail,
            )  # fmt: skip
        return assured

    def _conclude(self, connection: Connection, inquiry: Inquiry, now: float) -> None:
        if inquiry.peer is not None:
            self._peer_known(connection, inquiry.peer, now)
        elif inquiry.gateways is not None:
            self._gateways_known(connection, self.assured(connection, inquiry.gateways), now)

    def _begin_configured(
        self, connection: Connection, peer: ConfiguredPeer, flow: Flow, now: float
    ) -> None:
        ledger = self._ledger
        if peer.address is None:
            # Section 2.2 of the howto that RFC 4322 grew from: the variable side initiates.
            reason = "the peer's address varies: it must begin"
            ledger.fall_back(connection, ledger.settings.configured_retry, reason, now)
        elif isinstance(peer.address, str) or peer.key is None:
            what = str(peer.address)
            ledger.move(connection, Happening.LOOKUP_STARTED, what, now)
            connection.inquiry = Inquiry(flow)
            number = self._open(connection, connection.inquiry, Part.PEER)
            name = peer.address if isinstance(peer.address, str) else None
            identity = peer.expected_identity if peer.key is None else None
            ledger.do(do.StartPeerLookup(number, name, identity))
        else:
            ledger.move(connection, Happening.GATEWAY_KNOWN, f"rule {connection.rule.name!r}", now)
            self._negotiate(connection, peer.address, (peer.key,), peer)

    def _gateways_known(self, connection: Connection, outcome: GatewayOutcome, now: float) -> None:
        """The answer about an opportunistic destination (5C)."""
        ledger = self._ledger
        lifespans = ledger.settings.lifespans
        match outcome:
            case Malformed(detail=detail):
                ledger.trace.event(
                    "gateway", "malformed_record", destination=connection.selectors.remote,
                    detail=detail,
                )  # fmt: skip
                ledger.fall_back(connection, lifespans.malformed, detail, now, deny=True)
            case Unanswered(detail=detail):
                ledger.fall_back(connection, lifespans.silence, f"DNS: {detail}", now)
            case NothingFound(ttl=ttl, detail=detail):
                lifespan = lifespans.without_record(ttl)
                ledger.fall_back(connection, lifespan, detail or "no record", now)
            case GatewaysFound(trust=trust, ttl=ttl):
                connection.trust, connection.records_until = trust, now + ttl
                connection.key_failure = None
                try:
                    usable = self._presentable(connection, outcome)
                except NotOurs as why:
                    self._not_ours(connection, why, now)
                    return
                self.homes.set_out(connection, usable, now)
                if connection.candidates:
                    self._try_next_gateway(connection, now)
                else:
                    lifespan = lifespans.without_record(ttl)
                    ledger.fall_back(connection, lifespan, "no gateway that we can use", now)

    def usable(self, connection: Connection, outcome: GatewaysFound) -> list[Gateway]:
        """The gateways that we can negotiate with, in the order of the DNS."""
        try:
            return self._presentable(connection, outcome)
        except NotOurs:
            return []

    def _acceptable(self, connection: Connection, outcome: GatewayOutcome) -> list[Gateway]:
        """The same, of an answer of which nothing has been demanded yet."""
        assured = self.assured(connection, outcome)
        return self.usable(connection, assured) if isinstance(assured, GatewaysFound) else []

    def _tries(self, gateway: Gateway, rule: Rule) -> list[Gateway]:
        """What to try of a gateway: with the keys of its TXT records, and with those of its KEY.

        One that rolls its key over may have both, a record with a key and one without.  Where
        secure records are required, the keys are those that were judged, and no others: neither
        what another server says next, nor what proved a peer when some channel of its came up.
        """
        address = gateway.address
        if address is None or not self._reachable(address):
            return []
        if not self._ledger.may_look_up(address):  # one in some other network (draft section 7.2)
            return []
        tries = [replace(gateway, keyless=False)] if gateway.keys else []
        if gateway.keyless and rule.require is not Require.SECURE:
            tries.append(replace(gateway, keys=()))
        return tries

    def _presentable(self, connection: Connection, outcome: GatewaysFound) -> list[Gateway]:
        """The gateways that can verify who we are.  Raises NotOurs if there were only others."""
        client = connection.selectors.local.network_address
        presentable, refused = list[Gateway](), None
        tries = (self._tries(gateway, connection.rule) for gateway in outcome.gateways)
        for gateway in chain.from_iterable(tries):
            assert gateway.address is not None
            try:
                self._ledger.own.identity_for(client, self._local(gateway.address))
            except NotOurs as why:
                refused = why
            else:
                presentable.append(gateway)
        if refused is not None and not presentable:
            raise refused
        return presentable

    def _not_ours(self, connection: Connection, why: NotOurs, now: float) -> None:
        """Fail before we negotiate: every gateway would refuse us."""
        ledger, lifespans = self._ledger, self._ledger.settings.lifespans
        ledger.trace.drop(
            "gateway", "own_records", source=connection.selectors.local,
            destination=connection.selectors.remote, reason=str(why),
        )  # fmt: skip
        lifespan = lifespans.malformed if why.bad else lifespans.no_record
        lifespan = min(max(why.ttl, 1.0), lifespan)
        ledger.fall_back(connection, lifespan, str(why), now, deny=why.bad)

    def _peer_known(self, connection: Connection, outcome: PeerOutcome, now: float) -> None:
        """The answer about a configured peer's address or key."""
        ledger = self._ledger
        if not isinstance(outcome, PeerFound):
            ledger.fall_back(connection, 0.0, f"peer: {outcome.detail}", now)
            return
        connection.trust = outcome.trust
        peer = ledger.peers[connection.rule.name]
        addresses = outcome.addresses
        if not isinstance(peer.address, str):
            assert peer.address is not None
            addresses = (peer.address,)
        keys = outcome.keys if peer.key is None else (peer.key,)
        usable = [address for address in addresses if self._reachable(address)]
        if not usable:
            ledger.fall_back(connection, 0.0, "peer: no address that we can use", now)
            return
        ledger.move(connection, Happening.GATEWAY_KNOWN, str(usable[0]), now)
        self._negotiate(connection, usable[0], keys, peer)

    def _reachable(self, address: IPAddress) -> bool:
        own = self._ledger.settings.addresses
        return address not in own and any(a.version == address.version for a in own)

    # Negotiating with it.

    def _try_next_gateway(self, connection: Connection, now: float) -> None:  # (5D)
        gateway = connection.candidates.pop(0)
        assert gateway.address is not None
        self._ledger.rests_on(connection, gateway.trust, gateway.address)
        self._ledger.move(connection, Happening.GATEWAY_KNOWN, str(gateway.address), now)
        self.homes.begun(connection, self._negotiate_with(connection, gateway), now)

    def _negotiate_with(self, connection: Connection, gateway: Gateway) -> int:
        """Have a tunnel negotiated with a gateway that the DNS names; returns its number."""
        assert gateway.address is not None
        number = self._negotiate(connection, gateway.address, gateway.keys, None)
        connection.tunnels[number].trust = gateway.trust
        if not gateway.keys:
            self.late_keys.look_up(connection, number, gateway.address)
        return number

    def _key_not_found(self, failed: NegotiationFailed, now: float) -> None:
        self.negotiation_failed(failed, now, of_dns=True)

    def _local(self, gateway: IPAddress) -> IPAddress:
        """Our outer address towards a gateway."""
        return next(a for a in self._ledger.settings.addresses if a.version == gateway.version)

    def _negotiate(
        self,
        connection: Connection,
        gateway: IPAddress,
        keys: tuple[peers.PublicKey, ...],
        peer: ConfiguredPeer | None,
    ) -> int:
        selectors, local = connection.selectors, self._local(gateway)
        identity = None
        if peer is None:
            with suppress(NotOurs):  # its time is over since this was decided: as it was, then
                identity = self._ledger.own.identity_for(selectors.local.network_address, local)
        request = TunnelRequest(
            local,
            gateway,
            TrafficSelector(selectors.local, selectors.protocol, selectors.local_port),
            TrafficSelector(selectors.remote, selectors.protocol, selectors.remote_port),
            keys,
            peer.identity if peer else None,
            peer.encapsulation if peer else None,
            identity=identity,
        )
        return self.order(connection, request)

    def order(self, connection: Connection, request: TunnelRequest) -> int:
        """Have a tunnel of ``connection`` negotiated; returns its number."""
        number = self._next_tunnel
        self._next_tunnel += 2  # odd numbers are the responder's
        tunnel = Tunnel(number, request.remote, initiator=True, request=request)
        tunnel.trust = connection.trust
        self._ledger.connections.add_tunnel(connection, tunnel)
        self.ports.order(connection, tunnel)
        return number

    def give_up_slow_ones(self, now: float) -> None:
        """End the negotiations that have had their share of the time (RFC 4322 section 3.2.5)."""
        for number, failure in self.homes.take_cuts(now):
            self._ledger.do(do.CloseTunnel(number))
            detail = "no tunnel within its share of multihoming.patience"
            self.negotiation_failed(NegotiationFailed(number, failure, detail), now)

    def negotiation_failed(
        self, event: NegotiationFailed, now: float, *, of_dns: bool = False
    ) -> None:
        """What comes of a connection whose tunnel could not be had (RFC 4322 section 3.2.5).

        ``of_dns``: it is the DNS that failed, and the gateway has no part in it.
        """
        ledger = self._ledger
        connection = ledger.connections.of_tunnel(event.tunnel)
        if connection is None:
            ledger.proposal_over(event.tunnel)
            return
        ledger.trace.event(
            "gateway", "negotiation_failed", destination=connection.selectors.remote,
            reason=event.reason.value, detail=event.detail, tunnel=event.tunnel,
        )  # fmt: skip
        tunnel = connection.tunnels[event.tunnel]
        if tunnel.initiator:
            self.homes.failed(connection, event, now, of_dns=of_dns)
        ledger.take_down(connection, event.tunnel)
        self.ageing.successor_failed(connection, tunnel)
        behind = connection.state is State.EXPIRING and connection.expires is None
        if connection.state is not State.PENDING and not behind:
            return
        if any(not other.receives_only for other in connection.tunnels.values()):
            return
        for number in list(connection.tunnels):  # no packet of ours will ever go by these
            ledger.do(do.CloseTunnel(number))
            ledger.take_down(connection, number)
        if event.reason is not Failure.BAD_SIGNATURE:  # its KEY records would not help
            connection.candidates = [
                c for c in connection.candidates if c.keys or c.address != tunnel.gateway
            ]
        if connection.candidates:  # a failure counts only when all were tried
            self._try_next_gateway(connection, now)
            return
        failure, detail = self.homes.outcome(connection, event)
        reason = f"{failure.value}: {detail}"
        if not tunnel.initiator:  # that says nothing about what we could have: the next packet does
            if self.ageing.left_alone(connection, reason, now):
                return
            ledger.end(connection, Happening.TUNNEL_DOWN, reason, now)
            return
        lifespan, deny = self._after(failure, connection, now)
        ledger.fall_back(connection, lifespan, reason, now, deny=deny)

    def _after(self, failure: Failure, connection: Connection, now: float) -> tuple[float, bool]:
        """How long what follows is good for, and whether it is a denial whatever the rule says."""
        lifespans = self._ledger.settings.lifespans
        match connection.key_failure:
            case Malformed():
                return lifespans.malformed, True
            case Unanswered() if failure is Failure.NO_KEY:
                return lifespans.silence, False
            case NothingFound(ttl=ttl) if failure is Failure.NO_KEY:
                return lifespans.without_record(ttl), False
        return self._lifespan_after(failure, connection.records_until, now), False

    def _lifespan_after(self, reason: Failure, records_until: float | None, now: float) -> float:
        lifespans = self._ledger.settings.lifespans
        match reason:
            case Failure.BAD_SIGNATURE | Failure.WRONG_IDENTITY:
                # The key may have been changed, and the DNS may not have caught up (3.2.5).
                left = lifespans.bad_signature if records_until is None else records_until - now
                return min(max(left, 1.0), lifespans.bad_signature)
            case Failure.REFUSED | Failure.NO_PROPOSAL:
                return lifespans.refused
            case Failure.NO_KEY:
                return lifespans.no_record
            case _:
                return lifespans.silence


def _narrowed(scope: Scope, flow: Flow, selectors: Selectors) -> Scope:
    """The part of a policy scope that one pair of hosts covers: what a look-up was made for.

    A peer's tunnel may be for one protocol or port of the pair only; what it does not carry is
    another connection's.
    """
    return Scope(
        host_network(flow.source),
        host_network(flow.destination),
        selectors.protocol or scope.protocol,
        PortRange.of(selectors.local_port) if selectors.local_port else scope.source_ports,
        PortRange.of(selectors.remote_port) if selectors.remote_port else scope.destination_ports,
    )
