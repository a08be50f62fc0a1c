"""The demo: the ladder of the draft's section 3.2 and what was proven, in one line each."""

from __future__ import annotations

from lablib import scenario
from lablib.runner import run_scenario

DEMO = "demo"


def run_demo(identifier: str | None = None, keep: bool = False) -> int:
    """Exit code 0 only if every claim is proven."""
    return run_scenario(scenario.load(DEMO), identifier, keep)
