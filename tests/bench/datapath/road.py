"""TCP by a road that harms: how far it falls there, ours beside plain forwarding.

    alice -- sga out0 -- left road right -- out0 sgb -- bob

Host ``road`` relays each frame in user space (`netns-lab/lablib/roughroad.py`), and is slower than
most of the contenders.  So all offer the same, far less than any of them, the relay or the CPUs
can carry; and the way is long enough that a loss costs TCP something.  What is measured is what
becomes of a stream there, and not how fast anybody is.  Interfaces outside show single frames, as
on a wire.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.bench.datapath.contender import Standing
from tests.bench.datapath.row import SIDES, Row
from tests.bench.datapath.tcp import paced
from tests.interop.processes import Process, wait_until
from tests.support.datapath_rough import ROAD, Conversation

BY_ROAD = ("plain", "openvpn-256", "ours-compiled", "ours-python")
OFFERED = 100_000_000  # bits a second
SECONDS = 2.0  # of each transfer
PAIRS = 3  # of transfers, in each round
# Both look at each packet alike, so that the relay's own work is the same.
SMOOTH: dict[str, float] = {"everything": True, "delay": 0.005}
ROUGH = SMOOTH | {"lose": 0.005, "reorder": 0.01, "duplicate": 0.01}
_ON_A_WIRE = ("tx", "gso", "tso", "tx-udp-segmentation", "gro")  # what `ethtool -K` turns off


@dataclass(slots=True)
class RoughRow(Row):
    """The road is as good as `SMOOTH` until ``harm``."""

    cable: Conversation | None = field(default=None, repr=False)

    @property
    def road(self) -> str:
        return f"{self.identifier}road"

    def put_up(self) -> None:
        Row.put_up(self)
        for side in SIDES:  # else a stream begins with what the one before it has learned
            self.run(self.host(side), "sysctl", "-qw", "net.ipv4.tcp_no_metrics_save=1")

    def take_down(self) -> None:
        if self.cable is not None:
            self.cable.end()
        Row.take_down(self)

    def harm(self, conduct: dict[str, float]) -> None:
        assert self.cable is not None
        self.cable.tell(json.dumps(conduct))

    def repeated(self) -> int:
        """How many packets from A the road has sent twice."""
        assert self.cable is not None
        self.cable.tell("counts")
        count: int = self.cable.read("roads")["roads"][0].get("duplicated", 0)
        return count

    def _names(self) -> list[str]:
        return [*Row._names(self), self.road]

    def _wire_outside(self) -> None:
        self.run(self.road, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
        words = [word for name in _ON_A_WIRE for word in (name, "off")]
        for side, device in zip(SIDES, ("left", "right"), strict=True):
            self._wire(self.gateway(side), "out0", self.road, device)
            self.run(self.gateway(side), "ethtool", "-K", "out0", *words)
            self.run(self.road, "ethtool", "-K", device, *words)
            self.ip(self.road, f"link set {device} up")
        self.cable = Conversation(
            self.road, "-I", str(ROAD), "left", "right", "--conduct", json.dumps(SMOOTH)
        )
        said = self.cable.line()
        assert said == "ready", said


def throughput(standing: Standing, rough_first: bool) -> Iterator[dict[str, float]]:
    """One stream by each of the roads, PAIRS times, each time in the other order, so that a drift
    of the machine favours neither.  Ours counts what came to B twice."""
    row = standing.row
    assert isinstance(row, RoughRow)
    counts_replays = standing.name.startswith("ours")
    for _ in range(PAIRS):
        repeated, replays = row.repeated(), _replays(standing) if counts_replays else 0
        ways = [("road_smooth", SMOOTH), ("road_rough", ROUGH)]
        mbits: dict[str, float] = {}
        for which, conduct in reversed(ways) if rough_first else ways:
            row.harm(conduct)
            mbits[which] = paced(standing, SECONDS, OFFERED)
        found = mbits | {"road_ratio": mbits["road_rough"] / mbits["road_smooth"]}
        if counts_replays:
            found["road_replays"] = _replays(standing) - replays
            found["road_repeated"] = row.repeated() - repeated
        yield found
        rough_first = not rough_first


def _replays(standing: Standing) -> int:
    """What B has dropped as a replay until now."""
    process = standing.programs["b"]
    before = len(_counted(process))
    os.kill(process.popen.pid, signal.SIGUSR1)
    wait_until("our counters", lambda: len(_counted(process)) > before)
    return _counted(process)[-1].get("drop_in_replay", 0)


def _counted(process: Process) -> list[dict[str, int]]:
    lines = process.text().splitlines()
    return [
        json.loads(line)["counters"]
        for line in lines
        if line.startswith('{"counters": ') and line.endswith("}}")
    ]
