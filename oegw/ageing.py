"""The desk of time: what has stood for its lifespan is looked at again (RFC 4322 3.2.7 and 3.4).

A verdict of CLEAR or DENIED that is over is asked about only if its pair is in use.  The next
packet shows that: it goes at once by the verdict that stood, which is put back for a while, and the
inquiry runs behind it.  A tunnel is looked at after a minute and then now and then, and closed if
nothing went through it; before it is renewed, the DNS is asked whether it is still to be had.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import rsa

from dnsrecords.outcome import (
    Gateway,
    GatewaysFound,
    KeysFound,
    Malformed,
    Unanswered,
)
from dnsrecords.trust import weakest
from ike.events import Identity, TunnelRequest
from oegw import assurance
from oegw import commands as do
from oegw import peer as peers
from oegw.connection import Connection, Happening, State, Tunnel
from oegw.datapath.interface import SaKey, Usage
from oegw.events import PacketTrapped
from oegw.inquiry import Inquiry, Part
from oegw.ledger import Ledger, verdict_of
from policy.flow import Flow
from policy.rule import Category, Scope

if TYPE_CHECKING:
    from oegw.initiator import Initiator

# Our choices, seconds.
BEHIND = 60.0  # that a verdict is put back for while an inquiry, and a negotiation, run behind it
POSTPONED = 5.0  # the same while there is no budget for an inquiry


class Ageing:
    """Verdicts and tunnels that are not new any more."""

    def __init__(self, ledger: Ledger, initiator: Initiator) -> None:
        self._ledger = ledger
        self._initiator = initiator
        self._looks: list[tuple[float, int]] = []  # when to look at which connection's tunnel
        self._looking: set[int] = set()  # those that wait for the datapath's counters

    # Time.

    def next_timer(self) -> float | None:
        return self._looks[0][0] if self._looks else None

    def handle_timer(self, now: float) -> None:
        for connection in self._ledger.due(now):
            self._lifespan_over(connection, now)
        waited = bool(self._looking)
        while self._looks and self._looks[0][0] <= now:
            self._looking.add(heapq.heappop(self._looks)[1])
        if self._looking and not waited:
            self._ledger.do(do.QueryUsage())

    # Verdicts.

    def _lifespan_over(self, connection: Connection, now: float) -> None:
        """CLEAR and DENIED begin to expire; what has begun to, and was not used, is forgotten."""
        ledger = self._ledger
        if connection.state is State.EXPIRING:
            ledger.end(connection, Happening.UNUSED, "not used since its lifespan was over", now)
        elif connection.rule.category is Category.CONFIGURED:
            ledger.end(connection, Happening.RETRY_DUE, "to be tried again", now)
        else:
            ledger.move(connection, Happening.LIFESPAN_OVER, "lifespan over", now)
            for scope in connection.scopes:
                ledger.do(do.RemovePolicy(scope))
            connection.scopes.clear()
            ledger.expire_at(connection, now + ledger.settings.lifespans.unused)

    def in_use(
        self, connection: Connection, event: PacketTrapped, scope: Scope | None, now: float
    ) -> None:
        """A packet of a verdict that is over: it goes as it did, and the DNS is asked behind it.

        ``scope`` is None for a packet whose verdict must not be cached.
        """
        ledger, verdict = self._ledger, verdict_of(connection)
        while_asking = BEHIND
        if connection.expires is not None and not self._ask_again(connection, event.flow, now):
            while_asking = POSTPONED
            ledger.expire_at(connection, now + ledger.settings.lifespans.unused)
        # Where the answer is known without a question, it is in place already.
        if scope is not None and not ledger.remember(connection, scope):
            scope = None
        if scope is not None and connection.state is State.EXPIRING:
            ledger.do(do.InstallPolicy(scope, verdict, while_asking))
        elif scope is not None:
            ledger.install(connection, scope, verdict_of(connection), now)
        ledger.let_go((event.packet,), verdict, "denied")

    def _ask_again(self, connection: Connection, flow: Flow, now: float) -> bool:
        """Whether there was budget for it."""
        ledger = self._ledger
        refusal = ledger.refuses_setup(flow.source, now)
        if refusal is not None:
            ledger.trace.drop("gateway", "renewal_postponed", detail=refusal)
            return False
        ledger.expire_at(connection, None)
        self._initiator.begin(connection, flow, now)
        return True

    def left_alone(self, connection: Connection, reason: str, now: float) -> bool:
        """A tunnel that was to take the place of a verdict came to nothing, not by our failure.

        Says whether that is so: then the verdict stands for as long as after a silence.
        """
        if connection.state is not State.EXPIRING:
            return False
        if connection.expires is None and connection.inquiry is None and not connection.tunnels:
            self._keep(connection, reason, now)
        return True

    def _keep(self, connection: Connection, reason: str, now: float) -> None:
        denied = connection.standing is State.DENIED
        silence = self._ledger.settings.lifespans.silence
        self._ledger.fall_back(connection, silence, reason, now, deny=denied)

    # Answers.

    def leaves_to_initiator(self, connection: Connection, inquiry: Inquiry, now: float) -> bool:
        """All answers of an inquiry are in.  Whether the usual conclusion is to be drawn.

        For a verdict that expires it is the usual one, unless the DNS says nothing: no answer is no
        reason to change anything.
        """
        if connection.state is State.EXPIRING and isinstance(inquiry.gateways, Unanswered):
            self._keep(connection, f"DNS: {inquiry.gateways.detail}", now)
            return False
        if connection.renewing is not None:
            number, connection.renewing = connection.renewing, None
            tunnel = connection.tunnels.get(number)
            if connection.state is State.KEYED and tunnel is not None and tunnel.request:
                self._renewal_known(connection, number, tunnel.request, inquiry, now)
            return False
        return connection.state in (State.POTENTIAL, State.EXPIRING)

    # Renewal.

    def renew(self, connection: Connection, tunnel: Tunnel, now: float) -> None:
        """A tunnel's life is nearly over: is its gateway still the one that the DNS names?"""
        ledger, request = self._ledger, tunnel.request
        if request is None or connection.inquiry is not None:
            return
        remote = connection.selectors.remote.network_address
        if connection.rule.category is Category.CONFIGURED or not ledger.may_look_up(remote):
            self._initiator.order(connection, replace(request, replaces=tunnel.number))
            return
        selectors = connection.selectors
        flow = Flow(selectors.local.network_address, remote, selectors.protocol)
        connection.renewing = tunnel.number
        self._initiator.inquire(connection, flow, now)
        inquiry = connection.inquiry
        identity = _identity(request)
        if inquiry is not None and peers.speaks_for_itself(identity, request.remote_selector):
            number = ledger.start_lookup(connection)  # a host needs no delegation, but a key
            inquiry.open[number] = Part.KEYS
            ours = connection.beginner is None
            ledger.do(do.StartKeyLookup(number, identity, ours=ours))

    def _renewal_known(
        self,
        connection: Connection,
        number: int,
        request: TunnelRequest,
        inquiry: Inquiry,
        now: float,
    ) -> None:
        """Renew with what the DNS says now; until its end the tunnel stays as it is in any case."""
        ledger, outcome = self._ledger, inquiry.gateways
        if outcome is not None:
            outcome = self._initiator.assured(connection, outcome)
        successor = replace(request, replaces=number)
        if isinstance(outcome, Malformed):
            self._not_renewed(connection, number, outcome.detail)
            return
        keys: list[rsa.RSAPublicKey] = []
        named: list[Gateway] = []
        if isinstance(outcome, GatewaysFound):
            connection.trust, connection.records_until = outcome.trust, now + outcome.ttl
            named = _still_named(outcome.gateways, request)
            keys += (key for gateway in named for key in gateway.keys)
        if isinstance(inquiry.keys, KeysFound) and assurance.is_enough(
            connection.rule, inquiry.keys.trust
        ):
            keys += (k for k in inquiry.keys.keys if not any(peers.same_key(k, o) for o in keys))
            known = (connection.trust,) if named and connection.trust else ()
            connection.trust = weakest(inquiry.keys.trust, *known)
        if keys:
            self._initiator.order(connection, replace(successor, peer_keys=tuple(keys)))
        elif any(gateway.keyless or not gateway.keys for gateway in named):
            # Its KEY records say.
            self._initiator.order(connection, replace(successor, peer_keys=()))
        elif isinstance(outcome, Unanswered) or isinstance(inquiry.keys, Unanswered):
            ledger.trace.event(
                "tunnel", "renewed_unasked", tunnel=number, detail=f"DNS: {outcome or inquiry.keys}"
            )
            self._initiator.order(connection, successor)
        elif isinstance(outcome, GatewaysFound):
            usable = self._initiator.usable(connection, outcome)
            self._initiator.homes.set_out(connection, usable, now)
            if not self._try_other(connection, number, request):
                self._not_renewed(connection, number, "no gateway that we can use")
        else:
            self._not_renewed(connection, number, outcome.detail if outcome else "not asked")

    def _try_other(self, connection: Connection, number: int, request: TunnelRequest) -> bool:
        """Negotiate with the next gateway that the DNS names instead of the tunnel's own."""
        if not connection.candidates:
            return False
        gateway = connection.candidates.pop(0)
        assert gateway.address is not None
        other = replace(
            request,
            remote=gateway.address,
            peer_keys=gateway.keys,
            peer_identity=None,
            replaces=number,
        )
        self._ledger.trace.event(
            "tunnel", "gateway_changed", tunnel=number, gateway=gateway.address,
            destination=connection.selectors.remote,
        )  # fmt: skip
        tunnel = self._initiator.order(connection, other)
        connection.tunnels[tunnel].trust = gateway.trust
        if not gateway.keys:
            self._initiator.late_keys.look_up(connection, tunnel, gateway.address)
        return True

    def successor_failed(self, connection: Connection, tunnel: Tunnel) -> None:
        """The keying core asks again later; but of several other gateways, the next may do."""
        request = tunnel.request
        if connection.state is State.KEYED and request is not None and request.replaces is not None:
            former = connection.tunnels.get(request.replaces)
            if former is not None and former.gateway != tunnel.gateway:
                self._try_other(connection, request.replaces, request)

    def not_renewed(self, connection: Connection, reason: str) -> None:
        """Somebody else has decided that the tunnel which is to be renewed ends with its life."""
        if connection.renewing is not None:
            number, connection.renewing = connection.renewing, None
            self._not_renewed(connection, number, reason)

    def _not_renewed(self, connection: Connection, number: int, reason: str) -> None:
        self._ledger.trace.event(
            "tunnel", "not_renewed", tunnel=number, source=connection.selectors.local,
            destination=connection.selectors.remote, reason=reason,
        )  # fmt: skip

    # Use.

    def tunnel_up(self, connection: Connection, now: float) -> None:
        """The first look at an opportunistic tunnel comes soon: most flows are short."""
        if connection.used is not None or connection.rule.category is not Category.OPPORTUNISTIC:
            return  # a successor, or none of those that age
        connection.used = now
        self._look_in(connection.number, self._ledger.settings.lifespans.first_look, now)

    def _look_in(self, number: int, seconds: float, now: float) -> None:
        heapq.heappush(self._looks, (now + seconds, number))

    def usage_known(self, usage: Mapping[SaKey, Usage], now: float) -> None:
        """The counters are read: judge the tunnels that are due."""
        looking, self._looking = self._looking, set()
        for number in looking:
            connection = self._ledger.connections.get(number)
            if connection is None:
                continue
            if connection.state is not State.KEYED:  # between two tunnels
                self._look_in(number, self._ledger.settings.lifespans.first_look, now)
                continue
            self._look(connection, usage, now)

    def _look(self, connection: Connection, usage: Mapping[SaKey, Usage], now: float) -> None:
        """RFC 4322 section 3.4.1; its 3.2.7 wants both directions: some flows have but one."""
        ledger, lifespans = self._ledger, self._ledger.settings.lifespans
        assert connection.used is not None  # since the tunnel came up
        idle = now - connection.used
        ledger.move(connection, Happening.LOOK_DUE, "is it used?", now)
        if idle <= lifespans.in_use:
            ledger.move(connection, Happening.STILL_USED, f"used {idle:.0f} s ago", now)
            self._look_in(connection.number, lifespans.look, now)
            return
        tunnels = connection.tunnels.values()
        received, sent = (
            [usage[key] for key in keys if key is not None and key in usage]
            for keys in ([t.inbound for t in tunnels], [t.outbound for t in tunnels])
        )
        ledger.trace.event(
            "tunnel", "unused", source=connection.selectors.local,
            destination=connection.selectors.remote, seconds=round(idle, 1),
            packets_in=sum(u.packets for u in received), bytes_in=sum(u.bytes for u in received),
            packets_out=sum(u.packets for u in sent), bytes_out=sum(u.bytes for u in sent),
        )  # fmt: skip
        ledger.end(connection, Happening.UNUSED, f"unused for {idle:.0f} s", now)


def _identity(request: TunnelRequest) -> Identity:
    return request.remote if request.peer_identity is None else request.peer_identity


def _still_named(gateways: tuple[Gateway, ...], request: TunnelRequest) -> list[Gateway]:
    """The far client's delegations that still name the gateway of ``request``."""
    identity = _identity(request)
    if isinstance(identity, str):
        return [g for g in gateways if g.fqdn is not None and g.fqdn.lower() == identity.lower()]
    return [g for g in gateways if g.address == identity]
