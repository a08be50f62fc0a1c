"""Runs `netns-lab/lab` for the tests."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
LAB = ROOT / "netns-lab" / "lab"
PATIENCE = 100.0  # seconds for one command; the whole test has 120


def scenario_names() -> list[str]:
    """The folders of the lab's scenarios that have expectations."""
    return sorted(p.parent.name for p in (ROOT / "netns-lab/scenarios").glob("*/expect.toml"))


def long_scenario_names() -> list[str]:
    """Those that have a longer form."""
    folder = ROOT / "netns-lab/scenarios"
    return [n for n in scenario_names() if "long = " in (folder / n / "expect.toml").read_text()]


def lab(*arguments: str, patience: float = PATIENCE) -> tuple[int, str]:
    """Exit code and output of one command.  A command that hangs is ended so that it cleans up."""
    process = subprocess.Popen(
        [str(LAB), *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        output, _ = process.communicate(timeout=patience)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=15)
        output += f"\nended after {patience} s"
        return 124, output
    return process.returncode, output
