"""What is read from a network namespace, and from what programs print."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import ip_address, ip_interface
from pathlib import Path

import pytest

from oegw.doctor import filing, reading
from oegw.doctor.box import RoutingRule, XfrmItem
from oegw.doctor.fact import Unexamined
from oegw.settings import GatewaySettings, Settings
from tests.support.own_network import ip, own_network


@pytest.fixture
def alone() -> Iterator[None]:
    with own_network():
        ip("link", "add", "name", "in0", "mtu", "1400", "type", "veth", "peer", "name", "out0")
        ip("link", "set", "in0", "up")
        ip("address", "add", "192.0.2.1/24", "dev", "in0")
        ip("address", "add", "2001:db8::1/64", "dev", "in0", "nodad", "valid_lft", "99",
           "preferred_lft", "99")  # fmt: skip
        yield


@pytest.mark.netns
def test_links(alone: None) -> None:
    found = {link.name: link for link in reading.links()}
    assert found["in0"].mtu == 1400
    assert found["in0"].kind == "veth"
    assert ip_interface("192.0.2.1/24") in found["in0"].lasting
    assert found["in0"].lent == (ip_interface("2001:db8::1/64"),)
    assert found["in0"].has(4)
    assert found["in0"].has(6)
    assert not found["out0"].has(6)
    assert not found["lo"].has(4)


@pytest.mark.netns
def test_routing(alone: None) -> None:
    ip("rule", "add", "not", "priority", "9", "fwmark", "0x1/0xff", "table", "77", "protocol", "45")
    ip("-6", "rule", "add", "priority", "8", "fwmark", "0x2", "table", "78")
    ip("route", "add", "default", "dev", "in0", "table", "77")
    ip("route", "add", "unreachable", "default", "metric", "9", "table", "77")
    ip("neighbour", "add", "192.0.2.7", "lladdr", "02:00:00:00:00:07", "dev", "in0")
    found = reading.routing()
    assert RoutingRule(4, 9, 77, 0x1, 0xFF, 45, True) in found.rules
    [other] = [rule for rule in found.rules if rule.priority == 8]
    assert (other.version, other.mark, other.mask, other.inverted) == (6, 2, 0xFFFFFFFF, False)
    assert found.tables[4, 77] == ("in0",)
    assert found.refusing == {(4, 77)}
    assert ("in0", ip_address("192.0.2.7")) in found.neighbours


@pytest.mark.netns
def test_who_is_bound_to_a_port(alone: None) -> None:
    with (
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as six,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as four,
    ):
        six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        six.bind(("::1", 500))
        four.bind(("127.0.0.1", 501))
        program = "import socket, sys; s = socket.socket(type=socket.SOCK_DGRAM); "
        program += "s.bind(('192.0.2.1', 500)); print(flush=True); sys.stdin.read()"
        command = [sys.executable, "-c", program, "oegw"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            everybody = reading.processes()
            found = {each.address: each for each in reading.sockets((500,), everybody)}
            child.communicate()
    assert set(found) == {"::1", "192.0.2.1"}
    [owner] = found["192.0.2.1"].owners
    assert owner.number == child.pid
    assert owner.ours
    assert os.getppid() not in everybody  # which is in another namespace


@pytest.mark.netns
def test_rules(alone: None) -> None:
    subprocess.run(["iptables", "-A", "INPUT", "-j", "DROP"], check=True)
    subprocess.run(["nft", "add table inet other"], check=True)
    assert ("inet", "other") in reading.nftables().tables
    rules = [rule for program in reading.iptables() for rule in program.rules]
    assert [(rule.program, rule.chain, rule.words) for rule in rules] == [
        ("iptables", "INPUT", ("-j", "DROP"))
    ]


POLICIES = """\
src 10.0.0.0/8 dst 10.1.0.0/16 proto tcp
\tdir out priority 0 ptype main
\ttmpl src 1.2.3.4 dst 1.2.3.5
\t\tproto esp reqid 0 mode tunnel
src 192.1.0.65/32 dst 192.2.0.66/32
\tdir out priority 293472
\tif_id 0x1194
src 0.0.0.0/0 dst 0.0.0.0/0
\tsocket in priority 0 ptype main
"""
STATES = """\
src 192.1.1.4 dst 192.1.1.5
\tproto esp spi 0x19b4bc55 reqid 4500 mode tunnel
\tif_id 0x1194
\tsel src 192.1.0.65/32 dst 192.2.0.66/32
"""


def test_ipsec() -> None:
    assert list(reading.xfrm_items("policy", POLICIES)) == [
        XfrmItem("policy", "src 10.0.0.0/8 dst 10.1.0.0/16 proto tcp dir out"),
        XfrmItem("policy", "src 192.1.0.65/32 dst 192.2.0.66/32 dir out if_id 0x1194", 4500),
    ]
    assert list(reading.xfrm_items("state", STATES)) == [
        XfrmItem("state", "src 192.1.1.4 dst 192.1.1.5 proto esp spi 0x19b4bc55", 4500)
    ]


def test_files(tmp_path: Path) -> None:
    key, state = tmp_path / "key.pem", tmp_path / "deep/down/state.db"
    settings = Settings(gateway=GatewaySettings(private_key=key, state=state))
    found = filing.files(tmp_path / "oegw.toml", settings)
    assert (found.configuration.mode, found.key.mode, found.key_fault) == (None, None, "")
    assert found.state_directory.path == tmp_path
    assert found.state_directory.free
    key.write_text("nonsense")
    key.chmod(0o600)
    found = filing.files(tmp_path / "oegw.toml", settings)
    assert "is not a private key" in found.key_fault
    assert found.key.mode == 0o600


def test_programs_that_fail() -> None:
    with pytest.raises(Unexamined, match="the program oegw-nowhere is not installed"):
        reading.run("oegw-nowhere")
    with pytest.raises(Unexamined, match="ls: cannot access"):
        reading.run("ls", "/nowhere/at/all")


def test_the_clock_is_not_before_its_files(tmp_path: Path) -> None:
    late = tmp_path / "late.toml"
    late.touch()
    os.utime(late, (4e9, 4e9))
    found = reading.clock(late, tmp_path / "none")
    assert (found.earliest, found.evidence) == (4e9, "the configuration was written")
    assert found.now < found.earliest
