"""INITIAL-CONTACT (RFC 2407 section 4.6.3.3, RFC 4322 section 9.3), and who is a contact."""

from __future__ import annotations

import struct

import pytest

from ike import events as e
from ike.constants import CONTACTS_MOST
from ike.v1.contact import Contacts
from tests.support import ike_stranger as x
from tests.support.ike_pair import ALICE, CAROL, A, B, Pair, private_key
from tests.support.ike_stranger import Stranger

INITIAL_CONTACT = 24578


def up(**settings) -> Pair:
    pair = Pair(**settings)
    pair.initiate()
    pair.run()
    assert pair.tunnel_up()
    return pair


def crash(pair: Pair, name: str, remembers: bool = True, seed: int = 77) -> None:
    """One side loses all but what it has on disk."""
    side = getattr(pair, name)
    lost = frozenset({pair.other(side).address.address}) if remembers else frozenset()
    fresh = Pair(**{name: {"lost_contacts": lost}}, seed=seed)
    side.endpoint = getattr(fresh, name).endpoint
    side.events.clear()


def reasons(side) -> list[str]:
    return [closed.reason for closed in side.seen(e.TunnelClosed)]


def test_the_initiator_says_it_in_message_5() -> None:
    pair = up()
    pair.initiate(2, remote_selector=CAROL)
    pair.run()
    crash(pair, "a")
    pair.initiate(0, remote_selector=ALICE, local_selector=ALICE)
    while not pair.b.seen(e.TunnelClosed):
        pair.transfer()
    assert pair.a.names() == ["MM1", "MM3", "MM5"]
    assert reasons(pair.b) == ["initial contact"] * 2
    assert "INFO" not in pair.b.names()  # without Deletes: nobody is there to hear them
    pair.run()
    assert pair.tunnel_up()
    assert len(pair.b.endpoint.snapshot().channels) == 1
    pair.wait(60)
    assert pair.tunnel_up()


def test_the_responder_says_it_after_message_6() -> None:
    pair = up()
    pair.initiate(2, remote_selector=CAROL)
    pair.run()
    crash(pair, "b")
    pair.wait(2000)
    pair.initiate(4, local_selector=CAROL)  # no answer on the old channel: a fresh one
    pair.wait(5)
    assert "INFO" in pair.b.names()
    assert reasons(pair.a) == ["initial contact"] * 2
    assert list(pair.a.pairs()) == [4]
    assert pair.tunnel_up()


@pytest.mark.parametrize("lost", ["MM6", "INFO", "both"])
def test_the_responders_word_is_lost(lost: str) -> None:
    pair = up()
    crash(pair, "b")
    session = next(iter(pair.a.endpoint._directory.sessions.values()))
    session.silent = True
    pair.initiate(4, local_selector=CAROL)
    while pair.b.names()[-1:] != ["INFO"]:
        pair.transfer()
    assert pair.b.names()[-2:] == ["MM6", "INFO"]
    if lost == "MM6":
        del pair.wire[0]
    elif lost == "INFO":
        del pair.wire[1]
    else:
        pair.wire.clear()
    pair.wait(10)
    assert reasons(pair.a) == ["initial contact"]
    assert list(pair.a.pairs()) == [4]
    assert pair.tunnel_up()


def test_it_is_said_once() -> None:
    pair = up()
    crash(pair, "a")
    pair.initiate(0)
    pair.run()
    pair.initiate(2, remote_selector=CAROL)
    pair.run()
    other = e.TrafficSelector(ALICE.network, 6, 80)
    session = next(iter(pair.a.endpoint._directory.sessions.values()))
    session.silent = True
    pair.initiate(4, remote_selector=other)  # a second channel
    pair.run()
    pair.wait(30)
    assert pair.a.names().count("MM1") == 2
    assert len(pair.a.pairs()) == len(pair.b.pairs()) == 3


def test_nothing_is_said_to_others() -> None:
    pair = up()
    crash(pair, "a", remembers=False)
    pair.initiate(0, remote_selector=CAROL)
    pair.run()
    pair.wait(60)
    assert not reasons(pair.b)
    assert len(pair.b.pairs()) == 2


def test_it_does_not_matter_if_the_channel_that_said_it_fails() -> None:
    pair = up()
    crash(pair, "a")
    pair.initiate(0)
    for _ in range(4):
        pair.transfer()
    assert pair.a.names()[-1] == "MM5"
    pair.broken = True
    pair.wire.clear()
    pair.wait(30)
    assert pair.a.seen(e.NegotiationFailed)
    pair.broken = False
    pair.initiate(2)
    pair.run()
    assert reasons(pair.b) == ["initial contact"]
    assert pair.tunnel_up()


@pytest.mark.parametrize("seed", range(20))
def test_both_begin_after_the_crash(seed: int) -> None:
    """The channel that the peer began meanwhile is not one of the former life."""
    pair = up(seed=seed)
    crash(pair, "a", seed=seed + 100)
    pair.wait(50)
    session = next(iter(pair.b.endpoint._directory.sessions.values()))
    session.silent = True
    pair.initiate(0)
    for _ in range(seed % 7):
        if pair.wire:
            pair.transfer()
    pair.initiate(0, side=pair.b)
    step = 0
    while pair.wire:
        step += 1
        if (seed >> step % 5) & 1 and len(pair.wire) > 1:
            pair.reorder()
        pair.transfer()
    pair.wait(30)
    assert pair.tunnel_up()
    assert len(pair.a.pairs()) == len(pair.b.pairs()) == 1
    assert reasons(pair.b).count("initial contact") == 1


# Strangers.


def contact(stranger: Stranger, spi: bytes | None = None) -> tuple[int, bytes]:
    spi = b"".join(stranger.cookies) if spi is None else spi
    return x.N, struct.pack("!IBBH", 1, 1, len(spi), INITIAL_CONTACT) + spi


