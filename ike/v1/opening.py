"""Main mode in time: retransmission, duplicates, deadlines, and hints that nobody signed.

A hint is a notify in the clear, one under keys that no signature has confirmed, or an answer that
we can't agree to.
It does not end the exchange (RFC 4322 section 9.2), since anybody may have sent it;
it only makes the interval that runs the last one.
"""

from __future__ import annotations

from typing import NoReturn, Protocol

from cryptography.hazmat.primitives.asymmetric import rsa

from ike.alarms import Alarm
from ike.constants import CLAIMS_MOST, DECISION_LONGEST, HEADER_LENGTH, PORT_TRIES
from ike.errors import (
    ClearMessage,
    Dropped,
    DuplicateMessage,
    InvalidIdentity,
    NoProposalChosen,
    UnauthenticatedNotify,
    UnexpectedMessage,
    WrongHash,
    WrongIdentity,
    WrongSignature,
)
from ike.events import (
    Encapsulation,
    ExchangeStarted,
    Failure,
    Identity,
    PeerKeyNeeded,
    TransportAddress,
)
from ike.header import Header
from ike.registry import NotifyType
from ike.retransmit import AnsweredMessages, Retransmission
from ike.station import Station
from ike.v1.informational import (
    channel_delete,
    channel_notification,
    informational,
    random_message_id,
    verified_informational,
)
from ike.v1.keymat import ChannelKeys
from ike.v1.main_mode import Authenticated, MainModeInitiator, MainModeResponder, OwnMessage
from ike.v1.message import Chain
from ike.v1.nat import NatFindings, Path
from ike.v1.payloads import Delete, Notification
from ike.v1.transitions import MainModeState

_REFUSALS = {
    NotifyType.NO_PROPOSAL_CHOSEN: Failure.NO_PROPOSAL,
    NotifyType.AUTHENTICATION_FAILED: Failure.BAD_SIGNATURE,
    NotifyType.INVALID_SIGNATURE: Failure.BAD_SIGNATURE,
    NotifyType.INVALID_KEY_INFORMATION: Failure.BAD_SIGNATURE,
    NotifyType.INVALID_ID_INFORMATION: Failure.WRONG_IDENTITY,
}


class Owner(Protocol):
    """The session, as its opening sees it.  ``arrival`` is where the last message came."""

    number: int
    local: TransportAddress
    remote: TransportAddress

    @property
    def path(self) -> Path: ...
    @property
    def arrival(self) -> Path: ...
    def send(
        self, name: str, message: bytes, retransmission: bool = False, floats: bool = False
    ) -> None: ...
    def send_again(self, name: str, message: bytes, path: Path) -> None: ...
    def follow_opening(self, nat: NatFindings, arrival: Path) -> None: ...
    def received(self, name: str, size: int) -> None: ...
    def proved_reachable(self) -> None: ...
    def claims_first_contact(self, identity: Identity) -> bool: ...
    def opened(self, now: float, end: Authenticated) -> None: ...
    def opening_failed(self, now: float, failure: Failure, detail: str) -> None: ...


