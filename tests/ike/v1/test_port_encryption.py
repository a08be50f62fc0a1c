"""Port encryption agreed upon in quick mode: vendor ID, private attribute, K_sst.

SST-34, SST-35 (what IKE does for it) and SST-38 (the negotiation).
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace
from ipaddress import ip_network

import pytest

from ike import events as e
from ike.registry import PayloadType, Phase2Attribute
from ike.v1 import proposals, quick_mode
from ike.v1.attributes import Attribute, serialize_attributes
from ike.v1.keymat import ChannelKeys
from ike.v1.payloads import SecurityAssociation, Transform
from ike.v1.portkey import PROTO_SST, port_key
from ike.v1.proposals import offer_tunnel
from tests.support.ike_pair import A6, ALICE, B6, BOB, CAROL, Nat, Pair, Side

BOTH = {"sst": True}
DRAFT = {"channel_proposals": ("3des-md5-modp1024",), "tunnel_proposals": ("3des-md5",)}
VENDOR = b"\0\x14" + hashlib.md5(b"SST/1").digest()  # length of the payload, and its octets


def keys(side: Side) -> dict[int, bytes | None]:
    """What each tunnel of a side has come to."""
    return {event.tunnel: event.sst_key for event in side.seen(e.InboundSaEstablished)}


def agreed(pair: Pair) -> bytes | None:
    """The one key that both sides have for all tunnels so far."""
    found = {*keys(pair.a).values(), *keys(pair.b).values()}
    assert len(found) == 1, found
    return found.pop()


def offers(monkeypatch: pytest.MonkeyPatch) -> list[SecurityAssociation]:
    """Each SA payload of message 1 that a responder has read from now on."""
    read: list[SecurityAssociation] = []
    choose = quick_mode.choose_tunnel

    def noted(offer, *rest):
        if offer not in read:
            read.append(offer)
        return choose(offer, *rest)

    monkeypatch.setattr(quick_mode, "choose_tunnel", noted)
    return read


def _without(transform: Transform) -> tuple[Attribute, ...]:
    return tuple(a for a in transform.attributes if a.kind != Phase2Attribute.SST_MODE)


def modes(offer: SecurityAssociation) -> list[int | None]:
    """The private attribute of each transform, None where it has none."""
    return [
        next((a.value for a in t.attributes if a.kind == Phase2Attribute.SST_MODE), None)
        for t in offer.proposals[0].transforms
    ]


# Both sides do it.


@pytest.mark.parametrize("pfs", ["required", "optional", "off"])
@pytest.mark.parametrize("suites", [{}, DRAFT], ids=["modern", "draft"])
def test_sst_34_both_sides_have_the_same_key_of_16_octets(pfs: str, suites: dict) -> None:
    settings = {**BOTH, **suites, "pfs": pfs}
    pair = Pair(settings, settings)
    pair.initiate(sst=True)
    pair.run()
    assert pair.tunnel_up()
    key = agreed(pair)
    assert key is not None
    assert len(key) == 16
    [proposed] = pair.b.seen(e.TunnelProposed)
    assert proposed.sst


def test_sst_34_the_responder_has_the_key_before_it_answers_and_we_before_we_may_send() -> None:
    """Receiver first: nothing leaves before our shell has confirmed that it can open."""
    pair = Pair(BOTH, BOTH)
    pair.initiate(sst=True)
    while "QM1" not in pair.a.names():
        pair.transfer()
    pair.b.answers = False
    pair.run()
    [proposed] = pair.b.seen(e.TunnelProposed)
    pair.b.endpoint.accept_tunnel(pair.now, proposed.tunnel, sst=True)
    pair.pump()
    [ready] = pair.b.seen(e.InboundSaEstablished)
    assert ready.sst_key is not None
    assert "QM2" not in pair.b.names(), "the peer could send sealed before we can open it"
    pair.b.endpoint.confirm_inbound(pair.now, proposed.tunnel)
    pair.pump()
    pair.run()
    assert [type(event) for event in pair.a.events if getattr(event, "tunnel", None) == 0] == [
        e.InboundSaEstablished,
        e.OutboundSaEstablished,
    ]
    assert agreed(pair) == ready.sst_key


def test_sst_38_the_offer_is_twins_with_it_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer must refuse what it does not know, so each transform stands there without, too."""
    read = offers(monkeypatch)
    pair = Pair(BOTH, BOTH)
    pair.initiate(sst=True)
    pair.run()
    [offer] = read
    found = modes(offer)
    half = len(found) // 2
    assert found == [1] * half + [None] * half
    plain = [
        replace(t, number=0, octets=b"", attributes=_without(t))
        for t in offer.proposals[0].transforms
    ]
    assert plain[:half] == plain[half:]
    assert [t.number for t in offer.proposals[0].transforms] == list(range(1, 2 * half + 1))


