"""What holds for the cores holds for each that is there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import pytest

from oegw.datapath.userspace.core.choice import CoreChoice
from tests.support.datapath_cores import chosen, cores, without_library


@pytest.fixture(params=[*cores(), *(f"{name}-openssl" for name in cores())])
def core(request: pytest.FixtureRequest) -> Iterator[CoreChoice]:
    """With whatever does AES-GCM best, and by OpenSSL, which is everywhere."""
    name, _, by = request.param.partition("-")
    with without_library() if by else nullcontext():
        yield chosen(name)
