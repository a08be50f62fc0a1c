"""Translated sources: what the chains ask, and that nothing leaves in clear that should not."""

from __future__ import annotations

import json
import random
import re
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from oegw.commands import Verdict
from oegw.intercept.order import Question
from oegw.intercept.ruleset import new_policy, residue, static_chains, whole_table
from oegw.intercept.translation import asking_chains, asking_names
from oegw.nat import Nat, Translation
from oegw.natsurvey import translating_rules
from oegw.packet.checksum import checksum
from policy.flow import Flow
from policy.rule import Category, OnFailure, Rule, Scope
from tests.oegw.test_nat import ONE_TO_ONE, SHARED, random_table
from tests.support.intercept_net import (
    INSIDE,
    INSIDE6,
    ON_LINK,
    OTHER_PEER,
    PEER,
    PEER6,
    SETTINGS,
    Gateway,
    Net,
    gateway,
    wait_for,
    within,
)
from tests.support.intercept_policy import configured_rule, policy, protected_rule
from tests.support.nft_reader import verdict_of

OUTSIDE, OUTSIDE6 = "10.2.0.1", "fd00:2::1"
HOME, HOME6 = ip_network("10.1.0.0/24"), ip_network("fd00:1::/64")
BY = (Translation(HOME, ip_network(OUTSIDE)), Translation(HOME6, ip_network(OUTSIDE6)))
NATTED = replace(SETTINGS, translations=BY)
EACH = (
    Translation(HOME, ip_network("10.3.0.0/24")),
    Translation(HOME6, ip_network("fd00:3::/64")),
)


# ------------------------------------------------------------------------ the text


_RULE = re.compile(r"(.*?)(accept|return|jump|goto) ?(\w*)")


def followed(text: str, start: str) -> Callable[[Flow], str]:
    """The verdict of several chains together, beginning with ``start``."""
    bodies = dict(re.findall(r"  chain (\w+) \{\n(.*?)  \}\n", text, re.S))

    def follow(name: str, flow: Flow) -> str:
        for line in bodies[name].splitlines():
            match = _RULE.fullmatch(line.strip())
            assert match is not None, line
            condition, verdict, target = match.groups()
            if condition and not applies(condition.strip(), flow):
                continue
            if verdict == "jump":
                if (said := follow(target, flow)) != "return":
                    return said
            elif verdict == "goto":
                return follow(target, flow) if target in bodies else f"goto {target}"
            else:
                return verdict
        return "return"

    return lambda flow: follow(start, flow)


def applies(condition: str, flow: Flow) -> bool:
    """Whether a flow fits a condition: asked of a chain that has just that."""
    if match := re.fullmatch(r"ip saddr \{ ([0-9./, ]*/[0-9./, ]*) \}", condition):
        return any(flow.source in ip_network(each) for each in match[1].split(", "))
    chain = f"  chain c {{\n    {condition} accept\n    return\n  }}\n"
    return verdict_of(chain)(flow) == "accept"


def test_the_chains_ask_what_the_coordinator_does() -> None:
    dice = random.Random(23)
    other = Translation(ip_network("192.168.1.0/24"), ip_network("192.1.1.9"))
    question = Question(lambda rule: rule.category is not Category.PERMIT, "goto leak", "accept")
    strict = 0
    for _ in range(150):
        table = random_table(dice)
        nat = Nat((dice.choice([SHARED, ONE_TO_ONE]), other))
        ask = followed(asking_chains("guard4", table, 4, question, nat.translations), "guard4")
        for _ in range(20):
            source = dice.choice(["192.168.0.", "192.168.1.", "192.1.0.", "192.1.1.", "192.9.0."])
            flow = Flow(
                ip_address(f"{source}{dice.choice([1, 4, 9, 65, 70, 200])}"),
                ip_address(dice.choice(["192.2.0.66", "192.2.0.1", "192.2.9.1", "192.4.0.1"])),
                dice.choice([6, 17]), 1024, 80,
            )  # fmt: skip
            expected = question.strict(nat.seen(flow, table).rule)
            assert ask(flow) == ("goto leak" if expected else "accept"), flow
            strict += expected
    assert 500 < strict < 2900


def test_without_translations_the_chain_is_as_it_was() -> None:
    plain = static_chains(policy())
    assert "_asis" not in str(plain)
    assert "nat hook" not in whole_table(SETTINGS, plain, nft_queue=True)


