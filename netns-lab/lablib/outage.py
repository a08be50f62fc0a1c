"""How long a running ping went without an answer: what a fail-over costs."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

from lablib.stage import Missed, Stage, check_keys
from lablib.waiting import patient


def answered(text: str) -> list[int]:
    """The sequence numbers that were answered, in a ping's output."""
    return sorted({int(n) for n in re.findall(r"bytes from .*icmp_seq=(\d+)", text)})


def outage(stage: Stage, step: dict[str, Any]) -> str:
    """The running ping ``name`` was without an answer for ``at_most`` seconds at a time.

    What counts is the time since the last such step, if there was one.
    """
    check_keys(step, {"name", "at_most"})
    name, text = step["name"], stage.background[step["name"]].text()
    since = stage.looked_at.get(name, 0)
    numbers = [n for n in answered(text) if n >= since]
    stage.looked_at[name] = numbers[-1]
    gaps = [after - before - 1 for before, after in pairwise(numbers) if after > before + 1]
    interval = stage.intervals[name]
    seen = ", ".join(f"{lost} packets in {lost * interval:.2f} s" for lost in gaps)
    if max(gaps, default=0) * interval > patient(float(step["at_most"])):
        raise Missed(f"lost: {seen}")
    return f"lost: {seen or 'none'} of {numbers[-1] - since}"
