"""Runs the tests in one process more than there are CPUs, each folder in one of them.

Tests in network namespaces wait more than they compute.

``python -m tests.support.side_by_side`` runs all tests that need this machine only, but for the
lab's scenarios.  The folders that take longest begin first.  The parsers' 100,000 inputs (marker
``fuzz``) are parts of their own.  Coverage doubles the time of what it measures: it is that of the
rooms in MEASURED by their own tests, and with ``--coverage`` of all by all but the parsers' inputs.
What a part printed appears when it is done.
"""

from __future__ import annotations

import argparse
import os
import queue
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
NO_TESTS = {"support", "vectors", "bench", "fresh"}
SPLIT = {"oegw", "oegw/sst", "oegw/socks5"}  # folders whose own folders are parts of their own
LONGEST = (  # measured, where the run is thorough
    "oegw/datapath", "fuzz", "acceptance", "ike", "oegw", "oegw/intercept", "attacks", "oegw/sst",
    "oegw/sst/plane", "oegw/moniker", "fuzz of ports", "oegw/sst/asking", "policy", "tests",
    "dnsrecords", "oegw/socks5/clients", "oegw/socks5", "oegw/socks5/server",
    "oegw/socks5/client", "oegw/socks5/differences",
)  # fmt: skip
MEASURED = ("ike", "policy", "dnsrecords")  # rooms that have to be covered
PLAIN = ("-m", "not lab and not fuzz")


@dataclass(frozen=True, slots=True)
class Part:
    name: str
    arguments: tuple[str, ...]


def parts(tests: Path = TESTS) -> list[Part]:
    """All that there is to run, the longest first."""
    ports = ["tests/oegw/sst", "tests/acceptance"]
    found = [
        Part("fuzz", ("-m", "fuzz", *(f"--ignore={each}" for each in ports), "tests")),
        Part("fuzz of ports", ("-m", "fuzz", *ports)),
    ]
    loose = sorted(path.name for path in tests.glob("test_*.py"))
    if loose:
        found.append(Part("tests", (*PLAIN, *(f"tests/{name}" for name in loose))))
    for folder in _with_tests(tests):
        if folder.name not in NO_TESTS:
            found += _parts_of(folder, folder.name)
    order = {name: place for place, name in enumerate(LONGEST)}
    return sorted(found, key=lambda part: order.get(part.name, len(order)))


def _parts_of(folder: Path, name: str) -> list[Part]:
    """A folder, or what is in it by itself and its own folders, each a part."""
    if name not in SPLIT:
        return [Part(name, (*PLAIN, f"tests/{name}"))]
    inner = {f"{name}/{sub.name}": sub for sub in _with_tests(folder)}
    ignored = [f"--ignore=tests/{each}" for each in inner]
    own = Part(name, (*PLAIN, *ignored, f"tests/{name}"))
    return [*(part for each, sub in inner.items() for part in _parts_of(sub, each)), own]


def measured(part: Part, everything: bool) -> tuple[str, ...]:
    """Python's arguments in front of a part's, which measure coverage, or do not."""
    if everything and "fuzz" not in part.name:
        return "-m", "coverage", "run"
    if part.name in MEASURED:
        return "-m", "coverage", "run", f"--source={part.name}"
    return ()


def _with_tests(folder: Path) -> list[Path]:
    """Its folders that have tests."""
    return sorted(sub for sub in folder.iterdir() if sub.is_dir() and any(sub.rglob("test_*.py")))


def _work(
    waiting: queue.SimpleQueue[Part], results: dict[str, tuple[int, float]], everything: bool
) -> None:
    while True:
        try:
            part = waiting.get_nowait()
        except queue.Empty:
            return
        began = time.monotonic()
        command = [sys.executable, *measured(part, everything), "-m", "pytest", "-q"]
        done = subprocess.run(
            [*command, "-p", "no:cacheprovider", *part.arguments],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace",
        )  # fmt: skip
        seconds = time.monotonic() - began
        # pytest's code 5: no test was chosen, as in a folder of tests for the test kernel only
        results[part.name] = (0 if done.returncode == 5 else done.returncode), seconds
        print(f"\n{part.name}:\n{done.stdout.rstrip()}", flush=True)


def main(arguments: list[str]) -> int:
    """Exit code 0 only if each part passed."""
    parser = argparse.ArgumentParser(prog="side_by_side")
    parser.add_argument("--coverage", action="store_true", help="of all by all")
    everything = parser.parse_args(arguments).coverage
    waiting: queue.SimpleQueue[Part] = queue.SimpleQueue()
    wanted = parts()
    for part in wanted:
        waiting.put(part)
    results: dict[str, tuple[int, float]] = {}
    workers = [
        threading.Thread(target=_work, args=(waiting, results, everything), daemon=True)
        for _ in range(len(os.sched_getaffinity(0)) + 1)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print()
    for part in wanted:
        code, seconds = results.get(part.name, (1, 0.0))
        print(f"{'FAILED' if code else 'ok':6} {seconds:5.0f} s  {part.name}")
    return int(any(results.get(part.name, (1, 0.0))[0] for part in wanted))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