def met_with_tunnel() -> tuple[Pair, Stranger]:
    pair = up()
    stranger = Stranger(pair.b, now=pair.now)
    stranger.establish()
    return pair, stranger


def test_an_authenticated_peer_is_believed() -> None:
    pair, stranger = met_with_tunnel()
    stranger.send(stranger.seal(x.INFO, contact(stranger)))
    assert reasons(pair.b) == ["initial contact"]
    assert len(pair.b.endpoint.snapshot().channels) == 1


@pytest.mark.parametrize("how", ["clear", "wrong hash", "other cookies"])
def test_nobody_else_is(how: str) -> None:
    pair, stranger = met_with_tunnel()
    if how == "clear":
        message = x.clear(stranger.cookies, x.INFO, 9, contact(stranger))
    elif how == "wrong hash":
        message = stranger.seal(x.INFO, contact(stranger), digest=bytes(32))
    else:
        message = stranger.seal(x.INFO, contact(stranger, bytes(16)))
    stranger.send(message)
    assert pair.tunnel_up()
    assert not reasons(pair.b)


def test_another_key_closes_nothing_of_the_true_one() -> None:
    """A stranger whose message 5 claims the identity, with a key of its own that is accepted."""
    pair = up()
    thief = Pair(a={"private_key": private_key("thief"), "lost_contacts": {B.address}}, seed=5)
    pair.keys_of_peer[id(pair.b)] = (private_key("a"), private_key("thief"))
    pair.a.endpoint = thief.a.endpoint
    pair.a.events.clear()
    pair.initiate(0, remote_selector=CAROL)
    pair.run()
    assert len(pair.a.pairs()) == 1
    assert not reasons(pair.b)
    assert len(pair.b.pairs()) == 2
    assert len(pair.b.endpoint.snapshot().channels) == 2


def test_a_channel_that_came_up_meanwhile_is_not_of_the_former_life() -> None:
    """B's own main mode overtakes message 5, which says that A's is the first."""
    pair = up()
    crash(pair, "a")
    pair.wait(50)
    session = next(iter(pair.b.endpoint._directory.sessions.values()))
    session.silent = True
    pair.initiate(0, remote_selector=CAROL)
    while pair.a.names()[-1:] != ["MM5"]:
        pair.transfer()
    message_5 = pair.wire.pop()
    pair.initiate(0, side=pair.b, local_selector=ALICE)
    pair.run()
    assert len(pair.b.pairs()) == 2
    pair.deliver(message_5)
    pair.run()
    assert reasons(pair.b) == ["initial contact"]
    pair.wait(30)
    assert len(pair.a.pairs()) == len(pair.b.pairs()) == 2
    assert not reasons(pair.a)


def test_message_5_with_a_wrong_signature_closes_nothing() -> None:
    pair = up()
    thief = Pair(a={"private_key": private_key("thief"), "lost_contacts": {B.address}}, seed=5)
    pair.a.endpoint = thief.a.endpoint
    pair.initiate(0, remote_selector=CAROL)
    pair.run()
    pair.wait(20)
    assert "wrong_signature" in pair.b.triggers
    assert not reasons(pair.b)


# Who is a contact.


def test_contacts_begin_with_the_first_tunnel_and_end_with_the_last() -> None:
    pair = up()
    pair.initiate(2, remote_selector=CAROL)
    pair.run()
    for side in pair.sides:
        peer = pair.other(side).address.address
        assert [event.identity for event in side.seen(e.ContactBegun)] == [peer]
    pair.a.endpoint.close_tunnel(pair.now, 0)
    pair.pump()
    pair.run()
    assert not pair.a.seen(e.ContactEnded) + pair.b.seen(e.ContactEnded)
    pair.a.endpoint.close_tunnel(pair.now, 2)
    pair.pump()
    pair.run()
    assert [event.identity for event in pair.a.seen(e.ContactEnded)] == [B.address]
    assert [event.identity for event in pair.b.seen(e.ContactEnded)] == [A.address]


def test_renewal_does_not_end_a_contact() -> None:
    pair = up()
    pair.initiate(2, replaces=0)
    pair.run()
    pair.wait(30)
    assert len(pair.a.pairs()) == 1
    assert len(pair.a.seen(e.ContactBegun)) == 1
    assert not pair.a.seen(e.ContactEnded)


def test_a_contact_that_was_not_told_has_not_ended() -> None:
    settings = {"tunnel_lifetime": 6000, "channel_lifetime": 600}
    pair = up(a=settings, b=settings)
    pair.broken = True
    pair.wait(700)  # the channel is gone, the tunnel is not
    pair.a.endpoint.close_tunnel(pair.now, 0)
    pair.pump()
    assert reasons(pair.a) == ["closed"]
    assert not pair.a.seen(e.ContactEnded)


def test_names_of_lost_contacts_are_made_normal() -> None:
    pair = Pair(a={"lost_contacts": frozenset({"SG-B.Example."})}, b={"identity": "sg-b.example"})
    directory = pair.a.endpoint._directory
    assert directory.contacts.claim("sg-b.example", 1)
    assert not directory.contacts.claim("sg-b.example", 2)
    directory.contacts.channel_failed(1)
    assert directory.contacts.claim("sg-b.example", 2)


def test_debts_are_bounded_and_the_oldest_is_let_go() -> None:
    contacts = Contacts([])
    for number in range(CONTACTS_MOST + 5):
        contacts.lost(f"host-{number}.example")
    assert not contacts.claim("host-4.example", 1)
    assert contacts.claim("host-5.example", 1)
    assert contacts.claim(f"host-{CONTACTS_MOST + 4}.example", 2)
