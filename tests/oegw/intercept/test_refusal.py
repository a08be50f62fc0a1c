"""What is denied with an answer: ICMP 3/13, ICMPv6 1/1 (RFC 4322 section 3.1.4)."""

from __future__ import annotations

import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import ip_network

import pytest

from oegw.commands import Verdict
from oegw.intercept.ruleset import static_chains, whole_table
from policy.rule import Category, PortRange, Rule, Scope
from tests.support.intercept_net import (
    INSIDE,
    INSIDE6,
    OTHER_PEER,
    PEER,
    PEER6,
    SETTINGS,
    Capture,
    Net,
    gateway,
    wait_for,
    within,
)
from tests.support.intercept_policy import policy

FAMILIES = pytest.mark.parametrize(("source", "peer"), [(INSIDE, PEER), (INSIDE6, PEER6)])


def deny(destination: str, *, icmp: bool = True, **more: object) -> Rule:
    return Rule(
        "no", Category.DENY, None, (ip_network(destination),), icmp=icmp, **more
    )  # fmt: skip


def pair(source: str, destination: str) -> Scope:
    return Scope(ip_network(source), ip_network(destination))


def prohibitions(capture: Capture) -> list[bytes]:
    """The packets that an answer quotes, for each answer that says administratively prohibited."""
    quoted = []
    for packet in capture.read():
        if packet[0] >> 4 == 4 and packet[9] == 1 and packet[20:22] == bytes((3, 13)):
            quoted.append(packet[28:])
        if packet[0] >> 4 == 6 and packet[6] == 58 and packet[40:42] == bytes((1, 1)):
            quoted.append(packet[48:])
    return quoted


@pytest.fixture
def net() -> Iterator[Net]:
    with Net() as net:
        # The kernel's own limit is one message in a second for each host, after a burst.
        net.run(net.gateway, "sysctl", "-qw", "net.ipv4.icmp_ratelimit=0")
        net.run(net.gateway, "sysctl", "-qw", "net.ipv6.icmp.ratelimit=0")
        yield net


@pytest.mark.netns
@FAMILIES
def test_first_packet_of_a_denied_rule_is_answered_and_never_trapped(
    net: Net, source: str, peer: str
) -> None:
    answers = net.capture(net.inside, "in0")
    with gateway(net, policy(deny(f"{peer}"))) as gate:
        host, there = net.udp(net.inside, source, 4000), net.udp(net.outside, peer, 9999)
        host.send("hello", peer)
        [quoted] = wait_for(lambda: prohibitions(answers))
        assert quoted.endswith(b"hello")
        assert there.receive(0.1) == []
        assert gate.trapped == []
        assert gate.counters["refused"] == 1


@pytest.mark.netns
@FAMILIES
def test_own_program_is_told_at_once(net: Net, source: str, peer: str) -> None:
    with gateway(net, policy(deny(f"{peer}"))):
        family = "-6" if ":" in peer else "-4"
        with pytest.raises(subprocess.CalledProcessError) as said:
            net.run(net.gateway, "ping", family, "-c1", "-W1", peer)
        words = f"{said.value.stdout}{said.value.stderr}"
        assert "Packet filtered" in words or "prohibited" in words, words


@pytest.mark.netns
@FAMILIES
def test_cached_verdict_answers_from_the_packet_that_was_held_on(
    net: Net, source: str, peer: str
) -> None:
    answers = net.capture(net.inside, "in0")
    with gateway(net, policy()) as gate:
        host, there = net.udp(net.inside, source), net.udp(net.outside, peer, 9999)
        host.send("held", peer)
        [(_, number, _)] = gate.await_trapped()
        gate.call(gate.interception.install_policy, pair(source, peer), Verdict.REFUSE, 60, False)
        gate.call(gate.interception.release, (number,), Verdict.REFUSE)
        wait_for(lambda: len(prohibitions(answers)) == 1)
        host.send("later", peer)
        wait_for(lambda: len(prohibitions(answers)) == 2)
        assert [quoted[-4:] for quoted in prohibitions(answers)] == [b"held", b"ater"]
        assert there.receive(0.1) == []
        assert len(gate.trapped) == 1
        # And when it is forgotten, or becomes a plain one, nothing is answered any more.
        gate.call(gate.interception.install_policy, pair(source, peer), Verdict.DENY, 60, False)
        host.send("silent", peer)
        wait_for(lambda: gate.counters["denied"] == 1)
        assert len(prohibitions(answers)) == 2


