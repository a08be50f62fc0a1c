"""Waiting for a condition with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from lablib.errors import DeadlineMissed

T = TypeVar("T")


def wait_until(what: str, condition: Callable[[], T], seconds: float = 10.0) -> T:
    """Ask ``condition`` until its answer is true and return that answer.

    Raises DeadlineMissed with ``what`` after ``seconds``.
    """
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise DeadlineMissed(f"{what}: not within {seconds:g} s")
        time.sleep(0.005)
