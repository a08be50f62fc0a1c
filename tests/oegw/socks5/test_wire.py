"""The messages, both ways (SK-9, SK-11, SK-14, SK-41), by vectors that others read too."""

from __future__ import annotations

import random
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import pytest

from oegw.socks5 import wire
from oegw.socks5.codes import ReplyCode
from oegw.socks5.wire import (
    MAX_MESSAGE_OCTETS,
    Address,
    AddressId,
    ControlRequest,
    Credentials,
    CredentialsAnswer,
    Datagram,
    Greeting,
    MalformedMessage,
    MethodChoice,
    Reply,
    Request,
    WrongVersion,
    place_octets,
    plain,
)
from tests.support.socks_messages import PARSERS, VECTORS, message_of


def cases(of: str) -> list[Any]:
    return [pytest.param(vector, id=vector["name"]) for vector in VECTORS[of]]


@pytest.mark.parametrize("vector", cases("messages"))
def test_a_message_is_read_and_written(vector: dict[str, Any]) -> None:
    octets = bytes.fromhex(vector["hex"])
    message = message_of(vector["message"], vector["fields"])
    assert message.octets() == octets
    if vector["message"] == "datagram":
        assert wire.parse_datagram(octets) == message
    else:
        assert PARSERS[vector["message"]](octets) == (message, len(octets))


STREAMED = [vector for vector in VECTORS["messages"] if vector["message"] != "datagram"]


@pytest.mark.parametrize("vector", [pytest.param(each, id=each["name"]) for each in STREAMED])
def test_of_a_stream_no_octet_too_many_is_taken_and_none_too_few(vector: dict[str, Any]) -> None:
    octets = bytes.fromhex(vector["hex"])
    parse = PARSERS[vector["message"]]
    whole, taken = parse(octets)
    assert [parse(octets[:length]) for length in range(len(octets))] == [None] * len(octets)
    assert parse(octets + b"what is behind it") == (whole, taken)
    assert parse(octets + octets) == (whole, taken)


@pytest.mark.parametrize("vector", cases("malformed"))
def test_what_is_no_message_is_told_with_its_code(vector: dict[str, Any]) -> None:
    parse = PARSERS.get(vector["message"], wire.parse_datagram)
    with pytest.raises(MalformedMessage) as raised:
        parse(bytes.fromhex(vector["hex"]))
    if "reply" in vector:
        assert raised.value.code == vector["reply"]


def test_a_datagram_cut_within_its_header_is_none() -> None:
    for vector in VECTORS["messages"]:
        if vector["message"] != "datagram":
            continue
        octets = bytes.fromhex(vector["hex"])
        header = len(octets) - len(bytes.fromhex(vector["fields"]["payload"]))
        for length in range(header):
            with pytest.raises(MalformedMessage):
                wire.parse_datagram(octets[:length])
        assert wire.parse_datagram(octets[:header]).payload == b""


def test_a_header_with_an_id_is_as_short_as_ipv4s_and_12_octets_shorter_than_ipv6s() -> None:
    """SK-41."""
    by_id = Datagram(AddressId(0xABCDEF), 53, b"").octets()
    assert len(by_id) == 10 == len(Datagram(IPv4Address("192.0.2.1"), 53, b"").octets())
    assert len(Datagram(IPv6Address("2001:db8::1"), 53, b"").octets()) == len(by_id) + 12


@pytest.mark.parametrize(
    ("written", "used"),
    [
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
    ],
)
def test_an_address_has_one_form(written: str, used: str) -> None:
    assert plain(ip_address(written)) == ip_address(used)


def test_what_is_not_said_is_zero() -> None:
    place = IPv4Address("192.0.2.1"), 80
    assert AddressId(7) == AddressId(7, 0)
    assert Request(1, *place) == Request(1, *place, 0)
    assert Reply(0, *place) == Reply(0, *place, 0)
    assert ControlRequest(1, *place) == ControlRequest(1, *place, 0)
    assert Datagram(*place, b"") == Datagram(*place, b"", 0)


def test_flag_of_a_datagram_is_not_looked_at() -> None:
    octets = Datagram(IPv4Address("192.0.2.1"), 53, b"x").octets()
    assert wire.parse_datagram(b"\xff\xff" + octets[2:]) == wire.parse_datagram(octets)


def test_a_server_may_answer_credentials_with_the_wrong_version() -> None:
    assert wire.parse_credentials_answer(b"\x05\x00") == (CredentialsAnswer(0), 2)


def test_the_version_is_told_at_the_first_octet() -> None:
    for parse in PARSERS.values():
        if parse is wire.parse_credentials_answer:
            continue
        assert parse(b"") is None
        with pytest.raises(WrongVersion) as raised:
            parse(b"G")
        assert raised.value.version == ord("G")


