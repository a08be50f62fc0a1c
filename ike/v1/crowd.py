"""How many channels peers may keep with us (RFC 4322 section 12.3).

Half-open exchanges have limits of their own.  But in opportunistic encryption anybody can
authenticate, and whoever did could begin one channel after the other.  Beyond a few the oldest
one that carries nothing gives way; tunnels outlive their channel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ike.constants import CHANNELS_MOST, CHANNELS_PER_PEER

if TYPE_CHECKING:
    from ike.v1.directory import Directory
    from ike.v1.main_mode import Peer
    from ike.v1.session import Session


class Crowd:
    """The channels that peers began and that are up, the oldest first."""

    def __init__(self) -> None:
        self._all: dict[int, Session] = {}
        self._by_peer: dict[Peer, dict[int, Session]] = {}

    def add(self, session: Session) -> None:
        assert session.peer is not None
        self._all[session.number] = session
        self._by_peer.setdefault(session.peer, {})[session.number] = session

    def remove(self, session: Session) -> None:
        if self._all.pop(session.number, None) is None:
            return
        assert session.peer is not None
        mine = self._by_peer[session.peer]
        del mine[session.number]
        if not mine:
            del self._by_peer[session.peer]

    def must_go(self, peer: Peer) -> Session | None:
        """The channel to close before ``peer`` has one more."""
        mine = self._by_peer.get(peer, {})
        if len(mine) >= CHANNELS_PER_PEER:
            crowd = mine
        elif len(self._all) >= CHANNELS_MOST:
            crowd = self._all
        else:
            return None
        idle = (s for s in crowd.values() if not s.tunnel_count and not s.busy)
        return next(idle, None) or next(iter(crowd.values()))


def make_way(now: float, directory: Directory, newcomer: Session) -> None:
    """``newcomer``, which a peer began, has just been authenticated."""
    assert newcomer.peer is not None
    leaving = directory.crowd.must_go(newcomer.peer)
    if leaving is not None:
        leaving.close(now, "made room for a newer one")
