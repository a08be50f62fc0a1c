"""TCP from Alice to Bob by iperf3, with what it cost."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tests.bench.accounts import machine_busy, spent
from tests.bench.datapath.contender import Standing
from tests.bench.datapath.row import BOB
from tests.bench.datapath.urgency import hurry
from tests.interop.processes import InteropError, Process, wait_until

_PORT = 5201
_IDLE_SECONDS = 0.3  # how long the machine is looked at before, for what it does anyway
_TOO_BUSY = 0.1  # part of all CPUs that others use
_SLACK = 20.0  # seconds beyond those measured


@dataclass(frozen=True, slots=True)
class Bulk:
    """Megabits a second that arrived; CPU seconds for each gigabyte of it: of the gateways'
    processes, and of the whole machine with the kernel, Alice and Bob, less what it did before.

    ``machine`` is None if it did so much before that the difference would say nothing.
    """

    mbits: float
    retransmits: int
    gateways: float
    machine: float | None


@contextmanager
def stream(
    standing: Standing, seconds: float, streams: int = 1, port: int = _PORT, *ends: str
) -> Iterator[Process]:
    """A transfer under way, whose report is in the log of the process.

    ``ends``: further arguments of the client; without any, its own address and Bob's.
    """
    row, folder = standing.row, standing.folder
    listening = f":{port} "
    with ExitStack() as stack:
        # A server of its own for each transfer: iperf3 does not always survive a broken one.
        server = Process.start(
            "iperf3 -s", row.host("b"), ["iperf3", "-s", "-1", "-p", str(port)],
            folder / "iperf3-server.txt",
        )  # fmt: skip
        stack.callback(server.end)
        hurry(server.popen.pid)
        wait_until(
            "iperf3 listening",
            lambda: listening in row.run(row.host("b"), "ss", "-Hltn", f"sport = :{port}"),
        )
        report = folder / f"iperf3-{port}.json"
        report.unlink(missing_ok=True)
        client = Process.start(
            "iperf3", row.host("a"),
            ["iperf3", *(ends or ("-c", BOB)), "-p", str(port), "-t", f"{seconds:g}",
             "-P", str(streams), "-J", "--connect-timeout", "5000"],
            report,
        )  # fmt: skip
        stack.callback(client.end)
        hurry(client.popen.pid)
        yield client


def arrived(client: Process, seconds: float) -> tuple[float, int]:
    """Megabits a second and retransmitted segments, once the transfer is over."""
    wait_until("iperf3's end", lambda: not client.running, seconds + _SLACK)
    try:
        said = json.loads(client.text())
    except json.JSONDecodeError:
        raise InteropError(f"iperf3 said {client.text()[:500]!r}") from None
    if "error" in said:
        raise InteropError(f"iperf3: {said['error']}")
    end = said["end"]
    return end["sum_received"]["bits_per_second"] / 1e6, end["sum_sent"].get("retransmits", 0)


def bulk(standing: Standing, seconds: float, streams: int = 1) -> Bulk:
    idle = machine_busy()
    time.sleep(_IDLE_SECONDS)
    idle = (machine_busy() - idle) / _IDLE_SECONDS
    pids = standing.pids()
    began, busy, gateways = time.monotonic(), machine_busy(), spent(pids)
    with stream(standing, seconds, streams) as client:
        mbits, retransmits = arrived(client, seconds)
    took, busy = time.monotonic() - began, machine_busy() - busy
    cpus = os.cpu_count() or 1
    gigabytes = mbits * seconds / 8000
    return Bulk(
        mbits,
        retransmits,
        (spent(pids) - gateways).both / gigabytes,
        None if idle > _TOO_BUSY * cpus else (busy - idle * took) / gigabytes,
    )


def paced(standing: Standing, seconds: float, offered: int) -> float:
    """Megabits a second that arrived of so many bits a second, sent evenly: TCP paces itself."""
    with stream(standing, seconds, 1, _PORT, "-c", BOB, "--fq-rate", str(offered)) as client:
        return arrived(client, seconds)[0]


@contextmanager
def background(standing: Standing, seconds: float) -> Iterator[None]:
    """One TCP stream while something else is measured, which may take so many seconds."""
    with stream(standing, seconds) as client:
        time.sleep(0.3)
        yield
        if not client.running:
            arrived(client, seconds)  # if it failed, this says why
            raise InteropError("the stream ended before what was measured beside it")
