"""One tunnel in time: its quick mode with retransmission and duplicates, then its life.

The order of events is the same on both sides in one respect: an inbound SA stands
before the peer may send on it.  The responder's message 2 and the initiator's
message 3 wait for ``confirm_inbound`` (RFC 4322 section 11.2, 5O).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from ike.alarms import Alarm
from ike.constants import DECISION_LONGEST, MOVES_MOST, REUSE_TRIES
from ike.errors import (
    Dropped,
    DuplicateMessage,
    ExchangeRefused,
    NoProposalChosen,
    UnexpectedMessage,
)
from ike.events import (
    ContactBegun,
    ContactEnded,
    EspSa,
    Failure,
    InboundSaEstablished,
    NegotiationFailed,
    OutboundSaEstablished,
    TransportAddress,
    TunnelClosed,
    TunnelExpiring,
    TunnelPreferred,
    TunnelProposed,
    TunnelRequest,
)
from ike.header import Header
from ike.registry import NotifyType
from ike.retransmit import AnsweredMessages, Retransmission
from ike.station import Station
from ike.v1.directory import Directory
from ike.v1.nat import Path
from ike.v1.quick_mode import Ends, QuickModeInitiator, QuickModeResponder
from ike.v1.rekey import Margin, grace
from ike.v1.succession import settle
from ike.v1.transitions import LIFE, LifeState, LifeStep, Progress, QuickModeState

if TYPE_CHECKING:
    from ike.v1.main_mode import Peer
    from ike.v1.session import Session

LIFETIME_OVER = "lifetime over"  # at both ends at the same time, so the peer knows


class Tunnel:
    """A pair of ESP SAs, from the first thought of it to its end."""

    def __init__(
        self,
        station: Station,
        directory: Directory,
        number: int,
        ends: Ends,
        remote: TransportAddress,
        session: Session,
        initiator: bool,
        request: TunnelRequest | None = None,
    ) -> None:
        """``session``: the channel; it may change.  ``request``: what was ordered, if by us."""
        self.number = number
        self.ends = ends
        self.selectors = (ends.local_selector, ends.remote_selector)
        self.remote = remote
        self.session: Session | None = session  # where its Delete is said
        self.keyed_on = session  # where its quick mode is or was
        self.initiator = initiator
        self.request = request
        self.replaces = request.replaces if request else None
        self.begun_at = self.established_at = 0.0
        self.lifetime = 0
        self.message_id: int | None = None
        self.inbound_spi = b""
        self.outbound_spi = b""
        self.closed = False
        self.path: Path | None = None  # of ESP in UDP, and None without
        self.peer: Peer | None = None  # once its quick mode has begun
        self.follows = False  # whether the peer is behind a NAT and we are not
        self._station = station
        self._directory = directory
        self._exchange: QuickModeInitiator | QuickModeResponder | None = None
        self._associations: tuple[EspSa, EspSa] | None = None
        self._answered = AnsweredMessages()
        self._request = b""  # the message that our reply will answer
        self._retransmission = Retransmission(station.configuration, station.random_octets)
        self._sent = 0  # how often our request went out
        self._reused = False  # whether the channel was there before
        self._elsewhere: Session | None = None  # the channel that we wait for instead
        self._moves = 0
        self._life = Progress(LIFE, LifeState.NEGOTIATED)
        self._redundant = False
        self._margin: Margin | None = None
        self._alarm: Alarm | None = None
        self._life_alarm: Alarm | None = None  # for a successor, or for retirement
        directory.add_tunnel(self)

    @property
    def state(self) -> QuickModeState:
        return self._exchange.state if self._exchange else QuickModeState.IDLE

    @property
    def established(self) -> bool:
        return self.state is QuickModeState.ESTABLISHED

    @property
    def life(self) -> LifeState:
        return self._life.state

    @property
    def nonces(self) -> tuple[bytes, bytes]:
        return self._exchange.nonces if self._exchange else (b"", b"")

    def _set_alarm(self, when: float) -> None:
        self._silence_alarm()
        self._alarm = self._station.alarms.set(when, self._alarm_rang)

    def _silence_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()

    def _alarm_rang(self, now: float) -> None:
        if self.established:
            self.close(now, LIFETIME_OVER)
        elif self.state in (QuickModeState.AWAIT_DECISION, QuickModeState.AWAIT_INBOUND):
            self.fail(now, Failure.CANCELLED, f"no answer from our side: {self.state.value}")
        elif self._elsewhere is None and self._channel_in_doubt():
            # Perhaps the peer has lost the channel.  A late answer on it still counts.
            self.keyed_on.silent = True
            self._set_alarm(now)
            self.keyed_on.negotiate_elsewhere(now, self)
        elif not self._retransmission.exhausted:
            self._send_request(now, retransmission=True)
        elif self._elsewhere is None:
            if self.initiator:
                self.keyed_on.silent = True
            self.fail(now, Failure.REFUSED, f"no answer while we {self.state.value}")

    def _channel_in_doubt(self) -> bool:
        return self.may_move and self._reused and self._sent >= REUSE_TRIES

    @property
    def may_move(self) -> bool:
        """Whether it can begin again on another channel, the peer not having answered."""
        return (
            self.request is not None
            and self.state is QuickModeState.AWAIT_QM2
            and self._moves < MOVES_MOST
        )

    def _send_request(self, now: float, retransmission: bool) -> None:
        """Send the message that waits for an answer: ours is 1 or 2."""
        self.keyed_on.send("QM1" if self.initiator else "QM2", self._request, retransmission)
        self._sent += 1
        self._set_alarm(self._retransmission.sent(now))

    # The exchange.

    def wait_for(self, session: Session) -> None:
        """Begin again on this channel when it is up, unless an answer comes before."""
        if self._exchange is not None:
            self._elsewhere = session

    def channel_closed(self, now: float) -> None:
        """The one that it was begun on is no more, and the peer has not answered yet."""
        self._silence_alarm()
        if self._elsewhere is None:
            self.keyed_on.negotiate_elsewhere(now, self)

    def begin_on(self, now: float, session: Session, reused: bool = False) -> None:
        """We are initiator, and the channel is up; ``reused``: and was before."""
        end = session.end
        assert end is not None
        if self._exchange is not None:
            self._leave_exchange(now)
        self.session = self.keyed_on = session
        self.begun_at = now
        self._reused = reused
        message_id = session.exchange_begun(self)
        self.message_id = message_id
        self.inbound_spi = self._station.fresh_spi()
        self._goes_where(session)
        secret = self._station.configuration.pfs != "off"
        exchange = QuickModeInitiator(
            self._station,
            end.keys,
            end.block,
            message_id,
            end.choice.suite.group if secret else None,
            self.ends,
            self.inbound_spi,
            self.path,
            self.request is not None and self.request.sst and session.encrypts_ports(now),
        )
        self._exchange = exchange
        self._request = exchange.message_1
        self._send_request(now, retransmission=False)

    def _leave_exchange(self, now: float) -> None:
        """Nothing came of it; all begins again."""
        assert self._exchange is not None
        self._moves += 1
        self.keyed_on.tunnel_ended(self, now)
        self._exchange.close()
        self._station.free_spi(self.inbound_spi)
        self._retransmission = Retransmission(
            self._station.configuration, self._station.random_octets
        )
        self._sent = 0
        self._elsewhere = None

    def _goes_where(self, session: Session) -> None:
        """The channel may have moved since this tunnel was thought of."""
        assert session.end is not None
        self.remote = session.remote
        self.ends = replace(self.ends, remote=session.remote.address)
        self.path = session.esp_path
        self.peer = session.end.peer
        self.follows = session.end.nat.follows

    @property
    def shown(self) -> bool:
        """Whether the shell knows an SA of this tunnel."""
        return self._associations is not None

    def moved(self, path: Path) -> None:
        """The peer is elsewhere: ``remote`` says it already."""
        self.path = path
        self.ends = replace(self.ends, remote=path.remote.address)
        if self._exchange is not None:
            self._exchange.moved(self.ends, path)
        if self._associations is not None:
            inbound, outbound = self._associations
            self._associations = (
                replace(inbound, source=path.remote.address, ports=path.inbound_ports),
                replace(outbound, destination=path.remote.address, ports=path.outbound_ports),
            )

    def proposed(self, now: float, exchange: QuickModeResponder, message: bytes) -> None:
        """We are responder, and message 1 was good."""
        session = self.keyed_on
        assert session.end is not None
        self.begun_at = now
        self.message_id = exchange.message_id
        self._goes_where(session)
        self._exchange = exchange
        self._request = message
        self.outbound_spi = exchange.peer_spi
        session.received("QM1", len(message))
        self._set_alarm(now + DECISION_LONGEST)
        self._station.emit(
            TunnelProposed(
                self.number,
                session.number,
                session.end.identity,
                session.end.key,
                session.local,
                session.remote,
                self.ends.local_selector,
                self.ends.remote_selector,
                exchange.offers_sst,
                session.end.nat.there,
            )
        )

    def accept(self, now: float, sst: bool = False) -> None:
        """The shell's yes; ``sst``: with port encryption.

        Raises ``UnexpectedMessage`` if it was not asked.
        """
        exchange = self._exchange
        if not isinstance(exchange, QuickModeResponder):
            raise UnexpectedMessage("only a responder accepts")
        if exchange.state is not QuickModeState.AWAIT_DECISION:
            raise UnexpectedMessage("not asked")
        self.inbound_spi = self._station.fresh_spi()
        try:
            self._associations = exchange.accept(self.inbound_spi, sst)
        except NoProposalChosen as error:
            self.refuse(now, NotifyType.NO_PROPOSAL_CHOSEN, str(error))
            return
        except Dropped as error:  # the peer's public value, refused by the library
            self.refuse(now, NotifyType.INVALID_KEY_INFORMATION, str(error))
            return
        self.outbound_spi = exchange.peer_spi
        self._inbound_ready(now, self._associations[0], exchange.port_key)

    def _inbound_ready(self, now: float, inbound: EspSa, port_key: bytes | None) -> None:
        assert self.keyed_on.end is not None
        nat = self.keyed_on.end.nat
        translated = nat.here or (nat.there and self.keyed_on.initiator)
        self._set_alarm(now + DECISION_LONGEST)
        self._station.emit(
            InboundSaEstablished(self.number, inbound, port_key, translated, nat.reason)
        )

    def refuse(self, now: float, notify: NotifyType, reason: str) -> None:
        """The shell's no."""
        if self.state is not QuickModeState.AWAIT_DECISION:
            raise UnexpectedMessage("not asked")
        answer = self.keyed_on.notify_refusal(notify, self.outbound_spi)
        self.keyed_on.refused(self.message_id, self._request, answer)
        self.fail(now, Failure.REFUSED, reason, tell=False)

    def confirm_inbound(self, now: float) -> None:
        """The inbound SA stands; raises ``UnexpectedMessage`` if it was not asked for."""
        exchange = self._exchange
        session = self.keyed_on
        if exchange is None or exchange.state is not QuickModeState.AWAIT_INBOUND:
            raise UnexpectedMessage("no inbound SA waits")
        if isinstance(exchange, QuickModeInitiator):
            closing = exchange.closing()
            self._answered.remember(self._request, "QM3", closing)
            session.send("QM3", closing)
            self._established(now)
        else:
            reply = exchange.reply()
            self._answered.remember(self._request, "QM2", reply)
            self._request = reply
            self._send_request(now, retransmission=False)

    def receive(self, now: float, header: Header, message: bytes) -> None:
        """A quick mode message of this exchange; raises ``Dropped``."""
        if self._answered.knows(message):
            again = self._answered.again(message)
            if again is not None:
                self.keyed_on.send(*again, retransmission=True)
                self._message_3_is_late(now)
            raise DuplicateMessage("answered before")
        if isinstance(self._exchange, QuickModeInitiator):
            self._receive_2(now, self._exchange, header, message)
        elif self._exchange is not None:
            if message == self._request:
                raise DuplicateMessage("message 1 again while we decide")
            self._exchange.take_3(header, message)
            self._received("QM3", message)
            self._answered.remember(message, "", b"")
            self._established(now)

    def _receive_2(
        self, now: float, exchange: QuickModeInitiator, header: Header, message: bytes
    ) -> None:
        if message == self._request:
            raise DuplicateMessage("message 2 again, or our own")
        try:
            self._associations = exchange.take_2(header, message)
        except ExchangeRefused as error:
            self.keyed_on.notify_refusal(error.notify, self.inbound_spi)
            self.fail(now, error.failure, str(error), tell=False)
            raise
        self._received("QM2", message)
        if self._elsewhere is not None:
            self._elsewhere.tunnel_ended(self, now)
            self._elsewhere = None
        self._request = message
        self.outbound_spi = self._associations[1].spi.to_bytes(4, "big")
        self._inbound_ready(now, self._associations[0], exchange.port_key)

    def _received(self, name: str, message: bytes) -> None:
        self.keyed_on.received(name, len(message))

    # The life.

    def _established(self, now: float) -> None:
        assert self._associations is not None
        outbound = self._associations[1]
        peer = self.keyed_on.peer
        assert peer is not None
        assert self.keyed_on.end is not None
        self.peer = peer
        self.established_at = now
        self.lifetime = outbound.lifetime_seconds
        self._life.advance(LifeStep.ESTABLISHED)
        self._margin = Margin(now, self.lifetime, self.initiator, self._station.random_octets)
        self._set_alarm(now + self.lifetime)
        self._set_life_alarm(self._margin.first, self.expiring)
        if self.path is not None and self.keyed_on.end.nat.here:
            self._directory.keepalives.keep_open(now, self.path, self)
        self._station.emit(OutboundSaEstablished(self.number, outbound))
        if self._directory.contacts.tunnel_begun(peer[0]):
            self._station.emit(ContactBegun(peer[0]))
        self._directory.tunnel_established(self, peer)
        for other in self._directory.beside(self):
            kept = settle(now, other, self)
            if kept is other:
                self._station.emit(TunnelPreferred(other.number))

    def traffic_seen(self, now: float, received: float | None, sent: float | None) -> None:
        """When the last packets came and went."""
        channel = self.channel if self.established else None
        if channel is not None and channel.liveness is not None:
            channel.liveness.traffic_seen(now, received, sent)

    def _set_life_alarm(self, when: float, ring: Callable[[float], None]) -> None:
        self._silence_life_alarm()
        self._life_alarm = self._station.alarms.set(when, ring)

    def _silence_life_alarm(self) -> None:
        if self._life_alarm is not None:
            self._life_alarm.cancel()
            self._life_alarm = None

    def expiring(self, now: float) -> None:
        """The margin has begun, or a soft limit was reached: ask for a successor."""
        if self._margin is None or self.life is LifeState.RETIRING:
            return
        if self.life is LifeState.KEYED:
            self._life.advance(LifeStep.SUCCESSOR_WANTED)
        if not self._directory.successor_under_way(self):
            self._station.emit(TunnelExpiring(self.number))
        self._set_life_alarm(self._margin.asked(now), self.expiring)

    def succeeded(self, now: float, wait: float | None, redundant: bool = False) -> None:
        """Another one is up in its place: close it after ``wait`` seconds, None: never.

        It receives until then, for packets may be under way on it.
        """
        if self.life is not LifeState.RETIRING:
            self._life.advance(LifeStep.SUCCEEDED)
            self._silence_life_alarm()
        self._redundant = redundant
        if wait is None or (self._life_alarm is not None and self._life_alarm.when <= now + wait):
            return
        self._set_life_alarm(now + wait, self._retire)

    def _retire(self, now: float) -> None:
        self._life_alarm = None
        heir = self._heir()
        if heir is None:
            self.successor_lost(now)
            return
        self.close(now, "redundant" if self._redundant else "replaced")
        if self._redundant and heir.keyed_on is not self.keyed_on:
            self.keyed_on.superfluous_now(now)

    def _heir(self) -> Tunnel | None:
        for other in self._directory.beside(self):
            if other.life is not LifeState.RETIRING:
                return other
        return None

    def successor_lost(self, now: float) -> None:
        """It ended: if it was the only one, this one lives on and wants another."""
        if self.life is not LifeState.RETIRING or self._heir() is not None:
            return
        assert self._margin is not None
        self._life.advance(LifeStep.SUCCESSOR_LOST)
        self._redundant = False
        self._set_life_alarm(max(now, self._margin.first), self.expiring)

    def _message_3_is_late(self, now: float) -> None:
        """The peer sends on the old tunnel still, so it must not retire yet.

        It asks at intervals that double: if it asked after 1, it asks or gives up at 3.
        """
        if self.established:
            wait = 2.5 * (now - self.established_at)
            for older in self._directory.beside(self):
                older.wait_longer(now, wait)

    def wait_longer(self, now: float, wait: float) -> None:
        if self.life is LifeState.RETIRING and self._life_alarm is not None:
            when = max(self._life_alarm.when, now + max(wait, grace(self.lifetime)))
            self._set_life_alarm(when, self._retire)

    def fail(self, now: float, failure: Failure, detail: str, tell: bool = True) -> None:
        """End before the tunnel was up."""
        if tell and self._associations is not None and self.session is not None:
            self.session.send_delete(now, self.inbound_spi, self.outbound_spi)
        self._station.emit(NegotiationFailed(self.number, failure, detail))
        self._end(now)

    def close(self, now: float, reason: str, tell: bool = True, known: bool = True) -> None:
        """End a tunnel that is up, or fail one that is not.

        ``tell``: whether to send a Delete; ``known``: whether the peer knows anyway.
        """
        if not self.established:
            self.fail(now, Failure.CANCELLED, reason, tell)
            return
        if tell:
            session = self.channel
            if session is not None:
                session.send_delete(now, self.inbound_spi, self.outbound_spi)
            else:
                known = reason == LIFETIME_OVER
        self._station.emit(TunnelClosed(self.number, reason))
        self._end(now)
        assert self.peer is not None
        identity = self.peer[0]
        if self._directory.contacts.tunnel_ended(identity):
            if known:
                self._station.emit(ContactEnded(identity))
            else:
                self._directory.contacts.lost(identity)

    def move_to(self, session: Session) -> None:
        """It lives on this channel with the same peer from now on."""
        if self.session is not None:
            self.session.tunnel_left(self)
        self.session = session
        session.tunnel_moved_here(self)

    def outlive(self, session: Session) -> None:
        """A channel ends, the tunnel does not."""
        if self.session is session:
            self.session = None

    @property
    def channel(self) -> Session | None:
        """Where the peer hears of this tunnel: its channel, or another one if it outlived that."""
        if self.session is not None:
            return self.session
        for session in reversed(self._directory.between(self.ends.local, self.ends.remote)):
            if session.end is not None and self.belongs_to(session):
                return session
        return None

    def belongs_to(self, session: Session) -> bool:
        """Whether the peer of ``session`` is the one that this tunnel leads to."""
        return self.session is session or (self.peer is not None and self.peer == session.peer)

    def _end(self, now: float) -> None:
        beside = self._directory.beside(self) if self.established else []
        self.closed = True
        self._life.advance(LifeStep.CLOSE)
        self._silence_alarm()
        self._silence_life_alarm()
        if self.path is not None:
            self._directory.keepalives.release(self.path, self)
        if self._exchange is not None:
            self._exchange.close()
        if self.inbound_spi:
            self._station.free_spi(self.inbound_spi)
        for session in (self.keyed_on, self.session, self._elsewhere):
            if session is not None:
                session.tunnel_ended(self, now)
        self._directory.forget_tunnel(self)
        for other in beside:
            other.successor_lost(now)
