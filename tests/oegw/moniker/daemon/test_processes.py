"""The end of a process is seen, whoever else holds its connection (MK-22)."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from oegw.moniker.daemon.processes import Processes

SLEEPER = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_the_end_of_a_process_is_told_once() -> None:
    async def scenario() -> list[int]:
        ended: list[int] = []
        over = asyncio.Event()

        def tell(pid: int) -> None:
            ended.append(pid)
            over.set()

        processes = Processes(tell)
        with subprocess.Popen(SLEEPER) as child:
            for _ in range(2):  # two connections of one process
                processes.watch(child.pid, os.pidfd_open(child.pid))
            assert len(processes) == 1
            child.kill()
            await asyncio.wait_for(over.wait(), 10)
        processes.leave(child.pid)  # as the connections do, later
        processes.leave(child.pid)
        assert len(processes) == 0
        return ended

    before = descriptors()
    assert len(asyncio.run(scenario())) == 1
    assert descriptors() == before


def test_who_leaves_is_not_watched_any_more() -> None:
    async def scenario() -> None:
        processes = Processes(lambda _: None)
        for _ in range(2):
            processes.watch(os.getpid(), os.pidfd_open(os.getpid()))
        processes.leave(os.getpid())
        assert len(processes) == 1
        processes.leave(os.getpid())
        assert len(processes) == 0
        processes.watch(os.getpid(), os.pidfd_open(os.getpid()))
        processes.close()

    before = descriptors()
    asyncio.run(scenario())
    assert descriptors() == before
