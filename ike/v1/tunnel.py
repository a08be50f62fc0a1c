"""One tunnel in time: its quick mode with retransmission and duplicates, then its life.

The order of events is the same on both sides in one respect: an inbound SA stands
before the peer may send on it.  The responder's message 2 and the initiator's
message 3 wait for ``confirm_inbound`` (RFC 4322 section 11.2, 5O).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ike.alarms import Alarm
from ike.constants import DECISION_LONGEST
from ike.errors import Dropped, DuplicateMessage, ExchangeRefused, UnexpectedMessage
from ike.events import (
    EspSa,
    Failure,
    InboundSaEstablished,
    NegotiationFailed,
    OutboundSaEstablished,
    TrafficSelector,
    TransportAddress,
    TunnelClosed,
    TunnelProposed,
)
from ike.header import Header
from ike.registry import NotifyType
from ike.retransmit import AnsweredMessages, Retransmission
from ike.station import Station
from ike.v1.directory import Directory
from ike.v1.nat import Path
from ike.v1.quick_mode import Ends, QuickModeInitiator, QuickModeResponder
from ike.v1.transitions import QuickModeState

if TYPE_CHECKING:
    from ike.v1.main_mode import Peer
    from ike.v1.session import Session


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
    ) -> None:
        self.number = number
        self.ends = ends
        self.remote = remote
        self.session: Session | None = session
        self.initiator = initiator
        self.message_id: int | None = None
        self.inbound_spi = b""
        self.outbound_spi = b""
        self.closed = False
        self.path: Path | None = None  # of ESP in UDP, and None without
        self.peer: Peer | None = None
        self.follows = False  # whether the peer is behind a NAT and we are not
        self.channel = session.number
        self._station = station
        self._directory = directory
        self._exchange: QuickModeInitiator | QuickModeResponder | None = None
        self._associations: tuple[EspSa, EspSa] | None = None
        self._answered = AnsweredMessages()
        self._request = b""  # the message that our reply will answer
        self._retransmission = Retransmission(station.configuration, station.random_octets)
        self._alarm: Alarm | None = None
        self._twin: object = None
        directory.add_tunnel(self)

    @property
    def state(self) -> QuickModeState:
        return self._exchange.state if self._exchange else QuickModeState.IDLE

    @property
    def established(self) -> bool:
        return self.state is QuickModeState.ESTABLISHED

    def _set_alarm(self, when: float) -> None:
        self._silence_alarm()
        self._alarm = self._station.alarms.set(when, self._alarm_rang)

    def _silence_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()

    def _alarm_rang(self, now: float) -> None:
        if self.established:
            self.close(now, "lifetime over")
        elif self.state in (QuickModeState.AWAIT_DECISION, QuickModeState.AWAIT_INBOUND):
            self.fail(now, Failure.CANCELLED, f"no answer from our side: {self.state.value}")
        elif self._retransmission.exhausted:
            if self.session is not None and self.initiator:
                self.session.silent = True  # perhaps the peer lost the channel: do not reuse it
            self.fail(now, Failure.REFUSED, f"no answer: {self.state.value}")
        else:
            self._send_request(now, retransmission=True)

    def _send_request(self, now: float, retransmission: bool) -> None:
        """Send the message that waits for an answer: ours is 1 or 2."""
        if self.session is not None:
            name = "QM1" if self.initiator else "QM2"
            self.session.send(name, self._request, retransmission)
        self._set_alarm(self._retransmission.sent(now))

    # The exchange.

    def begin_on(self, now: float, session: Session) -> None:
        """We are initiator, and the channel is up."""
        end = session.end
        assert end is not None
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
        )
        self._exchange = exchange
        self._request = exchange.message_1
        self._send_request(now, retransmission=False)

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
        session = self.session
        assert session is not None
        assert session.end is not None
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
            )
        )

    def accept(self, now: float) -> None:
        """The shell's yes; raises ``UnexpectedMessage`` if it was not asked."""
        exchange = self._exchange
        if not isinstance(exchange, QuickModeResponder):
            raise UnexpectedMessage("only a responder accepts")
        if exchange.state is not QuickModeState.AWAIT_DECISION:
            raise UnexpectedMessage("not asked")
        self.inbound_spi = self._station.fresh_spi()
        try:
            self._associations = exchange.accept(self.inbound_spi)
        except Dropped as error:  # the peer's public value, refused by the library
            self.refuse(now, NotifyType.INVALID_KEY_INFORMATION, str(error))
            return
        self._set_alarm(now + DECISION_LONGEST)
        self._station.emit(InboundSaEstablished(self.number, self._associations[0]))

    def refuse(self, now: float, notify: NotifyType, reason: str) -> None:
        """The shell's no."""
        if self.state is not QuickModeState.AWAIT_DECISION:
            raise UnexpectedMessage("not asked")
        if self.session is not None:
            answer = self.session.notify_refusal(notify, self.outbound_spi)
            self.session.refused(self.message_id, self._request, answer)
        self.fail(now, Failure.REFUSED, reason, tell=False)

    def confirm_inbound(self, now: float) -> None:
        """The inbound SA stands; raises ``UnexpectedMessage`` if it was not asked for."""
        exchange = self._exchange
        session = self.session
        if exchange is None or exchange.state is not QuickModeState.AWAIT_INBOUND:
            raise UnexpectedMessage("no inbound SA waits")
        assert session is not None
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
            if again is not None and self.session is not None:
                self.session.send(*again, retransmission=True)
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
            if self.session is not None:
                self.session.notify_refusal(error.notify, self.inbound_spi)
            self.fail(now, error.failure, str(error), tell=False)
            raise
        self._received("QM2", message)
        self._request = message
        self.outbound_spi = self._associations[1].spi.to_bytes(4, "big")
        self._set_alarm(now + DECISION_LONGEST)
        self._station.emit(InboundSaEstablished(self.number, self._associations[0]))

    def _received(self, name: str, message: bytes) -> None:
        if self.session is not None:
            self.session.received(name, len(message))

    # The life.

    def _established(self, now: float) -> None:
        assert self._associations is not None
        assert self.session is not None
        assert self.session.end is not None
        outbound = self._associations[1]
        if self.path is not None and self.session.end.nat.here:
            self._directory.keepalives.keep_open(now, self.path, self)
        self._set_alarm(now + outbound.lifetime_seconds)
        self._station.emit(OutboundSaEstablished(self.number, outbound))
        end = self.session.end
        key = end.key.public_numbers()
        self._twin = (self.initiator, end.identity, key.n, key.e, *_selectors(self.ends))
        older = self._directory.tunnel_established(self, self._twin)
        if self.initiator:
            return
        # RFC 4322 section 3.3.2: the peer has forgotten the old one.  Only the responder
        # concludes that, and only about tunnels that the same peer began: were both sides
        # to judge, two tunnels begun from both ends at once could delete each other.
        for tunnel in older:
            tunnel.close(now, "replaced")

    def fail(self, now: float, failure: Failure, detail: str, tell: bool = True) -> None:
        """End before the tunnel was up."""
        if tell and self._associations is not None and self.session is not None:
            self.session.send_delete(now, self.inbound_spi, self.outbound_spi)
        self._station.emit(NegotiationFailed(self.number, failure, detail))
        self._end()

    def close(self, now: float, reason: str, tell: bool = True) -> None:
        """End a tunnel that is up, or fail one that is not."""
        if not self.established:
            self.fail(now, Failure.CANCELLED, reason, tell)
            return
        if tell:
            session = self.session or self._another_channel()
            if session is not None:
                session.send_delete(now, self.inbound_spi, self.outbound_spi)
        self._station.emit(TunnelClosed(self.number, reason))
        self._end()

    def _another_channel(self) -> Session | None:
        """A channel with the same peer, for a tunnel that has outlived its own."""
        for session in self._directory.between(self.ends.local, self.ends.remote):
            if session.end is not None and self.belongs_to(session):
                return session
        return None

    def belongs_to(self, session: Session) -> bool:
        """Whether the peer of ``session`` is the one that this tunnel leads to."""
        if self.session is session:
            return True
        if session.end is None or not isinstance(self._twin, tuple):
            return False
        key = session.end.key.public_numbers()
        return self._twin[1:4] == (session.end.identity, key.n, key.e)

    def _end(self) -> None:
        self.closed = True
        self._silence_alarm()
        if self.path is not None:
            self._directory.keepalives.release(self.path, self)
        if self._exchange is not None:
            self._exchange.close()
        if self.inbound_spi:
            self._station.free_spi(self.inbound_spi)
        if self.session is not None:
            self.session.tunnel_ended(self)
        self._directory.forget_tunnel(self, self._twin)


def _selectors(ends: Ends) -> tuple[TrafficSelector, TrafficSelector]:
    return ends.local_selector, ends.remote_selector