class InitiatorOpening:
    """We began.  ``peer_keys`` and ``expected`` are what the peer must prove.

    Without ``peer_keys`` main mode runs as far as message 6, and only then asks for them: their
    look-up costs no time beside the exchange (RFC 4322 section 4.2).
    """

    def __init__(
        self,
        station: Station,
        owner: Owner,
        identity: Identity,
        expected: Identity,
        peer_keys: tuple[rsa.RSAPublicKey, ...],
        encapsulation: Encapsulation,
    ) -> None:
        self.encapsulation = encapsulation
        self.expected = expected
        self.peer_keys = peer_keys
        self._station = station
        self._owner = owner
        self._main = MainModeInitiator(
            station, identity, encapsulation, lambda: owner.claims_first_contact(expected)
        )
        self._retransmission = self._new_schedule()
        self._unanswered = 0  # intervals since the last answer
        self._alarm: Alarm | None = None
        self._hint: tuple[Failure, str] | None = None
        self._keys = peer_keys  # those that are known by now
        self._claims: list[tuple[Header, bytes]] = []  # messages 6 that wait for the keys
        self._patience: Alarm | None = None  # with the shell that looks for them

    @property
    def wants_keys(self) -> bool:
        return self.state is MainModeState.AWAIT_KEYS_FOR_6

    @property
    def cookie(self) -> bytes:
        return self._main.cookie

    @property
    def state(self) -> MainModeState:
        return self._main.state

    def _new_schedule(self) -> Retransmission:
        return Retransmission(self._station.configuration, self._station.random_octets)

    def start(self, now: float) -> None:
        for own in self._main.outstanding():
            self._send(own)
        self._arm(now)

    def _send(self, own: OwnMessage, retransmission: bool = False) -> None:
        self._owner.send(own.name, own.octets, retransmission, own.floats)

    def _arm(self, now: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._station.alarms.set(self._retransmission.sent(now), self._silence)

    def _silence(self, now: float) -> None:
        """Nothing came in the interval."""
        if self.wants_keys:  # the peer has answered: now it is our turn
            return
        if self._retransmission.exhausted:
            silence = (Failure.SILENCE, f"no answer while we {self.state.value}")
            failure, detail = self._hint or silence
            self._owner.opening_failed(now, failure, detail)
            return
        self._unanswered += 1
        for own in self._main.outstanding():
            self._send(own, retransmission=True)
            if own.may_stay and self._unanswered >= PORT_TRIES:
                # Perhaps a firewall lets port 500 and protocol 50 pass, and no more.
                self._owner.send(own.name, own.octets, retransmission=True)
        self._arm(now)

    def _hinted(self, failure: Failure, detail: str) -> None:
        self._hint = (failure, detail)
        self._retransmission.give_up_soon()

    def receive(self, now: float, header: Header, message: bytes) -> None:
        """A main mode message with our cookie; raises ``Dropped``."""
        if header.encrypted:
            self._receive_6(now, header, message)
            return
        owner = self._owner
        try:
            received, reply = self._main.take_clear(header, message, owner.path, owner.arrival)
        except NoProposalChosen as error:
            self._hinted(Failure.NO_PROPOSAL, str(error))
            raise
        self._owner.received(received, len(message))
        self._retransmission = self._new_schedule()
        self._unanswered = 0
        self._hint = None
        self._send(reply)
        self._arm(now)

    def _receive_6(self, now: float, header: Header, message: bytes) -> None:
        try:
            if not self._keys:
                self._claim_6(now, header, message)
                return
            end = self._main.take_6(header, message, self._keys)
        except WrongSignature as error:
            self._signed_wrongly(now, header, error)
            raise
        except (InvalidIdentity, WrongIdentity) as error:
            self._hinted(Failure.WRONG_IDENTITY, str(error))
            raise
        self._owner.received("MM6", len(message))
        self._signed_rightly(now, header, end)

    def _claim_6(self, now: float, header: Header, message: bytes) -> None:
        """Message 6 waits for the keys of its sender; nothing is sent again meanwhile.

        Any of the first few may be the true one, as with messages 2 and 4.
        """
        if any(message == other for _, other in self._claims):
            raise DuplicateMessage("message 6 again while its keys are looked up")
        if len(self._claims) == CLAIMS_MOST:
            raise UnexpectedMessage("too many rival messages 6")
        self._main.claim_6(header, message, self.expected)
        self._claims.append((header, message))
        if len(self._claims) > 1:
            return
        owner = self._owner
        owner.received("MM6", len(message))
        self._patience = self._station.alarms.set(now + DECISION_LONGEST, self._no_keys_in_time)
        self._station.emit(
            PeerKeyNeeded(owner.number, self.expected, owner.arrival.remote, initiator=True)
        )

    def _no_keys_in_time(self, now: float) -> None:
        self.refuse(now, NotifyType.AUTHENTICATION_FAILED, "no answer from our side about keys")

    def provide_peer_keys(self, now: float, keys: tuple[rsa.RSAPublicKey, ...]) -> None:
        """Raises ``Dropped``, and ``UnexpectedMessage`` if nobody asked."""
        if not self.wants_keys:
            raise UnexpectedMessage("no keys are wanted now")
        self._keys = keys
        claims, self._claims = self._claims, []
        failure: tuple[Header, WrongSignature] | None = None
        for header, message in claims:
            try:
                end = self._main.take_6(header, message, keys)
            except WrongSignature as error:
                failure = (header, error)
            else:
                self._signed_rightly(now, header, end)
                return
        assert failure is not None  # each could be read, and may have been signed wrongly only
        self._silence_patience()
        self._retransmission = self._new_schedule()
        self._signed_wrongly(now, *failure)
        raise failure[1]

    def refuse(self, now: float, notify: NotifyType, detail: str) -> None:
        """There are no keys to be had: tell the peer, and end."""
        cookies = dict.fromkeys(header.responder_cookie for header, _ in self._claims)
        for cookie in cookies:
            self._tell(notify, cookie)
        self._owner.opening_failed(now, Failure.NO_KEY, detail)

    def _signed_wrongly(self, now: float, header: Header, error: WrongSignature) -> None:
        self._main.reject()
        if self._main.beaten:
            self._tell(NotifyType.AUTHENTICATION_FAILED, header.responder_cookie)
            self._owner.opening_failed(now, Failure.BAD_SIGNATURE, str(error))
        elif not self._retransmission.exhausted:
            # It may have been corrupted on its way: ask at once for another copy.
            self._hint = (Failure.BAD_SIGNATURE, str(error))
            for own in self._main.outstanding():
                self._send(own, retransmission=True)
            self._arm(now)

    def _signed_rightly(self, now: float, header: Header, end: Authenticated) -> None:
        if end.identity != self.expected:
            detail = f"{end.identity} where {self.expected} was expected"
            self._tell(NotifyType.INVALID_ID_INFORMATION, header.responder_cookie)
            self._owner.opening_failed(now, Failure.WRONG_IDENTITY, detail)
            raise WrongIdentity(detail)
        self.close()
        self._owner.opened(now, end)

    def receive_hint(self, header: Header, message: bytes) -> None:
        """An informational message that nothing authenticates; always raises ``Dropped``."""
        if header.encrypted:
            chain = self._open_refusal(header, message)
        else:
            chain = Chain.cut(header.next_payload, message[HEADER_LENGTH:], padded=False)
        for notification in chain.all(Notification):
            failure = _REFUSALS.get(notification.notify)
            # Refusals of a proposal count only while one is on the way, and so on.
            early = self.state is MainModeState.AWAIT_MM2
            if failure is not None and early == (failure is Failure.NO_PROPOSAL):
                detail = f"the peer said {notification.notify.name}"
                self._hinted(failure, detail)
                raise UnauthenticatedNotify(detail)
        raise UnauthenticatedNotify("nothing that we heed")

    def _open_refusal(self, header: Header, message: bytes) -> Chain:
        failure: Dropped = WrongHash("no keys yet")
        for keys, block in self._main.candidate_keys(header.responder_cookie):
            try:
                return verified_informational(keys, block, header, message)
            except Dropped as error:
                failure = error
        raise failure

    def _tell(self, notify: NotifyType, responder_cookie: bytes) -> None:
        """Tell the peer why, under keys that it may have; nothing depends on it."""
        for keys, block in self._main.farewell_keys(responder_cookie):
            _send_refusal(self._station, self._owner, keys, block, notify)

    def take_leave(self) -> None:
        """We give up after message 5: the responder may hold a channel for which we have no key.

        The last block of message 6 begins the encryption.  If none came, it is that of message 5,
        as in refusals; a responder of our kind reads it.
        """
        for keys, block in self._main.farewell_keys():
            message_id = random_message_id(self._station)
            message = informational(keys, block, message_id, [channel_delete(keys)])
            self._owner.send("INFO", message)

    def close(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._silence_patience()

    def _silence_patience(self) -> None:
        if self._patience is not None:
            self._patience.cancel()


def _send_refusal(
    station: Station, owner: Owner, keys: ChannelKeys, block: bytes, notify: NotifyType
) -> None:
    message_id = random_message_id(station)
    payload = channel_notification(keys, notify)
    owner.send("INFO", informational(keys, block, message_id, [payload]))


class ResponderOpening:
    """The peer began.  Our messages go out again only when its requests come again."""

    def __init__(
        self,
        station: Station,
        owner: Owner,
        identity: Identity,
        encapsulation: Encapsulation,
        header: Header,
        message: bytes,
    ) -> None:
        """Takes message 1, or raises ``Dropped`` and was never there."""
        self._station = station
        self._owner = owner
        self._main = MainModeResponder(station, identity, encapsulation, header, message)
        self._answered = AnsweredMessages()
        self._message_1 = message
        self._alarm: Alarm | None = None
        self._message_5 = b""
        self._arrival_5: Path | None = None
        self._known: tuple[Identity, tuple[rsa.RSAPublicKey, ...]] | None = None
        self._claimed: Identity | None = None

    @property
    def cookies(self) -> tuple[bytes, bytes]:
        return self._main.cookies

    @property
    def state(self) -> MainModeState:
        return self._main.state

    @property
    def may_move(self) -> bool:
        """Whether message 5 may come from another address than message 1."""
        return self._main.may_move

    @property
    def wants_keys(self) -> bool:
        return self.state is MainModeState.AWAIT_PEER_KEYS

    def start(self, now: float) -> None:
        timeout = self._station.configuration.half_open_timeout
        self._alarm = self._station.alarms.set(now + timeout, self._time_over)
        self._owner.received("MM1", len(self._message_1))
        owner = self._owner
        self._station.emit(ExchangeStarted(owner.number, owner.local, owner.remote))
        self._answer(self._message_1, "MM2", self._main.message_2)

    def _time_over(self, now: float) -> None:
        detail = f"half open too long: {self.state.value}"
        self._owner.opening_failed(now, Failure.SILENCE, detail)

    def _answer(self, request: bytes, name: str, reply: bytes) -> None:
        self._answered.remember(request, name, reply)
        self._owner.send(name, reply)

    def repeated(self, message: bytes, arrival: Path) -> NoReturn:
        """Answer a duplicate of the request that was answered last; always raises ``Dropped``."""
        if self._answered.knows(message):
            again = self._answered.again(message)
            if again is not None:
                self._owner.send_again(*again, arrival)
        raise DuplicateMessage("answered before")

    def receive(self, now: float, header: Header, message: bytes) -> None:
        """A main mode message with both cookies; raises ``Dropped``."""
        if self._answered.knows(message):
            self.repeated(message, self._owner.arrival)
        if header.encrypted:
            self._receive_5(now, header, message)
        elif self.state is MainModeState.ESTABLISHED:
            raise ClearMessage("the channel is established")
        else:
            owner = self._owner
            reply = self._main.take_3(header, message, owner.path, owner.arrival)
            self._owner.received("MM3", len(message))
            self._owner.proved_reachable()
            if self._answered.knows(self._message_1):
                self._answered.forget()
            self._answer(message, "MM4", reply)

    def _receive_5(self, now: float, header: Header, message: bytes) -> None:
        if message == self._message_5 and self.state is MainModeState.AWAIT_PEER_KEYS:
            raise DuplicateMessage("message 5 again while its keys are looked up")
        identity = self._main.take_5(header, message)
        self._message_5 = message
        self._arrival_5 = self._owner.arrival
        self._claimed = identity
        self._owner.received("MM5", len(message))
        if self._known is not None and self._known[0] == identity:
            self.provide_peer_keys(now, self._known[1])
        else:
            owner = self._owner
            self._station.emit(PeerKeyNeeded(owner.number, identity, owner.arrival.remote))

    def provide_peer_keys(self, now: float, keys: tuple[rsa.RSAPublicKey, ...]) -> None:
        """Raises ``Dropped``, and ``UnexpectedMessage`` if nobody asked."""
        if self.state is not MainModeState.AWAIT_PEER_KEYS or self._claimed is None:
            raise UnexpectedMessage("no keys are wanted now")
        self._known = (self._claimed, keys)
        try:
            end, reply = self._main.verify(keys)
        except WrongSignature as error:
            if self._main.beaten:
                self.refuse(now, NotifyType.AUTHENTICATION_FAILED, str(error))
            raise
        self.close()
        self._answered.forget()
        if self._arrival_5 is not None:
            self._owner.follow_opening(end.nat, self._arrival_5)
        self._answer(self._message_5, "MM6", reply)
        self._owner.opened(now, end)

    def took_leave(self, header: Header, message: bytes) -> bool:
        """Whether an initiator that never got message 6 deletes the channel with this."""
        keys = self._main.refusal_keys()
        if keys is None:
            return False
        try:
            deletes = verified_informational(*keys, header, message).all(Delete)
        except Dropped:
            return False
        return channel_delete(keys[0]) in deletes

    def refuse(self, now: float, notify: NotifyType, detail: str) -> None:
        """Tell the peer, under its own keys, and end."""
        keys = self._main.refusal_keys()
        if keys is not None:
            _send_refusal(self._station, self._owner, *keys, notify)
        self._owner.opening_failed(now, Failure.BAD_SIGNATURE, detail)

    def close(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
