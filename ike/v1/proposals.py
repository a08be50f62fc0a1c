"""What we offer, what we take: the proposal lists ``modern`` and ``draft``.

``modern`` is AES with SHA2-256 and the groups 14 and 15.  ``draft`` is what
draft-richardson-ipsec-opportunistic section 5.7.1 and RFC 4322 section 4.6.1
ask for: 3DES with SHA1 or MD5 and the groups 5 and 2.  The responder follows its
own order of lists and within a list the order of the peer; so two of ours never
meet on ``draft``, and a downgrade on the way is caught since SAi_b is signed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ike import algorithms as a
from ike.configuration import Configuration
from ike.constants import (
    DEFAULT_LIFETIME,
    LIFETIME_SHORTEST,
    SPI_LOWEST,
    TRIPLE_DES_BYTES,
)
from ike.errors import MalformedPayload, NoProposalChosen, WrongChoice
from ike.groups import GROUPS, ModpGroup
from ike.registry import (
    KEY_IKE,
    Authentication,
    Encapsulation,
    EspTransform,
    Group,
    LifeType,
    Phase1Attribute,
    Phase2Attribute,
    Protocol,
)
from ike.v1.attributes import Attribute, AttributeSet
from ike.v1.payloads import Proposal, SecurityAssociation, Transform

_KILOBYTE = 1024


@dataclass(frozen=True, slots=True)
class ChannelSuite:
    """How a keying channel is protected."""

    profile: str
    cipher: a.CipherAlgorithm
    hash: a.HashAlgorithm
    group: ModpGroup

    def __str__(self) -> str:
        return f"{self.profile}: {self.cipher.name} {self.hash.name} {self.group.name}"

    def attributes(self) -> dict[int, int]:
        values: dict[int, int] = {
            Phase1Attribute.ENCRYPTION: self.cipher.number,
            Phase1Attribute.HASH: self.hash.number,
            Phase1Attribute.AUTHENTICATION: Authentication.RSA_SIGNATURES,
            Phase1Attribute.GROUP: self.group.number,
        }
        if self.cipher.key_bits is not None:
            values[Phase1Attribute.KEY_LENGTH] = self.cipher.key_bits
        return values


@dataclass(frozen=True, slots=True)
class TunnelSuite:
    """How the packets of a tunnel are protected."""

    profile: str
    cipher: a.EspCipher
    integrity: a.EspIntegrity | None
    extended: bool  # extended sequence numbers

    @property
    def key_octets(self) -> int:
        """KEYMAT wanted for one direction."""
        integrity = self.integrity.key_length if self.integrity else 0
        return self.cipher.key_length + self.cipher.salt + integrity

    @property
    def byte_limit(self) -> int | None:
        return TRIPLE_DES_BYTES if self.cipher.number is EspTransform.TRIPLE_DES else None

    def attributes(self, group: ModpGroup) -> dict[int, int]:
        values: dict[int, int] = {
            Phase2Attribute.GROUP: group.number,
            Phase2Attribute.ENCAPSULATION: Encapsulation.TUNNEL,
        }
        if self.integrity is not None:
            values[Phase2Attribute.AUTHENTICATION] = self.integrity.number
        if self.cipher.key_bits is not None:
            values[Phase2Attribute.KEY_LENGTH] = self.cipher.key_bits
        if self.extended:
            values[Phase2Attribute.EXTENDED_SEQUENCE_NUMBER] = 1
        return values


CHANNEL_SUITES: dict[str, tuple[ChannelSuite, ...]] = {
    "modern": tuple(
        ChannelSuite("modern", cipher, a.SHA2_256, GROUPS[group])
        for group in (Group.MODP_2048, Group.MODP_3072)  # the quicker first
        for cipher in (a.AES_CBC_256, a.AES_CBC_128)
    ),
    "draft": tuple(
        ChannelSuite("draft", a.TRIPLE_DES_CBC, hash_, GROUPS[group])
        for group in (Group.MODP_1536, Group.MODP_1024)  # RFC 4322 4.6.1: group 5 first
        for hash_ in (a.SHA1, a.MD5)
    ),
}

_MODERN_ESP: tuple[tuple[a.EspCipher, a.EspIntegrity | None], ...] = (
    (a.ESP_AES_GCM_128, None),
    (a.ESP_AES_GCM_256, None),
    (a.ESP_AES_CBC_128, a.ESP_HMAC_SHA2_256),
    (a.ESP_AES_CBC_256, a.ESP_HMAC_SHA2_256),
)

TUNNEL_SUITES: dict[str, tuple[TunnelSuite, ...]] = {
    "modern": tuple(
        TunnelSuite("modern", cipher, integrity, extended)
        for extended in (True, False)
        for cipher, integrity in _MODERN_ESP
    ),
    "draft": tuple(
        TunnelSuite("draft", a.ESP_TRIPLE_DES, integrity, False)
        for integrity in (a.ESP_HMAC_SHA1, a.ESP_HMAC_MD5)
    ),
}


@dataclass(frozen=True, slots=True)
class ChannelChoice:
    suite: ChannelSuite
    lifetime: int  # seconds
    answer: SecurityAssociation


@dataclass(frozen=True, slots=True)
class TunnelChoice:
    """``spi`` is the peer's.  ``offered_lifetime`` is what the proposal said, in seconds."""

    suite: TunnelSuite
    group: ModpGroup
    spi: bytes
    lifetime: int
    offered_lifetime: int
    lifetime_bytes: int | None
    proposal: Proposal
    transform: Transform