def test_a_new_policy_makes_all_chains_anew_and_touches_no_hook() -> None:
    text = new_policy(NATTED, static_chains(policy(), BY))
    assert "hook" not in text
    for family in (4, 6):
        names = asking_names(f"guard{family}", family, BY)
        assert len(names) == 4
        for name in (*names, f"translate{family}", f"translate{family}_claims"):
            assert f"flush chain inet oegw {name}\n" in text
            assert f"  chain {name} {{\n" in text


def test_what_stays_after_a_stop_translates_nothing_and_guards_what_is_translated() -> None:
    rule = protected_rule(PEER)
    text = residue(NATTED, static_chains(policy(rule), BY))
    assert "nat hook" not in text
    assert "guard4_nat0" in text


# --------------------------------------------------------------------- real packets

netns = pytest.mark.netns

MASQUERADE = """table inet users {
    chain out {
        type nat hook postrouting priority srcnat;
        oifname "out0" masquerade
    }
}"""


@pytest.fixture
def net() -> Iterator[Net]:
    with Net() as net:
        yield net


def masquerade(net: Net) -> None:
    """The user's own rule."""
    net.run(net.gateway, "nft", MASQUERADE)


def from_outside(*rules: Rule) -> tuple[Rule, ...]:
    """The rules, for the translated source only."""
    both = (ip_network(OUTSIDE), ip_network(OUTSIDE6))
    return tuple(replace(rule, source=both) for rule in rules)


@contextmanager
def running(net: Net, *rules: Rule, by: tuple[Translation, ...] = BY) -> Iterator[Gateway]:
    with gateway(net, policy(*rules), replace(SETTINGS, translations=by)) as gate:
        yield gate


def install(gate: Gateway, source: str, destination: str, verdict: Verdict) -> None:
    scope = Scope(ip_network(source), ip_network(destination))
    gate.call(gate.interception.install_policy, scope, verdict, None, False)


def remove(gate: Gateway, source: str, destination: str) -> None:
    gate.call(gate.interception.remove_policy, Scope(ip_network(source), ip_network(destination)))


def sources(packets: list[bytes]) -> list[str]:
    return [str(ip_address(p[8:24] if p[0] >> 4 == 6 else p[12:16])) for p in packets]


def udp_packet(source: str, destination: str, ports: tuple[int, int], payload: bytes) -> bytes:
    """An IPv4 datagram."""
    udp = struct.pack("!HHHH", *ports, 8 + len(payload), 0) + payload
    addresses = ip_address(source).packed + ip_address(destination).packed
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0) + addresses
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + udp


def out_of_tunnel(net: Net, packet: bytes) -> None:
    """A packet comes out of the tunnel device; the reverse path filter would not have it there."""
    net.run(net.gateway, "sysctl", "-qw", "net.ipv4.conf.oegw0.rp_filter=0")
    net.run(net.gateway, "sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0")
    (link,) = json.loads(net.run(net.gateway, "ip", "-j", "link", "show", "oegw0"))
    place = ("tap0", 0x0800, 0, 0, bytes.fromhex(link["address"].replace(":", "")))

    def send() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800)) as tap:
            tap.sendto(packet, place)

    within(net.gateway, send)


@netns
@pytest.mark.parametrize(
    ("source", "peer", "seen"), [(INSIDE, PEER, OUTSIDE), (INSIDE6, PEER6, OUTSIDE6)]
)
def test_what_enters_the_tunnel_has_the_address_outside(
    net: Net, source: str, peer: str, seen: str
) -> None:
    with running(net) as gate:
        host, tap, wire = (
            net.udp(net.inside, source, 4000),
            net.capture(net.gateway, "tap0"),
            net.capture(net.outside, "out0"),
        )
        host.send("first", peer)
        flow, number, _ = gate.await_trapped()[0]
        assert str(flow.source) == source  # the verdicts are for the pair before
        install(gate, source, peer, Verdict.TUNNEL)
        gate.call(gate.interception.release, (number,), Verdict.TUNNEL)
        host.send("second", peer)
        wait_for(lambda: len(tap.to(peer)) == 2)
        assert sources(tap.to(peer)) == [seen, seen]
        assert wire.to(peer) == []


