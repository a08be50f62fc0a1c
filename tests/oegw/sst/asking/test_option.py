"""The calls that applications make, without a kernel that answers."""

from __future__ import annotations

import errno
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from oegw import sst

ROOT = Path(__file__).parents[4]


class Fake:
    """A socket that answers as it is told to."""

    def __init__(self, family: int, error: int = 0) -> None:
        self.family = family
        self.error = error
        self.calls: list[tuple[int, ...]] = []

    def setsockopt(self, level: int, option: int, value: int, /) -> None:
        self.calls.append((level, option, value))
        if self.error:
            raise OSError(self.error, "as told")

    def getsockopt(self, level: int, option: int, /) -> int:
        self.setsockopt(level, option, -1)
        return 1


@pytest.mark.parametrize(
    ("family", "level"),
    [(socket.AF_INET, socket.IPPROTO_IP), (socket.AF_INET6, socket.IPPROTO_IPV6)],
)
def test_level_is_that_of_the_family(family: int, level: int) -> None:
    fake = Fake(family)
    sst.enable(fake)
    sst.enable(fake, False)
    assert sst.enabled(fake) is True
    assert fake.calls == [(level, 200, 1), (level, 200, 0), (level, 200, -1)]


@pytest.mark.parametrize("error", [errno.ENOPROTOOPT, errno.EOPNOTSUPP])
def test_host_without_the_option(error: int) -> None:
    for call in (sst.enable, sst.enabled):
        with pytest.raises(sst.SstUnavailable, match="oegw sst enable") as caught:
            call(Fake(socket.AF_INET, error))
        assert caught.value.errno == errno.ENOPROTOOPT


def test_sockets_without_ports() -> None:
    with socket.socket(socket.AF_UNIX) as local:
        for call in (sst.enable, sst.enabled):
            with pytest.raises(sst.SstUnavailable, match="AF_INET") as caught:
                call(local)
            assert caught.value.errno == errno.EAFNOSUPPORT


def test_other_errors_are_what_they_are() -> None:
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        sst.enable(Fake(socket.AF_INET, errno.EBADF))
    assert not isinstance(caught.value, sst.SstUnavailable)
    assert caught.value.errno == errno.EBADF


def test_an_application_imports_nothing_else_of_the_gateway() -> None:
    """Nor what needs to be installed."""
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from oegw import sst; print(*sys.modules)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stdout.split())
    assert {name for name in loaded if name.startswith("oegw")} == {
        "oegw", "oegw.sst", "oegw.sst.asking", "oegw.sst.asking.option",
    }  # fmt: skip
    assert not loaded & {"cryptography", "dns", "aiohttp", "asyncio", "ctypes", "policy", "ike"}
