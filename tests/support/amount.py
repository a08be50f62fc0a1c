"""How much is tried: a sample in the run of every day, all of it in `tests/run --all`."""

from __future__ import annotations

import os

THOROUGH = "OEGW_TESTS_THOROUGH"  # in the environment; set by tests/run --all


def thorough() -> bool:
    return bool(os.environ.get(THOROUGH))


def amount(whole: int, sample: int) -> int:
    """``whole`` where the run is thorough, else ``sample``."""
    return whole if thorough() else sample
