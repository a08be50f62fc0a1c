"""How many connections at a time, of whom (`settings.Limits`).  Without IO.

A connection costs nothing to open and, while its client says nothing, a descriptor and some memory
of ours.  So who negotiates is counted by itself: of one client only a share is let in, and where
all places are taken the oldest that has not said yet what it wants is closed for the next one.
Honest clients say it within milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Generic, TypeVar

from oegw.socks5.codes import ReplyCode
from oegw.socks5.settings import Limits, User
from oegw.socks5.terms import Refused
from oegw.socks5.wire import IPAddress, plain

# Our choice: the share of the negotiating connections that one client may have, but never fewer
# than a browser opens at once.
NEGOTIATING_SHARE = 4
NEGOTIATING_LEAST = 32


class Stage(Enum):
    """How far a connection has come."""

    SILENT = "silent"  # its request has not come yet
    REQUESTED = "requested"  # it is being opened
    ANSWERED = "answered"
    LEFT = "left"


class Place:
    """A connection's place, from its acceptance to its end.  Compared by identity."""

    __slots__ = ("associated", "client", "stage", "user")

    def __init__(self, client: IPAddress) -> None:
        self.client = client
        self.user = ""
        self.stage = Stage.SILENT
        self.associated = False


_Whose = TypeVar("_Whose")


class _Tally(Generic[_Whose]):
    """How many each has, and all.  Who has none is forgotten: it is no longer than there are
    connections."""

    def __init__(self) -> None:
        self.all = 0
        self.counts: dict[_Whose, int] = {}

    def of(self, whose: _Whose) -> int:
        return self.counts.get(whose, 0)

    def add(self, whose: _Whose) -> None:
        self.all += 1
        self.counts[whose] = self.of(whose) + 1

    def remove(self, whose: _Whose) -> None:
        self.all -= 1
        left = self.counts.pop(whose) - 1
        if left:
            self.counts[whose] = left

    def written(self) -> dict[str, int]:
        return {str(whose): count for whose, count in self.counts.items()}


class Places:
    """All places.  What is refused raises `terms.Refused` with FAILURE and one of the reasons
    ``limit_total``, ``limit_client``, ``limit_negotiating``, ``limit_user``,
    ``limit_associations``."""

    def __init__(self, limits: Limits, users: Iterable[User] = ()) -> None:
        self.configure(limits, users)
        self._silent: dict[Place, None] = {}  # the oldest first
        self._negotiating: _Tally[IPAddress] = _Tally()
        self._clients: _Tally[IPAddress] = _Tally()
        self._users: _Tally[str] = _Tally()
        self._associations: _Tally[IPAddress] = _Tally()

    def configure(self, limits: Limits, users: Iterable[User]) -> None:
        """New limits, for what comes from now on; who is here stays."""
        self._limits = limits
        self._of_users = {
            user.name: user.connections for user in users if user.connections is not None
        }

    def take(self, client: IPAddress) -> tuple[Place, Place | None]:
        """At acceptance: the new place, and, where too many negotiate, the one of a connection that
        is to be closed: the oldest that has not said yet what it wants.  Raises Refused: close at
        once."""
        client = plain(client)
        limits = self._limits
        if self._clients.of(client) >= limits.client:
            raise Refused(ReplyCode.FAILURE, "limit_client")
        share = max(NEGOTIATING_LEAST, limits.negotiating // NEGOTIATING_SHARE)
        if self._negotiating.of(client) >= share:
            raise Refused(ReplyCode.FAILURE, "limit_negotiating")
        evicted = None
        if self._negotiating.all >= limits.negotiating:
            evicted = self._oldest("limit_negotiating")
        elif self._clients.all >= limits.total:
            evicted = self._oldest("limit_total")
        if evicted is not None:
            self.leave(evicted)
        place = Place(client)
        self._clients.add(client)
        self._negotiating.add(client)
        self._silent[place] = None
        return place, evicted

    def _oldest(self, reason: str) -> Place:
        if not self._silent:
            raise Refused(ReplyCode.FAILURE, reason)
        return next(iter(self._silent))

    def identified(self, place: Place, user: str) -> None:
        """Who it is; said again, it is counted once.  Raises Refused, to be told as the reply to
        its request."""
        if place.stage is Stage.LEFT or place.user:
            return
        if self._users.of(user) >= self._of_users.get(user, self._limits.client):
            raise Refused(ReplyCode.FAILURE, "limit_user")
        place.user = user
        self._users.add(user)

    def requested(self, place: Place) -> None:
        """Its request is there: it is not closed for another's sake any more."""
        if place.stage is Stage.SILENT:
            place.stage = Stage.REQUESTED
            del self._silent[place]

    def answered(self, place: Place) -> None:
        """It has its final reply, and does not count as negotiating."""
        self.requested(place)
        if place.stage is Stage.REQUESTED:
            place.stage = Stage.ANSWERED
            self._negotiating.remove(place.client)

    def associated(self, place: Place) -> None:
        """It has a UDP association.  Raises Refused."""
        if place.stage is Stage.LEFT or place.associated:
            return
        if self._associations.of(place.client) >= self._limits.associations:
            raise Refused(ReplyCode.FAILURE, "limit_associations")
        place.associated = True
        self._associations.add(place.client)

    def leave(self, place: Place) -> None:
        """It is over; the second time this does nothing."""
        if place.stage is Stage.LEFT:
            return
        self.answered(place)
        place.stage = Stage.LEFT
        self._clients.remove(place.client)
        if place.user:
            self._users.remove(place.user)
        if place.associated:
            self._associations.remove(place.client)

    def snapshot(self) -> dict[str, object]:
        """For status and metrics: ``total``, ``negotiating``, and by their address or name
        ``clients``, ``users``, ``associations``."""
        return {
            "total": self._clients.all,
            "negotiating": self._negotiating.all,
            "clients": {str(client): count for client, count in self._clients.counts.items()},
            "users": dict(self._users.counts),
            "associations": {
                str(client): count for client, count in self._associations.counts.items()
            },
        }
