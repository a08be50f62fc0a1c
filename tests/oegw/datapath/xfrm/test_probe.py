"""The probe says what iproute2 finds out as well, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.datapath_lab import ROOT, run

_STATE = (
    "ip", "xfrm", "state", "add", "src", "192.0.2.9", "dst", "192.0.2.10", "proto", "esp",
    "spi", "0x999", "mode", "tunnel", "enc", "cbc(aes)", "0x" + "11" * 16, "auth", "hmac(sha1)",
    "0x" + "22" * 20,
)  # fmt: skip


_CHILD = """
import asyncio
from oegw.datapath.interface import DatapathError
from oegw.datapath.xfrm.datapath import XfrmDatapath
from oegw.datapath.xfrm.probe import probe
from oegw.datapath.xfrm.settings import XfrmSettings

async def start():
    datapath = XfrmDatapath(XfrmSettings())
    try:
        await datapath.start(lambda event: None)
        return "started"
    except DatapathError as error:
        return str(error)
    finally:
        await datapath.close()

print(asyncio.run(probe(XfrmSettings())))
print(asyncio.run(probe(XfrmSettings(encapsulation_port=None))))
print(asyncio.run(start()))
"""


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"oegwprobe{os.getpid()}"
    run("ip", "netns", "add", name)
    yield name
    run("ip", "netns", "del", name)


def inside(name: str, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(shutil.which("nsenter")), f"--net=/run/netns/{name}", *command],
        capture_output=True, text=True, timeout=60, cwd=ROOT,
    )  # fmt: skip


@pytest.mark.parametrize(
    "capable",
    [
        pytest.param(None, id="this-kernel", marks=pytest.mark.netns),
        pytest.param(True, id="with-ipsec", marks=pytest.mark.kernel),
    ],
)
def test_probe(namespace: str, capable: bool | None) -> None:
    done = inside(namespace, sys.executable, "-c", _CHILD)
    assert done.returncode == 0, done.stderr
    reason, plain, start = done.stdout.splitlines()
    for words in (("xfrm", "state"), ("xfrm", "policy"), ("-o", "link", "show", "type", "xfrm")):
        assert inside(namespace, "ip", *words).stdout.strip() == ""
    for family in ("-4", "-6"):
        assert "4500" not in inside(namespace, "ip", family, "rule").stdout
    by_iproute2 = inside(namespace, *_STATE).returncode == 0
    assert capable is None or by_iproute2 is capable
    if by_iproute2:
        assert (reason, plain, start) == ("None", "None", "started")
    else:
        assert reason.startswith("the kernel has no ")
        assert plain == start == reason
