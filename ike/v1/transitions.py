"""The state machines, as tables, and the one door through which states change.

The exchanges come first, then the lives of what they have made.
All that decides what may come next lives here.  A pair of state and step that is
not in a table raises ``IllegalTransition`` and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Generic, TypeVar

from ike.errors import IllegalTransition, UnexpectedMessage


class MainModeState(Enum):
    """What a main mode waits for."""

    IDLE = "idle"
    AWAIT_MM2 = "await message 2"
    AWAIT_MM3 = "await message 3"
    AWAIT_MM4 = "await message 4"
    AWAIT_MM5 = "await message 5"
    AWAIT_MM6 = "await message 6"
    AWAIT_PEER_KEYS = "await the peer's keys"
    AWAIT_KEYS_FOR_6 = "await the keys for message 6"
    ESTABLISHED = "established"
    CLOSED = "closed"


class MainModeStep(Enum):
    INITIATE = "initiate"
    MM1_TAKEN = "message 1 taken"
    MM2_TAKEN = "message 2 taken"
    MM3_TAKEN = "message 3 taken"
    MM4_TAKEN = "message 4 taken"
    MM5_TAKEN = "message 5 taken"
    MM6_CLAIMED = "message 6 read, keys wanted"
    MM6_TAKEN = "message 6 taken"
    KEY_VERIFIED = "signature of message 5 verified"
    CANDIDATE_REJECTED = "signature wrong, but another candidate is left"
    CLOSE = "close"


_M, _S = MainModeState, MainModeStep

MAIN_MODE: Mapping[tuple[MainModeState, MainModeStep], MainModeState] = {
    # initiator:  HDR, SA -->
    (_M.IDLE, _S.INITIATE): _M.AWAIT_MM2,
    # responder:  --> HDR, SA   answered by   HDR, SA -->
    (_M.IDLE, _S.MM1_TAKEN): _M.AWAIT_MM3,
    # initiator:  <-- HDR, SA   answered by   HDR, KE, Ni -->
    (_M.AWAIT_MM2, _S.MM2_TAKEN): _M.AWAIT_MM4,
    # a rival message 2 with another cookie: both are followed
    (_M.AWAIT_MM4, _S.MM2_TAKEN): _M.AWAIT_MM4,
    # responder:  --> HDR, KE, Ni   answered by   HDR, KE, Nr -->
    (_M.AWAIT_MM3, _S.MM3_TAKEN): _M.AWAIT_MM5,
    # a rival message 3: both are followed
    (_M.AWAIT_MM5, _S.MM3_TAKEN): _M.AWAIT_MM5,
    # initiator:  <-- HDR, KE, Nr   answered by   HDR*, IDii, SIG_I -->
    (_M.AWAIT_MM4, _S.MM4_TAKEN): _M.AWAIT_MM6,
    # rival messages 2 and 4: all are followed
    (_M.AWAIT_MM6, _S.MM2_TAKEN): _M.AWAIT_MM6,
    (_M.AWAIT_MM6, _S.MM4_TAKEN): _M.AWAIT_MM6,
    # responder:  --> HDR*, IDii, SIG_I   whose keys are looked up
    (_M.AWAIT_MM5, _S.MM5_TAKEN): _M.AWAIT_PEER_KEYS,
    # responder:  the signature is right:   HDR*, IDir, SIG_R -->
    (_M.AWAIT_PEER_KEYS, _S.KEY_VERIFIED): _M.ESTABLISHED,
    # responder:  the signature is wrong, and a rival message 3 was taken
    (_M.AWAIT_PEER_KEYS, _S.CANDIDATE_REJECTED): _M.AWAIT_MM5,
    # initiator:  <-- HDR*, IDir, SIG_R
    (_M.AWAIT_MM6, _S.MM6_TAKEN): _M.ESTABLISHED,
    # initiator:  message 6 was signed wrongly, and a rival message 4 was taken
    (_M.AWAIT_MM6, _S.CANDIDATE_REJECTED): _M.AWAIT_MM6,
    # initiator:  <-- HDR*, IDir, SIG_R   whose keys are still being looked up; rivals are followed
    (_M.AWAIT_MM6, _S.MM6_CLAIMED): _M.AWAIT_KEYS_FOR_6,
    (_M.AWAIT_KEYS_FOR_6, _S.MM6_CLAIMED): _M.AWAIT_KEYS_FOR_6,
    (_M.AWAIT_KEYS_FOR_6, _S.MM2_TAKEN): _M.AWAIT_KEYS_FOR_6,
    (_M.AWAIT_KEYS_FOR_6, _S.MM4_TAKEN): _M.AWAIT_KEYS_FOR_6,
    # initiator:  the keys are known, and the signature is right, or none of those claimed was
    (_M.AWAIT_KEYS_FOR_6, _S.MM6_TAKEN): _M.ESTABLISHED,
    (_M.AWAIT_KEYS_FOR_6, _S.CANDIDATE_REJECTED): _M.AWAIT_MM6,
    # time is over, the peer deleted it, we closed it
    **{(state, _S.CLOSE): _M.CLOSED for state in _M if state is not _M.CLOSED},
}


class QuickModeState(Enum):
    """What a quick mode waits for."""

    IDLE = "idle"
    AWAIT_QM2 = "await message 2"
    AWAIT_DECISION = "await accept_tunnel or refuse_tunnel"
    AWAIT_INBOUND = "await confirm_inbound"
    AWAIT_QM3 = "await message 3"
    ESTABLISHED = "established"
    CLOSED = "closed"


class QuickModeStep(Enum):
    INITIATE = "initiate"
    QM1_TAKEN = "message 1 taken"
    QM2_TAKEN = "message 2 taken"
    QM3_TAKEN = "message 3 taken"
    ACCEPTED = "tunnel accepted"
    REPLY_SENT = "inbound confirmed, message 2 sent"
    CLOSING_SENT = "inbound confirmed, message 3 sent"
    CLOSE = "close"


_Q, _T = QuickModeState, QuickModeStep

QUICK_MODE: Mapping[tuple[QuickModeState, QuickModeStep], QuickModeState] = {
    # initiator:  HDR*, HASH(1), SA, Ni, KE, IDci, IDcr -->
    (_Q.IDLE, _T.INITIATE): _Q.AWAIT_QM2,
    # responder:  --> HDR*, HASH(1), SA, Ni, KE, IDci, IDcr
    (_Q.IDLE, _T.QM1_TAKEN): _Q.AWAIT_DECISION,
    # responder:  the inbound SA is being installed
    (_Q.AWAIT_DECISION, _T.ACCEPTED): _Q.AWAIT_INBOUND,
    # responder:  HDR*, HASH(2), SA, Nr, KE, IDci, IDcr -->
    (_Q.AWAIT_INBOUND, _T.REPLY_SENT): _Q.AWAIT_QM3,
    # initiator:  <-- HDR*, HASH(2), SA, Nr, KE, IDci, IDcr   and the inbound SA is being installed
    (_Q.AWAIT_QM2, _T.QM2_TAKEN): _Q.AWAIT_INBOUND,
    # initiator:  HDR*, HASH(3) -->
    (_Q.AWAIT_INBOUND, _T.CLOSING_SENT): _Q.ESTABLISHED,
    # responder:  --> HDR*, HASH(3)
    (_Q.AWAIT_QM3, _T.QM3_TAKEN): _Q.ESTABLISHED,
    **{(state, _T.CLOSE): _Q.CLOSED for state in _Q if state is not _Q.CLOSED},
}


class LifeState(Enum):
    """How far a channel or a tunnel has come in its life."""

    NEGOTIATED = "being negotiated"
    KEYED = "keyed"
    EXPIRING = "expiring: a successor is wanted"
    RETIRING = "retiring: a successor is up"
    CLOSED = "closed"


class LifeStep(Enum):
    ESTABLISHED = "established"
    SUCCESSOR_WANTED = "margin begun, or soft limit reached"
    SUCCEEDED = "a successor is up"
    SUCCESSOR_LOST = "the successor has ended first"
    CLOSE = "close"


_L, _P = LifeState, LifeStep

LIFE: Mapping[tuple[LifeState, LifeStep], LifeState] = {
    # message 6 of main mode, message 3 of quick mode
    (_L.NEGOTIATED, _P.ESTABLISHED): _L.KEYED,
    # the margin before the end has begun: both sides make a successor before they break
    (_L.KEYED, _P.SUCCESSOR_WANTED): _L.EXPIRING,
    # it carries what is under way, for a grace, and is not used for anything new
    (_L.KEYED, _P.SUCCEEDED): _L.RETIRING,
    (_L.EXPIRING, _P.SUCCEEDED): _L.RETIRING,
    # the peer gave up the successor, say because message 3 never reached it
    (_L.RETIRING, _P.SUCCESSOR_LOST): _L.KEYED,
    **{(state, _P.CLOSE): _L.CLOSED for state in _L if state is not _L.CLOSED},
}


class LivenessState(Enum):
    """What we think of a peer (RFC 3706)."""

    ALIVE = "alive"
    DOUBTED = "asked whether it is there"
    DEAD = "dead"


class LivenessStep(Enum):
    HEARD = "something authenticated came"
    ASKED = "R-U-THERE sent"
    GAVE_UP = "no answer to the last one"


_V, _W = LivenessState, LivenessStep

LIVENESS: Mapping[tuple[LivenessState, LivenessStep], LivenessState] = {
    (_V.ALIVE, _W.HEARD): _V.ALIVE,
    # HDR*, HASH, N(R-U-THERE) -->
    (_V.ALIVE, _W.ASKED): _V.DOUBTED,
    (_V.DOUBTED, _W.ASKED): _V.DOUBTED,
    # <-- HDR*, HASH, N(R-U-THERE-ACK), or anything else that only the peer can have sent
    (_V.DOUBTED, _W.HEARD): _V.ALIVE,
    (_V.DOUBTED, _W.GAVE_UP): _V.DEAD,
}

State = TypeVar("State", bound=Enum)
Step = TypeVar("Step", bound=Enum)


class Progress(Generic[State, Step]):
    """The state of one exchange."""

    __slots__ = ("_state", "_table")

    def __init__(self, table: Mapping[tuple[State, Step], State], start: State) -> None:
        self._table = table
        self._state = start

    @property
    def state(self) -> State:
        return self._state

    def expect(self, step: Step) -> None:
        """Raise ``UnexpectedMessage`` if this step may not be taken now."""
        if (self._state, step) not in self._table:
            raise UnexpectedMessage(f"{step.value}: not while {self._state.value}")

    def advance(self, step: Step) -> None:
        """Take the step, or raise ``IllegalTransition`` and stay."""
        following = self._table.get((self._state, step))
        if following is None:
            raise IllegalTransition(f"{step.name} in state {self._state.name}")
        self._state = following
