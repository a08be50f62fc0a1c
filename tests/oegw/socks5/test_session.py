"""A client's connection as the core sees it (SK-1, SK-4, SK-9, SK-10, SK-12, SK-27, SK-31, SK-43).

``C:`` and ``S:`` in comments are what client and server send.
"""

from __future__ import annotations

import random
from ipaddress import IPv4Address, IPv6Address

import pytest

from oegw.socks5.codes import Command, Method, ReplyCode
from oegw.socks5.session import (
    EARLY_OCTETS,
    AuthenticationWanted,
    ControlRequested,
    Ended,
    Requested,
    Session,
    SessionMisused,
    State,
)
from oegw.socks5.wire import (
    MAX_MESSAGE_OCTETS,
    AddressId,
    ControlRequest,
    Credentials,
    Greeting,
    Reply,
    Request,
    parse_reply,
)

PLACE = IPv4Address("192.0.2.1"), 80
BOUND = IPv4Address("198.51.100.1"), 40000
GREETING = Greeting((Method.NONE,)).octets()
PASSWORD = (Method.PASSWORD,)


def greeted(**settings: object) -> Session:
    """A session that waits for its request."""
    session = Session(**settings)  # type: ignore[arg-type]
    session.receive(GREETING)
    assert session.octets_to_send() == b"\x05\x00"
    return session


def asked(command: int, behind: bytes = b"", flag: int = 0) -> Session:
    """A session whose request awaits our answer."""
    session = greeted()
    session.receive(Request(command, *PLACE, flag).octets() + behind)
    assert session.next_event() == Requested(Command(command), *PLACE, flag)
    return session


def succeeded(*place: object) -> Reply:
    return Reply(ReplyCode.SUCCEEDED, *(place or BOUND))  # type: ignore[arg-type]


def told(session: Session) -> ReplyCode:
    """The code of the one reply that is to be sent, which is well formed (SK-10)."""
    octets = session.octets_to_send()
    found = parse_reply(octets)
    assert found is not None
    reply, taken = found
    assert taken == len(octets)
    assert reply.flag == 0  # SK-39
    if reply.code != ReplyCode.SUCCEEDED:
        assert (reply.address, reply.port) == (IPv4Address(0), 0)
    return ReplyCode(reply.code)


# ---------------------------------------------------------------- methods


@pytest.mark.parametrize(
    ("accepted", "offered", "chosen"),
    [
        ((Method.NONE,), (0,), 0),
        ((Method.NONE,), (1, 2, 0), 0),
        (PASSWORD, (0, 2), 2),
        ((Method.NONE, Method.PASSWORD), (2, 0), 0),  # our order decides
        ((Method.NONE, Method.PASSWORD), (2,), 2),
    ],
)
def test_a_method_is_chosen(
    accepted: tuple[Method, ...], offered: tuple[int, ...], chosen: int
) -> None:
    session = Session(accepted)
    session.receive(Greeting(offered).octets())
    assert session.octets_to_send() == bytes([5, chosen])
    assert session.next_event() is None
    assert session.state is (State.CREDENTIALS if chosen else State.REQUEST)


@pytest.mark.parametrize(
    ("accepted", "offered"), [(PASSWORD, (0, 1)), ((Method.NONE,), (2,)), ((), (0,))]
)
def test_no_method_that_fits_is_told_and_ends_it(
    accepted: tuple[Method, ...], offered: tuple[int, ...]
) -> None:
    session = Session(accepted)
    session.receive(Greeting(offered).octets())
    assert session.octets_to_send() == b"\x05\xff"
    assert session.next_event() == Ended("no_method")


@pytest.mark.parametrize(
    ("octets", "reason"),
    [(b"\x04\x01\x00\x50", "version"), (b"GET / HTTP/1.1", "version"), (b"\x05\x00", "malformed")],
)
def test_what_is_no_greeting_is_told_so(octets: bytes, reason: str) -> None:
    session = Session()
    session.receive(octets)
    assert session.octets_to_send() == b"\x05\xff"
    assert session.next_event() == Ended(reason)


