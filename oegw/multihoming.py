"""The desk for destinations with several gateways (draft section 9, RFC 4322 sections 3.2.5 and 8).

Three things are decided here:

- which gateway is tried next, and for how long: by precedence, those that were silent lately last
- when a gateway that was silent is tried again for the pairs that would rather go by it: in the
  background, one pair as a scout, and the others once that has a tunnel
- which of a pair's tunnels with different gateways sends: options 1, 2 and 5 of RFC 4322 section 8
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import ike.events as keying
from dnsrecords.outcome import Gateway, GatewayOutcome, GatewaysFound, Unanswered
from ike.events import Failure
from oegw import commands as do
from oegw.connection import Connection, State, Tunnel
from oegw.gateways import Choice, SilentGateways
from oegw.ledger import Ledger
from policy.flow import IPAddress
from policy.rule import Category, Require

# Our choices.
GATEWAYS_MOST = 8  # tried for one packet: a zone must not make us knock at a hundred doors
HEARD_MOST = 1024  # gateways of which we know when they last authenticated themselves
RETURNS_MOST = 16  # pairs that go back to one gateway at the same moment

# What a failure says of the destination, the most telling first (RFC 4322 section 3.2.5): a wrong
# signature is an attack or a mistake, a refusal is an answer, and silence says nothing.
_TELLING = (
    Failure.BAD_SIGNATURE,
    Failure.WRONG_IDENTITY,
    Failure.REFUSED,
    Failure.NO_PROPOSAL,
    Failure.NO_KEY,
    Failure.MALFORMED,
    Failure.SILENCE,
    Failure.LIMIT,
    Failure.CANCELLED,
)


@dataclass(frozen=True, slots=True)
class Homecoming:
    """Our question: does the destination still delegate to this gateway, which it prefers?"""

    connection: Connection
    gateway: IPAddress
    began: float  # of the return that it is part of


@dataclass(slots=True)
class _Return:
    """Pairs on their way back to one gateway.  ``under_way``: look-ups and tunnels."""

    began: float
    waiting: deque[int]  # numbers of connections
    under_way: int = 0
    scouted: bool = False  # one of them has a tunnel: it is really back


Acceptable = Callable[[Connection, GatewayOutcome], Sequence[Gateway]]
Negotiate = Callable[[Connection, Gateway], int]


class Multihoming:
    """Which of several gateways.

    ``acceptable`` says which gateways of an answer may be negotiated with for a connection, and
    ``negotiate`` does it and returns the tunnel's number.
    """

    def __init__(self, ledger: Ledger, acceptable: Acceptable, negotiate: Negotiate) -> None:
        self._ledger = ledger
        self._acceptable = acceptable
        self._negotiate = negotiate
        self._settings = ledger.settings.multihoming
        self.silent = SilentGateways()
        # When a negotiation has had its share of time, its number, and when it began.
        self._cuts: list[tuple[float, int, float]] = []
        self._heard: OrderedDict[IPAddress, float] = OrderedDict()  # who authenticated itself when
        self._returns: dict[IPAddress, _Return] = {}
        self._leading: dict[int, Homecoming] = {}  # tunnels that are to lead back

    # Which gateway is next.

    def set_out(self, connection: Connection, gateways: Sequence[Gateway], now: float) -> None:
        """These may be negotiated with, in the order of the DNS: plan in which order we do."""
        connection.homes = without_keys(gateways)
        connection.candidates = self.silent.in_order(gateways, now)[:GATEWAYS_MOST]
        connection.failure = None
        connection.patience_ends = now + self._settings.patience

    def begun(self, connection: Connection, tunnel: int, now: float) -> None:
        """A candidate is being negotiated with: it has an equal share of the time that is left."""
        left = max(connection.patience_ends - now, 0.0)
        heapq.heappush(self._cuts, (now + left / (1 + len(connection.candidates)), tunnel, now))

    def failed(
        self,
        connection: Connection,
        event: keying.NegotiationFailed,
        now: float,
        *,
        of_dns: bool = False,
    ) -> None:
        """A negotiation of ours came to nothing: remember what it says of the gateway."""
        if connection.rule.category is not Category.OPPORTUNISTIC:
            return
        connection.failure = min(
            connection.failure or (event.reason, event.detail),
            (event.reason, event.detail),
            key=lambda failure: _TELLING.index(failure[0]),
        )
        if event.reason is Failure.SILENCE and not of_dns:
            leading = self._leading.get(event.tunnel)
            since = leading.began if leading else None
            self._fell_silent(connection.tunnels[event.tunnel].gateway, now, since)

    def outcome(
        self, connection: Connection, event: keying.NegotiationFailed
    ) -> tuple[Failure, str]:
        """All were tried: the most telling of the failures, and what to say of it."""
        reason, detail = connection.failure or (event.reason, event.detail)
        tried = min(len({home.address for home in connection.homes}), GATEWAYS_MOST)
        return reason, f"{detail} ({tried} gateways tried)" if tried > 1 else detail

    # Who is silent, and who is not.

    def gateway_died(self, gateway: IPAddress, now: float) -> None:
        """Dead peer detection says so."""
        self._fell_silent(gateway, now, None)

    def _fell_silent(self, gateway: IPAddress, now: float, since: float | None) -> None:
        lifespan = self._ledger.settings.lifespans.silence
        until = self.silent.fell_silent(gateway, lifespan, now, since)
        self._ledger.lasting.fell_silent(gateway, until)
        self._returns.pop(gateway, None)
        self._ledger.trace.event("gateway", "silent", gateway=gateway)

    def heard(self, gateway: IPAddress, now: float) -> None:
        """It has authenticated itself: a silence is over early."""
        self._heard[gateway] = now
        self._heard.move_to_end(gateway)
        if len(self._heard) > HEARD_MOST:
            self._heard.popitem(last=False)
        if self.silent.heard(gateway):
            self._ledger.lasting.silence_over(gateway)
            self._ledger.trace.event("gateway", "back", gateway=gateway)
            if self._lead_back(gateway, now):
                self._returns[gateway].scouted = True
                self._more(gateway, now)

    # Time.

    def next_timer(self) -> float | None:
        moments = [self._cuts[0][0]] if self._cuts else []
        over = self.silent.next_over()
        return min([*moments, over] if over is not None else moments, default=None)

    def take_cuts(self, now: float) -> list[tuple[int, Failure]]:
        """Tunnels under negotiation that have had their time, and what kind of failure that is.

        Phase 2 unanswered is another one than silence (RFC 4322 section 3.2.5).
        """
        cuts = []
        while self._cuts and self._cuts[0][0] <= now:
            _, number, began = heapq.heappop(self._cuts)
            connection = self._ledger.connections.of_tunnel(number)
            if (
                connection is not None
                and connection.state is State.PENDING  # behind a verdict nobody waits
                and not connection.tunnels[number].agreed
            ):
                heard = self._heard.get(connection.tunnels[number].gateway, began - 1.0) >= began
                cuts.append((number, Failure.REFUSED if heard else Failure.SILENCE))
        return cuts

    def handle_timer(self, now: float) -> None:
        """Silences that are over: is somebody there again?"""
        for gateway in self.silent.take_over(now):
            self._ledger.lasting.silence_over(gateway)
            self._lead_back(gateway, now)

    # Back to a gateway.

    def _lead_back(self, gateway: IPAddress, now: float) -> bool:
        """Begin to lead back the pairs that prefer ``gateway``; returns whether there are any."""
        if gateway in self._returns:
            return True
        waiting = deque(c.number for c in self._ledger.connections if prefers(c, gateway))
        if not waiting:
            return False
        self._returns[gateway] = _Return(now, waiting)
        self._more(gateway, now)
        return True

    def _more(self, gateway: IPAddress, now: float) -> None:
        """Ask about further pairs, as many as may be under way."""
        returning = self._returns.get(gateway)
        if returning is None:
            return
        most = RETURNS_MOST if returning.scouted else 1
        while returning.waiting and returning.under_way < most:
            connection = self._ledger.connections.get(returning.waiting.popleft())
            if connection is None or not prefers(connection, gateway):
                continue
            returning.under_way += 1
            asker = Homecoming(connection, gateway, returning.began)
            lookup = self._ledger.start_lookup(asker)
            destination = connection.selectors.remote.network_address
            with_keys = connection.rule.require is Require.SECURE
            self._ledger.do(do.StartLookup(lookup, destination, with_keys=with_keys, ours=True))
        if not returning.under_way:
            del self._returns[gateway]

    def homes_known(self, asker: Homecoming, outcome: GatewayOutcome, now: float) -> None:
        """What the destination's records say today: they may have changed since the first time."""
        connection, gateway = asker.connection, asker.gateway
        exists = self._ledger.connections.get(connection.number) is connection
        if isinstance(outcome, GatewaysFound) and exists:
            acceptable = self._acceptable(connection, outcome)
            connection.homes = without_keys(acceptable)
            home = next((g for g in acceptable if g.address == gateway), None)
            if home is not None and prefers(connection, gateway):
                tunnel = self._negotiate(connection, home)
                self._leading[tunnel] = asker
                return
        returning = self._returns.get(gateway)
        if isinstance(outcome, Unanswered) and returning and not returning.scouted:
            self._fell_silent(gateway, now, asker.began)  # nothing is known better than before
            return
        self._one_done(asker, now)

    def leads_back(self, tunnel: int) -> bool:
        """Whether it is under negotiation in the background: no hope to build on."""
        return tunnel in self._leading

    def over(self, tunnel: int, now: float, *, up: bool = False) -> None:
        """A tunnel is up, or nothing comes of it: was it to lead back to a gateway?"""
        asker = self._leading.pop(tunnel, None)
        if asker is not None:
            self._one_done(asker, now, up=up)

    def _one_done(self, asker: Homecoming, now: float, *, up: bool = False) -> None:
        returning = self._returns.get(asker.gateway)
        if returning is not None and returning.began == asker.began:
            returning.under_way -= 1
            returning.scouted = returning.scouted or up
            self._more(asker.gateway, now)

    # Which tunnel sends.

    def keyed(self, connection: Connection, tunnel: Tunnel, now: float) -> None:
        """A tunnel is up: by the newest we send (option 5), be it by a gateway known or a new one.

        But a successor that we made ourselves takes the place of the one before it, no other's.
        """
        sending = [t for t in connection.tunnels.values() if t.up and t.carries and t is not tunnel]
        before = sending[-1] if sending else None
        connection.sends_by(tunnel)
        replaced = tunnel.request.replaces if tunnel.request else None
        if (
            tunnel.initiator
            and replaced is not None
            and before is not None
            and before.number != replaced
            and before.peer != tunnel.peer
        ):
            self._prefer(connection, before)
        self.over(tunnel.number, now, up=True)

    def idle(self, connection: Connection, tunnel: Tunnel, now: float) -> bool:
        """Whether another gateway's tunnel sends, and nothing comes by this one: let it end.

        In turns (option 1), each sends.
        """
        live, heard = connection.live_tunnel, tunnel.traffic[0]
        return (
            self._settings.choice is not Choice.ROUND_ROBIN
            and live is not None
            and live.peer != tunnel.peer
            and (heard is None or now - heard > self._ledger.settings.lifespans.in_use)
        )

    def usage_reported(self) -> None:
        """The counters were read: options 1 and 2 choose anew."""
        if self._settings.choice is Choice.REKEYED:
            return
        for connection in self._ledger.connections:
            rivals = _newest_by_peer(connection.tunnels.values())
            if len(rivals) > 1:
                self._choose(connection, rivals)

    def _choose(self, connection: Connection, rivals: list[Tunnel]) -> None:
        """``rivals``: the tunnel to each gateway, the one that sends now last."""
        if self._settings.choice is Choice.ROUND_ROBIN:
            sender = rivals[-1].number, rivals[-1].traffic[1]
            if sender != connection.turned:  # it has sent something, so it was its turn
                connection.turned = rivals[0].number, rivals[0].traffic[1]
                self._prefer(connection, rivals[0])
            return
        heard = {rival.peer: float("-inf") for rival in rivals}
        for tunnel in connection.tunnels.values():  # one that is being replaced receives, too
            if tunnel.peer in heard and tunnel.traffic[0] is not None:
                heard[tunnel.peer] = max(heard[tunnel.peer], tunnel.traffic[0])
        latest = max(reversed(rivals), key=lambda rival: heard[rival.peer])
        if latest is not rivals[-1]:
            self._prefer(connection, latest)

    def _prefer(self, connection: Connection, tunnel: Tunnel) -> None:
        assert tunnel.outbound is not None
        connection.sends_by(tunnel)
        self._ledger.do(do.PreferSa(tunnel.number, tunnel.outbound))
        self._ledger.seal_by_sender(connection)


