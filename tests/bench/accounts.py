"""What processes cost, by the kernel's account of them: CPU time and memory."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Spent:
    """CPU seconds."""

    user: float
    system: float

    @property
    def both(self) -> float:
        return self.user + self.system

    def __sub__(self, earlier: Spent) -> Spent:
        return Spent(self.user - earlier.user, self.system - earlier.system)


def descendants(root: int) -> list[int]:
    """The process, and all that descend from it."""
    children = defaultdict(list)
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children[int(fields[1])].append(int(path.parent.name))
    found, todo = [], [root]
    while todo:
        found.append(todo.pop())
        todo += children[found[-1]]
    return found


def spent(pids: Iterable[int]) -> Spent:
    """By these processes so far, with the children that they waited for."""
    user = system = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        user += int(fields[11]) + int(fields[13])
        system += int(fields[12]) + int(fields[14])
    return Spent(user / TICK, system / TICK)


def scheduled(pid: int) -> tuple[int, int, int]:
    """Nanoseconds that the threads of a process ran, and that they waited for a CPU; how often they
    got one."""
    totals = [0, 0, 0]
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        for place, value in enumerate(path.read_text().split()):
            totals[place] += int(value)
    return totals[0], totals[1], totals[2]


def machine_busy() -> float:
    """CPU seconds of the whole machine so far, kernel and interrupts included, idling excluded."""
    first = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    user, nice, system, _idle, _waiting, hard, soft, _stolen = map(int, first)
    return (user + nice + system + hard + soft) / TICK


def memory(pids: Iterable[int]) -> float:
    """Megabytes that are these processes' own: shared pages count by share."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1024