# ---------------------------------------------------------------- credentials


def test_credentials_are_verified_by_another() -> None:
    session = Session(PASSWORD)
    session.receive(Greeting((2,)).octets() + Credentials(b"alice", b"secret").octets())
    assert session.octets_to_send() == b"\x05\x02"
    assert session.next_event() == AuthenticationWanted(Credentials(b"alice", b"secret"))
    assert session.octets_to_send() == b""  # S: nothing, until they are
    session.authenticated(True)
    assert session.octets_to_send() == b"\x01\x00"
    session.receive(Request(Command.CONNECT, *PLACE).octets())
    assert session.next_event() == Requested(Command.CONNECT, *PLACE, 0)


def test_wrong_credentials_end_it() -> None:
    session = Session(PASSWORD)
    session.receive(Greeting((2,)).octets() + Credentials(b"alice", b"wrong").octets())
    session.next_event()
    session.receive(Request(Command.CONNECT, *PLACE).octets())  # C: does not wait
    session.authenticated(False)
    assert session.octets_to_send() == b"\x05\x02\x01\x01"
    assert session.next_event() == Ended("credentials")
    assert session.next_event() is None


@pytest.mark.parametrize("octets", [b"\x01\x00", b"\x01\x01a\x00", b"\x05\x01\x00"])
def test_what_are_no_credentials_is_told_so(octets: bytes) -> None:
    session = Session(PASSWORD)
    session.receive(Greeting((2,)).octets() + octets)
    assert session.octets_to_send() == b"\x05\x02\x01\x01"
    event = session.next_event()
    assert event in (Ended("malformed"), Ended("version"))


# ---------------------------------------------------------------- requests


@pytest.mark.parametrize("command", [Command.CONNECT, Command.CONNECT_AND_ASSOCIATE])
def test_connect_is_answered_once_and_relayed(command: Command) -> None:
    session = asked(command, behind=b"early")
    session.reply(succeeded())
    assert told(session) == ReplyCode.SUCCEEDED
    assert session.state is State.RELAYED
    assert session.rest() == b"early"
    assert session.rest() == b""
    assert session.next_event() is None
    assert session.room() == 0


@pytest.mark.parametrize("command", [Command.BIND, Command.BIND_AND_ASSOCIATE])
def test_bind_is_answered_twice_and_relayed(command: Command) -> None:
    """SK-5."""
    session = asked(command)
    session.reply(succeeded())
    assert told(session) == ReplyCode.SUCCEEDED
    assert session.state is State.PEER
    session.reply(succeeded(*PLACE))
    assert told(session) == ReplyCode.SUCCEEDED
    assert session.state is State.RELAYED


def test_a_bind_whose_peer_never_came_ends() -> None:
    session = asked(Command.BIND)
    session.reply(succeeded())
    session.octets_to_send()
    session.refuse(ReplyCode.TTL_EXPIRED, "bind_timeout")
    assert told(session) == ReplyCode.TTL_EXPIRED
    assert session.next_event() == Ended("bind_timeout")


@pytest.mark.parametrize("command", list(Command))
@pytest.mark.parametrize("code", [code for code in ReplyCode if code != ReplyCode.SUCCEEDED])
def test_a_failure_is_told_and_ends_it(command: Command, code: ReplyCode) -> None:
    session = asked(command, behind=b"early")
    session.refuse(code, "why")
    assert told(session) == code
    assert session.next_event() == Ended("why")
    assert session.next_event() is None
    assert session.state is State.ENDED


