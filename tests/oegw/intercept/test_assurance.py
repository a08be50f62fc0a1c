"""The mark that says by what kind of tunnel a packet came (RFC 4322 sections 12.1 and 12.2)."""

from __future__ import annotations

import json
import re
import socket
import struct
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from oegw.commands import Assurance, Verdict
from oegw.datapath.interface import Direction, SaKey
from oegw.intercept.assurance import mark_of
from oegw.packet.checksum import checksum
from policy.rule import PortRange, Scope
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
from tests.support.intercept_policy import policy

MASK = SETTINGS.assurance_mask
VALUES = {"none": 0, "insecure": 0x40000, "secure": 0x80000, "configured": 0xC0000}

# A user's firewall: what it sees in forward and in input, by the bits of the mark.
USER = "table inet user {\n" + "".join(
    f"  counter {hook}_{name} {{ }}\n" for hook in ("forward", "input") for name in VALUES
)
for _hook in ("forward", "input"):
    USER += f"  chain {_hook} {{\n    type filter hook {_hook} priority 0; policy accept;\n"
    USER += "    meta l4proto != { 6, 17 } accept\n"
    for _name, _value in VALUES.items():
        USER += f"    meta mark & {MASK:#x} == {_value:#x} counter name {_hook}_{_name}\n"
    USER += "  }\n"
USER += "}\n"


def test_values_are_those_of_the_documentation() -> None:
    assert {a.value: mark_of(a, MASK) for a in Assurance} == {
        name: value for name, value in VALUES.items() if value
    }


