"""A request without the peer's keys: their look-up overlaps main mode (RFC 4322 section 4.2).

The wire message stands above each step.
"""

from __future__ import annotations

import pytest

from ike import events as e
from ike.constants import CLAIMS_MOST, DECISION_LONGEST
from ike.header import Header
from ike.v1.informational import verified_informational
from ike.wire import Reader
from tests.support.ike_pair import CAROL, Pair, private_key

MM6 = 5  # its position in a setup of nine messages


def waiting(seed: int = 1, **settings) -> Pair:
    """A pair whose initiator has read message 6 and waits for the keys of its sender."""
    pair = Pair(seed=seed, **settings)
    pair.a.answers = False
    pair.initiate(peer_keys=())
    for _ in range(MM6 + 1):
        pair.transfer()
    return pair


def needed(pair: Pair) -> e.PeerKeyNeeded:
    [event] = pair.a.seen(e.PeerKeyNeeded)
    return event


def give(pair: Pair, *names: str) -> None:
    """The keys that the shell found, and from now on its other answers, too."""
    keys = tuple(private_key(name).public_key() for name in names)
    pair.a.endpoint.provide_peer_keys(pair.now, needed(pair).channel, keys)
    pair.a.answers = True
    pair.pump()


def assert_one_tunnel(pair: Pair) -> None:
    assert pair.tunnel_up()
    assert len(pair.a.pairs()) == len(pair.b.pairs()) == 1
    assert not pair.a.seen(e.NegotiationFailed)


def test_keys_are_asked_for_when_message_6_is_there() -> None:
    pair = Pair()
    pair.a.answers = False
    pair.initiate(peer_keys=())  # HDR, SA -->, although no key is known
    assert pair.a.names() == ["MM1"]
    for _ in range(MM6):
        assert not pair.a.seen(e.PeerKeyNeeded)
        pair.transfer()
    pair.transfer()  # <-- HDR*, IDir, SIG_R
    event = needed(pair)
    assert (event.identity, event.remote, event.initiator) == (
        pair.b.address.address,
        pair.b.address,
        True,
    )
    assert not pair.a.seen(e.KeyingChannelEstablished)
    assert pair.wire == []
    give(pair, "other", "b")
    [up] = pair.a.seen(e.KeyingChannelEstablished)
    assert up.key == pair.b.key.public_key()
    pair.run()
    assert_one_tunnel(pair)
    assert pair.a.triggers == []


def test_nothing_is_sent_again_while_the_keys_are_looked_up() -> None:
    pair = waiting()
    sent = len(pair.sent)
    pair.wait(DECISION_LONGEST - 1)
    assert len(pair.sent) == sent
    give(pair, "b")
    pair.run()
    # The responder's channel is up since message 6: it waits as long as it lives.
    assert_one_tunnel(pair)


@pytest.mark.parametrize("position", range(MM6 + 1))
def test_each_message_lost(position: int) -> None:
    pair = Pair(seed=position + 10)
    pair.initiate(peer_keys=())
    for _ in range(position):
        pair.transfer()
    pair.drop()
    pair.wait(4)
    assert_one_tunnel(pair)


@pytest.mark.parametrize("position", range(MM6 + 1))
def test_each_message_doubled(position: int) -> None:
    pair = Pair(seed=position + 20)
    pair.initiate(peer_keys=())
    for _ in range(position):
        pair.transfer()
    pair.duplicate()
    pair.run()
    pair.wait(4)
    assert_one_tunnel(pair)


def test_message_6_again_while_it_waits_is_a_duplicate() -> None:
    pair = waiting()
    message = pair.sent[-1]
    pair.deliver(message)
    assert pair.a.triggers == ["duplicate"]
    give(pair, "b")
    pair.run()
    assert_one_tunnel(pair)


def test_corrupted_message_6_does_not_win_over_the_true_one() -> None:
    """Each of the first few may be the true one."""
    pair = Pair()
    pair.a.answers = False
    pair.initiate(peer_keys=())
    for _ in range(MM6):
        pair.transfer()
    true = pair.wire[0]
    for bit in range(3):
        pair.wire.insert(0, true)
        pair.corrupt(len(true.data) * 8 - 400 + 8 * bit)  # within the signature
        pair.transfer()
    assert len(pair.a.seen(e.PeerKeyNeeded)) == 1
    pair.transfer()
    give(pair, "b")
    pair.run()
    assert_one_tunnel(pair)


def test_messages_6_that_wait_are_bounded() -> None:
    pair = waiting()
    true = pair.sent[-1]
    for bit in range(CLAIMS_MOST + 3):
        pair.wire.insert(0, true)
        pair.corrupt(len(true.data) * 8 - 400 + 8 * bit)
        pair.transfer()
    assert pair.a.triggers == ["unexpected_message"] * 4
    give(pair, "b")
    pair.run()
    assert_one_tunnel(pair)


