"""Main mode with RSA signatures, RFC 2409 section 5.1: the exchange, without time or addresses.

        Initiator                          Responder
        HDR, SA                 MM1 -->
                                <-- MM2    HDR, SA
        HDR, KE, Ni             MM3 -->
                                <-- MM4    HDR, KE, Nr
        HDR*, IDii, SIG_I       MM5 -->
                                <-- MM6    HDR*, IDir, SIG_R

Nothing before message 5 is authenticated, so whoever can read the wire can put a
forged clear message before the true one.  Therefore the first comer does not win:
each side follows a few rivals (``CANDIDATES_MOST``) side by side, and the one under
which a right signature arrives is the channel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import rsa

from ike.constants import CANDIDATES_MOST, COOKIE_LENGTH, HEADER_LENGTH, NONCE_LENGTH, STRIKES_MOST
from ike.errors import (
    Dropped,
    DuplicateMessage,
    GarbledMessage,
    InvalidCookie,
    UnexpectedMessage,
    WrongSignature,
)
from ike.events import Identity
from ike.groups import KeyPair
from ike.header import NO_COOKIE, Header
from ike.identity import Identification
from ike.registry import ExchangeType, NotifyType, PayloadType
from ike.signer import verifying_key
from ike.station import Station
from ike.v1.informational import channel_notification
from ike.v1.keymat import ChannelKeys
from ike.v1.message import Chain, body_of, clear_message
from ike.v1.payloads import (
    IdentificationPayload,
    KeyExchange,
    Nonce,
    Notification,
    Payload,
    SecurityAssociation,
    Signature,
)
from ike.v1.proposals import (
    ChannelChoice,
    choose_channel,
    chosen_channel,
    offer_channel,
)
from ike.v1.protection import cut_decrypted, decrypted_chain, encrypted_message, last_block
from ike.v1.transitions import MAIN_MODE, MainModeState, MainModeStep, Progress
from ike.v1.vendor import Vendor

_MAIN = ExchangeType.IDENTITY_PROTECTION


@dataclass(frozen=True, slots=True)
class Authenticated:
    """The end of phase 1.  ``block`` is its last block of ciphertext, ``vendors`` the peer's."""

    keys: ChannelKeys
    block: bytes
    choice: ChannelChoice
    identity: Identity
    key: rsa.RSAPublicKey
    vendors: frozenset[Vendor] = frozenset()
    initial_contact: bool = False  # whether the peer said in message 5 that it is the first


@dataclass(slots=True)
class _Candidate:
    """One way in which messages 1 to 4 may have gone."""

    keys: ChannelKeys
    own_public: bytes
    peer_public: bytes
    offer: bytes  # SAi_b
    choice: ChannelChoice
    iv: bytes  # for the next encrypted message
    own_message: bytes = b""  # the initiator's message 5
    strikes: int = 0

    def digest(self, initiators: bool, own: bool, identification: bytes) -> bytes:
        """HASH_I or HASH_R; ``own``: whether the side that signs is ours."""
        publics = (self.own_public, self.peer_public)
        first, second = publics if own else publics[::-1]
        return self.keys.signed_hash(first, second, initiators, self.offer, identification)


@dataclass(frozen=True, slots=True)
class _Claim:
    """Who the sender of an encrypted message says to be, not yet verified."""

    identity: Identity
    identification: bytes
    signature: bytes
    initial_contact: bool


def _read_claim(candidate: _Candidate, header: Header, message: bytes) -> _Claim:
    """IDxx and SIG_x of message 5 or 6, and INITIAL-CONTACT; all else beside them is ignored."""
    chain = cut_decrypted(header, decrypted_chain(candidate.keys, candidate.iv, header, message))
    try:
        payload = chain.one(IdentificationPayload)
        signature = chain.one(Signature)
    except Dropped as error:
        raise GarbledMessage(f"{error.trigger}: {error}") from error
    return _Claim(
        payload.identification.identity(),
        payload.octets,
        signature.octets,
        _says_initial_contact(candidate.keys, chain),
    )


