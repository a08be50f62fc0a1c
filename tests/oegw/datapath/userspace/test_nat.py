"""Behind a real NAT: the mapping changes, the SAs move; and IKE beside ESP on one port."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.datapath_lab import NAT_FIRST, NAT_INSIDE_A, NAT_SECOND, Lab, NatLab
from tests.support.datapath_sas import B4, GATEWAY_A4, GATEWAY_A6, GATEWAY_B4, GATEWAY_B6

pytestmark = pytest.mark.netns


@contextmanager
def beside(namespace: str, *command: str) -> Iterator[subprocess.Popen[str]]:
    """``command`` at work in a namespace."""
    enter = (str(shutil.which("nsenter")), f"--net=/run/netns/{namespace}")
    process = subprocess.Popen([*enter, *command], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_new_mapping_is_reported_and_traffic_goes_on_after_the_move() -> None:
    count = 800  # at 100 in a second
    with NatLab() as lab:
        lab.map_to(NAT_FIRST, 20000)
        lab.start_one("a", 4, "udp", outer_a=(NAT_INSIDE_A, 4500))
        gwb = lab.start_one("b", 4, "udp", outer_a=(NAT_FIRST, 4500))  # not what the NAT chose
        assert not lab.ping("-c", "1")
        assert gwb.read("peer") == [NAT_FIRST, 20000]
        assert gwb.ask(f"move {NAT_FIRST} 20000", "moved") == 4
        assert lab.ping("-c", "3"), lab.last
        command = ("ping", "-n", "-i", "0.01", "-W", "2", "-c", str(count), B4)
        with beside(lab.alice, *command) as ping:
            time.sleep(1)
            lab.map_to(NAT_SECOND, 30000)
            assert gwb.read("peer") == [NAT_SECOND, 30000]
            for _ in range(20):  # once, and then again and again under traffic
                assert gwb.ask(f"move {NAT_SECOND} 30000", "moved") == 4
            output, _ = ping.communicate(timeout=60)
        answered = {int(number) for number in re.findall(r"icmp_seq=(\d+) ttl", output)}
        lost = sorted(set(range(1, count + 1)) - answered)
        print(f"lost {len(lost)} of {count}: {lost[:1]} to {lost[-1:]}")
        assert lost, "the mapping did not change"
        assert lost[0] > 50
        assert lost == list(range(lost[0], lost[-1] + 1)), "lost after the move"
        assert lost[-1] < count - 100
        counters = gwb.counters()
        assert "drop_in_replay" not in counters
        assert counters["esp_in_packets"] >= len(answered)


def resident(process: int) -> int:
    """Octets of memory."""
    text = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    [kilobytes] = re.findall(r"VmRSS:\s+(\d+) kB", text)
    return int(kilobytes) * 1024


FLOOD = """
import socket, sys, time
target, pause = sys.argv[1], float(sys.argv[2])
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
payload = bytes(4) + b"x" * 1200
while True:
    for _ in range(20):
        out.sendto(payload, (target, 4500))
    time.sleep(pause)
"""


def test_a_flood_of_ike_neither_fills_memory_nor_delays_answers() -> None:
    with Lab() as lab:
        _, gwb = lab.start(4, "udp")
        assert lab.ping("-c", "1"), lab.last
        workers = gwb.workers.values()
        before = [resident(pid) for pid in (*workers, gwb.process.pid)]
        with beside(lab.gwa, sys.executable, "-c", FLOOD, GATEWAY_B4, "0"):
            slowest, until = 0.0, time.monotonic() + 3
            while time.monotonic() < until:
                asked = time.monotonic()
                assert gwb.counters()
                slowest = max(slowest, time.monotonic() - asked)
        dropped = gwb.counters().get("drop_in_keying", 0)
        print(f"slowest answer {slowest:.3f} s, {gwb.counters()}")
        assert slowest < 2
        came = gwb.ask("keyings", "keyings")
        assert came > 100
        # A control process that does not read: its queue fills, packets go on.
        os.kill(gwb.process.pid, signal.SIGSTOP)
        try:
            with beside(lab.gwa, sys.executable, "-c", FLOOD, GATEWAY_B4, "0.01"):
                time.sleep(1)
                assert lab.ping("-c", "10"), lab.last
                assert " 0% packet loss" in lab.last
        finally:
            os.kill(gwb.process.pid, signal.SIGCONT)
        counters = gwb.counters()
        now = [resident(pid) for pid in (*workers, gwb.process.pid)]
        grown = [after - size for after, size in zip(now, before, strict=True)]
        print(counters, grown)
        assert counters["drop_in_keying"] > dropped + 100
        assert max(grown) < 8 * 2**20
        assert lab.ping("-c", "3"), lab.last


LISTEN = """
import socket, sys
family = socket.AF_INET if sys.argv[1] == "4" else socket.AF_INET6
raw = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_UDP)
print("listening", flush=True)
while True:
    packet = raw.recv(65536)
    udp = packet[(packet[0] & 15) * 4:] if family == socket.AF_INET else packet
    if udp[:2] == (4500).to_bytes(2, "big"):
        print(udp[6:8].hex(), udp[8:12].hex(), flush=True)
"""


@pytest.mark.parametrize(("family", "offloads"), [(4, True), (4, False), (6, True)])
def test_checksums_on_the_wire(family: int, offloads: bool) -> None:
    """ESP in UDP over IPv4 has none (RFC 3948 section 2.1), unless the kernel segments some of it:
    then all has one, or a receiver's kernel changes the order.  All else has one."""
    outer_a = GATEWAY_A4 if family == 4 else GATEWAY_A6
    outer_b = GATEWAY_B4 if family == 4 else GATEWAY_B6
    with Lab() as lab:
        gwa, gwb = lab.start(family, "udp", offloads=offloads)
        with beside(lab.gwb, sys.executable, "-c", LISTEN, str(family)) as listener:
            assert listener.stdout is not None
            assert listener.stdout.readline() == "listening\n"
            for _ in range(2):  # what is sent for IKE does not stay so for ESP
                assert lab.ping("-c", "1"), lab.last
                checksum, start = listener.stdout.readline().split()
                assert start == "00001000"
                assert (checksum == "0000") is (family == 4 and not offloads)
                assert gwa.ask(f"keying {outer_b} 4500", "sent")
                checksum, start = listener.stdout.readline().split()
                assert start == "00000000"
                assert checksum != "0000"
        assert gwb.ask("keyings", "last") == [outer_a, 4500, (bytes(4) + b"keying").hex()]
