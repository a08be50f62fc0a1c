"""Attacks that broke others, each by name (design page on opportunistic encryption, part E)."""

from __future__ import annotations

import random
import struct
import tracemalloc
from dataclasses import replace
from ipaddress import ip_address

import pytest
from cryptography.hazmat.primitives.asymmetric import padding, utils
from cryptography.hazmat.primitives.hashes import SHA256

from ike import events as e
from ike.configuration import Configuration
from ike.endpoint import Endpoint
from tests.support import ike_stranger as x
from tests.support.ike_pair import A, B, Pair, Side, octets_from, private_key
from tests.support.ike_stranger import Stranger


def responder(**settings) -> Side:
    configuration = Configuration(**{"private_key": private_key("b"), **settings})
    return Side(B, Endpoint(configuration, octets_from(7)), private_key("b"))


def channels(side: Side) -> int:
    return len(side.endpoint.snapshot().channels)


def flood(address: int) -> e.TransportAddress:
    return e.TransportAddress(ip_address(0x0A000000 + address))


# 1 Short and garbled headers: CVE-2013-4564, CVE-2020-1763, CVE-2022-23094, PROTOS c09.


def test_01_short_and_lying_datagrams() -> None:
    side = responder()
    stranger = Stranger(side)
    whole = x.clear((b"12345678", bytes(8)), x.MAIN, 0, (x.SA, x.offer()))
    for length in range(28):
        assert stranger.send(whole[:length]) == []
    for lie in (0, 27, 28, len(whole) - 1, len(whole) + 1, 0xFFFFFFFF):
        assert stranger.send(whole[:24] + struct.pack("!I", lie) + whole[28:]) == []
    for lie in (0, 1, 3, 4, 5, 8, 0xFFFF):  # length of the SA payload
        assert stranger.send(whole[:30] + struct.pack("!H", lie) + whole[32:]) == []
    assert channels(side) == 0
    assert set(side.triggers) <= {
        "truncated",
        "length_mismatch",
        "trailing_octets",
        "malformed_payload",
        "missing_payload",
    }
    assert side.triggers.count("truncated") >= 28


def test_01_memory_stays_flat_and_nothing_is_amplified() -> None:
    side = responder()
    stranger = Stranger(side)
    randomness = random.Random(5)
    whole = x.clear((b"12345678", bytes(8)), x.MAIN, 0, (x.SA, x.offer()))
    octets_in = octets_out = 0
    tracemalloc.start()
    before = 0
    for index in range(4000):
        data = bytearray(whole)
        for _ in range(randomness.randrange(1, 5)):
            data[randomness.randrange(len(data))] = randomness.randrange(256)
        replies = stranger.send(bytes(data))
        assert all(len(reply) <= len(data) for reply in replies)
        octets_in += len(data)
        octets_out += sum(map(len, replies))
        side.events.clear()
        if index == 1000:
            before = tracemalloc.get_traced_memory()[0]
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert octets_out <= octets_in
    assert after - before < 500_000


# 2 A single DPD packet without state: CVE-2009-0790.


@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("notify", [36136, 36137])
def test_02_dpd_without_state(encrypted: bool, notify: int) -> None:
    side = responder()
    cookies = (b"random-i", b"random-r")
    body = struct.pack("!IBBH", 1, 1, 16, notify) + cookies[0] + cookies[1] + bytes(4)
    chain = x.generic((x.N, body))
    message = x.header(cookies, x.N, x.INFO, int(encrypted), 99, chain)
    assert Stranger(side).send(message) == []
    assert side.triggers == ["unknown_cookies"]


# 3 Foreign and unknown payloads, DOI bits: CVE-2015-3991, CVE-2015-3204, CVE-2013-6467.


@pytest.mark.parametrize("slot", ["first", "last"])
def test_03_every_payload_type_in_message_1(slot: str) -> None:
    side = responder(half_open_per_source=1000)
    for kind in range(256):
        stranger = Stranger(side)
        stranger.cookies = (struct.pack("!Q", kind + 1), bytes(8))
        payloads = [(x.SA, x.offer()), (kind, b"what is this")]
        if slot == "first":
            payloads.reverse()
        replies = stranger.send(x.clear(stranger.cookies, x.MAIN, 0, *payloads))
        assert sum(map(len, replies)) <= 200
        if slot == "first":
            assert not replies
    assert channels(side) < 200


