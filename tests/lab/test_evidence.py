"""The lab's own means of proof: they must fail when there is something to be found."""

from __future__ import annotations

import re
import shutil
import signal
import struct
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.lab_commands import LAB, ROOT, lab

BARE = """
import sys
sys.path.insert(0, sys.argv[1])
from lablib import facts, lab, runner, scenario, steps
from lablib.run import Run
run = Run.create()
try:
    built = lab.put_up(run, scenario.load("demo"), print, with_gateways=False)
    report = runner.Report()
    runner.take_steps(built, report)
    built.end_captures()
    runner.check_facts(built, report, (
        {"kind": "encrypted", "text": "encrypted", "link": "west"},
        {"kind": "no-addresses", "text": "addresses", "link": "west", "hosts": ["alice", "bob"]},
        {"kind": "no-payload", "text": "payload", "link": "west", "but_on": "as1"},
        {"kind": "housekeeping", "text": "housekeeping", "link": "west", "askers": ["alice"]},
        {"kind": "packets", "text": "clear", "link": "west", "source": "alice",
         "destination": "bob", "count": 0},
    ))
finally:
    run.close()
"""


@pytest.mark.lab
@pytest.mark.netns
def test_without_gateways_each_claim_of_secrecy_is_found_false() -> None:
    done = subprocess.run(
        [sys.executable, "-B", "-c", BARE, str(ROOT / "netns-lab")],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert any("20 of 20 answered" in line for line in lines), done.stdout + done.stderr
    for claim in ("encrypted", "addresses", "payload", "housekeeping", "clear"):
        assert any(line.startswith(f"FAILED  {claim}: ") for line in lines), done.stdout


SEALED = """
import dataclasses, sys
sys.path.insert(0, sys.argv[1])
from lablib import lab, runner, scenario
from lablib.run import Run
played = scenario.load(sys.argv[2])
run = Run.create()
try:
    built = lab.put_up(run, played, print, with_gateways=False)
    built.port_keys = {}
    report = runner.Report()
    runner.take_steps(built, report)
    built.end_captures()
    runner.check_facts(built, report, played.facts)
finally:
    run.close()
"""


@pytest.mark.lab
@pytest.mark.netns
@pytest.mark.parametrize("scenario", ["sst-only", "sst-errors"])
def test_without_gateways_each_claim_of_sealed_ports_is_found_false(scenario: str) -> None:
    """The steps work over a plain network, so what they send is there to be found."""
    done = subprocess.run(
        [sys.executable, "-B", "-c", SEALED, str(ROOT / "netns-lab"), scenario],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line[:6] in ("ok    ", "FAILED")]
    steps = tomllib.loads((LAB.parent / "scenarios" / scenario / "expect.toml").read_text())["step"]
    facts = lines[len(steps) :]
    assert all(line.startswith("ok ") for line in lines[: len(steps)]), done.stdout + done.stderr
    claims = [line for line in facts if "there is no ESP" not in line]
    assert len(claims) >= 5, done.stdout + done.stderr
    assert all(line.startswith("FAILED") for line in claims), done.stdout


@pytest.mark.lab
@pytest.mark.netns
def test_up_exec_and_down_leave_nothing_behind() -> None:
    code, output = lab("--id", "upping", "up", "--bare")
    try:
        assert code == 0, output
        code, output = lab("--id", "upping", "exec", "alice", "--", "ping", "-4c1", "-W2", "bob")
        assert code == 0, output
        code, output = lab("--id", "upping", "up", "--bare")
        assert code == 2, output
        assert "there already" in output
    finally:
        code, output = lab("--id", "upping", "down")
    assert code == 0, output
    assert not list(Path("/run/netns").glob("oegw-upping-*"))
    assert not list(Path("/etc/netns").glob("oegw-upping-*"))
    assert lab("--id", "upping", "exec", "alice", "--", "true")[0] == 2


@pytest.fixture(scope="module")
def pcap() -> Iterator[object]:
    sys.path.insert(0, str(LAB.parent))
    try:
        from lablib import pcap

        yield pcap
    finally:
        sys.path.remove(str(LAB.parent))


def _capture(frames: list[bytes], order: str, nanoseconds: bool) -> bytes:
    magic, unit = (0xA1B23C4D, 1_000_000_000) if nanoseconds else (0xA1B2C3D4, 1_000_000)
    octets = struct.pack(order + "IHHIIII", magic, 2, 4, 0, 0, 2048, 1)
    for number, frame in enumerate(frames):
        octets += struct.pack(order + "IIII", 1000 + number, unit // 4, len(frame), len(frame))
        octets += frame
    return octets


def _scapy_frames() -> list[tuple[str, bytes]]:
    from scapy.all import ARP, DNS, ESP, ICMP, IP, TCP, UDP, Ether, IPv6, Raw
    from scapy.layers.inet6 import (
        ICMPv6DestUnreach,
        ICMPv6EchoRequest,
        ICMPv6ND_NS,
        IPv6ExtHdrFragment,
    )

    # Both addresses are given: scapy would ask the network of the machine for them.
    start = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    v4 = start / IP(src="192.1.0.65", dst="192.2.0.66")
    v6 = start / IPv6(src="2001:db8:1::65", dst="2001:db8:2::66")
    frames = [
        ("arp", start / ARP(psrc="192.1.1.4", hwsrc="02:00:00:00:00:01", pdst="192.1.1.5")),
        ("echo request", v4 / ICMP(type=8)),
        ("echo reply", v4 / ICMP(type=0)),
        ("icmp", v4 / ICMP(type=3, code=4)),
        ("esp", v4 / ESP(spi=1, seq=1, data=b"x" * 40)),
        ("ike", v4 / UDP(sport=500, dport=500) / Raw(bytes(28))),
        ("udp", v4 / UDP(sport=500, dport=500) / Raw(b"no header of ISAKMP")),
        ("ike", v4 / UDP(sport=40000, dport=4500) / Raw(bytes(4 + 28))),
        ("udp", v4 / UDP(sport=40000, dport=4500) / Raw(bytes(4 + 27))),
        ("udp-esp", v4 / UDP(sport=4500, dport=40000) / Raw(b"\0\0\1\0" + bytes(40))),
        ("keepalive", v4 / UDP(sport=4500, dport=40000) / Raw(b"\xff")),
        ("udp", v4 / UDP(sport=4500, dport=40000) / Raw(b"\xfe")),
        ("udp", v4 / UDP(sport=4500, dport=40000)),
        ("returned", v4 / ICMP(type=3, code=2) / IP() / ESP(spi=1, seq=1)),
        ("returned", v4 / ICMP(type=3, code=3) / IP() / UDP(sport=4500, dport=30000)),
        ("icmp", v4 / ICMP(type=3, code=3) / IP() / UDP(sport=40000, dport=40001)),
        ("echo request", v4 / ICMP(type=8) / IP() / ESP(spi=1, seq=1)),
        ("dns", v4 / UDP(sport=40000, dport=53) / DNS()),
        ("tcp", v4 / TCP(sport=80, dport=40000)),
        ("udp", v4 / UDP(sport=40000, dport=40001)),
        (
            "fragment",
            start
            / IP(src="192.1.0.65", dst="192.2.0.66", frag=10, proto=17, id=7)
            / Raw(b"x" * 20),
        ),
        ("echo request", v6 / ICMPv6EchoRequest()),
        ("neighbour discovery", v6 / ICMPv6ND_NS()),
        ("ike", v6 / UDP(sport=500, dport=500) / Raw(bytes(28))),
        ("returned", v6 / ICMPv6DestUnreach() / IPv6() / ESP(spi=1, seq=1)),
        ("icmpv6", v6 / ICMPv6DestUnreach() / IPv6() / UDP(sport=40000, dport=40001)),
        ("esp", v6 / ESP(spi=1, seq=1, data=b"x" * 40)),
        ("fragment", v6 / IPv6ExtHdrFragment(offset=10, nh=17, id=9) / Raw(b"x" * 8)),
    ]
    return [(kind, bytes(frame)) for kind, frame in frames]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("nanoseconds", [False, True])
def test_reader_names_packets_made_by_scapy(
    pcap: object, tmp_path: Path, order: str, nanoseconds: bool
) -> None:
    made = _scapy_frames()
    path = tmp_path / "x.pcap"
    path.write_bytes(_capture([frame for _, frame in made], order, nanoseconds))
    read = pcap.packets(path)  # type: ignore[attr-defined]
    assert [p.kind for p in read] == [kind for kind, _ in made]
    assert [p.time for p in read] == [1000.25 + n for n in range(len(made))]
    assert [p.frame for p in read] == [frame for _, frame in made]
    assert (str(read[1].source), str(read[1].destination)) == ("192.1.0.65", "192.2.0.66")


def test_a_later_fragment_has_the_kind_of_its_packet(pcap: object, tmp_path: Path) -> None:
    from scapy.all import IP, UDP, Ether, Raw, fragment

    whole = (
        IP(src="192.1.1.4", dst="192.1.1.5", id=3) / UDP(sport=500, dport=500) / Raw(bytes(3000))
    )
    path = tmp_path / "x.pcap"
    start = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    frames = [bytes(start / piece) for piece in fragment(whole, 1400)]
    path.write_bytes(_capture(frames, "<", False))
    assert [p.kind for p in pcap.packets(path)] == ["ike"] * 3  # type: ignore[attr-defined]


def test_a_capture_that_is_cut_off_gives_what_is_whole(pcap: object, tmp_path: Path) -> None:
    frames = [frame for _, frame in _scapy_frames()]
    octets = _capture(frames, "<", False)
    path = tmp_path / "x.pcap"
    for length in range(24, len(octets), 7):
        path.write_bytes(octets[:length])
        read = pcap.packets(path)  # type: ignore[attr-defined]
        assert [p.frame for p in read] == frames[: len(read)]


@pytest.mark.lab
@pytest.mark.netns
def test_a_run_that_is_interrupted_takes_everything_down() -> None:
    process = subprocess.Popen(
        [str(LAB), "--id", "breakoff", "run", "crash-drop"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if "gateways sg-a, sg-b" in line:
            break
    process.send_signal(signal.SIGINT)
    rest = process.stdout.read()
    assert process.wait(timeout=30) == 130, rest
    left = re.search(r"left in (\S+):", rest)
    assert left is not None, rest
    try:
        assert not list(Path("/run/netns").glob("oegw-breakoff-*"))
        assert not list(Path("/etc/netns").glob("oegw-breakoff-*"))
        mentioned = subprocess.run(
            ["ps", "-eo", "stat,args"], capture_output=True, text=True, check=True
        ).stdout
        alive = [p for p in mentioned.splitlines() if left[1] in p and not p.startswith("Z")]
        assert not alive
    finally:
        shutil.rmtree(left[1])


KERNEL_STATES = """\
src 192.1.1.4 dst 192.1.1.5
\tproto esp spi 0x0000abcd(43981) reqid 1(0x00000001) mode tunnel
\tlifetime current:
\t  1680(bytes), 20(packets)
\t  add 2026-11-21 08:00:00 use 2026-11-21 08:00:01
src 192.1.1.5 dst 192.1.1.4
\tproto esp spi 0xc0ffee00(3237998080) reqid 1(0x00000001) mode tunnel
\tlifetime current:
\t  84(bytes), 1(packets)
\t  add 2026-11-21 08:00:00 use -
"""


def test_kernel_counters_and_status_are_read_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "netns-lab"))
    from lablib import kernelcounters

    of_kernel = kernelcounters.of_kernel(KERNEL_STATES)
    assert of_kernel == {"0000abcd": (20, 1680), "c0ffee00": (1, 84)}
    row = {
        "tunnels": 1, "spi_out": "0000abcd", "packets_out": 20, "bytes_out": 1680,
        "spi_in": "c0ffee00", "packets_in": 1, "bytes_in": 84,
    }  # fmt: skip
    assert kernelcounters.of_status([row]) == of_kernel
    assert kernelcounters.of_status([{**row, "tunnels": 2}, {"tunnels": 0}]) == {}
