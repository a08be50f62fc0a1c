"""Messages in pieces: in order, out of order, lost, doubled, forged, too many, too large."""

from __future__ import annotations

import random
import struct
from dataclasses import replace
from ipaddress import ip_address

import pytest

from ike import events as e
from ike.constants import (
    FRAGMENT_TIMEOUT,
    FRAGMENTS_MOST,
    MESSAGE_LONGEST,
    REASSEMBLIES_MOST,
    REASSEMBLIES_PER_SOURCE,
    REASSEMBLY_READINGS,
)
from tests.support import ike_stranger as x
from tests.support.ike_pair import ALICE, CAROL, A, B, Nat, Pair, fragments

SIZE = 60


def advance(pair: Pair, messages: int) -> None:
    pair.initiate()
    for _ in range(messages):
        pair.transfer()


def held(pair: Pair) -> int:
    return sum(len(side.endpoint._fragments) for side in pair.sides)


def test_the_format() -> None:
    """What strongSwan 5.9.8 sends: exchange type of main mode, no flags, message ID 0, ID 1."""
    message = (
        bytes(range(1, 17)) + bytes((5, 0x10, 32, 1)) + b"idid" + struct.pack("!I", 40) + b"x" * 12
    )
    first, last = fragments(message, 30)
    assert first.hex() == (
        bytes(range(1, 17)).hex()
        + "84100200"
        + "00000000"
        + "00000042"
        + "00000026"
        + "0001"
        + "01"
        + "00"
        + message[:30].hex()
    )
    assert last[28:36].hex() == "00000012" + "0001" + "02" + "01"


@pytest.mark.parametrize("order", ["in order", "backwards", "shuffled", "doubled"])
@pytest.mark.parametrize("position", range(1, 9))
def test_each_message_in_pieces(position: int, order: str) -> None:
    """All but message 1, whose sender is nobody yet."""
    pair = Pair()
    advance(pair, position)
    count = pair.fragment(SIZE if position < 8 else 40)
    assert count > 1
    pieces, rest = pair.wire[:count], pair.wire[count:]
    if order == "backwards":
        pieces.reverse()
    elif order == "shuffled":
        random.Random(position).shuffle(pieces)
    elif order == "doubled":
        pieces = [piece for piece in pieces for _ in range(2)]
    pair.wire = pieces + rest
    pair.run()
    assert pair.tunnel_up()
    pair.wait(FRAGMENT_TIMEOUT)
    assert held(pair) == 0


def test_message_1_in_pieces_is_not_kept() -> None:
    pair = Pair()
    pair.initiate()
    pair.fragment(SIZE)
    pair.run()
    assert set(pair.b.triggers) == {"unknown_cookies"}
    assert held(pair) == 0
    pair.wait(20)
    assert pair.tunnel_up()  # it came whole by the second try


@pytest.mark.parametrize("lost", range(4))
def test_a_lost_piece_and_the_whole_message_again(lost: int) -> None:
    """The pieces of the second try have the same ID: they fill the gap."""
    pair = Pair()
    advance(pair, 4)
    count = pair.fragment(SIZE)
    assert count >= 4
    del pair.wire[lost]
    for _ in range(count - 1):
        pair.transfer()
    assert not pair.b.seen(e.PeerKeyNeeded)
    pair.now += 0.6
    pair.a.endpoint.handle_timer(pair.now)
    pair.pump()
    pair.fragment(SIZE)
    pair.run()
    assert pair.tunnel_up()
    assert len(pair.b.seen(e.PeerKeyNeeded)) == 1


def test_another_message_under_the_same_id_after_a_lost_piece() -> None:
    """strongSwan gives all messages the ID 1: what is left of one does not spoil the next."""
    pair = Pair()
    pair.initiate(0)
    pair.run()
    pair.initiate(2, remote_selector=CAROL)
    pair.fragment(SIZE)
    pair.wire.pop(1)
    while pair.wire:
        pair.transfer()
    pair.a.endpoint.close_tunnel(pair.now, 2)
    pair.initiate(4, remote_selector=ALICE)
    pair.wire = [d for d in pair.wire if len(d.data) > 200]
    assert pair.fragment(SIZE) > 2
    pair.run()
    assert 4 in pair.a.pairs()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("which", range(4))
