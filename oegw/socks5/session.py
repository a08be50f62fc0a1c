"""One client's connection, from its first octet to the relay: octets in, events out.  Without IO.

The states are named for what the server waits for (RFC 1928 sections 3, 4 and 6).  Who runs a
session reads no more than `Session.room` from the socket, hands it to `receive`, answers what
`next_event` returns, and sends what `octets_to_send` returns; after `Ended` it sends that still and
closes.  A stranger's octets never raise here; a misuse by us raises SessionMisused.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address
from typing import TypeVar

from oegw.socks5.codes import Command, Flag, Method, ReplyCode, Subcommand
from oegw.socks5.wire import (
    MAX_MESSAGE_OCTETS,
    Address,
    AddressId,
    ControlRequest,
    Credentials,
    CredentialsAnswer,
    Greeting,
    IPAddress,
    MalformedMessage,
    MethodChoice,
    Reply,
    Request,
    SocksError,
    WrongVersion,
    parse_control_request,
    parse_credentials,
    parse_greeting,
    parse_request,
)

# Our choice: what a client may send ahead of an answer.  The rest waits in the kernel, where it is
# the client's window that is full, not our memory.
EARLY_OCTETS = 16 * 1024

ACCEPTED, REJECTED = 0, 1  # status of CredentialsAnswer; RFC 1929 section 2
_KNOWN_FLAGS = int(Flag.INTERFACE_REQUEST | Flag.USE_CLIENT_PORT | Flag.DESTINATION_FAMILY)


class SessionMisused(SocksError):  # noqa: N818  (it names the fact)
    """An answer to what was not asked.  Our own fault."""


class State(Enum):
    """What is awaited; of the client, or of us where it says so."""

    METHODS = "methods"
    CREDENTIALS = "credentials"
    VERIFICATION = "verification"  # of the credentials; ours
    REQUEST = "request"
    ANSWER = "answer"  # to the request; ours
    PEER = "peer"  # of a BIND; the second answer, ours
    CONTROL = "control"  # a request of the UDP control channel, or the association's end
    CONTROL_ANSWER = "control answer"  # ours
    RELAYED = "relayed"  # nothing: the octets are the destination's
    ENDED = "ended"


# From each state the others that it may lead to.  Above each line, what the wire shows.
_TRANSITIONS = {
    # C: 05 NMETHODS METHODS; S: 05 METHOD
    State.METHODS: {State.CREDENTIALS, State.REQUEST, State.ENDED},
    # C: 01 ULEN UNAME PLEN PASSWD
    State.CREDENTIALS: {State.VERIFICATION, State.ENDED},
    # S: 01 STATUS
    State.VERIFICATION: {State.REQUEST, State.ENDED},
    # C: 05 CMD FLAG ATYP DST.ADDR DST.PORT
    State.REQUEST: {State.ANSWER, State.ENDED},
    # S: 05 REP 00 ATYP BND.ADDR BND.PORT; after a dedicated ADDRESS ASSOCIATE the next request may
    # come (SK-31)
    State.ANSWER: {State.REQUEST, State.PEER, State.CONTROL, State.RELAYED, State.ENDED},
    # S: the second reply to a BIND (SK-5)
    State.PEER: {State.RELAYED, State.ENDED},
    # C: 00 SUB FLAG ATYP ADDR PORT (SK-43)
    State.CONTROL: {State.CONTROL_ANSWER, State.ENDED},
    # S: a reply, of whatever code
    State.CONTROL_ANSWER: {State.CONTROL, State.ENDED},
    State.RELAYED: {State.ENDED},
    State.ENDED: set[State](),
}


@dataclass(frozen=True, slots=True)
class AuthenticationWanted:
    """Answered by `Session.authenticated`."""

    credentials: Credentials


@dataclass(frozen=True, slots=True)
class Requested:
    """Answered by `Session.reply` or `refuse`; a BIND that succeeds by two replies.

    ``port``: ADR.PREF, where ``command`` is ASSOCIATE.
    """

    command: Command
    address: Address
    port: int
    flag: int

    @property
    def unknown_flags(self) -> int:
        """Bits that nobody defined: ignored, to be counted (SK-40)."""
        return self.flag & ~_KNOWN_FLAGS & 0xFF


@dataclass(frozen=True, slots=True)
class ControlRequested:
    """INTERFACE DATA for a destination (SK-43).  Answered by one reply, of whatever code."""

    address: Address
    port: int
    flag: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The session is over: what is left in `octets_to_send` is sent, then the connection closed.

    ``reason``: a word for trace and counters: ``closed`` (between messages), ``truncated`` (within
    one), ``version``, ``malformed``, ``no_method``, ``credentials`` (rejected), ``command``,
    ``address_type``, ``address_class``, or what `refuse` was told (``refused``).
    """

    reason: str