@netns
def test_answers_find_the_host_that_asked(net: Net) -> None:
    with running(net) as gate:
        install(gate, INSIDE, PEER, Verdict.TUNNEL)
        host = net.udp(net.inside, INSIDE, 4000)
        tap = net.capture(net.gateway, "tap0")
        host.send("ask", PEER)
        wait_for(lambda: tap.to(PEER))
        out_of_tunnel(net, udp_packet(PEER, OUTSIDE, (9999, 4000), b"answer"))
        assert host.receive(2) == ["answer"]


@netns
def test_a_flow_that_was_in_clear_goes_into_the_tunnel_and_out_no_more(net: Net) -> None:
    """Its conntrack entry was made by the user's rule, for the outer interface."""
    masquerade(net)
    with running(net) as gate:
        install(gate, INSIDE, PEER, Verdict.CLEAR)
        host, peer = net.udp(net.inside, INSIDE, 4000), net.udp(net.outside, PEER, 9999)
        host.send("clear", PEER)
        assert peer.receive(2) == ["clear"]
        tap, wire = net.capture(net.gateway, "tap0"), net.capture(net.outside, "out0")
        install(gate, INSIDE, PEER, Verdict.TUNNEL)
        for number in range(4):
            host.send(f"sealed {number}", PEER)
        into = wait_for(lambda: tap.to(PEER) if len(tap.to(PEER)) >= 3 else None)
        assert set(sources(into)) == {OUTSIDE}
        assert wire.to(PEER) == []


@netns
@pytest.mark.parametrize(
    ("source", "peer", "seen"), [(INSIDE, PEER, OUTSIDE), (INSIDE6, PEER6, OUTSIDE6)]
)
def test_a_flow_that_was_clear_and_not_translated_is_translated_anew(
    net: Net, source: str, peer: str, seen: str
) -> None:
    """Its conntrack entry says that it keeps its source: the tunnel would not take it."""
    with running(net) as gate:
        install(gate, source, peer, Verdict.CLEAR)
        host, other = net.udp(net.inside, source, 4000), net.udp(net.outside, peer, 9999)
        host.send("clear", peer)
        assert other.receive(2) == ["clear"]
        tap, wire = net.capture(net.gateway, "tap0"), net.capture(net.outside, "out0")
        install(gate, source, peer, Verdict.TUNNEL)
        wait_for(lambda: gate.trace.counters["intercept.translated_anew"])
        host.send("sealed", peer)
        assert sources(wait_for(lambda: tap.to(peer))) == [seen]
        assert wire.to(peer) == []
        install(gate, source, peer, Verdict.TUNNEL)  # what is as it should be stays
        host.send("sealed", peer)
        wait_for(lambda: len(tap.to(peer)) == 2)
        assert gate.trace.counters["intercept.translated_anew"] == 1
        assert gate.trace.counters["intercept.drop.conntrack_unread"] == 0


@netns
@pytest.mark.parametrize("users_rule", [True, False])
def test_after_the_tunnel_a_flow_is_trapped_again(net: Net, users_rule: bool) -> None:
    """Its conntrack entry translates it still: that must not carry it out."""
    if users_rule:
        masquerade(net)
    with running(net, *from_outside(protected_rule(PEER))) as gate:
        install(gate, INSIDE, PEER, Verdict.TUNNEL)
        host, wire = net.udp(net.inside, INSIDE, 4000), net.capture(net.outside, "out0")
        tap = net.capture(net.gateway, "tap0")
        host.send("sealed", PEER)
        wait_for(lambda: tap.to(PEER))
        remove(gate, INSIDE, PEER)
        host.send("expired", PEER)
        gate.await_trapped()
        gate.call(gate.interception.release, (1,), Verdict.CLEAR)  # by mistake
        wait_for(lambda: gate.counters["guard_dropped"] == 1)
        assert wire.to(PEER) == []


@netns
@pytest.mark.parametrize("users_rule", [True, False])
def test_the_guard_asks_with_the_declared_address(net: Net, users_rule: bool) -> None:
    if users_rule:
        masquerade(net)
    with running(net, *from_outside(protected_rule(PEER))) as gate:
        install(gate, INSIDE, PEER, Verdict.CLEAR)  # by mistake
        install(gate, INSIDE, OTHER_PEER, Verdict.CLEAR)
        host, wire = net.udp(net.inside, INSIDE, 4000), net.capture(net.outside, "out0")
        host.send("protected", PEER)
        host.send("not protected", OTHER_PEER)
        wait_for(lambda: wire.to(OTHER_PEER))
        assert sources(wire.to(OTHER_PEER)) == [OUTSIDE if users_rule else INSIDE]
        assert gate.counters["guard_dropped"] == 1
        assert wire.to(PEER) == []