def _newest_by_peer(tunnels: Iterable[Tunnel]) -> list[Tunnel]:
    """The newest tunnel that sends to each peer, in the order in which they were preferred."""
    newest: dict[keying.Identity, Tunnel] = {}
    for tunnel in tunnels:
        if tunnel.up and tunnel.carries and tunnel.outbound is not None:
            newest.pop(tunnel.peer, None)
            newest[tunnel.peer] = tunnel
    return list(newest.values())


def without_keys(gateways: Iterable[Gateway]) -> tuple[Gateway, ...]:
    """What of gateways is kept as long as the connection: a stranger may name many, with keys."""
    return tuple(replace(gateway, keys=()) for gateway in gateways)


def prefers(connection: Connection, gateway: IPAddress) -> bool:
    """Whether a pair that is carried by another gateway would rather be by this one."""
    live = connection.live_tunnel
    if (
        connection.standing is not State.KEYED
        or connection.rule.category is not Category.OPPORTUNISTIC
        or not connection.rule.initiate
        or live is None
        or any(t.gateway == gateway and not t.up for t in connection.tunnels.values())
    ):
        return False
    precedences = {home.address: home.precedence for home in connection.homes}
    if gateway not in precedences or live.gateway == gateway:
        return False
    return precedences[gateway] < precedences.get(live.gateway, 1 << 16)
