"""The lease protocol without a network: handshake, sealed messages, what strangers send."""

from __future__ import annotations

import contextlib
import json
import random
import time
from ipaddress import ip_address

import pytest

from oegw.moniker.firewall import channel, handshake, messages
from oegw.moniker.firewall.handshake import LeaseProtocolError
from oegw.moniker.interface import Lease
from oegw.sst.statickey import StaticKey

HOST, GATEWAY, STRANGER = (StaticKey(bytes([n]) * 32) for n in (1, 2, 3))
E_H, E_G, E_X = (StaticKey(bytes([n]) * 32) for n in (4, 5, 6))
LEASE = Lease(
    ip_address("10.9.0.2"), ip_address("10.1.0.2"), "tcp", 4711, 60, "starwars", "bob", True
)


def agreed() -> tuple[handshake.Keys, handshake.Keys]:
    key_id, e_h = handshake.read_hello(handshake.hello(HOST, E_H))
    assert key_id == HOST.key_id
    of_gateway = handshake.keys_of_gateway(GATEWAY, E_G, HOST.public, e_h)
    e_g = handshake.read_welcome(handshake.welcome(E_G))
    return handshake.keys_of_host(HOST, E_H, GATEWAY.public, e_g), of_gateway


def test_both_ends_have_the_same_keys_and_one_for_each_direction() -> None:
    of_host, of_gateway = agreed()
    assert of_host == of_gateway
    assert of_host.to_host != of_host.to_gateway
    assert repr(of_host) == "Keys(...)"


def test_who_lacks_a_key_has_other_keys() -> None:
    """Neither a stranger for the host or the gateway, nor a challenge of another connection."""
    of_host, _ = agreed()
    others = [
        handshake.keys_of_gateway(STRANGER, E_G, HOST.public, E_H.public),
        handshake.keys_of_gateway(GATEWAY, E_G, STRANGER.public, E_H.public),
        handshake.keys_of_gateway(GATEWAY, E_X, HOST.public, E_H.public),
        handshake.keys_of_gateway(GATEWAY, E_G, HOST.public, E_X.public),
        handshake.keys_of_host(GATEWAY, E_G, HOST.public, E_H.public),  # reflected
    ]
    keys = {key for each in others for key in (each.to_gateway, each.to_host)}
    assert len(keys) == 10
    assert not keys & {of_host.to_gateway, of_host.to_host}


@pytest.mark.parametrize("point", [bytes(32), bytes([1]) + bytes(31), b"\xff" * 32])
def test_points_that_give_no_secret_are_refused(point: bytes) -> None:
    with pytest.raises(LeaseProtocolError) as refused:
        handshake.keys_of_gateway(GATEWAY, E_G, HOST.public, point)
    assert refused.value.trigger == "lease_key_weak"


def test_a_lease_is_not_a_question() -> None:
    assert handshake.is_hello(handshake.hello(HOST, E_H))
    assert not handshake.is_hello("MON/1 Q 0123456789abcdef * - starwars *")


@pytest.mark.parametrize(
    "line",
    [
        "",
        "MON/1 L ",
        "MON/1 L AAAA",
        "MON/1 L " + "A" * 400,
        "MON/1 L " + "?" * 54,
        "MON/1 L \u00e4",
    ],
)
def test_lines_that_are_no_handshake(line: str) -> None:
    for read in (handshake.read_hello, handshake.read_welcome):
        with pytest.raises(LeaseProtocolError) as refused:
            read(line)
        assert refused.value.trigger == "lease_malformed"


