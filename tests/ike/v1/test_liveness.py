"""Dead peer detection, RFC 3706.

``set_vendors`` decides what the two endpoints know of each other.
"""

from __future__ import annotations

import struct

import pytest

from ike import events as e
from ike.v1.vendor import Vendor
from tests.support import ike_stranger as x
from tests.support.ike_pair import CAROL, Pair, Side
from tests.support.ike_stranger import Stranger
from tests.support.ike_vendors import set_vendors

R_U_THERE, ACK = 36136, 36137


@pytest.fixture
def understood(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sides have sent the vendor ID of RFC 3706."""
    set_vendors(monkeypatch, Vendor.DEAD_PEER_DETECTION)


@pytest.fixture
def not_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither side has."""
    set_vendors(monkeypatch)


def up() -> Pair:
    pair = Pair()
    pair.initiate()
    pair.run()
    return pair


def send_packets(pair: Pair, side: Side, seconds: float, answered: bool = False) -> None:
    """A packet each second; the shell tells of it as it happens."""
    for _ in range(round(seconds)):
        pair.wait(1)
        for number in side.pairs():
            received = pair.now if answered else None
            side.endpoint.traffic_seen(pair.now, number, received, pair.now)
        pair.pump()
        pair.run()


def infos(side: Side) -> int:
    return side.names().count("INFO")


def test_the_peer_answers(understood: None) -> None:
    """HDR*, HASH, N(R-U-THERE)  -->  <--  HDR*, HASH, N(R-U-THERE-ACK)."""
    pair = up()
    send_packets(pair, pair.a, 9)
    assert infos(pair.a) == 0
    send_packets(pair, pair.a, 2)
    assert infos(pair.a) == infos(pair.b) == 1
    send_packets(pair, pair.a, 60)
    assert 5 <= infos(pair.a) == infos(pair.b) <= 7  # every ten seconds
    assert pair.tunnel_up()
    assert not pair.a.triggers + pair.b.triggers


def test_traffic_is_proof_of_life(understood: None) -> None:
    pair = up()
    send_packets(pair, pair.a, 100, answered=True)
    assert infos(pair.a) == 0


def test_an_idle_tunnel_asks_nothing(understood: None) -> None:
    pair = up()
    pair.wait(1000)
    assert infos(pair.a) == infos(pair.b) == 0
    pair.a.endpoint.traffic_seen(pair.now, 0, pair.now, None)  # only received
    pair.wait(100)
    assert infos(pair.a) == 0


def test_a_dead_peer(understood: None) -> None:
    pair = up()
    pair.initiate(2, remote_selector=CAROL)
    pair.run()
    pair.broken = True
    pair.wait(1)
    begun = pair.now
    while pair.a.pairs():
        assert pair.now < begun + 30
        send_packets(pair, pair.a, 1)
    assert pair.now >= begun + 10
    assert {c.reason for c in pair.a.seen(e.TunnelClosed)} == {"dead peer"}
    assert len(pair.a.seen(e.TunnelClosed)) == 2
    assert [c.reason for c in pair.a.seen(e.KeyingChannelClosed)] == ["dead peer"]
    assert infos(pair.a) == 5  # no Deletes to the dead
    assert pair.a.endpoint.snapshot().channels == ()
    assert pair.a.endpoint.next_timer() is None
    assert not pair.a.seen(e.ContactEnded)  # the peer does not know


def test_the_next_channel_with_a_peer_that_was_dead_says_initial_contact(
    understood: None,
) -> None:
    pair = up()
    pair.broken = True
    send_packets(pair, pair.a, 30)
    assert pair.a.pairs() == {}
    assert len(pair.b.pairs()) == 1
    pair.broken = False
    pair.initiate(2, remote_selector=CAROL)
    pair.run()
    assert [c.reason for c in pair.b.seen(e.TunnelClosed)] == ["initial contact"]
    assert pair.tunnel_up()


@pytest.mark.parametrize("lost", range(1, 5))
def test_lost_questions_are_repeated(understood: None, lost: int) -> None:
    pair = up()
    pair.broken = True
    while infos(pair.a) < lost:
        send_packets(pair, pair.a, 1)
    pair.broken = False
    send_packets(pair, pair.a, 3)
    assert infos(pair.b) == 1
    send_packets(pair, pair.a, 5)
    assert pair.tunnel_up()


def test_a_message_of_another_exchange_is_proof_of_life(understood: None) -> None:
    pair = up()
    send_packets(pair, pair.a, 9)
    pair.initiate(2, remote_selector=CAROL)
    pair.run()
    send_packets(pair, pair.a, 5)
    assert infos(pair.a) == 0


def test_peers_without_it_are_not_asked(not_understood: None) -> None:
    pair = up()
    pair.broken = True
    send_packets(pair, pair.a, 100)
    assert infos(pair.a) == 0
    assert len(pair.a.pairs()) == 1


def test_it_can_be_turned_off(understood: None) -> None:
    pair = Pair(a={"dpd_interval": 0})
    pair.initiate()
    pair.run()
    pair.broken = True
    send_packets(pair, pair.a, 100)
    assert infos(pair.a) == 0


def test_it_goes_on_over_the_next_channel(understood: None) -> None:
    settings = {"channel_lifetime": 600, "tunnel_lifetime": 6000}
    pair = Pair(a=settings, b=settings)
    pair.initiate()
    pair.run()
    send_packets(pair, pair.a, 700, answered=True)
    pair.broken = True
    send_packets(pair, pair.a, 30)
    assert {c.reason for c in pair.a.seen(e.TunnelClosed)} == {"dead peer"}


def test_a_channel_that_was_replaced_asks_no_more(understood: None) -> None:
    """The peer comes back with nothing: what the old channel asked stays unanswered for ever."""
    pair = up()
    (tunnel,) = pair.b.pairs()
    pair.broken = True
    while not infos(pair.b):
        send_packets(pair, pair.b, 1)
    pair.broken = False
    pair.a.endpoint = Pair(seed=8).a.endpoint
    pair.a.events.clear()
    pair.initiate(0)
    pair.run()
    pair.wait(60)
    assert "dead peer" not in [c.reason for c in pair.b.seen(e.KeyingChannelClosed)]
    assert [c.reason for c in pair.b.seen(e.TunnelClosed)] == ["replaced"]
    pair.initiate(0, side=pair.b, local_selector=CAROL)
    pair.run()
    assert "MM1" not in pair.b.names()
    assert tunnel not in pair.b.pairs()


# What strangers say.


def question(
    stranger: Stranger,
    number: int,
    kind: int = R_U_THERE,
    cookies: bytes | None = None,
    octets: bytes | None = None,
) -> bytes:
    cookies = b"".join(stranger.cookies) if cookies is None else cookies
    octets = struct.pack("!I", number) if octets is None else octets
    return struct.pack("!IBBH", 1, 1, len(cookies), kind) + cookies + octets


def met() -> tuple[Pair, Stranger]:
    pair = Pair()
    stranger = Stranger(pair.b)
    stranger.establish()
    return pair, stranger


def test_an_authenticated_question_is_answered(not_understood: None) -> None:
    pair, stranger = met()
    for number in (7, 8, 4000):
        (reply,) = stranger.send(stranger.seal(x.INFO, (x.N, question(stranger, number))))
        kind, body = stranger.open(reply)[1]
        assert (kind, body) == (x.N, question(stranger, number, ACK))
    assert not pair.b.triggers


def test_a_repeated_question_gets_the_same_octets() -> None:
    pair, stranger = met()
    message = stranger.seal(x.INFO, (x.N, question(stranger, 7)))
    first = stranger.send(message)
    assert stranger.send(message) == first
    assert pair.b.triggers == ["replayed_message_id"]


@pytest.mark.parametrize("number", [0, 6, 7])
def test_a_replayed_number_is_refused(number: int) -> None:
    pair, stranger = met()
    stranger.send(stranger.seal(x.INFO, (x.N, question(stranger, 7))))
    assert stranger.send(stranger.seal(x.INFO, (x.N, question(stranger, number)))) == []
    assert pair.b.triggers == ["replayed_sequence"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"cookies": bytes(16)},
        {"cookies": b""},
        {"octets": b""},
        {"octets": bytes(3)},
        {"octets": bytes(8)},
    ],
)
def test_a_malformed_question_is_dropped(wrong: dict) -> None:
    pair, stranger = met()
    assert stranger.send(stranger.seal(x.INFO, (x.N, question(stranger, 7, **wrong)))) == []
    assert pair.b.triggers == ["malformed_payload"]


