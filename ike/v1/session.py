"""A keying channel (phase 1 SA) from its first message to its Delete."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric import rsa

from ike.constants import (
    CHANNEL_IDLE,
    MESSAGE_IDS_MOST,
    NAT_PORT,
    PORT_KEY_LONGEST,
    PORT_KEY_SLACK,
    QUEUE_MOST,
    QUICK_MODES_MOST,
    SOFT_FRACTION,
)
from ike.errors import (
    ClearMessage,
    Dropped,
    ExchangeRefused,
    InvalidMessageId,
    ReplayedMessageId,
    TooManyExchanges,
    UnexpectedMessage,
    UnknownExchange,
)
from ike.events import (
    DEAD_PEER,
    Encapsulation,
    Failure,
    Identity,
    KeyingChannelClosed,
    KeyingChannelEstablished,
    MessageReceived,
    MessageSent,
    SpiRefused,
    TransportAddress,
    TunnelRequest,
)
from ike.header import Header
from ike.identity import normal_identity
from ike.registry import (
    ExchangeType,
    NotifyType,
    Protocol,
)
from ike.retransmit import AnsweredMessages
from ike.station import Station
from ike.v1.contact import forget_former_life
from ike.v1.crowd import make_way
from ike.v1.deletes import Deletes
from ike.v1.directory import Directory
from ike.v1.informational import (
    channel_delete,
    channel_notification,
    informational,
    random_message_id,
    verified_informational,
)
from ike.v1.liveness import Liveness
from ike.v1.main_mode import Authenticated, Peer
from ike.v1.moves import peer_moved
from ike.v1.nat import NatFindings, Path
from ike.v1.notices import heed
from ike.v1.opening import InitiatorOpening, ResponderOpening
from ike.v1.payloads import Delete, Notification, Payload
from ike.v1.quick_mode import QuickModeResponder
from ike.v1.rekey import grace, reuse_margin
from ike.v1.renewal import Renewal, take_over
from ike.v1.transitions import LifeState, LivenessState, MainModeState
from ike.v1.tunnel import Tunnel
from ike.v1.vendor import Vendor


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
        self.identity: Identity = station.configuration.identity or local.address  # ours
        self.keys_given = not initiator  # whether the shell gave the keys, for the identity
        self.first_message = b""  # digest of message 1, if the peer sent it
        self.silent = False  # whether a quick mode got no answer and nothing came since
        self.closed = False
        self.replaces: list[Session] = []  # channels that end when this one is up
        self.peer: Peer | None = None
        self.liveness: Liveness | None = None
        self.used_at = begun_at  # when a tunnel last lived or was negotiated here
        self._station = station
        self._directory = directory
        self._waiting: deque[Tunnel] = deque()
        self._exchanges: dict[int, Tunnel] = {}
        self._tunnels: set[int] = set()
        self._message_ids: set[int] = set()
        self._answered = AnsweredMessages()
        self._deletes = Deletes(station.alarms, self, self._leave_if_superfluous)
        self._renewal = Renewal(station, self)
        self._successor: Session | None = None
        self._newest_then = 0  # the youngest channel of all when this one came up
        self._first_contact = b""  # INITIAL-CONTACT, until the peer has shown that it hears us
        self._confirmed = False  # whether the peer has shown that it has message 6
        self._superfluous = False
        self._octets = 0  # under this channel's keys, both ways

    @classmethod
    def initiate(
        cls, station: Station, directory: Directory, request: TunnelRequest, now: float
    ) -> Session:
        """Begin main mode with the peer of ``request``."""
        path = _opening_path(directory, request)
        session = cls(station, directory, path.local, path.remote, now, initiator=True)
        encapsulation = station.in_effect(request.encapsulation)
        session.identity = session._own_identity(request)
        session.keys_given = not request.peer_keys
        session._begin(now, expected_identity(request), request.peer_keys, encapsulation)
        return session

    def _begin(
        self,
        now: float,
        expected: Identity,
        peer_keys: tuple[rsa.RSAPublicKey, ...],
        encapsulation: Encapsulation,
    ) -> None:
        opening = InitiatorOpening(
            self._station, self, self.identity, expected, peer_keys, encapsulation
        )
        self.opening = opening
        self._directory.add_initiated(self, opening.cookie)
        opening.start(now)

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
            session.identity,
            station.encapsulation_of(ends[1].address),
            header,
            message,
        )
        make_room()
        session.opening = opening
        directory.add_answered(session, opening.cookies, message)
        opening.start(now)
        return session

    def _own_identity(self, request: TunnelRequest) -> Identity:
        """What we call ourselves for ``request``."""
        if request.identity is None:
            return self._station.configuration.identity or self.local.address
        return normal_identity(request.identity)

    @property
    def cookies(self) -> tuple[bytes, bytes]:
        if isinstance(self.opening, ResponderOpening):
            return self.opening.cookies
        return self.end.keys.cookies if self.end else (self.opening.cookie, b"")

    @property
    def unanswered(self) -> bool:
        """Whether message 1 is ours, and nothing came back."""
        opening = self.opening
        return isinstance(opening, InitiatorOpening) and opening.state is MainModeState.AWAIT_MM2

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
        self._send_on(self.path.floated() if floats else self.path, name, message, retransmission)

    def send_again(self, name: str, message: bytes, path: Path) -> None:
        """Answer a duplicate that came on ``path``: what was answered first may be a copy.

        It gets its answer only at an address of the peer: where it is, or began.
        """
        known = path.remote.address in (self.remote.address, self.first_remote.address)
        self._send_on(path if known else self.path, name, message, retransmission=True)

    def _send_on(self, path: Path, name: str, message: bytes, retransmission: bool) -> None:
        if self.end is not None:
            self._octets += len(message)
        self._station.transmit(message, path.local, path.remote)
        size = len(message)
        self._station.emit(
            MessageSent(self.number, name, path.local, path.remote, size, retransmission)
        )

    def received(self, name: str, size: int) -> None:
        """Something of the peer was taken."""
        self.silent = False
        self._octets += size
        self._follow()
        self._station.emit(MessageReceived(self.number, name, self.arrival.remote, size))

    def send_informational(self, payloads: list[Payload]) -> bytes:
        assert self.end is not None
        message_id = self._fresh_message_id()
        message = informational(self.end.keys, self.end.block, message_id, payloads)
        self.send("INFO", message)
        return message

    def send_notification(self, notify: NotifyType, octets: bytes) -> bytes:
        """About the channel itself: its cookies are the SPI."""
        assert self.end is not None
        return self.send_informational([channel_notification(self.end.keys, notify, octets)])

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
        """Message 5 was right and came on ``arrival``: with it the initiator chooses the ports.

        Without a translator before it, it has no others than that of message 1 and 4500: what
        came from any other is a copy that overtook the true one.
        """
        same = arrival.remote.address == self.remote.address
        untranslated = arrival.remote.port in (self.remote.port, NAT_PORT)
        if nat.known and (nat.follows or (same and (nat.there or untranslated))):
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

    def claims_first_contact(self, identity: Identity) -> bool:
        return self._directory.contacts.claim(identity, self.number)

    def opened(self, now: float, end: Authenticated) -> None:
        """Phase 1 is over, both sides are authenticated."""
        port = self.arrival.local.port if self.initiator else self.local.port
        if end.nat.optional and port != NAT_PORT:
            end = replace(end, nat=replace(end.nat, blocked=True))
        self.end = end
        self.peer = end.peer
        self.established_at = now
        self._newest_then = self._directory.last_channel
        if not self.initiator:
            make_way(now, self._directory, self)
            self._directory.answered_established(self)
        elif end.nat.encapsulated:
            floated = self.path.floated()
            self.local, self.remote = floated.local, floated.remote
        if self.initiator:  # message 6 came just now; message 5 has waited for its keys
            self._follow()
        if end.nat.encapsulated and end.nat.here:
            self._directory.keepalives.keep_open(now, self.path, self)
        self._renewal.established(now, end.choice.lifetime)
        asks = Vendor.DEAD_PEER_DETECTION in end.vendors
        self.liveness = Liveness(self._station, self, now, asks)
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
        if not self.initiator and self.claims_first_contact(end.identity):
            self._first_contact = self.send_notification(NotifyType.INITIAL_CONTACT, b"")
        self._directory.contacts.channel_established(end.identity)
        if end.initial_contact:
            forget_former_life(now, self._directory, self)
        while self._waiting:
            self._waiting.popleft().begin_on(now, self)
        take_over(now, self._directory, self)

    def opening_failed(self, now: float, failure: Failure, detail: str) -> None:
        """Phase 1 came to nothing."""
        if isinstance(self.opening, InitiatorOpening):
            self.opening.take_leave()
        self._directory.contacts.channel_failed(self.number)
        waiting, self._waiting = list(self._waiting), deque()
        for tunnel in waiting:
            tunnel.fail(now, failure, detail)
        self._closed(f"{failure.value}: {detail}")

    # Succession (see v1/renewal.py).

    @property
    def busy(self) -> bool:
        """Whether a quick mode is under way here."""
        return bool(self._waiting) or bool(self.under_way)

    def in_use(self, now: float) -> bool:
        """Whether it deserves a successor."""
        return bool(self._tunnels) or now - self.used_at < CHANNEL_IDLE

    def begin_successor(self, now: float) -> None:
        """A new main mode with the same peer: same addresses, same identity, same key."""
        assert self.end is not None
        if self._successor is not None and not self._successor.closed:
            return
        session = Session(
            self._station, self._directory, self.local, self.remote, now, initiator=True
        )
        session.used_at = self.used_at
        session.identity = self.identity
        session.keys_given = False  # nobody has said of late that the key still is the peer's
        session.replaces.append(self)
        self._successor = session
        encapsulation = self._station.encapsulation_of(self.remote.address)
        if isinstance(self.opening, InitiatorOpening):
            encapsulation = self.opening.encapsulation
        session._begin(now, self.end.identity, (self.end.key,), encapsulation)

    @property
    def expiring(self) -> bool:
        return self._renewal.state is LifeState.EXPIRING

    def succeeded_by(self, now: float, session: Session, closes: bool) -> None:
        """Hand over tunnels and Deletes to ``session``; ``closes``: and end after a grace."""
        if self.closed or self.end is None or self.peer != session.peer:
            return
        if self.liveness is not None:
            self.liveness.close()
        session.used_at = max(session.used_at, self.used_at)
        for number in list(self._tunnels):
            tunnel = self._directory.tunnels[number]
            if tunnel.established:
                tunnel.move_to(session)
        self._deletes.move(now, session.deletes)
        wait = 0.0 if self.silent else grace(self.end.choice.lifetime)
        self._renewal.succeeded(now, wait if closes else None)

    @property
    def deletes(self) -> Deletes:
        return self._deletes

    def tunnel_moved_here(self, tunnel: Tunnel) -> None:
        self._tunnels.add(tunnel.number)

    def superfluous_now(self, now: float) -> None:
        """The tunnel that it was made for was redundant."""
        self._superfluous = True
        self._leave_if_superfluous(now)

    def _leave_if_superfluous(self, now: float) -> None:
        """Close it if nothing is left on it, and if the peer can be talked to elsewhere."""
        if not self._superfluous or self.closed or self._tunnels or self.busy or self._deletes:
            return
        others = self._directory.between(self.local.address, self.remote.address)
        if any(s is not self and s.peer == self.peer and s.usable for s in others):
            self.close(now, "superfluous")

    @property
    def usable(self) -> bool:
        """Whether a new tunnel may be negotiated here."""
        return self._renewal.usable and not self.silent and not self._superfluous

    def was_up_before(self, other: Session) -> bool:
        """Whether this channel was established when ``other`` began."""
        return self.end is not None and self._newest_then < other.number

    def peer_died(self, now: float) -> None:
        """No R-U-THERE was answered."""
        assert self.peer is not None
        for tunnel in self._directory.leading_to(self.peer):
            if tunnel.channel is self:
                tunnel.close(now, DEAD_PEER, tell=False, known=False)
        for other in self._directory.between(self.local.address, self.remote.address):
            other.silent = other.silent or other.peer == self.peer
        self.close(now, DEAD_PEER, tell=False)

    # Use.

    def serves(self, request: TunnelRequest, now: float) -> bool:
        """Whether ``request`` may be negotiated here (see ``TunnelRequest``)."""
        expected = expected_identity(request)
        if self._full or self.identity != self._own_identity(request):
            return False
        if self.end is None:
            opening = self.opening
            return (
                isinstance(opening, InitiatorOpening)
                and opening.expected == expected
                and opening.peer_keys == request.peer_keys
                and (
                    request.encapsulation is None
                    or self._station.in_effect(request.encapsulation) is opening.encapsulation
                )
                and len(self._waiting) < QUEUE_MOST
            )
        assert self.established_at is not None
        left = self.established_at + self.end.choice.lifetime - now
        return (
            self.end.identity == expected
            and self.usable
            and self._encapsulates_as(request.encapsulation)
            and (self.end.key in request.peer_keys if request.peer_keys else self.keys_given)
            and left > reuse_margin(self.end.choice.lifetime)
            # One that is too old for it has a successor with a new key.
            and (not request.sst or not self._knows_port_encryption or self.encrypts_ports(now))
            and len(self._message_ids) < MESSAGE_IDS_MOST
        )

    def encrypts_ports(self, now: float, slack: float = 0.0) -> bool:
        """Whether tunnels negotiated here may have port encryption.

        Both sides must know of it, and the key, which is the channel's, must not be too old.
        """
        return (
            self._knows_port_encryption
            and self.established_at is not None
            and now - self.established_at < PORT_KEY_LONGEST + slack
        )

    @property
    def _knows_port_encryption(self) -> bool:
        return (
            self._station.configuration.sst
            and self.end is not None
            and Vendor.PORT_ENCRYPTION in self.end.vendors
        )

    def _encapsulates_as(self, wanted: Encapsulation | None) -> bool:
        if wanted is Encapsulation.UDP:
            return self.esp_path is not None
        return wanted is not Encapsulation.ESP or self.esp_path is None

    @property
    def _full(self) -> bool:
        """Whether as many tunnels were negotiated here as may be; adopted ones don't count."""
        most = self._station.configuration.tunnels_per_channel
        return len(self._exchanges) + len(self._waiting) >= most

    def carry(self, now: float, tunnel: Tunnel) -> None:
        """Negotiate this tunnel, now or when phase 1 is over."""
        if self.end is None:
            self._tunnels.add(tunnel.number)
            self._waiting.append(tunnel)
            tunnel.wait_for(self)
        else:
            tunnel.begin_on(now, self, reused=True)

    def negotiate_elsewhere(self, now: float, tunnel: Tunnel) -> None:
        """The peer may have lost this channel: the tunnel shall have another one."""
        request = tunnel.request
        assert request is not None
        for session in reversed(self._directory.between(request.local, request.remote)):
            if session is not self and session.serves(request, now):
                break
        else:
            session = Session.initiate(self._station, self._directory, request, now)
        if session.end is None and self not in session.replaces:
            session.replaces.append(self)
        session.carry(now, tunnel)

    def exchange_begun(self, tunnel: Tunnel) -> int:
        """A message ID for the tunnel's quick mode, whose messages it gets from now on."""
        message_id = self._fresh_message_id()
        self._carry_exchange(tunnel, message_id)
        return message_id

    def _carry_exchange(self, tunnel: Tunnel, message_id: int) -> None:
        self._tunnels.add(tunnel.number)
        self._exchanges[message_id] = tunnel
        self._superfluous = False
        self.used_at = max(self.used_at, tunnel.begun_at)

    def tunnel_left(self, tunnel: Tunnel) -> None:
        """It lives elsewhere from now on."""
        self._tunnels.discard(tunnel.number)

    def tunnel_ended(self, tunnel: Tunnel, now: float) -> None:
        self._tunnels.discard(tunnel.number)
        self.used_at = max(self.used_at, now)
        if tunnel in self._waiting:
            self._waiting.remove(tunnel)
        if tunnel.message_id is not None and self._exchanges.get(tunnel.message_id) is tunnel:
            del self._exchanges[tunnel.message_id]

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
        if self.end is not None and not self.closed:
            self._heard(now)

    def _heard(self, now: float) -> None:
        """A message that only the peer can have sent was taken."""
        if self.liveness is not None:
            self.liveness.heard(now)
        most = (self.end.choice.lifetime_bytes if self.end else None) or 0
        if 0 < most < self._octets:
            self.close(now, "octets used up")
            return
        used = max(len(self._message_ids) / MESSAGE_IDS_MOST, self._octets / most if most else 0)
        if used > SOFT_FRACTION and not self.expiring:
            self._renewal.successor_wanted(now)

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
        under_way = len(self.under_way)
        if under_way >= QUICK_MODES_MOST or self._full:
            raise TooManyExchanges(f"{under_way} quick modes, {len(self._exchanges)} tunnels")
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
                self.encrypts_ports(now, PORT_KEY_SLACK),
            )
        except ExchangeRefused as error:
            answer = self.notify_refusal(error.notify, b"")
            self.refused(header.message_id, message, answer)
            self._remember(now, header.message_id)
            raise
        self._remember(now, header.message_id)
        if self.closed:
            raise TooManyExchanges("no message ID is left")
        encapsulated = exchange.path is not None
        if encapsulated != end.nat.encapsulated:
            self.end = replace(end, nat=replace(end.nat, agreed=encapsulated))
        number = self._directory.next_tunnel()
        tunnel = Tunnel(
            self._station, self._directory, number, exchange.ends, self.remote, self, False
        )
        self._carry_exchange(tunnel, header.message_id)
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
        if not self._confirmed:
            self._confirmed = True
            if self._first_contact:  # the first one may have overtaken message 6, or be lost
                self.send("INFO", self._first_contact, retransmission=True)
            self._first_contact = b""
        self._message_ids.add(message_id)
        if len(self._message_ids) > MESSAGE_IDS_MOST:
            self.close(now, "message IDs used up")

    def notify_refusal(self, notify: NotifyType, spi: bytes) -> bytes:
        """Tell the peer that its quick mode goes no further; ``spi`` is that of its proposal."""
        return self.send_informational([Notification(Protocol.ESP, spi, notify)])

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
        try:
            chain = verified_informational(end.keys, end.block, header, message)
        except Dropped:
            opening = self.opening
            if self._confirmed or not isinstance(opening, ResponderOpening):
                raise
            if not opening.took_leave(header, message):
                raise
            self.close(now, "deleted by the peer", tell=False)
            return
        self._remember(now, header.message_id)
        self.received("INFO", len(message))
        heed(now, self._directory, self, chain, message)

    def spi_refused(self, spi: int) -> None:
        """The peer says that it does not know an SPI that we send with."""
        self._station.emit(SpiRefused(self.remote, spi, authenticated=True))

    def disown(self, spi: bytes) -> None:
        """Tell the peer that we do not receive on ``spi``, a tunnel of which we know nothing."""
        self.send_informational([Delete(Protocol.ESP, (spi,))])

    def answer_notice(self, message: bytes, answer: bytes) -> None:
        """``message`` was answered: if it comes again, so does the same answer."""
        self._answered.remember(message, "INFO", answer)

    @property
    def under_way(self) -> list[Tunnel]:
        """The tunnels whose quick mode runs here."""
        return [tunnel for tunnel in self._exchanges.values() if not tunnel.established]

    def send_delete(self, now: float, inbound_spi: bytes, outbound_spi: bytes) -> None:
        """Tell the peer that we no longer receive on ``inbound_spi``, until it says the same."""
        if self.end is not None and not self.closed:
            self._deletes.begin(now, inbound_spi, outbound_spi)

    # The end.

    def close(self, now: float, reason: str, tell: bool = True) -> None:
        """End the channel.  Tunnels that are up live on; those under way fail."""
        if self.closed:
            return
        if self.end is None:
            self.opening_failed(now, Failure.CANCELLED, reason)
            return
        moving = []
        for tunnel in [self._directory.tunnels[number] for number in self._tunnels]:
            if tunnel.established:
                tunnel.outlive(self)
            elif tunnel.may_move and self.liveness_state is not LivenessState.DEAD:
                moving.append(tunnel)
            else:
                tunnel.fail(now, Failure.REFUSED, f"keying channel closed: {reason}", tell)
        if tell:
            self.send_informational([channel_delete(self.end.keys)])
        self._closed(reason)
        for tunnel in moving:
            tunnel.channel_closed(now)

    @property
    def liveness_state(self) -> LivenessState | None:
        return self.liveness.state if self.liveness is not None else None

    def _closed(self, reason: str) -> None:
        self.closed = True
        cookies = self.cookies
        self.opening.close()
        self._renewal.close()
        self._deletes.close()
        if self.liveness is not None:
            self.liveness.close()
        self._directory.keepalives.release(self.path, self)
        self._directory.forget_session(self, cookies)
        self._station.emit(KeyingChannelClosed(self.number, reason))


def begin_anew(station: Station, directory: Directory, request: TunnelRequest, now: float) -> None:
    """A channel in place of those that there are with the peer of ``request``."""
    expected = expected_identity(request)
    older = []
    for session in directory.between(request.local, request.remote):
        opening = session.opening
        if session.end is not None:
            older += [session] if session.end.identity == expected else []
        elif isinstance(opening, InitiatorOpening) and opening.expected == expected:
            return
    Session.initiate(station, directory, request, now).replaces += older


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


def expected_identity(request: TunnelRequest) -> Identity:
    """What the peer must call itself; its address if the request does not say."""
    if request.peer_identity is None:
        return request.remote
    return normal_identity(request.peer_identity)
