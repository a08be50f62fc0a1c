"""What is asked before a connection is decided on, and what came back.

Sources of policy are asked at the same time, and nothing is decided before each of them has
answered or has given up (draft section 5.4).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from dnsrecords.outcome import GatewayOutcome, KeyOutcome, PeerOutcome
from oegw.decision import Replies
from oegw.selfknowledge import OwnQuestion
from policy.flow import Flow


class Part(Enum):
    """Which question an answer belongs to."""

    GATEWAYS = "gateways"  # who speaks for the destination (5B)
    PEER = "peer"  # where a configured peer is, and its key
    KEYS = "keys"  # the keys of a peer that is its own client, before its tunnel is renewed
    OWN = "own"  # whether our client delegates to us, and under which identity we are known
    DECISIONS = "decisions"  # what decision points elsewhere say


@dataclass(slots=True)
class Inquiry:
    """The questions about one connection.

    ``flow`` is that of the packet which gave rise to them; ``open`` are the numbers of the look-ups
    under way.
    """

    flow: Flow
    open: dict[int, Part] = field(default_factory=dict)
    gateways: GatewayOutcome | None = None
    peer: PeerOutcome | None = None
    keys: KeyOutcome | None = None
    own: dict[int, OwnQuestion] = field(default_factory=dict)  # by the number of the look-up
    replies: Replies | None = None

    @property
    def complete(self) -> bool:
        return not self.open
