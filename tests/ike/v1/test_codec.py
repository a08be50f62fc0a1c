"""Payloads, chains and attributes: both ways, cut short everywhere, and with too much."""

from __future__ import annotations

import struct

import pytest

from ike.configuration import Configuration
from ike.errors import (
    Dropped,
    IkeError,
    InvalidNonce,
    MalformedPayload,
    MissingPayload,
    NoProposalChosen,
    RepeatedPayload,
    TooManyPayloads,
    TrailingOctets,
    TruncatedMessage,
    UnknownPayload,
    UnsupportedDoi,
    WrongChoice,
)
from ike.groups import GROUPS
from ike.registry import NotifyType, PayloadType, Protocol
from ike.v1.attributes import Attribute, AttributeSet, parse_attributes, serialize_attributes
from ike.v1.message import Chain, body_of, join
from ike.v1.payloads import (
    Delete,
    IdentificationPayload,
    KeyExchange,
    Nonce,
    Notification,
    Proposal,
    SecurityAssociation,
    Signature,
    Transform,
)
from ike.v1.proposals import (
    choose_channel,
    choose_tunnel,
    chosen_channel,
    chosen_tunnel,
    offer_channel,
    offer_tunnel,
)
from ike.v1.protection import HashPayload
from ike.v1.responder_lifetime import announced_lifetime, lifetime_notification
from ike.wire import Reader
from tests.support import ike_stranger as x
from tests.support.ike_pair import private_key

SPI = b"\x11\x22\x33\x44"
CASES = [
    (KeyExchange, x.generic((4, b"abc"))[4:]),
    (Nonce, b"12345678"),
    (Signature, b"signature"),
    (HashPayload, b"hash"),
    (IdentificationPayload, bytes.fromhex("01000000 c0010104")),
    (Notification, bytes.fromhex("00000001 03 04 000e 11223344 aabb")),
    (Delete, bytes.fromhex("00000001 03 04 0002 11223344 55667788")),
    (Delete, bytes.fromhex("00000001 01 10 0001") + bytes(range(16))),
    (SecurityAssociation, x.offer()),
    (SecurityAssociation, x.esp_offer()),
]


@pytest.mark.parametrize(("payload", "body"), CASES)
def test_bodies_both_ways(payload, body: bytes) -> None:
    reader = Reader(body)
    value = payload.parse(reader)
    reader.finish()
    assert body_of(value) == body
    assert payload.parse(Reader(body)) == value


@pytest.mark.parametrize(("payload", "body"), CASES)
def test_bodies_cut_short(payload, body: bytes) -> None:
    chain = Chain(((payload.kind, body),), len(body))
    assert chain.one(payload)
    for length in range(len(body)):
        chain = Chain(((payload.kind, body[:length]),), length)
        try:
            shorter = chain.one(payload)
        except IkeError:
            continue
        assert body_of(shorter) == body[:length]  # opaque ones have no length of their own


@pytest.mark.parametrize(
    ("payload", "body", "error"),
    [
        (Nonce, b"1234567", InvalidNonce),
        (Nonce, bytes(257), InvalidNonce),
        (Delete, bytes.fromhex("00000001 03 10 0000"), MalformedPayload),
        (Delete, bytes.fromhex("00000001 01 04 0001 11223344"), MalformedPayload),
        (Delete, bytes.fromhex("00000001 03 04 0001 11223344 55"), TrailingOctets),
        (Delete, bytes.fromhex("00000001 03 04 ffff 11223344"), MalformedPayload),
        (SecurityAssociation, x.sa(x.proposal(1, b"", b""), doi=2), UnsupportedDoi),
        (SecurityAssociation, x.sa(), TruncatedMessage),
        (
            SecurityAssociation,
            x.sa(x.proposal(1, b"", x.transform(1, 1, b"", last=False))),
            TruncatedMessage,
        ),
        (
            SecurityAssociation,
            x.sa(x.proposal(1, b"", x.transform(1, 1, b"") + x.transform(2, 1, b""))),
            TrailingOctets,
        ),
    ],
)
def test_bodies_that_are_wrong(payload, body: bytes, error: type[Dropped]) -> None:
    with pytest.raises(error):
        Chain(((payload.kind, body),), len(body)).one(payload)


