"""What we refused lately, and why: for the operator who is asked by a peer's operator."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass

from ike.events import Identity
from policy.flow import IPAddress

# Our choices: strangers make them, as many as they like.
PEERS_KEPT = 64
KEPT_PER_PEER = 4


@dataclass(slots=True)
class Refusal:
    """``what`` was refused: a tunnel, or a peer's key.  ``at`` is the last time of ``times``."""

    peer: Identity
    address: IPAddress
    what: str
    reason: str
    at: float
    times: int = 1


class Refusals:
    """The last few of each of the last peers."""

    def __init__(self) -> None:
        self._by_peer: OrderedDict[Identity, deque[Refusal]] = OrderedDict()

    def __iter__(self) -> Iterator[Refusal]:
        """The latest first."""
        kept = [refusal for each in self._by_peer.values() for refusal in each]
        return iter(sorted(kept, key=lambda refusal: -refusal.at))

    def note(self, peer: Identity, address: IPAddress, what: str, reason: str, now: float) -> None:
        """One more; the same as before is counted."""
        mine = self._by_peer.setdefault(peer, deque(maxlen=KEPT_PER_PEER))
        self._by_peer.move_to_end(peer)
        for refusal in mine:
            if (refusal.what, refusal.reason) == (what, reason):
                refusal.at, refusal.address = now, address
                refusal.times += 1
                return
        mine.append(Refusal(peer, address, what, reason, now))
        if len(self._by_peer) > PEERS_KEPT:
            self._by_peer.popitem(last=False)
