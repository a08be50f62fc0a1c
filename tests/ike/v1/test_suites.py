"""Proposals by name, perfect forward secrecy by choice, lifetimes in seconds and kilobytes."""

from __future__ import annotations

import pytest

from ike import events as e
from ike.configuration import Configuration
from ike.endpoint import Endpoint
from ike.errors import NoProposalChosen
from ike.groups import GROUPS
from ike.registry import LifeType, NotifyType, Phase1Attribute, Phase2Attribute
from ike.v1.attributes import AttributeSet
from ike.v1.payloads import SecurityAssociation
from ike.v1.proposals import choose_channel, choose_tunnel, offer_channel, offer_tunnel
from ike.v1.suites import NAMED_CHANNEL_SUITES, NAMED_TUNNEL_SUITES
from ike.wire import Reader
from tests.support import ike_stranger as x
from tests.support.ike_pair import CAROL, Pair, octets_from, private_key
from tests.support.ike_stranger import Stranger

SPI = b"\x11\x22\x33\x44"


def settings(**changes) -> Configuration:
    return Configuration(private_key("a"), **changes)


def offered_life(transform, first: int) -> dict[int, int]:
    gathered = AttributeSet.gather(transform.attributes, first, first + 1)
    assert gathered is not None
    return gathered.lifetimes


def test_the_names_are_these() -> None:
    assert len(NAMED_CHANNEL_SUITES) == 3 * 3 * 4
    assert "aes128-sha256-modp2048" in NAMED_CHANNEL_SUITES
    assert sorted(NAMED_TUNNEL_SUITES) == [
        "3des-md5",
        "3des-sha1",
        "aes128-sha1",
        "aes128-sha256",
        "aes128gcm16",
        "aes256-sha1",
        "aes256-sha256",
        "aes256gcm16",
    ]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("channel_proposals", "des-md5-modp1024"),
        ("channel_proposals", "3des-md5-modp768"),
        ("channel_proposals", "aes128gcm16"),
        ("tunnel_proposals", "des-md5"),
        ("tunnel_proposals", "aes128"),
        ("tunnel_proposals", "null-sha256"),
    ],
)
def test_a_name_that_is_none(key: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"{key}: '{value}'"):
        Endpoint(settings(**{key: (value,)}), octets_from(1))


def test_pfs_is_one_of_three() -> None:
    with pytest.raises(ValueError, match="pfs: 'perhaps'"):
        Endpoint(settings(pfs="perhaps"), octets_from(1))


@pytest.mark.parametrize("name", sorted(NAMED_CHANNEL_SUITES))
def test_every_channel_proposal_in_both_roles(name: str) -> None:
    """One side knows this alone, the other has it last, after what the first does not know."""
    some, more = (name,), (*(n for n in ("aes256-sha1-modp3072",) if n != name), name)
    suite = NAMED_CHANNEL_SUITES[name]
    for a, b in ((some, more), (more, some)):
        pair = Pair(a={"channel_proposals": a}, b={"channel_proposals": b})
        pair.initiate()
        pair.run()
        assert pair.tunnel_up(), name
        for side in pair.sides:
            (established,) = side.seen(e.KeyingChannelEstablished)
            assert established.proposal == str(suite)
            assert established.proposal.startswith("named: ")


@pytest.mark.parametrize("pfs", ["required", "off"])
@pytest.mark.parametrize("extended", [True, False])
@pytest.mark.parametrize("name", sorted(NAMED_TUNNEL_SUITES))
def test_every_tunnel_proposal_in_both_roles(name: str, extended: bool, pfs: str) -> None:
    mine = {"tunnel_proposals": (name,), "extended_sequence_numbers": extended, "pfs": pfs}
    other = next(n for n in NAMED_TUNNEL_SUITES if n != name)
    yours = {**mine, "tunnel_proposals": (other, name)}
    cipher, integrity = NAMED_TUNNEL_SUITES[name]
    for a, b in ((mine, yours), (yours, mine)):
        pair = Pair(a=a, b=b)
        pair.initiate()
        pair.run()
        assert pair.tunnel_up(), name
        (inbound, outbound), *_ = pair.a.pairs().values()
        for sa in (inbound, outbound):
            assert sa.cipher == cipher.name
            assert sa.integrity == (integrity.name if integrity else None)
            assert len(sa.encryption_key) == cipher.key_length + cipher.salt
            assert sa.extended_sequence_numbers == (extended and cipher.name != "3des-cbc")


def test_the_responder_prefers_what_it_names_first() -> None:
    """Unlike within a list: names stand in the order of the administrator's wish."""
    strong, weak = "aes256-sha256-modp2048", "3des-md5-modp1024"
    pair = Pair(a={"channel_proposals": (weak, strong)}, b={"channel_proposals": (strong, weak)})
    pair.initiate()
    pair.run()
    (established,) = pair.b.seen(e.KeyingChannelEstablished)
    assert established.proposal == "named: aes-cbc-256 hmac-sha2-256 modp-2048"