def test_message_6_that_was_corrupted_is_asked_for_again_once_the_keys_are_known() -> None:
    pair = Pair()
    pair.a.answers = False
    pair.initiate(peer_keys=())
    for _ in range(MM6):
        pair.transfer()
    pair.corrupt(len(pair.wire[0].data) * 8 - 400)
    pair.transfer()
    give(pair, "b")
    assert pair.a.triggers == ["wrong_signature"]
    pair.run()  # MM5 once more -->, <-- MM6, which is verified at once
    assert len(pair.a.seen(e.PeerKeyNeeded)) == 1
    assert_one_tunnel(pair)


def test_none_of_the_keys_is_right() -> None:
    """ikev2-55-ipseckey-09: the initiator aborts, and deletes at the peer."""
    pair = waiting()
    give(pair, "other", "third")
    pair.run()
    pair.wait(10)
    [failed] = pair.a.seen(e.NegotiationFailed)
    assert failed.reason is e.Failure.BAD_SIGNATURE
    assert pair.b.endpoint.snapshot().channels == ()
    assert pair.a.endpoint.snapshot().channels == ()


def test_five_keys_the_middle_one_is_right() -> None:
    """ikev2-55-ipseckey-02, on the initiator's side."""
    pair = waiting()
    give(pair, "k1", "k2", "b", "k4", "k5")
    pair.run()
    assert_one_tunnel(pair)


@pytest.mark.parametrize(("names", "right"), [("12a45", True), ("12345", False)])
def test_five_keys_at_the_responder(names: str, right: bool) -> None:
    """The same on its side: the KEY records of the initiator are all tried."""
    pair = Pair()
    pair.keys_of_peer[id(pair.b)] = tuple(private_key(name) for name in names)
    pair.initiate()
    pair.run()
    pair.wait(5)
    assert pair.tunnel_up() is right
    channels = len(pair.b.endpoint.snapshot().channels)
    assert channels == (1 if right else 0)  # none is right: refused and deleted


@pytest.mark.parametrize("empty", [True, False])
def test_no_keys_to_be_had(empty: bool) -> None:
    pair = waiting()
    channel = needed(pair).channel
    if empty:
        pair.a.endpoint.provide_peer_keys(pair.now, channel, ())
    else:
        pair.a.endpoint.peer_keys_unavailable(pair.now, channel, "no KEY record")
    pair.pump()
    [failed] = pair.a.seen(e.NegotiationFailed)
    assert failed.reason is e.Failure.NO_KEY
    pair.run()
    # The responder held an established channel, and is told under message 6's last block.
    assert pair.b.endpoint.snapshot().channels == ()
    assert "wrong_hash" not in pair.b.triggers


@pytest.mark.parametrize("why", ["no keys", "wrong keys"])
def test_farewell_is_encrypted_as_any_responder_expects(why: str) -> None:
    """With the last block of message 6 (RFC 2409 appendix B), not with that of message 5."""
    pair = waiting()
    [session] = pair.b.endpoint._directory.sessions.values()
    end = session.end
    assert end is not None
    before = len(pair.sent)
    if why == "no keys":
        pair.a.endpoint.peer_keys_unavailable(pair.now, needed(pair).channel, "no KEY record")
    else:
        give(pair, "other")
        pair.transfer()
        pair.transfer()
    pair.pump()
    said = [datagram.data for datagram in pair.sent[before:] if datagram.data[18] == 5]
    assert len(said) == 2  # a notify and a Delete
    for message in said:
        header = Header.parse(Reader(message))
        verified_informational(end.keys, end.block, header, message)


def test_shell_that_never_answers_does_not_keep_the_channel() -> None:
    pair = waiting()
    pair.wait(DECISION_LONGEST + 1)
    [failed] = pair.a.seen(e.NegotiationFailed)
    assert failed.reason is e.Failure.NO_KEY
    assert pair.a.endpoint.snapshot().channels == ()
    assert pair.b.endpoint.snapshot().channels == ()


def test_late_answer_and_second_answer_change_nothing() -> None:
    pair = waiting()
    channel = needed(pair).channel
    give(pair, "b")
    pair.run()
    pair.a.endpoint.provide_peer_keys(pair.now, channel, (private_key("x").public_key(),))
    pair.a.endpoint.peer_keys_unavailable(pair.now, channel, "late")
    assert pair.a.endpoint.snapshot().unknown_handles == 2
    assert_one_tunnel(pair)


def test_peer_under_another_identity_is_not_asked_about() -> None:
    pair = Pair(b={"identity": "sg-x.example"})
    pair.a.answers = False
    pair.initiate(peer_keys=())
    pair.run()
    assert not pair.a.seen(e.PeerKeyNeeded)
    assert "wrong_identity" in pair.a.triggers
    pair.wait(20)
    [failed] = pair.a.seen(e.NegotiationFailed)
    assert failed.reason is e.Failure.WRONG_IDENTITY


