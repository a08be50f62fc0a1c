"""Two gateways and two hosts in network namespaces: real packets through the kernel's ESP."""

from __future__ import annotations

import itertools
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from oegw.intercept.interface import InterceptSettings
from oegw.intercept.ruleset import static_chains, whole_table
from oegw.intercept.verdicts import Shape
from tests.support.datapath_lab import ROOT
from tests.support.datapath_sas import (
    A4,
    A6,
    ALGORITHMS,
    B4,
    B6,
    GATEWAY_A4,
    GATEWAY_A6,
    GATEWAY_B4,
)
from tests.support.intercept_policy import policy, protected_rule
from tests.support.xfrm_lab import OUTER, Control, XfrmLab, run, tunnel, wait_for

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]


@pytest.fixture
def lab() -> Iterator[XfrmLab]:
    with XfrmLab() as built:
        yield built


# ------------------------------------------------------------------- what passes


@pytest.mark.parametrize(("family", "udp"), [(4, False), (4, True), (6, False), (6, True)])
def test_both_families_in_both(lab: XfrmLab, family: int, udp: bool) -> None:
    gwa, gwb = lab.begin()
    tunnel(gwa, gwb, family=family, udp=udp)
    tunnel(gwa, gwb, family=family, udp=udp, spi=0x2000, inner=(A6, B6))
    assert lab.ping("-c", "3"), lab.last
    assert lab.ping("-c", "3", target=B6), lab.last
    # Plaintext octets: IP header, ICMP header, 56 octets.
    usage = gwa.ask("usage")
    for spi, octets in ((0x1000, 84), (0x2000, 104)):
        for direction, number in (("out", spi), ("in", spi + 0x10000)):
            packets, total, ago = usage[f"{direction} {number:#x}"]
            assert (packets, total) == (3, 3 * octets)
            assert 0 <= ago < 5
    counters = gwb.ask("counters")
    assert counters["esp_in_packets"] == counters["esp_out_packets"] == 6
    assert counters["esp_in_octets"] == 3 * 84 + 3 * 104
    # Large, not to be fragmented: the answer names the MTU of the tunnel.
    assert not lab.ping("-c", "2", "-M", "do", "-s", "1472")
    assert re.search(r"mtu ?= ?14\d\d", lab.last), lab.last
    assert not lab.ping("-c", "2", "-M", "do", "-s", "1452", target=B6)
    assert re.search(r"mtu ?= ?1[34]\d\d", lab.last), lab.last
    # Large, but may be fragmented: it arrives.
    assert lab.ping("-c", "2", "-M", "dont", "-s", "8000"), lab.last
    assert lab.ping("-c", "2", "-s", "8000", target=B6), lab.last


def test_what_somebody_takes_away_is_put_back(lab: XfrmLab) -> None:
    """States can't be: their SAs have expired, so that others are agreed on."""
    gwa, gwb = lab.begin()
    tunnel(gwa, gwb)
    assert lab.ping("-c", "1"), lab.last
    assert gwa.ask("mend") == []
    before = lab.xfrm(lab.gwa, "policy")
    for taken, gone in (
        ("ip xfrm policy flush", "7 IPsec policies"),
        ("ip rule del priority 4500", "IPv4 rule of priority 4500"),
        ("ip -6 route flush table 4500", "IPv6 routes of table 4500"),
        ("ip link del oegw0", "device oegw0"),
    ):
        lab.inside(lab.gwa, *taken.split())
        assert gone in gwa.ask("mend"), taken
        assert gwa.ask("mend") == [], taken
        assert lab.ping("-c", "1"), (taken, lab.last)
    assert sorted(lab.xfrm(lab.gwa, "policy").split()) == sorted(before.split())
    lab.inside(lab.gwa, "ip", "xfrm", "state", "flush")
    assert gwa.ask("mend") == ["2 IPsec SAs"]
    assert len(gwa.named("SaExpired", hard=True)) == 2
    assert gwa.ask("mend") == []