def test_named_proposals_stand_in_place_of_the_lists() -> None:
    pair = Pair(a={"channel_proposals": ("aes128-sha1-modp1024",)})
    pair.initiate()
    pair.run()
    pair.wait(5)
    assert [f.reason for f in pair.a.seen(e.NegotiationFailed)] == [e.Failure.NO_PROPOSAL]
    assert not pair.b.seen(e.ExchangeStarted)


def test_aes_with_the_groups_of_the_draft_only_by_name() -> None:
    mixed = x.MODERN_1.replace(x.tv(4, 14), x.tv(4, 5))
    offer = SecurityAssociation.parse(Reader(x.offer(mixed)))
    with pytest.raises(NoProposalChosen):
        choose_channel(offer, settings())
    named = settings(channel_proposals=("aes256-sha256-modp1536",))
    assert choose_channel(offer, named).suite.group.name == "modp-1536"


# Perfect forward secrecy.


@pytest.mark.parametrize("responder", ["required", "optional", "off"])
@pytest.mark.parametrize("initiator", ["required", "optional", "off"])
def test_pfs(initiator: str, responder: str) -> None:
    pair = Pair(a={"pfs": initiator}, b={"pfs": responder})
    pair.initiate()
    pair.run()
    refused = initiator == "off" and responder == "required"
    assert pair.tunnel_up() == (not refused)
    if refused:
        (failed,) = pair.a.seen(e.NegotiationFailed)
        assert failed.reason is e.Failure.REFUSED
        assert "NO_PROPOSAL_CHOSEN" in failed.detail


def test_without_pfs_message_1_is_smaller_by_the_public_value() -> None:
    sizes = []
    for pfs in ("required", "off"):
        pair = Pair(a={"pfs": pfs}, b={"pfs": "optional"})
        pair.initiate()
        pair.run()
        sizes.append({s.name: s.size for s in pair.a.seen(e.MessageSent)}["QM1"])
    groups = 4 * len(offer_tunnel(settings(), None, SPI).proposals[0].transforms)
    assert 0 <= sizes[0] - sizes[1] - (256 + 4 + groups) < 16  # padding to blocks


@pytest.mark.parametrize("missing", ["public value", "group"])
def test_a_group_and_a_public_value_belong_together(missing: str) -> None:
    """A transform with a group needs KE, and one without must have none."""
    pair = Pair(b={"pfs": "optional"})
    stranger = Stranger(pair.b)
    stranger.establish()
    without = x.esp_offer(attributes=x.ESP_GCM.replace(x.tv(3, 14), b""))
    good = {"sa": (x.SA, without), "ke": None}
    broken = {"ke": None} if missing == "public value" else {"sa": (x.SA, without)}
    (reply,) = stranger.send(stranger.quick_1(**broken))
    assert stranger.open(reply)[1][1][6:8] == (14).to_bytes(2, "big")
    assert not pair.b.seen(e.TunnelProposed)
    stranger.send(stranger.quick_1(**good))
    assert len(pair.b.seen(e.InboundSaEstablished)) == 1


@pytest.mark.parametrize("group", [2, 5, 14, 15])
def test_groups_for_pfs_are_no_weaker_than_those_of_channels(group: int) -> None:
    offer = offer_tunnel(settings(tunnel_proposals=("aes128gcm16",)), GROUPS[group], SPI)
    named = settings(channel_proposals=("aes128-sha256-modp1536",))
    if group == 2:
        with pytest.raises(NoProposalChosen):
            choose_tunnel(offer, named)
    else:
        assert choose_tunnel(offer, named).group is GROUPS[group]


# Lifetimes.


def test_offers_say_seconds_and_kilobytes() -> None:
    configuration = settings(
        channel_lifetime=100, channel_bytes=10 << 20, tunnel_lifetime=50, tunnel_bytes=5 << 20
    )
    for transform in offer_channel(configuration).proposals[0].transforms:
        assert offered_life(transform, Phase1Attribute.LIFE_TYPE) == {
            LifeType.SECONDS: 100,
            LifeType.KILOBYTES: 10240,
        }
    for transform in offer_tunnel(configuration, GROUPS[14], SPI).proposals[0].transforms:
        assert offered_life(transform, Phase2Attribute.LIFE_TYPE) == {
            LifeType.SECONDS: 50,
            LifeType.KILOBYTES: 5120,
        }


