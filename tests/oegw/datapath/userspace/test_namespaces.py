"""Two gateways and two hosts in network namespaces: real packets through the workers."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from oegw.datapath.userspace.core.choice import what_is_missing
from tests.support.datapath_lab import B6, GATEWAY_B4, Gateway, Lab

pytestmark = pytest.mark.netns


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as built:
        yield built


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("family", "encapsulation", "algorithm"),
    [
        (4, "esp", "gcm-128"),
        (4, "udp", "cbc-sha2"),
        (6, "esp", "3des-md5"),
        (6, "udp", "gcm-256"),
    ],
)
def test_ping_both_families(lab: Lab, family: int, encapsulation: str, algorithm: str) -> None:
    gwa, gwb = lab.start(family, encapsulation, algorithm)
    assert lab.ping("-c", "3"), lab.last
    assert lab.ping("-c", "3", target=B6), lab.last
    counters = gwa.counters()
    assert counters["esp_out_packets"] == counters["esp_in_packets"] == 6
    assert gwb.counters()["esp_in_packets"] == 6
    # Large, not to be fragmented: the answer names the MTU of the tunnel.
    assert not lab.ping("-c", "2", "-M", "do", "-s", "1472")
    assert re.search(r"mtu ?= ?14\d\d", lab.last), lab.last
    assert not lab.ping("-c", "2", "-M", "do", "-s", "1452", target=B6)
    assert re.search(r"mtu ?= ?1[34]\d\d", lab.last), lab.last
    # Large, but may be fragmented: it arrives.
    assert lab.ping("-c", "1", "-M", "dont", "-s", "1472"), lab.last
    assert gwa.counters()["icmp_too_big"] >= 2


def test_narrow_path_is_learned(lab: Lab) -> None:
    """A router between the gateways that takes less: here, the outgoing route itself shrinks."""
    gwa, _ = lab.start(4, "esp")
    assert lab.ping("-c", "1"), lab.last
    lab.inside(lab.gwa, "ip", "route", "add", f"{GATEWAY_B4}/32", "dev", "out0", "mtu", "1000")
    assert not lab.ping("-c", "2", "-M", "do", "-s", "1200")
    assert re.search(r"mtu ?= ?9\d\d", lab.last), lab.last
    assert gwa.counters()["drop_out_path_mtu"] == 1
    assert lab.ping("-c", "1", "-M", "dont", "-s", "1200"), lab.last


def restarted(gateway: Gateway, name: str) -> bool:
    pid, restarts = gateway.restarted()[name]
    return pid is not None and restarts == 1


def in_clear(lab: Lab) -> int:
    """Echo requests that arrived at bob, by his own count."""
    text = lab.inside(lab.bob, "nstat", "-az", "IcmpInEchos", "Icmp6InEchos")
    return sum(int(count) for count in re.findall(r"InEchos\s+(\d+)", text))


@pytest.mark.parametrize("name", ["sealing 0", "opening 0"])
def test_a_dead_worker_has_a_successor_with_its_sas_and_numbers(lab: Lab, name: str) -> None:
    gwa, gwb = lab.start(4, "udp")
    assert lab.ping("-c", "3"), lab.last
    os.kill(gwa.workers[name], signal.SIGKILL)
    wait_for(lambda: restarted(gwa, name))
    assert gwa.restarted()[name][0] != gwa.workers[name]
    assert lab.ping("-c", "3"), lab.last
    counters, far = gwa.counters(), gwb.counters()
    # What was counted is not forgotten, and no number came twice (the peer would drop it).
    assert counters["esp_out_packets"] == counters["esp_in_packets"] == 6
    assert far["esp_in_packets"] == 6
    assert not any(drop.startswith("drop_in") for drop in [*counters, *far])
    others = {other: pid for other, pid in gwa.workers.items() if other != name}
    assert all(gwa.restarted()[other] == (pid, 0) for other, pid in others.items())


@pytest.mark.parametrize("encapsulation", ["esp", "udp"])
def test_several_workers_each_with_its_share(lab: Lab, encapsulation: str) -> None:
    gwa, gwb = lab.start(4, encapsulation, workers=2, core="python")
    names = {"sealing 0", "sealing 1", "opening 0", "opening 1"}
    assert set(gwa.workers) == set(gwb.workers) == names
    assert lab.ping("-c", "3", "-W", "10"), lab.last
    assert lab.ping("-c", "3", "-W", "10", target=B6), lab.last
    for name in names:
        os.kill(gwb.workers[name], signal.SIGKILL)
    for name in names:
        wait_for(lambda name=name: restarted(gwb, name), 30)
    assert lab.ping("-c", "3", "-W", "10"), lab.last
    assert lab.ping("-c", "3", "-W", "10", target=B6), lab.last
    for gateway in (gwa, gwb):
        counters = gateway.counters()
        assert counters["esp_out_packets"] == counters["esp_in_packets"] == 12
        assert not [counter for counter in counters if counter.startswith("drop_in")]
    assert {restarts for _, restarts in gwb.restarted().values()} == {1}


def test_a_compiled_core_that_keeps_crashing_gives_way(lab: Lab) -> None:
    missing = what_is_missing()
    if missing is not None:
        pytest.skip(f"no compiled core: {missing}")
    gwa, _ = lab.start(4, "udp")
    assert set(gwa.cores().values()) == {"compiled"}
    for name in ("sealing 0", "opening 0", "sealing 0"):
        before = gwa.restarted()[name]
        os.kill(before[0] or 0, signal.SIGSEGV)
        wait_for(lambda name=name, before=before: gwa.restarted()[name][1] > before[1])
        wait_for(lambda: all(pid for pid, _ in gwa.restarted().values()))
    wait_for(lambda: set(gwa.cores().values()) == {"python"})
    assert lab.ping("-c", "3"), lab.last
    assert gwa.counters()["esp_out_packets"] == 3


def test_packets_wait_while_there_is_no_worker(lab: Lab) -> None:
    gwa, _ = lab.start(4, "esp")
    assert lab.ping("-c", "1"), lab.last
    for name in ("sealing 0", "opening 0"):
        os.kill(gwa.restarted()[name][0] or 0, signal.SIGKILL)
        assert lab.ping("-c", "10", "-i", "0.02", "-W", "5"), lab.last
        assert " 0% packet loss" in lab.last
        assert gwa.restarted()[name][1] == 1


def test_a_lost_device_is_reported_and_nothing_leaves_in_clear(lab: Lab) -> None:
    gwa, _ = lab.start(4, "esp")
    assert lab.ping("-c", "1"), lab.last
    lab.inside(lab.gwa, "ip", "link", "del", "oegw0")
    assert gwa.read("event") == "DatapathFailed"
    before = in_clear(lab)
    assert not lab.ping("-c", "2")
    assert not lab.ping("-c", "2", target=B6)
    assert "nreachable" in lab.last
    assert in_clear(lab) == before


def test_workers_end_with_their_control_process(lab: Lab) -> None:
    gwa, gwb = lab.start(4, "esp")
    assert lab.ping("-c", "1"), lab.last
    for pid in gwa.workers.values():
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGINT)
    assert lab.ping("-c", "1"), lab.last
    assert {restarts for _, restarts in gwa.restarted().values()} == {0}
    gwa.process.kill()
    wait_for(lambda: "oegw0" not in lab.inside(lab.gwa, "ip", "link"))
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in gwa.workers.values()))
    before = in_clear(lab)
    assert not lab.ping("-c", "2")
    assert in_clear(lab) == before
    # A new one takes over what is left, and an orderly end removes all of it.
    # (Both sides anew: the keys of this test are fixed, so the sequence numbers start again.)
    assert gwb.ask("close", "closed")
    gwa, _ = lab.start(4, "esp")
    assert lab.ping("-c", "1"), lab.last
    assert gwa.ask("close", "closed")
    for family in ("-4", "-6"):
        assert "4500" not in lab.inside(lab.gwa, "ip", family, "rule")
        routes = lab.inside(lab.gwa, "ip", family, "route", "show", "table", "all")
        assert "table 4500" not in routes


def test_foreign_rules_and_routes_stay(lab: Lab) -> None:
    ip = ("ip", "-4")
    lab.inside(lab.gwa, *ip, "rule", "add", "priority", "4500", "fwmark", "0x7", "table", "4500")
    lab.inside(lab.gwa, *ip, "route", "add", "10.9.0.0/16", "dev", "out0", "table", "4500")
    gwa = lab.start_one("a")
    assert gwa.ask("close", "closed")
    assert "fwmark 0x7" in lab.inside(lab.gwa, *ip, "rule")
    shown = lab.inside(lab.gwa, *ip, "route", "show", "table", "4500")
    assert "10.9.0.0/16" in shown
    assert "default" not in shown