def _says_initial_contact(keys: ChannelKeys, chain: Chain) -> bool:
    """RFC 2407 section 4.6.3.3.  With both cookies as SPI, or none: any other is not about us."""
    try:
        notifications = chain.all(Notification)
    except Dropped:
        return False
    return any(
        notification.notify == NotifyType.INITIAL_CONTACT
        and notification.spi in (b"".join(keys.cookies), b"")
        for notification in notifications
    )


def _exchange_payloads(chain: Chain) -> tuple[bytes, bytes]:
    return chain.one(KeyExchange).public, chain.one(Nonce).octets


@dataclass(slots=True)
class _Branch:
    """What one message 2 began at the initiator."""

    cookies: tuple[bytes, bytes]
    choice: ChannelChoice
    pair: KeyPair
    nonce: bytes
    message_3: bytes
    candidates: list[_Candidate] = field(default_factory=list)


class MainModeInitiator:
    """Our side when we begin."""

    def __init__(
        self,
        station: Station,
        identity: Identity,
        first_contact: Callable[[], bool] = lambda: False,
    ) -> None:
        """``first_contact``: asked when message 5 is made, whether it says INITIAL-CONTACT."""
        self._station = station
        self._first_contact = first_contact
        self._identity = IdentificationPayload.of(Identification.of_identity(identity))
        self._progress = Progress(MAIN_MODE, MainModeState.IDLE)
        self._branches: dict[bytes, _Branch] = {}
        self._taken: set[bytes] = set()
        self.cookie = station.random_nonzero(COOKIE_LENGTH)
        offer = offer_channel(station.configuration)
        self._offer = body_of(offer)
        self._message_1 = clear_message((self.cookie, NO_COOKIE), _MAIN, 0, [offer])
        self._progress.advance(MainModeStep.INITIATE)

    @property
    def state(self) -> MainModeState:
        return self._progress.state

    def close(self) -> None:
        self._progress.advance(MainModeStep.CLOSE)

    def outstanding(self) -> list[tuple[str, bytes]]:
        """The messages that wait for an answer, with their names."""
        if not self._branches:
            return [("MM1", self._message_1)]
        waiting: list[tuple[str, bytes]] = []
        for branch in self._branches.values():
            waiting += [("MM5", candidate.own_message) for candidate in branch.candidates]
            if not branch.candidates:
                waiting.append(("MM3", branch.message_3))
        return waiting

    def take_clear(self, header: Header, message: bytes) -> tuple[str, str, bytes]:
        """Message 2 or 4: its name, and the name and octets of the reply."""
        if message in self._taken:
            raise DuplicateMessage("message 2 or 4 again")
        chain = Chain.cut(header.next_payload, message[HEADER_LENGTH:], padded=False)
        if chain.first == PayloadType.SECURITY_ASSOCIATION:
            reply = ("MM2", "MM3", self._take_2(header, chain))
        else:
            reply = ("MM4", "MM5", self._take_4(header, chain))
        self._taken.add(message)
        return reply

    def _take_2(self, header: Header, chain: Chain) -> bytes:
        self._progress.expect(MainModeStep.MM2_TAKEN)
        if header.responder_cookie in (NO_COOKIE, self.cookie):
            raise InvalidCookie("no cookie of the responder")
        if header.responder_cookie in self._branches:
            raise UnexpectedMessage("another message 2 with the same cookies")
        if len(self._branches) == CANDIDATES_MOST:
            raise UnexpectedMessage("too many rival messages 2")
        choice = chosen_channel(chain.one(SecurityAssociation), self._station.configuration)
        pair = self._station.key_pairs.take(choice.suite.group)
        nonce = self._station.random_octets(NONCE_LENGTH)
        cookies = (self.cookie, header.responder_cookie)
        reply = clear_message(cookies, _MAIN, 0, [KeyExchange(pair.public), Nonce(nonce)])
        self._branches[header.responder_cookie] = _Branch(cookies, choice, pair, nonce, reply)
        self._progress.advance(MainModeStep.MM2_TAKEN)
        return reply

    def _take_4(self, header: Header, chain: Chain) -> bytes:
        self._progress.expect(MainModeStep.MM4_TAKEN)
        branch = self._branches.get(header.responder_cookie)
        if branch is None:
            raise UnexpectedMessage("message 4 with another cookie than message 2")
        if len(self._candidates()) == CANDIDATES_MOST:
            raise UnexpectedMessage("too many rival messages 4")
        public, nonce = _exchange_payloads(chain)
        suite = branch.choice.suite
        keys = ChannelKeys.derive(
            suite.hash,
            suite.cipher,
            branch.cookies,
            (branch.nonce, nonce),
            branch.pair.shared_secret(public),
        )
        iv = keys.first_iv(branch.pair.public, public)
        candidate = _Candidate(keys, branch.pair.public, public, self._offer, branch.choice, iv)
        digest = candidate.digest(True, True, self._identity.octets)
        payloads: list[Payload] = [self._identity, Signature(self._station.signer.sign(digest))]
        if self._first_contact():
            payloads.append(channel_notification(keys, NotifyType.INITIAL_CONTACT))
        reply = encrypted_message(keys, iv, _MAIN, 0, payloads)
        candidate.own_message = reply
        candidate.iv = last_block(keys, reply)
        branch.candidates.append(candidate)
        self._progress.advance(MainModeStep.MM4_TAKEN)
        return reply

    def _candidates(self) -> list[_Candidate]:
        return [c for branch in self._branches.values() for c in branch.candidates]

    def all_candidate_keys(self) -> list[tuple[ChannelKeys, bytes]]:
        """The same for every responder cookie."""
        return [(candidate.keys, candidate.iv) for candidate in self._candidates()]

    def candidate_keys(self, responder_cookie: bytes) -> list[tuple[ChannelKeys, bytes]]:
        """Unproved keys, each with its last block: what a refusal may be encrypted with."""
        branch = self._branches.get(responder_cookie)
        return [(c.keys, c.iv) for c in branch.candidates] if branch else []

    def take_6(
        self, header: Header, message: bytes, keys: tuple[rsa.RSAPublicKey, ...]
    ) -> Authenticated:
        """The end.

        Raises ``WrongSignature`` when it decrypts but is not signed with one of ``keys``;
        ``beaten`` says then whether any hope is left.
        """
        self._progress.expect(MainModeStep.MM6_TAKEN)
        branch = self._branches.get(header.responder_cookie)
        failure: Dropped = GarbledMessage("under no key that we know")
        for candidate in list(branch.candidates) if branch else []:
            try:
                claim = _read_claim(candidate, header, message)
                digest = candidate.digest(False, False, claim.identification)
                key = verifying_key(keys, claim.signature, digest)
            except WrongSignature as error:
                candidate.strikes += 1
                failure = error
            except Dropped as error:
                failure = failure if isinstance(failure, WrongSignature) else error
            else:
                self._progress.advance(MainModeStep.MM6_TAKEN)
                block = last_block(candidate.keys, message)
                return Authenticated(candidate.keys, block, candidate.choice, claim.identity, key)
        if isinstance(failure, WrongSignature):
            self._progress.advance(MainModeStep.CANDIDATE_REJECTED)
        raise failure

    @property
    def beaten(self) -> bool:
        """Whether every candidate was signed wrongly as often as we stand it."""
        return all(candidate.strikes >= STRIKES_MOST for candidate in self._candidates())