@netns
def test_the_guard_asks_again_with_the_address_on_the_wire(net: Net) -> None:
    """Nothing is declared, and the user's rule makes a protected pair of an unprotected one."""
    masquerade(net)
    with running(net, *from_outside(protected_rule(PEER)), by=()) as gate:
        install(gate, INSIDE, PEER, Verdict.CLEAR)
        install(gate, INSIDE, OTHER_PEER, Verdict.CLEAR)
        host, wire = net.udp(net.inside, INSIDE, 4000), net.capture(net.outside, "out0")
        host.send("protected", PEER)
        host.send("not protected", OTHER_PEER)
        wait_for(lambda: wire.to(OTHER_PEER))
        assert gate.counters["guard_dropped"] == 1
        assert wire.to(PEER) == []


@netns
def test_after_a_stop_the_guard_knows_translated_pairs(net: Net) -> None:
    masquerade(net)
    host = net.udp(net.inside, INSIDE, 4000)
    with running(net, *from_outside(protected_rule(PEER))) as gate:
        install(gate, INSIDE, PEER, Verdict.TUNNEL)
        tap = net.capture(net.gateway, "tap0")
        host.send("sealed", PEER)
        wait_for(lambda: tap.to(PEER))
    wire = net.capture(net.outside, "out0")
    for number in range(3):
        host.send(f"stopped {number}", PEER)
    host.send("other", OTHER_PEER)
    wait_for(lambda: wire.to(OTHER_PEER))
    assert wire.to(PEER) == []


@netns
def test_between_two_runs_nothing_leaves(net: Net) -> None:
    """A start replaces what is there in one transaction; the flow goes on all the while."""
    masquerade(net)
    rules = from_outside(protected_rule(PEER))
    host, wire = net.udp(net.inside, INSIDE, 4000), net.capture(net.outside, "out0")
    for run in range(3):
        with running(net, *rules) as gate:
            host.send(f"unknown {run}", PEER)
            gate.await_trapped()
            install(gate, INSIDE, PEER, Verdict.TUNNEL)
            host.send(f"sealed {run}", PEER)
        host.send(f"stopped {run}", PEER)
    assert wire.to(PEER) == []


@netns
def test_a_configured_pair_is_for_the_addresses_inside(net: Net) -> None:
    masquerade(net)
    branch = configured_rule(PEER)
    branch = replace(branch, source=(HOME,))
    with running(net, branch) as gate:
        install(gate, INSIDE, PEER, Verdict.TUNNEL)
        install(gate, INSIDE, OTHER_PEER, Verdict.TUNNEL)
        host, tap = net.udp(net.inside, INSIDE, 4000), net.capture(net.gateway, "tap0")
        wire = net.capture(net.outside, "out0")
        host.send("as it is", PEER)
        host.send("translated", OTHER_PEER)
        wait_for(lambda: tap.to(PEER) and tap.to(OTHER_PEER))
        assert sources(tap.to(PEER)) == [INSIDE]
        assert sources(tap.to(OTHER_PEER)) == [OUTSIDE]
        remove(gate, INSIDE, PEER)
        install(gate, INSIDE, PEER, Verdict.CLEAR)  # by mistake; the user's rule would hide it
        net.udp(net.inside, INSIDE, 4001).send("leak", PEER)
        wait_for(lambda: gate.counters["guard_dropped"] == 1)
        assert wire.to(PEER) == []


@netns
def test_exemptions_are_asked_with_the_declared_address(net: Net) -> None:
    """The attached network is exempt, unless a rule for the address outside comes before."""
    rule = Rule("on link", Category.OPPORTUNISTIC, None, (ip_network(ON_LINK),),
                on_failure=OnFailure.DROP, override=True)  # fmt: skip
    with running(net) as gate:
        host, wire = net.udp(net.inside, INSIDE, 4000), net.capture(net.outside, "out0")
        host.send("exempt", ON_LINK)
        wait_for(lambda: wire.to(ON_LINK))
        gate.wait(gate.interception.replace_policy(policy(*from_outside(rule))))
        host.send("not exempt", ON_LINK)
        gate.await_trapped()
        assert len(wire.to(ON_LINK)) == 1