class Tunnel:
    """The other side of the tunnel's device: what is sent here came out of a tunnel."""

    def __init__(self, net: Net) -> None:
        [link] = json.loads(net.run(net.gateway, "ip", "-j", "link", "show", "oegw0"))
        self._hardware = bytes.fromhex(link["address"].replace(":", ""))
        self._socket = within(net.gateway, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
        self._socket.bind(("tap0", 0))

    def send(self, source: str, destination: str, protocol: int = 17, port: int = 9999) -> None:
        ours, theirs = ip_address(source), ip_address(destination)
        body = struct.pack("!HHHH", 4000, port, 8, 0) + bytes(12)
        if ours.version == 4:
            kind = 0x0800
            header = struct.pack(
                "!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 0, 0, 64, protocol, 0,
                ours.packed, theirs.packed,
            )  # fmt: skip
            header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
        else:
            kind = 0x86DD
            header = struct.pack("!IHBB", 6 << 28, len(body), protocol, 64)
            header += ours.packed + theirs.packed
        frame = self._hardware + bytes(6) + struct.pack("!H", kind) + header + body
        self._socket.send(frame)


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    with Net() as net:
        rules = tmp_path / "user.nft"
        rules.write_text(USER)
        net.run(net.gateway, "nft", "-f", str(rules))
        for interface in ("all", "oegw0"):
            net.run(net.gateway, "sysctl", "-qw", f"net.ipv4.conf.{interface}.rp_filter=0")
        yield net


@pytest.fixture
def gate(net: Net) -> Iterator[Gateway]:
    with gateway(net, policy()) as gate:
        yield gate


def seen(net: Net) -> dict[str, int]:
    """What the user's firewall has counted, without zeros."""
    listing = net.run(net.gateway, "nft", "list", "counters", "table", "inet", "user")
    found = re.findall(r"counter (\w+) \{\s*packets (\d+)", listing)
    return {name: int(packets) for name, packets in found if int(packets)}


def key(spi: int) -> SaKey:
    return SaKey(Direction.INBOUND, spi, ip_address(ON_LINK))


def assure(gate: Gateway, spi: int, assurance: Assurance, source: str, to: str, **more) -> None:
    scope = Scope(ip_network(source), ip_network(to), **more)
    gate.call(gate.interception.assure, key(spi), scope, assurance)


pytestmark = pytest.mark.netns


@pytest.mark.parametrize(("peer", "inside"), [(PEER, INSIDE), (PEER6, INSIDE6)])
@pytest.mark.parametrize("assurance", list(Assurance))
def test_firewall_sees_the_assurance_as_long_as_the_sa_is_there(
    net: Net, gate: Gateway, assurance: Assurance, peer: str, inside: str
) -> None:
    tunnel = Tunnel(net)
    tunnel.send(peer, inside)
    wait_for(lambda: seen(net) == {"forward_none": 1})
    assure(gate, 1, assurance, peer, inside)
    tunnel.send(peer, inside)
    wait_for(lambda: seen(net) == {"forward_none": 1, f"forward_{assurance.value}": 1})
    gate.call(gate.interception.forget_assurance, key(1))
    gate.call(gate.interception.forget_assurance, key(1))
    tunnel.send(peer, inside)
    wait_for(lambda: seen(net) == {"forward_none": 2, f"forward_{assurance.value}": 1})
    counters = gate.counters
    assert counters["inbound_unassured"] >= 2  # the device has some IPv6 housekeeping, too
    assert counters[f"inbound_{assurance.value}"] == 1


def test_what_is_for_the_gateway_itself_shows_it_in_input(net: Net, gate: Gateway) -> None:
    assure(gate, 1, Assurance.CONFIGURED, "10.9.0.0/24", "10.2.0.0/24")
    Tunnel(net).send(PEER, "10.2.0.1")
    wait_for(lambda: seen(net) == {"input_configured": 1})


def test_clear_packets_have_none_whatever_marks_they_bring(net: Net, gate: Gateway) -> None:
    """The same addresses, from outside and from inside, and a mark that somebody set before us."""
    assure(gate, 1, Assurance.CONFIGURED, PEER, INSIDE)
    assure(gate, 2, Assurance.CONFIGURED, INSIDE, PEER)
    net.run(
        net.gateway, "nft", "table inet early { chain c { type filter hook prerouting priority "
        "-300; meta mark set 0xC0000; }; }",
    )  # fmt: skip
    net.udp(net.outside, PEER).send("clear", INSIDE)
    wait_for(lambda: seen(net) == {"forward_none": 1})
    gate.call(
        gate.interception.install_policy,
        Scope(ip_network(INSIDE), ip_network(PEER)), Verdict.CLEAR, 60, False,
    )  # fmt: skip
    net.udp(net.inside, INSIDE).send("clear", PEER)
    wait_for(lambda: seen(net) == {"forward_none": 2})


def test_least_assured_of_several_counts(net: Net, gate: Gateway) -> None:
    """An opportunistic peer must not pass for a configured one: RFC 4322 section 12.1."""
    tunnel = Tunnel(net)
    assure(gate, 1, Assurance.CONFIGURED, "10.9.0.0/24", "10.1.0.0/24")
    assure(gate, 2, Assurance.SECURE, PEER, INSIDE)
    tunnel.send(PEER, INSIDE)
    tunnel.send(OTHER_PEER, INSIDE)
    wait_for(lambda: seen(net) == {"forward_secure": 1, "forward_configured": 1})
    assure(gate, 3, Assurance.INSECURE, PEER, INSIDE)
    tunnel.send(PEER, INSIDE)
    wait_for(lambda: seen(net).get("forward_insecure") == 1)


def test_sa_of_one_port_says_nothing_of_others(net: Net, gate: Gateway) -> None:
    tunnel = Tunnel(net)
    more = {"protocol": 17, "destination_ports": PortRange(53, 53)}
    assure(gate, 1, Assurance.CONFIGURED, PEER, INSIDE, **more)
    assure(gate, 2, Assurance.SECURE, PEER, INSIDE, protocol=6)
    tunnel.send(PEER, INSIDE, port=53)
    tunnel.send(PEER, INSIDE, port=54)
    tunnel.send(PEER, INSIDE, protocol=6)
    wait_for(lambda: seen(net) == {"forward_configured": 1, "forward_none": 1, "forward_secure": 1})


def test_successor_has_it_when_its_predecessor_goes(net: Net, gate: Gateway) -> None:
    assure(gate, 1, Assurance.SECURE, PEER, INSIDE)
    assure(gate, 2, Assurance.SECURE, PEER, INSIDE)
    gate.call(gate.interception.forget_assurance, key(1))
    Tunnel(net).send(PEER, INSIDE)
    wait_for(lambda: seen(net) == {"forward_secure": 1})


def test_new_policy_leaves_it_as_it_is(net: Net, gate: Gateway) -> None:
    assure(gate, 1, Assurance.SECURE, PEER, INSIDE)
    gate.wait(gate.interception.replace_policy(policy()))
    Tunnel(net).send(PEER, INSIDE)
    wait_for(lambda: seen(net) == {"forward_secure": 1})
