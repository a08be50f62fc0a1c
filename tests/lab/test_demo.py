"""`netns-lab/lab demo`: the draft's ladder, and what is proven of it."""

from __future__ import annotations

import re
import time

import pytest

from tests.support.lab_commands import lab

# The points of section 3.2, those of (5E), (5F) and (5G) as section 4 numbers them.
POINTS = (
    *("1", "2", "3", "4", "5", "5B", "5C", "5D", "5E1", "5E2", "5E3", "5E4", "5F1", "5F2", "5E5"),
    *("5G1", "5G2", "5G3", "5G4", "5H", "6", "7", "8", "9", "10", "11", "12"),
)
CLAIMS = (
    "the very first packet: 1 of 1 answered",
    "20 times more: 20 of 20 answered",
    "is IKE or ESP",
    "none has Alice's or Bob's address",
    "no payload of ping or download is found on the public link",
    "beside them on the public link",
)


@pytest.mark.lab
@pytest.mark.netns
def test_demo_proves_its_claims_in_under_20_seconds() -> None:
    started = time.monotonic()
    code, output = lab("demo")
    seconds = time.monotonic() - started
    assert code == 0, output
    for claim in CLAIMS:
        assert any(claim in line for line in output.splitlines() if line.startswith("ok ")), claim
    rungs = [line for line in output.splitlines() if re.search(r"\d+\.\d{3}  \S.*\[.*\]$", line)]
    assert len(rungs) == len(POINTS), output
    for point in POINTS:
        assert any(f"({point})" in rung for rung in rungs), f"({point})\n{output}"
    times = [float(re.search(r"(\d+\.\d{3})  \S", rung)[1]) for rung in rungs]
    assert times == sorted(times)
    assert seconds < 20, f"{seconds:.1f} s\n{output}"
