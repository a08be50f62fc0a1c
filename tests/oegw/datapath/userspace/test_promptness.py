"""A worker asks the scheduler to run it soon; where that is not to be had, nothing changes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from oegw.datapath.userspace import promptness

_ASK = """
import os
from oegw.datapath.userspace.promptness import ask_for_short_slices
os.nice(3)
print(ask_for_short_slices(), os.sched_getscheduler(0) == os.SCHED_OTHER, os.nice(0))
"""


def test_all_but_the_slice_stays() -> None:
    """In a process of its own, which is changed by it."""
    said = subprocess.run([sys.executable, "-c", _ASK], capture_output=True, text=True, check=True)
    taken, *others = said.stdout.split()
    assert taken in ("True", "False")  # the kernel's choice
    assert others == ["True", "3"]


def test_an_unknown_machine_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promptness.platform, "machine", lambda: "abacus")
    assert promptness.ask_for_short_slices() is False