def test_a_wrong_number_of_transforms_and_foreign_members() -> None:
    body = bytearray(x.offer())
    body[15] = 2  # announces two transforms
    with pytest.raises(MalformedPayload):
        SecurityAssociation.parse(Reader(bytes(body)))
    body = bytearray(x.offer())
    body[8] = 9  # next payload of the proposal
    with pytest.raises(MalformedPayload):
        SecurityAssociation.parse(Reader(bytes(body)))


def test_too_many_of_anything() -> None:
    many = b"".join(x.transform(1, 1, b"", last=False) for _ in range(300))
    with pytest.raises(MalformedPayload):
        Proposal.parse(struct.pack("!BBBB", 1, 1, 0, 255) + many)
    with pytest.raises(MalformedPayload):
        parse_attributes(Reader(x.tv(1, 1) * 33))
    with pytest.raises(TooManyPayloads):
        Chain.cut(PayloadType(13), x.generic(*[(13, b"")] * 65), padded=False)


def test_chains() -> None:
    octets = join([Nonce(b"12345678"), KeyExchange(b"k"), Nonce(b"87654321")])
    chain = Chain.cut(PayloadType.NONCE, octets, padded=False)
    assert chain.first is PayloadType.NONCE
    assert chain.one(KeyExchange).public == b"k"
    assert len(chain.all(Nonce)) == 2
    assert chain.has(PayloadType.KEY_EXCHANGE)
    with pytest.raises(RepeatedPayload):
        chain.one(Nonce)
    with pytest.raises(MissingPayload):
        chain.one(Signature)
    padded = Chain.cut(PayloadType.NONCE, octets + bytes(7), padded=True)
    assert padded == chain
    with pytest.raises(TrailingOctets):
        Chain.cut(PayloadType.NONCE, octets + bytes(7), padded=False)
    for length in range(len(octets)):
        with pytest.raises(Dropped):
            Chain.cut(PayloadType.NONCE, octets[:length], padded=True)
    with pytest.raises(MissingPayload):
        Chain.cut(PayloadType.NONE, b"", padded=True)
    with pytest.raises(MalformedPayload):
        Chain.cut(PayloadType.NONCE, b"\0\0\0\3", padded=True)
    for kind in (2, 3, 14, 19, 22, 127):
        with pytest.raises(UnknownPayload):
            Chain.cut(PayloadType(kind), b"\0\0\0\4", padded=True)
    for kind in (6, 7, 13, 20, 21, 128, 130, 255):
        assert Chain.cut(PayloadType(kind), b"\0\0\0\4", padded=True)


def test_attributes_in_both_forms() -> None:
    octets = x.tv(1, 7) + x.tlv(12, b"\0\1\x51\x80") + x.tlv(2, b"\0\4") + x.tlv(5, b"\1" * 9)
    attributes = parse_attributes(Reader(octets))
    assert attributes == (
        Attribute(1, 7),
        Attribute(12, 86400),
        Attribute(2, 4),
        Attribute(5, None),
    )
    assert serialize_attributes(attributes[:3]) == (
        x.tv(1, 7) + x.tlv(12, b"\0\1\x51\x80") + x.tv(2, 4)
    )
    with pytest.raises(ValueError, match="not understood"):
        serialize_attributes(attributes)


def gathered(*pairs: tuple[int, int | None]) -> AttributeSet | None:
    return AttributeSet.gather((Attribute(*pair) for pair in pairs), 1, 2)


def test_lifetimes_in_attribute_lists() -> None:
    """RFC 2407 section 4.5.2: a list may give seconds and kilobytes."""
    both = gathered((1, 1), (2, 86400), (1, 2), (2, 100000), (4, 1), (4, 1))
    assert both == AttributeSet({4: 1}, {1: 86400, 2: 100000})
    assert gathered((2, 5)) is None
    assert gathered((1, 1), (2, None)) is None
    assert gathered((1, 1), (2, 5), (1, 1), (2, 6)) is None
    assert gathered((4, 1), (4, 2)) is None


CONFIGURATION = Configuration(private_key("a"))