@netns
def test_a_reload_keeps_translating(net: Net) -> None:
    with running(net, *from_outside(protected_rule(PEER))) as gate:
        install(gate, INSIDE, PEER, Verdict.TUNNEL)
        host, tap = net.udp(net.inside, INSIDE, 4000), net.capture(net.gateway, "tap0")
        branch = replace(configured_rule(OTHER_PEER), source=(HOME,))
        gate.wait(gate.interception.replace_policy(policy(branch)))
        install(gate, INSIDE, OTHER_PEER, Verdict.TUNNEL)
        host.send("translated", PEER)
        host.send("as it is", OTHER_PEER)
        wait_for(lambda: tap.to(PEER) and tap.to(OTHER_PEER))
        assert sources(tap.to(PEER)) == [OUTSIDE]
        assert sources(tap.to(OTHER_PEER)) == [INSIDE]


@netns
def test_one_to_one_works_from_both_sides(net: Net) -> None:
    with running(net, by=EACH) as gate:
        install(gate, INSIDE, PEER, Verdict.TUNNEL)
        host, tap = net.udp(net.inside, INSIDE, 4000), net.capture(net.gateway, "tap0")
        out_of_tunnel(net, udp_packet(PEER, "10.3.0.2", (9999, 4000), b"from outside"))
        assert host.receive(2) == ["from outside"]
        host.send("answer", PEER)
        host.send("another flow", PEER, 8888)
        wait_for(lambda: len(tap.to(PEER)) == 2)
        assert sources(tap.to(PEER)) == ["10.3.0.2", "10.3.0.2"]
        install(gate, INSIDE6, PEER6, Verdict.TUNNEL)
        net.udp(net.inside, INSIDE6, 4000).send("by IPv6", PEER6)
        wait_for(lambda: tap.to(PEER6))
        assert sources(tap.to(PEER6)) == ["fd00:3::2"]


@netns
def test_what_nobody_asked_for_does_not_go_on_to_the_nat_in_front(net: Net) -> None:
    in_front = "10.9.0.3"  # the shared address is not ours, but that of a NAT outside
    by = (Translation(HOME, ip_network(in_front)),)
    with running(net, by=by) as gate:
        install(gate, INSIDE, PEER, Verdict.TUNNEL)
        host, tap = net.udp(net.inside, INSIDE, 4000), net.capture(net.gateway, "tap0")
        wire = net.capture(net.outside, "out0")
        host.send("ask", PEER)
        assert sources(wait_for(lambda: tap.to(PEER))) == [in_front]
        out_of_tunnel(net, udp_packet(PEER, in_front, (9999, 4000), b"answer"))
        assert host.receive(2) == ["answer"]
        out_of_tunnel(net, udp_packet(PEER, in_front, (1, 2), b"unasked"))
        wait_for(lambda: gate.counters["unasked_dropped"] == 1)
        assert wire.to(in_front) == []


@netns
def test_rules_that_translate_sources_are_noticed(net: Net) -> None:
    def seen() -> tuple[str, ...]:
        return within(net.gateway, lambda: translating_rules("oegw"))

    with running(net):
        assert seen() == ()  # our own don't count
        masquerade(net)
        assert seen() == ('nft table inet users: oifname "out0" masquerade',)
        net.run(net.gateway, "nft", "delete table inet users")
        hook = "type nat hook postrouting priority 100;"
        comment = 'comment "no snat here"'
        net.run(net.gateway, "nft", f"add table ip t; add chain ip t c {{ {hook} }}")
        net.run(net.gateway, "nft", f"add rule ip t c counter {comment}; add chain ip t d")
        assert seen() == ()
        net.run(net.gateway, "nft", "add rule ip t d ip saddr 10.1.0.0/24 snat to 10.2.0.1")
        assert seen() == ("nft table ip t: ip saddr 10.1.0.0/24 snat to 10.2.0.1",)
        for _ in range(6):
            subprocess.run(
                ["nsenter", f"--net=/run/netns/{net.gateway}", "iptables", "-t", "nat", "-A",
                 "POSTROUTING", "-o", "out0", "-j", "MASQUERADE"], check=True,
            )  # fmt: skip
        assert len(seen()) == 4
        assert any("nft table ip nat" in rule or "iptables" in rule for rule in seen())