Event = AuthenticationWanted | Requested | ControlRequested | Ended

_Message = TypeVar("_Message", Greeting, Credentials, Request, ControlRequest)


class Session:
    """``methods``: what is accepted, best first.  ``nowhere``: the unspecified address of the
    family by which the client came, in replies that name no address (SK-10)."""

    def __init__(
        self,
        methods: Sequence[Method] = (Method.NONE,),
        nowhere: IPAddress = IPv4Address(0),  # noqa: B008  (immutable)
    ) -> None:
        self._methods = tuple(methods)
        self._nowhere = nowhere
        self._state = State.METHODS
        self._command: Command | None = None
        self._received = bytearray()
        self._input_ended = False
        self._to_send = bytearray()
        self._events: deque[Event] = deque()

    @property
    def state(self) -> State:
        return self._state

    def room(self) -> int:
        """How many octets may be received now; 0: none until an event is answered."""
        if self._input_ended or self._state in (State.RELAYED, State.ENDED):
            return 0
        if self._state in (State.ANSWER, State.PEER):
            return max(0, EARLY_OCTETS - len(self._received))
        return max(0, EARLY_OCTETS + MAX_MESSAGE_OCTETS - len(self._received))

    def receive(self, octets: bytes) -> None:
        if self._state is not State.ENDED:
            self._received += octets
            self._parse()

    def end_of_input(self) -> None:
        """The client sends no more.  A CONNECT or BIND goes on: it may be half-closed."""
        self._input_ended = True
        self._parse()

    def next_event(self) -> Event | None:
        return self._events.popleft() if self._events else None

    def octets_to_send(self) -> bytes:
        """What is to be sent now; each octet is returned once."""
        octets = bytes(self._to_send)
        self._to_send.clear()
        return octets

    def rest(self) -> bytes:
        """What came behind the request, for the destination (SK-9); once, when it is relayed."""
        if self._state is not State.RELAYED:
            raise SessionMisused(f"no octets for the destination: {self._state.value} is awaited")
        octets = bytes(self._received)
        self._received.clear()
        return octets

    # ------------------------------------------------------------ our answers

    def authenticated(self, accepted: bool) -> None:
        """The answer to `AuthenticationWanted`."""
        self._demand(State.VERIFICATION)
        self._to_send += CredentialsAnswer(ACCEPTED if accepted else REJECTED).octets()
        if accepted:
            self._become(State.REQUEST)
            self._parse()
        else:
            self._end("credentials")

    def reply(self, reply: Reply, reason: str = "refused") -> None:
        """The answer to `Requested` or `ControlRequested`; ``reason`` is for a failure."""
        self._demand(State.ANSWER, State.PEER, State.CONTROL_ANSWER)
        self._answer(reply, reason)
        self._parse()

    def refuse(self, code: ReplyCode, reason: str = "refused") -> None:
        """A reply that names no address."""
        self.reply(self._nothing(code), reason)

    def _nothing(self, code: ReplyCode) -> Reply:
        return Reply(code, self._nowhere, 0)

    def _answer(self, reply: Reply, reason: str) -> None:
        self._to_send += reply.octets()
        if self._state is State.CONTROL_ANSWER:
            self._become(State.CONTROL)
        elif reply.code != ReplyCode.SUCCEEDED:
            self._end(reason)
        elif self._state is State.PEER:
            self._become(State.RELAYED)
        else:
            self._become(_AFTER_SUCCESS[self._command.base if self._command else None])

    def _demand(self, *states: State) -> None:
        if self._state not in states:
            raise SessionMisused(f"an answer, while {self._state.value} is awaited")

    # ------------------------------------------------------------ the client's messages

    def _parse(self) -> None:
        """All messages that can be read now: up to the first that another must answer."""
        taken = True
        while taken:
            match self._state:
                case State.METHODS:
                    taken = self._take(parse_greeting, self._greeted)
                case State.CREDENTIALS:
                    taken = self._take(parse_credentials, self._named)
                case State.REQUEST:
                    taken = self._take(parse_request, self._requested)
                case State.CONTROL:
                    taken = self._take(parse_control_request, self._control_requested)
                case _:
                    taken = False

    def _take(
        self,
        parse: Callable[[bytes], tuple[_Message, int] | None],
        take: Callable[[_Message], None],
    ) -> bool:
        try:
            found = parse(bytes(self._received[:MAX_MESSAGE_OCTETS]))
        except MalformedMessage as error:
            self._malformed(error)
            return False
        if found is not None:
            message, octets = found
            del self._received[:octets]
            take(message)
            return True
        if self._input_ended:
            self._end("truncated" if self._received else "closed")
        return False

    def _malformed(self, error: MalformedMessage) -> None:
        reason = "version" if isinstance(error, WrongVersion) else "malformed"
        if error.code == ReplyCode.ADDRESS_TYPE_NOT_SUPPORTED:
            reason = "address_type"
        match self._state:
            case State.METHODS:
                self._to_send += MethodChoice(Method.NO_ACCEPTABLE).octets()
            case State.CREDENTIALS:
                self._to_send += CredentialsAnswer(REJECTED).octets()
            case _:
                self._to_send += Reply(error.code, self._nowhere, 0).octets()
        self._end(reason)

    def _greeted(self, greeting: Greeting) -> None:
        """SK-1."""
        for method in self._methods:
            if method in greeting.methods:
                self._to_send += MethodChoice(method).octets()
                named = method == Method.PASSWORD
                self._become(State.CREDENTIALS if named else State.REQUEST)
                return
        self._to_send += MethodChoice(Method.NO_ACCEPTABLE).octets()
        self._end("no_method")

    def _named(self, credentials: Credentials) -> None:
        self._become(State.VERIFICATION)
        self._events.append(AuthenticationWanted(credentials))

    def _requested(self, request: Request) -> None:
        self._become(State.ANSWER)
        try:
            self._command = Command(request.command)
        except ValueError:  # SK-27
            self._answer(self._nothing(ReplyCode.COMMAND_NOT_SUPPORTED), "command")
            return
        if _of_unknown_class(request.address):
            self._answer(self._nothing(ReplyCode.INVALID_ADDRESS), "address_class")
            return
        self._events.append(Requested(self._command, request.address, request.port, request.flag))

    def _control_requested(self, request: ControlRequest) -> None:
        self._become(State.CONTROL_ANSWER)
        if request.subcommand != Subcommand.INTERFACE_DATA:  # SK-43: the connection is kept
            self._answer(self._nothing(ReplyCode.COMMAND_NOT_SUPPORTED), "subcommand")
        elif _of_unknown_class(request.address):
            self._answer(self._nothing(ReplyCode.INVALID_ADDRESS), "address_class")
        else:
            self._events.append(ControlRequested(request.address, request.port, request.flag))

    # ------------------------------------------------------------ the door of states

    def _become(self, state: State) -> None:
        if state not in _TRANSITIONS[self._state]:
            raise SessionMisused(f"{self._state.value} is not followed by {state.value}")
        self._state = state

    def _end(self, reason: str) -> None:
        self._become(State.ENDED)
        self._received.clear()
        self._events.append(Ended(reason))


_AFTER_SUCCESS = {
    None: State.REQUEST,  # a dedicated ADDRESS ASSOCIATE
    Command.CONNECT: State.RELAYED,
    Command.BIND: State.PEER,
    Command.UDP_ASSOCIATE: State.CONTROL,
}


def _of_unknown_class(address: Address) -> bool:
    """SK-12."""
    return isinstance(address, AddressId) and address.category != 0
