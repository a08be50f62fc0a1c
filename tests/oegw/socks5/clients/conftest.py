"""The network with a server, for all tests of this folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.oegw.socks5.clients import servers
from tests.oegw.socks5.clients.bed import Bed, standing

UNDER_TEST = "OEGW_SOCKS_UNDER_TEST"
"""Names another server of `servers`: whether a client can do something at all is seen there."""


@pytest.fixture(scope="session")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    server = getattr(servers, os.environ.get(UNDER_TEST, "ours"))
    with standing(tmp_path_factory.mktemp("socks")) as bed, server(bed):
        yield bed


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """For a client's own files."""
    return tmp_path