@pytest.mark.parametrize("kinds", [("kernel", "userspace"), ("userspace", "kernel")], ids="-".join)
def test_every_cipher_with_the_other_datapath(lab: XfrmLab, kinds: tuple[str, str]) -> None:
    """With sequence numbers of 32 bits and with extended ones, as ESP and in UDP."""
    gwa, gwb = lab.begin(*kinds)
    forms = itertools.product((False, True), (False, True), ALGORITHMS)
    for number, (udp, extended, algorithm) in enumerate(forms):
        spi, form = 0x1000 + number, (udp, extended, algorithm)
        tunnel(gwa, gwb, spi=spi, algorithm=algorithm, udp=udp, extended_sequence_numbers=extended)
        assert lab.ping("-c", "2", "-s", str(56 + number)), (form, lab.last)
        carried = gwa.ask("usage")[f"out {spi:#x}"][0], gwb.ask("usage")[f"in {spi:#x}"][0]
        assert carried == (2, 2), form
        for control, sent, came in ((gwa, 0, 0x10000), (gwb, 0x10000, 0)):
            ends = (GATEWAY_B4, GATEWAY_A4) if control is gwa else (GATEWAY_A4, GATEWAY_B4)
            assert control.ask("remove", spi=spi + sent, destination=ends[0]) is not None
            assert (
                control.ask("remove", spi=spi + came, destination=ends[1], inbound=True) is not None
            )
    assert not lab.ping("-c", "1"), "a tunnel is left"


_RECEIVER = """
import hashlib, socket, sys
server = socket.create_server((sys.argv[1], 9000), family=socket.AF_INET)
print("ready", flush=True)
peer, _ = server.accept()
digest, count = hashlib.sha256(), 0
while part := peer.recv(65536):
    digest.update(part)
    count += len(part)
print(count, digest.hexdigest(), flush=True)
"""
_SENDER = """
import hashlib, socket, sys
octets = bytes(range(256)) * (int(sys.argv[2]) * 4096)
peer = socket.create_connection((sys.argv[1], 9000), timeout=60)
peer.sendall(octets)
peer.close()
print(len(octets), hashlib.sha256(octets).hexdigest())
"""


def inside(lab: XfrmLab, name: str, *command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(shutil.which("nsenter")), f"--net=/run/netns/{name}", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    )


def test_tcp(lab: XfrmLab) -> None:
    gwa, gwb = lab.begin()
    tunnel(gwa, gwb, algorithm="cbc-sha2", extended_sequence_numbers=True)
    receiver = inside(lab, lab.bob, sys.executable, "-c", _RECEIVER, B4)
    assert receiver.stdout is not None
    assert receiver.stdout.readline() == "ready\n"
    sent = lab.inside(lab.alice, sys.executable, "-c", _SENDER, B4, "3")
    assert receiver.communicate(timeout=60)[0] == sent
    assert gwb.ask("counters")["esp_in_octets"] > 3 * 2**20


def test_narrow_path_is_learned(lab: XfrmLab) -> None:
    gwa, gwb = lab.begin()
    tunnel(gwa, gwb)
    assert lab.ping("-c", "1"), lab.last
    lab.inside(lab.gwa, "ip", "route", "add", f"{GATEWAY_B4}/32", "dev", "out0", "mtu", "1000")
    assert not lab.ping("-c", "2", "-M", "do", "-s", "1200")
    assert re.search(r"mtu ?= ?9\d\d", lab.last), lab.last
    assert lab.ping("-c", "1", "-M", "dont", "-s", "1200"), lab.last


# ----------------------------------------------------------------- what does not


def test_only_what_the_selectors_say(lab: XfrmLab) -> None:
    """ICMP alone has a tunnel: another protocol does not pass, neither sealed nor in clear; and a
    packet that comes out of an SA with selectors that it does not fit is dropped."""
    gwa, gwb = lab.begin()
    tunnel(gwa, gwb, protocol=1)
    assert lab.ping("-c", "1"), lab.last
    listener = inside(lab, lab.bob, sys.executable, "-c", _RECEIVER, B4)
    assert listener.stdout is not None
    assert listener.stdout.readline() == "ready\n"
    refused = run(
        "nsenter", f"--net=/run/netns/{lab.alice}", sys.executable, "-c", _SENDER, B4, "1",
        check=False,
    )  # fmt: skip
    listener.kill()
    listener.communicate()
    assert "Error" in refused.stderr
    assert gwa.ask("counters")["drop_out_no_tunnel"] >= 1
    # A now sends more through its SA than B's half of it allows.
    gwa.ask("remove", spi=0x1000, destination=GATEWAY_B4)
    tunnel(gwa, None, spi=0x3000)
    gwb.install(
        {
            "spi": 0x3000, "inbound": True, "source": GATEWAY_A4, "destination": GATEWAY_B4,
            "inner": [[A4, 6, 0], [B4, 6, 0]],
        }
    )  # fmt: skip
    before = lab.echoes()
    assert not lab.ping("-c", "2")
    assert lab.echoes() == before
    assert gwb.ask("counters")["drop_in_selectors"] == 2


