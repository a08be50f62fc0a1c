"""Round trips: many pings from Alice to Bob, whose kernels answer them."""

from __future__ import annotations

import re
import statistics
from dataclasses import dataclass

from tests.bench.datapath.contender import Standing
from tests.bench.datapath.row import BOB
from tests.bench.datapath.tcp import background
from tests.interop.processes import InteropError, call

_INTERVAL = 0.005
_COUNT = 250
_TIME = re.compile(r" time=([0-9.]+) ms")


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """Milliseconds; ``lost`` of ``sent`` pings had no answer."""

    median: float
    p99: float
    lost: int
    sent: int

    @classmethod
    def of(cls, output: str, sent: int) -> RoundTrip:
        """Of what ping printed."""
        times = sorted(float(each) for each in _TIME.findall(output))
        if not times:
            raise InteropError(f"no ping was answered: {output[-300:]!r}")
        return cls(statistics.median(times), times[_rank(len(times))], sent - len(times), sent)


def _rank(count: int) -> int:
    """Of the 99th percentile: the smallest value that 99 of 100 are not above."""
    return -(-count * 99 // 100) - 1


def idle(standing: Standing) -> RoundTrip:
    words = ("ping", "-n", "-c", str(_COUNT), "-i", str(_INTERVAL), "-W", "1", BOB)
    done = call(standing.row.host("a"), *words, check=False)
    return RoundTrip.of(done.stdout, _COUNT)


def loaded(standing: Standing) -> RoundTrip:
    """While one TCP stream runs."""
    with background(standing, _COUNT * _INTERVAL + 10):
        return idle(standing)
