"""What of ours is in the kernel: at a start, after a stop, after a crash, beside others."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from oegw.commands import Verdict
from oegw.sst.interface import SstError
from policy.rule import Category, PortRange, Rule, Scope, Sst
from tests.support.intercept_net import (
    INSIDE,
    INSIDE6,
    OTHER_PEER,
    PEER,
    PEER6,
    Net,
    wait_for,
)
from tests.support.intercept_net import gateway as intercepting
from tests.support.intercept_policy import configured_rule, policy
from tests.support.sst_plane import (
    SETTINGS,
    SIGNAL,
    Running,
    deafen,
    off,
    only,
    running,
    settings,
    sst_rule,
)

pytestmark = pytest.mark.netns

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture
def net():
    with Net() as net:
        deafen(net, net.outside)
        yield net


@pytest.fixture
def wire(net):
    return net.capture(net.outside, "out0")


def ours(net: Net) -> str:
    """Everything of ours in the kernel, as nft and iptables list it."""
    tables = net.run(net.gateway, "nft", "list", "tables")
    listing = (
        net.run(net.gateway, "nft", "list", "table", "inet", "oegw_sst")
        if "table inet oegw_sst" in tables
        else ""
    )
    assert "_probe" not in tables
    return listing + "".join(jumps(net))


def jumps(net: Net) -> list[str]:
    return [
        line
        for program in ("iptables", "ip6tables")
        for table in _tables(net, program)
        for line in net.run(net.gateway, program, "-t", table, "-S").splitlines()
        if "oegw-oegw_sst" in line
    ]


def _tables(net: Net, program: str) -> tuple[str, ...]:
    """iptables' tables; a kernel that has nft ``queue`` need not have ``raw``."""
    asked = ["nsenter", f"--net=/run/netns/{net.gateway}", program, "-t", "raw", "-S"]
    has_raw = subprocess.run(asked, check=False, capture_output=True).returncode == 0
    return ("raw", "mangle") if has_raw else ("mangle",)


def test_a_stop_leaves_nothing_if_no_rule_requires_it(net, wire):
    with running(net.gateway, only()) as gate:
        assert len(jumps(net)) == (0 if gate.plane.queue_kind == "nft" else 8)
        assert all("bypass" not in line for line in jumps(net))
        net.run(net.gateway, "iptables", "-t", "mangle", "-A", "POSTROUTING", "-j", "ACCEPT")
    assert ours(net) == ""
    assert "-A POSTROUTING -j ACCEPT" in net.run(
        net.gateway, "iptables", "-t", "mangle", "-S", "POSTROUTING"
    )


def test_nft_lists_the_table_without_complaint(net):
    command = ["nsenter", f"--net=/run/netns/{net.gateway}", "nft"]
    with running(net.gateway, only()):
        for arguments in (["list", "table", "inet", "oegw_sst"], ["-j", "list", "ruleset"]):
            listed = subprocess.run([*command, *arguments], capture_output=True, text=True)
            assert listed.returncode == 0
            assert "Error" not in listed.stderr
            assert "outwards_outside4" in listed.stdout


def test_a_stop_leaves_what_keeps_required_traffic_from_leaving_without(net, wire):
    strict = sst_rule(required=True)
    rules = policy(
        replace(strict, destination=None, protocol=17), default=Rule("rest", Category.PERMIT)
    )
    with running(net.gateway, rules):
        pass
    left = ours(net)
    assert "required_dropped" in left
    assert "map" not in left
    assert jumps(net) == []
    host, host6 = net.udp(net.inside, INSIDE, 4000), net.udp(net.inside, INSIDE6, 4000)
    own = net.udp(net.gateway, "10.2.0.1", 500, mark=SETTINGS.own_mark)
    host.send("x", PEER)
    host6.send("x", PEER6)
    assert net.answers(net.inside, PEER, "1")  # no ports, and not that protocol
    own.send("ike", PEER, 500)
    [packet, *_] = wait_for(lambda: [p for p in wire.to(PEER) if p[9] == 17])
    assert packet.endswith(b"ike")
    assert not [p for p in wire.to(PEER6) if p[6] == 17]
    with running(net.gateway, off()):  # and another start takes it away
        pass
    assert ours(net) == ""


def test_a_gateway_that_no_longer_needs_it_takes_the_rest_away(net):
    with running(net.gateway, policy(default=sst_rule(required=True))):
        pass
    assert "required_dropped" in ours(net)
    assert leftovers_removed(net) == "True"
    assert ours(net) == ""
    assert leftovers_removed(net) == "False", "there was nothing left"


