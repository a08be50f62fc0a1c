"""Which address of a destination is tried when: Happy Eyeballs (RFC 8305).  Without IO.

Names are resolved before a race begins, hence sections 3 and 4 are only an order here; section 5 is
`Race`.
"""

from __future__ import annotations

from collections.abc import Iterable

from oegw.socks5.codes import ReplyCode
from oegw.socks5.wire import IPAddress

# Specification: RFC 8305 section 8, Connection Attempt Delay.
ATTEMPT_DELAY = 0.25

# Our choice: no name has more addresses that are worth a try; who makes one with hundreds has
# us knock at hundreds of doors.
MAX_ADDRESSES = 16


def ordered(addresses: Iterable[IPAddress], prefer: str = "6") -> tuple[IPAddress, ...]:
    """RFC 8305 section 4: the families in turn, beginning with ``prefer`` ("4" or "6"), each in the
    order in which it came; no address twice; MAX_ADDRESSES at most."""
    raise NotImplementedError


class Race:
    """The attempts of one connection.

    The shell begins an attempt at each address that `begin` returns, tells of failures by `failed`,
    and waits until an attempt ends or it is `wake_at`.  The first that succeeds has won; the shell
    ends the others.  If `lost`, the client is told `code`.
    """

    def __init__(self, addresses: Iterable[IPAddress], delay: float = ATTEMPT_DELAY) -> None:
        """``addresses``: as `ordered` returns them."""
        raise NotImplementedError

    def begin(self, now: float) -> IPAddress | None:
        """Where an attempt begins now; None: nowhere yet.  To be asked until it is None."""
        raise NotImplementedError

    def failed(self, address: IPAddress, code: ReplyCode) -> None:
        """The attempt at ``address`` is over; the next may begin at once."""
        raise NotImplementedError

    def wake_at(self) -> float | None:
        """When the next attempt is due; None: there is none left."""
        raise NotImplementedError

    def lost(self) -> bool:
        """All have failed, or there was none."""
        raise NotImplementedError

    def code(self) -> ReplyCode:
        """What says most of why all failed."""
        raise NotImplementedError
