"""Waiting for a condition with a deadline.

Deadlines are those of an ordinary machine.  Where processes start slowly (a test kernel, say),
``$OEGW_LAB_PATIENCE`` is the number that multiplies all of them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

from lablib.errors import DeadlineMissed, LabError

T = TypeVar("T")


def patient(seconds: float) -> float:
    """A deadline, longer where this machine is slow.  Raises LabError if that is no number."""
    text = os.environ.get("OEGW_LAB_PATIENCE") or "1"
    try:
        factor = float(text)
    except ValueError:
        raise LabError(f"OEGW_LAB_PATIENCE must be a number, not {text!r}") from None
    if not 1 <= factor <= 100:
        raise LabError(f"OEGW_LAB_PATIENCE must be 1 to 100, not {text}")
    return seconds * factor


def wait_until(what: str, condition: Callable[[], T], seconds: float = 10.0) -> T:
    """Ask ``condition`` until its answer is true and return that answer.

    Raises DeadlineMissed with ``what`` after ``seconds``, made longer by `patient`.
    """
    seconds = patient(seconds)
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise DeadlineMissed(f"{what}: not within {seconds:g} s")
        time.sleep(0.005)