def test_inner_source_is_one_that_was_agreed_for(lab: XfrmLab) -> None:
    """Attack 20 of the design page: a peer sends for another client through its own, valid SA."""
    gwa, gwb = lab.begin()
    tunnel(gwa, None, spi=0x3000)
    gwb.install(
        {
            "spi": 0x3000, "inbound": True, "source": GATEWAY_A4, "destination": GATEWAY_B4,
            "inner": [["192.1.0.99", 0, 0], [B4, 0, 0]],
        }
    )  # fmt: skip
    before = lab.echoes()
    assert not lab.ping("-c", "2")
    assert lab.echoes() == before
    assert gwb.ask("counters")["drop_in_selectors"] == 2


def test_configured_first_and_specific_before_general(lab: XfrmLab) -> None:
    gwa, gwb = lab.begin()

    def way() -> set[str]:
        before = gwa.ask("usage")
        assert lab.ping("-c", "1"), lab.last
        after = gwa.ask("usage")
        return {name for name in after if after[name][0] > before[name][0] and "out" in name}

    tunnel(gwa, gwb, spi=0x1000, inner=("192.1.0.0/24", "192.2.0.0/24"))
    assert way() == {"out 0x1000"}
    tunnel(gwa, gwb, spi=0x2000)
    assert way() == {"out 0x2000"}
    tunnel(gwa, gwb, spi=0x3000, protocol=1)
    assert way() == {"out 0x3000"}
    tunnel(gwa, gwb, spi=0x4000, inner=("192.1.0.0/16", "192.2.0.0/16"), configured=True)
    assert way() == {"out 0x4000"}


def test_replay(lab: XfrmLab) -> None:
    """The sender's sequence numbers start again: all of these were there before."""
    gwa, gwb = lab.begin()
    tunnel(gwa, gwb)
    assert lab.ping("-c", "5"), lab.last
    gwa.ask("remove", spi=0x1000, destination=GATEWAY_B4)
    gwa.install(
        {
            "spi": 0x1000, "source": GATEWAY_A4, "destination": GATEWAY_B4,
            "inner": [[A4, 0, 0], [B4, 0, 0]],
        }
    )  # fmt: skip
    before = lab.echoes()
    assert not lab.ping("-c", "5")
    assert lab.echoes() == before
    assert gwb.ask("counters")["drop_in_replay"] == 5
    assert lab.ping("-c", "1"), lab.last


# --------------------------------------------------------------------- lifetimes


def test_octets_run_out(lab: XfrmLab) -> None:
    gwa, gwb = lab.begin()
    tunnel(gwa, gwb, soft_bytes=840, hard_bytes=1680)
    assert lab.ping("-c", "11"), lab.last
    wait_for(lambda: gwa.named("SaExpired", spi=0x1000, hard=False), what="soft")
    assert not gwa.named("SaExpired", hard=True)
    lab.ping("-c", "12")
    wait_for(lambda: gwa.named("SaExpired", spi=0x1000, hard=True), what="hard")
    assert len(gwa.named("SaExpired", spi=0x1000, hard=False)) == 1
    before = lab.echoes()
    assert not lab.ping("-c", "2")
    assert lab.echoes() == before
    assert gwa.ask("usage")["out 0x1000"][:2] == [20, 1680]
    assert gwa.ask("remove", spi=0x1000, destination=GATEWAY_B4) == [20, 1680]