@pytest.mark.parametrize("nowhere", [IPv4Address(0), IPv6Address(0)])
def test_a_failure_names_no_address_in_the_clients_family(
    nowhere: IPv4Address | IPv6Address,
) -> None:
    session = greeted(nowhere=nowhere)
    session.receive(Request(Command.CONNECT, *PLACE).octets())
    session.refuse(ReplyCode.HOST_UNREACHABLE)
    assert session.octets_to_send() == Reply(ReplyCode.HOST_UNREACHABLE, nowhere, 0).octets()


@pytest.mark.parametrize("command", [0, 4, 7, 0x0C, 0x0F, 0x10, 0x18, 0x7F, 0x80, 0xF0, 0xFF])
def test_unknown_commands_are_not_supported(command: int) -> None:
    """SK-27."""
    session = greeted()
    session.receive(Request(command, *PLACE).octets())
    assert told(session) == ReplyCode.COMMAND_NOT_SUPPORTED
    assert session.next_event() == Ended("command")


@pytest.mark.parametrize(
    ("octets", "code", "reason"),
    [
        ("05010001", None, None),  # more to come
        ("05010002", ReplyCode.ADDRESS_TYPE_NOT_SUPPORTED, "address_type"),
        ("0501000300", ReplyCode.INVALID_ADDRESS, "malformed"),
        ("0501000301ff0050", ReplyCode.INVALID_ADDRESS, "malformed"),
        ("04010001", ReplyCode.FAILURE, "version"),
        ("05010008010000010050", ReplyCode.INVALID_ADDRESS, "address_class"),  # SK-12
    ],
)
def test_what_is_no_request_is_told_so(
    octets: str, code: ReplyCode | None, reason: str | None
) -> None:
    session = greeted()
    session.receive(bytes.fromhex(octets))
    if code is None or reason is None:
        assert session.octets_to_send() == b""
        assert session.next_event() is None
    else:
        assert told(session) == code
        assert session.next_event() == Ended(reason)


def test_unknown_flags_are_told_for_counting() -> None:
    """SK-40."""
    assert Requested(Command.CONNECT, *PLACE, 0x15).unknown_flags == 0
    assert Requested(Command.CONNECT, *PLACE, 0xFF).unknown_flags == 0xEA


def test_after_an_address_associate_more_requests_may_come() -> None:
    """SK-31: as many more as the client likes, and one base command."""
    session = greeted()
    name = Request(Command.ASSOCIATE, "example.org", 0)
    number = Reply(ReplyCode.SUCCEEDED, AddressId(7), 0)
    session.receive(name.octets() * 2)  # C: both at once
    for _ in range(2):
        assert session.next_event() == Requested(Command.ASSOCIATE, "example.org", 0, 0)
        assert session.next_event() is None
        session.reply(number)
        assert told(session) == ReplyCode.SUCCEEDED
    assert session.state is State.REQUEST
    session.receive(Request(Command.CONNECT, AddressId(7), 80).octets())
    assert session.next_event() == Requested(Command.CONNECT, AddressId(7), 80, 0)
    session.reply(succeeded())
    assert session.state is State.RELAYED


def test_closing_after_an_address_associate_is_fine() -> None:
    """SK-31."""
    session = asked(Command.ASSOCIATE)
    session.end_of_input()  # C: does not even wait for the answer
    assert session.next_event() is None
    session.reply(Reply(ReplyCode.SUCCEEDED, AddressId(7), 0))
    assert told(session) == ReplyCode.SUCCEEDED
    assert session.next_event() == Ended("closed")


# ---------------------------------------------------------------- the UDP control channel


def associated() -> Session:
    session = asked(Command.UDP_ASSOCIATE)
    session.reply(succeeded())
    session.octets_to_send()
    assert session.state is State.CONTROL
    return session


