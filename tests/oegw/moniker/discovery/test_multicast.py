"""Exported services by mDNS, seen by python-zeroconf on the other end of a link."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from oegw.moniker.discovery import multicast
from oegw.moniker.discovery.export import Export
from oegw.moniker.settings import ExportSettings, MonikerSettings
from oegw.trace import JsonTrace

ROOT = Path(__file__).parents[4]

EXPORTING = """
import asyncio, sys
from oegw.moniker.discovery.export import Export
from oegw.moniker.settings import ExportSettings, MonikerSettings
from oegw.trace import JsonTrace
from tests.support.moniker_entries import entry

async def main():
    entries = [
        entry(port=28403, text=("episode=4",)),
        entry("chess", "1.2", port=28404, namespace="reynolds", weight=7),
        entry("com.example.dots"),
    ]
    trace = JsonTrace(sys.stderr, lambda: 0.0)
    settings = MonikerSettings(export=ExportSettings(multicast=("v0",), host="bob.example"))
    export = Export(settings, lambda: entries, trace)
    await export.start()
    loop = asyncio.get_running_loop()
    while line := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
        if line == "ended":
            del entries[0]
    await export.close()

asyncio.run(main())
"""

LOOKING = """
import asyncio, json, sys
from zeroconf import IPVersion, ServiceStateChange
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

async def main():
    speaker = AsyncZeroconf(interfaces=["192.0.2.2"], ip_version=IPVersion.V4Only)
    changes = asyncio.Queue()
    def changed(zeroconf, service_type, name, state_change):
        changes.put_nowait((service_type, name, state_change))
    types = ["_starwars._tcp.local.", "_chess._tcp.local."]
    browser = AsyncServiceBrowser(speaker.zeroconf, types, handlers=[changed])
    try:
        while True:
            kind, name, change = await asyncio.wait_for(changes.get(), 15)
            if change is ServiceStateChange.Added:
                info = AsyncServiceInfo(kind, name)
                await info.async_request(speaker.zeroconf, 5000)
                found = {
                    "name": name, "port": info.port, "weight": info.weight, "host": info.server,
                    "addresses": info.parsed_addresses(),
                    "text": {k.decode(): (v or b"").decode() for k, v in info.properties.items()},
                }
            elif change is ServiceStateChange.Removed:
                found = {"gone": name}
            else:
                continue
            print(json.dumps(found), flush=True)
    finally:
        await browser.async_cancel()
        await speaker.async_close()

asyncio.run(main())
"""


@pytest.fixture
def link() -> Iterator[tuple[str, str]]:
    """Two namespaces and a wire between them."""
    names = tuple(f"oegw-mdns-{os.getpid()}-{end}" for end in "ab")
    try:
        for name in names:
            subprocess.run(["ip", "netns", "add", name], check=True)
        veth = ["link", "add", "v0", "type", "veth", "peer", "name", "v0", "netns", names[1]]
        subprocess.run(["ip", "-n", names[0], *veth], check=True)
        for number, name in enumerate(names, 1):
            for words in (
                ["addr", "add", f"192.0.2.{number}/24", "dev", "v0"],
                ["addr", "add", f"2001:db8::{number}/64", "dev", "v0", "nodad"],
                ["link", "set", "v0", "up"],
                ["link", "set", "lo", "up"],
            ):
                subprocess.run(["ip", "-n", name, *words], check=True)
        yield names[0], names[1]
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False)


def within(namespace: str, program: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["ip", "netns", "exec", namespace, sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


@pytest.mark.netns
def test_zeroconf_sees_what_is_exported_and_that_it_ended(link: tuple[str, str]) -> None:
    with within(link[1], LOOKING) as looking, within(link[0], EXPORTING) as exporting:
        try:
            assert looking.stdout is not None
            assert exporting.stdin is not None
            seen = [json.loads(looking.stdout.readline()) for _ in range(2)]
            by_name = {each["name"]: each for each in seen}
            starwars = by_name["starwars 1 on bob._starwars._tcp.local."]
            assert starwars["port"] == 28403
            assert starwars["host"] == "bob.local."
            assert starwars["addresses"] == ["192.0.2.1", "2001:db8::1"]
            assert starwars["text"]["version"] == "1"
            assert starwars["text"]["episode"] == "4"
            chess = by_name["reynolds::chess 1_2 on bob._chess._tcp.local."]
            assert (chess["weight"], chess["text"]["version"]) == (7, "1.2")
            exporting.stdin.write("ended\n")
            exporting.stdin.flush()
            assert json.loads(looking.stdout.readline()) == {"gone": starwars["name"]}
            exporting.stdin.write("\n")
            exporting.stdin.flush()
            assert json.loads(looking.stdout.readline()) == {"gone": chess["name"]}, "a goodbye"
            assert exporting.wait(10) == 0
        finally:
            for process in (looking, exporting):
                process.kill()


def test_without_the_library_the_start_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "zeroconf", None)
    with pytest.raises(multicast.MulticastUnavailable, match=r"pip install 'oegw\[mdns\]'"):
        multicast.Multicast(["eth0"], "bob", JsonTrace(None, lambda: 0.0))


def test_mdns_is_wanted_where_it_is_configured() -> None:
    assert Export.wanted(MonikerSettings(export=ExportSettings(multicast=("eth0",))))
    assert not Export.wanted(MonikerSettings())
