"""`nft flush ruleset` under traffic: how much leaves in clear until all is as it was."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.doctor_lab import Patient, patient
from tests.support.intercept_net import wait_for

pytestmark = [pytest.mark.lab, pytest.mark.netns]

ALICE, BOB = "192.1.0.65", "192.2.0.66"
EACH = 0.002  # seconds between two packets of Alice
TIMES = 5
MOST = 1.0  # second that a slow machine may take


@pytest.fixture(scope="module")
def box() -> Iterator[Patient]:
    with patient() as found:
        yield found


@contextmanager
def background(box: Patient, host: str, command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Until it is interrupted, so that it says what it has counted."""
    process = subprocess.Popen(box.words(host, f"exec {command}"), cwd=box.directory)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=10)


def put_back(box: Patient) -> list[dict[str, Any]]:
    """The table, as the trace tells it."""
    lines = (box.directory / "sg-a.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines if '"put_back"' in line]
    return [each for each in events if "table inet oegw" in each["what"]]


def verdict(box: Patient) -> str:
    """Alice's and Bob's, in the kernel."""
    listed = box.sh("nft list map inet oegw pair4", code=None)
    found = re.search(rf"{ALICE} \. {BOB}[^,}}]*: return", listed)
    return found[0] if found else ""


def tunnels(box: Patient) -> list[tuple[str, list[Any]]]:
    status = box.status()
    assert status is not None
    return [(c["destination"], c["tunnels"]) for c in status["connections"]]


def clear(box: Patient) -> int:
    """Packets of Alice to Bob that left in clear so far."""
    return len((box.directory / "clear.txt").read_text().splitlines())


def test_a_flush_opens_for_moments_only(box: Patient) -> None:
    """The tunnel goes on, and its verdict is back."""
    watch = (
        f"tcpdump -lnn -i eth1 -Q out src host {ALICE} and dst host {BOB} > clear.txt 2>dump.txt"
    )
    with (
        background(box, "sg-a", watch),
        background(box, "alice", f"ping -q -i {EACH} -w 60 {BOB} > pings.txt"),
    ):
        wait_for(lambda: verdict(box) and "listening" in (box.directory / "dump.txt").read_text())
        before, counts = tunnels(box), list[int]()
        for times in range(1, TIMES + 1):
            assert clear(box) == sum(counts), "between the flushes as well"
            box.sh("nft flush ruleset")
            wait_for(lambda times=times: len(put_back(box)) >= times)  # type: ignore[misc]
            assert verdict(box)
            counts.append(clear(box) - sum(counts))
        assert tunnels(box) == before
    seconds = [line["seconds"] for line in put_back(box)]
    print(f"in clear: {counts} packets, one each {EACH} s; put back after {seconds} s")
    assert max(counts) * EACH < MOST
    assert max(seconds) < MOST
    assert {line["author"].partition(" ")[0] for line in put_back(box)} == {"nft"}
