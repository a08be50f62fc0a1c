"""Sockets that say themselves that nothing of theirs may leave in clear."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network

import pytest

from oegw.commands import Verdict
from oegw.intercept.demanded import SET
from oegw.intercept.guardcheck import GuardCheck
from oegw.intercept.interface import InterceptError
from oegw.intercept.ruleset import checked, residue, static_chains, whole_table
from policy.rule import Category, Rule, Scope
from tests.support.intercept_net import (
    ON_LINK,
    PEER,
    PEER6,
    SETTINGS,
    Gateway,
    Net,
    gateway,
    wait_for,
    within,
)
from tests.support.intercept_policy import policy

MARK = SETTINGS.encrypted_mark
OWN, OWN6 = "10.2.0.1", "fd00:2::1"
FAMILIES = pytest.mark.parametrize(("own", "peer"), [(OWN, PEER), (OWN6, PEER6)])
IP_RECVERR, IPV6_RECVERR = 11, 25  # linux/in.h, linux/in6.h
TOLD = (errno.EHOSTUNREACH, errno.EACCES)  # ICMP 3/13, ICMPv6 1/1


@pytest.fixture
def net() -> Iterator[Net]:
    with Net() as net:
        yield net


class Attempt:
    """A TCP connection from the gateway itself, under way."""

    def __init__(self, net: Net, peer: str, mark: int = MARK, port: int = 9999) -> None:
        self.sock = within(net.gateway, lambda: self._begun(peer, mark, port))
        self.began = time.monotonic()

    def _begun(self, peer: str, mark: int, port: int) -> socket.socket:
        family = socket.AF_INET6 if ":" in peer else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("=I", mark))
        # Without it IPv6 tells of an answer that comes within `connect` after the next SYN only.
        level, option = (
            (socket.IPPROTO_IPV6, IPV6_RECVERR) if ":" in peer else (socket.IPPROTO_IP, IP_RECVERR)
        )
        sock.setsockopt(level, option, 1)
        sock.setblocking(False)
        assert sock.connect_ex((peer, port)) == errno.EINPROGRESS
        return sock

    def outcome(self, seconds: float) -> int | None:
        """Its error, 0 if it is connected, None if it is under way still."""
        if not select.select([], [self.sock], [], seconds)[1]:
            return None
        return self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def listening(net: Net, address: str) -> socket.socket:
    def listen() -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return socket.create_server((address, 9999), family=family)

    return within(net.outside, listen)


def pair(source: str, destination: str) -> Scope:
    return Scope(ip_network(source), ip_network(destination))


@pytest.mark.netns
@FAMILIES
def test_it_is_refused_at_once_when_the_verdict_is_clear(net: Net, own: str, peer: str) -> None:
    wire = net.capture(net.gateway, "out0")
    with listening(net, peer), gateway(net, policy()) as gate:
        attempt = Attempt(net, peer)
        [(_, number, _)] = gate.await_trapped()
        assert attempt.outcome(0) is None, "it waits as all others do"
        gate.call(gate.interception.install_policy, pair(own, peer), Verdict.CLEAR, 60, False)
        gate.call(gate.interception.release, (number,), Verdict.CLEAR)
        assert attempt.outcome(5) in TOLD
        assert Attempt(net, peer).outcome(5) in TOLD, "by the cached verdict"
        assert gate.counters["unencrypted_refused"] == 2
        assert gate.counters["unencrypted_dropped"] == 0
        assert Attempt(net, peer, mark=0).outcome(5) == 0, "others may pass in clear"
        assert len({packet[20:22] for packet in wire.to(peer)}) == 1, "from one port only"


@pytest.mark.netns
@pytest.mark.parametrize("verdict", [Verdict.DENY, Verdict.REFUSE])
def test_what_is_denied_is_not_denied_in_silence(net: Net, verdict: Verdict) -> None:
    with gateway(net, policy()) as gate:
        gate.call(gate.interception.install_policy, pair(OWN, PEER), verdict, 60, False)
        assert Attempt(net, PEER).outcome(5) in TOLD
        attempt = Attempt(net, PEER, mark=0)
        assert attempt.outcome(0.2) == (None if verdict is Verdict.DENY else errno.EHOSTUNREACH)


@pytest.mark.netns
def test_exempt_networks_are_no_way_out(net: Net) -> None:
    """The built-in rule for attached networks comes before all verdicts."""
    with listening(net, ON_LINK), gateway(net, policy()) as gate:
        assert Attempt(net, ON_LINK).outcome(5) in TOLD
        assert Attempt(net, ON_LINK, mark=0).outcome(5) == 0
        assert gate.trapped == []


@pytest.mark.netns
def test_inside_it_may_go_as_it_is(net: Net) -> None:
    with gateway(net, policy()):
        assert Attempt(net, "10.1.0.2").outcome(5) == errno.ECONNREFUSED  # of the host itself


@pytest.mark.netns
@FAMILIES
def test_it_goes_into_the_tunnel(net: Net, own: str, peer: str) -> None:
    tunnel = net.capture(net.gateway, "tap0")
    with gateway(net, policy()) as gate:
        gate.call(gate.interception.install_policy, pair(own, peer), Verdict.TUNNEL, 60, True)
        Attempt(net, peer)
        wait_for(lambda: tunnel.to(peer))
        assert gate.counters["unencrypted_refused"] == gate.counters["unencrypted_dropped"] == 0


@pytest.mark.netns
def test_a_flow_whose_tunnel_goes_away_does_not_go_on_in_clear(net: Net) -> None:
    clear = net.capture(net.gateway, "out0")
    with gateway(net, policy()) as gate:
        gate.call(gate.interception.install_policy, pair(OWN, PEER), Verdict.TUNNEL, 60, True)
        host = net.udp(net.gateway, OWN, mark=MARK)
        host.send("sealed", PEER)
        gate.call(gate.interception.install_policy, pair(OWN, PEER), Verdict.CLEAR, 60, False)
        host.send("open", PEER)
        wait_for(lambda: gate.counters["unencrypted_refused"] == 1)
        gate.call(gate.interception.remove_policy, pair(OWN, PEER))
        host.send("trapped", PEER)
        [(_, number, _)] = gate.await_trapped()
        gate.call(gate.interception.release, (number,), Verdict.CLEAR)
        wait_for(lambda: gate.counters["unencrypted_refused"] == 2)
        assert clear.to(PEER) == []


@pytest.mark.netns
def test_the_guard_holds_when_the_rules_before_it_are_gone(net: Net) -> None:
    clear = net.capture(net.gateway, "out0")
    with gateway(net, policy()) as gate:
        net.run(
            net.gateway, "nft", "flush chain inet oegw output; flush chain inet oegw refuse_output"
        )
        for address, peer in ((OWN, PEER), (OWN6, PEER6)):
            net.udp(net.gateway, address, mark=MARK).send("open", peer)
        assert gate.counters["unencrypted_dropped"] == 2
        assert clear.to(PEER) == clear.to(PEER6) == []


@pytest.mark.netns
def test_after_a_stop_nothing_leaves_where_one_demands_it(net: Net) -> None:
    clear = net.capture(net.gateway, "out0")
    check = within(net.gateway, lambda: GuardCheck(SETTINGS.table, MARK))
    assert not check.stands()
    running = Gateway(net.gateway)
    running.start(policy())
    assert check.stands()
    running.call(running.interception.demand)
    running.end()
    assert check.stands()
    assert Attempt(net, PEER).outcome(5) in TOLD
    assert clear.to(PEER) == []
    net.udp(net.gateway, OWN).send("clear", PEER)
    assert len(clear.to(PEER)) == 1
    with gateway(net, policy()):
        pass
    assert not check.stands(), "the next stop leaves nothing: nobody demands it"


@pytest.mark.netns
def test_another_mark_is_not_taken_for_ours(net: Net) -> None:
    other = within(net.gateway, lambda: GuardCheck(SETTINGS.table, 0x800000))
    with gateway(net, policy()):
        assert not other.stands()


@pytest.mark.netns
def test_incoming_marks_mean_nothing(net: Net) -> None:
    """Somebody's rule has set the bit on what is forwarded: it is not ours there."""
    net.run(
        net.gateway, "nft",
        "table ip others {\n chain before {\n type filter hook prerouting priority -300;\n"
        f"meta mark set {MARK:#x}\n }}\n }}",
    )  # fmt: skip
    there = net.udp(net.outside, PEER, 9999)
    with gateway(net, policy(Rule("yes", Category.PERMIT, None, (ip_network(PEER),)))) as gate:
        host = net.udp(net.inside, "10.1.0.2")
        host.send("hello", PEER)
        [(_, number, _)] = gate.await_trapped()
        gate.call(gate.interception.release, (number,), Verdict.CLEAR)
        assert there.receive(5) == ["hello"]


@pytest.mark.parametrize("wrong", [0, 3, 1 << 32, 0x10000, 0x40000])
def test_a_mark_that_can_not_work_is_named(wrong: int) -> None:
    with pytest.raises(InterceptError, match="encrypted_mark"):
        checked(replace(SETTINGS, encrypted_mark=wrong))


def test_the_residue_has_it_where_it_is_demanded() -> None:
    chains = static_chains(policy())
    asked = replace(SETTINGS, demanded=True)
    text = residue(asked, chains)
    assert f"@{SET} counter name unencrypted_dropped drop" in text
    assert "goto unencrypted" in text
    assert "reject" not in residue(asked, chains, nft_reject=False)
    assert "reject" not in whole_table(asked, chains, nft_queue=True, nft_reject=False)


def test_without_root_the_guard_is_not_seen() -> None:
    if os.geteuid() == 0:
        check = GuardCheck("no_such_table_of_oegw", MARK)
        assert not check.stands()
