"""After a crash of one side: a channel begun anew, SPIs disowned, and INVALID-SPI as a hint.

RFC 4322 section 3.2.6; RFC 2408 sections 3.14.1 and 3.15.
"""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from ike import events as e
from ike.registry import NotifyType, Protocol
from ike.v1.payloads import Notification
from tests.ike.v1.test_contact import crash, reasons, up
from tests.support.ike_pair import CAROL, A, B, Pair

INVALID_SPI = 11


def hint(
    spi: int, protocol: int = 3, notify: int = INVALID_SPI, cookies: bytes = b"\x07" * 16
) -> bytes:
    """A clear informational message as anybody can send it."""
    body = struct.pack("!IBBH", 1, protocol, 4, notify) + struct.pack("!I", spi)
    payload = struct.pack("!BBH", 0, 0, 4 + len(body)) + body
    header = cookies + struct.pack("!BBBBII", 11, 0x10, 5, 0, 0x1234, 28 + len(payload))
    return header + payload


def channels(pair: Pair) -> list[int]:
    return [view.channel for view in pair.a.endpoint.snapshot().channels]


class TestGreeting:
    def test_who_lost_all_says_so_in_a_channel_of_its_own(self) -> None:
        pair = up()
        pair.initiate(2, remote_selector=CAROL)
        pair.run()
        crash(pair, "b")
        pair.b.endpoint.greet(pair.now, pair.request(pair.b))
        pair.pump()
        pair.run()
        assert reasons(pair.a) == ["initial contact"] * 2
        assert pair.b.names() == ["MM1", "MM3", "MM5"], "no tunnel is asked for"
        [view] = pair.a.endpoint.snapshot().channels
        assert view.established_at is not None

    def test_older_channels_hand_over_to_the_new_one_and_end(self) -> None:
        pair = up()
        first = channels(pair)
        pair.a.endpoint.greet(pair.now, pair.request())
        pair.pump()
        pair.run()
        assert pair.tunnel_up()
        pair.wait(60)
        assert pair.tunnel_up()
        assert len(channels(pair)) == 1
        assert channels(pair) != first

    def test_successor_goes_by_the_new_channel_though_the_peer_lost_the_old_one(self) -> None:
        pair = up()
        crash(pair, "b", remembers=False)
        pair.a.endpoint.greet(pair.now, pair.request())
        pair.pump()
        pair.run()
        pair.initiate(2, replaces=0)
        pair.run()
        assert 2 in pair.a.pairs()
        assert pair.tunnel_up()

    def test_one_at_a_time(self) -> None:
        pair = up()
        for _ in range(3):
            pair.a.endpoint.greet(pair.now, pair.request())
        pair.pump()
        assert pair.a.names().count("MM1") == 2

    def test_keys_may_be_asked_for_later(self) -> None:
        pair = up()
        pair.a.endpoint.greet(pair.now, replace(pair.request(), peer_keys=()))
        pair.pump()
        pair.run()
        assert len(pair.a.seen(e.PeerKeyNeeded)) == 1
        assert len(pair.a.seen(e.KeyingChannelEstablished)) == 2

    def test_nobody_answers(self) -> None:
        pair = Pair()
        pair.broken = True
        pair.a.endpoint.greet(pair.now, pair.request())
        pair.wait(300)
        assert len(pair.a.seen(e.KeyingChannelClosed)) == 1
        assert not channels(pair)
        assert not pair.a.seen(e.NegotiationFailed)


class TestDisowning:
    def test_peer_closes_the_tunnel_that_we_have_lost(self) -> None:
        pair = up()
        pair.initiate(2, remote_selector=CAROL)
        pair.run()
        lost = pair.a.pairs()[2][1].spi  # what A sends on
        pair.b.endpoint.disown(pair.now, B.address, A.address, lost)
        pair.pump()
        pair.run()
        assert reasons(pair.a) == ["deleted by the peer"]
        assert list(pair.a.pairs()) == [0]

    def test_one_that_nobody_has_changes_nothing(self) -> None:
        pair = up()
        pair.b.endpoint.disown(pair.now, B.address, A.address, 0x4711)
        pair.pump()
        pair.run()
        pair.wait(60)
        assert pair.tunnel_up()

    def test_without_a_channel_nothing_is_sent(self) -> None:
        pair = Pair()
        pair.b.endpoint.disown(pair.now, B.address, A.address, 0x4711)
        pair.pump()
        assert not pair.sent


class TestHint:
    def test_invalid_spi_in_the_clear_is_told_of_and_dropped(self) -> None:
        pair = up()
        for cookies in (b"\x07" * 16, pair.sent[-1].data[:16]):
            pair.deliver(e.Datagram(hint(0x2001, cookies=cookies), B, A))
        told = e.SpiRefused(B, 0x2001, authenticated=False)
        assert pair.a.seen(e.SpiRefused) == [told, told]
        assert len(pair.a.triggers) == 2
        assert not pair.wire, "nothing is sent back"
        assert pair.tunnel_up()

    @pytest.mark.parametrize(
        "message",
        [
            hint(0x2001, notify=14),
            hint(0x2001, protocol=1),
            hint(0),
            hint(0x2001)[:-1],
            hint(0x2001) + b"x",
            hint(0x2001)[:28],
        ],
    )
    def test_anything_else_is_no_hint(self, message: bytes) -> None:
        pair = up()
        pair.deliver(e.Datagram(message, B, A))
        assert not pair.a.seen(e.SpiRefused)
        assert len(pair.a.triggers) == 1

    def test_under_a_right_hash_it_is_more(self) -> None:
        pair = up()
        session = next(iter(pair.b.endpoint._directory.sessions.values()))
        notification = Notification(
            Protocol.ESP, (0x2001).to_bytes(4, "big"), NotifyType.INVALID_SPI
        )
        session.send_informational([notification])
        pair.pump()
        pair.run()
        assert pair.a.seen(e.SpiRefused) == [e.SpiRefused(B, 0x2001, authenticated=True)]
        assert pair.tunnel_up()
