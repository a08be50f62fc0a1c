"""When to send again: exponential back-off with jitter."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from ike.configuration import Configuration
from ike.constants import DUPLICATES_ANSWERED, REPLIES_KEPT

_JITTER_OCTETS = 4


class Retransmission:
    """The schedule of one message that expects an answer."""

    __slots__ = ("_configuration", "_interval", "_left", "_random_octets")

    def __init__(self, configuration: Configuration, random_octets: Callable[[int], bytes]) -> None:
        self._configuration = configuration
        self._random_octets = random_octets
        self._interval = configuration.retransmit_first
        self._left = configuration.retransmit_tries

    @property
    def exhausted(self) -> bool:
        """Whether all datagrams were sent; the interval after the last one still counts."""
        return self._left <= 0

    def sent(self, now: float) -> float:
        """Note one datagram as sent; says when to look again."""
        self._left -= 1
        octets = self._random_octets(_JITTER_OCTETS)
        fraction = int.from_bytes(octets, "big") / (1 << 8 * _JITTER_OCTETS)  # 0 .. 1
        spread = self._configuration.retransmit_jitter * (2 * fraction - 1)
        wait = self._interval * (1 + spread)
        self._interval *= self._configuration.retransmit_factor
        return now + wait

    def give_up_soon(self) -> None:
        """Send no more; the interval that runs is the last."""
        self._left = 0


class AnsweredMessages:
    """The requests of one exchange that were answered, so that a duplicate gets the same octets.

    Each request is answered again ``DUPLICATES_ANSWERED`` times at most, and the oldest
    are forgotten beyond ``REPLIES_KEPT``.
    """

    __slots__ = ("_replies",)

    def __init__(self) -> None:
        self._replies: dict[bytes, tuple[str, bytes, int]] = {}

    def remember(self, request: bytes, name: str, reply: bytes) -> None:
        """``name`` is the reply's, for the trace."""
        if len(self._replies) == REPLIES_KEPT:
            del self._replies[next(iter(self._replies))]
        self._replies[_digest(request)] = (name, reply, DUPLICATES_ANSWERED)

    def forget(self) -> None:
        """Answer none of them again."""
        self._replies.clear()

    def knows(self, request: bytes) -> bool:
        return _digest(request) in self._replies

    def again(self, request: bytes) -> tuple[str, bytes] | None:
        """Name and octets to send, or None if this was asked too often."""
        key = _digest(request)
        name, reply, left = self._replies[key]
        if left == 0:
            return None
        self._replies[key] = (name, reply, left - 1)
        return name, reply


def _digest(message: bytes) -> bytes:
    return hashlib.sha256(message).digest()