def _channel_suites(configuration: Configuration) -> list[ChannelSuite]:
    return [suite for profile in configuration.profiles for suite in CHANNEL_SUITES[profile]]


def _tunnel_suites(configuration: Configuration) -> list[TunnelSuite]:
    return [
        suite
        for profile in configuration.profiles
        for suite in TUNNEL_SUITES[profile]
        if configuration.extended_sequence_numbers or not suite.extended
    ]


def _as_attributes(
    values: dict[int, int], life_type: int, duration: int, seconds: int
) -> tuple[Attribute, ...]:
    return (
        *(Attribute(int(kind), int(value)) for kind, value in values.items()),
        Attribute(life_type, LifeType.SECONDS),
        Attribute(duration, seconds),
    )


def offer_channel(configuration: Configuration) -> SecurityAssociation:
    """One proposal with a transform for each suite (RFC 2409 section 5)."""
    transforms = tuple(
        Transform(
            number,
            KEY_IKE,
            _as_attributes(
                suite.attributes(),
                Phase1Attribute.LIFE_TYPE,
                Phase1Attribute.LIFE_DURATION,
                configuration.channel_lifetime,
            ),
        )
        for number, suite in enumerate(_channel_suites(configuration), 1)
    )
    return SecurityAssociation((Proposal(1, Protocol.ISAKMP, b"", transforms),))


def offer_tunnel(configuration: Configuration, group: ModpGroup, spi: bytes) -> SecurityAssociation:
    """One ESP proposal with a transform for each suite."""
    transforms = tuple(
        Transform(
            number,
            suite.cipher.number,
            _as_attributes(
                suite.attributes(group),
                Phase2Attribute.LIFE_TYPE,
                Phase2Attribute.LIFE_DURATION,
                configuration.tunnel_lifetime,
            ),
        )
        for number, suite in enumerate(_tunnel_suites(configuration), 1)
    )
    return SecurityAssociation((Proposal(1, Protocol.ESP, spi, transforms),))


def _phase1_set(transform: Transform) -> AttributeSet | None:
    if transform.identifier != KEY_IKE:
        return None
    return AttributeSet.gather(
        transform.attributes, Phase1Attribute.LIFE_TYPE, Phase1Attribute.LIFE_DURATION
    )


def _phase2_set(transform: Transform) -> AttributeSet | None:
    return AttributeSet.gather(
        transform.attributes, Phase2Attribute.LIFE_TYPE, Phase2Attribute.LIFE_DURATION
    )


def _lifetime(attributes: AttributeSet, own: int) -> int:
    """The shorter of both, but not absurdly short."""
    offered = attributes.lifetimes.get(LifeType.SECONDS, DEFAULT_LIFETIME)
    return max(min(offered, own), min(own, LIFETIME_SHORTEST))


def choose_channel(offer: SecurityAssociation, configuration: Configuration) -> ChannelChoice:
    """The responder's choice from message 1.

    A transform counts only if its attributes are exactly those of a suite, lifetimes
    apart: whatever else it asks for is not understood.  Raises ``NoProposalChosen``;
    ``MalformedPayload`` for several proposals (RFC 2409 section 5).
    """
    if len(offer.proposals) != 1:
        raise MalformedPayload(f"{len(offer.proposals)} proposals in phase 1")
    proposal = offer.proposals[0]
    if proposal.protocol != Protocol.ISAKMP:
        raise NoProposalChosen(f"protocol {proposal.protocol} in phase 1")
    offered = [(t, s) for t in proposal.transforms if (s := _phase1_set(t)) is not None]
    for profile in configuration.profiles:
        for transform, attributes in offered:
            for suite in CHANNEL_SUITES[profile]:
                if attributes.values == suite.attributes():
                    answer = Proposal(proposal.number, Protocol.ISAKMP, b"", (transform,))
                    lifetime = _lifetime(attributes, configuration.channel_lifetime)
                    return ChannelChoice(suite, lifetime, SecurityAssociation((answer,)))
    raise NoProposalChosen("nothing in common in phase 1")


