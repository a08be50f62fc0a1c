"""Quick mode, RFC 2409 section 5.5: the exchange, without time or addresses of datagrams.

        Initiator                                      Responder
        HDR*, HASH(1), SA, Ni, KE, IDci, IDcr  QM1 -->
                                               <-- QM2 HDR*, HASH(2), SA, Nr, KE, IDci, IDcr
        HDR*, HASH(3)                          QM3 -->

Always ESP in tunnel mode, in UDP if phase 1 found a NAT.  KE is there with perfect forward
secrecy, which is the rule, and absent without.  Whatever is wrong in a
message whose HASH is right is the fault of somebody we know, and is answered.
"""

from __future__ import annotations

from dataclasses import dataclass

from ike.constants import NONCE_LENGTH
from ike.errors import (
    Dropped,
    ExchangeRefused,
    InvalidIdentity,
    MissingPayload,
    NoProposalChosen,
    RepeatedPayload,
    UnexpectedMessage,
    UnsupportedDoi,
    WrongChoice,
)
from ike.events import EspSa, Failure, IPAddress, TrafficSelector
from ike.groups import KeyPair, ModpGroup
from ike.header import Header
from ike.identity import Identification, host_network
from ike.registry import ExchangeType, NotifyType, PayloadType, Protocol
from ike.station import Station
from ike.v1.keymat import ChannelKeys
from ike.v1.message import Chain
from ike.v1.nat import Path
from ike.v1.payloads import (
    IdentificationPayload,
    KeyExchange,
    Nonce,
    Notification,
    Payload,
    Proposal,
    SecurityAssociation,
)
from ike.v1.portkey import port_key
from ike.v1.proposals import TunnelChoice, choose_tunnel, chosen_tunnel, offer_tunnel
from ike.v1.protection import (
    HashPayload,
    encrypted_message,
    hashed_message,
    last_block,
    verified_chain,
    verify_closing_hash,
)
from ike.v1.responder_lifetime import announced_lifetime, lifetime_notice
from ike.v1.transitions import QUICK_MODE, Progress, QuickModeState, QuickModeStep

_QUICK = ExchangeType.QUICK_MODE

_NOTIFIES: tuple[tuple[type[Dropped], NotifyType], ...] = (
    (NoProposalChosen, NotifyType.NO_PROPOSAL_CHOSEN),
    (WrongChoice, NotifyType.BAD_PROPOSAL_SYNTAX),
    (InvalidIdentity, NotifyType.INVALID_ID_INFORMATION),
    (UnsupportedDoi, NotifyType.SITUATION_NOT_SUPPORTED),
    (Dropped, NotifyType.PAYLOAD_MALFORMED),
)


@dataclass(frozen=True, slots=True)
class Ends:
    """Between which gateways and for whom: our side first."""

    local: IPAddress
    remote: IPAddress
    local_selector: TrafficSelector
    remote_selector: TrafficSelector


def _port_key(keys: ChannelKeys, ends: Ends) -> bytes:
    return port_key(keys, (ends.local_selector, ends.remote_selector))


def _refusal(error: Dropped) -> ExchangeRefused:
    notify = next(notify for kind, notify in _NOTIFIES if isinstance(error, kind))
    failure = Failure.REFUSED if isinstance(error, NoProposalChosen) else Failure.MALFORMED
    return ExchangeRefused(notify, failure, f"{error.trigger}: {error}")


