"""Which datapath is made, and what of an earlier one is cleared away."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from oegw.datapath.choice import DatapathChoice
from oegw.datapath.interface import Capability, DatapathError
from oegw.datapath.userspace.settings import UserspaceSettings
from oegw.settings import DatapathSettings
from tests.support.datapath_lab import ROOT, run


def made(monkeypatch: pytest.MonkeyPatch, wanted: str, lacking: str | None) -> str:
    async def probe(settings: object) -> str | None:
        return lacking

    async def nothing_left(self: object) -> None:
        return None

    monkeypatch.setattr("oegw.datapath.choice.probe", probe)
    monkeypatch.setattr("oegw.datapath.xfrm.datapath.XfrmDatapath.remove_leftovers", nothing_left)
    datapath = asyncio.run(DatapathChoice(DatapathSettings(datapath=wanted), 0x30000).make())
    return type(datapath).__name__


@pytest.mark.parametrize(
    ("wanted", "lacking", "kind"),
    [
        ("auto", None, "XfrmDatapath"),
        ("auto", "no ESP", "UserspaceDatapath"),
        ("kernel", None, "XfrmDatapath"),
        ("userspace", None, "UserspaceDatapath"),
        ("userspace", "no ESP", "UserspaceDatapath"),
    ],
)
def test_choice(
    monkeypatch: pytest.MonkeyPatch, wanted: str, lacking: str | None, kind: str
) -> None:
    assert made(monkeypatch, wanted, lacking) == kind


def test_what_is_configured_reaches_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = DatapathSettings(
        datapath="userspace", tunnel_interface="oe7", core="python", offloads=False, workers=3
    )
    given: list[UserspaceSettings] = []
    monkeypatch.setattr(
        "oegw.datapath.choice.UserspaceDatapath", lambda settings, _: given.append(settings)
    )
    asyncio.run(DatapathChoice(settings, 0x300).make())
    asyncio.run(DatapathChoice(settings, 0x300, ports_change=True).make())
    told = UserspaceSettings("oe7", 0x300, core="python", offloads=False, workers=3)
    assert given == [told, replace(told, ports_change=True)]


def test_a_compiled_core_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oegw.datapath.choice.what_is_missing", lambda: "no libcrypto")
    settings = DatapathSettings(datapath="userspace", core="compiled")
    with pytest.raises(DatapathError, match=r'^datapath\.core = "compiled": no libcrypto$'):
        asyncio.run(DatapathChoice(settings, 0x30000).make())


@pytest.mark.parametrize(
    ("name", "udp", "prefers"),
    [("userspace", True, True), ("userspace", False, False), ("kernel", True, False)],
)
def test_who_is_faster_in_udp(name: str, udp: bool, prefers: bool) -> None:
    assert Capability(name, "asked for", (), udp).prefers_udp is prefers


def test_kernel_that_lacks_something_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DatapathError, match=r'^datapath\.datapath = "kernel": no ESP$'):
        made(monkeypatch, "kernel", "no ESP")


# A gateway with the kernel's datapath is killed; the next one has its own.
_KILLED = """
import asyncio, os
from oegw.datapath.choice import DatapathChoice
from oegw.settings import DatapathSettings
from tests.support.datapath_sas import arriving, make_sa

async def main():
    datapath = await DatapathChoice(DatapathSettings(datapath="kernel"), 0x30000).make()
    await datapath.start(lambda event: None)
    await datapath.install(make_sa())
    await datapath.install(arriving(make_sa(spi=0x3000)))
    os.kill(os.getpid(), 9)

asyncio.run(main())
"""
_NEXT = """
import asyncio
from oegw.datapath.choice import DatapathChoice
from oegw.settings import DatapathSettings

async def main():
    datapath = await DatapathChoice(DatapathSettings(datapath="userspace"), 0x30000).make()
    print((await datapath.start(lambda event: None)).name)
    await datapath.close()

asyncio.run(main())
"""


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"oegwchoice{os.getpid()}"
    run("ip", "netns", "add", name)
    yield name
    run("ip", "netns", "del", name)


@pytest.mark.kernel
@pytest.mark.netns
def test_a_killed_kernel_datapath_is_cleared_away_for_the_other_kind(namespace: str) -> None:
    def inside(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(shutil.which("nsenter")), f"--net=/run/netns/{namespace}", *command],
            capture_output=True, text=True, timeout=120, cwd=ROOT,
        )  # fmt: skip

    assert inside(sys.executable, "-c", _KILLED).returncode == -9
    assert inside("ip", "xfrm", "state").stdout.count(" spi ") == 2
    result = inside(sys.executable, "-c", _NEXT)
    assert result.stdout == "userspace\n", result.stderr
    assert inside("ip", "xfrm", "state").stdout == ""
    assert inside("ip", "xfrm", "policy").stdout == ""