def answered(offer: SecurityAssociation, **changes) -> SecurityAssociation:
    """What a responder sends when it takes the first transform."""
    proposal = offer.proposals[0]
    fields = {
        "number": proposal.number,
        "protocol": proposal.protocol,
        "spi": b"\x0a\x0b\x0c\x0d" if proposal.spi else b"",
        "transforms": proposal.transforms[:1],
        **changes,
    }
    return SecurityAssociation((Proposal(**fields),))


def test_choosing_a_channel() -> None:
    offer = offer_channel(CONFIGURATION)
    choice = choose_channel(offer, CONFIGURATION)
    assert str(choice.suite) == "modern: aes-cbc-256 hmac-sha2-256 modp-2048"
    assert chosen_channel(choice.answer, CONFIGURATION).suite == choice.suite


@pytest.mark.parametrize(
    "changes",
    [
        {"transforms": offer_channel(CONFIGURATION).proposals[0].transforms[:2]},
        {"protocol": Protocol.ESP},
        {"transforms": (Transform(1, 1, (Attribute(1, 1),)),)},
        {
            "transforms": (
                Transform(1, 2, offer_channel(CONFIGURATION).proposals[0].transforms[0].attributes),
            )
        },
    ],
)
def test_answers_in_phase_1_that_we_did_not_offer(changes: dict) -> None:
    with pytest.raises(WrongChoice):
        chosen_channel(answered(offer_channel(CONFIGURATION), **changes), CONFIGURATION)


def test_phase_1_offers_that_break_the_rules() -> None:
    offer = offer_channel(CONFIGURATION)
    with pytest.raises(MalformedPayload):
        choose_channel(SecurityAssociation(offer.proposals * 2), CONFIGURATION)
    with pytest.raises(NoProposalChosen):
        choose_channel(answered(offer, protocol=Protocol.AH), CONFIGURATION)


def test_choosing_a_tunnel() -> None:
    group = GROUPS[14]
    offer = offer_tunnel(CONFIGURATION, group, SPI)
    choice = choose_tunnel(offer, CONFIGURATION)
    assert (choice.suite.cipher.name, choice.group, choice.spi) == ("aes-gcm-16", group, SPI)
    answer = answered(offer)
    assert chosen_tunnel(answer, CONFIGURATION, group).spi == b"\x0a\x0b\x0c\x0d"


@pytest.mark.parametrize(
    "changes",
    [
        {"spi": b"\x00\x00\x00\xff"},
        {"spi": b"\x01\x02"},
        {"protocol": Protocol.AH},
        {"transforms": (Transform(1, 20, (Attribute(4, 1),)),)},
    ],
)
def test_answers_in_phase_2_that_we_did_not_offer(changes: dict) -> None:
    offer = offer_tunnel(CONFIGURATION, GROUPS[14], SPI)
    with pytest.raises(WrongChoice):
        chosen_tunnel(answered(offer, **changes), CONFIGURATION, GROUPS[14])
    with pytest.raises(WrongChoice):
        chosen_tunnel(answered(offer), CONFIGURATION, GROUPS[15])


def test_the_responder_announces_a_shorter_lifetime() -> None:
    offer = offer_tunnel(CONFIGURATION, GROUPS[14], SPI)
    choice = choose_tunnel(offer, CONFIGURATION)
    assert choice.lifetime == 3600
    notification = lifetime_notification(SPI, 1200)
    other = Notification(Protocol.ESP, SPI, NotifyType.REPLAY_STATUS, b"\0\0\0\1")
    assert announced_lifetime(choice, [other, notification]).lifetime == 1200
    assert announced_lifetime(choice, [lifetime_notification(SPI, 1)]).lifetime == 60
    assert announced_lifetime(choice, [lifetime_notification(SPI, 99999)]).lifetime == 3600
    broken = Notification(Protocol.ESP, SPI, NotifyType.RESPONDER_LIFETIME, x.tv(2, 5))
    with pytest.raises(MalformedPayload):
        announced_lifetime(choice, [broken])


def test_lifetimes_have_a_floor() -> None:
    attributes = x.MODERN_1.replace(x.tv(12, 28800), x.tv(12, 1))
    offer = SecurityAssociation.parse(Reader(x.offer(attributes)))
    assert choose_channel(offer, CONFIGURATION).lifetime == 60