def test_an_unprotected_question_is_dropped() -> None:
    pair, stranger = met()
    message = x.clear(stranger.cookies, x.INFO, 77, (x.N, question(stranger, 7)))
    assert stranger.send(message) == []
    forged = stranger.seal(x.INFO, (x.N, question(stranger, 7)), digest=bytes(32))
    assert stranger.send(forged) == []
    assert pair.b.triggers == ["clear_message", "wrong_hash"]


def test_an_answer_to_no_question_proves_nothing(understood: None) -> None:
    pair, stranger = met()
    for number in (0, 1, 0x7FFFFFFF):
        assert stranger.send(stranger.seal(x.INFO, (x.N, question(stranger, number, ACK)))) == []
    assert pair.b.triggers == ["unexpected_message"] * 3


def test_an_old_answer_does_not_keep_the_dead_alive(understood: None) -> None:
    """Somebody who has recorded the answers plays them again after the peer died."""
    pair = up()
    send_packets(pair, pair.a, 30)
    answers = [d for d in pair.sent if d.local == pair.b.address][-5:]
    pair.broken = True
    for _ in range(40):
        for answer in answers:
            pair.deliver(answer)
        send_packets(pair, pair.a, 1)
    assert [c.reason for c in pair.a.seen(e.TunnelClosed)] == ["dead peer"]


def test_the_first_number_has_a_clear_high_bit() -> None:
    for seed in range(64):
        pair = Pair(seed=seed)
        stranger = Stranger(pair.b)
        stranger.establish()
        (session,) = pair.b.endpoint._directory.sessions.values()
        assert session.liveness is not None
        assert session.liveness._number < 1 << 31