def test_03_every_payload_type_in_messages_3_and_5() -> None:
    side = responder(half_open_per_source=1000)
    for kind in range(256):
        stranger = Stranger(side)
        stranger.cookies = (struct.pack("!Q", kind + 1), bytes(8))
        stranger.send_1()
        stranger.send(x.clear(stranger.cookies, x.MAIN, 0, (kind, b"12345678")))
        assert stranger.send_3()
        stranger.send_5((kind, b"12345678"))
        stranger.send_5((x.ID, stranger.identification()), (kind, b"12345678"))
        assert stranger.send_5(), kind


@pytest.mark.parametrize("doi", [0, 2, 0xFFFFFFFF])
def test_03_other_domains_of_interpretation(doi: int) -> None:
    side = responder()
    transform = x.transform(1, 1, x.MODERN_1)
    assert Stranger(side).send_1(x.sa(x.proposal(1, b"", transform), doi=doi)) == []
    assert side.triggers == ["unsupported_doi"]
    side = responder()
    assert Stranger(side).send_1(x.sa(x.proposal(1, b"", transform), situation=doi)) == []
    assert side.triggers == ["unsupported_doi"]


# 4 Degenerate Diffie-Hellman: CVE-2015-3240, CVE-2014-9221, CVE-2023-41913.

