"""The SOCKS server as a process: from a configuration to it, and beside the gateway."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from ipaddress import ip_address, ip_interface
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyroute2 import IPRoute

from oegw import config
from oegw.control import ControlError
from oegw.environment import Links, _Found, links
from oegw.exitcodes import CONFIGURATION
from oegw.socks5.client import Proxy, connect
from oegw.socks5.settings import Limits, Listener, SocksSettings
from oegw.sockschild import socks_child
from oegw.sockslisteners import settings_of
from oegw.socksprocess import Loader
from oegw.socksstatus import status, status_text
from oegw.status import socks_section
from oegw.trace import JsonTrace
from tests.support.intercept_net import Net, within
from tests.support.moniker_daemon import PATIENCE, until

COMMAND = [sys.executable, "-m", "oegw", "socks"]
HEAD = "version = 1\n[dns]\nresolvers = '127.0.0.1'\n"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def configuration(directory: Path, port: int, more: str = "") -> Path:
    path = directory / "oegw.toml"
    path.write_text(
        f'{HEAD}[socks]\nsocket = "s.sock"\n'
        f'[[socks.listener]]\naddress = "127.0.0.1"\nport = {port}\n{more}'
    )
    return path


@contextmanager
def serving(path: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [*COMMAND, "serve", "--config", str(path)], stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            until(lambda: answers(path) or process.poll() is not None)
            yield process
        finally:
            process.kill()


def told(path: Path) -> dict[str, Any]:
    return status(path.parent / "s.sock", 1.0)


def answers(path: Path) -> bool:
    try:
        return bool(told(path))
    except ControlError:
        return False


LOOPBACK = '[[socks.rule]]\nallow = true\ndestinations = "127.0.0.0/8"\n'


def test_it_serves_reloads_and_ends(tmp_path: Path) -> None:
    port = free_port()
    path = configuration(tmp_path, port)
    proxy = Proxy("127.0.0.1", port)
    with serving(path) as process, socket.create_server(("127.0.0.1", 0)) as destination:
        there = destination.getsockname()[1]
        with pytest.raises(PermissionError):
            connect(proxy, "localhost", there)
        said = subprocess.run(
            [*COMMAND, "status", "--config", str(path)], capture_output=True, text=True, check=True
        )
        assert f"process {process.pid}" in said.stdout
        good = path.read_text() + LOOPBACK
        path.write_text(good)
        process.send_signal(signal.SIGHUP)
        until(lambda: reaches(proxy, there))
        path.write_text(good + "[socks.limits]\nidle = soon\n")
        process.send_signal(signal.SIGHUP)
        await_line(process, "the old settings stay")
        path.write_text(good.replace("127.0.0.1", "127.0.0.2"))
        process.send_signal(signal.SIGHUP)
        until(lambda: reaches(Proxy("127.0.0.2", port), there))
        path.write_text(good.replace("s.sock", "other.sock"))
        process.send_signal(signal.SIGHUP)
        await_line(process, "[socks] socket changed")
        with connect(proxy, "127.0.0.1", there):
            pass
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    assert not (tmp_path / "s.sock").exists()


def await_line(process: subprocess.Popen[str], words: str) -> None:
    """It says so; what it says of this machine is not looked at."""
    assert process.stderr is not None
    for line in process.stderr:
        if words in line:
            return
    raise AssertionError(f"ended without saying {words!r}")


def reaches(proxy: Proxy, port: int) -> bool:
    try:
        connect(proxy, "localhost", port).close()
    except OSError:
        return False
    return True


def test_a_configuration_that_is_wrong_is_the_end_of_a_start(tmp_path: Path) -> None:
    path = configuration(tmp_path, 1080, "interface = 'no-such-link'\n")
    done = subprocess.run(
        [*COMMAND, "serve", "--config", str(path)], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == CONFIGURATION
    assert "socks.listener[1].interface: there is no interface 'no-such-link'" in done.stderr


def test_a_trace_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    path = configuration(tmp_path, 1080, '[gateway]\ntrace = "none/trace.jsonl"\n')
    with pytest.raises(OSError, match=r"gateway\.trace"):
        Loader(path)


# ---------------------------------------------------------------- where it listens

PUBLIC = "198.51.100.7/24"
BOX = Links(
    frozenset({"lo", "eth0", "eth1", "oegw0"}),
    ("eth1",),
    (
        ("eth0", ip_address("192.168.1.1")),
        ("eth0", ip_address("2001:db8:1::1")),
        ("oegw0", ip_address("192.0.2.1")),
    ),
    frozenset({4, 6}),
)


def listeners(text: str, box: Links = BOX) -> tuple[Listener, ...]:
    return settings_of(config.parse(f"{HEAD}{text}", Path("/nowhere/oegw.toml")), box).listeners


def test_by_default_it_listens_inside_and_on_loopback() -> None:
    assert listeners("[socks]\n") == (
        Listener(ip_address("192.168.1.1"), interface="eth0"),
        Listener(ip_address("2001:db8:1::1"), interface="eth0"),
        Listener(ip_address("127.0.0.1")),
        Listener(ip_address("::1")),
    )


def test_a_box_without_an_outside_has_no_inside() -> None:
    alone = replace(BOX, outside=(), inside=(), families=frozenset({4}))
    assert listeners("[socks]\n", alone) == (Listener(ip_address("127.0.0.1")),)


def test_without_password_an_address_belongs_to_its_interface() -> None:
    found = listeners('[[socks.listener]]\naddress = "2001:db8:1::1"\nport = 1081\n')
    assert found == (Listener(ip_address("2001:db8:1::1"), 1081, interface="eth0"),)
    found = listeners('[[socks.listener]]\naddress = "127.0.0.2"\n')
    assert found == (Listener(ip_address("127.0.0.2")),)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('address = "192.1.1.4"\n', "192.1.1.4 is neither loopback nor of an inside interface"),
        ('address = "192.0.2.1"\n', "192.0.2.1 is neither loopback nor of an inside interface"),
        ('address = "192.1.1.4"\ninterface = "eth1"\n', "eth1 is outside: strangers must show"),
        ('address = "127.0.0.2"\ninterface = "eth1"\n', "eth1 is outside: strangers must show"),
        ('address = "192.0.2.1"\ninterface = "oegw0"\n', "oegw0 is the tunnels' interface"),
        ('address = "192.1.1.4"\ninterface = "eth7"\n', "there is no interface 'eth7'"),
    ],
)
def test_strangers_are_not_served_without_password(text: str, words: str) -> None:
    with pytest.raises(config.ConfigError) as refused:
        listeners("[[socks.listener]]\naddress = '127.0.0.1'\n[[socks.listener]]\n" + text)
    [problem] = refused.value.problems
    assert problem.startswith("socks.listener[2].")
    assert words in problem


def test_an_address_that_comes_later_is_listened_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a start of the box the inside may have its addresses after us."""
    path = tmp_path / "oegw.toml"
    path.write_text(HEAD + "[socks]\n")
    box = replace(BOX, inside=())
    told = threading.Event()
    monkeypatch.setattr("oegw.socksprocess.links", lambda *_: box)
    monkeypatch.setattr("oegw.socksprocess.LOOK", 0.001)
    monkeypatch.setattr("os.kill", lambda _, number: number == signal.SIGHUP and told.set())
    loader = Loader(path)
    before = loader()
    assert [each.address.is_loopback for each in before.settings.listeners] == [True, True]
    over = threading.Event()
    watch = threading.Thread(target=loader.watch, args=(over,))
    watch.start()
    try:
        assert not told.wait(0.05)
        path.write_text(HEAD + "[socks]\nprefer = '4'\n")  # not read until somebody says so
        box = BOX
        assert told.wait(PATIENCE)
    finally:
        over.set()
        watch.join()
    after = loader()
    assert [str(each.address) for each in after.settings.listeners][:1] == ["192.168.1.1"]
    assert after.settings.prefer == "6"


