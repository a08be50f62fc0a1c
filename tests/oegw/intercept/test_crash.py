"""What holds when no process runs: after a crash, after a stop, and while starting again."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from oegw.commands import Verdict
from oegw.intercept.interface import InterceptError
from policy.rule import Category, Rule, Scope
from tests.support.intercept_net import (
    INSIDE,
    OTHER_PEER,
    PEER,
    PEER6,
    SETTINGS,
    Gateway,
    Net,
    gateway,
    wait_for,
)
from tests.support.intercept_policy import configured_rule, policy, protected_rule

pytestmark = pytest.mark.netns

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def net():
    with Net() as net:
        yield net


@contextmanager
def child(net: Net) -> Iterator[subprocess.Popen[str]]:
    """A process that intercepts, and that is surely gone afterwards."""
    command = [sys.executable, "-m", "tests.support.intercept_child", net.gateway]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            said(process, "ready")
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str], word: str) -> None:
    """Wait until a line of its output begins so."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(word):
            return
    raise AssertionError(f"it ended, and has not said {word}")


@contextmanager
def pinging(net: Net, address: str) -> Iterator[None]:
    """100 pings a second."""
    command = ["nsenter", f"--net=/run/netns/{net.inside}", "ping", "-qi", "0.01", address]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()


def ours(net: Net) -> str:
    """Everything of ours in the kernel, as nft and iptables list it."""
    tables = net.run(net.gateway, "nft", "list", "tables")
    table = "table inet oegw" in tables
    rules = [
        line
        for program in ("iptables", "ip6tables")
        for line in net.run(net.gateway, program, "-t", "mangle", "-S").splitlines()
        if "NFQUEUE" in line
    ]
    return "\n".join([*(["table"] if table else []), *rules])


def test_kill_under_running_traffic_lets_not_one_clear_packet_out(net):
    wire, there = net.capture(net.outside, "out0"), net.udp(net.outside, OTHER_PEER, 9999)
    host, host6 = net.udp(net.inside, INSIDE), net.udp(net.inside, "fd00:1::2")
    own = net.udp(net.gateway, "10.2.0.1")
    with pinging(net, PEER), child(net) as process:
        wire.read()
        wire.packets.clear()  # what left before interception began
        said(process, PEER)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for number in range(20):
            host.send(f"unknown {number}", PEER)
            host6.send(f"protected {number}", PEER6)
            own.send(f"the gateway's own {number}", PEER)
            host.send(f"permitted {number}", OTHER_PEER)
        came: list[str] = []
        wait_for(lambda: came.extend(there.receive(0.1)) or len(came) == 20)
        assert wire.to(PEER) == wire.to(PEER6) == []
        with gateway(net, policy(protected_rule(PEER))) as gate:  # and a restart is no gap
            gate.await_trapped()
            gate.wait(gate.interception.replace_policy(policy(configured_rule(PEER))))
        wait_for(lambda: guard_drops(net) > 20)  # the guard alone, for a while
        assert wire.to(PEER) == []


def has_nft_queue(gate: Gateway) -> bool:
    return gate.interception.queue_kind == "nft"


def guard_drops(net: Net) -> int:
    listing = net.run(net.gateway, "nft", "list", "counter", "inet", "oegw", "guard_dropped")
    return int(listing.split("packets ")[1].split()[0])


def test_a_restart_cleans_up_and_replaces(net):
    with child(net) as process:
        process.kill()
        process.wait()
    left = ours(net)
    with gateway(net, policy()) as gate:
        assert left.count("--comment oegw-oegw") == (0 if has_nft_queue(gate) else 4)
        assert ours(net) == left
        net.udp(net.inside, INSIDE).send("a", OTHER_PEER)  # the cached permit is gone
        gate.await_trapped()
    assert ours(net) == ""
    with child(net) as process:
        process.kill()
        process.wait()
    other = replace(SETTINGS, mark_mask=0x300000, queue=4511)
    with gateway(net, policy(), other) as gate:
        lines = ours(net).splitlines()
        if has_nft_queue(gate):
            assert lines == ["table"]
            trap = net.run(net.gateway, "nft", "list", "chain", "inet", "oegw", "trap")
            assert re.search(r"0x0*100000\b", trap)
            assert re.search(r"queue .*\b4511\b", trap)
        else:
            assert len(lines) == 5
            assert all("0x100000/0x300000" in line and "4511" in line for line in lines[1:])
        net.udp(net.inside, INSIDE).send("a", OTHER_PEER)
        gate.await_trapped()
    assert ours(net) == ""


