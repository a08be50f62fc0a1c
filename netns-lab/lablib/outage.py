"""How long a running ping went without an answer: what a fail-over costs."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

from lablib.stage import Missed, Stage, check_keys
from lablib.waiting import patient


def gaps(text: str) -> list[int]:
    """The lengths of the runs of requests between two answered ones, in a ping's output."""
    answered = sorted({int(n) for n in re.findall(r"bytes from .*icmp_seq=(\d+)", text)})
    return [after - before - 1 for before, after in pairwise(answered) if after > before + 1]


def outage(stage: Stage, step: dict[str, Any]) -> str:
    """The running ping ``name`` was without an answer for ``at_most`` seconds at a time.

    ``times``: how often at most.
    """
    check_keys(step, {"name", "at_most", "times"})
    text = stage.background[step["name"]].text()
    interval = stage.intervals[step["name"]]
    found = gaps(text)
    seen = ", ".join(f"{lost} packets in {lost * interval:.2f} s" for lost in found)
    longest = max(found, default=0) * interval
    if longest > patient(float(step["at_most"])) or len(found) > step.get("times", len(found)):
        raise Missed(f"lost: {seen}")
    return f"lost: {seen or 'none'}"