def _only_transform(answer: SecurityAssociation) -> tuple[Proposal, Transform]:
    if len(answer.proposals) != 1 or len(answer.proposals[0].transforms) != 1:
        raise WrongChoice("the answer is not one transform of one proposal")
    return answer.proposals[0], answer.proposals[0].transforms[0]


def chosen_channel(answer: SecurityAssociation, configuration: Configuration) -> ChannelChoice:
    """The initiator's reading of message 2; raises ``WrongChoice`` for what was not offered."""
    proposal, transform = _only_transform(answer)
    attributes = _phase1_set(transform)
    if proposal.protocol == Protocol.ISAKMP and attributes is not None:
        for suite in _channel_suites(configuration):
            if attributes.values == suite.attributes():
                lifetime = _lifetime(attributes, configuration.channel_lifetime)
                return ChannelChoice(suite, lifetime, answer)
    raise WrongChoice("a transform that we did not offer")


def _alone(proposals: Iterable[Proposal]) -> list[Proposal]:
    """Proposals that want ESP and nothing besides (like numbers mean "and", RFC 2408 4.2)."""
    numbers = [proposal.number for proposal in proposals]
    return [
        proposal
        for proposal in proposals
        if proposal.protocol == Protocol.ESP
        and numbers.count(proposal.number) == 1
        and valid_spi(proposal.spi)
    ]


def valid_spi(spi: bytes) -> bool:
    return len(spi) == 4 and int.from_bytes(spi, "big") >= SPI_LOWEST


def _tunnel_choice(
    suite: TunnelSuite,
    group: ModpGroup,
    attributes: AttributeSet,
    own_lifetime: int,
    proposal: Proposal,
    transform: Transform,
) -> TunnelChoice:
    limits = [suite.byte_limit] if suite.byte_limit is not None else []
    if kilobytes := attributes.lifetimes.get(LifeType.KILOBYTES):
        limits.append(kilobytes * _KILOBYTE)
    return TunnelChoice(
        suite,
        group,
        proposal.spi,
        _lifetime(attributes, own_lifetime),
        attributes.lifetimes.get(LifeType.SECONDS, DEFAULT_LIFETIME),
        min(limits, default=None),
        proposal,
        transform,
    )


def choose_tunnel(offer: SecurityAssociation, configuration: Configuration) -> TunnelChoice:
    """The responder's choice from quick mode message 1; raises ``NoProposalChosen``.

    Perfect forward secrecy is required (RFC 4322 section 4.6.1), in any group that the
    profiles in use know.
    """
    suites = _tunnel_suites(configuration)
    groups = {int(suite.group.number): suite.group for suite in _channel_suites(configuration)}
    offered = [
        (proposal, transform, attributes)
        for proposal in _alone(offer.proposals)
        for transform in proposal.transforms
        if (attributes := _phase2_set(transform)) is not None
    ]
    for profile in configuration.profiles:
        for proposal, transform, attributes in offered:
            group = groups.get(_group_number(attributes))
            if group is None:
                continue
            for suite in suites:
                if (
                    suite.profile == profile
                    and transform.identifier == suite.cipher.number
                    and attributes.values == suite.attributes(group)
                ):
                    own = configuration.tunnel_lifetime
                    return _tunnel_choice(suite, group, attributes, own, proposal, transform)
    raise NoProposalChosen("nothing in common in phase 2")


def _group_number(attributes: AttributeSet) -> int:
    return attributes.values.get(Phase2Attribute.GROUP) or 0


def chosen_tunnel(
    answer: SecurityAssociation, configuration: Configuration, group: ModpGroup
) -> TunnelChoice:
    """The initiator's reading of quick mode message 2; raises ``WrongChoice``."""
    proposal, transform = _only_transform(answer)
    attributes = _phase2_set(transform)
    if proposal.protocol == Protocol.ESP and valid_spi(proposal.spi) and attributes is not None:
        for suite in _tunnel_suites(configuration):
            if (
                transform.identifier == suite.cipher.number
                and attributes.values == suite.attributes(group)
            ):
                own = configuration.tunnel_lifetime
                return _tunnel_choice(suite, group, attributes, own, proposal, transform)
    raise WrongChoice("a transform that we did not offer")
