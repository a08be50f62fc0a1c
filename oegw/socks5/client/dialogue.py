"""One TCP connection to a SOCKS server, from the client's side: octets in, events out.  Without IO.

    METHOD        greeting ->, <- method                           RFC 1928 section 3
    CREDENTIALS   user, password ->, <- status                     RFC 1929
    READY         nothing is awaited
    REPLY         request ->, <- reply                             RFC 1928 sections 4, 6
    SECOND_REPLY  <- second reply, of a BIND
    OPEN          what comes is the destination's
    ASSOCIATED    the UDP association lives as long as the connection
    CONTROL       control request ->, <- reply                     draft-ietf-aft-socks-pro-v5
    OVER          an error, or the end

A dedicated ADDRESS ASSOCIATE leads from REPLY back to READY (SK-31).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum, auto

from oegw.socks5.client.errors import (
    AnswerUnusable,
    CredentialsRefused,
    MethodsRefused,
    OutOfTurn,
    ProxyError,
    ProxyUnreachable,
    refusal,
)
from oegw.socks5.codes import VERSION, AddressType, Command, Method
from oegw.socks5.wire import (
    AddressId,
    ControlRequest,
    Credentials,
    Greeting,
    MalformedMessage,
    Reply,
    Request,
    parse_credentials_answer,
    parse_method_choice,
    parse_reply,
)

_CLOSED = "the server closed the connection"


class State(Enum):
    METHOD = auto()
    CREDENTIALS = auto()
    READY = auto()
    REPLY = auto()
    SECOND_REPLY = auto()
    OPEN = auto()
    ASSOCIATED = auto()
    CONTROL = auto()
    OVER = auto()


_REPLIES = (State.REPLY, State.SECOND_REPLY, State.CONTROL)

_AFTER = {  # REPLY, by the base command of the request
    None: State.READY,
    Command.CONNECT: State.OPEN,
    Command.BIND: State.SECOND_REPLY,
    Command.UDP_ASSOCIATE: State.ASSOCIATED,
}

# Specification: RFC 1928 section 6; VER, REP, FLAG, ATYP and two octets of port around BND.ADDR.
_FIXED_OCTETS = 6
_LENGTHS = {AddressType.IPV4: 4, AddressType.IPV6: 16, AddressType.ID: 4}


@dataclass(frozen=True, slots=True)
class Replied:
    """Its code is 0, but on the control channel, which goes on whatever it is (SK-43)."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class Ended:
    """Nothing more comes; ``error`` says why."""

    error: ProxyError


Event = Replied | Ended


