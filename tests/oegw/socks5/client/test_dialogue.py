"""The client's side of a connection, octet by octet."""

from __future__ import annotations

import random
from ipaddress import IPv4Address, ip_address

import pytest

from oegw.socks5.client.asking import (
    associate_request,
    bind_request,
    connect_request,
    interface_request,
    udp_request,
)
from oegw.socks5.client.dialogue import Dialogue, Ended, Replied, State
from oegw.socks5.client.errors import (
    AddressTypeNotSupported,
    AnswerUnusable,
    CommandNotSupported,
    CredentialsRefused,
    DestinationRefused,
    HostUnreachable,
    InvalidAddress,
    MethodsRefused,
    NetworkUnreachable,
    NotAllowed,
    OutOfTurn,
    ProxyError,
    ProxyUnreachable,
    RequestRefused,
    TtlExpired,
)
from oegw.socks5.codes import AddressType, ReplyCode
from oegw.socks5.wire import AddressId, Credentials, Reply, Request

ALICE = Credentials(b"alice", b"secret")
BOB = ip_address("192.2.0.66")
CONNECT = connect_request(BOB, 80)

GREETING = bytes.fromhex("05 01 00")
BOTH = bytes.fromhex("05 02 00 02")
SECRET = b"\x01\x05alice\x06secret"
NONE, PASSWORD = b"\x05\x00", b"\x05\x02"
TO_BOB = bytes.fromhex("05 01 00 01 c0 02 00 42 00 50")
DONE = bytes.fromhex("05 00 00 01 c0 01 01 04 9c 40")
SERVED = Reply(0, IPv4Address("192.1.1.4"), 40000)


def refused(code: int) -> bytes:
    return bytes([5, code, 0, 1, 0, 0, 0, 0, 0, 0])


def started(request: Request = CONNECT, credentials: Credentials | None = None) -> Dialogue:
    """A dialogue that awaits the reply."""
    dialogue = Dialogue(credentials)
    dialogue.ask(request)
    dialogue.receive(NONE)
    dialogue.octets_to_send()
    assert dialogue.state is State.REPLY
    return dialogue


def error_of(dialogue: Dialogue) -> ProxyError:
    event = dialogue.next_event()
    assert isinstance(event, Ended)
    assert dialogue.state is State.OVER
    assert dialogue.next_event() is None
    return event.error


# ------------------------------------------------------------------------ what goes well


def test_a_request_waits_for_the_method() -> None:
    dialogue = Dialogue()
    dialogue.ask(CONNECT)
    assert dialogue.octets_to_send() == GREETING
    dialogue.receive(NONE)
    assert dialogue.octets_to_send() == TO_BOB
    assert dialogue.next_event() is None
    dialogue.receive(DONE)
    assert dialogue.next_event() == Replied(SERVED)
    assert dialogue.state is State.OPEN


def test_user_and_password_are_told_when_the_server_wants_them() -> None:
    dialogue = Dialogue(ALICE)
    dialogue.ask(CONNECT)
    assert dialogue.octets_to_send() == BOTH
    dialogue.receive(PASSWORD)
    assert dialogue.octets_to_send() == SECRET
    dialogue.receive(b"\x01\x00")
    assert dialogue.octets_to_send() == TO_BOB


def test_user_and_password_are_not_told_when_the_server_does_without() -> None:
    dialogue = Dialogue(ALICE)
    dialogue.ask(CONNECT)
    dialogue.octets_to_send()
    dialogue.receive(NONE)
    assert dialogue.octets_to_send() == TO_BOB


@pytest.mark.parametrize(
    ("credentials", "said", "answers"),
    [(None, GREETING, NONE), (ALICE, b"\x05\x01\x02" + SECRET, PASSWORD + b"\x01\x00")],
    ids=["none", "password"],
)
def test_an_optimist_waits_for_nothing(
    credentials: Credentials | None, said: bytes, answers: bytes
) -> None:
    dialogue = Dialogue(credentials, optimistic=True)
    dialogue.ask(CONNECT, b"early")
    assert dialogue.octets_to_send() == said + TO_BOB + b"early"
    dialogue.receive(answers + DONE + b"from bob")
    assert dialogue.next_event() == Replied(SERVED)
    assert dialogue.octets_to_send() == b""
    assert dialogue.rest() == b"from bob"


def test_early_octets_go_right_behind_the_request() -> None:
    dialogue = Dialogue()
    dialogue.ask(CONNECT, b"GET /")
    assert dialogue.octets_to_send() == GREETING
    dialogue.receive(NONE)
    assert dialogue.octets_to_send() == TO_BOB + b"GET /"


