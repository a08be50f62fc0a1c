"""Which address of a destination is tried when: Happy Eyeballs (RFC 8305).  Without IO.

Names are resolved before a race begins, hence sections 3 and 4 are only an order here; section 5 is
`Race`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import chain, zip_longest

from oegw.socks5.codes import ReplyCode
from oegw.socks5.wire import IPAddress, plain

# Specification: RFC 8305 section 8, Connection Attempt Delay.
ATTEMPT_DELAY = 0.25

# Our choice: no name has more addresses that are worth a try; who makes one with hundreds has
# us knock at hundreds of doors.
MAX_ADDRESSES = 16

# What says most of a destination comes first: that it is there and does not listen; that we must
# not; then how near the attempt came.
_TELLING = (
    ReplyCode.CONNECTION_REFUSED,
    ReplyCode.NOT_ALLOWED,
    ReplyCode.TTL_EXPIRED,
    ReplyCode.HOST_UNREACHABLE,
    ReplyCode.NETWORK_UNREACHABLE,
)


def ordered(addresses: Iterable[IPAddress], prefer: str = "6") -> tuple[IPAddress, ...]:
    """RFC 8305 section 4: the families in turn, beginning with ``prefer`` ("4" or "6"), each in the
    order in which it came; no address twice; MAX_ADDRESSES at most."""
    unique = dict.fromkeys(map(plain, addresses))
    first = [address for address in unique if str(address.version) == prefer]
    second = [address for address in unique if str(address.version) != prefer]
    in_turn = chain.from_iterable(zip_longest(first, second))
    return tuple(address for address in in_turn if address is not None)[:MAX_ADDRESSES]


class Race:
    """The attempts of one connection.

    The shell begins an attempt at each address that `begin` returns, tells of failures by `failed`,
    and waits until an attempt ends or it is `wake_at`.  The first that succeeds has won; the shell
    ends the others.  If `lost`, the client is told `code`.
    """

    def __init__(self, addresses: Iterable[IPAddress], delay: float = ATTEMPT_DELAY) -> None:
        """``addresses``: as `ordered` returns them."""
        self._waiting = deque(addresses)
        self._delay = delay
        self._running: list[IPAddress] = []  # the latest last
        self._due: float | None = None  # None: at once
        self._codes: set[ReplyCode] = set()

    def begin(self, now: float) -> IPAddress | None:
        """Where an attempt begins now; None: nowhere yet.  To be asked until it is None."""
        if not self._waiting or (self._due is not None and now < self._due):
            return None
        address = self._waiting.popleft()
        self._running.append(address)
        self._due = now + self._delay
        return address

    def failed(self, address: IPAddress, code: ReplyCode) -> None:
        """The attempt at ``address`` is over.  The next begins at once if this was the latest."""
        if address == self._running[-1]:
            self._due = None
        self._running.remove(address)
        self._codes.add(code)

    def wake_at(self) -> float | None:
        """When the next attempt is due, if it is not already; None: there is none left."""
        return self._due if self._waiting else None

    def lost(self) -> bool:
        """All have failed, or there was none."""
        return not self._waiting and not self._running

    def code(self) -> ReplyCode:
        """What says most of why all failed."""
        return next((code for code in _TELLING if code in self._codes), ReplyCode.FAILURE)
