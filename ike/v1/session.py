"""A keying channel (phase 1 SA) from its first message to its Delete."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace

from ike.alarms import Alarm
from ike.constants import (
    CHANNEL_REUSE_MARGIN,
    DELETE_INTERVAL,
    MESSAGE_IDS_MOST,
    QUEUE_MOST,
    QUICK_MODES_MOST,
)
from ike.errors import (
    ClearMessage,
    ExchangeRefused,
    InvalidMessageId,
    ReplayedMessageId,
    TooManyExchanges,
    UnexpectedMessage,
    UnknownExchange,
)
from ike.events import (
    Encapsulation,
    Failure,
    Identity,
    KeyingChannelClosed,
    KeyingChannelEstablished,
    MessageReceived,
    MessageSent,
    TransportAddress,
    TunnelRequest,
)
from ike.header import Header
from ike.identity import normal_identity
from ike.registry import (
    NOTIFY_ERRORS,
    ExchangeType,
    NotifyType,
    Protocol,
)
from ike.retransmit import AnsweredMessages
from ike.station import Station
from ike.v1.directory import Directory
from ike.v1.informational import (
    PendingDelete,
    channel_delete,
    informational,
    random_message_id,
    verified_informational,
)
from ike.v1.main_mode import Authenticated
from ike.v1.message import Chain
from ike.v1.moves import peer_moved
from ike.v1.nat import NatFindings, Path
from ike.v1.opening import InitiatorOpening, ResponderOpening
from ike.v1.payloads import Delete, Notification, Payload
from ike.v1.quick_mode import QuickModeResponder
from ike.v1.transitions import QuickModeState
from ike.v1.tunnel import Tunnel


class Session:
    """One channel.  ``end`` is None until phase 1 is over."""

    def __init__(
        self,
        station: Station,
        directory: Directory,
        local: TransportAddress,
        remote: TransportAddress,
        begun_at: float,
        initiator: bool,
    ) -> None:
        self.number = directory.next_channel()
        self.local = local
        self.remote = remote
        self.first_remote = remote  # where message 1 came from, or went
        self.arrival = Path(local, remote)  # how the last message came; the endpoint says it
        self.initiator = initiator
        self.begun_at = begun_at
        self.established_at: float | None = None
        self.end: Authenticated | None = None
        self.opening: InitiatorOpening | ResponderOpening
        self.first_message = b""  # digest of message 1, if the peer sent it
        self.silent = False  # whether a quick mode got no answer and nothing came since
        self.closed = False
        self._station = station
        self._directory = directory
        self._waiting: deque[Tunnel] = deque()
        self._exchanges: dict[int, Tunnel] = {}
        self._tunnels: set[int] = set()
        self._message_ids: set[int] = set()
        self._answered = AnsweredMessages()
        self._pending_deletes: dict[bytes, PendingDelete] = {}
        self._alarm: Alarm | None = None

    @classmethod
    def initiate(
        cls, station: Station, directory: Directory, request: TunnelRequest, now: float
    ) -> Session:
        """Begin main mode with the peer of ``request``."""
        path = _opening_path(directory, request)
        session = cls(station, directory, path.local, path.remote, now, initiator=True)
        opening = InitiatorOpening(
            station,
            session,
            session._own_identity(),
            expected_identity(request),
            request.peer_keys,
            request.encapsulation or station.configuration.encapsulation,
        )
        session.opening = opening
        directory.add_initiated(session, opening.cookie)
        opening.start(now)
        return session

    @classmethod
    def answer(
        cls,
        station: Station,
        directory: Directory,
        ends: tuple[TransportAddress, TransportAddress],
        header: Header,
        message: bytes,
        now: float,
        make_room: Callable[[], None],
    ) -> Session:
        """Take message 1, or raise ``Dropped`` and leave nothing behind.

        ``ends``: ours and the peer's.  ``make_room`` is called once the message was good.
        """
        session = cls(station, directory, ends[0], ends[1], now, initiator=False)
        opening = ResponderOpening(
            station,
            session,
            session._own_identity(),
            station.encapsulation_of(ends[1].address),
            header,
            message,
        )
        make_room()
        session.opening = opening
        directory.add_answered(session, opening.cookies, message)
        opening.start(now)
        return session

    def _own_identity(self) -> Identity:
        return self._station.configuration.identity or self.local.address

    @property
    def cookies(self) -> tuple[bytes, bytes]:
        if isinstance(self.opening, ResponderOpening):
            return self.opening.cookies
        return self.end.keys.cookies if self.end else (self.opening.cookie, b"")

    @property
    def tunnel_count(self) -> int:
        return len(self._tunnels)

    @property
    def proposal(self) -> str:
        return str(self.end.choice.suite) if self.end else ""

    # What goes out, and what is told about it.

    def send(
        self, name: str, message: bytes, retransmission: bool = False, floats: bool = False
    ) -> None:
        if not message:
            return
        path = self.path.floated() if floats else self.path
        self._station.transmit(message, path.local, path.remote)
        size = len(message)
        self._station.emit(
            MessageSent(self.number, name, path.local, path.remote, size, retransmission)
        )

    def received(self, name: str, size: int) -> None:
        """Something of the peer was taken."""
        self.silent = False
        self._follow()
        self._station.emit(MessageReceived(self.number, name, self.remote, size))

    def _send_informational(self, payloads: list[Payload]) -> bytes:
        assert self.end is not None
        message_id = self._fresh_message_id()
        message = informational(self.end.keys, self.end.block, message_id, payloads)
        self.send("INFO", message)
        return message

    def _fresh_message_id(self) -> int:
        while (message_id := random_message_id(self._station)) in self._message_ids:
            pass
        self._message_ids.add(message_id)
        return message_id

    # Where the peer is.

    @property
    def path(self) -> Path:
        return Path(self.local, self.remote)

    @property
    def esp_path(self) -> Path | None:
        """Where ESP in UDP goes; None if ESP does without UDP."""
        return self.path if self.end is not None and self.end.nat.encapsulated else None

    def may_come_from_elsewhere(self, header: Header, fragment: bool = False) -> bool:
        """Whether a message from another address than the peer's is worth looking at."""
        if not header.encrypted and not fragment:
            return False
        if self.end is not None:
            return self.end.nat.follows
        return isinstance(self.opening, ResponderOpening) and self.opening.may_move

    def follow_opening(self, nat: NatFindings, arrival: Path) -> None:
        """Message 5 was right and came on ``arrival``: with it the initiator chooses the ports."""
        same = arrival.remote.address == self.remote.address
        if nat.known and (same or nat.follows):
            self.local, self.remote = arrival.local, arrival.remote

    def _follow(self) -> None:
        """A message was taken.  If it was authenticated, we answer to where it came from."""
        end, remote = self.end, self.arrival.remote
        if end is None or not end.nat.follows:
            return
        if remote != self.remote and self.arrival.local == self.local:
            peer_moved(self._station, self._directory, self.number, end.peer, self.path, remote)

    # Phase 1.

    def proved_reachable(self) -> None:
        self._directory.half_open.proved_reachable(self.remote.address, self.number, self)

    def opened(self, now: float, end: Authenticated) -> None:
        """Phase 1 is over, both sides are authenticated."""
        self.end = end
        self.established_at = now
        if not self.initiator:
            self._directory.answered_established(self)
        elif end.nat.encapsulated:
            floated = self.path.floated()
            self.local, self.remote = floated.local, floated.remote
        self._follow()
        if end.nat.encapsulated and end.nat.here:
            self._directory.keepalives.keep_open(now, self.path, self)
        self._alarm = self._station.alarms.set(now + end.choice.lifetime, self._lifetime_over)
        self._station.emit(
            KeyingChannelEstablished(
                self.number,
                self.local,
                self.remote,
                end.identity,
                end.key,
                self.initiator,
                self.proposal,
                now - self.begun_at,
            )
        )
        while self._waiting:
            self._waiting.popleft().begin_on(now, self)

    def opening_failed(self, now: float, failure: Failure, detail: str) -> None:
        """Phase 1 came to nothing."""
        waiting, self._waiting = list(self._waiting), deque()
        for tunnel in waiting:
            tunnel.fail(now, failure, detail)
        self._closed(f"{failure.value}: {detail}")

    def _lifetime_over(self, now: float) -> None:
        self.close(now, "lifetime over")

    # Use.

    def serves(self, request: TunnelRequest, now: float) -> bool:
        """Whether ``request`` may be negotiated here (see ``TunnelRequest``)."""
        expected = expected_identity(request)
        if len(self._tunnels) >= self._station.configuration.tunnels_per_channel:
            return False
        if self.end is None:
            opening = self.opening
            return (
                isinstance(opening, InitiatorOpening)
                and opening.expected == expected
                and opening.peer_keys == request.peer_keys
                and request.encapsulation in (None, opening.encapsulation)
                and len(self._waiting) < QUEUE_MOST
            )
        assert self.established_at is not None
        left = self.established_at + self.end.choice.lifetime - now
        return (
            self.end.identity == expected
            and self._encapsulates_as(request.encapsulation)
            and not self.silent
            and self.end.key in request.peer_keys
            and left > CHANNEL_REUSE_MARGIN
            and len(self._message_ids) < MESSAGE_IDS_MOST
        )

    def _encapsulates_as(self, wanted: Encapsulation | None) -> bool:
        if wanted is Encapsulation.UDP:
            return self.esp_path is not None
        return wanted is not Encapsulation.ESP or self.esp_path is None

    def carry(self, now: float, tunnel: Tunnel) -> None:
        """Negotiate this tunnel, now or when phase 1 is over."""
        self._tunnels.add(tunnel.number)
        if self.end is None:
            self._waiting.append(tunnel)
        else:
            tunnel.begin_on(now, self)

    def exchange_begun(self, tunnel: Tunnel) -> int:
        """A message ID for the tunnel's quick mode, whose messages it gets from now on."""
        message_id = self._fresh_message_id()
        self._exchanges[message_id] = tunnel
        return message_id

    def tunnel_ended(self, tunnel: Tunnel) -> None:
        self._tunnels.discard(tunnel.number)
        if tunnel in self._waiting:
            self._waiting.remove(tunnel)
        if tunnel.message_id is not None:
            self._exchanges.pop(tunnel.message_id, None)

    def receive(self, now: float, header: Header, message: bytes) -> None:
        """Any message with our cookies; raises ``Dropped`` or ``ExchangeRefused``."""
        if header.exchange == ExchangeType.IDENTITY_PROTECTION:
            if header.message_id:
                raise InvalidMessageId("not 0 in main mode")
            if self.end is not None and isinstance(self.opening, InitiatorOpening):
                raise UnexpectedMessage("main mode is over")
            self.opening.receive(now, header, message)
        elif header.exchange == ExchangeType.INFORMATIONAL:
            self._receive_informational(now, header, message)
        elif header.exchange == ExchangeType.QUICK_MODE:
            self._receive_quick(now, header, message)
        else:
            raise UnknownExchange(header.exchange.name)

    def _expect_protected(self, header: Header) -> Authenticated:
        if not header.message_id:
            raise InvalidMessageId("0 after main mode")
        if self.end is None:
            raise UnexpectedMessage("phase 1 is not over")
        if not header.encrypted:
            raise ClearMessage(header.exchange.name)
        return self.end

    def _receive_quick(self, now: float, header: Header, message: bytes) -> None:
        end = self._expect_protected(header)
        tunnel = self._exchanges.get(header.message_id)
        if tunnel is not None:
            tunnel.receive(now, header, message)
            return
        self._refuse_replay(header, message)
        under_way = sum(not t.established for t in self._exchanges.values())
        configuration = self._station.configuration
        if under_way >= QUICK_MODES_MOST or len(self._tunnels) >= configuration.tunnels_per_channel:
            raise TooManyExchanges(f"{under_way} quick modes, {len(self._tunnels)} tunnels")
        addresses = (self.local.address, self.remote.address)
        try:
            exchange = QuickModeResponder(
                self._station,
                end.keys,
                end.block,
                header,
                message,
                addresses,
                end.nat.acceptable(self.path),
                self.path,
            )
        except ExchangeRefused as error:
            answer = self.notify_refusal(error.notify, b"")
            self.refused(header.message_id, message, answer)
            raise
        self._remember(now, header.message_id)
        encapsulated = exchange.path is not None
        if encapsulated != end.nat.encapsulated:
            self.end = replace(end, nat=replace(end.nat, agreed=encapsulated))
        number = self._directory.next_tunnel()
        tunnel = Tunnel(
            self._station, self._directory, number, exchange.ends, self.remote, self, False
        )
        self._tunnels.add(number)
        self._exchanges[header.message_id] = tunnel
        tunnel.proposed(now, exchange, message)

    def _refuse_replay(self, header: Header, message: bytes) -> None:
        """Raise if this message ID was used; an exact duplicate gets its answer again."""
        if header.message_id not in self._message_ids:
            return
        if self._answered.knows(message):
            again = self._answered.again(message)
            if again is not None:
                self.send(*again, retransmission=True)
        raise ReplayedMessageId(f"{header.message_id:08x}")

    def _remember(self, now: float, message_id: int) -> None:
        """Note a peer's message ID, which was under a right HASH."""
        self._message_ids.add(message_id)
        if len(self._message_ids) > MESSAGE_IDS_MOST:
            self.close(now, "message IDs used up")

    def notify_refusal(self, notify: NotifyType, spi: bytes) -> bytes:
        """Tell the peer that its quick mode goes no further; ``spi`` is that of its proposal."""
        return self._send_informational([Notification(Protocol.ESP, spi, notify)])

    def refused(self, message_id: int | None, request: bytes, answer: bytes) -> None:
        """A quick mode was refused: its message 1 gets the same answer again."""
        if message_id is not None:
            self._message_ids.add(message_id)
        self._answered.remember(request, "INFO", answer)

    # Informational exchanges.

    def _receive_informational(self, now: float, header: Header, message: bytes) -> None:
        if self.end is None and isinstance(self.opening, InitiatorOpening):
            self.opening.receive_hint(header, message)
        end = self._expect_protected(header)
        self._refuse_replay(header, message)
        chain = verified_informational(end.keys, end.block, header, message)
        self._remember(now, header.message_id)
        self.received("INFO", len(message))
        self._heed(now, chain, message)

    def _heed(self, now: float, chain: Chain, message: bytes) -> None:
        deletes, notifications = chain.all(Delete), chain.all(Notification)
        answers: list[bytes] = []
        for notification in notifications:
            self._notified(now, notification)
        for delete in deletes:
            if delete.protocol == Protocol.ESP:
                answers += self._tunnels_deleted(now, delete)
        if answers and not self.closed:
            own = Delete(Protocol.ESP, tuple(answers))
            self._answered.remember(message, "INFO", self._send_informational([own]))
        assert self.end is not None
        own_cookies = b"".join(self.end.keys.cookies)
        if any(d.protocol == Protocol.ISAKMP and own_cookies in d.spis for d in deletes):
            self.close(now, "deleted by the peer", tell=False)

    def _tunnels_deleted(self, now: float, delete: Delete) -> list[bytes]:
        """Close what the peer no longer receives on; returns our inbound SPIs to delete."""
        answers: list[bytes] = []
        for spi in delete.spis:
            pending = self._pending_deletes.pop(spi, None)
            if pending is not None:
                pending.cancel()
            tunnel = self._directory.tunnel_by_outbound(self, spi)
            if tunnel is not None:
                answers.append(tunnel.inbound_spi)
                tunnel.close(now, "deleted by the peer", tell=False)
        return answers

    def _notified(self, now: float, notification: Notification) -> None:
        """An authenticated error ends the quick mode that it is about."""
        if notification.notify not in NOTIFY_ERRORS:
            return
        asked = [t for t in self._exchanges.values() if t.state is QuickModeState.AWAIT_QM2]
        about = [t for t in asked if t.inbound_spi == notification.spi]
        if not about and len(asked) == 1 and not _names_a_tunnel(notification):
            about = asked
        for tunnel in about:
            tunnel.fail(now, Failure.REFUSED, f"the peer said {notification.notify.name}")

    def send_delete(self, now: float, inbound_spi: bytes, outbound_spi: bytes) -> None:
        """Tell the peer that we no longer receive on ``inbound_spi``, until it says the same."""
        if self.end is None or self.closed:
            return
        pending = PendingDelete(self._send_informational([Delete(Protocol.ESP, (inbound_spi,))]))
        self._pending_deletes[outbound_spi] = pending

        def again(now: float) -> None:
            if pending.tries_left == 0:
                self._pending_deletes.pop(outbound_spi, None)
                return
            self.send("INFO", pending.message, retransmission=True)
            pending.alarm = self._station.alarms.set(pending.next_try(now), again)

        pending.alarm = self._station.alarms.set(now + DELETE_INTERVAL, again)

    # The end.

    def close(self, now: float, reason: str, tell: bool = True) -> None:
        """End the channel.  Tunnels that are up live on; those under way fail."""
        if self.closed:
            return
        if self.end is None:
            self.opening_failed(now, Failure.CANCELLED, reason)
            return
        for tunnel in self._directory.tunnels_of(self):
            if tunnel.established:
                tunnel.session = None
            else:
                tunnel.fail(now, Failure.REFUSED, f"keying channel closed: {reason}", tell)
        if tell:
            self._send_informational([channel_delete(self.end.keys)])
        self._closed(reason)

    def _closed(self, reason: str) -> None:
        self.closed = True
        cookies = self.cookies
        self.opening.close()
        self._directory.keepalives.release(self.path, self)
        if self._alarm is not None:
            self._alarm.cancel()
        for pending in self._pending_deletes.values():
            pending.cancel()
        self._pending_deletes.clear()
        self._directory.forget_session(self, cookies)
        self._station.emit(KeyingChannelClosed(self.number, reason))


def _opening_path(directory: Directory, request: TunnelRequest) -> Path:
    """Where message 1 goes: port 500, or where an older channel has floated (RFC 3947 section 4).

    The peer's translator may let nothing through to any other port.
    """
    expected = expected_identity(request)
    for session in reversed(directory.between(request.local, request.remote)):
        end = session.end
        if end is not None and end.identity == expected and end.key in request.peer_keys:
            if end.nat.encapsulated:
                return session.path
            break
    return Path(TransportAddress(request.local), TransportAddress(request.remote))


def _names_a_tunnel(notification: Notification) -> bool:
    """Whether the SPI field can be a tunnel's: four octets that are not all zero."""
    return len(notification.spi) == 4 and any(notification.spi)


def expected_identity(request: TunnelRequest) -> Identity:
    """What the peer must call itself; its address if the request does not say."""
    if request.peer_identity is None:
        return request.remote
    return normal_identity(request.peer_identity)