def test_seconds_run_out(lab: XfrmLab) -> None:
    gwa, gwb = lab.begin()
    tunnel(gwa, gwb, soft_seconds=2, hard_seconds=4)
    assert lab.ping("-c", "2"), lab.last
    wait_for(lambda: gwa.named("SaExpired", spi=0x1000, hard=False), 5, "soft")
    wait_for(lambda: gwa.named("SaExpired", spi=0x1000, hard=True), 5, "hard")
    wait_for(lambda: gwa.named("SaExpired", spi=0x11000, hard=True), 5, "hard, inbound")
    assert lab.xfrm(lab.gwa).strip() == ""
    before = lab.echoes()
    assert not lab.ping("-c", "2")
    assert lab.echoes() == before


# ------------------------------------------------------------- changes in traffic


def pinging(lab: XfrmLab, count: int) -> subprocess.Popen[str]:
    command = ("ping", "-n", "-q", "-i", "0.01", "-c", str(count), "-W", "2", B4)
    return inside(lab, lab.alice, *command)


def lost(process: subprocess.Popen[str]) -> int:
    text, _ = process.communicate(timeout=120)
    found = re.search(r"(\d+) packets transmitted, (\d+) received", text)
    assert found is not None, text
    return int(found[1]) - int(found[2])


def test_make_before_break(lab: XfrmLab) -> None:
    """100 packets per second over ten tunnels, one after the other: none is lost."""
    gwa, gwb = lab.begin()
    tunnel(gwa, gwb)
    traffic = pinging(lab, 500)
    for number in range(1, 10):
        time.sleep(0.3)
        tunnel(gwa, gwb, spi=0x1000 + number, udp=bool(number % 2))
        time.sleep(0.1)
        old = 0x1000 + number - 1
        for control, ends in ((gwa, (GATEWAY_B4, GATEWAY_A4)), (gwb, (GATEWAY_A4, GATEWAY_B4))):
            out, came = (old, old + 0x10000) if control is gwa else (old + 0x10000, old)
            usage = control.ask("remove", spi=out, destination=ends[0])
            assert usage[0] > 0
            control.ask("remove", spi=came, destination=ends[1], inbound=True)
    assert lost(traffic) == 0
    # The one before takes over again when the newest is removed.
    tunnel(gwa, gwb, spi=0x2000)
    gwa.ask("remove", spi=0x2000, destination=GATEWAY_B4)
    assert lab.ping("-c", "2"), lab.last
    counters = gwa.ask("counters")
    assert counters["esp_out_packets"] == counters["esp_in_packets"] == 502


def test_move(lab: XfrmLab) -> None:
    """The peer gets another address, under traffic, and goes back to the first."""
    second = "192.1.1.55"
    lab.inside(lab.gwb, "ip", "addr", "add", f"{second}/24", "dev", "out0")
    gwa, gwb = lab.begin()
    tunnel(gwa, gwb, extended_sequence_numbers=True)
    traffic = pinging(lab, 300)
    time.sleep(0.5)
    a_out = {"spi": 0x1000, "destination": GATEWAY_B4}
    a_in = {"spi": 0x11000, "destination": GATEWAY_A4, "inbound": True}
    b_out = {"spi": 0x11000, "destination": GATEWAY_A4}
    b_in = {"spi": 0x1000, "destination": GATEWAY_B4, "inbound": True}
    for here, there in ((GATEWAY_B4, second), (second, GATEWAY_B4)):
        for control, key, ends in (
            (gwb, b_in | {"destination": here}, (GATEWAY_A4, there)),
            (gwa, a_out | {"destination": here}, (GATEWAY_A4, there)),
            (gwb, b_out, (there, GATEWAY_A4)),
            (gwa, a_in, (there, GATEWAY_A4)),
        ):
            answer = control.ask("move", key=key, source=ends[0], destination=ends[1])
            assert answer is None, answer
        time.sleep(0.5)
    # Between the first and the second step of each change, A sends to where B has no SA.
    gone = lost(traffic)
    assert gone < 30, gone
    assert lab.ping("-c", "3"), lab.last
    usage, other = gwa.ask("usage"), gwb.ask("usage")
    assert usage["out 0x1000"][0] >= other["in 0x1000"][0] >= 303 - gone
    assert gwb.ask("counters").get("drop_in_replay", 0) == 0
    assert gwa.ask("counters").get("drop_in_replay", 0) == 0
    states = lab.xfrm(lab.gwa)
    assert second not in states
    assert states.count("proto esp") == 2


