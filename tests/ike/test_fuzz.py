"""100,000 inputs each: to the parsers, to endpoints in every state, from an authenticated peer."""

from __future__ import annotations

import random
from functools import partial

import pytest

from ike import events as e
from ike.errors import IkeError
from ike.header import Header
from ike.registry import PayloadType
from ike.v1 import payloads as p
from ike.v1.message import Chain
from ike.v1.proposals import choose_channel, choose_tunnel
from ike.v1.protection import HashPayload
from ike.wire import Reader
from tests.support import ike_stranger as x
from tests.support.amount import amount
from tests.support.ike_pair import A, B, Pair
from tests.support.ike_stranger import Stranger

PAYLOADS = (
    p.SecurityAssociation,
    p.KeyExchange,
    p.Nonce,
    p.IdentificationPayload,
    p.Signature,
    p.Notification,
    p.Delete,
    p.VendorId,
    p.NatDiscovery,
    HashPayload,
)
INTERESTING = (b"\x00", b"\xff", b"\x00\x00", b"\xff\xff", b"\x00\x04", b"\x00\x00\x00\x01")


def mutated(randomness: random.Random, data: bytes) -> bytes:
    """One to four changes: octets, lengths, cuts, insertions, repetitions."""
    octets = bytearray(data)
    for _ in range(randomness.randrange(1, 5)):
        where = randomness.randrange(len(octets) + 1)
        how = randomness.randrange(6)
        if how == 0 and where < len(octets):
            octets[where] ^= 1 << randomness.randrange(8)
        elif how == 1 and where < len(octets):
            octets[where] = randomness.randrange(256)
        elif how == 2:
            piece = randomness.choice(INTERESTING)
            octets[where : where + len(piece)] = piece
        elif how == 3:
            del octets[where : where + randomness.randrange(1, 9)]
        elif how == 4:
            octets[where:where] = randomness.randbytes(randomness.randrange(1, 9))
        else:
            octets[where:where] = octets[where : where + randomness.randrange(1, 40)]
    return bytes(octets)


def with_length(data: bytes) -> bytes:
    """The header's length made true, so that more than the first check is reached."""
    if len(data) < 28:
        return data
    return data[:24] + len(data).to_bytes(4, "big") + data[28:]


def read_everything(kind: PayloadType, octets: bytes, configuration) -> None:
    chain = Chain.cut(kind, octets, padded=True)
    for payload in PAYLOADS:
        for value in chain.all(payload):
            if isinstance(value, p.IdentificationPayload):
                for reading in (value.identification.identity, value.identification.selector):
                    try:
                        reading()
                    except IkeError:
                        continue
            elif isinstance(value, p.SecurityAssociation):
                for choose in (choose_channel, choose_tunnel, partial(choose_tunnel, sst=True)):
                    try:
                        choose(value, configuration)
                    except IkeError:
                        continue


@pytest.mark.fuzz
def test_parsers() -> None:
    randomness = random.Random(2409)
    pair = Pair()
    configuration = pair.a.endpoint._station.configuration
    seeds = [
        (1, x.generic((x.SA, x.offer()))),
        (1, x.generic((x.SA, x.esp_offer()), (x.NONCE, b"n" * 16), (x.KE, b"k" * 64))),
        (1, x.generic((x.SA, x.esp_offer(attributes=x.ESP_GCM + x.tv(32401, 1))))),
        (5, x.generic((x.ID, x.subnet("192.1.0.65")), (x.SIG, bytes(64)))),
        (5, x.generic((x.ID, b"\x02\x00\x00\x00sg-a.example"), (x.HASH, bytes(32)))),
        (12, x.generic((x.D, bytes.fromhex("00000001 03 04 0002 11223344 55667788")))),
        (11, x.generic((x.N, bytes.fromhex("00000001 03 04 6000 11223344 800b0001")))),
    ]
    parsed = 0
    for count in range(100_000):
        if count % 5 == 0:
            kind, octets = randomness.randrange(16), randomness.randbytes(randomness.randrange(90))
        else:
            kind, octets = randomness.choice(seeds)
            octets = mutated(randomness, octets)
        try:
            Header.parse(Reader(octets))
            read_everything(PayloadType(kind), octets, configuration)
            parsed += 1
        except IkeError:
            continue
    assert parsed > 1000


def drain(pair: Pair) -> None:
    for side in pair.sides:
        while side.endpoint.next_event() is not None:
            pass
        side.endpoint.datagrams_to_send()