@pytest.mark.netns
def test_a_line_that_has_lost_its_route_is_outside_still(tmp_path: Path) -> None:
    """Strangers are there, whatever became of the route; and who was inside stays that."""
    path = tmp_path / "oegw.toml"
    path.write_text(HEAD + "[socks]\n")
    with Net() as net:

        def listening(loader: Loader) -> set[str]:
            found = within(net.gateway, lambda: loader().settings.listeners)
            return {str(each.interface) for each in found}

        loader = within(net.gateway, lambda: Loader(path))
        assert listening(loader) == {"in0", "None"}
        for family in ("-4", "-6"):
            net.run(net.gateway, "ip", family, "route", "flush", "default")
        assert listening(loader) == {"in0", "None"}
        net.run(net.gateway, "ip", "route", "add", "default", "via", "10.1.0.2")
        assert listening(loader) == {"None"}


@pytest.mark.netns
@pytest.mark.parametrize(
    "routes",
    [
        ("-4 route add 0.0.0.0/1 via 10.2.0.2", "-4 route add 128.0.0.0/1 via 10.2.0.2"),
        ("-4 route add default table 77 nexthop via 10.2.0.2 nexthop via 10.2.0.9",),
        ("-6 route add 2000::/3 via fd00:2::2",),
    ],
    ids=["halves", "several-ways", "ipv6"],
)
def test_what_leads_to_everywhere_is_outside(routes: tuple[str, ...]) -> None:
    with Net() as net:
        for route in routes:
            net.run(net.gateway, "ip", *route.split())
        found = within(net.gateway, lambda: links((), "oegw0"))
        assert found.outside == ("out0",)
        assert {name for name, _ in found.inside} == {"in0"}


