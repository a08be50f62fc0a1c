"""What port encryption costs a router: throughput of the fast path, and new flows per second.

python -m tests.bench.bench_sst_path      needs root and iperf3; all traffic stays in namespaces

Each round measures both ways one after the other, so that both meet the same machine: TCP by iperf3
over veth through a gateway with a connection tracking firewall, without and with the plane (which
seals here, and opens at the far host).  The medians' ratio must be at least 0.9.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack

from tests.support.intercept_net import INSIDE, PEER, PEER6, Net, wait_for, within
from tests.support.sst_plane import both, deafen, only, running

ROUNDS = 5
SECONDS = 2
FLOWS = 2000
SMALL = 20_000

_FIREWALL = (
    "add table inet fw",
    "add chain inet fw forward { type filter hook forward priority 0; }",
    "add rule inet fw forward ct state invalid drop",
    "add rule inet fw forward ct state established accept",
    "add rule inet fw forward tcp dport 5201 accept",
    "add rule inet fw forward meta l4proto tcp drop",
)


def _throughput(net: Net, peer: str) -> float:
    """Gbit/s of one TCP connection."""
    inside = ["nsenter", f"--net=/run/netns/{net.outside}", "iperf3", "-s", "-1"]
    with subprocess.Popen(inside, stdout=subprocess.DEVNULL) as server:
        wait_for(lambda: ":5201" in net.run(net.outside, "ss", "-Hltn"))
        said = net.run(net.inside, "iperf3", "-c", peer, "-t", str(SECONDS), "-J")
        server.wait(10)
    return float(json.loads(said)["end"]["sum_received"]["bits_per_second"]) / 1e9


def _paths(net: Net) -> bool:
    good = True
    for family, peer in (("IPv4", PEER), ("IPv6", PEER6)):
        plain, sealed = [], []
        for number in range(ROUNDS):
            for with_plane in (number % 2 == 0, number % 2 == 1):
                with ExitStack() as stack:
                    if with_plane:
                        stack.enter_context(both(net))
                    (sealed if with_plane else plain).append(_throughput(net, peer))
        ratio = statistics.median(sealed) / statistics.median(plain)
        good = good and ratio >= 0.9
        print(f"{family} plain    {_shown(plain)} Gbit/s")
        print(f"{family} sealed   {_shown(sealed)} Gbit/s   ratio of medians {ratio:.2f}")
    return good


def _shown(values: list[float]) -> str:
    each = " ".join(f"{value:5.1f}" for value in sorted(values))
    return f"{statistics.median(values):5.1f}  ({each})"


def _new_flows(net: Net) -> None:
    """UDP flows of one packet each, from the queue through FF1 into the maps, and out sealed."""
    with running(net.gateway, only()) as gate:
        hosts = [net.udp(net.inside, INSIDE, 10_000 + n) for n in range(FLOWS // 10)]
        began = time.perf_counter()
        for batch in range(10):
            for host in hosts:
                host.send("x", PEER, 1000 + batch)
            wanted = (batch + 1) * len(hosts)
            wait_for(lambda wanted=wanted: len(gate.listener.caught) >= wanted, 60)
        seconds = time.perf_counter() - began
        counted = gate.counters
        print(f"new flows         {FLOWS / seconds:8.0f} a second   {counted['sealed']} sealed")


def _small_packets(net: Net) -> None:
    """Microseconds of CPU that a datagram of 100 octets costs from send to the far device."""
    found: dict[str, list[float]] = {"without the plane": [], "sealed": []}
    for _ in range(ROUNDS):
        for name, each in found.items():
            with ExitStack() as stack:
                if name == "sealed":
                    stack.enter_context(running(net.gateway, only()))
                each.append(within(net.inside, lambda: _cost(net)) * 1e6)
    for name, each in found.items():
        print(f"small packets     {statistics.median(each):8.1f} us   {name}")


def _cost(net: Net) -> float:
    host = net.udp(net.inside, INSIDE, 4000)
    host.socket.connect((PEER, 53))
    host.socket.send(b"first")
    time.sleep(0.2)  # the queue has it
    began = time.thread_time()
    for _ in range(SMALL):
        host.socket.send(bytes(100))
    spent = time.thread_time() - began
    host.close()
    return spent / SMALL


def main() -> int:
    with Net() as net:
        for line in _FIREWALL:
            net.run(net.gateway, "nft", line)
        good = _paths(net)
        deafen(net, net.outside)
        _new_flows(net)
        _small_packets(net)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
