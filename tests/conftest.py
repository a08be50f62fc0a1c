"""What holds for all tests."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# No deadline: a busy machine is not a fault of the code.  The same examples each time: whether a
# change broke something must not depend on luck.
settings.register_profile("oegw", deadline=None, derandomize=True)
settings.load_profile("oegw")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test that can't run has not passed: without root it fails, and is not skipped."""
    for name in ("netns", "lab"):
        if item.get_closest_marker(name) is not None and os.geteuid() != 0:
            pytest.fail(
                f"marked {name}: builds network namespaces, which needs root; "
                f'without it, run pytest -m "not netns and not lab"',
                pytrace=False,
            )