def test_what_was_outside_once_stays_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A default route may move into a VPN, or to another provider: the address that it leaves is
    as public as before, and no place for a listener without a password."""
    path = tmp_path / "oegw.toml"
    path.write_text(HEAD + "[socks]\n")
    addresses = [("eth0", 0, ip_interface("192.168.1.1/24")), ("eth1", 0, ip_interface(PUBLIC))]
    names = {1: "eth0", 2: "eth1", 3: "wg0"}

    def routed(*by: str) -> None:
        monkeypatch.setattr("oegw.environment._read", lambda: _Found(names, addresses, by, by))

    routed("eth1")
    itself, by_the_gateway = Loader(path), Loader(path, ("eth1",))
    ours = ["192.168.1.1", "127.0.0.1"]
    assert [str(each.address) for each in itself().settings.listeners] == ours
    routed("wg0")
    for loader in (itself, by_the_gateway):
        assert [str(each.address) for each in loader().settings.listeners] == ours


def test_the_links_of_this_box() -> None:
    box = links((), "oegw0")
    assert "lo" in box.names
    assert all(name not in box.outside and not each.is_loopback for name, each in box.inside)
    everything = links(("lo",), "oegw0")
    assert everything.outside == ("lo",)
    assert set(box.inside) <= set(everything.inside)


def test_an_interface_that_comes_between_two_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has an address, or a default route, and was not there when interfaces were asked for."""

    with IPRoute() as asked:
        late = SimpleNamespace(
            get_links=list,
            get_addr=asked.get_addr,
            get_default_routes=asked.get_default_routes,
            get_routes=asked.get_routes,
        )
        monkeypatch.setattr("oegw.environment.IPRoute", lambda: nullcontext(late))
        assert links((), "oegw0") == Links(frozenset(), (), (), frozenset())


# ---------------------------------------------------------------- beside the gateway


def test_a_child_lives_as_long_as_the_table_does(tmp_path: Path) -> None:
    path = configuration(tmp_path, free_port())
    trace = JsonTrace(None, time.time)
    settings = SocksSettings(present=True, socket=tmp_path / "s.sock")

    async def scenario() -> None:
        child = socks_child(path, trace)
        assert await child.follow(SocksSettings()) == []
        assert await child.row() is None
        assert await child.follow(settings) == []
        await asyncio.to_thread(until, lambda: answers(path))
        row = await child.row()
        assert row is not None
        assert row["listeners"][0]["address"] == "127.0.0.1"
        assert await child.follow(replace(settings, limits=Limits(total=7))) == []
        (note,) = await child.follow(replace(settings, socket=tmp_path / "other.sock"))
        assert "socket changed: takes effect at the next restart" in note
        path.write_text(path.read_text().replace("127.0.0.1", "192.0.2.9", 2))
        (note,) = await child.follow(settings)
        assert note.startswith("[socks] the old settings stay: socks.listener[1].address: 192.0.2")
        assert await child.follow(SocksSettings()) == []
        assert not answers(path)

    asyncio.run(scenario())
    assert trace.counters["socks.ended"] == 0


# ---------------------------------------------------------------- what it says of itself

TOLD = {
    "pid": 7, "socket": "/run/oegw/socks.sock",
    "listeners": [
        {"address": "192.168.1.1", "port": 1080, "authentication": "none", "interface": "eth0",
         "encrypted": False, "listening": True},
        {"address": "::", "port": 1081, "authentication": "password", "interface": None,
         "encrypted": True, "listening": False},
    ],
    "connections": {"total": 6, "negotiating": 0, "users": {"alice": 3}, "associations": {"a": 2}},
    "under_way": {"relayed": 3, "binding": 1, "associations": 2},
    "octets": {"to_destination": 1000, "to_client": 2_000_000},
    "octets_of_users": {"alice": 5000}, "ids": {"ids": 4}, "counters": {"drop.rule": 9},
}  # fmt: skip


def test_its_state_is_told_in_words() -> None:
    text = status_text({**TOLD, "started": time.time() - 61})
    for words in (
        "process 7, up for 61s", "192.168.1.1:1080 of eth0",
        "[::]:1081, with password, encrypted only (not yet", "total 6, negotiating 0",
        "relayed 3, binding 1, associations 2", "ids 4",
        "alice", "drop.rule",
    ):  # fmt: skip
        assert words in text
    assert status_text({}).startswith("Server")


def test_the_gateways_status_has_a_line_of_it() -> None:
    assert socks_section(None) == []
    assert socks_section(TOLD)[1] == (
        "SOCKS: process 7, 1 of 2 listeners: 3 relayed, 1 binding, 2 associations, 2.0M"
    )
    assert socks_section({"reason": "it is being started"})[1] == (
        "SOCKS: does not answer: it is being started"
    )
