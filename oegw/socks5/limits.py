"""How many connections at a time, of whom (`settings.Limits`).  Without IO."""

from __future__ import annotations

from collections.abc import Iterable

from oegw.socks5.settings import Limits, User
from oegw.socks5.wire import IPAddress


class Place:
    """A connection's place, from its acceptance to its end.  Compared by identity."""

    __slots__ = ("client", "stage", "user")


class Places:
    """All places.  What is refused raises `interface.Refused` with FAILURE and one of the reasons
    ``limit_total``, ``limit_client``, ``limit_negotiating``, ``limit_user``,
    ``limit_associations``."""

    def __init__(self, limits: Limits, users: Iterable[User] = ()) -> None:
        raise NotImplementedError

    def configure(self, limits: Limits, users: Iterable[User]) -> None:
        """New limits, for what comes from now on; who is here stays."""
        raise NotImplementedError

    def take(self, client: IPAddress) -> tuple[Place, Place | None]:
        """At acceptance: the new place, and, where too many negotiate, the one of a connection that
        is to be closed: the oldest that has not said yet what it wants.  Raises Refused: close at
        once."""
        raise NotImplementedError

    def identified(self, place: Place, user: str) -> None:
        """Who it is.  Raises Refused, to be told as the reply to its request."""
        raise NotImplementedError

    def requested(self, place: Place) -> None:
        """Its request is there: it is not closed for another's sake any more."""
        raise NotImplementedError

    def answered(self, place: Place) -> None:
        """It has its final reply, and does not count as negotiating."""
        raise NotImplementedError

    def associated(self, place: Place) -> None:
        """It has a UDP association.  Raises Refused."""
        raise NotImplementedError

    def leave(self, place: Place) -> None:
        """It is over; the second time this does nothing."""
        raise NotImplementedError

    def snapshot(self) -> dict[str, object]:
        """For status and metrics: ``total``, ``negotiating``, ``clients``, ``users``,
        ``associations``."""
        raise NotImplementedError
