"""What RFC 2408 allows and we have no use for: commit bit, CONNECTED, private types."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ike import events as e
from ike.header import FLAG_COMMIT
from tests.support import ike_stranger as x
from tests.support.ike_pair import B, Nat, Pair
from tests.support.ike_stranger import Stranger

CONNECTED = (16384).to_bytes(2, "big")


def set_commit_bit(pair: Pair) -> None:
    data = bytearray(pair.wire[0].data)
    data[19 + 4 * (pair.wire[0].local.port == 4500)] |= FLAG_COMMIT
    pair.wire[0] = replace(pair.wire[0], data=bytes(data))


@pytest.mark.parametrize("position", range(9))
def test_the_commit_bit_in_each_message(position: int) -> None:
    """RFC 2408 section 3.1: tolerated, without effect, and never set by us."""
    pair = Pair()
    pair.initiate()
    for _ in range(position):
        pair.transfer()
    set_commit_bit(pair)
    pair.run()
    assert pair.tunnel_up()
    assert not pair.a.triggers
    assert not pair.b.triggers
    assert all(not datagram.data[19] & FLAG_COMMIT for datagram in pair.sent)


def test_the_commit_bit_in_every_message() -> None:
    pair = Pair()
    pair.initiate()
    while pair.wire:
        set_commit_bit(pair)
        pair.transfer()
    assert pair.tunnel_up()


@pytest.mark.parametrize("exchange", [x.INFO, x.QUICK])
@pytest.mark.parametrize("same", [True, False])
def test_connected_ends_nothing(exchange: int, same: bool) -> None:
    """It comes as a notify, some say under the message ID of the quick mode that it is about."""
    pair = Pair()
    stranger = Stranger(pair.b)
    stranger.establish()
    stranger.send(stranger.quick_1(message_id=77))
    body = bytes((0, 0, 0, 1, 3, 4)) + CONNECTED + b"\x11\x22\x33\x44"
    stranger.send(stranger.seal(exchange, (x.N, body), message_id=77 if same else 78))
    assert not pair.b.seen(e.TunnelClosed)
    assert not pair.b.seen(e.NegotiationFailed)
    assert not pair.b.seen(e.KeyingChannelClosed)
    assert len(pair.b.endpoint.snapshot().channels) == 1


@pytest.mark.parametrize("kind", [128, 131, 133, 200, 255])
def test_private_payloads_in_every_message(kind: int) -> None:
    """RFC 2408 section 3.1: types 128 to 255 are private use, and passed over if unknown."""
    pair = Pair()
    stranger = Stranger(pair.b)
    stranger.offer = x.offer()
    private = (kind, b"anything")
    replies = stranger.send(x.clear(stranger.cookies, x.MAIN, 0, (x.SA, stranger.offer), private))
    stranger.cookies = (replies[0][:8], replies[0][8:16])
    stranger.send_3()
    identification = stranger.identification()
    own = ((x.ID, identification), (x.SIG, stranger.sign(identification)), private)
    assert stranger.send_5(*own)
    stranger.send(stranger.quick_1(more=private))
    assert len(pair.b.seen(e.InboundSaEstablished)) == 1


def test_like_numbers_mean_and() -> None:
    """RFC 2408 section 4.2: ESP together with AH is refused, ESP alone beside it is taken."""
    pair = Pair()
    stranger = Stranger(pair.b)
    stranger.establish()
    spi = b"\x11\x22\x33\x44"
    esp = x.transform(1, 20, x.ESP_GCM)
    ah = x.proposal(2, spi, x.transform(1, 2, x.tv(4, 1)), number=1)
    both = x.sa(x.proposal(3, spi, esp, number=1, last=False), ah)
    (reply,) = stranger.send(stranger.quick_1(sa=(x.SA, both)))
    assert stranger.open(reply)[1][1][6:8] == (14).to_bytes(2, "big")
    first = x.proposal(3, spi, esp, number=1, last=False)
    ah = x.proposal(2, spi, x.transform(1, 2, x.tv(4, 1)), number=1, last=False)
    alone = x.proposal(3, b"\x55\x66\x77\x88", esp, number=2)
    stranger.send(stranger.quick_1(sa=(x.SA, x.sa(first, ah, alone))))
    (inbound,) = pair.b.seen(e.InboundSaEstablished)
    (established,) = pair.b.endpoint._directory.tunnels.values()
    assert established.outbound_spi == b"\x55\x66\x77\x88"
    assert inbound.sa.cipher == "aes-gcm-16"


def test_the_commit_bit_behind_a_nat() -> None:
    from ipaddress import ip_address

    inside = e.TransportAddress(ip_address("10.0.0.2"))
    pair = Pair(
        a={"identity": "a.example"},
        addresses=(inside, B),
        nats=(Nat(e.TransportAddress(ip_address("192.1.1.4"))), None),
    )
    pair.initiate()
    while pair.wire:
        set_commit_bit(pair)
        pair.transfer()
    assert len(pair.b.pairs()) == 1
