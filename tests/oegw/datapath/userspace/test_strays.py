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
    ],
)
def test_as_octets_and_back(came: Stray) -> None:
    assert Stray.parse(came.serialize()) == came


def test_each_goes_to_whom_it_is_for() -> None:
    paths = StrayPaths(3)
    desks = [StrayDesk(paths.beginnings, index) for index in range(4)]  # the last: the keying's
    for spi in (256, 257, 258):
        payload = spi.to_bytes(4, "big") + b"sealed"
        owner = spi % 3
        assert [desk.place(payload) for desk in desks] == [
            None if index == owner else owner for index in range(4)
        ]
    ike = bytes(4) + b"ike"
    assert [desk.place(ike) for desk in desks] == [3, 3, 3, None]
    assert desks[0].place(b"\xff") is None  # too short to be anybody's
    assert desks[0].send(3, stray(ike))
    assert desks[1].send(3, stray(ike + b"again"))
    assert received(paths.ends[3], 10) == [stray(ike), stray(ike + b"again")]
    assert [received(end, 10) for end in paths.ends] == [[], [], [], []]
    paths.close()


def test_who_is_not_read_is_not_waited_for() -> None:
    paths = StrayPaths(1)
    desk = StrayDesk(paths.beginnings, 0)
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