P = x.PRIMES[14]
DEGENERATE = {
    "zero": bytes(256),
    "one": (1).to_bytes(256, "big"),
    "p-1": (P - 1).to_bytes(256, "big"),
    "p": P.to_bytes(256, "big"),
    "p+1": (P + 1).to_bytes(256, "big"),
    "all ones": b"\xff" * 256,
    "empty": b"",
    "short": b"\x05" * 255,
    "long": b"\x00" + b"\x05" * 256,
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_04_degenerate_values_in_main_mode(name: str) -> None:
    side = responder()
    stranger = Stranger(side)
    stranger.send_1()
    assert stranger.send_3(DEGENERATE[name]) == []
    assert side.triggers == ["invalid_key_exchange"]
    assert stranger.send_3()  # the exchange still waits for a good one


@pytest.mark.parametrize("name", DEGENERATE)
def test_04_degenerate_values_in_quick_mode(name: str) -> None:
    side = responder()
    stranger = Stranger(side)
    stranger.establish()
    (reply,) = stranger.send(stranger.quick_1(ke=(x.KE, DEGENERATE[name])))
    assert stranger.open(reply)[1][0] == x.N
    assert not side.seen(e.TunnelProposed)
    assert side.endpoint.snapshot().tunnels == 0


@pytest.mark.parametrize("group", [0, 1, 3, 4, 1025, 65535])
def test_04_unknown_groups(group: int) -> None:
    side = responder()
    attributes = x.MODERN_1.replace(x.tv(4, 14), x.tv(4, group))
    (reply,) = Stranger(side).send_1(x.offer(attributes))
    assert reply[18] == x.INFO
    assert side.triggers == ["no_proposal_chosen"]
    side = responder()
    stranger = Stranger(side)
    stranger.establish()
    attributes = x.ESP_GCM.replace(x.tv(3, 14), x.tv(3, group))
    stranger.send(stranger.quick_1(sa=(x.SA, x.esp_offer(attributes=attributes))))
    assert not side.seen(e.TunnelProposed)


# 5 Signature forgery: CVE-2018-15836, CVE-2018-16151, CVE-2026-50721.


def forged_signatures(stranger: Stranger) -> dict[str, bytes]:
    digest = stranger.hash_i(stranger.identification())
    key = private_key("a")
    numbers = key.private_numbers()
    n, d = numbers.public_numbers.n, numbers.d

    def raw(block: bytes) -> bytes:
        return pow(int.from_bytes(block, "big"), d, n).to_bytes(256, "big")

    def padded(tail: bytes, filler: bytes = b"\xff") -> bytes:
        return b"\x00\x01" + filler * (253 - len(tail)) + b"\x00" + tail

    right = stranger.sign(stranger.identification())
    return {
        "truncated hash": raw(padded(digest[:20])),
        "over-long hash": raw(padded(digest + b"\0")),
        "no hash": raw(padded(b"")),
        "garbage after": raw((b"\x00\x01" + b"\xff" * 8 + b"\x00" + digest).ljust(256, b"x")),
        "wrong filler": raw(padded(digest, b"\x00")),
        "block type 2": raw(b"\x00\x02" + padded(digest)[2:]),
        "DigestInfo": key.sign(digest, padding.PKCS1v15(), utils.Prehashed(SHA256())),
        "PSS": key.sign(digest, padding.PSS(padding.MGF1(SHA256()), 20), SHA256()),
        "zero octet before": b"\x00" + right,
        "zero octet after": right + b"\x00",
        "shortened": right[1:],
        "empty": b"",
        "zeros": bytes(256),
        "the modulus": n.to_bytes(256, "big"),
        "above the modulus": b"\xff" * 256,
        "another hash": key.sign(b"\x01" * 32, padding.PKCS1v15(), utils.NoDigestInfo()),
    }


def test_05_forged_signatures() -> None:
    names = list(forged_signatures(established_stranger()))
    for name in names:
        side = responder()
        stranger = Stranger(side)
        stranger.send_1()
        stranger.send_3()
        signature = forged_signatures(stranger)[name]
        stranger.send_5((x.ID, stranger.identification()), (x.SIG, signature))
        assert "wrong_signature" in side.triggers, name
        assert not side.seen(e.KeyingChannelEstablished), name
        assert stranger.send_5(), name  # one mistake may be a corrupted message
        assert side.seen(e.KeyingChannelEstablished), name


def established_stranger() -> Stranger:
    stranger = Stranger(responder())
    stranger.establish()
    return stranger


def test_05_cube_root_forgery() -> None:
    from cryptography.hazmat.primitives.asymmetric import rsa

    from ike.errors import WrongSignature
    from ike.signer import verifying_key

    key = rsa.generate_private_key(public_exponent=3, key_size=2048).public_key()
    digest = b"\x42" * 32
    target = int.from_bytes((b"\x00\x01\xff\x00" + digest).ljust(256, b"\0"), "big")
    low, high = 0, 1 << 700
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if middle**3 < target else (low, middle)
    assert pow(low, 3).to_bytes(256, "big").startswith(b"\x00\x01\xff\x00" + digest)
    with pytest.raises(WrongSignature):
        verifying_key((key,), low.to_bytes(256, "big"), digest)


def test_05_two_wrong_signatures_end_it_with_a_notice() -> None:
    side = responder()
    stranger = Stranger(side)
    stranger.send_1()
    stranger.send_3()
    wrong = (x.ID, stranger.identification()), (x.SIG, bytes(255) + b"\x02")
    assert stranger.send_5(*wrong) == []
    (notice,) = stranger.send_5(*wrong)
    assert notice[18] == x.INFO
    stranger.block = stranger.message_5(*wrong)[-16:]
    kind, body = stranger.open(notice)[1]
    assert (kind, body[6:8]) == (x.N, (24).to_bytes(2, "big"))
    assert channels(side) == 0


# 6 Hostile public keys.


def test_06_keys_of_outlandish_size_are_passed_over() -> None:
    from cryptography.hazmat.primitives.asymmetric import rsa

    from ike.errors import WrongSignature
    from ike.signer import verifying_key

    huge = rsa.RSAPublicNumbers(3, (1 << 8200) + 1).public_key()
    good = private_key("a")
    signature = good.sign(b"\x01" * 32, padding.PKCS1v15(), utils.NoDigestInfo())
    assert verifying_key((huge, good.public_key()), signature, b"\x01" * 32) == good.public_key()
    with pytest.raises(WrongSignature):
        verifying_key((huge,), bytes(1026), b"\x01" * 32)


# 7 RSA encryption as an oracle: CVE-2018-0131 and its kin.


@pytest.mark.parametrize("method", [1, 2, 4, 5, 64221, 65001])
def test_07_other_authentication_methods(method: int) -> None:
    side = responder()
    attributes = x.MODERN_1.replace(x.tv(3, 3), x.tv(3, method))
    (reply,) = Stranger(side).send_1(x.offer(attributes))
    assert reply[18] == x.INFO
    assert channels(side) == 0


def test_07_the_private_key_only_signs() -> None:
    from ike.signer import Signer

    operations = [name for name in dir(Signer) if not name.startswith("_")]
    assert operations == ["sign"]


# 8 Aggressive mode: CVE-2023-30570; reflection.


@pytest.mark.parametrize("exchange", [0, 1, 3, 4, 6, 31, 33, 34, 240, 255])
def test_08_other_exchanges(exchange: int) -> None:
    side = responder()
    message = x.clear((b"12345678", bytes(8)), exchange, 0, (x.SA, x.offer()))
    assert Stranger(side).send(message) == []
    assert side.triggers == ["aggressive_mode" if exchange == 4 else "unknown_exchange"]
    assert channels(side) == 0


def test_08_reflection() -> None:
    pair = Pair()
    pair.initiate()
    datagram = pair.wire.pop()
    back = e.Datagram(datagram.data, datagram.remote, datagram.local)
    pair.deliver(back)
    assert pair.wire == []
    assert pair.a.triggers == ["unknown_cookies"]


# 9 Amplification: VU#419128, CVE-2016-5361.


def test_09_no_more_goes_out_than_came_in() -> None:
    side = responder()
    stranger = Stranger(side)
    message = x.clear((b"12345678", bytes(8)), x.MAIN, 0, (x.SA, x.offer()))
    out = sum(map(len, stranger.send(message)))
    assert 0 < out <= len(message)
    now = stranger.now
    while (timer := side.endpoint.next_timer()) is not None and timer < now + 60:
        side.endpoint.handle_timer(timer)
        assert side.endpoint.datagrams_to_send() == []


def test_09_duplicates_are_answered_a_few_times_only() -> None:
    side = responder()
    stranger = Stranger(side)
    message = x.clear((b"12345678", bytes(8)), x.MAIN, 0, (x.SA, x.offer()))
    answers = [len(stranger.send(message)) for _ in range(20)]
    assert answers == [1] * 6 + [0] * 14
    assert channels(side) == 1


# 10 Exhaustion: Simpson 1999, RFC 4322 section 12.3.


def test_10_half_open_limit_per_source() -> None:
    side = responder(half_open_per_source=3)
    for index in range(10):
        stranger = Stranger(side)
        stranger.cookies = (struct.pack("!Q", index + 1), bytes(8))
        assert bool(stranger.send_1()) == (index < 3)
    assert side.triggers == ["half_open_source_limit"] * 7


def test_10_a_flood_of_forged_sources_does_not_shut_out_a_true_peer() -> None:
    side = responder(half_open_limit=100)
    offer = x.offer()
    for index in range(5000):
        message = x.clear((struct.pack("!Q", index + 1), bytes(8)), x.MAIN, 0, (x.SA, offer))
        side.endpoint.receive_datagram(1000.0, message, B, flood(index))
        side.endpoint.datagrams_to_send()
        while side.endpoint.next_event() is not None:
            pass
    assert side.endpoint.snapshot().half_open == 100
    stranger = Stranger(side)
    assert stranger.send_1()
    for index in range(5000, 5060):
        message = x.clear((struct.pack("!Q", index + 1), bytes(8)), x.MAIN, 0, (x.SA, offer))
        Stranger(side, address=flood(index)).send(message)
    assert stranger.send_3()
    for index in range(6000, 6500):
        message = x.clear((struct.pack("!Q", index + 1), bytes(8)), x.MAIN, 0, (x.SA, offer))
        Stranger(side, address=flood(index)).send(message)
    assert stranger.send_5()
    assert side.seen(e.KeyingChannelEstablished)
    assert side.endpoint.snapshot().half_open <= 100


def test_10_the_busiest_source_gives_way() -> None:
    side = responder(half_open_limit=8, half_open_per_source=8)
    for index in range(6):
        stranger = Stranger(side, address=flood(1))
        stranger.cookies = (struct.pack("!Q", index + 1), bytes(8))
        stranger.send_1()
    for index in range(6):
        stranger = Stranger(side, address=flood(100 + index))
        assert stranger.send_1()
    left = [str(view.remote.address) for view in side.endpoint.snapshot().channels]
    assert left.count(str(flood(1).address)) == 2
    assert len(left) == 8


def test_10_no_key_agreement_without_our_cookie() -> None:
    side = responder()
    stranger = Stranger(side)
    stranger.send_1()
    stranger.cookies = (stranger.cookies[0], b"guessed!")
    assert stranger.send_3() == []
    assert side.triggers == ["unknown_cookies"]


def test_10_half_open_exchanges_end() -> None:
    side = responder(half_open_timeout=15.0)
    stranger = Stranger(side)
    stranger.send_1()
    side.endpoint.handle_timer(1016.0)
    assert channels(side) == 0
    assert side.endpoint.snapshot().half_open == 0


# 11 Unprotected Delete, Notify, Initial-Contact: CVE-2004-0164, CVE-2019-10155.


def deletes(pair: Pair) -> list[tuple[int, bytes]]:
    cookies = pair.sent[1].data[:16]
    spis = [sa.spi for two in pair.b.pairs().values() for sa in two]
    esp = b"".join(spi.to_bytes(4, "big") for spi in spis)
    return [
        (x.D, struct.pack("!IBBH", 1, 3, 4, len(spis)) + esp),
        (x.D, struct.pack("!IBBH", 1, 1, 16, 1) + cookies),
        (x.N, struct.pack("!IBBH", 1, 1, 16, 24578) + cookies),
        (x.N, struct.pack("!IBBH", 1, 1, 16, 14) + cookies),
    ]


@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize("how", ["clear", "clear without ID", "bad hash", "no hash"])
def test_11_unprotected_informational(which: int, how: str) -> None:
    pair = Pair()
    pair.initiate()
    pair.run()
    cookies = (pair.sent[1].data[:8], pair.sent[1].data[8:16])
    payload = deletes(pair)[which]
    for message_id in (7, int.from_bytes(pair.sent[6].data[20:24], "big")):
        if how == "clear":
            message = x.clear(cookies, x.INFO, message_id, payload)
        elif how == "clear without ID":
            message = x.clear(cookies, x.INFO, 0, payload)
        elif how == "bad hash":
            message = x.clear(cookies, x.INFO, message_id, (x.HASH, bytes(32)), payload)
        else:
            message = x.header(cookies, x.D, x.INFO, 1, message_id, bytes(64))
        for side, other in ((pair.a, pair.b), (pair.b, pair.a)):
            side.endpoint.receive_datagram(pair.now, message, side.address, other.address)
            pair.pump()
            assert side.triggers
    assert pair.tunnel_up()
    assert channels(pair.a) == channels(pair.b) == 1
    assert not pair.a.seen(e.TunnelClosed) + pair.b.seen(e.TunnelClosed)


def test_11_a_delete_under_a_wrong_hash_or_another_message_id() -> None:
    side = responder()
    stranger = Stranger(side)
    stranger.establish()
    stranger.send(stranger.quick_1())
    body = struct.pack("!IBBH", 1, 1, 16, 1) + b"".join(stranger.cookies)
    assert stranger.send(stranger.seal(x.INFO, (x.D, body), digest=b"\x01" * 32)) == []
    moved = stranger.seal(x.INFO, (x.D, body), message_id=77)
    stranger.send(moved[:20] + struct.pack("!I", 78) + moved[24:])
    assert set(side.triggers) <= {"wrong_hash", "garbled"}
    assert channels(side) == 1
    stranger.send(moved)
    assert channels(side) == 0


def test_11_hints_in_the_clear_do_not_end_main_mode() -> None:
    for notify in range(1, 31):
        pair = Pair()
        pair.initiate()
        cookies = (pair.wire[0].data[:8], b"whatever")
        body = struct.pack("!IBBH", 1, 1, 0, notify)
        message = x.clear(cookies, x.INFO, 9, (x.N, body))
        pair.a.endpoint.receive_datagram(pair.now, message, A, B)
        pair.run()
        assert pair.tunnel_up()
        assert "unauthenticated_notify" in pair.a.triggers


# 12 Replay: see v1/test_adversity.py for every message in every state.


def test_12_a_replayed_delete_is_answered_once() -> None:
    pair = Pair()
    pair.initiate()
    pair.run()
    pair.a.endpoint.close_tunnel(pair.now, 0)
    pair.pump()
    delete = pair.wire[0]
    pair.run()
    assert len(pair.b.seen(e.TunnelClosed)) == 1
    answers = pair.b.names().count("INFO")
    for _ in range(20):
        pair.deliver(delete)
        pair.run()
    assert pair.b.triggers == ["replayed_message_id"] * 20
    assert pair.b.names().count("INFO") <= answers + 5  # the same octets again, a few times


# 13 Malformed quick mode from somebody authenticated: CVE-2023-38711/2, CVE-2024-3652.


@pytest.mark.parametrize("kind", [0, 2, 3, 7, 8, 9, 10, 11, 12, 99, 255])
def test_13_identity_types(kind: int) -> None:
    side = responder()
    stranger = Stranger(side)
    stranger.establish()
    for slot in ("id_i", "id_r"):
        body = bytes((kind, 0, 0, 0)) + b"bob.example"
        (reply,) = stranger.send(stranger.quick_1(**{slot: (x.ID, body)}))
        assert stranger.open(reply)[1][1][6:8] == (18).to_bytes(2, "big")
    assert not side.seen(e.TunnelProposed)
    assert stranger.send(stranger.quick_1())
    assert side.seen(e.TunnelProposed)


@pytest.mark.parametrize("missing", ["sa", "nonce", "ke", "id_i", "id_r"])
def test_13_missing_payloads(missing: str) -> None:
    side = responder()
    stranger = Stranger(side)
    stranger.establish()
    (reply,) = stranger.send(stranger.quick_1(**{missing: None}))
    assert stranger.open(reply)[1][0] == x.N
    assert not side.seen(e.TunnelProposed)
    assert channels(side) == 1


@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        (20, x.ESP_GCM.replace(x.tv(6, 128), x.tv(6, 0))),
        (20, x.ESP_GCM.replace(x.tv(6, 128), b"")),
        (20, x.ESP_GCM.replace(x.tv(6, 128), x.tv(6, 192))),
        (20, x.ESP_GCM + x.tv(5, 5)),
        (20, x.ESP_GCM.replace(x.tv(4, 1), x.tv(4, 2))),
        (20, x.ESP_GCM.replace(x.tv(4, 1), b"")),
        (20, x.ESP_GCM.replace(x.tv(3, 14), b"")),
        (12, x.ESP_GCM),
        (12, x.ESP_GCM + x.tv(5, 1)),
        (11, x.ESP_GCM.replace(x.tv(6, 128), b"") + x.tv(5, 5)),
        (2, x.ESP_GCM.replace(x.tv(6, 128), b"") + x.tv(5, 1)),
        (23, x.ESP_GCM),
        (0, b""),
        (20, x.ESP_GCM + x.tv(32001, 7)),
        (20, x.ESP_GCM + x.tv(11, 0)),
        (20, x.tv(2, 3600) + x.ESP_GCM),
        (20, x.ESP_GCM + x.tv(1, 1) + x.tv(2, 9)),
        (20, x.ESP_GCM + x.tlv(6, bytes(300))),
    ],
)
def test_13_transforms_that_nobody_should_take(kind: int, attributes: bytes) -> None:
    side = responder()
    stranger = Stranger(side)
    stranger.establish()
    bad = x.esp_offer(attributes=attributes, kind=kind)
    (reply,) = stranger.send(stranger.quick_1(sa=(x.SA, bad)))
    assert stranger.open(reply)[1][1][6:8] == (14).to_bytes(2, "big")
    assert not side.seen(e.TunnelProposed)


