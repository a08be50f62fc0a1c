"""Packets that came to the wrong socket."""

from __future__ import annotations

import sys
import time
from ipaddress import ip_address

import pytest

from oegw.datapath.userspace.strays import Stray, StrayDesk, StrayPaths, received
from tests.support.datapath_lab import Lab
from tests.support.datapath_sas import GATEWAY_A4, GATEWAY_B4

SOURCE, DESTINATION = ip_address("192.0.2.1").packed, ip_address("192.0.2.2").packed
SOURCE6, DESTINATION6 = ip_address("2001:db8::1").packed, ip_address("2001:db8::2").packed


def stray(payload: bytes) -> Stray:
    return Stray(payload, SOURCE, 4500, DESTINATION, 0xB9)


@pytest.mark.parametrize(
    "came",
    [
        stray(b""),
        stray(bytes(4) + b"ike"),
        Stray(b"\0\0\1\0" + bytes(65000), SOURCE6, 65535, DESTINATION6, 0),
        Stray(b"\0\0\1\0", SOURCE6, 0, DESTINATION6, 0, encapsulated=False, hops=2),
    ],
)
def test_as_octets_and_back(came: Stray) -> None:
    assert Stray.parse(came.serialize()) == came


def test_each_goes_to_whom_it_is_for() -> None:
    paths = StrayPaths(3)
    desk = StrayDesk(paths.beginnings)
    assert (desk.workers, desk.keying) == (3, 3)
    ike = bytes(4) + b"ike"
    assert [stray(octets).spi for octets in (ike, b"\0\0\1\0", b"\xff")] == [0, 256, None]
    assert desk.send(desk.keying, stray(ike))
    assert desk.send(desk.keying, stray(ike + b"again"))
    there = [stray(ike)._replace(hops=1), stray(ike + b"again")._replace(hops=1)]
    assert received(paths.ends[3], 10) == there
    assert [received(end, 10) for end in paths.ends] == [[], [], [], []]
    paths.close()


def test_no_packet_goes_round_and_round() -> None:
    paths = StrayPaths(2)
    desk = StrayDesk(paths.beginnings)
    came, hops = stray(b"\0\0\1\0"), 0
    while desk.send(hops % 2, came):
        [came] = received(paths.ends[hops % 2], 10)
        hops += 1
    assert hops == 3
    paths.close()


def test_who_is_not_read_is_not_waited_for() -> None:
    paths = StrayPaths(1)
    desk = StrayDesk(paths.beginnings)
    taken = 0
    while desk.send(1, stray(bytes(1400))):
        taken += 1
        assert taken < 100_000
    assert taken > 60  # a whole batch, where the system allows no larger buffers
    assert len(received(paths.ends[1], 10)) == 10
    paths.close()
    assert not desk.send(1, stray(b"late"))


# ESP that nobody has an SA for, IKE, and once more the same, which the kernel takes for one.
JOINED = """
import socket, sys
source, destination = sys.argv[1:]
esp = bytes.fromhex("7fffffff") + bytes(296)
ike = bytes(4) + b"from among them".ljust(296)
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
    sender.bind((source, 4501))
    sender.setsockopt(socket.IPPROTO_UDP, 103, 300)
    sender.sendto(esp + ike + esp, (destination, 4500))
    sender.sendto(ike + esp + ike, (destination, 4500))
"""


@pytest.mark.netns
def test_ike_among_joined_esp_reaches_the_control_process() -> None:
    with Lab() as lab:
        gwb = lab.start_one("b", encapsulation="udp")
        lab.inside(lab.gwa, sys.executable, "-c", JOINED, GATEWAY_A4, GATEWAY_B4)
        ike = bytes(4) + b"from among them".ljust(296)
        deadline = time.monotonic() + 10
        while gwb.counters().get("keying_in", 0) < 3 or gwb.counters()["drop_in_unknown_spi"] < 3:
            assert time.monotonic() < deadline, gwb.counters()
            time.sleep(0.05)
        assert gwb.ask("keyings", "last") == [GATEWAY_A4, 4501, ike.hex()]
        assert gwb.counters()["keying_in"] == 3
        assert gwb.counters()["drop_in_unknown_spi"] == 3