def test_any_number_of_associations_and_one_connection() -> None:
    """SK-31."""
    dialogue = started(associate_request("bob.example"))
    given = bytes.fromhex("05 00 00 08 00 01 02 03 00 00")
    for _ in range(3):
        dialogue.receive(given)
        assert dialogue.next_event() == Replied(Reply(0, AddressId(0x010203), 0))
        assert dialogue.state is State.READY
        dialogue.ask(associate_request(BOB, AddressType.NAME))
        assert dialogue.octets_to_send() == bytes.fromhex("05 08 00 01 c0 02 00 42 00 03")
    dialogue.receive(given)
    assert dialogue.next_event() is not None
    dialogue.ask(connect_request(AddressId(0x010203), 80, associate=True))
    assert dialogue.octets_to_send() == bytes.fromhex("05 09 00 08 00 01 02 03 00 50")
    dialogue.receive(given)
    assert dialogue.next_event() is not None
    assert dialogue.state is State.OPEN


def test_bind_has_two_replies() -> None:
    """SK-5."""
    dialogue = started(bind_request(BOB, 0))
    dialogue.receive(DONE)
    assert dialogue.next_event() == Replied(SERVED)
    assert dialogue.state is State.SECOND_REPLY
    assert dialogue.wanted() == 5
    peer = bytes.fromhex("05 00 00 01 c0 02 00 42 00 14")
    dialogue.receive(peer + b"220 ")
    assert dialogue.next_event() == Replied(Reply(0, BOB, 20))
    assert dialogue.rest() == b"220 "


def test_the_control_channel_goes_on_whatever_it_is_answered() -> None:
    """SK-43."""
    dialogue = started(udp_request(BOB, 0))
    dialogue.receive(DONE)
    dialogue.next_event()
    for code in (ReplyCode.SUCCEEDED, ReplyCode.COMMAND_NOT_SUPPORTED):
        dialogue.ask_control(interface_request(BOB, 53))
        assert dialogue.octets_to_send() == bytes.fromhex("00 01 00 01 c0 02 00 42 00 35")
        dialogue.receive(refused(code))
        event = dialogue.next_event()
        assert isinstance(event, Replied)
        assert event.reply.code == code
        assert dialogue.state is State.ASSOCIATED


EXCHANGES = [
    (CONNECT, None, NONE + DONE, State.OPEN),
    (CONNECT, ALICE, PASSWORD + b"\x01\x00" + DONE, State.OPEN),
    (connect_request("bob.example", 80), None, NONE + b"\x05\x00\x00\x03\x03bob\0\x50", State.OPEN),
    (connect_request(BOB, 1), None, NONE + b"\x05\0\0\x04" + bytes(16) + b"\0\1", State.OPEN),
    (bind_request(BOB, 1), None, NONE + DONE + DONE, State.OPEN),
    (associate_request("x"), None, NONE + bytes.fromhex("05000008000102030000"), State.READY),
]


@pytest.mark.parametrize(("request_", "credentials", "answers", "end"), EXCHANGES)
def test_the_pieces_are_of_no_importance(
    request_: Request, credentials: Credentials | None, answers: bytes, end: State
) -> None:
    dialogue = Dialogue(credentials)
    dialogue.ask(request_)
    for octet in answers:
        dialogue.receive(bytes([octet]))
    assert dialogue.state is end


@pytest.mark.parametrize(("request_", "credentials", "answers", "end"), EXCHANGES)
def test_who_reads_what_is_wanted_never_reads_what_is_the_destinations(
    request_: Request, credentials: Credentials | None, answers: bytes, end: State
) -> None:
    dialogue = Dialogue(credentials)
    dialogue.ask(request_)
    stream = answers + b"\x05 of the destination"
    reads = 0
    while wanted := dialogue.wanted():
        dialogue.receive(stream[:wanted])
        stream = stream[wanted:]
        reads += 1
    assert stream == b"\x05 of the destination"
    assert dialogue.state is end
    assert reads <= 6  # two for each reply, one for each other message


# ------------------------------------------------------------------------ what goes wrong

CODES = [
    (ReplyCode.FAILURE, RequestRefused),
    (ReplyCode.NOT_ALLOWED, NotAllowed),
    (ReplyCode.NETWORK_UNREACHABLE, NetworkUnreachable),
    (ReplyCode.HOST_UNREACHABLE, HostUnreachable),
    (ReplyCode.CONNECTION_REFUSED, DestinationRefused),
    (ReplyCode.TTL_EXPIRED, TtlExpired),
    (ReplyCode.COMMAND_NOT_SUPPORTED, CommandNotSupported),
    (ReplyCode.ADDRESS_TYPE_NOT_SUPPORTED, AddressTypeNotSupported),
    (ReplyCode.INVALID_ADDRESS, InvalidAddress),
    (0xAA, RequestRefused),
]


@pytest.mark.parametrize(("code", "kind"), CODES)
def test_each_code_has_its_error(code: int, kind: type[RequestRefused]) -> None:
    """SK-4."""
    dialogue = started()
    dialogue.receive(refused(code))
    error = error_of(dialogue)
    assert type(error) is kind
    assert isinstance(error, OSError)
    assert isinstance(error, RequestRefused)
    assert error.code == code
    assert error.errno
    assert error.strerror


def test_every_code_is_known() -> None:
    assert {code for code, _ in CODES} >= set(ReplyCode) - {ReplyCode.SUCCEEDED}


