"""Main mode with RSA signatures, RFC 2409 section 5.1: the exchange, without time or addresses.

        Initiator                          Responder
        HDR, SA, VID..          MM1 -->
                                <-- MM2    HDR, SA, VID..
        HDR, KE, Ni, NAT-D..    MM3 -->
                                <-- MM4    HDR, KE, Nr, NAT-D..
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
    NoNatTraversal,
    UnexpectedMessage,
    WrongIdentity,
    WrongSignature,
)
from ike.events import Encapsulation, Identity
from ike.groups import KeyPair
from ike.header import NO_COOKIE, Header
from ike.identity import Identification
from ike.registry import ExchangeType, NotifyType, PayloadType
from ike.signer import verifying_key
from ike.station import Station
from ike.v1.informational import channel_notification
from ike.v1.keymat import ChannelKeys
from ike.v1.message import Chain, body_of, clear_message
from ike.v1.nat import NO_NAT, NatFindings, Path, discovery_payloads, findings
from ike.v1.payloads import (
    IdentificationPayload,
    KeyExchange,
    NatDiscovery,
    Nonce,
    Notification,
    Payload,
    SecurityAssociation,
    Signature,
    VendorId,
)
from ike.v1.proposals import (
    ChannelChoice,
    choose_channel,
    chosen_channel,
    offer_channel,
)
from ike.v1.protection import cut_decrypted, decrypted_chain, encrypted_message, last_block
from ike.v1.suites import ChannelSuite
from ike.v1.transitions import MAIN_MODE, MainModeState, MainModeStep, Progress
from ike.v1.vendor import Vendor, known_vendors, own_vendors, vendor_payloads

_MAIN = ExchangeType.IDENTITY_PROTECTION


Peer = tuple[Identity, int, int]
"""Who somebody is: the identity, and modulus and exponent of the key that proved it."""


@dataclass(frozen=True, slots=True)
class Authenticated:
    """The end of phase 1.

    ``block`` is its last block of ciphertext, ``vendors`` what the peer can do.
    """

    keys: ChannelKeys
    block: bytes
    choice: ChannelChoice
    identity: Identity
    key: rsa.RSAPublicKey
    vendors: frozenset[Vendor] = frozenset()
    nat: NatFindings = NO_NAT
    initial_contact: bool = False  # whether the peer said in message 5 that it is the first

    @property
    def peer(self) -> Peer:
        numbers = self.key.public_numbers()
        return self.identity, numbers.n, numbers.e


@dataclass(slots=True)
class _Candidate:
    """One way in which messages 1 to 4 may have gone."""

    keys: ChannelKeys
    own_public: bytes
    peer_public: bytes
    offer: bytes  # SAi_b
    choice: ChannelChoice
    iv: bytes  # for the next encrypted message
    nat: NatFindings = NO_NAT
    own_message: bytes = b""  # the initiator's message 5
    farewell: bytes = b""  # the last block of the newest message 6 that could be read
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


def _peer_vendors(chain: Chain, encapsulation: Encapsulation) -> frozenset[Vendor]:
    """What the peer can do; raises ``NoNatTraversal`` where it must know that and does not."""
    vendors = known_vendors(payload.octets for payload in chain.all(VendorId))
    if encapsulation is Encapsulation.UDP and Vendor.NAT_TRAVERSAL not in vendors:
        raise NoNatTraversal("ESP in UDP is ordered, and the peer knows no NAT traversal")
    return vendors


class _Traversal:
    """NAT traversal in messages 3 and 4, with a peer that said in 1 or 2 what it can do."""

    def __init__(self, encapsulation: Encapsulation, vendors: frozenset[Vendor]) -> None:
        self._ours = encapsulation
        self._known = Vendor.NAT_TRAVERSAL in vendors & own_vendors(encapsulation)

    def payloads(
        self, suite: ChannelSuite, cookies: tuple[bytes, bytes], path: Path
    ) -> list[NatDiscovery]:
        """Ours, for a message that goes out on ``path``."""
        if not self._known:
            return []
        wished = self._ours in (Encapsulation.UDP, Encapsulation.UDP_IF_POSSIBLE)
        return discovery_payloads(suite.hash, cookies, path, wished)

    def findings(
        self, suite: ChannelSuite, cookies: tuple[bytes, bytes], arrival: Path, chain: Chain
    ) -> NatFindings:
        """What a message says that came on ``arrival``."""
        if not self._known:
            return NatFindings(ours=self._ours)
        payloads = chain.all(NatDiscovery)
        found = findings(suite.hash, cookies, arrival, payloads, self._ours)
        if found.forced and not found.known:
            raise NoNatTraversal("ESP in UDP is ordered, and the peer sent no NAT-D")
        return found


@dataclass(slots=True)
class _Branch:
    """What one message 2 began at the initiator."""

    cookies: tuple[bytes, bytes]
    choice: ChannelChoice
    vendors: frozenset[Vendor]
    traversal: _Traversal
    pair: KeyPair
    nonce: bytes
    message_3: bytes
    candidates: list[_Candidate] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class OwnMessage:
    """One of ours to send.  ``floats``: from port 4500 to port 4500 (RFC 3947 section 4);
    ``may_stay``: it need not, since nobody is known to be behind a NAT."""

    name: str
    octets: bytes
    floats: bool = False
    may_stay: bool = False


def _message_5(candidate: _Candidate) -> OwnMessage:
    nat = candidate.nat
    return OwnMessage("MM5", candidate.own_message, nat.encapsulated, nat.optional)


class MainModeInitiator:
    """Our side when we begin."""

    def __init__(
        self,
        station: Station,
        identity: Identity,
        encapsulation: Encapsulation,
        first_contact: Callable[[], bool] = lambda: False,
    ) -> None:
        """``first_contact``: asked when message 5 is made, whether it says INITIAL-CONTACT."""
        self._station = station
        self._encapsulation = encapsulation
        self._first_contact = first_contact
        self._identity = IdentificationPayload.of(Identification.of_identity(identity))
        self._progress = Progress(MAIN_MODE, MainModeState.IDLE)
        self._branches: dict[bytes, _Branch] = {}
        self._taken: set[bytes] = set()
        self.cookie = station.random_nonzero(COOKIE_LENGTH)
        offer = offer_channel(station.configuration)
        self._offer = body_of(offer)
        payloads: list[Payload] = [
            offer,
            *vendor_payloads(own_vendors(encapsulation, station.configuration.sst)),
        ]
        self._message_1 = clear_message((self.cookie, NO_COOKIE), _MAIN, 0, payloads)
        self._progress.advance(MainModeStep.INITIATE)

    @property
    def state(self) -> MainModeState:
        return self._progress.state

    def close(self) -> None:
        self._progress.advance(MainModeStep.CLOSE)

    def outstanding(self) -> list[OwnMessage]:
        """The messages that wait for an answer."""
        if not self._branches:
            return [OwnMessage("MM1", self._message_1)]
        waiting: list[OwnMessage] = []
        for branch in self._branches.values():
            waiting += [_message_5(candidate) for candidate in branch.candidates]
            if not branch.candidates:
                waiting.append(OwnMessage("MM3", branch.message_3))
        return waiting

    def take_clear(
        self, header: Header, message: bytes, path: Path, arrival: Path
    ) -> tuple[str, OwnMessage]:
        """Message 2 or 4: its name, and the reply.

        ``path`` is where our messages go so far, ``arrival`` where this one came.
        """
        if message in self._taken:
            raise DuplicateMessage("message 2 or 4 again")
        chain = Chain.cut(header.next_payload, message[HEADER_LENGTH:], padded=False)
        if chain.first == PayloadType.SECURITY_ASSOCIATION:
            reply = ("MM2", OwnMessage("MM3", self._take_2(header, chain, path)))
        else:
            reply = ("MM4", _message_5(self._take_4(header, chain, arrival)))
        self._taken.add(message)
        return reply

    def _take_2(self, header: Header, chain: Chain, path: Path) -> bytes:
        self._progress.expect(MainModeStep.MM2_TAKEN)
        if header.responder_cookie in (NO_COOKIE, self.cookie):
            raise InvalidCookie("no cookie of the responder")
        if header.responder_cookie in self._branches:
            raise UnexpectedMessage("another message 2 with the same cookies")
        if len(self._branches) == CANDIDATES_MOST:
            raise UnexpectedMessage("too many rival messages 2")
        choice = chosen_channel(chain.one(SecurityAssociation), self._station.configuration)
        vendors = _peer_vendors(chain, self._encapsulation)
        traversal = _Traversal(self._encapsulation, vendors)
        pair = self._station.key_pairs.take(choice.suite.group)
        nonce = self._station.random_octets(NONCE_LENGTH)
        cookies = (self.cookie, header.responder_cookie)
        payloads: list[Payload] = [
            KeyExchange(pair.public),
            Nonce(nonce),
            *traversal.payloads(choice.suite, cookies, path),
        ]
        reply = clear_message(cookies, _MAIN, 0, payloads)
        branch = _Branch(cookies, choice, vendors, traversal, pair, nonce, reply)
        self._branches[header.responder_cookie] = branch
        self._progress.advance(MainModeStep.MM2_TAKEN)
        return reply

    def _take_4(self, header: Header, chain: Chain, arrival: Path) -> _Candidate:
        self._progress.expect(MainModeStep.MM4_TAKEN)
        branch = self._branches.get(header.responder_cookie)
        if branch is None:
            raise UnexpectedMessage("message 4 with another cookie than message 2")
        if len(self._candidates()) == CANDIDATES_MOST:
            raise UnexpectedMessage("too many rival messages 4")
        public, nonce = _exchange_payloads(chain)
        suite = branch.choice.suite
        nat = branch.traversal.findings(suite, branch.cookies, arrival, chain)
        keys = ChannelKeys.derive(
            suite.hash,
            suite.cipher,
            branch.cookies,
            (branch.nonce, nonce),
            branch.pair.shared_secret(public),
        )
        iv = keys.first_iv(branch.pair.public, public)
        candidate = _Candidate(
            keys, branch.pair.public, public, self._offer, branch.choice, iv, nat
        )
        digest = candidate.digest(True, True, self._identity.octets)
        payloads: list[Payload] = [self._identity, Signature(self._station.signer.sign(digest))]
        if self._first_contact():
            payloads.append(channel_notification(keys, NotifyType.INITIAL_CONTACT))
        reply = encrypted_message(keys, iv, _MAIN, 0, payloads)
        candidate.own_message = reply
        candidate.iv = last_block(keys, reply)
        branch.candidates.append(candidate)
        self._progress.advance(MainModeStep.MM4_TAKEN)
        return candidate

    def _candidates(self) -> list[_Candidate]:
        return [c for branch in self._branches.values() for c in branch.candidates]

    def farewell_keys(
        self, responder_cookie: bytes | None = None
    ) -> list[tuple[ChannelKeys, bytes]]:
        """Unproved keys, each with the block that begins what we tell the responder before we end.

        That is the last block of message 6; if none could be read, of message 5, as in a
        refusal.  Without a cookie: those of every responder.
        """
        branch = self._branches.get(responder_cookie or b"")
        candidates = branch.candidates if branch else []
        if responder_cookie is None:
            candidates = self._candidates()
        return [(c.keys, c.farewell or c.iv) for c in candidates]

    def candidate_keys(self, responder_cookie: bytes) -> list[tuple[ChannelKeys, bytes]]:
        """Unproved keys, each with its last block: what a refusal may be encrypted with."""
        branch = self._branches.get(responder_cookie)
        return [(c.keys, c.iv) for c in branch.candidates] if branch else []

    def claim_6(self, header: Header, message: bytes, expected: Identity) -> None:
        """Message 6, while the keys of ``expected`` are looked up: does it claim to be of them?

        Raises ``Dropped`` if it can't be read, ``WrongIdentity`` if it claims to be another's;
        ``take_6`` judges it when the keys are known.
        """
        self._progress.expect(MainModeStep.MM6_CLAIMED)
        branch = self._branches.get(header.responder_cookie)
        failure: Dropped = GarbledMessage("under no key that we know")
        for candidate in branch.candidates if branch else ():
            try:
                identity = self._claimed(candidate, header, message).identity
            except Dropped as error:
                failure = error
            else:
                if identity != expected:
                    raise WrongIdentity(f"{identity} where {expected} was expected")
                self._progress.advance(MainModeStep.MM6_CLAIMED)
                return
        raise failure

    @staticmethod
    def _claimed(candidate: _Candidate, header: Header, message: bytes) -> _Claim:
        claim = _read_claim(candidate, header, message)
        candidate.farewell = last_block(candidate.keys, message)
        return claim

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
        if branch is None:
            raise failure
        for candidate in branch.candidates:
            try:
                claim = self._claimed(candidate, header, message)
                digest = candidate.digest(False, False, claim.identification)
                key = verifying_key(keys, claim.signature, digest)
            except WrongSignature as error:
                candidate.strikes += 1
                failure = error
            except Dropped as error:
                failure = failure if isinstance(failure, WrongSignature) else error
            else:
                self._progress.advance(MainModeStep.MM6_TAKEN)
                return Authenticated(
                    candidate.keys,
                    last_block(candidate.keys, message),
                    candidate.choice,
                    claim.identity,
                    key,
                    branch.vendors,
                    candidate.nat,
                )
        raise failure

    def reject(self) -> None:
        """None of the messages 6 so far was signed with a key of the peer."""
        self._progress.advance(MainModeStep.CANDIDATE_REJECTED)

    @property
    def beaten(self) -> bool:
        """Whether every candidate was signed wrongly as often as we stand it."""
        return all(candidate.strikes >= STRIKES_MOST for candidate in self._candidates())


class MainModeResponder:
    """Our side when the peer begins."""

    def __init__(
        self,
        station: Station,
        identity: Identity,
        encapsulation: Encapsulation,
        header: Header,
        message: bytes,
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
        self._vendors = _peer_vendors(chain, encapsulation)
        self._traversal = _Traversal(encapsulation, self._vendors)
        self.cookies = (header.initiator_cookie, station.random_nonzero(COOKIE_LENGTH))
        common = self._vendors & own_vendors(encapsulation, station.configuration.sst)
        payloads: list[Payload] = [self._choice.answer, *vendor_payloads(common)]
        self.message_2 = clear_message(self.cookies, _MAIN, 0, payloads)
        self._candidates: list[_Candidate] = []
        self._claim: tuple[_Candidate, _Claim, bytes] | None = None
        self._progress.advance(MainModeStep.MM1_TAKEN)

    @property
    def state(self) -> MainModeState:
        return self._progress.state

    def close(self) -> None:
        self._progress.advance(MainModeStep.CLOSE)

    def take_3(self, header: Header, message: bytes, path: Path, arrival: Path) -> bytes:
        """Message 3, which came on ``arrival``; returns message 4, which goes out on ``path``."""
        self._progress.expect(MainModeStep.MM3_TAKEN)
        if len(self._candidates) == CANDIDATES_MOST:
            raise UnexpectedMessage("too many rival messages 3")
        chain = Chain.cut(header.next_payload, message[HEADER_LENGTH:], padded=False)
        public, nonce = _exchange_payloads(chain)
        suite = self._choice.suite
        suite.group.check(public)  # before a key pair is spent on it
        nat = self._traversal.findings(suite, self.cookies, arrival, chain)
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
            _Candidate(keys, pair.public, public, self._offer, self._choice, iv, nat)
        )
        self._progress.advance(MainModeStep.MM3_TAKEN)
        payloads: list[Payload] = [KeyExchange(pair.public), Nonce(own_nonce)]
        if nat.known:
            payloads += self._traversal.payloads(suite, self.cookies, path)
        return clear_message(self.cookies, _MAIN, 0, payloads)

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

    @property
    def may_move(self) -> bool:
        """Whether message 5 may come from another address than message 1."""
        return any(candidate.nat.follows for candidate in self._candidates)

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
            self._vendors,
            candidate.nat,
            claim.initial_contact,
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