def _security_associations(
    keys: ChannelKeys,
    ends: Ends,
    choice: TunnelChoice,
    shared: bytes,
    nonces: tuple[bytes, bytes],
    own_spi: bytes,
    peer_spi: bytes,
    path: Path | None,
) -> tuple[EspSa, EspSa]:
    """Inbound and outbound.  Key material is cut into cipher key (with salt), then integrity."""
    suite = choice.suite
    cipher_octets = suite.cipher.key_length + suite.cipher.salt

    def one(spi: bytes, inbound: bool) -> EspSa:
        material = keys.tunnel_keys(shared, Protocol.ESP, spi, nonces, suite.key_octets)
        here, there = (ends.local, ends.local_selector), (ends.remote, ends.remote_selector)
        source, destination = (there, here) if inbound else (here, there)
        ports = None
        if path is not None:
            ports = path.inbound_ports if inbound else path.outbound_ports
        return EspSa(
            spi=int.from_bytes(spi, "big"),
            source=source[0],
            destination=destination[0],
            source_selector=source[1],
            destination_selector=destination[1],
            cipher=suite.cipher.name,
            encryption_key=material[:cipher_octets],
            integrity=suite.integrity.name if suite.integrity else None,
            integrity_key=material[cipher_octets:],
            extended_sequence_numbers=suite.extended,
            lifetime_seconds=choice.lifetime,
            lifetime_bytes=choice.lifetime_bytes,
            ports=ports,
        )

    return one(own_spi, inbound=True), one(peer_spi, inbound=False)


class QuickModeInitiator:
    """Our side when we begin."""

    def __init__(
        self,
        station: Station,
        keys: ChannelKeys,
        block: bytes,
        message_id: int,
        group: ModpGroup | None,
        ends: Ends,
        spi: bytes,
        path: Path | None = None,
        sst: bool = False,
    ) -> None:
        """``group``: of perfect forward secrecy.  ``path``: of ESP in UDP; None without UDP.

        ``sst``: port encryption is offered.
        """
        self._path = path
        self._sst = sst
        self.port_key: bytes | None = None  # if port encryption was agreed upon
        self._station = station
        self._keys = keys
        self._ends = ends
        self._group = group
        self._pair: KeyPair | None = station.key_pairs.take(group) if group else None
        self._nonce = station.random_octets(NONCE_LENGTH)
        self._progress = Progress(QUICK_MODE, QuickModeState.IDLE)
        self.message_id = message_id
        self.spi = spi
        self._ids = (
            IdentificationPayload.of(Identification.of_selector(ends.local_selector)),
            IdentificationPayload.of(Identification.of_selector(ends.remote_selector)),
        )
        payloads: list[Payload] = [
            offer_tunnel(station.configuration, group, spi, path is not None, sst),
            Nonce(self._nonce),
            *([KeyExchange(self._pair.public)] if self._pair else []),
            *self._ids,
        ]
        iv = keys.exchange_iv(block, message_id)
        self.message_1 = hashed_message(keys, iv, _QUICK, message_id, payloads)
        self._iv = last_block(keys, self.message_1)
        self._closing = b""
        self.nonces = (self._nonce, b"")  # ours and the peer's, which message 2 brings
        self._progress.advance(QuickModeStep.INITIATE)

    @property
    def state(self) -> QuickModeState:
        return self._progress.state

    def close(self) -> None:
        self._progress.advance(QuickModeStep.CLOSE)

    def take_2(self, header: Header, message: bytes) -> tuple[EspSa, EspSa]:
        """Message 2: the inbound and the outbound SA.

        Raises ``Dropped`` for what the peer cannot be blamed for, ``ExchangeRefused``
        for what it can.
        """
        self._progress.expect(QuickModeStep.QM2_TAKEN)
        chain = verified_chain(self._keys, self._iv, header, message, self._nonce)
        try:
            pair = self._read_2(chain)
        except Dropped as error:
            raise _refusal(error) from error
        nonces = self.nonces = (self._nonce, chain.one(Nonce).octets)
        digest = HashPayload(self._keys.closing_hash(self.message_id, nonces))
        iv = last_block(self._keys, message)
        self._closing = encrypted_message(self._keys, iv, _QUICK, self.message_id, [digest])
        self._progress.advance(QuickModeStep.QM2_TAKEN)
        return pair

    def _read_2(self, chain: Chain) -> tuple[EspSa, EspSa]:
        choice = chosen_tunnel(
            chain.one(SecurityAssociation),
            self._station.configuration,
            self._group,
            self._path is not None,
            self._sst,
        )
        nonce = chain.one(Nonce).octets
        shared = b""
        if self._pair is not None:
            shared = self._pair.shared_secret(chain.one(KeyExchange).public)
        elif chain.has(PayloadType.KEY_EXCHANGE):
            raise WrongChoice("a KE payload that we did not ask for")
        ids = [payload.identification.selector() for payload in chain.all(IdentificationPayload)]
        if ids != [self._ends.local_selector, self._ends.remote_selector]:
            raise InvalidIdentity("message 2 is for others than message 1")
        choice = announced_lifetime(choice, chain.all(Notification))
        nonces = (self._nonce, nonce)
        if choice.sst:
            self.port_key = _port_key(self._keys, self._ends)
        return _security_associations(
            self._keys, self._ends, choice, shared, nonces, self.spi, choice.spi, self._path
        )

    def moved(self, ends: Ends, path: Path) -> None:
        """The peer is elsewhere now; SAs that are made from now on lead there."""
        self._ends, self._path = ends, path

    def closing(self) -> bytes:
        """Message 3, after the inbound SA stands."""
        self._progress.advance(QuickModeStep.CLOSING_SENT)
        return self._closing


