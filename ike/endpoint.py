"""The one object that a shell holds: the keying daemon's core, without clock, socket or DNS.

Feed it with ``receive_datagram``, the answers to its questions and ``handle_timer``;
after each, drain ``next_event`` and ``datagrams_to_send`` and re-arm a timer at
``next_timer``.  ``now`` is in seconds of any clock that never goes back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from cryptography.hazmat.primitives.asymmetric import rsa

from ike.configuration import Configuration
from ike.constants import (
    HEADER_LENGTH,
    INITIATIONS_MOST,
    KEEPALIVE,
    MESSAGE_LONGEST,
    NAT_PORT,
    NON_ESP_MARKER,
    UNANSWERED_MOST,
)
from ike.errors import (
    AggressiveMode,
    Dropped,
    ExchangeRefused,
    FragmentDropped,
    HalfOpenSourceLimit,
    InvalidCookie,
    InvalidMessageId,
    LengthMismatch,
    NoMarker,
    NoProposalChosen,
    TruncatedMessage,
    UnknownCookies,
    UnknownExchange,
    UnsupportedVersion,
    WrongAddress,
)
from ike.events import (
    Datagram,
    Encapsulation,
    Event,
    Failure,
    Identity,
    IPAddress,
    MessageDropped,
    NegotiationFailed,
    SpiRefused,
    TransportAddress,
    TunnelRequest,
)
from ike.groups import KeyPairStock
from ike.header import NO_COOKIE, Header
from ike.identity import normal_identity
from ike.registry import ExchangeType, NotifyType, PayloadType
from ike.signer import Signing, signer_of
from ike.station import Station
from ike.v1.directory import Directory
from ike.v1.fragments import Fragments
from ike.v1.informational import clear_refusal
from ike.v1.keepalive import Keepalives
from ike.v1.message import Chain
from ike.v1.moves import peer_moved
from ike.v1.nat import Path
from ike.v1.notices import refused_spi
from ike.v1.opening import InitiatorOpening, ResponderOpening
from ike.v1.payloads import Notification
from ike.v1.quick_mode import Ends
from ike.v1.session import Session, begin_anew
from ike.v1.suites import channel_tiers, check_proposals
from ike.v1.tunnel import Tunnel
from ike.wire import Reader

_KNOWN_EXCHANGES = frozenset(
    (ExchangeType.IDENTITY_PROTECTION, ExchangeType.INFORMATIONAL, ExchangeType.QUICK_MODE)
)


@dataclass(frozen=True, slots=True)
class ChannelView:
    """One keying channel, for status.  ``established_at`` is None while phase 1 runs."""

    channel: int
    local: TransportAddress
    remote: TransportAddress
    identity: Identity | None
    initiator: bool
    proposal: str
    begun_at: float
    established_at: float | None
    tunnels: int


@dataclass(frozen=True, slots=True)
class EndpointView:
    """What is there now.

    ``half_open`` counts channels that peers began and have not authenticated,
    ``half_open_unanswered`` those among them whose source never saw our cookie.
    ``unknown_handles`` counts calls about what had ended already.
    """

    channels: tuple[ChannelView, ...]
    tunnels: int
    half_open: int
    half_open_unanswered: int
    unknown_handles: int
    dropped: dict[str, int]


class Endpoint:
    """See the module.  Strangers' input never raises; it is counted in ``MessageDropped``."""

    def __init__(self, configuration: Configuration, random_octets: Callable[[int], bytes]) -> None:
        """``random_octets(n)`` returns n unpredictable octets.

        Raises ``ValueError`` for settings that make no sense.
        """
        check_proposals(configuration)
        if configuration.identity is not None:
            identity = normal_identity(configuration.identity)
            configuration = replace(configuration, identity=identity)
        stock = KeyPairStock(random_octets)
        stock.want(channel_tiers(configuration)[0][0].group)
        signer = signer_of(configuration.private_key)
        self._station = Station(configuration, random_octets, signer, stock)
        self._directory = Directory(configuration, Keepalives(self._station))
        self._fragments = Fragments(self._station.alarms)
        self._dropped: Counter[str] = Counter()
        self._unknown_handles = 0

    # Orders.

    def initiate(self, now: float, tunnel: int, request: TunnelRequest) -> None:
        """Negotiate a tunnel.  It ends in ``OutboundSaEstablished`` or ``NegotiationFailed``.

        ``tunnel``: an even number that is not in use.  Raises ``ValueError`` for our own
        mistakes: a number that is taken or odd.
        """
        if tunnel < 0 or tunnel % 2 or tunnel in self._directory.tunnels:
            raise ValueError(f"tunnel {tunnel}: not even, or in use")
        if len(self._directory.tunnels) >= INITIATIONS_MOST and self._too_many_under_way():
            detail = f"{INITIATIONS_MOST} tunnels under negotiation"
            self._station.emit(NegotiationFailed(tunnel, Failure.LIMIT, detail))
            return
        session = self._channel_for(now, request)
        if session is None:
            detail = f"{UNANSWERED_MOST} messages 1 to {request.remote} without an answer"
            self._station.emit(NegotiationFailed(tunnel, Failure.LIMIT, detail))
            return
        ends = Ends(request.local, request.remote, request.local_selector, request.remote_selector)
        begun = Tunnel(
            self._station, self._directory, tunnel, ends, session.remote, session, True, request
        )
        session.carry(now, begun)

    def greet(self, now: float, request: TunnelRequest) -> None:
        """Begin a new keying channel with the peer of ``request``, whatever channels there are.

        For when one of the two may have lost what was between them.  Only the request's
        addresses, keys, identities and encapsulation count.  If INITIAL-CONTACT is owed to the
        peer, the channel carries it; when it is up, the older ones with this peer hand over
        to it.  Nothing happens while one is under way.
        """
        begin_anew(self._station, self._directory, request, now)

    def disown(self, now: float, local: IPAddress, remote: IPAddress, spi: int) -> None:
        """Tell a peer that sends on ``spi`` that we do not receive on it, by a Delete.

        Said on one channel with each peer at that address, and nothing where there is none.
        """
        told = set()
        for session in reversed(self._directory.between(local, remote)):
            if session.end is not None and session.peer not in told:
                told.add(session.peer)
                session.disown(spi.to_bytes(4, "big"))

    def _too_many_under_way(self) -> bool:
        under_way = sum(not t.established for t in self._directory.tunnels.values())
        return under_way >= INITIATIONS_MOST

    def _channel_for(self, now: float, request: TunnelRequest) -> Session | None:
        """A channel that serves the request, or a new one.

        First the one of the tunnel to replace, then the newest.  None if too many messages 1 to
        that address are not answered yet: a stranger's records may name anybody as a gateway, each
        with another key, and whoever does not answer has not asked for any of them.
        """
        if request.replaces is not None and request.replaces in self._directory.tunnels:
            channel = self._directory.tunnels[request.replaces].channel
            if channel is not None and channel.serves(request, now):
                return channel
        between = self._directory.between(request.local, request.remote)
        for session in reversed(between):
            if session.serves(request, now):
                return session
        if sum(session.unanswered for session in between) >= UNANSWERED_MOST:
            return None
        return Session.initiate(self._station, self._directory, request, now)

    def provide_peer_keys(
        self, now: float, channel: int, keys: tuple[rsa.RSAPublicKey, ...]
    ) -> None:
        """The answer to ``PeerKeyNeeded``: any of ``keys`` may have signed.

        No key at all is the same as ``peer_keys_unavailable``.
        """
        if not keys:
            self.peer_keys_unavailable(now, channel, "no key")
            return
        opening = self._waiting_opening(channel)
        if opening is not None:
            remote = self._directory.sessions[channel].remote
            self._count_drops(remote, lambda: opening.provide_peer_keys(now, keys))

    def peer_keys_unavailable(self, now: float, channel: int, reason: str) -> None:
        """The other answer to ``PeerKeyNeeded``."""
        opening = self._waiting_opening(channel)
        if opening is not None:
            opening.refuse(now, NotifyType.AUTHENTICATION_FAILED, reason)

    def _waiting_opening(self, channel: int) -> InitiatorOpening | ResponderOpening | None:
        """The main mode that asked for keys, if it still waits for them."""
        session = self._directory.sessions.get(channel)
        if session is not None and session.end is None and session.opening.wants_keys:
            return session.opening
        self._unknown_handles += 1
        return None

    def accept_tunnel(self, now: float, tunnel: int, sst: bool = False) -> None:
        """The answer to ``TunnelProposed``; ``sst``: with port encryption, which it offers.

        Where the peer offers nothing without port encryption, or nothing with it, what is not
        offered is refused.
        """
        self._with_tunnel(tunnel, lambda known: known.accept(now, sst))

    def refuse_tunnel(self, now: float, tunnel: int, reason: str) -> None:
        """The other answer to ``TunnelProposed``: the peer gets INVALID-ID-INFORMATION."""
        notify = NotifyType.INVALID_ID_INFORMATION
        self._with_tunnel(tunnel, lambda known: known.refuse(now, notify, reason))

    def confirm_inbound(self, now: float, tunnel: int) -> None:
        """The answer to ``InboundSaEstablished``: the SA stands."""
        self._with_tunnel(tunnel, lambda known: known.confirm_inbound(now))

    def inbound_failed(self, now: float, tunnel: int, reason: str) -> None:
        """The other answer to ``InboundSaEstablished``: the SA could not be installed."""
        self._with_tunnel(tunnel, lambda known: known.close(now, reason))

    def close_tunnel(self, now: float, tunnel: int) -> None:
        """Close one tunnel, with a Delete to the peer."""
        self._with_tunnel(tunnel, lambda known: known.close(now, "closed"))

    def tunnel_expiring(self, now: float, tunnel: int) -> None:
        """The shell says that a soft limit of the SAs was reached, in octets or numbers.

        ``TunnelExpiring`` answers, unless a successor is under way or up.
        """
        self._with_tunnel(tunnel, lambda known: known.expiring(now))

    def traffic_seen(
        self, now: float, tunnel: int, received: float | None, sent: float | None
    ) -> None:
        """When the tunnel's last packets came and went: proof of life (RFC 3706 section 5.4)."""
        self._with_tunnel(tunnel, lambda known: known.traffic_seen(now, received, sent))

    def _with_tunnel(self, tunnel: int, order: Callable[[Tunnel], None]) -> None:
        """The world moves while a shell waits: orders about what has ended do nothing."""
        known = self._directory.tunnels.get(tunnel)
        if known is None:
            self._unknown_handles += 1
            return
        self._count_drops(known.remote, lambda: order(known))

    def replace_key(self, private_key: rsa.RSAPrivateKey | Signing) -> None:
        """Sign with another key from now on; what stands, stands (RFC 4322 section 5.4)."""
        self._station.signer = signer_of(private_key)

    def prefer_encapsulation(self, choices: Mapping[IPAddress, Encapsulation]) -> None:
        """How ESP goes to peers that begin from these addresses, whatever is configured for all.

        Holds for channels that are begun from now on.
        """
        self._station.encapsulations = dict(choices)

    def prefer_udp(self) -> None:
        """``Encapsulation.AUTO`` is ``UDP_IF_POSSIBLE`` for channels that are begun from now on.

        For a datapath that is faster with ESP in UDP than with protocol 50.
        """
        self._station.auto = Encapsulation.UDP_IF_POSSIBLE

    def peer_moved(self, now: float, tunnel: int, remote: TransportAddress) -> None:
        """An authenticated ESP packet of ``tunnel`` came from ``remote``, from elsewhere.

        Answered with ``PeerMoved`` if the peer is behind a NAT and we are not (RFC 3947
        section 7); else nothing comes of it.
        """
        known = self._directory.tunnels.get(tunnel)
        if known is None:
            self._unknown_handles += 1
            return
        path, peer = known.path, known.peer
        if path is None or peer is None or not known.follows or not known.shown:
            return
        if not remote.port:  # nothing can be sent there
            return
        if path.remote != remote:
            peer_moved(self._station, self._directory, known.keyed_on.number, peer, path, remote)

    def close_channels(self, now: float, remote: IPAddress) -> None:
        """Close the keying channels with ``remote`` that carry no tunnel, with Deletes."""
        for session in list(self._directory.sessions.values()):
            if session.remote.address == remote and not session.tunnel_count:
                session.close(now, "closed")

    def close(self, now: float) -> None:
        """Close everything, with Deletes to all peers (RFC 4322 section 9.3)."""
        for tunnel in list(self._directory.tunnels.values()):
            tunnel.close(now, "shut down")
        for session in list(self._directory.sessions.values()):
            session.close(now, "shut down")

    # Input.

    def receive_datagram(
        self, now: float, data: bytes, local: TransportAddress, remote: TransportAddress
    ) -> None:
        """A UDP payload from anybody.  ``local`` is where it arrived, ``remote`` where from."""
        self._count_drops(remote, lambda: self._receive(now, data, local, remote))

    def _count_drops(self, remote: TransportAddress, action: Callable[[], None]) -> None:
        try:
            action()
        except (Dropped, ExchangeRefused) as error:
            self._dropped[error.trigger] += 1
            self._station.emit(MessageDropped(error.trigger, remote, str(error)))

    def _receive(
        self, now: float, data: bytes, local: TransportAddress, remote: TransportAddress
    ) -> None:
        if not remote.port:
            raise WrongAddress("from port 0, which nothing can be sent to")
        if local.port == NAT_PORT:
            if data == KEEPALIVE:  # it proves nothing (RFC 3948 section 4)
                return
            if not data.startswith(NON_ESP_MARKER):
                raise NoMarker(f"{len(data)} octets")
            data = data[len(NON_ESP_MARKER) :]
        if not HEADER_LENGTH <= len(data) <= MESSAGE_LONGEST:
            raise TruncatedMessage(f"{len(data)} octets")
        header = Header.parse(Reader(data))
        if header.next_payload != PayloadType.FRAGMENT:
            self._receive_message(now, header, data, local, remote)
            return
        if header.length != len(data):
            raise LengthMismatch(f"{len(data)} octets, {header.length} announced")
        self._expect_from(self._known(header), header, local, remote, fragment=True)
        for message in self._fragments.take(now, header, data, remote):
            receive = partial(self._receive_whole, now, message, local, remote)
            self._count_drops(remote, receive)  # one of them may be forged

    def _receive_whole(
        self, now: float, data: bytes, local: TransportAddress, remote: TransportAddress
    ) -> None:
        """A message that came in fragments."""
        header = Header.parse(Reader(data))
        if header.next_payload == PayloadType.FRAGMENT:
            raise FragmentDropped("a fragment in fragments")
        self._receive_message(now, header, data, local, remote)

    def _known(self, header: Header) -> Session:
        """The channel of a fragment; nothing is stored for strangers."""
        cookies = (header.initiator_cookie, header.responder_cookie)
        session = self._directory.initiated(cookies[0]) or self._directory.answered(cookies)
        if session is None:
            raise UnknownCookies("a fragment")
        return session

    def _expect_from(
        self,
        session: Session,
        header: Header,
        local: TransportAddress,
        remote: TransportAddress,
        fragment: bool = False,
    ) -> None:
        """Raise ``WrongAddress`` for what cannot be the peer's, behind a NAT or not."""
        if session.local.address == local.address:
            if session.remote.address == remote.address:
                return
            if session.may_come_from_elsewhere(header, fragment):
                return
        raise WrongAddress(f"channel {session.number} is not between these")

    def _receive_message(
        self,
        now: float,
        header: Header,
        data: bytes,
        local: TransportAddress,
        remote: TransportAddress,
    ) -> None:
        """A whole message, without marker."""
        if header.length != len(data):
            raise LengthMismatch(f"{len(data)} octets, {header.length} announced")
        if header.major_version != 1:
            raise UnsupportedVersion(f"{header.version:#04x}")
        if header.exchange == ExchangeType.AGGRESSIVE:
            raise AggressiveMode("never, in either role")
        if header.exchange not in _KNOWN_EXCHANGES:
            raise UnknownExchange(header.exchange.name)
        if header.initiator_cookie == NO_COOKIE:
            raise InvalidCookie("the initiator's is zero")
        if header.exchange == ExchangeType.INFORMATIONAL and not header.encrypted:
            self._take_hint(header, data, remote)
        session = self._find(header, remote)
        if session is None:
            self._receive_first(now, header, data, local, remote)
        else:
            self._expect_from(session, header, local, remote)
            session.arrival = Path(local, remote)
            session.receive(now, header, data)

    def _take_hint(self, header: Header, data: bytes, remote: TransportAddress) -> None:
        """Anybody may have sent this; the shell knows what little may come of INVALID-SPI."""
        try:
            chain = Chain.cut(header.next_payload, data[HEADER_LENGTH:], padded=False)
            notifications = chain.all(Notification)
        except (Dropped, ExchangeRefused):
            return
        spi = next(filter(None, map(refused_spi, notifications)), None)
        if spi is not None:
            self._station.emit(SpiRefused(remote, spi, authenticated=False))

    def _find(self, header: Header, remote: TransportAddress) -> Session | None:
        """The channel of a message; None for a message 1.  Raises ``UnknownCookies``."""
        cookies = (header.initiator_cookie, header.responder_cookie)
        initiated = self._directory.initiated(header.initiator_cookie)
        if initiated is not None:
            if initiated.end is not None and initiated.cookies != cookies:
                raise UnknownCookies("another responder cookie than the channel's")
            reply = header.responder_cookie != NO_COOKIE
            # Some refuse message 1 without a cookie of their own.
            if not reply and header.exchange != ExchangeType.INFORMATIONAL:
                raise UnknownCookies("our own message 1, reflected")
            return initiated
        answered = self._directory.answered(cookies)
        if answered is not None:
            return answered
        if (
            header.responder_cookie == NO_COOKIE
            and header.exchange == ExchangeType.IDENTITY_PROTECTION
            and not header.encrypted
        ):
            return None
        raise UnknownCookies(header.exchange.name)

    def _receive_first(
        self,
        now: float,
        header: Header,
        data: bytes,
        local: TransportAddress,
        remote: TransportAddress,
    ) -> None:
        """Message 1 of a main mode."""
        if header.message_id:
            raise InvalidMessageId("not 0 in main mode")
        known = self._directory.begun_with(data, remote.address)
        if known is not None and isinstance(known.opening, ResponderOpening):
            known.opening.repeated(data, Path(local, remote))
        if not self._directory.half_open.admits(remote.address):
            raise HalfOpenSourceLimit(str(remote.address))

        def make_room() -> None:
            leaving = self._directory.half_open.must_go()
            if leaving is not None:
                leaving.opening_failed(now, Failure.LIMIT, "made room for a newcomer")

        try:
            Session.answer(
                self._station, self._directory, (local, remote), header, data, now, make_room
            )
        except NoProposalChosen:
            answer = clear_refusal(self._station, header, NotifyType.NO_PROPOSAL_CHOSEN)
            if len(answer) <= len(data):  # never an amplifier
                self._station.transmit(answer, local, remote)
            raise

    # Time and output.

    def handle_timer(self, now: float) -> None:
        """Do what is due.  May be called early or late."""
        self._station.alarms.ring(now)

    def prepare(self) -> bool:
        """Use an idle moment to make one key pair ahead; says whether one was missing."""
        return self._station.key_pairs.refill()

    def next_timer(self) -> float | None:
        """When ``handle_timer`` must be called next."""
        return self._station.alarms.next()

    def next_event(self) -> Event | None:
        """The oldest event that was not fetched yet."""
        return self._station.events.popleft() if self._station.events else None

    def datagrams_to_send(self) -> list[Datagram]:
        """All datagrams since the last call, in order."""
        datagrams, self._station.datagrams = self._station.datagrams, []
        return datagrams

    def snapshot(self) -> EndpointView:
        """What is there now."""
        half_open = self._directory.half_open
        return EndpointView(
            channels=tuple(
                ChannelView(
                    session.number,
                    session.local,
                    session.remote,
                    session.end.identity if session.end else None,
                    session.initiator,
                    session.proposal,
                    session.begun_at,
                    session.established_at,
                    session.tunnel_count,
                )
                for session in self._directory.sessions.values()
            ),
            tunnels=len(self._directory.tunnels),
            half_open=len(half_open),
            half_open_unanswered=half_open.fresh,
            unknown_handles=self._unknown_handles,
            dropped=dict(self._dropped),
        )
