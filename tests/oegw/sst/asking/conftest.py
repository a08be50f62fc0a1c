"""One host for the tests of a file: each begins and ends without the option."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from oegw.sst.asking import attachment
from tests.support.sst_host import SstHost, cgroup_mount


@pytest.fixture(scope="module")
def shared_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SstHost]:
    place: Path = tmp_path_factory.mktemp("cgroup2")
    mount = cgroup_mount(place)
    try:
        with SstHost(mount) as host:
            yield host
    finally:
        if mount == place:
            subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def host(shared_host: SstHost) -> Iterator[SstHost]:
    shared_host.counted()
    yield shared_host
    attachment.disable(shared_host.group)
