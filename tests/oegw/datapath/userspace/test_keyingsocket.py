"""One port, two sockets: the kernel gives IKE to one and all else to the other.

On the loopback, with a port of the kernel's choice; the mark of the sockets needs root.
"""

from __future__ import annotations

import asyncio
import socket
from ipaddress import ip_address

import pytest

from oegw.datapath.interface import DatapathError, KeyingDatagram
from oegw.datapath.userspace.keyingsocket import KeyingSockets
from oegw.datapath.userspace.outside import OuterGroup
from oegw.datapath.userspace.receiving import Receiver

pytestmark = pytest.mark.netns  # root, as those that build namespaces

MARK = 0x10000
LOOPBACK = {4: "127.0.0.1", 6: "::1"}


def free_port(version: int) -> int:
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("version", [4, 6])
def test_the_kernel_sorts_by_the_marker(version: int) -> None:
    port, came, esp = free_port(version), list[KeyingDatagram](), list[bytes]()
    payloads = (b"\xff", b"", bytes(3), b"\0\0\1\0esp", bytes(4), bytes(4) + b"ike", bytes(8))

    async def play() -> None:
        group = OuterGroup(version, port, MARK)
        [outer] = group.opening
        keying = KeyingSockets(MARK, came.append)
        keying.open(port, (version,))
        try:
            with socket.socket(outer.socket.family, socket.SOCK_DGRAM) as peer:
                for payload in payloads:
                    peer.sendto(payload, (LOOPBACK[version], port))
                while len(came) < 3:
                    await asyncio.sleep(0.01)
                receiver = Receiver()
                came_there = receiver.receive(outer.socket.fileno(), version, True)
                esp.extend(bytes(each.payload) for each in came_there)
                assert receiver.receive(outer.socket.fileno(), version, True) == []
                address, remote_port = ip_address(LOOPBACK[version]), peer.getsockname()[1]
            assert came == [
                KeyingDatagram(payload, address, address, remote_port) for payload in payloads[4:]
            ]
            assert keying.counters()["keying_in"] == 3
        finally:
            keying.close()
            group.close()

    asyncio.run(asyncio.wait_for(play(), 10))
    assert esp == list(payloads[:4])


@pytest.mark.parametrize("version", [4, 6])
def test_what_the_kernel_joined_comes_apart(version: int) -> None:
    """It may join only where every socket of the port takes that."""
    port, came = free_port(version), list[KeyingDatagram]()
    payloads = [bytes(4) + bytes([number]) * (60 if number < 3 else 9) for number in range(4)]

    async def play() -> None:
        group = OuterGroup(version, port, MARK)
        keying = KeyingSockets(MARK, came.append)
        keying.open(port, (version,), joined=True)
        try:
            with socket.socket(group.opening[0].socket.family, socket.SOCK_DGRAM) as peer:
                peer.setsockopt(socket.IPPROTO_UDP, 103, 64)  # UDP_SEGMENT
                peer.sendto(b"".join(payloads), (LOOPBACK[version], port))
                while len(came) < len(payloads):
                    await asyncio.sleep(0.01)
            assert [each.data for each in came] == payloads
        finally:
            keying.close()
            group.close()

    asyncio.run(asyncio.wait_for(play(), 10))


def test_what_is_not_read_in_time_is_counted_over_the_end() -> None:
    port = free_port(4)

    async def play() -> None:
        group = OuterGroup(4, port, MARK)
        keying = KeyingSockets(MARK, lambda _: None)
        keying.open(port, (4,))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            for _ in range(2000):  # nobody reads meanwhile
                peer.sendto(bytes(4) + bytes(1200), (LOOPBACK[4], port))
        dropped = keying.counters()["drop_in_keying"]
        keying.close()
        group.close()
        assert dropped > 1000
        assert keying.counters()["drop_in_keying"] == dropped

    asyncio.run(play())


def test_a_port_that_another_shares_is_refused() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("", 0))
        with pytest.raises(DatapathError, match="in use"):
            OuterGroup(4, other.getsockname()[1], MARK)