def test_the_guard_outlives_the_process_and_the_rest_does_not(net):
    there, inside = net.udp(net.outside, OTHER_PEER, 9999), net.udp(net.inside, INSIDE, 9999)
    wire = net.capture(net.outside, "out0")
    table = policy(
        protected_rule(PEER), configured_rule("fd00:9::/64"), configured_rule("10.8.0.0/16")
    )
    net.run(net.outside, "ip", "addr", "add", "10.8.0.2/32", "dev", "lo")
    host = net.udp(net.inside, INSIDE)
    with gateway(net, table) as gate:
        host.send("held", OTHER_PEER)
        gate.await_trapped()
    assert ours(net) == "table"
    host.send("after", OTHER_PEER)
    assert there.receive(2) == ["after"]  # and what was held is gone
    host.send("secret", PEER)
    net.udp(net.gateway, "fd00:2::1").send("secret", PEER6)
    net.udp(net.outside, "10.8.0.2").send("forged", INSIDE)
    net.udp(net.outside, OTHER_PEER).send("welcome", INSIDE)
    assert inside.receive(2) == ["welcome"]
    listing = net.run(net.gateway, "nft", "list", "counters", "table", "inet", "oegw")
    assert "guard_dropped {\n\t\tpackets 2 " in listing
    assert "clear_inbound_dropped {\n\t\tpackets 1 " in listing
    assert wire.to(PEER) == wire.to(PEER6) == []
    with gateway(net, policy()):
        pass
    assert ours(net) == ""


def test_a_lost_jump_to_the_queue_is_no_way_out(net):
    """Somebody flushes iptables: what was to be queued is dropped, not sent.

    Where nft has a queue, nothing of ours is in iptables, and the packet waits as ever.
    """
    wire = net.capture(net.outside, "out0")
    with gateway(net, policy()) as gate:
        net.run(net.gateway, "iptables", "-t", "mangle", "-F")
        net.udp(net.inside, INSIDE).send("a", PEER)
        if has_nft_queue(gate):
            gate.await_trapped()
        else:
            wait_for(lambda: gate.counters["trap_escaped_dropped"] == 1)
    assert wire.to(PEER) == []


def test_a_lost_route_to_the_tunnel_is_no_way_out(net):
    wire = net.capture(net.outside, "out0")
    with gateway(net, policy()) as gate:
        scope = Scope(ip_network(INSIDE), ip_network(PEER))
        gate.call(gate.interception.install_policy, scope, Verdict.TUNNEL, None, False)
        net.run(net.gateway, "ip", "link", "del", "oegw0")
        net.udp(net.inside, INSIDE).send("a", PEER)
        wait_for(lambda: gate.counters["tunnel_escaped_dropped"] == 1)
    assert wire.to(PEER) == []


FOREIGN = """
table inet foreign {
    set oegw { type ipv4_addr; elements = { 10.9.0.77 } }
    chain forward {
        type filter hook forward priority 0; policy accept;
        ip daddr @oegw drop
    }
}
table ip oegw {
    chain mine {
        counter accept
    }
}
"""


def _foreign(net: Net) -> str:
    """All rules but ours.  iptables' chains of mangle come into being with the first rule."""
    lists = [
        net.run(net.gateway, "nft", "-s", "list", "table", "inet", "foreign"),
        net.run(net.gateway, "nft", "-s", "list", "table", "ip", "oegw"),
    ]
    for program in ("iptables", "ip6tables"):
        rules = net.run(net.gateway, program, "-t", "mangle", "-S")
        lists += [line for line in rules.splitlines() if "oegw-oegw" not in line]
    return "\n".join(lists)


def test_the_rules_of_others_stay_untouched(net):
    net.run(net.gateway, "nft", FOREIGN)
    for comment in ("oegw", "oegw-oegw2", "not oegw-oegw"):
        command = ("iptables", "-w", "-t", "mangle", "-A", "PREROUTING", "-m", "mark")
        words = ("--mark", "0x1", "-j", "NFQUEUE", "--queue-num", "9", "-m", "comment", "--comment")
        net.run(net.gateway, *command, *words, comment)
    before = _foreign(net)
    with gateway(net, policy(configured_rule(PEER))) as gate:
        assert _foreign(net) == before
        gate.wait(gate.interception.replace_policy(policy()))
    assert _foreign(net) == before
    assert ours(net).count("NFQUEUE") == 3
    with child(net) as process:
        process.kill()
        process.wait()
    with gateway(net, policy(Rule("all", Category.PERMIT))):
        pass
    assert _foreign(net) == before


def test_a_refused_start_changes_nothing(net, monkeypatch):
    """The kernel's last word comes with the table itself: all that went before is undone."""
    with child(net) as process:
        process.kill()
        process.wait()
    before = net.run(net.gateway, "nft", "-s", "list", "ruleset")
    monkeypatch.setattr("oegw.intercept.interception.whole_table", lambda *_, **__: "nonsense\n")
    other = Gateway(net.gateway, replace(SETTINGS, mark_mask=0x300000))
    with pytest.raises(InterceptError, match="nonsense"):
        other.start(policy())
    other.end()
    assert net.run(net.gateway, "nft", "-s", "list", "ruleset") == before