class QuickModeResponder:
    """Our side when the peer begins."""

    def __init__(
        self,
        station: Station,
        keys: ChannelKeys,
        block: bytes,
        header: Header,
        message: bytes,
        addresses: tuple[IPAddress, IPAddress],
        encapsulations: tuple[bool, ...] = (False,),
        path: Path | None = None,
        sst: bool = False,
    ) -> None:
        """Takes message 1, or raises and was never there.

        ``addresses``: ours and the peer's, which are the selectors if the message names
        none.  ``encapsulations``: see ``choose_tunnel``.  ``path``: of ESP in UDP, if it comes
        to that.  ``sst``: port encryption may be offered.
        Raises ``Dropped`` until the HASH was right, ``ExchangeRefused`` after.
        """
        self._station = station
        self._keys = keys
        self._path = path
        self._sst = sst
        self.port_key: bytes | None = None  # if port encryption was agreed upon
        self.message_id = header.message_id
        self._progress = Progress(QUICK_MODE, QuickModeState.IDLE)
        iv = keys.exchange_iv(block, header.message_id)
        chain = verified_chain(keys, iv, header, message)
        self._iv = last_block(keys, message)
        try:
            self._read_1(chain, addresses, encapsulations)
        except Dropped as error:
            raise _refusal(error) from error
        self._reply = b""
        self._nonces = (self._peer_nonce, station.random_octets(NONCE_LENGTH))
        self._progress.advance(QuickModeStep.QM1_TAKEN)

    def _read_1(
        self,
        chain: Chain,
        addresses: tuple[IPAddress, IPAddress],
        encapsulations: tuple[bool, ...],
    ) -> None:
        if len(chain.bodies(PayloadType.SECURITY_ASSOCIATION)) > 1:
            raise NoProposalChosen("several SA payloads in one quick mode")
        self._choose(chain, encapsulations)
        if not self._choice.encapsulated:
            self._path = None
        self._peer_nonce = chain.one(Nonce).octets
        self._public = b""
        if self._choice.group is not None:
            self._public = chain.one(KeyExchange).public
            self._choice.group.check(self._public)
        self._ids = chain.all(IdentificationPayload)
        if len(self._ids) == 1:
            raise MissingPayload("IDcr")
        if len(self._ids) > 2:
            raise RepeatedPayload("more than IDci and IDcr")
        if self._ids:
            theirs, ours = (payload.identification.selector() for payload in self._ids)
        else:
            ours, theirs = (TrafficSelector(host_network(address)) for address in addresses)
        if ours.network.version != theirs.network.version:
            raise InvalidIdentity("an IPv4 and an IPv6 side")
        self.ends = Ends(addresses[0], addresses[1], ours, theirs)

    def _choose(self, chain: Chain, encapsulations: tuple[bool, ...]) -> None:
        """What we could take: without port encryption, with it, or either as the shell decides."""
        self._choices: dict[bool, TunnelChoice] = {}
        refusal: NoProposalChosen | None = None
        for sst in (False, True) if self._sst else (False,):
            try:
                choice = choose_tunnel(
                    chain.one(SecurityAssociation),
                    self._station.configuration,
                    encapsulations,
                    chain.has(PayloadType.KEY_EXCHANGE),
                    sst,
                )
            except NoProposalChosen as error:
                refusal = refusal or error
            else:
                twin = next(iter(self._choices.values()), choice)
                if (choice.group, choice.encapsulated) == (twin.group, twin.encapsulated):
                    self._choices[sst] = choice
        if not self._choices:
            assert refusal is not None
            raise refusal
        self._choice = next(iter(self._choices.values()))

    @property
    def offers_sst(self) -> bool:
        """Whether the peer offers port encryption; it must say for whom."""
        return True in self._choices and bool(self._ids)

    @property
    def state(self) -> QuickModeState:
        return self._progress.state

    @property
    def nonces(self) -> tuple[bytes, bytes]:
        return self._nonces

    @property
    def path(self) -> Path | None:
        """Of ESP in UDP; None without UDP."""
        return self._path

    @property
    def peer_spi(self) -> bytes:
        return self._choice.spi

    def close(self) -> None:
        self._progress.advance(QuickModeStep.CLOSE)

    def moved(self, ends: Ends, path: Path) -> None:
        """The peer is elsewhere now; SAs that are made from now on lead there."""
        self.ends, self._path = ends, path

    def accept(self, spi: bytes, sst: bool = False) -> tuple[EspSa, EspSa]:
        """Go on, with ``spi`` for our inbound side: the inbound and the outbound SA.

        ``sst``: with port encryption.  Raises ``NoProposalChosen`` for what is not offered.
        """
        self._progress.expect(QuickModeStep.ACCEPTED)
        if sst not in self._choices or (sst and not self.offers_sst):
            raise NoProposalChosen(f"no proposal {'with' if sst else 'without'} port encryption")
        choice = self._choice = self._choices[sst]
        shared = b""
        key_exchange: list[Payload] = []
        if choice.group is not None:
            pair = self._station.key_pairs.take(choice.group)
            shared = pair.shared_secret(self._public)
            key_exchange = [KeyExchange(pair.public)]
        associations = _security_associations(
            self._keys, self.ends, choice, shared, self._nonces, spi, choice.spi, self._path
        )
        if sst:
            self.port_key = _port_key(self._keys, self.ends)
        proposal = Proposal(choice.proposal.number, Protocol.ESP, spi, (choice.transform,))
        payloads: list[Payload] = [
            SecurityAssociation((proposal,)),
            Nonce(self._nonces[1]),
            *key_exchange,
            *self._ids,
            *lifetime_notice(spi, choice),
        ]
        self._reply = hashed_message(
            self._keys, self._iv, _QUICK, self.message_id, payloads, self._nonces[0]
        )
        self._progress.advance(QuickModeStep.ACCEPTED)
        return associations

    def reply(self) -> bytes:
        """Message 2, after the inbound SA stands."""
        if self._progress.state is QuickModeState.AWAIT_INBOUND:
            self._iv = last_block(self._keys, self._reply)
        self._progress.advance(QuickModeStep.REPLY_SENT)
        return self._reply

    def take_3(self, header: Header, message: bytes) -> None:
        """Message 3; raises ``Dropped``."""
        if self._progress.state is not QuickModeState.AWAIT_QM3:
            raise UnexpectedMessage("message 3 of quick mode")
        verify_closing_hash(self._keys, self._iv, header, message, self._nonces)
        self._progress.advance(QuickModeStep.QM3_TAKEN)