def test_13_two_deletes_in_one_message() -> None:
    pair = Pair()
    side, stranger = pair.b, Stranger(pair.b)
    stranger.establish()
    spi = b"\x11\x22\x33\x44"
    (reply,) = stranger.send(stranger.quick_1(message_id=50))
    finish(stranger, reply, 50)
    assert side.seen(e.OutboundSaEstablished)
    body = struct.pack("!IBBH", 1, 3, 4, 2) + spi + spi
    own = struct.pack("!IBBH", 1, 1, 16, 2) + b"".join(stranger.cookies) * 2
    (answer,) = stranger.send(
        stranger.seal(x.INFO, (x.D, body), (x.D, body), (x.D, own), (x.D, own))
    )
    assert stranger.open(answer)[1][0] == x.D
    assert len(side.seen(e.TunnelClosed)) == 1
    assert len(side.seen(e.KeyingChannelClosed)) == 1


def finish(stranger: Stranger, reply: bytes, message_id: int) -> None:
    """Message 3 of quick mode."""
    iv = stranger.last_sent[-16:]
    from ike.algorithms import AES_CBC_256

    plain = AES_CBC_256.decrypt(stranger.keys.cipher_key, iv, reply[28:])
    offset, kind = 0, reply[16]
    nonce_r = b""
    while kind:
        length = int.from_bytes(plain[offset + 2 : offset + 4], "big")
        if kind == x.NONCE:
            nonce_r = plain[offset + 4 : offset + length]
        kind, offset = plain[offset], offset + length
    digest = stranger.keys.closing_hash(message_id, (b"q" * 16, nonce_r))
    body = AES_CBC_256.encrypt(
        stranger.keys.cipher_key,
        reply[-16:],
        x.generic((x.HASH, digest)) + bytes(-(4 + len(digest)) % 16),
    )
    stranger.send(x.header(stranger.cookies, x.HASH, x.QUICK, 1, message_id, body))