def test_a_forged_piece_does_not_push_out_the_true_one(which: int, when: str) -> None:
    """The forger knows cookies, ID and address."""
    pair = Pair()
    advance(pair, 4)
    count = pair.fragment(SIZE)
    assert count >= 4
    true = pair.wire[which]
    forged = bytearray(true.data)
    forged[-1] ^= 0x55
    pair.wire.insert(which + (when == "after"), replace(true, data=bytes(forged)))
    pair.run()
    pair.wait(2)  # both readings are tried; the wrong one may cost a repetition of message 5
    assert pair.tunnel_up()
    assert len(pair.b.seen(e.KeyingChannelEstablished)) == 1
    pair.wait(FRAGMENT_TIMEOUT)
    assert held(pair) == 0


def test_a_forged_end() -> None:
    """A piece that says it is the last, with a number in the middle or beyond the end."""
    for number in (1, 2, 3, 60):
        pair = Pair()
        advance(pair, 4)
        pair.fragment(SIZE)
        forged = bytearray(pair.wire[0].data)
        forged[34], forged[35] = number, 1
        pair.wire.insert(1, replace(pair.wire[0], data=bytes(forged)))
        pair.run()
        assert pair.tunnel_up(), number


def test_pieces_from_another_source_are_apart() -> None:
    pair = Pair()
    advance(pair, 4)
    count = pair.fragment(SIZE)
    for piece in pair.wire[: count - 1]:
        spoofed = replace(A, port=4501)
        pair.b.endpoint.receive_datagram(pair.now, piece.data[:-1] + b"!", B, spoofed)
    stranger = e.TransportAddress(ip_address("192.1.1.77"))
    pair.b.endpoint.receive_datagram(pair.now, pair.wire[0].data, B, stranger)
    pair.pump()
    assert pair.b.triggers == ["wrong_address"]
    pair.run()
    assert pair.tunnel_up()


def test_behind_a_nat() -> None:
    """On port 4500 each piece has its marker, and the channel floats with the whole message."""
    pair = Pair(
        a={"identity": "a.example"},
        addresses=(e.TransportAddress(ip_address("10.0.0.2")), B),
        nats=(Nat(A, lambda port: port + 20000), None),
    )
    advance(pair, 4)
    pair.fragment(SIZE)
    assert all(d.data.startswith(bytes(4)) for d in pair.wire)
    pair.run()
    (pair_b,) = pair.b.pairs().values()
    assert pair_b[1].ports == e.UdpPorts(4500, 24500)


def established() -> tuple[Pair, bytes]:
    pair = Pair()
    pair.initiate()
    pair.run()
    return pair, pair.sent[-1].data[:16]


def piece(
    cookies: bytes,
    octets: bytes,
    number: int = 1,
    last: int = 0,
    identifier: int = 1,
    following: int = 0,
    length: int | None = None,
) -> bytes:
    length = 8 + len(octets) if length is None else length
    payload = struct.pack("!BBHHBB", following, 0, length, identifier, number, last) + octets
    return x.header((cookies[:8], cookies[8:]), 132, 2, 0, 0, payload)


@pytest.mark.parametrize(
    ("changes", "trigger"),
    [
        ({"number": 0}, "fragment"),
        ({"number": FRAGMENTS_MOST + 1}, "fragment"),
        ({"octets": b""}, "fragment"),
        ({"following": 132}, "fragment"),
        ({"length": 7}, "fragment"),
        ({"length": 4000}, "fragment"),
        ({"cookies": bytes(range(16))}, "unknown_cookies"),
    ],
)
def test_pieces_that_are_wrong(changes: dict, trigger: str) -> None:
    pair, cookies = established()
    data = piece(**{"cookies": cookies, "octets": b"x" * 50, **changes})
    pair.b.endpoint.receive_datagram(pair.now, data, B, A)
    pair.pump()
    assert pair.b.triggers == [trigger]
    assert held(pair) == 0


def test_pieces_in_pieces() -> None:
    pair, cookies = established()
    inner = piece(cookies, b"x" * 50)
    for data in fragments(inner, 40):
        pair.b.endpoint.receive_datagram(pair.now, data, B, A)
    pair.pump()
    assert pair.b.triggers == ["fragment"]


def test_a_message_of_the_wrong_length_or_for_another_channel() -> None:
    pair, cookies = established()
    good = x.header((cookies[:8], cookies[8:]), 8, 32, 1, 7, bytes(64))
    other = b"\x01" * 16 + good[16:]
    for identifier, whole in enumerate((good + b"!", good[:-1], other)):
        for data in fragments(whole, 40, identifier):
            pair.b.endpoint.receive_datagram(pair.now, cookies + data[16:], B, A)
        pair.pump()
        assert not pair.b.triggers
    for data in fragments(good, 40, 9):
        pair.b.endpoint.receive_datagram(pair.now, data, B, A)
    pair.pump()
    assert pair.b.triggers in (["wrong_hash"], ["garbled"])


