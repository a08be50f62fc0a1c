"""What holds for all tests."""

from __future__ import annotations

import os
import re
import signal

import pytest
from hypothesis import settings

# No deadline: a busy machine is not a fault of the code.  The same examples each time: whether a
# change broke something must not depend on luck.
settings.register_profile("oegw", deadline=None, derandomize=True)
settings.load_profile("oegw")

# A shell has what it starts in the background ignore SIGINT, and what that starts would, too.
signal.signal(signal.SIGINT, signal.default_int_handler)

ELSEWHERE = ("kernel", "guest", "interop", "deploy", "long")
"""Tests with these markers run only where ``-m`` names the marker, as tests/run does."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    asked = re.findall(r"\w+", config.option.markexpr or "")
    away = [name for name in ELSEWHERE if name not in asked]
    left_out = [item for item in items if any(item.get_closest_marker(name) for name in away)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test that can't run has not passed: without root it fails, and is not skipped."""
    for name in ("netns", "lab", "guest", "deploy"):
        if item.get_closest_marker(name) is not None and os.geteuid() != 0:
            pytest.fail(
                f"marked {name}: builds namespaces, which needs root; "
                f'without it, run pytest -m "not netns and not lab"',
                pytrace=False,
            )