def test_an_unknown_address_type_is_told_before_what_follows_is_there() -> None:
    with pytest.raises(MalformedMessage) as raised:
        wire.parse_request(bytes.fromhex("05010007"))
    assert raised.value.code == ReplyCode.ADDRESS_TYPE_NOT_SUPPORTED


@pytest.mark.parametrize("name", ["", "x" * 256, "ü" * 128, "a\0b", "a\nb", "\x7f", "\udc80"])
def test_a_name_that_does_not_fit_is_not_written(name: str) -> None:
    with pytest.raises(MalformedMessage):
        place_octets(name, 80)


def test_the_longest_name_and_the_longest_credentials_fit() -> None:
    request = Request(1, "ü" * 127 + "x", 80)
    octets = request.octets()
    assert wire.parse_request(octets) == (request, len(octets))
    credentials = Credentials(b"u" * 255, b"p" * 255)
    octets = credentials.octets()
    assert len(octets) == MAX_MESSAGE_OCTETS
    assert wire.parse_credentials(octets) == (credentials, len(octets))


@pytest.mark.parametrize(("user", "password"), [(b"", b"p"), (b"u", b""), (b"u" * 256, b"p")])
def test_credentials_that_do_not_fit_are_not_written(user: bytes, password: bytes) -> None:
    with pytest.raises(MalformedMessage):
        Credentials(user, password).octets()


def test_secrets_are_silent() -> None:
    assert "b1b2b3" not in repr(AddressId(0xB1B2B3)).lower()
    assert str(0xB1B2B3) not in f"{Request(1, AddressId(0xB1B2B3), 80)}"
    assert "secret" not in repr(Credentials(b"alice", b"secret"))


# ---------------------------------------------------------------- any message, any octets


def an_address(dice: random.Random) -> Address:
    match dice.randrange(4):
        case 0:
            return IPv4Address(dice.getrandbits(32))
        case 1:
            return IPv6Address(dice.getrandbits(128))
        case 2:
            return AddressId(dice.getrandbits(24), dice.getrandbits(8))
        case _:
            return "".join(dice.choices("abz-.:_ é漢😀", k=dice.randint(1, 63)))


def a_message(dice: random.Random) -> tuple[str, Any]:
    octet, place = dice.randrange(256), (an_address(dice), dice.randrange(65536))
    kind = dice.choice([*PARSERS, "datagram"])
    match kind:
        case "greeting":
            return kind, Greeting(tuple(dice.randbytes(dice.randint(1, 255))))
        case "method_choice":
            return kind, MethodChoice(octet)
        case "credentials":
            return kind, Credentials(
                dice.randbytes(dice.randint(1, 255)), dice.randbytes(dice.randint(1, 255))
            )
        case "credentials_answer":
            return kind, CredentialsAnswer(octet)
        case "datagram":
            return kind, Datagram(*place, dice.randbytes(dice.randrange(50)), octet)
        case _:
            made = {"request": Request, "reply": Reply, "control_request": ControlRequest}[kind]
            return kind, made(dice.randrange(256), *place, octet)


def test_what_is_written_is_read_as_the_same() -> None:
    dice = random.Random(1928)
    for _ in range(2000):
        kind, message = a_message(dice)
        octets = message.octets()
        if kind == "datagram":
            assert wire.parse_datagram(octets) == message
        else:
            assert PARSERS[kind](octets + dice.randbytes(3)) == (message, len(octets))


def throw(amount: int, seed: int) -> None:
    """Octets at random, and messages with some of theirs changed: nothing but MalformedMessage, and
    what is read is written as it was."""
    dice = random.Random(seed)
    for _ in range(amount):
        if dice.random() < 0.5:
            octets = dice.choice((b"\x05", b"\x01", b"\x00", b"")) + dice.randbytes(
                dice.randrange(40)
            )
        else:
            mutable = bytearray(a_message(dice)[1].octets())
            for _ in range(dice.randint(1, 3)):
                mutable[dice.randrange(min(len(mutable), 8))] = dice.randrange(256)
            octets = bytes(mutable[: dice.randint(1, len(mutable))])
        for kind, parse in PARSERS.items():
            try:
                found = parse(octets)
            except MalformedMessage:
                continue
            if found is None:
                assert len(octets) < MAX_MESSAGE_OCTETS
                continue
            message, taken = found
            if kind != "credentials_answer":
                assert message.octets() == octets[:taken]
        try:
            datagram = wire.parse_datagram(octets)
        except MalformedMessage:
            continue
        assert datagram.octets()[2:] == octets[2:]


def test_octets_at_random_raise_nothing_else() -> None:
    throw(2000, seed=5)


@pytest.mark.fuzz
def test_100_000_inputs_raise_nothing_else() -> None:
    throw(100_000, seed=1996)