def test_13_a_peer_deletes_only_its_own_tunnels() -> None:
    pair = Pair()
    pair.initiate()
    pair.run()
    ((_, outbound),) = pair.b.pairs().values()
    stranger = Stranger(pair.b, address=e.TransportAddress(ip_address("203.0.113.9")))
    stranger.establish()
    body = struct.pack("!IBBH", 1, 3, 4, 1) + outbound.spi.to_bytes(4, "big")
    assert stranger.send(stranger.seal(x.INFO, (x.D, body))) == []
    assert pair.tunnel_up()


# 21 Weaker replaces stronger: CVE-2014-2338, newoe-27.


def test_21_the_same_identity_with_another_key_replaces_nothing() -> None:
    pair = Pair()
    pair.initiate()
    pair.run()
    assert pair.tunnel_up()
    other = Pair(seed=9, a={"private_key": private_key("mallory")})
    other.b.endpoint = pair.b.endpoint
    other.b.events = pair.b.events
    other.keys_of_peer[id(other.b)] = (private_key("mallory"),)
    other.initiate()
    other.run()
    assert len(pair.b.pairs()) == 2
    assert not pair.b.seen(e.TunnelClosed)


# 23 Weak algorithms: Logjam, Sweet32, SLOTH.


@pytest.mark.parametrize("profiles", [("modern", "draft"), ("modern",)])
def test_23_two_of_ours_never_end_on_the_draft_list(profiles: tuple[str, ...]) -> None:
    pair = Pair(b={"profiles": profiles})
    pair.initiate()
    pair.run()
    (channel,) = pair.b.seen(e.KeyingChannelEstablished)
    assert channel.proposal.startswith("modern: ")
    assert {sa.cipher for two in pair.b.pairs().values() for sa in two} == {"aes-gcm-16"}