def test_requests_of_the_control_channel_are_answered_in_turn() -> None:
    """SK-43."""
    session = associated()
    session.receive(
        ControlRequest(1, "a.example", 53).octets() + ControlRequest(1, AddressId(7), 54).octets()
    )
    assert session.next_event() == ControlRequested("a.example", 53, 0)
    assert session.next_event() is None
    session.refuse(ReplyCode.HOST_UNREACHABLE)  # of which the association knows nothing
    assert told(session) == ReplyCode.HOST_UNREACHABLE
    assert session.next_event() == ControlRequested(AddressId(7), 54, 0)
    session.reply(succeeded())
    assert told(session) == ReplyCode.SUCCEEDED
    assert session.state is State.CONTROL


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (ControlRequest(2, *PLACE), ReplyCode.COMMAND_NOT_SUPPORTED),
        (ControlRequest(1, AddressId(7, category=1), 53), ReplyCode.INVALID_ADDRESS),
    ],
)
def test_a_control_request_that_cannot_be_answered_keeps_the_association(
    request_: ControlRequest, code: ReplyCode
) -> None:
    """SK-43, SK-12."""
    session = associated()
    session.receive(request_.octets())
    assert told(session) == code
    session.receive(ControlRequest(1, *PLACE).octets())
    assert session.next_event() == ControlRequested(*PLACE, 0)


def test_any_number_of_requests_at_once_is_answered() -> None:
    session = associated()
    unknown = ControlRequest(2, *PLACE).octets()
    amount = session.room() // len(unknown)
    session.receive(unknown * amount)
    refusal = Reply(ReplyCode.COMMAND_NOT_SUPPORTED, IPv4Address(0), 0).octets()
    assert session.octets_to_send() == refusal * amount


def test_garbage_in_the_control_channel_ends_the_association() -> None:
    session = associated()
    session.receive(b"\x05\x01\x00")
    assert told(session) == ReplyCode.FAILURE
    assert session.next_event() == Ended("version")


def test_an_association_ends_with_its_connection() -> None:
    """SK-6."""
    session = associated()
    session.end_of_input()
    assert session.next_event() == Ended("closed")


# ---------------------------------------------------------------- the end of input


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (b"", "closed"),
        (b"\x05", "truncated"),
        (GREETING, "closed"),
        (GREETING + b"\x05\x01\x00\x01\xc0", "truncated"),
    ],
)
def test_input_that_ends_before_a_request_ends_it(octets: bytes, reason: str) -> None:
    session = Session()
    session.receive(octets)
    session.octets_to_send()
    session.end_of_input()
    assert session.next_event() == Ended(reason)
    assert session.octets_to_send() == b""


@pytest.mark.parametrize("command", [Command.CONNECT, Command.BIND])
def test_a_half_closed_client_is_served(command: Command) -> None:
    """C: all that it has to say to the destination, and FIN."""
    session = asked(command, behind=b"GET / HTTP/1.0\r\n\r\n")
    session.end_of_input()
    session.reply(succeeded())
    if command is Command.BIND:
        session.reply(succeeded(*PLACE))
    assert session.next_event() is None
    assert session.rest() == b"GET / HTTP/1.0\r\n\r\n"


# ---------------------------------------------------------------- octets, however they come


def conversation(pieces: list[bytes]) -> tuple[list[object], bytes, bytes]:
    """Events, what was sent and what is left of a client that logs in, associates and connects."""
    session = Session(PASSWORD)
    events: list[object] = []
    sent = b""
    for piece in pieces:
        session.receive(piece)
        while (event := session.next_event()) is not None:
            events.append(event)
            match event:
                case AuthenticationWanted():
                    session.authenticated(True)
                case Requested(command=Command.ASSOCIATE):
                    session.reply(Reply(ReplyCode.SUCCEEDED, AddressId(7), 0))
                case Requested():
                    session.reply(succeeded())
        sent += session.octets_to_send()
    return events, sent, session.rest()