class MainModeResponder:
    """Our side when the peer begins."""

    def __init__(
        self, station: Station, identity: Identity, header: Header, message: bytes
    ) -> None:
        """Takes message 1, or raises and was never there."""
        self._station = station
        self._identity = IdentificationPayload.of(Identification.of_identity(identity))
        self._progress = Progress(MAIN_MODE, MainModeState.IDLE)
        chain = Chain.cut(header.next_payload, message[HEADER_LENGTH:], padded=False)
        if chain.first != PayloadType.SECURITY_ASSOCIATION:
            raise UnexpectedMessage("message 1 does not begin with SA")
        self._offer = chain.bodies(PayloadType.SECURITY_ASSOCIATION)[0]
        offer = chain.one(SecurityAssociation)
        self._choice = choose_channel(offer, station.configuration)
        self.cookies = (header.initiator_cookie, station.random_nonzero(COOKIE_LENGTH))
        self.message_2 = clear_message(self.cookies, _MAIN, 0, [self._choice.answer])
        self._candidates: list[_Candidate] = []
        self._claim: tuple[_Candidate, _Claim, bytes] | None = None
        self._progress.advance(MainModeStep.MM1_TAKEN)

    @property
    def state(self) -> MainModeState:
        return self._progress.state

    def close(self) -> None:
        self._progress.advance(MainModeStep.CLOSE)

    def take_3(self, header: Header, message: bytes) -> bytes:
        """Message 3; returns message 4."""
        self._progress.expect(MainModeStep.MM3_TAKEN)
        if len(self._candidates) == CANDIDATES_MOST:
            raise UnexpectedMessage("too many rival messages 3")
        chain = Chain.cut(header.next_payload, message[HEADER_LENGTH:], padded=False)
        public, nonce = _exchange_payloads(chain)
        suite = self._choice.suite
        suite.group.check(public)  # before a key pair is spent on it
        pair = self._station.key_pairs.take(suite.group)
        own_nonce = self._station.random_octets(NONCE_LENGTH)
        keys = ChannelKeys.derive(
            suite.hash,
            suite.cipher,
            self.cookies,
            (nonce, own_nonce),
            pair.shared_secret(public),
        )
        iv = keys.first_iv(public, pair.public)
        self._candidates.append(
            _Candidate(keys, pair.public, public, self._offer, self._choice, iv)
        )
        self._progress.advance(MainModeStep.MM3_TAKEN)
        return clear_message(self.cookies, _MAIN, 0, [KeyExchange(pair.public), Nonce(own_nonce)])

    def take_5(self, header: Header, message: bytes) -> Identity:
        """Message 5: who the peer claims to be.  Its signature waits for ``verify``."""
        self._progress.expect(MainModeStep.MM5_TAKEN)
        failure: Dropped = GarbledMessage("under no key that we know")
        for candidate in self._candidates:
            try:
                claim = _read_claim(candidate, header, message)
            except Dropped as error:
                failure = error
            else:
                self._claim = (candidate, claim, message)
                self._progress.advance(MainModeStep.MM5_TAKEN)
                return claim.identity
        raise failure

    def verify(self, keys: tuple[rsa.RSAPublicKey, ...]) -> tuple[Authenticated, bytes]:
        """Verify message 5 with the keys of the claimed identity; returns message 6 with the end.

        Raises ``WrongSignature``: the exchange waits for another message 5, unless
        ``beaten``.
        """
        self._progress.expect(MainModeStep.KEY_VERIFIED)
        assert self._claim is not None
        candidate, claim, message = self._claim
        try:
            digest = candidate.digest(True, False, claim.identification)
            key = verifying_key(keys, claim.signature, digest)
        except WrongSignature:
            candidate.strikes += 1
            self._progress.advance(MainModeStep.CANDIDATE_REJECTED)
            raise
        digest = candidate.digest(False, True, self._identity.octets)
        signature = Signature(self._station.signer.sign(digest))
        iv = last_block(candidate.keys, message)
        reply = encrypted_message(candidate.keys, iv, _MAIN, 0, [self._identity, signature])
        block = last_block(candidate.keys, reply)
        end = Authenticated(
            candidate.keys,
            block,
            self._choice,
            claim.identity,
            key,
            initial_contact=claim.initial_contact,
        )
        self._progress.advance(MainModeStep.KEY_VERIFIED)
        return end, reply

    def refusal_keys(self) -> tuple[ChannelKeys, bytes] | None:
        """The claimant's keys with the last block of its message 5, to tell it of a refusal."""
        if self._claim is None:
            return None
        candidate, _, message = self._claim
        return candidate.keys, last_block(candidate.keys, message)

    @property
    def beaten(self) -> bool:
        """Whether every candidate was signed wrongly as often as we stand it."""
        return all(candidate.strikes >= STRIKES_MOST for candidate in self._candidates)
