"""Round trips: many pings from Alice to Bob, whose kernel answers them."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.datapath.contender import Standing
from tests.bench.datapath.row import BOB
from tests.bench.datapath.tcp import background
from tests.interop.processes import InteropError, call

PROGRAM = Path(__file__).with_name("pings.py")
_INTERVAL = 0.005
_COUNT = 250


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """Milliseconds; ``lost`` of ``sent`` pings had no answer."""

    median: float
    p99: float
    lost: int
    sent: int

    @classmethod
    def of(cls, times: Sequence[float], sent: int) -> RoundTrip:
        if not times:
            raise InteropError("no ping was answered")
        ordered = sorted(times)
        # The smallest value that 99 of 100 are not above.
        rank = -(-len(ordered) * 99 // 100) - 1
        return cls(statistics.median(ordered), ordered[rank], sent - len(ordered), sent)


def idle(standing: Standing) -> RoundTrip:
    words = (sys.executable, "-I", str(PROGRAM), BOB, str(_COUNT), str(_INTERVAL))
    done = call(standing.row.host("a"), *words)
    return RoundTrip.of(json.loads(done.stdout), _COUNT)


def loaded(standing: Standing) -> RoundTrip:
    """While one TCP stream runs."""
    with background(standing, _COUNT * _INTERVAL + 10):
        return idle(standing)