def test_3des_says_its_own_limit_in_every_offer() -> None:
    for octets, said in ((None, 1 << 20), (5 << 20, 5120), (1 << 40, 1 << 20)):
        configuration = settings(tunnel_proposals=("3des-sha1",), tunnel_bytes=octets)
        (transform,) = offer_tunnel(configuration, None, SPI).proposals[0].transforms
        assert offered_life(transform, Phase2Attribute.LIFE_TYPE)[LifeType.KILOBYTES] == said


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (None, None, None),
        (4 << 20, None, 4 << 20),
        (None, 4 << 20, 4 << 20),
        (8 << 20, 4 << 20, 4 << 20),
        (4 << 20, 8 << 20, 4 << 20),
        (100 << 10, 100 << 10, 100 << 10),  # what both configured may be short
        (1 << 10, None, 1 << 20),  # what a peer asks for may not
    ],
)
def test_the_shorter_lifetime_in_octets(a: int | None, b: int | None, expected: int) -> None:
    pair = Pair(a={"tunnel_bytes": a}, b={"tunnel_bytes": b})
    pair.initiate()
    pair.run()
    (inbound, outbound), *_ = pair.b.pairs().values()
    assert (inbound.lifetime_bytes, outbound.lifetime_bytes) == (expected, expected)
    (inbound, outbound), *_ = pair.a.pairs().values()
    own = a if a is not None and (expected is None or a < expected) else expected
    assert (inbound.lifetime_bytes, outbound.lifetime_bytes) == (own, own)


@pytest.mark.parametrize(
    ("configured", "said"),
    [
        ({}, []),
        ({"tunnel_lifetime": 1200}, [x.tv(1, 1) + x.tv(2, 1200)]),
        ({"tunnel_bytes": 2 << 20}, [x.tv(1, 2) + x.tv(2, 2048)]),
        (
            {"tunnel_lifetime": 1200, "tunnel_bytes": 2 << 20},
            [x.tv(1, 1) + x.tv(2, 1200) + x.tv(1, 2) + x.tv(2, 2048)],
        ),
    ],
)
def test_the_responder_says_which_lifetime_is_shorter(configured: dict, said: list[bytes]) -> None:
    """Octet for octet: RFC 2407 section 4.6.3.1, the attributes of RFC 2407 section 4.5."""
    from ike.v1.responder_lifetime import lifetime_notice

    offer = SecurityAssociation.parse(Reader(x.esp_offer()))
    notices = lifetime_notice(SPI, choose_tunnel(offer, settings(**configured)))
    assert [notice.octets for notice in notices] == said
    assert all(notice.notify == NotifyType.RESPONDER_LIFETIME for notice in notices)


def test_ten_seconds_on_both_sides() -> None:
    pair = Pair(a={"tunnel_lifetime": 10}, b={"tunnel_lifetime": 10})
    pair.initiate()
    pair.run()
    for side in pair.sides:
        (inbound, outbound), *_ = side.pairs().values()
        assert (inbound.lifetime_seconds, outbound.lifetime_seconds) == (10, 10)


def test_lifetimes_of_channels_in_kilobytes() -> None:
    offer = offer_channel(settings(channel_bytes=2 << 20))
    assert choose_channel(offer, settings()).lifetime_bytes == 2 << 20
    assert choose_channel(offer, settings(channel_bytes=1 << 20)).lifetime_bytes == 1 << 20
    assert choose_channel(offer_channel(settings()), settings()).lifetime_bytes is None


def test_the_side_that_was_asked_keeps_the_channel_no_longer_than_the_other() -> None:
    pair = Pair(a={"channel_bytes": 2 << 20})
    pair.initiate()
    pair.run()
    (session,) = pair.b.endpoint._directory.sessions.values()
    session._octets = (2 << 20) + 1  # what two thousand messages would add up to
    pair.initiate(2, remote_selector=CAROL)
    pair.run()
    assert [closed.reason for closed in pair.b.seen(e.KeyingChannelClosed)] == ["octets used up"]


# Forms.


def longest_form(attributes: bytes) -> bytes:
    """Each attribute in the form with a length, its value with zeros before it."""
    octets = b""
    for at in range(0, len(attributes), 4):
        kind = int.from_bytes(attributes[at : at + 2], "big") & 0x7FFF
        octets += x.tlv(kind, bytes(4) + attributes[at + 2 : at + 4])
    return octets


def test_every_attribute_with_a_length() -> None:
    pair = Pair()
    stranger = Stranger(pair.b)
    stranger.send_1(x.offer(longest_form(x.MODERN_1)))
    stranger.send_3()
    assert stranger.send_5()
    esp = longest_form(x.ESP_GCM + x.tv(1, 2) + x.tv(2, 5000) + x.tv(11, 1))
    stranger.send(stranger.quick_1(sa=(x.SA, x.esp_offer(attributes=esp))))
    (inbound,) = pair.b.seen(e.InboundSaEstablished)
    assert inbound.sa.cipher == "aes-gcm-16"
    assert inbound.sa.lifetime_bytes == 5000 * 1024
    assert inbound.sa.extended_sequence_numbers


@pytest.mark.parametrize("mode", [2, 3, 4, 61443, 61444])
def test_modes_that_do_not_fit_a_way_without_nat(mode: int) -> None:
    pair = Pair()
    stranger = Stranger(pair.b)
    stranger.establish()
    attributes = x.ESP_GCM.replace(x.tv(4, 1), x.tv(4, mode))
    (reply,) = stranger.send(stranger.quick_1(sa=(x.SA, x.esp_offer(attributes=attributes))))
    assert stranger.open(reply)[1][1][6:8] == (14).to_bytes(2, "big")
    assert not pair.b.seen(e.TunnelProposed)