def test_move_to_another_port_loses_nothing(lab: XfrmLab) -> None:
    """Only the port of the peer's NAT changes, and back: in place."""
    gwa, gwb = lab.begin()
    tunnel(gwa, gwb, udp=True)
    assert lab.ping("-c", "2"), lab.last
    key = {"spi": 0x1000, "destination": GATEWAY_B4}
    ends = {"source": GATEWAY_A4, "destination": GATEWAY_B4}
    assert gwa.ask("move", key=key, udp=[4500, 32000], **ends) is None
    assert "dport 32000" in lab.xfrm(lab.gwa)
    assert not lab.ping("-c", "1")
    assert gwa.ask("move", key=key, udp=[4500, 4500], **ends) is None
    assert lab.ping("-c", "2"), lab.last
    assert gwa.ask("usage")["out 0x1000"][0] == 5


def test_refused_move_leaves_the_sa(lab: XfrmLab) -> None:
    """Another's state has the name that ours would get."""
    gwa, gwb = lab.begin()
    tunnel(gwa, gwb)
    lab.inside(
        lab.gwa, "ip", "xfrm", "state", "add", "src", GATEWAY_A4, "dst", "192.1.1.77", "proto",
        "esp", "spi", "0x1000", "enc", "cbc(aes)", "0x" + "11" * 16, "auth", "hmac(sha1)",
        "0x" + "22" * 20, "mode", "tunnel",
    )  # fmt: skip
    key = {"spi": 0x1000, "destination": GATEWAY_B4}
    answer = gwa.ask("move", key=key, source=GATEWAY_A4, destination="192.1.1.77")
    assert "EEXIST" in answer
    assert "NEWSA" in answer
    assert lab.ping("-c", "2"), lab.last
    assert gwa.ask("usage")["out 0x1000"][0] == 2


# ---------------------------------------------------------------------- UDP 4500


def test_a_nat_that_changes_is_reported(lab: XfrmLab) -> None:
    gwa, gwb = lab.begin()
    tunnel(gwa, gwb, udp=True)
    assert lab.ping("-c", "2"), lab.last
    assert not gwb.named("PeerAddressChanged")
    # A NAT takes another port for A from now on.
    lab.inside(
        lab.gwa,
        "nft",
        "add table ip nat { chain post { type nat hook postrouting priority 100; "
        'oifname "out0" udp sport 4500 masquerade to :32000; }; }',
    )
    lab.inside(lab.gwa, "conntrack", "-F") if shutil.which("conntrack") else None
    assert lab.ping("-c", "3"), lab.last
    wait_for(lambda: gwb.named("PeerAddressChanged"), what="the new port")
    event = gwb.named("PeerAddressChanged")[0]
    assert (event["spi"], event["address"], event["port"]) == (0x1000, GATEWAY_A4, 32000)
    # B follows, both ways, and hears no more of it.
    key = {"spi": 0x1000, "destination": GATEWAY_B4, "inbound": True}
    ends = {"source": GATEWAY_A4, "destination": GATEWAY_B4}
    assert gwb.ask("move", key=key, udp=[32000, 4500], **ends) is None
    key = {"spi": 0x11000, "destination": GATEWAY_A4}
    ends = {"source": GATEWAY_B4, "destination": GATEWAY_A4}
    assert gwb.ask("move", key=key, udp=[4500, 32000], **ends) is None
    count = len(gwb.named("PeerAddressChanged"))
    assert lab.ping("-c", "3"), lab.last
    time.sleep(0.3)
    assert len(gwb.named("PeerAddressChanged")) == count
    assert gwb.ask("usage")["in 0x1000"][0] == 8


@pytest.mark.parametrize("family", [4, 6])
def test_keying_over_the_port(lab: XfrmLab, family: int) -> None:
    gwa, gwb = lab.begin()
    ends = {"source": OUTER[family][0], "destination": OUTER[family][1], "port": 4500}
    for data in ("ff", "0000000001020304", "01"):
        assert gwa.ask("keying", data=data, **ends) is None
    wait_for(lambda: gwb.named("KeyingDatagram"), what="IKE")
    time.sleep(0.2)
    [event] = gwb.named("KeyingDatagram")
    assert event["data"] == "0000000001020304"
    assert (event["local"], event["remote"]) == (OUTER[family][1], OUTER[family][0])
    assert event["port"] == 4500
    assert gwb.ask("counters")["drop_in_truncated"] == 1
    # To a family that is not the source's: lost, and counted.
    assert gwa.ask("keying", data="ff", source="192.1.1.4", destination=GATEWAY_A6, port=1) is None
    assert gwa.ask("counters")["drop_keying"] == 1


