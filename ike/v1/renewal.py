"""The later life of a channel: its successor is made before it ends, then it retires.

When the margin before its end begins, or its octets run out, the side that asks first
begins a new main mode with the same peer.  When that is up, tunnels and unanswered Deletes
move there; quick modes under way finish where they began; after a grace the side that began
the new one deletes the old one.  A channel that nothing has used for long is not renewed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ike.alarms import Alarm
from ike.constants import AT_ONCE
from ike.station import Station
from ike.v1.rekey import Margin
from ike.v1.transitions import LIFE, LifeState, LifeStep, Progress

if TYPE_CHECKING:
    from ike.v1.directory import Directory
    from ike.v1.session import Session


class Owner(Protocol):
    """The session, as its renewal sees it."""

    initiator: bool

    @property
    def busy(self) -> bool: ...
    def in_use(self, now: float) -> bool: ...
    def begin_successor(self, now: float) -> None: ...
    def close(self, now: float, reason: str, tell: bool = True) -> None: ...


class Renewal:
    """The life of one channel, with its alarms."""

    def __init__(self, station: Station, owner: Owner) -> None:
        self._station = station
        self._owner = owner
        self._progress = Progress(LIFE, LifeState.NEGOTIATED)
        self._margin: Margin | None = None
        self._ask: Alarm | None = None
        self._end: Alarm | None = None

    @property
    def state(self) -> LifeState:
        return self._progress.state

    @property
    def usable(self) -> bool:
        """Whether new tunnels may be negotiated on the channel."""
        return self.state in (LifeState.KEYED, LifeState.EXPIRING)

    def established(self, now: float, lifetime: float) -> None:
        self._progress.advance(LifeStep.ESTABLISHED)
        random_octets = self._station.random_octets
        self._margin = Margin(now, lifetime, self._owner.initiator, random_octets)
        self._ask = self._station.alarms.set(self._margin.first, self.successor_wanted)
        self._end = self._station.alarms.set(now + lifetime, self._lifetime_over)

    def _lifetime_over(self, now: float) -> None:
        self._owner.close(now, "lifetime over")

    def successor_wanted(self, now: float) -> None:
        """The margin has begun, or the octets run out."""
        if not self.usable or self._margin is None:
            return
        if self._owner.in_use(now):
            if self.state is LifeState.KEYED:
                self._progress.advance(LifeStep.SUCCESSOR_WANTED)
            self._owner.begin_successor(now)
        self._silence(self._ask)
        self._ask = self._station.alarms.set(self._margin.asked(now), self.successor_wanted)

    def succeeded(self, now: float, wait: float | None) -> None:
        """Another channel is up in this one's place; close it after ``wait``, None: never."""
        if self.usable:
            self._progress.advance(LifeStep.SUCCEEDED)
            self._silence(self._ask)
            self._ask = None
        if wait is not None and self.state is LifeState.RETIRING and self._ask is None:
            self._retire_in(now, wait)

    def _retire_in(self, now: float, wait: float) -> None:
        def retire(now: float) -> None:
            if self._owner.busy:
                self._retire_in(now, max(wait, 1.0))
            else:
                self._owner.close(now, "replaced")

        self._ask = self._station.alarms.set(now + wait, retire)

    def close(self) -> None:
        self._progress.advance(LifeStep.CLOSE)
        self._silence(self._ask)
        self._silence(self._end)

    @staticmethod
    def _silence(alarm: Alarm | None) -> None:
        if alarm is not None:
            alarm.cancel()


def take_over(now: float, directory: Directory, session: Session) -> None:
    """``session`` is up: the channels that it replaces hand over what they carry.

    As responder we do not know what the peer meant: each older channel with it hands over,
    but only the peer closes it.  One that came up just now does not: both sides began one
    at once, and each is as good as the other.
    """
    assert session.peer is not None
    ends = (session.local.address, session.remote.address)
    for tunnel in directory.leading_to(session.peer):
        former = tunnel.keyed_on
        if tunnel.session is None and ends == (former.local.address, former.remote.address):
            tunnel.move_to(session)
    if session.initiator:
        for older in session.replaces:
            older.succeeded_by(now, session, closes=True)
        session.replaces.clear()
        return
    for older in directory.between(*ends):
        if older is session or older.peer != session.peer or older.established_at is None:
            continue
        if older.silent or older.expiring or now - older.established_at > AT_ONCE:
            older.succeeded_by(now, session, closes=False)
