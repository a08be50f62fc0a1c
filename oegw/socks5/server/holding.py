"""What a connection has of the server as long as it lasts: given back at its end, whatever that is.

It is all that is left of a conversation while its octets are relayed.
"""

from __future__ import annotations

from oegw.socks5.addressids import Entry
from oegw.socks5.interface import Scope, Transferred
from oegw.socks5.limits import Place
from oegw.socks5.server.common import Common


class Holding:
    __slots__ = ("_common", "_entries", "_place", "scope")

    def __init__(self, common: Common, place: Place, scope: Scope) -> None:
        self._common = common
        self._place: Place | None = place
        self._entries: tuple[Entry, ...] = ()
        self.scope = scope

    def hold(self, entry: Entry | None) -> None:
        """It lasts at least as long as the connection (SK-19)."""
        if entry is not None and entry not in self._entries:
            self._common.ids.hold(entry)
            self._entries = (*self._entries, entry)

    def ended(self, transferred: Transferred) -> None:
        """What the relay has done, at its end."""
        self._common.ended(self.scope.user, transferred)
        self.release()

    def release(self) -> None:
        """The second time this does nothing."""
        if self._place is None:
            return
        place, self._place = self._place, None
        now = self._common.now()
        for entry in self._entries:
            self._common.ids.release(entry, now)
        self._entries = ()
        if self.scope.lineage is not None:
            self._common.ids.forget(self.scope, now)
        self._common.places.leave(place)