@pytest.mark.netns
def test_plain_deny_answers_nothing(net: Net) -> None:
    answers = net.capture(net.inside, "in0")
    with gateway(net, policy(deny(PEER, icmp=False), deny(OTHER_PEER))) as gate:
        host = net.udp(net.inside, INSIDE)
        host.send("plain", PEER)
        gate.await_trapped()
        host.send("refused", OTHER_PEER)
        [quoted] = wait_for(lambda: prohibitions(answers))
        assert quoted.endswith(b"refused")


@pytest.mark.netns
def test_more_special_rule_is_not_refused(net: Net) -> None:
    web = Rule(
        "web", Category.PERMIT, None, (ip_network(PEER),), protocol=17,
        destination_ports=PortRange(80, 80), override=True,
    )  # fmt: skip
    answers = net.capture(net.inside, "in0")
    with gateway(net, policy(deny(PEER), web)) as gate:
        host = net.udp(net.inside, INSIDE)
        host.send("web", PEER, 80)
        gate.await_trapped()
        host.send("other", PEER, 81)
        [quoted] = wait_for(lambda: prohibitions(answers))
        assert quoted.endswith(b"other")


@pytest.mark.netns
def test_errors_fragments_and_many_hosts_are_not_answered(net: Net) -> None:
    answers = net.capture(net.inside, "in0")
    with gateway(net, policy(deny("10.9.0.0/24"), deny("239.0.0.0/8"))) as gate:
        send = raw_sender(net)
        error = struct.pack("!BBHI", 3, 3, 0, 0) + ip_header(17, 28) + bytes(8)
        send(ip_header(1, 20 + len(error)) + error, PEER)  # an ICMP error
        send(ip_header(17, 40, offset=8) + bytes(20), PEER)  # a later fragment
        wait_for(lambda: gate.counters["refused"] == 2)
        net.udp(net.inside, INSIDE).send("one", PEER)
        wait_for(lambda: gate.counters["refused"] == 3)
        [quoted] = wait_for(lambda: prohibitions(answers))
        assert quoted.endswith(b"one")


@pytest.mark.netns
def test_answers_are_limited(net: Net) -> None:
    answers = net.capture(net.inside, "in0")
    with gateway(net, policy(deny(PEER))) as gate:
        host = net.udp(net.inside, INSIDE)
        for number in range(400):
            host.send(f"{number}", PEER)
        wait_for(lambda: gate.counters["refused"] + gate.counters["denied"] == 400)
        assert gate.counters["denied"] > 100  # all dropped, but not all answered
        assert len(prohibitions(answers)) <= gate.counters["refused"] < 300


@pytest.mark.netns
def test_new_policy_refuses_and_stops_refusing(net: Net) -> None:
    answers = net.capture(net.inside, "in0")
    with gateway(net, policy()) as gate:
        host = net.udp(net.inside, INSIDE)
        gate.wait(gate.interception.replace_policy(policy(deny(PEER))))
        host.send("a", PEER)
        wait_for(lambda: len(prohibitions(answers)) == 1)
        gate.wait(gate.interception.replace_policy(policy(deny(PEER, icmp=False))))
        host.send("b", PEER)
        gate.await_trapped()
        assert len(prohibitions(answers)) == 1


def test_kernel_without_reject_drops_in_silence() -> None:
    chains = static_chains(policy(deny(PEER)))
    text = whole_table(SETTINGS, chains, nft_queue=True, nft_reject=False)
    assert "reject with" not in text
    assert "chain refuse {\n    counter name denied drop\n" in text


def test_only_denied_rules_that_say_so_are_refused() -> None:
    silent = replace(deny("10.9.0.2/32"), name="silent", icmp=False)
    chains = static_chains(policy(deny("10.9.0.0/24"), silent))
    refused = chains.refused.partition("chain refused6")[0]
    assert refused.index("ip daddr 10.9.0.2/32 return") < refused.index(
        "ip daddr 10.9.0.0/24 goto refuse"
    )
    assert refused.rstrip().endswith("return\n  }")


def ip_header(protocol: int, length: int, offset: int = 0) -> bytes:
    """An IPv4 header from INSIDE to PEER; the kernel fills the checksum in."""
    return struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, length, 7, offset // 8, 64, protocol, 0,
        socket.inet_aton(INSIDE), socket.inet_aton(PEER),
    )  # fmt: skip


def raw_sender(net: Net) -> Callable[[bytes, str], int]:
    """A function that sends whole packets from the inside host."""
    sender = within(
        net.inside, lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    )
    return lambda packet, peer: sender.sendto(packet, (peer, 0))
