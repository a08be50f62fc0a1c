"""The endpoint as its shell sees it: orders, questions, events, time."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from ike import events as e
from ike.configuration import Configuration
from ike.endpoint import Endpoint
from tests.support import ike_stranger as x
from tests.support.ike_pair import (
    A6,
    ALICE,
    B6,
    BOB,
    CAROL,
    Pair,
    octets_from,
    private_key,
)
from tests.support.ike_stranger import Stranger


def up(**settings) -> Pair:
    pair = Pair(**settings)
    pair.initiate()
    pair.run()
    assert pair.tunnel_up()
    return pair


def reasons(side) -> list[e.Failure]:
    return [failure.reason for failure in side.seen(e.NegotiationFailed)]


# Setup.


def test_the_order_of_events_at_the_initiator() -> None:
    pair = up()
    told = [
        type(event).__name__ for event in pair.a.events if not isinstance(event, e.MessageReceived)
    ]
    assert told == [
        "MessageSent",  # MM1
        "MessageSent",  # MM3
        "MessageSent",  # MM5
        "KeyingChannelEstablished",
        "MessageSent",  # QM1
        "InboundSaEstablished",
        "MessageSent",  # QM3
        "OutboundSaEstablished",
        "ContactBegun",
    ]


def test_the_order_of_events_at_the_responder() -> None:
    pair = up()
    told = [type(event).__name__ for event in pair.b.events]
    assert told == [
        *("MessageReceived", "ExchangeStarted", "MessageSent"),
        *("MessageReceived", "MessageSent"),
        *("MessageReceived", "PeerKeyNeeded", "MessageSent", "KeyingChannelEstablished"),
        *("MessageReceived", "TunnelProposed", "InboundSaEstablished", "MessageSent"),
        *("MessageReceived", "OutboundSaEstablished", "ContactBegun"),
    ]


def test_both_sides_hold_the_same_associations() -> None:
    pair = up()
    ((a_in, a_out),) = pair.a.pairs().values()
    ((b_in, b_out),) = pair.b.pairs().values()
    assert (a_in, a_out) == (b_out, b_in)
    assert a_in.spi != a_out.spi
    assert a_in.encryption_key != a_out.encryption_key
    assert (a_out.source_selector, a_out.destination_selector) == (ALICE, BOB)
    assert (a_out.source, a_out.destination) == (pair.a.address.address, pair.b.address.address)
    assert "encryption_key" not in repr(a_in)


def test_message_2_waits_for_the_inbound_association() -> None:
    pair = Pair()
    pair.b.answers = False
    pair.initiate()
    pair.run()
    (needed,) = pair.b.seen(e.PeerKeyNeeded)
    assert needed.identity == pair.a.address.address
    keys = (private_key("other").public_key(), pair.a.key.public_key())
    pair.b.endpoint.provide_peer_keys(pair.now, needed.channel, keys)
    pair.pump()
    pair.run()
    (proposed,) = pair.b.seen(e.TunnelProposed)
    assert proposed.tunnel % 2
    assert (proposed.local_selector, proposed.remote_selector) == (BOB, ALICE)
    assert proposed.key == pair.a.key.public_key()
    pair.b.endpoint.accept_tunnel(pair.now, proposed.tunnel)
    pair.pump()
    assert pair.wire == []
    assert "QM2" not in pair.b.names()
    pair.b.endpoint.confirm_inbound(pair.now, proposed.tunnel)
    pair.pump()
    assert pair.b.names()[-1] == "QM2"
    pair.run()
    assert pair.tunnel_up()


def test_message_3_waits_for_the_inbound_association() -> None:
    pair = Pair()
    pair.a.answers = False
    pair.initiate()
    pair.run()
    assert pair.a.seen(e.InboundSaEstablished)
    assert "QM3" not in pair.a.names()
    assert not pair.a.seen(e.OutboundSaEstablished)
    pair.a.endpoint.confirm_inbound(pair.now, 0)
    pair.pump()
    pair.run()
    assert pair.tunnel_up()


def test_ipv6() -> None:
    pair = Pair(addresses=(A6, B6))
    selectors = [
        e.TrafficSelector(ip_network(n)) for n in ("2001:db8:1::65/128", "2001:db8:2::/64")
    ]
    pair.initiate(local_selector=selectors[0], remote_selector=selectors[1])
    pair.run()
    assert pair.tunnel_up()
    (proposed,) = pair.b.seen(e.TunnelProposed)
    assert (proposed.remote_selector, proposed.local_selector) == tuple(selectors)
    assert proposed.identity == A6.address


def test_names_as_identities() -> None:
    pair = Pair(a={"identity": "SG-A.Example."}, b={"identity": "sg-b.example"})
    pair.initiate(peer_identity="SG-B.example.")
    pair.run()
    assert pair.tunnel_up()
    assert pair.b.seen(e.PeerKeyNeeded)[0].identity == "sg-a.example"
    assert pair.a.seen(e.KeyingChannelEstablished)[0].identity == "sg-b.example"


def test_ports_and_protocols_in_selectors() -> None:
    pair = Pair()
    narrow = e.TrafficSelector(ip_network("192.2.0.64/29"), 6, 443)
    pair.initiate(remote_selector=narrow)
    pair.run()
    assert pair.tunnel_up()
    assert pair.b.seen(e.TunnelProposed)[0].local_selector == narrow


@pytest.mark.parametrize(
    ("settings", "proposal", "cipher"),
    [
        ({}, "modern: aes-cbc-256 hmac-sha2-256 modp-2048", "aes-gcm-16"),
        ({"profiles": ("draft",)}, "draft: 3des-cbc hmac-sha1 modp-1536", "3des-cbc"),
        (
            {"profiles": ("draft", "modern")},
            "draft: 3des-cbc hmac-sha1 modp-1536",
            "3des-cbc",
        ),
        (
            {"extended_sequence_numbers": False},
            "modern: aes-cbc-256 hmac-sha2-256 modp-2048",
            "aes-gcm-16",
        ),
    ],
)
def test_proposal_lists(settings: dict, proposal: str, cipher: str) -> None:
    pair = up(a=settings, b=settings)
    assert pair.a.seen(e.KeyingChannelEstablished)[0].proposal == proposal
    ((inbound, _),) = pair.a.pairs().values()
    assert inbound.cipher == cipher
    extended = cipher == "aes-gcm-16" and settings.get("extended_sequence_numbers", True)
    assert inbound.extended_sequence_numbers is extended


def test_one_side_without_extended_sequence_numbers() -> None:
    pair = up(b={"extended_sequence_numbers": False})
    ((inbound, outbound),) = pair.a.pairs().values()
    assert not inbound.extended_sequence_numbers
    assert not outbound.extended_sequence_numbers


def test_lifetimes_are_the_shorter_of_both() -> None:
    for longer in ("a", "b"):
        settings = {"tunnel_lifetime": 100_000, "channel_lifetime": 200_000}
        pair = up(**{longer: settings})
        for side in pair.sides:
            ((inbound, outbound),) = side.pairs().values()
            assert inbound.lifetime_seconds == outbound.lifetime_seconds == 3600


# Failures.


def test_refusal_of_a_tunnel() -> None:
    pair = Pair()
    pair.b.answers = False
    pair.initiate()
    pair.run()
    (needed,) = pair.b.seen(e.PeerKeyNeeded)
    pair.b.endpoint.provide_peer_keys(pair.now, needed.channel, (pair.a.key.public_key(),))
    pair.pump()
    pair.run()
    (proposed,) = pair.b.seen(e.TunnelProposed)
    pair.b.endpoint.refuse_tunnel(pair.now, proposed.tunnel, "no delegation")
    pair.pump()
    request = next(d for d in pair.sent if len(d.data) > 700)
    pair.run()
    assert reasons(pair.a) == reasons(pair.b) == [e.Failure.REFUSED]
    assert "INVALID_ID_INFORMATION" in pair.a.seen(e.NegotiationFailed)[0].detail
    assert len(pair.a.endpoint.snapshot().channels) == 1
    informed = pair.b.names().count("INFO")
    pair.deliver(request)  # the refusal was lost, message 1 comes again
    assert pair.b.names().count("INFO") == informed + 1
    assert len(pair.b.seen(e.TunnelProposed)) == 1


@pytest.mark.parametrize("how", ["unavailable", "none"])
def test_no_keys_for_the_peer(how: str) -> None:
    pair = Pair()
    pair.b.answers = False
    pair.initiate()
    pair.run()
    (needed,) = pair.b.seen(e.PeerKeyNeeded)
    if how == "none":
        pair.b.endpoint.provide_peer_keys(pair.now, needed.channel, ())
    else:
        pair.b.endpoint.peer_keys_unavailable(pair.now, needed.channel, "no KEY record")
    pair.pump()
    pair.run()
    assert pair.a.triggers == ["unauthenticated_notify"]
    pair.wait(2)
    assert reasons(pair.a) == [e.Failure.BAD_SIGNATURE]
    assert pair.b.seen(e.KeyingChannelClosed)
    assert pair.b.endpoint.snapshot().channels == ()


def test_wrong_keys_for_the_peer_at_the_responder() -> None:
    pair = Pair()
    pair.keys_of_peer[id(pair.b)] = (private_key("other"),)
    pair.initiate()
    pair.run()
    pair.wait(5)
    assert pair.b.triggers.count("wrong_signature") == 2
    assert reasons(pair.a) == [e.Failure.BAD_SIGNATURE]
    assert len(pair.b.seen(e.PeerKeyNeeded)) == 1
    assert not pair.b.seen(e.KeyingChannelEstablished)


def test_wrong_key_of_the_responder() -> None:
    pair = Pair()
    pair.initiate(peer_keys=(private_key("other").public_key(),))
    pair.run()
    assert reasons(pair.a) == [e.Failure.BAD_SIGNATURE]
    assert pair.now == 1000.0  # at once: another copy was asked for and was as wrong
    assert not pair.a.seen(e.KeyingChannelEstablished)
    assert pair.a.names()[-1] == "INFO"


def test_any_of_several_keys() -> None:
    pair = Pair()
    keys = tuple(private_key(name).public_key() for name in ("x", "other", "b"))
    pair.initiate(peer_keys=keys)
    pair.run()
    assert pair.a.seen(e.KeyingChannelEstablished)[0].key == private_key("b").public_key()


def test_wrong_identity_of_the_responder() -> None:
    pair = Pair(b={"identity": "sg-b.example"})
    pair.initiate()
    pair.run()
    assert reasons(pair.a) == [e.Failure.WRONG_IDENTITY]
    assert not pair.a.seen(e.KeyingChannelEstablished)


def test_nothing_in_common_in_phase_1() -> None:
    pair = Pair(a={"profiles": ("draft",)}, b={"profiles": ("modern",)})
    pair.initiate()
    pair.run()
    assert reasons(pair.a) == []  # a hint in the clear does not end it yet
    pair.wait(1)
    assert reasons(pair.a) == [e.Failure.NO_PROPOSAL]
    assert pair.a.names() == ["MM1"]
    assert pair.b.endpoint.snapshot().channels == ()


def test_quick_mode_without_answer() -> None:
    pair = up()
    pair.initiate(2, remote_selector=CAROL)
    first = pair.drop()
    while pair.a.endpoint.next_timer() is not None and not reasons(pair.a):
        pair.now = pair.a.endpoint.next_timer()
        pair.a.endpoint.handle_timer(pair.now)
        pair.pump()
        pair.wire.clear()
    # The channel may be dead at the other end, so a new one was tried beside it, in vain.
    assert reasons(pair.a) == [e.Failure.SILENCE]
    copies = [d.data for d in pair.sent if d.data == first.data]
    assert len(copies) == 5
    assert pair.a.names().count("MM1") == 1 + 5
    # The next tunnel gets a new one at once.
    pair.initiate(4, remote_selector=CAROL)
    assert pair.a.names()[-1] == "MM1"


def test_quick_mode_without_answer_on_a_channel_made_for_it() -> None:
    pair = Pair()
    pair.initiate()
    while "QM1" not in pair.a.names():
        pair.transfer()
    while pair.a.endpoint.next_timer() is not None and not reasons(pair.a):
        pair.wire.clear()
        pair.now = pair.a.endpoint.next_timer()
        pair.a.endpoint.handle_timer(pair.now)
        pair.pump()
    assert reasons(pair.a) == [e.Failure.REFUSED]
    assert pair.a.names().count("QM1") == 5
    assert pair.a.names().count("MM1") == 1


def test_the_inbound_association_could_not_be_installed() -> None:
    pair = Pair()
    pair.a.answers = False
    pair.initiate()
    pair.run()
    pair.a.endpoint.inbound_failed(pair.now, 0, "no memory")
    pair.pump()
    pair.run()
    assert reasons(pair.a) == [e.Failure.CANCELLED]
    pair.wait(40)
    assert pair.b.endpoint.snapshot().tunnels == 0


def test_a_shell_that_never_answers() -> None:
    pair = Pair()
    pair.initiate()
    pair.a.answers = False
    pair.run()
    pair.now += 61
    pair.a.endpoint.handle_timer(pair.now)
    pair.pump()
    assert reasons(pair.a) == [e.Failure.CANCELLED]
    pair.run()
    assert pair.a.endpoint.snapshot().tunnels == 0
    assert pair.b.endpoint.snapshot().tunnels == 0


def test_a_peer_that_gives_up_ends_the_wait_for_the_shell() -> None:
    pair = Pair()
    pair.initiate()
    pair.a.answers = False
    pair.run()
    pair.wait(20)  # message 3 never came, so the responder said Delete
    assert reasons(pair.a) == reasons(pair.b) == [e.Failure.REFUSED]
    assert "deleted by the peer" in pair.a.seen(e.NegotiationFailed)[0].detail
    assert pair.a.endpoint.snapshot().tunnels == pair.b.endpoint.snapshot().tunnels == 0


def awaiting_message_3() -> tuple[Pair, Stranger, int]:
    """A stranger who has begun a quick mode and holds message 3 back; with its outbound SPI."""
    pair = Pair()
    stranger = Stranger(pair.b)
    stranger.establish()
    (reply,) = stranger.send(stranger.quick_1())
    assert reply[18] == x.QUICK
    ((_, inbound),) = [(ev.tunnel, ev.sa) for ev in pair.b.seen(e.InboundSaEstablished)]
    return pair, stranger, inbound.spi


@pytest.mark.parametrize("which", ["ours", "the peer's", "none", "another"])
def test_an_error_in_place_of_message_3_ends_the_quick_mode_at_once(which: str) -> None:
    pair, stranger, inbound_spi = awaiting_message_3()
    spis = {
        "ours": inbound_spi.to_bytes(4, "big"),
        "the peer's": b"\x11\x22\x33\x44",
        "none": b"",
        "another": b"\x99\x99\x99\x99",
    }
    spi = spis[which]
    body = (1).to_bytes(4, "big") + bytes((3, len(spi))) + (14).to_bytes(2, "big") + spi
    assert stranger.send(stranger.seal(x.INFO, (x.N, body))) == []
    if which == "another":
        assert reasons(pair.b) == []
        return
    assert reasons(pair.b) == [e.Failure.REFUSED]
    assert "NO_PROPOSAL_CHOSEN" in pair.b.seen(e.NegotiationFailed)[0].detail
    assert pair.b.endpoint.snapshot().tunnels == 0


@pytest.mark.parametrize("how", ["clear", "wrong hash"])
def test_an_error_that_nobody_signed_does_not(how: str) -> None:
    pair, stranger, _ = awaiting_message_3()
    body = (1).to_bytes(4, "big") + bytes((3, 0)) + (14).to_bytes(2, "big")
    if how == "clear":
        stranger.send(x.clear(stranger.cookies, x.INFO, 5, (x.N, body)))
    else:
        stranger.send(stranger.seal(x.INFO, (x.N, body), digest=bytes(32)))
    assert reasons(pair.b) == []
    assert pair.b.endpoint.snapshot().tunnels == 1


def test_a_delete_in_place_of_message_3() -> None:
    pair, stranger, inbound_spi = awaiting_message_3()
    body = (1).to_bytes(4, "big") + bytes((3, 4)) + (1).to_bytes(2, "big") + b"\x11\x22\x33\x44"
    (reply,) = stranger.send(stranger.seal(x.INFO, (x.D, body)))
    assert reasons(pair.b) == [e.Failure.REFUSED]
    kind, answer = stranger.open(reply)[1]
    assert (kind, answer[-4:]) == (x.D, inbound_spi.to_bytes(4, "big"))


def test_an_initiator_that_never_gets_message_6_takes_leave() -> None:
    """Its Delete is encrypted from message 5 on; the responder does not keep the channel."""
    pair = Pair()
    pair.initiate()
    while not pair.b.endpoint.snapshot().channels or "MM6" not in pair.b.names():
        pair.transfer()
    end = pair.now + 16
    while not reasons(pair.a):
        assert pair.now < end
        pair.wire = [d for d in pair.wire if d.local == pair.a.address]  # message 6 is lost
        for datagram in list(pair.wire):
            pair.wire.remove(datagram)
            pair.deliver(datagram)
        pair.now += 0.25
        for side in pair.sides:
            side.endpoint.handle_timer(pair.now)
        pair.pump()
    assert reasons(pair.a) == [e.Failure.SILENCE]
    assert pair.b.seen(e.KeyingChannelEstablished)
    assert len(pair.b.endpoint.snapshot().channels) == 1
    pair.run()
    assert pair.b.endpoint.snapshot().channels == ()
    assert [c.reason for c in pair.b.seen(e.KeyingChannelClosed)] == ["deleted by the peer"]


def test_a_leave_taken_by_another_closes_nothing() -> None:
    """A rival who sent a message 3 of his own has keys, but not those of the channel."""
    pair = Pair()
    stranger = Stranger(pair.b)
    stranger.send_1()
    rival = Stranger(pair.b)
    rival.cookies, rival.offer, rival.nonce = stranger.cookies, stranger.offer, b"r" * 16
    rival.send_3()
    stranger.send_3()
    assert stranger.send_5()
    rival.block = rival.message_5((x.ID, rival.identification()), (x.SIG, bytes(256)))[-16:]
    cookies = b"".join(rival.cookies)
    body = (1).to_bytes(4, "big") + bytes((1, 16)) + (1).to_bytes(2, "big") + cookies
    rival.send(rival.seal(x.INFO, (x.D, body)))
    assert len(pair.b.endpoint.snapshot().channels) == 1
    assert "garbled" in pair.b.triggers or "wrong_hash" in pair.b.triggers


def test_leave_can_only_be_taken_until_message_6_was_seen() -> None:
    pair = Pair()
    stranger = Stranger(pair.b)
    stranger.send_1()
    stranger.send_3()
    payloads = (x.ID, stranger.identification()), (x.SIG, stranger.sign(stranger.identification()))
    stranger.send_5(*payloads)
    stranger.send(stranger.seal(x.INFO, (x.N, bytes((0, 0, 0, 1, 1, 0, 0x60, 1)))))
    stranger.block = stranger.message_5(*payloads)[-16:]
    cookies = b"".join(stranger.cookies)
    body = (1).to_bytes(4, "big") + bytes((1, 16)) + (1).to_bytes(2, "big") + cookies
    stranger.send(stranger.seal(x.INFO, (x.D, body)))
    assert len(pair.b.endpoint.snapshot().channels) == 1
    assert pair.b.triggers in (["garbled"], ["wrong_hash"])


def test_calls_about_what_has_ended() -> None:
    pair = Pair()
    endpoint = pair.a.endpoint
    endpoint.provide_peer_keys(1.0, 17, ())
    endpoint.peer_keys_unavailable(1.0, 17, "gone")
    endpoint.accept_tunnel(1.0, 17)
    endpoint.refuse_tunnel(1.0, 17, "gone")
    endpoint.confirm_inbound(1.0, 17)
    endpoint.inbound_failed(1.0, 17, "gone")
    endpoint.close_tunnel(1.0, 17)
    assert endpoint.next_event() is None
    assert endpoint.datagrams_to_send() == []
    assert endpoint.snapshot().unknown_handles == 7


def test_answers_that_nobody_asked_for() -> None:
    pair = up()
    for side in pair.sides:
        for tunnel in side.pairs():
            side.endpoint.accept_tunnel(pair.now, tunnel)
            side.endpoint.refuse_tunnel(pair.now, tunnel, "too late")
            side.endpoint.confirm_inbound(pair.now, tunnel)
    pair.pump()
    assert pair.wire == []
    assert pair.a.triggers == pair.b.triggers == ["unexpected_message"] * 3
    assert pair.tunnel_up()


def test_our_own_mistakes_raise() -> None:
    pair = up()
    for tunnel in (0, 1, -2):
        with pytest.raises(ValueError, match="tunnel"):
            pair.a.endpoint.initiate(pair.now, tunnel, pair.request())
    for profiles in ((), ("modern", "ancient")):
        with pytest.raises(ValueError, match="profiles"):
            Endpoint(Configuration(private_key("a"), profiles=profiles), octets_from(1))
    with pytest.raises(ValueError, match="domain name"):
        Endpoint(Configuration(private_key("a"), identity="not a name"), octets_from(1))


# Channels for several tunnels.


def test_a_channel_is_used_again() -> None:
    pair = up()
    pair.initiate(2, remote_selector=CAROL)
    pair.run()
    assert pair.a.names().count("MM1") == 1
    assert len(pair.a.pairs()) == len(pair.b.pairs()) == 2
    (view,) = pair.a.endpoint.snapshot().channels
    assert view.tunnels == 2
    assert view.initiator
    assert view.identity == pair.b.address.address


def test_the_responder_of_a_channel_may_begin_a_tunnel() -> None:
    pair = up()
    pair.initiate(2, side=pair.b, remote_selector=CAROL)
    pair.run()
    assert "MM1" not in pair.b.names()
    assert len(pair.a.pairs()) == 2
    (proposed,) = pair.a.seen(e.TunnelProposed)
    assert proposed.identity == pair.b.address.address


def test_tunnels_queue_while_main_mode_runs() -> None:
    pair = Pair()
    for tunnel, selector in enumerate((BOB, CAROL, ALICE)):
        pair.initiate(2 * tunnel, remote_selector=selector)
    pair.run()
    assert pair.a.names().count("MM1") == 1
    assert len(pair.a.pairs()) == 3


def test_a_queued_tunnel_can_be_closed() -> None:
    pair = Pair()
    pair.initiate(0)
    pair.initiate(2, remote_selector=CAROL)
    pair.a.endpoint.close_tunnel(pair.now, 2)
    pair.pump()
    pair.run()
    assert reasons(pair.a) == [e.Failure.CANCELLED]
    assert list(pair.a.pairs()) == [0]


def test_other_keys_or_another_identity_mean_another_channel() -> None:
    pair = up()
    other = private_key("other").public_key()
    pair.initiate(2, remote_selector=CAROL, peer_keys=(other,))
    pair.run()
    assert pair.a.names().count("MM1") == 2
    pair.initiate(4, remote_selector=CAROL, peer_identity="sg-b.example")
    assert pair.a.names().count("MM1") == 3


def test_the_number_of_tunnels_per_channel_is_limited() -> None:
    pair = Pair(a={"tunnels_per_channel": 2})
    for tunnel in range(3):
        network = ip_network(f"192.2.0.{tunnel}/32")
        pair.initiate(2 * tunnel, remote_selector=e.TrafficSelector(network))
        pair.run()
    assert pair.a.names().count("MM1") == 2
    assert len(pair.a.pairs()) == 3


def test_tunnels_that_a_channel_adopts_do_not_fill_it() -> None:
    settings = {"tunnels_per_channel": 2}
    pair = Pair(a=settings, b=settings)
    for tunnel in range(6):
        network = ip_network(f"192.2.0.{tunnel}/32")
        pair.initiate(2 * tunnel, remote_selector=e.TrafficSelector(network))
        pair.run()
        pair.wait(5)
    assert pair.a.names().count("MM1") == 3
    assert len(pair.a.pairs()) == len(pair.b.pairs()) == 6
    assert not pair.b.triggers


def test_the_responder_limits_tunnels_too() -> None:
    pair = Pair(b={"tunnels_per_channel": 1})
    pair.initiate(0)
    pair.initiate(2, remote_selector=CAROL)
    pair.run()
    assert "too_many_exchanges" in pair.b.triggers
    assert len(pair.b.pairs()) == 1


# Closing.


def test_closing_a_tunnel_closes_it_at_both_ends() -> None:
    for which in ("a", "b"):
        pair = up()
        side = getattr(pair, which)
        side.endpoint.close_tunnel(pair.now, next(iter(side.pairs())))
        pair.pump()
        pair.run()
        assert [c.reason for c in side.seen(e.TunnelClosed)] == ["closed"]
        assert [c.reason for c in pair.other(side).seen(e.TunnelClosed)] == ["deleted by the peer"]
        # Each said it once: the peer's Delete answered ours, which ends the repetition.
        assert pair.a.names().count("INFO") == pair.b.names().count("INFO") == 1
        pair.wait(60)
        assert pair.a.names().count("INFO") == pair.b.names().count("INFO") == 1
        assert pair.a.endpoint.snapshot().tunnels == pair.b.endpoint.snapshot().tunnels == 0


def test_a_lost_delete_is_repeated_three_times_in_all() -> None:
    pair = up()
    pair.a.endpoint.close_tunnel(pair.now, 0)
    pair.pump()
    pair.drop()
    pair.wait(11)
    assert pair.b.seen(e.TunnelClosed)
    pair = up()
    pair.a.endpoint.close_tunnel(pair.now, 0)
    pair.pump()
    moments = []
    for _ in range(10):
        if pair.wire:
            moments.append(pair.now)
        pair.wire.clear()
        pair.now += 5
        pair.a.endpoint.handle_timer(pair.now)
        pair.pump()
    assert moments == [1000, 1010, 1020]


def test_shutting_down() -> None:
    pair = up()
    pair.initiate(2, remote_selector=CAROL)
    pair.run()
    pair.a.endpoint.close(pair.now)
    pair.pump()
    pair.run()
    assert pair.a.pairs() == pair.b.pairs() == {}
    for side in pair.sides:
        view = side.endpoint.snapshot()
        assert (view.channels, view.tunnels) == ((), 0)
        assert len(side.seen(e.KeyingChannelClosed)) == 1
    assert pair.a.endpoint.next_timer() is None


def test_shutting_down_in_the_middle() -> None:
    for position in range(9):
        pair = Pair()
        pair.initiate()
        for _ in range(position):
            pair.transfer()
        pair.a.endpoint.close(pair.now)
        pair.pump()
        pair.run()
        pair.wait(200)
        for side in pair.sides:
            view = side.endpoint.snapshot()
            assert view.tunnels == 0, position
            assert side.pairs() == {}
            # Once message 5 is on its way, message 6 is not known yet, whose last block should
            # encrypt the Delete: the last block of message 5 does instead.
            assert view.channels == (), position


def test_lifetimes_end_tunnels_and_channels() -> None:
    settings = {"tunnel_lifetime": 600, "channel_lifetime": 3600}
    pair = up(a=settings, b=settings)
    pair.wait(601)
    assert {c.reason for s in pair.sides for c in s.seen(e.TunnelClosed)} <= {
        "lifetime over",
        "deleted by the peer",
    }
    assert pair.a.pairs() == pair.b.pairs() == {}
    assert len(pair.a.endpoint.snapshot().channels) == 1
    pair.wait(3000)  # idle for more than half an hour when it ended: not renewed
    assert pair.a.names().count("MM1") == 1
    for side in pair.sides:
        assert len(side.seen(e.KeyingChannelClosed)) == 1
        assert side.endpoint.snapshot().channels == ()
        assert side.endpoint.next_timer() is None


def test_a_tunnel_outlives_its_channel() -> None:
    settings = {"tunnel_lifetime": 3000, "channel_lifetime": 600}
    pair = up(a=settings, b=settings)
    pair.broken = True
    pair.wait(700)  # the attempts to renew it come to nothing
    pair.broken = False
    assert pair.a.endpoint.snapshot().channels == ()
    assert pair.tunnel_up()
    renewals = pair.a.names().count("MM1")
    assert renewals > 5
    pair.initiate(2, remote_selector=CAROL)
    pair.run()
    assert pair.a.names().count("MM1") == renewals + 1
    pair.a.endpoint.close_tunnel(pair.now, 0)  # said over the new channel
    pair.pump()
    pair.run()
    assert len(pair.b.pairs()) == 1
    pair.wait(3000)
    assert pair.a.pairs() == pair.b.pairs() == {}


# The same tunnel again (RFC 4322 section 3.3.2).


def test_a_peer_that_lost_everything_replaces_its_tunnel() -> None:
    pair = up()
    fresh = Pair(seed=77)
    pair.a.endpoint = fresh.a.endpoint  # rebooted
    pair.a.events.clear()
    pair.initiate()
    pair.run()
    assert len(pair.b.pairs()) == 2  # packets may be under way on the old one
    pair.wait(20)
    assert [c.reason for c in pair.b.seen(e.TunnelClosed)] == ["replaced"]
    closed = pair.b.events.index(pair.b.seen(e.TunnelClosed)[0])
    assert closed > pair.b.events.index(pair.b.seen(e.OutboundSaEstablished)[1])
    assert pair.tunnel_up()
    assert len(pair.b.pairs()) == 1


def test_the_same_peer_asks_again() -> None:
    pair = up()
    pair.initiate(2)
    pair.run()
    pair.wait(6)
    assert list(pair.a.pairs()) == [2]
    assert len(pair.b.pairs()) == 1
    assert pair.tunnel_up()


@pytest.mark.parametrize("order", range(8))
def test_both_begin_at_once(order: int) -> None:
    pair = Pair(seed=order)
    pair.initiate(0)
    pair.initiate(0, side=pair.b)
    for step in range(200):
        if not pair.wire:
            break
        if order >> step % 3 & 1 and len(pair.wire) > 1:
            pair.reorder()
        pair.transfer()
    pair.wait(2)
    assert pair.tunnel_up()
    assert len(pair.a.pairs()) == len(pair.b.pairs()) == 1
    pair.wait(30)
    for side in pair.sides:
        assert len(side.pairs()) == len(side.seen(e.TunnelClosed)) == 1
        assert len(side.endpoint.snapshot().channels) == 1


# What others do and we tolerate.


def test_vendor_ids_and_private_payloads_are_ignored() -> None:
    pair = Pair()
    stranger = Stranger(pair.b)
    vendor = (13, bytes.fromhex("4048b7d56ebce88525e7de7f00d6c2d3"))
    stranger.offer = x.offer()
    replies = stranger.send(
        x.clear(stranger.cookies, x.MAIN, 0, (x.SA, stranger.offer), vendor, vendor, (130, b"x"))
    )
    assert len(replies) == 1


def test_foreign_transforms_are_passed_over() -> None:
    pair = Pair()
    stranger = Stranger(pair.b)
    good = x.transform(3, 1, x.MODERN_1)
    body = x.sa(
        x.proposal(
            1,
            b"",
            x.transform(1, 1, x.MODERN_1 + x.tv(31000, 1), last=False),
            x.transform(2, 1, x.MODERN_1.replace(x.tv(1, 7), x.tv(1, 65001)), last=False),
            good,
        )
    )
    (reply,) = stranger.send_1(body)
    assert reply.endswith(good[8:])
    assert reply[18] == x.MAIN


def test_lifetimes_in_long_form_and_reserved_octets() -> None:
    pair = Pair()
    stranger = Stranger(pair.b)
    attributes = x.MODERN_1.replace(x.tv(12, 28800), x.tlv(12, (86400).to_bytes(4, "big")))
    body = bytearray(x.offer(attributes))
    body[9] = 0xAA  # reserved octet of the proposal
    (reply,) = stranger.send_1(bytes(body))
    assert reply[18] == x.MAIN
    assert reply.endswith(attributes)


def test_reserved_flags_are_tolerated() -> None:
    pair = Pair()
    stranger = Stranger(pair.b)
    body = x.generic((x.SA, x.offer()))
    message = x.header(stranger.cookies, x.SA, x.MAIN, 0xFE, 0, body)
    assert len(stranger.send(message)) == 1


def test_esp_among_other_proposals() -> None:
    pair = Pair()
    stranger = Stranger(pair.b)
    stranger.establish()
    attributes = x.ESP_GCM
    bundle = [
        x.proposal(3, b"\x01\x02\x03\x04", x.transform(1, 20, attributes), last=False),
        x.proposal(4, b"\x01\x02", x.transform(1, 2, b""), last=False),
        x.proposal(2, b"\x05\x06\x07\x08", x.transform(1, 2, attributes), number=2, last=False),
        x.proposal(3, b"\x09\x0a\x0b\x0c", x.transform(1, 20, attributes), number=3),
    ]
    stranger.send(stranger.quick_1(sa=(x.SA, x.sa(*bundle))))
    (inbound,) = pair.b.seen(e.InboundSaEstablished)
    assert inbound.sa.cipher == "aes-gcm-16"
    assert pair.b.seen(e.TunnelProposed)


def test_quick_mode_without_identities_is_for_the_hosts_themselves() -> None:
    pair = Pair()
    stranger = Stranger(pair.b)
    stranger.establish()
    stranger.send(stranger.quick_1(id_i=None, id_r=None))
    (proposed,) = pair.b.seen(e.TunnelProposed)
    assert proposed.remote_selector.network == ip_network("192.1.1.4/32")
    assert proposed.local_selector.network == ip_network("192.1.1.5/32")


def test_kilobytes_limit_the_association() -> None:
    pair = Pair()
    stranger = Stranger(pair.b)
    stranger.establish()
    attributes = x.ESP_GCM + x.tv(1, 2) + x.tv(2, 5000)
    stranger.send(stranger.quick_1(sa=(x.SA, x.esp_offer(attributes=attributes))))
    (inbound,) = pair.b.seen(e.InboundSaEstablished)
    assert inbound.sa.lifetime_bytes == 5000 * 1024


def test_key_pairs_made_ahead_are_used_once() -> None:
    pair = Pair()
    assert [pair.a.endpoint.prepare() for _ in range(3)] == [True, True, False]
    pair.initiate()
    pair.run()
    assert pair.tunnel_up()
    assert pair.a.endpoint.prepare()


def test_channels_without_tunnels_are_closed_when_the_shell_says_so() -> None:
    pair = Pair()
    pair.initiate()
    pair.run()
    pair.a.endpoint.close_channels(pair.now, pair.b.address.address)
    pair.pump()
    assert pair.a.seen(e.KeyingChannelClosed) == [], "it carries a tunnel"
    pair.a.endpoint.close_tunnel(pair.now, 0)
    pair.a.endpoint.close_channels(pair.now, pair.a.address.address)
    pair.a.endpoint.close_channels(pair.now, pair.b.address.address)
    pair.pump()
    pair.run()
    for side in pair.sides:
        (closed,) = side.seen(e.KeyingChannelClosed)
        assert closed.reason in ("closed", "deleted by the peer")
        assert side.endpoint.snapshot().channels == ()