def test_nothing_larger_than_a_message_may_be() -> None:
    pair, cookies = established()
    for number in range(1, FRAGMENTS_MOST + 1):
        data = piece(cookies, b"x" * 1400, number, number == FRAGMENTS_MOST)
        pair.b.endpoint.receive_datagram(pair.now, data, B, A)
    pair.pump()
    assert octets_held(pair) <= MESSAGE_LONGEST
    assert not pair.b.triggers


def octets_held(pair: Pair) -> int:
    """Distinct octets in memory."""
    kept = {
        id(octets): len(octets)
        for reassembly in pair.b.endpoint._fragments._under_way.values()
        for reading in (*reassembly.readings, *reassembly.spent)
        for octets in reading.pieces.values()
    }
    return sum(kept.values())


def test_memory_is_bounded() -> None:
    """By readings of one message, by messages of one source, by messages in all, and by time."""
    pair, cookies = established()
    endpoint = pair.b.endpoint
    for attempt in range(1000):
        data = piece(cookies, attempt.to_bytes(4, "big") * 250, 1 + attempt % 5, identifier=1)
        endpoint.receive_datagram(pair.now, data, B, A)
    (reassembly,) = endpoint._fragments._under_way.values()
    assert len(reassembly.readings) <= REASSEMBLY_READINGS
    assert octets_held(pair) <= REASSEMBLY_READINGS * MESSAGE_LONGEST
    for identifier in range(5000):
        data = piece(cookies, b"x" * 1400, 1, identifier=identifier)
        endpoint.receive_datagram(pair.now, data, B, A)
    assert len(endpoint._fragments) == REASSEMBLIES_PER_SOURCE
    pair.pump()
    assert not pair.b.triggers
    pair.wait(FRAGMENT_TIMEOUT + 1)
    assert len(endpoint._fragments) == 0
    assert not endpoint._fragments._per_source


def test_the_oldest_makes_room_when_there_are_too_many_in_all() -> None:
    from ike.alarms import Alarms
    from ike.header import Header
    from ike.v1.fragments import Fragments
    from ike.wire import Reader

    all_fragments = Fragments(Alarms())
    for source in range(REASSEMBLIES_MOST + 10):
        remote = e.TransportAddress(ip_address("10.0.0.0") + source)
        data = piece(bytes(range(1, 17)), b"x" * 10)
        assert all_fragments.take(0.0, Header.parse(Reader(data)), data, remote) == []
    assert len(all_fragments) == REASSEMBLIES_MOST
    assert len(all_fragments._per_source) == REASSEMBLIES_MOST


def test_we_never_send_any() -> None:
    pair = Pair()
    pair.initiate()
    pair.run()
    assert all(datagram.data[16] != 132 for datagram in pair.sent)


@pytest.mark.fuzz
def test_100000_pieces_of_nonsense() -> None:
    """Mutated pieces of a true message: no exception, and bounded memory."""
    randomness = random.Random(8)
    pair = Pair()
    pair.initiate(0)
    pair.run()
    pair.initiate(2, remote_selector=CAROL)
    pair.fragment(SIZE)
    true = [d.data for d in pair.wire]
    pair.wire.clear()
    endpoint = pair.b.endpoint
    for count in range(100_000):
        data = bytearray(randomness.choice(true))
        for _ in range(randomness.randrange(4)):
            data[randomness.randrange(16, len(data))] = randomness.randrange(256)
        if randomness.random() < 0.2:
            data = data[: randomness.randrange(len(data))]
        if len(data) > 32 and randomness.random() < 0.7:
            data[24:28] = len(data).to_bytes(4, "big")
            data[30:32] = (len(data) - 28).to_bytes(2, "big")
        endpoint.receive_datagram(pair.now, bytes(data), B, A)
        if count % 64 == 0:
            pair.pump()
            pair.wire.clear()
            pair.now += 0.001
            assert len(endpoint._fragments) <= REASSEMBLIES_PER_SOURCE
            most = REASSEMBLIES_PER_SOURCE * (REASSEMBLY_READINGS + 2) * MESSAGE_LONGEST
            assert octets_held(pair) <= most
    dropped = endpoint.snapshot().dropped
    assert dropped["fragment"] > 1000
    assert dropped["truncated"] > 1000
    assert pair.b.pairs()
    assert len(pair.a.seen(e.KeyingChannelEstablished)) == 1