class Dialogue:
    """``credentials``: None: only the method without authentication is offered.  ``optimistic``: as
    `Proxy.optimistic`; then exactly one method is offered, for the choice must be known."""

    def __init__(self, credentials: Credentials | None = None, *, optimistic: bool = False) -> None:
        self.state = State.METHOD
        self._credentials = credentials
        self._optimistic = optimistic
        if credentials is None:
            self._offered: tuple[Method, ...] = (Method.NONE,)
        else:
            self._offered = (Method.PASSWORD,) if optimistic else (Method.NONE, Method.PASSWORD)
        self._events: deque[Event] = deque()
        self._received = b""
        self._to_send = bytearray(Greeting(self._offered).octets())
        if optimistic and credentials is not None:
            self._to_send += credentials.octets()
        self._request: Request | None = None
        self._early = b""
        self._held = False  # the request waits until the method is settled

    # --------------------------------------------------------------- what the shell says

    def ask(self, request: Request, early: bytes = b"") -> None:
        """``early``: octets for the destination, sent behind the request without a wait (SK-9).

        Raises OutOfTurn.
        """
        negotiating = self.state in (State.METHOD, State.CREDENTIALS)
        if self._request is not None or not (negotiating or self.state is State.READY):
            raise OutOfTurn(f"a request is of no use now ({self.state.name})")
        self._request, self._early = request, early
        if negotiating and not self._optimistic:
            self._held = True
            return
        self._send_request()

    def ask_control(self, request: ControlRequest) -> None:
        """Raises OutOfTurn."""
        if self.state is not State.ASSOCIATED:
            raise OutOfTurn(f"there is no control channel now ({self.state.name})")
        self._to_send += request.octets()
        self._move(State.CONTROL)

    def receive(self, octets: bytes) -> None:
        """What came on the connection, in whatever pieces."""
        self._received += octets
        while self._step():
            pass

    def end_of_input(self) -> None:
        """The server closed the connection."""
        if self.state is State.REPLY or self.state is State.SECOND_REPLY:
            self._fail(self._said_no() or ProxyUnreachable(_CLOSED + self._perhaps()))
        elif self.state is not State.OPEN and self.state is not State.OVER:
            self._fail(ProxyUnreachable(_CLOSED))

    # -------------------------------------------------------------- what the shell is told

    def next_event(self) -> Event | None:
        return self._events.popleft() if self._events else None

    def octets_to_send(self) -> bytes:
        octets = bytes(self._to_send)
        self._to_send.clear()
        return octets

    def wanted(self) -> int:
        """How many octets are missing at least: who reads no more never reads what is the
        destination's.  0 where none are awaited."""
        here = len(self._received)
        if self.state in (State.METHOD, State.CREDENTIALS):
            return 2 - here
        if self.state not in _REPLIES:
            return 0
        if here < 5:
            return 5 - here
        kind = self._received[3]
        length = 1 + self._received[4] if kind == AddressType.NAME else _LENGTHS[AddressType(kind)]
        return _FIXED_OCTETS + length - here

    def rest(self) -> bytes:
        """What came behind the reply, and is the destination's."""
        octets, self._received = (self._received, b"") if self.state is State.OPEN else (b"", b"")
        return octets

    # ------------------------------------------------------------------------- the steps

    def _step(self) -> bool:
        """Whether a message was taken, and there may be another."""
        try:
            match self.state:
                case State.METHOD:
                    return self._method()
                case State.CREDENTIALS:
                    return self._credentials_answer()
                case State.REPLY | State.SECOND_REPLY | State.CONTROL:
                    return self._reply()
                case State.READY | State.ASSOCIATED if self._received:
                    self._fail(AnswerUnusable("the server answers what was not asked"))
        except MalformedMessage as error:
            no_server = AnswerUnusable(f"what answers there is no SOCKS server: {error}")
            self._fail(self._said_no() or no_server)
        return False

    def _method(self) -> bool:
        found = parse_method_choice(self._received)
        if found is None:
            return False
        choice, taken = found
        self._received = self._received[taken:]
        if choice.method == Method.NO_ACCEPTABLE:
            why = "wants a user" if self._credentials is None else "wants another authentication"
            self._fail(MethodsRefused(f"the server {why}"))
        elif choice.method not in self._offered:
            self._fail(AnswerUnusable(f"the server chose method {choice.method}, not offered"))
        elif choice.method == Method.PASSWORD:
            assert self._credentials is not None
            if not self._optimistic:
                self._to_send += self._credentials.octets()
            self._move(State.CREDENTIALS)
        else:
            self._negotiated()
        return True

    def _credentials_answer(self) -> bool:
        found = parse_credentials_answer(self._received)
        if found is None:
            return False
        answer, taken = found
        self._received = self._received[taken:]
        if answer.status != 0:
            self._fail(CredentialsRefused("the server does not accept user and password"))
        else:
            self._negotiated()
        return True

    def _negotiated(self) -> None:
        if self._held:
            self._send_request()
        self._move(State.READY if self._request is None else State.REPLY)

    def _send_request(self) -> None:
        assert self._request is not None
        self._to_send += self._request.octets() + self._early
        self._held, self._early = False, b""
        if self.state is State.READY:
            self._move(State.REPLY)

    def _reply(self) -> bool:
        found = parse_reply(self._received)
        if found is None:
            return False
        reply, taken = found
        self._received = self._received[taken:]
        if self.state is State.CONTROL:
            self._move(State.ASSOCIATED)
        elif reply.code != 0:
            self._fail(refusal(reply.code))
            return False
        elif self.state is State.SECOND_REPLY:
            self._move(State.OPEN)
        else:
            assert self._request is not None
            self._move(_AFTER[Command(self._request.command).base])
            self._request = None
        self._events.append(Replied(reply))
        return True

    def _said_no(self) -> ProxyError | None:
        """Servers are known that end behind the code of a refusal, or have no address in it."""
        received = self._received
        if self.state in _REPLIES and len(received) >= 2 and received[0] == VERSION and received[1]:
            return refusal(received[1])
        return None

    def _perhaps(self) -> str:
        """Servers without the extensions are known that say nothing to them (dante, ssh)."""
        request = self._request
        extended = request is not None and (
            request.command & Command.ASSOCIATE or isinstance(request.address, AddressId)
        )
        return "; perhaps it does not know ADDRESS IDs" if extended else ""

    def _fail(self, error: ProxyError) -> None:
        self._received = b""
        self._to_send.clear()
        self._move(State.OVER)
        self._events.append(Ended(error))

    def _move(self, state: State) -> None:
        self.state = state