MESSAGES = [
    messages.OpenPort(7, LEASE),
    messages.OpenPort(0, Lease(ip_address("::1"), ip_address("::2"), "sctp", 1, 1, "http")),
    messages.EndPort(None, "tcp", 4711),
    messages.EndPort(ip_address("fd00::1"), "udp", 65535),
    messages.Opened(7, 4711, 60),
    messages.NotOpened(8, "busy", "too many leases"),
    messages.Question(9, LEASE.client, LEASE.host, "MON/1 Q ...", True),
    messages.Told(9, "MON/1 - ..."),
    messages.Alive(),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_is_read_as_it_was_written(message: messages.Message) -> None:
    assert messages.parse(messages.serialize(message)) == message


def test_addresses_have_no_scope() -> None:
    scoped = messages.EndPort(ip_address("fe80::1%eth0"), "tcp", 1)
    octets = messages.serialize(scoped)
    assert messages.parse(octets) == messages.EndPort(ip_address("fe80::1"), "tcp", 1)
    with pytest.raises(LeaseProtocolError):
        messages.parse(octets.replace(b"fe80::1", b"fe80::1%x;"))


def test_in_the_channel_messages_come_in_order_or_not_at_all() -> None:
    keys, _ = agreed()
    sealing = channel.Sealing(keys.to_gateway)
    sealed = [sealing.seal(messages.serialize(message)) for message in MESSAGES]
    for each, other in zip(sealed, MESSAGES, strict=True):
        assert b"starwars" not in each, other

    def bodies() -> tuple[channel.Opening, list[bytes]]:
        opening = channel.Opening(keys.to_gateway)
        return opening, [each[channel.LENGTH_OCTETS :] for each in sealed]

    opening, octets = bodies()
    assert [messages.parse(opening.open(each)) for each in octets] == MESSAGES
    for wrong in (octets[1], octets[0][:-1], octets[0] + b"x", octets[0][:-1] + b"x"):
        opening, _ = bodies()
        with pytest.raises(LeaseProtocolError) as refused:
            opening.open(wrong)
        assert refused.value.trigger == "lease_not_authentic"
    opening, octets = bodies()
    opening.open(octets[0])
    with pytest.raises(LeaseProtocolError):
        opening.open(octets[0])  # repeated
    with pytest.raises(LeaseProtocolError):  # the other direction's
        channel.Opening(keys.to_host).open(octets[0])


def test_lengths_are_bounded() -> None:
    opening = channel.Opening(bytes(32))
    for length in (0, channel.TAG_OCTETS - 1, channel.MAX_SEALED + 1, 0xFFFF):
        with pytest.raises(LeaseProtocolError):
            opening.length(length.to_bytes(2, "big"))
    with pytest.raises(ValueError, match="octets"):
        channel.Sealing(bytes(32)).seal(bytes(channel.MAX_SEALED))


WRONG = [None, True, -1, 1 << 60, 1.5, "", "x" * 5000, "10.1.0.2", "a b", [], {}, ["open"], 70000]


def throw(count: int, seconds: float | None = None) -> int:
    """Messages with a field changed, left out, or octets changed: parsed or refused, no more."""
    dice = random.Random(11)
    began, done = time.monotonic(), 0
    for done in range(count):  # noqa: B007  (how far it came)
        if seconds is not None and time.monotonic() - began > seconds:
            break
        octets = messages.serialize(dice.choice(MESSAGES))
        if dice.random() < 0.5:
            changed = bytearray(octets)
            for _ in range(dice.randrange(1, 4)):
                changed[dice.randrange(len(changed))] = dice.randrange(256)
            octets = bytes(changed)
        else:
            fields = json.loads(octets)
            name = dice.choice([*fields, "extra"])
            if dice.random() < 0.2:
                fields.pop(name, None)
            else:
                fields[name] = dice.choice(WRONG)
            octets = json.dumps(fields).encode()
        with contextlib.suppress(LeaseProtocolError):
            message = messages.parse(octets)
            assert messages.parse(messages.serialize(message)) == message
    return done


def test_strangers_messages_are_refused_by_name() -> None:
    assert throw(2000) == 1999
    for octets in (b"", b"\xff", b"[]", b"1", b"{}", b'{"is":"open"}', b"[" * 100_000):
        with pytest.raises(LeaseProtocolError):
            messages.parse(octets)


@pytest.mark.fuzz
def test_very_many_of_them() -> None:
    throw(100_000, 5.0)
