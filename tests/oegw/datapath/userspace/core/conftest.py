"""What holds for the cores holds for each that is there."""

from __future__ import annotations

import pytest

from oegw.datapath.userspace.core.choice import CoreChoice
from tests.support.datapath_cores import chosen, cores


@pytest.fixture(params=cores())
def core(request: pytest.FixtureRequest) -> CoreChoice:
    return chosen(request.param)