# --------------------------------------------------- what is ours, and what is not


def foreign(lab: XfrmLab, namespace: str) -> None:
    """A state and a policy of another program, one of them with an interface id."""
    for address, more in (("198.51.100.1", ()), ("198.51.100.2", ("if_id", "7"))):
        lab.inside(
            namespace, "ip", "xfrm", "state", "add", "src", "198.51.100.9", "dst", address,
            "proto", "esp", "spi", "0x777", "enc", "cbc(aes)", "0x" + "11" * 16, "auth",
            "hmac(sha1)", "0x" + "22" * 20, "mode", "tunnel", *more,
        )  # fmt: skip
        lab.inside(
            namespace, "ip", "xfrm", "policy", "add", "src", "198.51.100.0/24", "dst", address,
            "dir", "out", "tmpl", "src", "198.51.100.9", "dst", address, "proto", "esp", "mode",
            "tunnel", *more,
        )  # fmt: skip


def test_foreign_states_and_policies_stay(lab: XfrmLab) -> None:
    foreign(lab, lab.gwa)
    before = lab.xfrm(lab.gwa), lab.xfrm(lab.gwa, "policy")
    assert before[0].count("proto esp") == 2
    gwa, gwb = lab.begin()
    tunnel(gwa, gwb)
    assert lab.ping("-c", "1"), lab.last
    assert gwa.ask("close") is None
    assert (lab.xfrm(lab.gwa), lab.xfrm(lab.gwa, "policy")) == before
    assert "oegw0" not in lab.inside(lab.gwa, "ip", "link")
    for family in ("-4", "-6"):
        assert "4500" not in lab.inside(lab.gwa, "ip", family, "rule")
        routes = lab.inside(lab.gwa, "ip", family, "route", "show", "table", "all")
        assert "table 4500" not in routes
    # And after a crash, too.
    gwa = lab.begin_one(lab.gwa)
    tunnel(gwa, None)
    gwa.kill()
    gwa = lab.begin_one(lab.gwa)
    assert gwa.ask("usage") == {}
    assert lab.xfrm(lab.gwa).count("proto esp") == 2
    assert gwa.ask("close") is None
    assert (lab.xfrm(lab.gwa), lab.xfrm(lab.gwa, "policy")) == before


def test_kill_leaves_no_clear_path(lab: XfrmLab) -> None:
    gwa, gwb = lab.begin()
    tunnel(gwa, gwb, hard_seconds=6)
    assert lab.ping("-c", "2"), lab.last
    gwa.kill()
    # The kernel goes on, until the SA's end; then nothing passes, sealed or in clear.
    assert lab.ping("-c", "2"), lab.last
    wait_for(lambda: "0x00001000" not in lab.xfrm(lab.gwa), 15, "the end of the SA")
    before = lab.echoes()
    assert not lab.ping("-c", "2")
    assert not lab.ping("-c", "2", target=B6)
    assert lab.echoes() == before
    # Without the device, too.
    lab.inside(lab.gwa, "ip", "link", "del", "oegw0")
    assert not lab.ping("-c", "2")
    assert not lab.ping("-c", "2", target=B6)
    assert lab.echoes() == before
    gwb.ask("remove", spi=0x1000, destination=GATEWAY_B4, inbound=True)
    gwb.ask("remove", spi=0x11000, destination=GATEWAY_A4)
    gwa = lab.begin_one(lab.gwa)
    tunnel(gwa, gwb)
    assert lab.ping("-c", "2"), lab.last