def leftovers_removed(net: Net) -> str:
    """``remove_leftovers`` in a process of its own, as a gateway at its start."""
    program = (
        "import asyncio\n"
        "from oegw.sst.plane.kernel import remove_leftovers\n"
        "from tests.support.sst_plane import SETTINGS\n"
        "print(asyncio.run(remove_leftovers(SETTINGS)))\n"
    )
    command = ["nsenter", f"--net=/run/netns/{net.gateway}", sys.executable, "-c", program]
    return subprocess.run(
        command, cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_inner_that_is_required_is_kept_from_the_device_as_well(net):
    tap = net.capture(net.gateway, "tap0")
    net.run(net.gateway, "ip", "route", "add", OTHER_PEER, "dev", "oegw0")
    with running(net.gateway, policy(default=sst_rule(Sst.INNER, required=True))):
        pass
    net.udp(net.inside, INSIDE, 4000).send("x", OTHER_PEER)
    wait_for(lambda: "packets 1 " in ours(net))
    assert tap.to(OTHER_PEER) == []


@contextmanager
def child(net: Net) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.support.sst_child", net.gateway]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def test_after_a_crash_known_flows_go_on_and_unknown_ones_wait_for_nobody(net, wire):
    """And a start replaces what is there without a gap."""
    host, other = net.udp(net.inside, INSIDE, 4000), net.udp(net.inside, INSIDE, 4001)
    with child(net) as process:
        host.send("known", PEER)
        wait_for(lambda: wire.to(PEER))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert "required_dropped" in ours(net)
        before = jumps(net)
        for _ in range(5):
            host.send("known", PEER)
            other.send("unknown", PEER)
        wait_for(lambda: len(wire.to(PEER)) == 6)
        with running(net.gateway, only(required=True)) as gate:
            assert jumps(net) == before
            other.send("unknown", PEER)
            host.send("known", PEER)
            packets = wait_for(lambda: p if len(p := wire.to(PEER)) == 8 else None)
            assert all(SIGNAL.flagged(p) for p in packets)
            assert sorted(c.sticky for c in gate.listener.caught) == [False, True]
    assert [p for p in wire.to(PEER) if not SIGNAL.flagged(p)] == []


def test_a_start_that_fails_leaves_the_kernel_as_it_was(net):
    with running(net.gateway, only(required=True)) as gate:
        before = ours(net)
        second = Running(net.gateway)
        try:
            with pytest.raises(SstError, match="NFQUEUE"):
                second.start(only())
        finally:
            second.end()
        assert ours(net) == before
        assert gate.counters["flows"] == 0
    with pytest.raises(SstError, match="mark_mask"):
        Running(net.gateway, settings(mark_mask=0x30000))
    with pytest.raises(SstError, match="isn't started"):
        gate.plane.shield(ip_address(PEER), ip_address(PEER))


def test_beside_interception_the_guard_sees_real_ports(net, wire):
    """A configured rule for one port: what leaves sealed by another rule is none of its business,
    and what it claims is dropped, though its ports would be sealed behind it."""
    claimed = configured_rule(PEER, protocol=17, destination_ports=PortRange(53, 53))
    rules = policy(claimed, default=sst_rule(category=Category.PERMIT))
    with intercepting(net, rules) as traps, running(net.gateway, rules):
        pair = Scope(ip_network("10.2.0.1"), ip_network(PEER))
        traps.call(traps.interception.install_policy, pair, Verdict.CLEAR, None, False)
        own = net.udp(net.gateway, "10.2.0.1", 4000)
        own.send("sealed", PEER, 54)
        [packet] = wait_for(lambda: wire.to(PEER))
        assert SIGNAL.flagged(packet)
        own.send("claimed", PEER, 53)
        listing = ["nft", "list", "counter", "inet", "oegw", "guard_dropped"]
        wait_for(lambda: "packets 1 " in net.run(net.gateway, *listing))
        assert len(wire.to(PEER)) == 1


@pytest.mark.parametrize("required", [True, False])
def test_behind_source_nat_of_its_own(net, wire, required):
    """With nft ``queue`` flows are seen behind it; else they are missed, which is counted."""
    net.run(net.gateway, "nft", "add table ip nat0")
    hook = "{ type nat hook postrouting priority 100; }"
    net.run(net.gateway, "nft", f"add chain ip nat0 post {hook}")
    net.run(net.gateway, "nft", 'add rule ip nat0 post oifname "out0" masquerade')
    with running(net.gateway, only(required=required)) as gate:
        host = net.udp(net.inside, INSIDE, 4000)
        host.send("x", PEER)
        if gate.plane.queue_kind == "nft":
            [packet] = wait_for(lambda: wire.to(PEER))
            assert SIGNAL.flagged(packet)
            assert str(gate.listener.caught[0].packet[12:16].hex()) == "0a020001"
        elif required:
            wait_for(lambda: gate.counters["required_dropped"] == 1)
            assert wire.to(PEER) == []
        else:
            [packet] = wait_for(lambda: wire.to(PEER))
            assert not SIGNAL.flagged(packet)
            assert gate.counters["seal_missed"] == 1
