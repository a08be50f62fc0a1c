"""What the tests of a real SOCKS server share; a module with a ``net`` of its own has that."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.intercept_net import Net
from tests.support.socks_strangers import Echo, inhabited, servers


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    with inhabited() as net:
        yield net


@pytest.fixture(scope="module")
def echo(net: Net) -> Iterator[Echo]:
    with servers(net) as echo:
        yield echo