@pytest.mark.parametrize("end", range(2, 10))
def test_a_refusal_counts_however_short_it_is(end: int) -> None:
    dialogue = started()
    dialogue.receive(refused(5)[:end])
    dialogue.end_of_input()
    assert isinstance(error_of(dialogue), DestinationRefused)


def test_a_refusal_with_an_empty_name_is_one() -> None:
    dialogue = started()
    dialogue.receive(b"\x05\x02\x00\x03\x00\x00\x00")
    assert isinstance(error_of(dialogue), NotAllowed)


def test_success_with_an_empty_name_is_none() -> None:
    dialogue = started()
    dialogue.receive(b"\x05\x00\x00\x03\x00\x00\x00")
    assert isinstance(error_of(dialogue), AnswerUnusable)


@pytest.mark.parametrize(
    ("credentials", "answers", "kind"),
    [
        (None, b"\x05\xff", MethodsRefused),
        (ALICE, b"\x05\xff", MethodsRefused),
        (None, b"\x05\x02", AnswerUnusable),  # not offered
        (ALICE, b"\x05\x01", AnswerUnusable),
        (None, b"HTTP/1.1 400 Bad Request\r\n", AnswerUnusable),
        (None, b"\x00\x5b\0\0\0\0\0\0", AnswerUnusable),  # SOCKS 4
        (ALICE, b"\x05\x02\x01\x01", CredentialsRefused),
        (ALICE, b"\x05\x02\x05\xff", CredentialsRefused),
        (None, b"\x05\x00\x04\x00", AnswerUnusable),
        (None, b"\x05\x00\x05\x00\x00\x07", AnswerUnusable),
    ],
)
def test_what_can_not_be_used(
    credentials: Credentials | None, answers: bytes, kind: type[ProxyError]
) -> None:
    dialogue = Dialogue(credentials)
    dialogue.ask(CONNECT)
    dialogue.receive(answers)
    assert type(error_of(dialogue)) is kind
    assert dialogue.octets_to_send() == b""


@pytest.mark.parametrize("answers", [b"", b"\x05", NONE, PASSWORD + b"\x01", NONE + DONE[:1]])
def test_an_end_before_its_time(answers: bytes) -> None:
    dialogue = Dialogue(ALICE)
    dialogue.ask(CONNECT)
    dialogue.receive(answers)
    dialogue.end_of_input()
    assert isinstance(error_of(dialogue), ProxyUnreachable)


def test_the_end_of_an_open_connection_is_the_destinations() -> None:
    dialogue = started()
    dialogue.receive(DONE)
    dialogue.next_event()
    dialogue.end_of_input()
    assert dialogue.next_event() is None


def test_the_end_of_an_association_is_told() -> None:
    """SK-6."""
    dialogue = started(udp_request(BOB, 0))
    dialogue.receive(DONE)
    dialogue.next_event()
    dialogue.end_of_input()
    assert isinstance(error_of(dialogue), ProxyUnreachable)


def test_nobody_asked() -> None:
    dialogue = started(associate_request("bob.example"))
    dialogue.receive(DONE + DONE)
    assert isinstance(dialogue.next_event(), Replied)
    assert isinstance(error_of(dialogue), AnswerUnusable)


def test_our_own_mistakes_change_nothing() -> None:
    dialogue = Dialogue()
    dialogue.ask(CONNECT)
    with pytest.raises(OutOfTurn):
        dialogue.ask(CONNECT)
    with pytest.raises(OutOfTurn):
        dialogue.ask_control(interface_request(BOB, 1))
    dialogue.octets_to_send()
    dialogue.receive(NONE + DONE)
    dialogue.octets_to_send()
    with pytest.raises(OutOfTurn):
        dialogue.ask(CONNECT)
    assert dialogue.octets_to_send() == b""
    assert dialogue.state is State.OPEN


# --------------------------------------------------------------------------- strangers

REQUESTS = (CONNECT, bind_request(BOB, 0), udp_request(BOB, 0), associate_request("bob.example"))
MESSAGES = (NONE, PASSWORD, b"\x01\x00", DONE, refused(1), b"\x05\x00\x00\x03", b"\xff")


def _stray(count: int, seed: int) -> None:
    dice = random.Random(seed)
    ends = 0
    for _ in range(count):
        dialogue = Dialogue(dice.choice((None, ALICE)), optimistic=dice.random() < 0.3)
        dialogue.ask(dice.choice(REQUESTS))
        for _ in range(dice.randrange(1, 6)):
            octets = dice.choice(MESSAGES) if dice.random() < 0.8 else dice.randbytes(3)
            dialogue.receive(octets[: dialogue.wanted() or None])
            assert dialogue.wanted() >= 0
            dialogue.octets_to_send()
        if dice.random() < 0.3:
            dialogue.end_of_input()
        while (event := dialogue.next_event()) is not None:
            ends += isinstance(event, Ended)
    assert ends > count // 10


def test_whatever_a_server_says_is_an_event() -> None:
    _stray(2_000, 1)


@pytest.mark.fuzz
def test_whatever_a_server_says_is_an_event_often() -> None:
    _stray(100_000, 2)
