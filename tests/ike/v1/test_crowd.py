"""Channels that peers began and that are up are bounded (RFC 4322 section 12.3)."""

from __future__ import annotations

from ike import events as e
from ike.constants import CHANNELS_PER_PEER, UNANSWERED_MOST
from ike.v1 import crowd
from tests.support.ike_pair import CAROL, Pair, private_key


def begin_channels(pair: Pair, count: int) -> None:
    """``count`` channels from a to b, without a tunnel: b refuses those."""
    pair.a.answers = True
    pair.b.answers = False
    for number in range(count):
        # A key of its own in the request keeps each from sharing an older channel.
        keys = (pair.b.key.public_key(), private_key(f"spare{number}").public_key())
        pair.initiate(number * 2, peer_keys=keys, replaces=None)
        while pair.wire:
            pair.transfer()
            for event in pair.b.events:
                if isinstance(event, e.PeerKeyNeeded):
                    key = (pair.a.key.public_key(),)
                    pair.b.endpoint.provide_peer_keys(pair.now, event.channel, key)
                elif isinstance(event, e.TunnelProposed):
                    pair.b.endpoint.refuse_tunnel(pair.now, event.tunnel, "no")
            pair.b.events.clear()
            pair.pump()
        for view in pair.a.endpoint.snapshot().channels:  # a forgets, as an attacker would
            session = pair.a.endpoint._directory.sessions[view.channel]
            session.close(pair.now, "forgotten", tell=False)
        pair.pump()


def test_peer_keeps_a_few_channels_at_most() -> None:
    pair = Pair()
    begin_channels(pair, CHANNELS_PER_PEER + 4)
    assert len(pair.b.endpoint.snapshot().channels) == CHANNELS_PER_PEER


def test_channel_with_a_tunnel_stays_and_idle_ones_go() -> None:
    pair = Pair()
    pair.initiate(1000)
    pair.run()
    assert pair.tunnel_up()
    with_tunnel = pair.b.endpoint.snapshot().channels[0].channel
    session = pair.a.endpoint.snapshot().channels[0].channel
    pair.a.endpoint._directory.sessions[session].close(pair.now, "forgotten", tell=False)
    pair.pump()
    begin_channels(pair, CHANNELS_PER_PEER + 2)
    channels = {view.channel for view in pair.b.endpoint.snapshot().channels}
    assert with_tunnel in channels
    assert len(channels) == CHANNELS_PER_PEER


def test_all_peers_together_keep_a_number_of_channels(monkeypatch) -> None:
    monkeypatch.setattr(crowd, "CHANNELS_MOST", 3)
    pair = Pair()
    begin_channels(pair, 6)
    assert len(pair.b.endpoint.snapshot().channels) == 3


def test_channels_that_we_began_do_not_count() -> None:
    pair = Pair()
    for number in range(CHANNELS_PER_PEER + 2):
        keys = (pair.b.key.public_key(), private_key(f"spare{number}").public_key())
        pair.initiate(number * 2, peer_keys=keys, remote_selector=CAROL)
    pair.run()
    assert len(pair.a.endpoint.snapshot().channels) == CHANNELS_PER_PEER + 2
    assert len(pair.b.endpoint.snapshot().channels) == CHANNELS_PER_PEER


def test_a_host_that_somebodys_records_name_gets_a_few_messages_1() -> None:
    """Whoever owns a reverse zone can name any host as gateway, for each address with another key.

    Each packet of his would be several messages of ours to that host: a reflector that amplifies.
    """
    pair = Pair()
    wrong, right = private_key("other").public_key(), (pair.b.key.public_key(),)
    for number in range(200):
        pair.initiate(number * 2, peer_keys=(wrong,) * (number + 1))
    failed = pair.a.seen(e.NegotiationFailed)
    assert len(pair.wire) == UNANSWERED_MOST
    assert [event.reason for event in failed] == [e.Failure.LIMIT] * (200 - UNANSWERED_MOST)
    # One that answers is no such host: it keeps nobody waiting.
    for _ in range(2 * UNANSWERED_MOST):
        pair.transfer()
    pair.initiate(1000, peer_keys=right)
    pair.run()
    assert pair.tunnel_up()


def test_what_shares_a_channel_does_not_count() -> None:
    pair = Pair()
    for number in range(2 * UNANSWERED_MOST):
        pair.initiate(number * 2)
    assert len(pair.wire) == 1
    assert not pair.a.seen(e.NegotiationFailed)