def test_message_1_of_quick_mode_still_fits_a_datagram() -> None:
    """Twins double the offer; with the largest group it must not need fragments."""
    settings = {**BOTH, "channel_proposals": ("aes256-sha256-modp3072",)}
    pair = Pair(settings, settings)
    pair.initiate(sst=True, encapsulation=e.Encapsulation.UDP)
    pair.run()
    assert pair.tunnel_up()
    sizes = [event.size for event in pair.a.seen(e.MessageSent) if event.name == "QM1"]
    assert max(sizes) + 4 + 8 + 40 <= 1500, "marker, UDP, IPv6"


def test_it_goes_over_ipv6_and_in_udp() -> None:
    pair = Pair(BOTH, BOTH, addresses=(A6, B6))
    selectors = [e.TrafficSelector(ip_network(f"2001:db8:{n}::/48")) for n in (65, 66)]
    pair.initiate(
        sst=True,
        local_selector=selectors[0],
        remote_selector=selectors[1],
        encapsulation=e.Encapsulation.UDP,
    )
    pair.run()
    assert agreed(pair) is not None
    [ready] = pair.a.seen(e.InboundSaEstablished)
    assert ready.sa.ports is not None


# One side does not.


@pytest.mark.parametrize(
    ("a", "b", "wanted"),
    [({}, BOTH, True), (BOTH, {}, True), ({}, {}, True), (BOTH, BOTH, False)],
    ids=["a knows nothing", "b knows nothing", "neither", "not ordered"],
)
def test_sst_38_without_one_side_there_is_a_tunnel_and_no_key(
    a: dict, b: dict, wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = offers(monkeypatch)
    pair = Pair(a, b)
    pair.initiate(sst=wanted)
    pair.run()
    assert pair.tunnel_up()
    assert agreed(pair) is None
    assert not any(event.sst for event in pair.b.seen(e.TunnelProposed))
    assert set(modes(read[0])) == {None}, "the attribute, to a peer that has not said SST/1"


def test_sst_38_who_does_without_sends_what_was_always_sent() -> None:
    """Neither message 1 nor message 2 has the vendor ID, and no order changes that."""
    with_order, without = Pair(), Pair()
    with_order.initiate(sst=True)
    without.initiate()
    with_order.run()
    without.run()
    assert with_order.sent[:2] == without.sent[:2]
    sizes = [[len(datagram.data) for datagram in pair.sent] for pair in (with_order, without)]
    assert sizes[0] == sizes[1]


def test_sst_38_a_peer_that_knows_nothing_sees_one_vendor_id_more_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read = offers(monkeypatch)
    knowing, plain = Pair(BOTH, {}), Pair()
    for pair in (knowing, plain):
        pair.initiate(sst=pair is knowing)
        pair.run()
    first, as_before = knowing.sent[0].data, plain.sent[0].data
    assert first.endswith(VENDOR)
    body, tail = as_before[28:], first[28:-20]
    changed = [i for i, (x, y) in enumerate(zip(body, tail, strict=True)) if x != y]
    assert len(changed) == 1, "the payload before it says that a vendor ID follows"
    assert tail[changed[0]] == PayloadType.VENDOR_ID
    assert knowing.sent[1].data == plain.sent[1].data, "message 2, octet for octet"
    assert [len(d.data) for d in knowing.sent[2:]] == [len(d.data) for d in plain.sent[2:]]
    spi_apart = [[replace(p, spi=b"") for p in offer.proposals] for offer in read]
    assert spi_apart[0] == spi_apart[-1]


def test_the_vendor_id_is_there_only_where_both_do_it() -> None:
    pair = Pair(BOTH, BOTH)
    pair.initiate()
    pair.run()
    assert VENDOR in pair.sent[0].data
    assert VENDOR in pair.sent[1].data
    pair = Pair({}, BOTH)
    pair.initiate()
    pair.run()
    assert not any(VENDOR in datagram.data for datagram in pair.sent)


def test_the_shell_may_decline_what_is_offered() -> None:
    pair = Pair(BOTH, BOTH)
    pair.b.takes_sst = False
    pair.initiate(sst=True)
    pair.run()
    assert pair.tunnel_up()
    assert agreed(pair) is None
    [proposed] = pair.b.seen(e.TunnelProposed)
    assert proposed.sst


def test_what_is_not_offered_can_not_be_accepted() -> None:
    """Our own shell's mistake ends the negotiation, and the peer hears of it."""
    pair = Pair(BOTH, BOTH)
    pair.b.answers = False
    pair.initiate()
    for _ in range(20):
        pair.run()
        for event in pair.b.seen(e.PeerKeyNeeded):
            pair.b.endpoint.provide_peer_keys(pair.now, event.channel, (pair.a.key.public_key(),))
            pair.b.events.remove(event)
        pair.pump()
    [proposed] = pair.b.seen(e.TunnelProposed)
    pair.b.endpoint.accept_tunnel(pair.now, proposed.tunnel, sst=True)
    pair.pump()
    pair.run()
    assert [f.reason for f in pair.b.seen(e.NegotiationFailed)] == [e.Failure.REFUSED]
    assert [f.reason for f in pair.a.seen(e.NegotiationFailed)] == [e.Failure.REFUSED]


def test_a_peer_that_offers_nothing_else_is_refused_what_the_shell_declines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    offer = proposals.offer_tunnel

    def only_with(*args):
        made = offer(*args)
        [proposal] = made.proposals
        half = len(proposal.transforms) // 2
        return replace(made, proposals=(replace(proposal, transforms=proposal.transforms[:half]),))

    monkeypatch.setattr(quick_mode, "offer_tunnel", only_with)
    pair = Pair(BOTH, BOTH)
    pair.initiate(sst=True)
    pair.run()
    assert agreed(pair) is not None
    pair.b.takes_sst = False
    pair.initiate(2, sst=True, remote_selector=CAROL)
    pair.run()
    assert [f.tunnel for f in pair.a.seen(e.NegotiationFailed)] == [2]
    [failed] = pair.b.seen(e.NegotiationFailed)
    assert "port encryption" in failed.detail


# The attribute, corrupted.


@pytest.mark.parametrize(
    "wrong",
    [
        (Attribute(Phase2Attribute.SST_MODE, 0),),
        (Attribute(Phase2Attribute.SST_MODE, 2),),
        (Attribute(Phase2Attribute.SST_MODE, 70000),),
        (Attribute(Phase2Attribute.SST_MODE, 1), Attribute(Phase2Attribute.SST_MODE, 2)),
        (Attribute(Phase2Attribute.SST_MODE, 1), Attribute(Phase2Attribute.SST_MODE + 1, 1)),
    ],
    ids=["none", "another cipher", "long", "twice", "and another"],
)
def test_sst_38_an_attribute_that_is_not_understood_leads_to_the_twin(
    wrong: tuple[Attribute, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    offer = proposals.offer_tunnel

    def corrupted(*args):
        made = offer(*args)
        [proposal] = made.proposals
        transforms = tuple(
            replace(
                t,
                attributes=_without(t) + (wrong if _without(t) != t.attributes else ()),
            )
            for t in proposal.transforms
        )
        return replace(made, proposals=(replace(proposal, transforms=transforms),))

    monkeypatch.setattr(quick_mode, "offer_tunnel", corrupted)
    pair = Pair(BOTH, BOTH)
    pair.initiate(sst=True)
    pair.run()
    assert pair.tunnel_up()
    assert agreed(pair) is None
    assert not any(event.sst for event in pair.b.seen(e.TunnelProposed))


def test_an_answer_with_it_that_was_not_offered_is_no_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A responder can't switch it on by itself."""
    read_by_b = quick_mode.choose_tunnel

    def with_it(*args):
        choice = read_by_b(*args)
        attributes = (*choice.transform.attributes, Attribute(Phase2Attribute.SST_MODE, 1))
        transform = replace(choice.transform, attributes=attributes, octets=b"")
        return replace(choice, transform=transform)

    monkeypatch.setattr(quick_mode, "choose_tunnel", with_it)
    pair = Pair(BOTH, BOTH)
    pair.initiate()
    pair.run()
    [failed] = pair.a.seen(e.NegotiationFailed)
    assert "did not offer" in failed.detail
    assert not pair.a.pairs()


@pytest.mark.parametrize("bit", range(0, 8 * 40, 37))
def test_sst_35_a_corrupted_message_changes_no_key(bit: int) -> None:
    """HASH(1) and HASH(2) cover the attribute: what comes damaged is not taken, and comes again."""
    pair = Pair(BOTH, BOTH)
    pair.initiate(sst=True)
    while "QM1" not in pair.a.names():
        pair.transfer()
    pair.corrupt(8 * 28 + bit)
    pair.run()
    pair.wait(3.0)
    assert pair.tunnel_up()
    assert agreed(pair) is not None


# One key for what two peers have between them.


def channel_keys(pair: Pair) -> ChannelKeys:
    [session] = pair.a.endpoint._directory.sessions.values()
    assert session.end is not None
    return session.end.keys


def test_the_key_is_what_the_readme_says() -> None:
    """Written anew from the formula, without the code under test."""
    pair = Pair({**BOTH, **DRAFT}, {**BOTH, **DRAFT})
    pair.initiate(sst=True)
    pair.run()
    lower = b"\x04" + bytes((192, 1, 0, 65)) + b"\x20\x00\x00\x00"
    higher = b"\x04" + bytes((192, 2, 0, 66)) + b"\x20\x00\x00\x00"
    secret = channel_keys(pair).derivation
    expected = hmac.digest(secret, b"\xf9\x01" + lower + higher, "md5")
    assert agreed(pair) == expected


def test_it_depends_on_the_channel_and_on_both_sides_and_on_nothing_else() -> None:
    pair = Pair(BOTH, BOTH)
    pair.initiate(sst=True)
    pair.run()
    channel = channel_keys(pair)
    assert port_key(channel, (ALICE, BOB)) == port_key(channel, (BOB, ALICE)) == agreed(pair)
    net = ip_network("192.1.0.64/31")
    others = [
        (ALICE, CAROL),
        (replace(ALICE, protocol=6), BOB),
        (replace(ALICE, network=net), BOB),
        (replace(BOB, port=6), replace(ALICE, port=0)),
    ]
    found = {port_key(channel, pair_) for pair_ in others}
    assert len(found) == len(others)
    assert agreed(pair) not in found
    assert port_key(replace(channel, derivation=bytes(32)), (ALICE, BOB)) != agreed(pair)


@pytest.mark.parametrize("pfs", ["required", "off"])
def test_no_esp_key_is_a_part_of_it(pfs: str) -> None:
    """Another protocol number in the seed: what gives ports away gives no payload away."""
    pair = Pair({**BOTH, **DRAFT, "pfs": pfs}, {**BOTH, **DRAFT, "pfs": pfs})
    pair.initiate(sst=True)
    pair.run()
    key = agreed(pair)
    assert key is not None
    assert PROTO_SST in range(249, 256), "private, RFC 2407 section 6.2"
    for side in pair.sides:
        for pair_ in side.pairs().values():
            for sa in pair_:
                material = sa.encryption_key + sa.integrity_key
                assert key not in material
                assert key[:8] not in material


@pytest.mark.parametrize("pfs", ["required", "off"])
@pytest.mark.parametrize("who", ["a", "b"])
def test_sst_35_a_rekey_of_esp_keeps_the_key_whoever_begins_it(pfs: str, who: str) -> None:
    pair = Pair({**BOTH, "pfs": pfs}, {**BOTH, "pfs": pfs})
    pair.initiate(sst=True)
    pair.run()
    before = agreed(pair)
    side = getattr(pair, who)
    replaced = 0 if side is pair.a else 1
    for tunnel in (10, 12, 14):
        pair.initiate(tunnel, side, sst=True, replaces=replaced)
        pair.run()
        replaced = tunnel
    assert len(keys(pair.a)) == len(keys(pair.b)) == 4
    assert agreed(pair) == before
    esp = [pair_[0].encryption_key for pair_ in pair.a.pairs().values()]
    assert len(set(esp)) == len(esp), "the keys of ESP are new each time"


def test_sst_35_crossing_initiations_come_to_one_key() -> None:
    """Each side begins before it knows of the other's, on the same channel."""
    pair = Pair(BOTH, BOTH)
    pair.initiate(sst=True)
    pair.run()
    pair.initiate(2, pair.a, sst=True, replaces=0)
    pair.initiate(2, pair.b, sst=True, replaces=1)
    pair.run()
    assert len(keys(pair.a)) == 3
    agreed(pair)
    pair.wait(30.0)
    assert pair.tunnel_up()


def test_sst_35_channels_begun_at_once_give_each_tunnel_its_own_key_at_both_ends() -> None:
    """Two main modes cross: two keys, and both ends have both, by the tunnel."""
    pair = Pair(BOTH, BOTH)
    pair.initiate(0, pair.a, sst=True)
    pair.initiate(0, pair.b, sst=True)
    pair.run()
    by_spi = [
        {event.sa.spi: event.sst_key for event in side.seen(e.InboundSaEstablished)}
        for side in pair.sides
    ]
    assert None not in by_spi[0].values()
    for side, other in ((0, 1), (1, 0)):
        for inbound, outbound in pair.sides[side].pairs().values():
            assert by_spi[side][inbound.spi] == by_spi[other][outbound.spi]


@pytest.mark.parametrize("lost", range(1, 4))
@pytest.mark.parametrize("times", [1, 2])
def test_sst_35_lost_messages_of_a_rekey_leave_one_key(lost: int, times: int) -> None:
    """Whichever of the three is lost, and once more: what comes again comes to the same key."""
    pair = Pair(BOTH, BOTH)
    pair.initiate(sst=True)
    pair.run()
    before = agreed(pair)
    pair.initiate(2, sst=True, replaces=0)
    for _ in range(lost - 1):
        pair.transfer()
    for _ in range(times):
        pair.drop()
        while not pair.wire:
            timers = [t for s in pair.sides if (t := s.endpoint.next_timer()) is not None]
            pair.now = max(pair.now, min(timers))
            for side in pair.sides:
                side.endpoint.handle_timer(pair.now)
            pair.pump()
            if lost == 3 and pair.wire:
                pair.transfer()  # message 2 again, which brings message 3 again
                break
    pair.run()
    pair.wait(10.0)
    assert pair.tunnel_up()
    channels = len(pair.a.seen(e.KeyingChannelEstablished))
    if (lost, times) == (1, 2):  # the peer may have lost the channel, so there is another one
        assert channels == 2
        assert keys(pair.a)[2] not in (None, before)
        assert keys(pair.a)[2] == list(keys(pair.b).values())[-1]
    else:
        assert channels == 1
        assert agreed(pair) == before


def test_sst_35_duplicates_and_reordering_leave_one_key() -> None:
    pair = Pair(BOTH, BOTH)
    pair.initiate(sst=True)
    for _ in range(40):
        if not pair.wire:
            break
        pair.duplicate()
        pair.reorder()
        pair.transfer()
    pair.run()
    pair.wait(5.0)
    assert pair.tunnel_up()
    assert agreed(pair) is not None


def test_sst_35_a_new_channel_brings_a_new_key() -> None:
    pair = Pair({**BOTH, "channel_lifetime": 600}, {**BOTH, "channel_lifetime": 600})
    pair.initiate(sst=True)
    pair.run()
    before = agreed(pair)
    pair.wait(590.0)  # the channel has renewed itself meanwhile
    tunnel = max(pair.a.pairs())
    pair.initiate(2, sst=True, replaces=tunnel)
    pair.run()
    assert pair.tunnel_up()
    assert keys(pair.a)[2] == list(keys(pair.b).values())[-1]
    assert keys(pair.a)[2] not in (None, before)


def test_sst_35_after_24_hours_a_new_tunnel_has_a_new_channel_and_a_new_key() -> None:
    """Even where channels live longer."""
    week = {**BOTH, "channel_lifetime": 604800, "tunnel_lifetime": 604800, "dpd_interval": 0.0}
    pair = Pair(week, week)
    pair.initiate(sst=True)
    pair.run()
    before = agreed(pair)
    pair.now += 86390.0
    pair.initiate(2, sst=True, remote_selector=CAROL)
    pair.run()
    assert len(pair.a.seen(e.KeyingChannelEstablished)) == 1
    pair.now += 20.0
    pair.initiate(4, sst=True, replaces=0)
    pair.run()
    assert len(pair.a.seen(e.KeyingChannelEstablished)) == 2
    assert keys(pair.a)[4] not in (None, before)
    assert keys(pair.a)[4] in keys(pair.b).values()
    pair.initiate(6, remote_selector=replace(CAROL, protocol=6))
    pair.run()
    assert len(pair.a.seen(e.KeyingChannelEstablished)) == 2, "who does without may use any"


def test_a_channel_that_is_too_old_gives_no_key_to_what_the_peer_begins() -> None:
    week = {**BOTH, "channel_lifetime": 604800, "tunnel_lifetime": 604800, "dpd_interval": 0.0}
    pair = Pair(week, week)
    pair.initiate(sst=True)
    pair.run()
    [session] = pair.a.endpoint._directory.sessions.values()
    assert session.established_at is not None
    session.established_at += 2 * 86400.0  # the initiator's clock is of another opinion
    pair.now += 86400.0 + 3500.0
    pair.initiate(2, sst=True, replaces=0)
    pair.run()
    assert keys(pair.a)[2] is not None, "begun in time, as the initiator sees it"
    pair.now += 200.0
    pair.initiate(4, sst=True, replaces=2)
    pair.run()
    assert keys(pair.a)[4] is None
    assert list(keys(pair.b).values())[-1] is None


def test_a_responder_without_ids_in_message_1_has_no_key_to_agree_upon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without them each side sees its own addresses, which a NAT may have changed."""
    pair = Pair(BOTH, BOTH)
    hashed = quick_mode.hashed_message

    def without_ids(keys_, iv, exchange, message_id, payloads, *rest):
        kept = [p for p in payloads if not isinstance(p, quick_mode.IdentificationPayload)]
        return hashed(keys_, iv, exchange, message_id, kept, *rest)

    monkeypatch.setattr(quick_mode, "hashed_message", without_ids)
    pair.initiate(sst=True)
    pair.run()
    [proposed] = pair.b.seen(e.TunnelProposed)
    assert not proposed.sst


# What the shell of `outer` must know.


@pytest.mark.parametrize("forced", [False, True])
@pytest.mark.parametrize("nat", [False, True], ids=["no NAT", "a NAT before us"])
def test_sst_38_a_nat_is_told_to_who_began_even_if_udp_is_forced(forced: bool, nat: bool) -> None:
    public = e.TransportAddress(CAROL.network.network_address)
    pair = Pair(BOTH, BOTH, nats=(Nat(public) if nat else None, None))
    wanted = e.Encapsulation.UDP if forced else None
    pair.initiate(sst=True, encapsulation=wanted)
    pair.run()
    [ready] = pair.a.seen(e.InboundSaEstablished)
    assert ready.translated is nat
    assert (ready.sa.ports is not None) is (forced or nat)


def test_the_key_is_in_no_repr() -> None:
    pair = Pair(BOTH, BOTH)
    pair.initiate(sst=True)
    pair.run()
    [ready] = pair.a.seen(e.InboundSaEstablished)
    key = agreed(pair)
    assert key is not None
    assert repr(key) not in repr(ready)
    assert key.hex() not in repr(ready)


def test_the_octets_of_the_attribute() -> None:
    """Basic form: type 32401 with the first bit set, value 1."""
    configuration = Pair(BOTH, BOTH).a.endpoint._station.configuration
    offer = offer_tunnel(configuration, None, b"\0\0\1\0", sst=True)
    transforms = offer.proposals[0].transforms
    octets = serialize_attributes(transforms[0].attributes)
    assert octets.count(b"\xfe\x91\0\1") == 1
    assert b"\xfe\x91" not in serialize_attributes(transforms[-1].attributes)


def test_sst_29_who_strips_the_vendor_id_gets_a_tunnel_without_and_the_shell_sees_it() -> None:
    """Vendor IDs are not authenticated; what was agreed upon is, and says that there is no key."""
    pair = Pair(BOTH, BOTH)
    pair.initiate(sst=True)
    first = pair.wire[0].data
    assert first.endswith(VENDOR)
    at, body = 28, bytearray(first[:-20])
    while at + int.from_bytes(body[at + 2 : at + 4], "big") < len(body):
        at += int.from_bytes(body[at + 2 : at + 4], "big")
    body[at] = PayloadType.NONE
    body[24:28] = len(body).to_bytes(4, "big")
    pair.wire[0] = replace(pair.wire[0], data=bytes(body))
    pair.run()
    assert pair.tunnel_up()
    assert agreed(pair) is None