def test_octets_one_by_one_and_all_at_once_lead_to_the_same() -> None:
    """SK-9."""
    octets = (
        Greeting((0, 2)).octets()
        + Credentials(b"alice", b"secret").octets()
        + Request(Command.ASSOCIATE, "example.org", 0).octets()
        + Request(Command.CONNECT, AddressId(7), 80).octets()
        + b"optimistic"
    )
    whole = conversation([octets])
    assert whole[2] == b"optimistic"
    assert len(whole[0]) == 3
    assert conversation([octets[i : i + 1] for i in range(len(octets))]) == whole
    dice = random.Random(9)
    for _ in range(50):
        cuts = sorted(dice.sample(range(len(octets)), 5))
        pieces = [octets[i:j] for i, j in zip([0, *cuts], [*cuts, len(octets)], strict=True)]
        assert conversation(pieces) == whole


def test_who_sends_ahead_is_not_read_on() -> None:
    session = asked(Command.CONNECT)
    assert session.room() == EARLY_OCTETS
    session.receive(b"x" * session.room())
    assert session.room() == 0
    session.reply(succeeded())
    assert session.rest() == b"x" * EARLY_OCTETS


@pytest.mark.parametrize("session", [Session(), greeted(), associated()])
def test_there_is_room_for_a_message_wherever_one_is_awaited(session: Session) -> None:
    assert session.room() >= MAX_MESSAGE_OCTETS


def throw(amount: int, seed: int) -> None:
    """Any octets in any pieces: no exception, one `Ended` at most and as the last, each reply well
    formed, and no more kept than there is room for."""
    dice = random.Random(seed)
    for _ in range(amount):
        session = Session(dice.choice(((Method.NONE,), PASSWORD)))
        replies = dice.choice((ReplyCode.SUCCEEDED, ReplyCode.SUCCEEDED, ReplyCode.FAILURE))
        events: list[object] = []
        for _ in range(dice.randint(1, 6)):
            session.receive(a_piece(dice)[: session.room()])
            if dice.random() < 0.1:
                session.end_of_input()
            while (event := session.next_event()) is not None:
                assert not any(isinstance(each, Ended) for each in events)
                events.append(event)
                match event:
                    case AuthenticationWanted():
                        session.authenticated(dice.random() < 0.8)
                    case Requested() | ControlRequested():
                        session.reply(Reply(replies, *BOUND))
        if any(isinstance(each, Ended) for each in events):
            assert session.state is State.ENDED
            assert session.room() == 0


def a_piece(dice: random.Random) -> bytes:
    whole = dice.choice(
        (
            GREETING,
            Greeting((0, 2)).octets(),
            Credentials(b"u", b"p").octets(),
            Request(
                dice.choice((1, 2, 3, 8, 9, 10, 11)), AddressId(dice.getrandbits(24)), 1
            ).octets(),
            ControlRequest(dice.choice((1, 2)), "a.example", 53).octets(),
            dice.randbytes(dice.randrange(30)),
        )
    )
    if dice.random() < 0.3 and whole:
        at = dice.randrange(len(whole))
        whole = whole[:at] + dice.randbytes(1) + whole[at + 1 :]
    return whole


def test_strangers_raise_nothing() -> None:
    throw(2000, seed=1928)


@pytest.mark.fuzz
def test_100_000_strangers_raise_nothing() -> None:
    throw(100_000, seed=1929)


# ---------------------------------------------------------------- our own mistakes


def test_answers_to_nothing_are_our_own_mistake_and_change_nothing() -> None:
    session = greeted()
    with pytest.raises(SessionMisused):
        session.reply(succeeded())
    with pytest.raises(SessionMisused):
        session.authenticated(True)
    with pytest.raises(SessionMisused):
        session.rest()
    assert session.state is State.REQUEST
    assert session.octets_to_send() == b""
    session = asked(Command.CONNECT)
    session.reply(succeeded())
    assert told(session) == ReplyCode.SUCCEEDED
    with pytest.raises(SessionMisused):
        session.reply(succeeded())
    assert session.state is State.RELAYED
    assert session.octets_to_send() == b""
