"""With whom we have tunnels, and who must be told that we have lost ours.

INITIAL-CONTACT (RFC 2407 section 4.6.3.3, RFC 4322 section 9.3) says that the channel it
comes on is the first one with us: the peer may forget all that it held before.  It is said
once, on the first channel with a peer that may hold tunnels of a former life of ours, or
that counted as dead, so that we could not tell it of its tunnels' end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ike.constants import CONTACTS_MOST
from ike.events import Identity
from ike.identity import normal_identity

if TYPE_CHECKING:
    from ike.v1.directory import Directory
    from ike.v1.session import Session


class Contacts:
    """Counts of tunnels by identity, and the identities that INITIAL-CONTACT is owed to."""

    def __init__(self, lost: Iterable[Identity]) -> None:
        self._tunnels: Counter[Identity] = Counter()
        self._owed: dict[Identity, int | None] = {normal_identity(one): None for one in lost}
        self._claims: dict[int, Identity] = {}  # by channel: strangers make many of them fail

    def tunnel_begun(self, identity: Identity) -> bool:
        """Whether it is the first with this identity."""
        self._tunnels[identity] += 1
        return self._tunnels[identity] == 1

    def tunnel_ended(self, identity: Identity) -> bool:
        """Whether it was the last with this identity."""
        self._tunnels[identity] -= 1
        if self._tunnels[identity]:
            return False
        del self._tunnels[identity]
        return True

    def lost(self, identity: Identity) -> None:
        """The last tunnel went without a word to the peer."""
        self._owed.setdefault(identity, None)
        if len(self._owed) > CONTACTS_MOST:  # the oldest debt: that peer notices by itself
            del self._owed[next(iter(self._owed))]

    def claim(self, identity: Identity, channel: int) -> bool:
        """Whether this channel shall carry INITIAL-CONTACT; no other one will, until it fails."""
        if self._owed.get(identity, 0) not in (None, channel):
            return False
        if identity not in self._owed:
            return False
        self._owed[identity] = channel
        self._claims[channel] = identity
        return True

    def channel_failed(self, channel: int) -> None:
        """What it claimed may be claimed by another."""
        identity = self._claims.pop(channel, None)
        if identity is not None and self._owed.get(identity) == channel:
            self._owed[identity] = None

    def channel_established(self, identity: Identity) -> None:
        """It is not the first contact any more, whoever said so."""
        claimant = self._owed.pop(identity, None)
        if claimant is not None:
            self._claims.pop(claimant, None)


def forget_former_life(now: float, directory: Directory, session: Session) -> None:
    """INITIAL-CONTACT on ``session``: what was with its peer before it began is gone there.

    A channel that came up while this one was being negotiated is not from before: the
    peer had it already when it said so, or was to have it.
    """
    assert session.peer is not None
    for tunnel in directory.leading_to(session.peer):
        if tunnel.keyed_on.was_up_before(session):
            tunnel.close(now, "initial contact", tell=False)
    for older in list(directory.sessions.values()):
        if older.peer == session.peer and older.was_up_before(session):
            older.close(now, "initial contact", tell=False)
