"""What we offer, what we take, and for how long.

The responder follows its own order of tiers (``suites.py``) and within a tier the order
of the peer; so two of ours never meet on ``draft``, and a downgrade on the way is
caught since SAi_b is signed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

from ike.configuration import Configuration
from ike.constants import BYTES_SHORTEST, DEFAULT_LIFETIME, LIFETIME_SHORTEST, SPI_LOWEST
from ike.errors import MalformedPayload, NoProposalChosen, WrongChoice
from ike.groups import ModpGroup
from ike.registry import (
    KEY_IKE,
    Encapsulation,
    LifeType,
    Phase1Attribute,
    Phase2Attribute,
    PortCipher,
    Protocol,
)
from ike.v1.attributes import Attribute, AttributeSet
from ike.v1.payloads import Proposal, SecurityAssociation, Transform
from ike.v1.suites import (
    ChannelSuite,
    TunnelSuite,
    channel_tiers,
    secrecy_groups,
    tunnel_tiers,
)

KILOBYTE = 1024  # octets
_KILOBYTES_MOST = 0xFFFFFFFF  # what four octets of an attribute can say


@dataclass(frozen=True, slots=True)
class ChannelChoice:
    suite: ChannelSuite
    lifetime: int  # seconds
    lifetime_bytes: int | None
    answer: SecurityAssociation


@dataclass(frozen=True, slots=True)
class TunnelChoice:
    """``spi`` is the peer's.  ``group`` of None: without perfect forward secrecy.

    ``offered_lifetime`` and ``offered_bytes`` are what the proposal said, in seconds and
    octets; None is no limit.  ``encapsulated``: ESP in UDP.  ``sst``: ports are encrypted inside.
    """

    suite: TunnelSuite
    group: ModpGroup | None
    spi: bytes
    lifetime: int
    offered_lifetime: int
    lifetime_bytes: int | None
    offered_bytes: int | None
    encapsulated: bool
    sst: bool
    proposal: Proposal
    transform: Transform


def _life_attributes(
    life_type: int, duration: int, seconds: int, octets: int | None
) -> tuple[Attribute, ...]:
    """The lifetime in seconds and, if there is one, in kilobytes."""
    attributes = (Attribute(life_type, LifeType.SECONDS), Attribute(duration, seconds))
    if octets is None:
        return attributes
    kilobytes = min(max(1, octets // KILOBYTE), _KILOBYTES_MOST)
    return (
        *attributes,
        Attribute(life_type, LifeType.KILOBYTES),
        Attribute(duration, kilobytes),
    )


def tunnel_life_attributes(seconds: int | None, octets: int | None) -> tuple[Attribute, ...]:
    """Either or both, as RESPONDER-LIFETIME says them."""
    attributes = _life_attributes(
        Phase2Attribute.LIFE_TYPE, Phase2Attribute.LIFE_DURATION, seconds or 0, octets
    )
    return attributes if seconds is not None else attributes[2:]


def _as_attributes(values: dict[int, int]) -> tuple[Attribute, ...]:
    return tuple(Attribute(int(kind), int(value)) for kind, value in values.items())


def offer_channel(configuration: Configuration) -> SecurityAssociation:
    """One proposal with a transform for each suite (RFC 2409 section 5)."""
    life = _life_attributes(
        Phase1Attribute.LIFE_TYPE,
        Phase1Attribute.LIFE_DURATION,
        configuration.channel_lifetime,
        configuration.channel_bytes,
    )
    suites = [suite for tier in channel_tiers(configuration) for suite in tier]
    transforms = tuple(
        Transform(number, KEY_IKE, (*_as_attributes(suite.attributes()), *life))
        for number, suite in enumerate(suites, 1)
    )
    return SecurityAssociation((Proposal(1, Protocol.ISAKMP, b"", transforms),))


def _own_bytes(suite: TunnelSuite, configuration: Configuration) -> int | None:
    """How many octets we let a tunnel carry: what is configured, and what its cipher stands."""
    limits = (suite.byte_limit, configuration.tunnel_bytes)
    return min((limit for limit in limits if limit is not None), default=None)


def _attributes(
    suite: TunnelSuite, group: ModpGroup | None, encapsulated: bool, sst: bool
) -> dict[int, int]:
    values = suite.attributes(group, encapsulated)
    if sst:
        values[Phase2Attribute.SST_MODE] = PortCipher.FF1_AES_128
    return values


def offer_tunnel(
    configuration: Configuration,
    group: ModpGroup | None,
    spi: bytes,
    encapsulated: bool = False,
    sst: bool = False,
) -> SecurityAssociation:
    """One ESP proposal with a transform for each suite.

    ``sst``: first with port encryption, then without: a peer must refuse an attribute that it does
    not know (RFC 2407 section 4.5), and may not want it.
    ``group`` of None: without perfect forward secrecy.  One quick mode has one Diffie-Hellman
    exchange or none (RFC 2409 section 5.5), so an offer never mixes both.
    """
    seconds = configuration.tunnel_lifetime
    suites = [suite for tier in tunnel_tiers(configuration) for suite in tier]
    twins = [(suite, sealed) for sealed in ((True, False) if sst else (False,)) for suite in suites]
    transforms = tuple(
        Transform(
            number,
            suite.cipher.number,
            (
                *_as_attributes(_attributes(suite, group, encapsulated, sealed)),
                *tunnel_life_attributes(seconds, _own_bytes(suite, configuration)),
            ),
        )
        for number, (suite, sealed) in enumerate(twins, 1)
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
    return shorter_lifetime(own, offered)


def shorter_lifetime(own: int, theirs: int) -> int:
    """In seconds.  What we configured ourselves may be as short as it likes."""
    return max(min(theirs, own), min(own, LIFETIME_SHORTEST))


def shorter_bytes(own: int | None, theirs: int | None) -> int | None:
    """The same in octets; None is no limit."""
    if theirs is None:
        return own
    theirs = max(theirs, BYTES_SHORTEST if own is None else min(own, BYTES_SHORTEST))
    return theirs if own is None else min(own, theirs)


def life_in_octets(attributes: AttributeSet) -> int | None:
    """What the lifetime in kilobytes means; None if there is none.

    A peer may write more digits than a kernel can count: what is beyond ours is as good as ours.
    """
    kilobytes = attributes.lifetimes.get(LifeType.KILOBYTES)
    return min(kilobytes, _KILOBYTES_MOST) * KILOBYTE if kilobytes else None


def _channel_choice(
    suite: ChannelSuite,
    attributes: AttributeSet,
    configuration: Configuration,
    answer: SecurityAssociation,
) -> ChannelChoice:
    return ChannelChoice(
        suite,
        _lifetime(attributes, configuration.channel_lifetime),
        shorter_bytes(configuration.channel_bytes, life_in_octets(attributes)),
        answer,
    )


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
    for tier in channel_tiers(configuration):
        for transform, attributes in offered:
            for suite in tier:
                if attributes.values == suite.attributes():
                    answer = Proposal(proposal.number, Protocol.ISAKMP, b"", (transform,))
                    return _channel_choice(
                        suite, attributes, configuration, SecurityAssociation((answer,))
                    )
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
        for tier in channel_tiers(configuration):
            for suite in tier:
                if attributes.values == suite.attributes():
                    return _channel_choice(suite, attributes, configuration, answer)
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


def _is_suite(
    suite: TunnelSuite,
    transform: Transform,
    attributes: AttributeSet,
    group: ModpGroup | None,
    encapsulated: bool,
    sst: bool,
) -> bool:
    if transform.identifier != suite.cipher.number:
        return False
    values = dict(attributes.values)
    if values.get(Phase2Attribute.ENCAPSULATION) == Encapsulation.DRAFT_UDP_TUNNEL:
        values[Phase2Attribute.ENCAPSULATION] = Encapsulation.UDP_TUNNEL
    return values == _attributes(suite, group, encapsulated, sst)


def _tunnel_choice(
    suite: TunnelSuite,
    group: ModpGroup | None,
    attributes: AttributeSet,
    encapsulated: bool,
    configuration: Configuration,
    proposal: Proposal,
    transform: Transform,
) -> TunnelChoice:
    offered_bytes = life_in_octets(attributes)
    return TunnelChoice(
        suite,
        group,
        proposal.spi,
        _lifetime(attributes, configuration.tunnel_lifetime),
        attributes.lifetimes.get(LifeType.SECONDS, DEFAULT_LIFETIME),
        shorter_bytes(_own_bytes(suite, configuration), offered_bytes),
        offered_bytes,
        encapsulated,
        Phase2Attribute.SST_MODE in attributes.values,
        proposal,
        transform,
    )


def choose_tunnel(
    offer: SecurityAssociation,
    configuration: Configuration,
    encapsulations: tuple[bool, ...] = (False,),
    key_exchange: bool = True,
    sst: bool = False,
) -> TunnelChoice:
    """The responder's choice from quick mode message 1; raises ``NoProposalChosen``.

    ``encapsulations``: whether ESP may go in UDP, the preferred first.  ``key_exchange``:
    whether the message has a KE payload; transforms with a group need it, and only those
    may have it.  ``sst``: a choice among those with port encryption, else among those without.
    Perfect forward secrecy is required (RFC 4322 section 4.6.1) unless ``Configuration.pfs`` says
    otherwise.
    """
    if not key_exchange and configuration.pfs == "required":
        raise NoProposalChosen("without perfect forward secrecy")
    groups: dict[int, ModpGroup | None] = {0: None}
    if key_exchange:
        groups = {**secrecy_groups(configuration)}
    offered = [
        (proposal, transform, attributes)
        for proposal in _alone(offer.proposals)
        for transform in proposal.transforms
        if (attributes := _phase2_set(transform)) is not None
    ]
    for encapsulated, tier in product(encapsulations, tunnel_tiers(configuration)):
        for proposal, transform, attributes in offered:
            number = _group_number(attributes)
            if number not in groups:
                continue
            group = groups[number]
            for suite in tier:
                if _is_suite(suite, transform, attributes, group, encapsulated, sst):
                    return _tunnel_choice(
                        suite, group, attributes, encapsulated, configuration, proposal, transform
                    )
    raise NoProposalChosen("nothing in common in phase 2")


def _group_number(attributes: AttributeSet) -> int:
    return attributes.values.get(Phase2Attribute.GROUP) or 0


def chosen_tunnel(
    answer: SecurityAssociation,
    configuration: Configuration,
    group: ModpGroup | None,
    encapsulated: bool = False,
    sst: bool = False,
) -> TunnelChoice:
    """The initiator's reading of quick mode message 2; raises ``WrongChoice``.

    ``sst``: whether port encryption was offered, too; ``TunnelChoice.sst`` says what was chosen.
    """
    proposal, transform = _only_transform(answer)
    attributes = _phase2_set(transform)
    if proposal.protocol == Protocol.ESP and valid_spi(proposal.spi) and attributes is not None:
        sealed = sst and Phase2Attribute.SST_MODE in attributes.values
        for tier in tunnel_tiers(configuration):
            for suite in tier:
                if _is_suite(suite, transform, attributes, group, encapsulated, sealed):
                    return _tunnel_choice(
                        suite, group, attributes, encapsulated, configuration, proposal, transform
                    )
    raise WrongChoice("a transform that we did not offer")