def test_taken_port_and_taken_name(lab: XfrmLab) -> None:
    lab.inside(lab.gwa, "ip", "link", "add", "oegw0", "type", "bridge")
    control = failing_start(lab)
    assert "oegw0" in control
    assert "EEXIST" in control
    assert "bridge" in lab.inside(lab.gwa, "ip", "-d", "link", "show", "oegw0")
    assert lab.xfrm(lab.gwa, "policy").strip() == ""
    assert "4500" not in lab.inside(lab.gwa, "ip", "rule")


def failing_start(lab: XfrmLab) -> str:
    done = run(
        "nsenter", f"--net=/run/netns/{lab.gwa}", sys.executable, "-m",
        "tests.support.xfrm_gateway", "kernel", check=False,
    )  # fmt: skip
    assert done.returncode != 0
    return done.stderr.strip().splitlines()[-1]


def test_the_guard_of_interception_lets_sealed_packets_pass(lab: XfrmLab) -> None:
    """The rule set that the gateway installs: XFRM shows it each packet in clear once more, with
    the outside interface as its way.  Without a tunnel, nothing leaves."""
    settings = InterceptSettings(outside=("out0",), tunnel_interface="oegw0")
    chains = static_chains(
        policy(protected_rule("192.2.0.0/24"), protected_rule("2001:db8:2::/64"))
    )
    for name in (lab.gwa, lab.gwb):
        lab.inside(name, "nft", "delete", "table", "inet", "lab")
        lab.inside(name, "nft", whole_table(settings, chains, nft_queue=True))
    for name, near, far in ((lab.gwa, (A4, A6), (B4, B6)), (lab.gwb, (B4, B6), (A4, A6))):
        for version, place in ((4, 0), (6, 1)):
            ends = f"{{ {near[place]} . {far[place]} : return }}"
            lab.inside(
                name, "nft", "add", "element", "inet", "oegw",
                f"{Shape.PAIR.map_name(version)}", ends,
            )  # fmt: skip
    gwa, gwb = lab.begin()
    before = lab.echoes()
    assert not lab.ping("-c", "1")
    assert not lab.ping("-c", "1", target=B6)
    assert lab.echoes() == before
    tunnel(gwa, gwb)
    tunnel(gwa, gwb, spi=0x2000, inner=(A6, B6))
    assert lab.ping("-c", "3"), lab.last
    assert lab.ping("-c", "3", target=B6), lab.last
    table = lab.inside(lab.gwa, "nft", "list", "counters", "table", "inet", "oegw")
    for counter in ("tunnel_escaped_dropped", "guard_dropped"):
        assert re.search(counter + r" {\s*packets 0 ", table), table


def many(control: Control, count: int, **fields: Any) -> None:
    sas: list[dict[str, Any]] = [
        {
            "spi": 0x100000 + number, "source": GATEWAY_A4, "destination": GATEWAY_B4,
            "inner": [[A4, 0, 0], [f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 0, 0]],
        }
        for number in range(count)
    ]  # fmt: skip
    control.install(*(sa | fields for sa in sas))


def test_ten_thousand(lab: XfrmLab) -> None:
    gwa = lab.begin_one(lab.gwa)
    start = time.monotonic()
    many(gwa, 10_000)
    installed = time.monotonic()
    assert len(gwa.ask("usage")) == 10_000
    asked = time.monotonic()
    assert gwa.ask("close") is None
    closed = time.monotonic()
    print(
        f"install {installed - start:.1f} s, usage {asked - installed:.1f} s, "
        f"close {closed - asked:.1f} s"
    )
    assert lab.xfrm(lab.gwa).strip() == ""
    assert closed - start < 120


def test_more_reports_than_the_socket_holds(lab: XfrmLab) -> None:
    """The process hangs while thousands of SAs end: it hears of each all the same, once."""
    gwa = lab.begin_one(lab.gwa)
    many(gwa, 4000, hard_seconds=10)
    gwa.process.send_signal(signal.SIGSTOP)
    wait_for(lambda: not lab.xfrm(lab.gwa).strip(), 60, "the end of the SAs")
    gwa.process.send_signal(signal.SIGCONT)
    wait_for(lambda: len(gwa.named("SaExpired", hard=True)) >= 4000, 60, "the reports")
    assert gwa.ask("counters")["events_lost"] >= 1
    assert len({event["spi"] for event in gwa.named("SaExpired", hard=True)}) == 4000
    assert len(gwa.events) == 4000
