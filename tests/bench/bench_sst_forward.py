"""What port encryption without ESP costs between two gateways: throughput, and new flows.

python -m tests.bench.bench_sst_forward [ROUNDS] [SECONDS]

needs root; it puts up the lab's network with two gateways.  In each round the same two hosts talk
three times: plain, through the gateways' rules but unsealed; sealed, the fast path; and plain once
more.  Printed are the medians of all rounds, and of the ratio of sealed to plain in each.
"""

from __future__ import annotations

import json
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "netns-lab"))

SEALED_PORT, PLAIN_PORT = 7001, 8001  # see sst_forward/*.toml
AGAINST = 0.9  # of plain forwarding: what it may cost
FLOWS = 1000

# On Bob: a UDP echo on both ports.  On Alice: one datagram for each of many flows (new source
# ports), so many at a time; prints how many were answered, and how many a second.
ECHO = """
import selectors, socket, sys
ready = selectors.DefaultSelector()
for port in sys.argv[2:]:
    echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    echo.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    echo.bind((sys.argv[1], int(port)))
    ready.register(echo, selectors.EVENT_READ)
print("echoing", flush=True)
while True:
    for key, _ in ready.select():
        octets, sender = key.fileobj.recvfrom(2000)
        key.fileobj.sendto(octets, sender)
"""
NEW_FLOWS = """
import json, selectors, socket, sys, time
address, port, flows, window = sys.argv[1], *map(int, sys.argv[2:5])
ready, begun, answered, ways = selectors.DefaultSelector(), 0, 0, []
start = last = time.perf_counter()
open_ = 0
while answered < flows and time.perf_counter() - last < 5:
    while open_ < window and begun < flows:
        caller = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        caller.connect((address, port))
        caller.send(b"new")
        ready.register(caller, selectors.EVENT_READ, time.perf_counter())
        begun, open_ = begun + 1, open_ + 1
    for key, _ in ready.select(1):
        key.fileobj.recv(100)
        last = time.perf_counter()
        ways.append(last - key.data)
        ready.unregister(key.fileobj)
        key.fileobj.close()
        answered, open_ = answered + 1, open_ - 1
median = sorted(ways)[len(ways) // 2]
print(json.dumps({"answered": answered, "rate": answered / (last - start), "first": median}))
"""


def _throughput(lab: Any, port: int, seconds: float) -> float:
    """Mbit/s of one TCP connection from Alice to Bob."""
    address = str(lab.address("bob"))
    arguments = ["iperf3", "-c", address, "-p", str(port), "-t", str(seconds), "-J"]
    result = lab.run.call("alice", arguments, seconds + 30)
    report = json.loads(result.stdout)
    if "error" in report:
        raise SystemExit(f"iperf3: {report['error']}")
    return float(report["end"]["sum_received"]["bits_per_second"]) / 1e6


def _new_flows(lab: Any, port: int, window: int) -> dict[str, float]:
    command = [sys.executable, "-IS", "-c", NEW_FLOWS, str(lab.address("bob"))]
    result = lab.run.call("alice", [*command, str(port), str(FLOWS), str(window)], 90)
    if result.returncode:
        raise SystemExit(result.stderr)
    report: dict[str, float] = json.loads(result.stdout)
    if report["answered"] < FLOWS:
        print(f"only {report['answered']} of {FLOWS} flows were answered")
    return report


def _said(what: str, plain: list[float], sealed: list[float], unit: str) -> float:
    ratio = statistics.median(s / p for s, p in zip(sealed, plain, strict=True))
    print(
        f"{what:34} plain {statistics.median(plain):8.0f} {unit}, "
        f"sealed {statistics.median(sealed):8.0f} {unit}, ratio {ratio:.2f} "
        f"(of {len(plain)} rounds, {min(sealed):.0f} to {max(sealed):.0f})"
    )
    return ratio


def main() -> None:
    from lablib import scenario
    from lablib.lab import put_up
    from lablib.run import Run

    rounds, seconds = (int(w) for w in [*sys.argv[1:], *("5", "2")[len(sys.argv) - 1 :]][:2])
    played = replace(
        scenario.load("sst-only"),
        name="bench", directory=Path(__file__).parent / "sst_forward", links=(), variant="",
        steps=(), facts=(),
    )  # fmt: skip
    run = Run.create()
    try:
        lab = put_up(run, played, print)
        for port in (SEALED_PORT, PLAIN_PORT):
            server = run.start(
                f"iperf-{port}", "bob", ["iperf3", "-s", "--forceflush", "-p", str(port)]
            )
            server.await_text("Server listening")
        ports = [str(SEALED_PORT), str(PLAIN_PORT)]
        echo = [sys.executable, "-IS", "-c", ECHO, str(lab.address("bob")), *ports]
        run.start("echo", "bob", echo).await_text("echoing")
        for port in (SEALED_PORT, PLAIN_PORT):
            _throughput(lab, port, 1)  # key, probe, caches
        plain, sealed = [], []
        for _ in range(rounds):
            before = _throughput(lab, PLAIN_PORT, seconds)
            sealed.append(_throughput(lab, SEALED_PORT, seconds))
            plain.append((before + _throughput(lab, PLAIN_PORT, seconds)) / 2)
        ratio = _said("TCP, one connection", plain, sealed, "Mbit/s")
        for window in (1, 32):
            reports = [
                (_new_flows(lab, PLAIN_PORT, window), _new_flows(lab, SEALED_PORT, window))
                for _ in range(rounds)
            ]
            flows = f"new UDP flows, {window} at a time"
            _said(flows, [p["rate"] for p, _ in reports], [s["rate"] for _, s in reports], "/s")
            first = statistics.median(s["first"] for _, s in reports)
            print(f"{'':34} first answer of a sealed flow after {1000 * first:.2f} ms (median)")
        for name, gateway in lab.gateways.items():
            counters = gateway.status()["counters"]
            fates = ("sealed", "opened", "seal_caught", "open_caught", "required_dropped")
            print(name, ", ".join(f"{k} {counters.get(f'sst.plane.{k}')}" for k in fates))
        print(f"fast path at {ratio:.2f} of plain forwarding; asked for is {AGAINST}")
    finally:
        run.close()
    raise SystemExit(ratio < AGAINST)


if __name__ == "__main__":
    main()
