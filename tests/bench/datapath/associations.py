"""What many SAs cost: memory, and throughput beside that of one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tests.bench.accounts import memory
from tests.bench.datapath import small, tcp
from tests.bench.datapath.contender import Standing
from tests.bench.datapath.contenders.ours import Variant, stood
from tests.bench.datapath.row import MANY

TUNNELS = 10_000  # pairs of SAs, one in each direction
SPREAD = 1000  # of them that get a datagram in turn


def many(variant: Variant) -> Variant:
    return replace(
        variant,
        name=f"{variant.name}-many",
        title=f"{variant.title}, {TUNNELS:,} tunnels",
        sas=TUNNELS,
    )


def memory_of_each(few: Standing, crowd: Standing) -> dict[str, float]:
    """A tunnel has two SAs.  Both gateways have the same, so it is half of both."""
    one, most = (memory(each.pids()) / 2 for each in (few, crowd))
    tunnels = (most - one) * 1000 / (TUNNELS - 1)
    return {"memory_sas": tunnels / 2, "memory_tunnels": tunnels}


def memory_of_peers(standing: Standing, add: Callable[[Standing, int], None]) -> dict[str, float]:
    """Of another program, whose first gateway gets 1,000 more tunnels, which carry nothing."""
    before = memory(standing.pids())
    add(standing, 1000)
    return {"memory_tunnels": memory(standing.pids()) - before}


def installing(crowd: Standing) -> dict[str, float]:
    """Seconds until all of them were installed, the slower of both gateways."""
    return {"many_seconds": max(stood(each)["seconds"] for each in crowd.programs.values())}


def throughput(
    standing: Standing, seconds: float, which: str, known: float | None = None
) -> dict[str, float]:
    """Of Alice's and Bob's own tunnel, somewhere among the others, and of datagrams each of which
    takes another than the one before.  ``which``: few or many."""
    first = MANY.partition("/")[0]
    with small.traffic(standing, first, SPREAD) as attempt:
        packets = small.highest(attempt, known)
    return {f"{which}_tcp1": tcp.bulk(standing, seconds).mbits, f"{which}_udp": packets}