@pytest.mark.fuzz
def test_endpoints_in_every_state() -> None:
    """Both sides, after each message of a setup; nothing raises and nothing comes up."""
    randomness = random.Random(4322)
    ports = {"sst": True}
    recorded = Pair(ports, ports)
    recorded.initiate(sst=True)
    recorded.run()
    total = 0
    for position in range(10):
        pair = Pair(ports, ports, seed=position)
        pair.initiate(sst=True)
        for _ in range(position):
            pair.transfer()
        before = [len(side.pairs()) for side in pair.sides]
        own = [datagram.data for datagram in pair.sent]
        foreign = [datagram.data for datagram in recorded.sent]
        for _ in range(10_000):
            choice = randomness.randrange(8)
            if choice == 0:
                data = randomness.randbytes(randomness.randrange(200))
            elif choice == 1:
                data = own[0][:16] + randomness.randbytes(randomness.randrange(12, 120))
            elif choice == 2:
                data = mutated(randomness, randomness.choice(foreign))
            else:
                data = mutated(randomness, randomness.choice(own))
            if choice not in (0, 4):
                data = with_length(data)
            if randomness.random() < 0.5:
                side, other = pair.a, pair.b
            else:
                side, other = pair.b, pair.a
            side.endpoint.receive_datagram(pair.now, data, side.address, other.address)
            total += 1
            if total % 64 == 0:
                drain(pair)
                pair.now += 0.001
        drain(pair)
        assert [len(side.pairs()) for side in pair.sides] == before
        for side in pair.sides:
            view = side.endpoint.snapshot()
            assert len(view.channels) <= 20
            assert view.dropped
    assert total == 100_000


@pytest.mark.fuzz
def test_an_authenticated_peer_that_says_anything() -> None:
    """Mutated plaintext under right keys and right HASH: in quick mode and informational."""
    randomness = random.Random(38711)
    pair = Pair()
    stranger = Stranger(pair.b)
    stranger.establish()
    quick = [
        (x.SA, x.esp_offer()),
        (x.NONCE, b"q" * 16),
        (x.KE, stranger.pair.public),
        (x.ID, x.subnet("192.1.0.65")),
        (x.ID, x.subnet("192.2.0.66")),
    ]

    def about_channel(notify: str, octets: bytes = b"") -> tuple[int, bytes]:
        return x.N, bytes.fromhex("00000001 01 10" + notify) + b"".join(stranger.cookies) + octets

    def info() -> list[tuple[int, bytes]]:
        return [
            (x.N, bytes.fromhex("00000001 03 04 000e 11223344")),
            (x.D, bytes.fromhex("00000001 03 04 0002 11223344 55667788")),
            randomness.choice(
                (
                    about_channel("8d28", count.to_bytes(4, "big")),  # R-U-THERE
                    about_channel("8d29", bytes(4)),  # R-U-THERE-ACK
                    about_channel("6002"),  # INITIAL-CONTACT
                )
            ),
        ]

    endpoint = pair.b.endpoint
    proposed, messages = 0, amount(100_000, 30_000)
    for count in range(messages):
        exchange, plan = (x.QUICK, list(quick)) if count % 2 else (x.INFO, info())
        if randomness.random() < 0.8:
            where = randomness.randrange(len(plan))
            plan[where] = (plan[where][0], mutated(randomness, plan[where][1]))
            octets = x.generic(*plan)
        else:
            octets = mutated(randomness, x.generic(*plan))
        first = plan[0][0]
        if randomness.random() < 0.1:
            first = randomness.randrange(256)
        message = stranger.seal(exchange, (first, b""), octets=octets)
        endpoint.receive_datagram(1000.0, message, B, A)
        while (event := endpoint.next_event()) is not None:
            if isinstance(event, e.TunnelProposed):
                proposed += 1
                endpoint.refuse_tunnel(1000.0, event.tunnel, "no")
            assert not isinstance(event, e.InboundSaEstablished | e.OutboundSaEstablished)
        endpoint.datagrams_to_send()
        view = endpoint.snapshot() if count % 1000 == 0 else None
        if view is not None:
            assert view.tunnels == 0
            if all(
                c.established_at is None for c in view.channels
            ):  # it deleted its channel, or used up its message IDs
                stranger = Stranger(pair.b)
                stranger.establish()
    many = messages / 100
    assert proposed > many
    dropped = endpoint.snapshot().dropped
    assert dropped["quick_mode_refused"] > many
    assert dropped["malformed_payload"] > many
    assert dropped["unexpected_message"] > many  # R-U-THERE-ACK
    assert dropped["replayed_sequence"] > many / 10