def test_closed_while_it_waits() -> None:
    pair = waiting()
    pair.a.endpoint.close(pair.now)
    pair.pump()
    pair.run()
    [failed] = pair.a.seen(e.NegotiationFailed)
    assert failed.reason is e.Failure.CANCELLED
    assert pair.b.endpoint.snapshot().channels == ()
    assert pair.a.endpoint.next_timer() is None


class TestReuse:
    def test_second_request_without_keys_waits_on_the_same_channel(self) -> None:
        pair = Pair()
        pair.a.answers = False
        pair.initiate(peer_keys=())
        pair.initiate(2, peer_keys=(), remote_selector=CAROL)
        for _ in range(MM6 + 1):
            pair.transfer()
        give(pair, "b")
        pair.run()
        assert pair.a.names().count("MM1") == 1
        assert len(pair.a.pairs()) == 2

    def test_request_with_a_key_does_not_wait_for_late_ones(self) -> None:
        pair = Pair()
        pair.a.answers = False
        pair.initiate(peer_keys=())
        pair.initiate(2, remote_selector=CAROL)
        assert pair.a.names().count("MM1") == 2

    def test_channel_with_late_keys_serves_later_requests(self) -> None:
        pair = Pair()
        pair.initiate(peer_keys=())
        pair.run()
        pair.initiate(2, peer_keys=(), remote_selector=CAROL)
        pair.initiate(4, remote_selector=CAROL)
        pair.run()
        assert pair.a.names().count("MM1") == 1

    def test_channel_of_a_delegations_key_does_not_serve_a_request_without_one(self) -> None:
        """Whoever owns a reverse zone can name any gateway there, with a key of its own."""
        pair = Pair()
        pair.initiate()
        pair.run()
        pair.initiate(2, peer_keys=(), remote_selector=CAROL)
        pair.run()
        assert pair.a.names().count("MM1") == 2
        assert len(pair.a.seen(e.PeerKeyNeeded)) == 1

    def test_channel_that_the_peer_began_serves_a_request_without_keys(self) -> None:
        pair = Pair()
        pair.initiate(side=pair.b)
        pair.run()
        pair.initiate(2, peer_keys=(), remote_selector=CAROL)
        pair.run()
        assert "MM1" not in pair.a.names()
        assert len(pair.a.pairs()) == 2


class TestIdentity:
    """``TunnelRequest.identity``: what we call ourselves."""

    def test_peer_sees_the_name_that_was_ordered(self) -> None:
        pair = Pair()
        pair.initiate(identity="SG-A.example.")
        pair.run()
        [event] = pair.b.seen(e.PeerKeyNeeded)
        assert event.identity == "sg-a.example"
        assert_one_tunnel(pair)

    def test_channel_serves_only_requests_with_the_same_identity(self) -> None:
        pair = Pair()
        pair.initiate()
        pair.run()
        pair.initiate(2, identity="sg-a.example", remote_selector=CAROL)
        pair.run()
        assert pair.a.names().count("MM1") == 2
        pair.initiate(4, identity="sg-a.example.", remote_selector=CAROL)
        pair.initiate(6, remote_selector=CAROL)
        pair.initiate(8, identity=pair.a.address.address, remote_selector=CAROL)
        pair.run()
        assert pair.a.names().count("MM1") == 2

    def test_none_means_what_is_configured(self) -> None:
        pair = Pair(a={"identity": "sg-a.example"})
        pair.initiate()
        pair.initiate(2, identity="sg-a.example", remote_selector=CAROL)
        pair.run()
        assert pair.a.names().count("MM1") == 1
        assert pair.b.seen(e.PeerKeyNeeded)[0].identity == "sg-a.example"

    def test_successor_of_a_channel_keeps_the_identity(self) -> None:
        pair = Pair(a={"channel_lifetime": 100}, b={"channel_lifetime": 100})
        pair.initiate(identity="sg-a.example")
        pair.run()
        pair.wait(99)
        assert pair.a.names().count("MM1") > 1
        assert {event.identity for event in pair.b.seen(e.PeerKeyNeeded)} == {"sg-a.example"}


def test_key_is_looked_up_again_after_the_life_of_a_channel() -> None:
    """A key that the peer has withdrawn, because somebody has it, must not be good for ever."""
    pair = Pair(a={"channel_lifetime": 600}, b={"channel_lifetime": 600})
    pair.initiate(peer_keys=())
    pair.run()
    pair.initiate(2, remote_selector=CAROL, peer_keys=())
    pair.run()
    assert len(pair.a.seen(e.PeerKeyNeeded)) == 1  # the channel is still that of the look-up
    pair.wait(590.0)
    assert len(pair.a.seen(e.KeyingChannelEstablished)) == 2
    assert len(pair.a.seen(e.PeerKeyNeeded)) == 1  # its successor, with the same key
    pair.initiate(4, remote_selector=CAROL, peer_keys=())
    pair.run()
    assert 4 in [event.tunnel for event in pair.a.seen(e.OutboundSaEstablished)]
    assert len(pair.a.seen(e.PeerKeyNeeded)) == 2