def test_23_the_draft_list_can_be_switched_off() -> None:
    pair = Pair(a={"profiles": ("draft",)}, b={"profiles": ("modern",)})
    pair.initiate()
    pair.run()
    pair.wait(5)
    (failure,) = pair.a.seen(e.NegotiationFailed)
    assert failure.reason is e.Failure.NO_PROPOSAL
    assert pair.b.triggers == ["no_proposal_chosen"]


def test_23_a_downgrade_on_the_way_is_noticed() -> None:
    """Message 1 loses its modern transforms: the signature covers what we sent."""
    pair = Pair()
    pair.initiate()
    data = pair.wire[0].data
    start, modern = 48, 4 * 36
    kept = data[start + modern :]
    fixed = data[:24] + struct.pack("!I", len(data) - modern) + data[28:30]
    lengths = [int.from_bytes(data[at : at + 2], "big") - modern for at in (30, 42)]
    fixed += struct.pack("!H", lengths[0]) + data[32:42]
    fixed += struct.pack("!H", lengths[1]) + data[44:47] + b"\x04" + kept
    pair.wire[0] = replace(pair.wire[0], data=fixed)
    pair.run()
    pair.wait(60)
    assert "wrong_signature" in pair.b.triggers
    assert not pair.b.seen(e.KeyingChannelEstablished)
    assert not pair.tunnel_up()
