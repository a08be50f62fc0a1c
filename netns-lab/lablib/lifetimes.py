"""Steps and facts about what happens while time passes: stray ESP, and pings that never wait."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from lablib import strayesp
from lablib.errors import LabError
from lablib.lab import Lab
from lablib.stage import Missed, Stage, check_keys
from lablib.waiting import patient

_ANSWER = re.compile(r"bytes from .*icmp_seq=(\d+) .*time=([\d.]+) ms")


def forge_esp(stage: Stage, step: dict[str, Any]) -> str:
    """``host`` sends ``count`` ESP packets of unknown SPIs to ``to``, from each of ``sources``."""
    check_keys(step, {"host", "to", "sources", "count"})
    lab = stage.lab
    addresses = [str(lab.topology.address(name)) for name in (step["to"], *step["sources"])]
    program = [sys.executable, str(Path(strayesp.__file__)), addresses[0], str(step["count"])]
    result = lab.run.call(step["host"], [*program, *addresses[1:]])
    if result.returncode:
        raise LabError(f"stray ESP: {result.stderr}")
    return f"{step['count']} from each of {', '.join(step['sources'])}"


def all_answered(lab: Lab, fact: dict[str, Any]) -> str:
    """Each request of the ping ``name`` was answered, but for the one under way at its end.

    At most ``slowest`` of the answers took more than ``slow`` milliseconds.
    """
    check_keys(fact, {"name", "slow", "slowest"})
    process = next((p for p in lab.run.processes if p.name == fact["name"]), None)
    if process is None:
        raise LabError(f"all-answered: no ping {fact['name']!r}")
    answers = {int(number): float(ms) for number, ms in _ANSWER.findall(process.text())}
    if not answers:
        raise Missed("no answer at all")
    missing = sorted(set(range(1, max(answers) + 1)) - set(answers))
    if missing:
        raise Missed(f"of {max(answers)} requests these were not answered: {missing[:20]}")
    limit = patient(fact.get("slow", 1000))
    slow = {number: ms for number, ms in answers.items() if ms > limit}
    if len(slow) > fact.get("slowest", 0):
        raise Missed(f"slower than {limit:g} ms: {slow}")
    return f"{len(answers)} of {max(answers)}, the slowest after {max(answers.values()):.1f} ms"
