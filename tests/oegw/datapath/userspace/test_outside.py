"""The outer sockets on the loopback of a network namespace of the test's own."""

from __future__ import annotations

import ctypes
import errno
import os
import select
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any, cast

import pytest

from oegw.datapath.interface import DatapathError, IPAddress
from oegw.datapath.userspace import mmsghdr, receiving
from oegw.datapath.userspace import outside as module
from oegw.datapath.userspace.core.interface import RUN_PACKETS, Run
from oegw.datapath.userspace.filters import worker_of
from oegw.datapath.userspace.offloads import (
    PORTS_CHANGE,
    RECEIVING,
    SENDING,
    SWITCHED_OFF,
    Offload,
)
from oegw.datapath.userspace.outside import OuterGroup, OuterSocket, Sent, Way
from oegw.datapath.userspace.receiving import Datagram, Receiver
from tests.support.own_network import ip, own_network

pytestmark = pytest.mark.netns

MARK = 0x10000
PORT = 4500
A = {4: "127.0.0.1", 6: "fd00::1"}
B = {4: "127.0.0.2", 6: "fd00::2"}
KINDS = [(version, port) for version in (4, 6) for port in (None, PORT)]


@pytest.fixture(autouse=True)
def network() -> Iterator[None]:
    with own_network():
        for address in (A[6], B[6]):
            ip("addr", "add", f"{address}/128", "dev", "lo", "nodad")
        deadline = time.monotonic() + 10
        while ip("-6", "route", "show", "table", "local").count("local fd00::") < 2:
            assert time.monotonic() < deadline  # the kernel adds these routes a little later
        yield


def run_of(packets: list[bytes], traffic_class: int = 0, dont_fragment: bool = True) -> Run:
    return Run(
        sa=cast(Any, None),
        packets=memoryview(bytearray(b"".join(packets))),
        size=len(packets[0]),
        count=len(packets),
        octets=0,
        traffic_class=traffic_class,
        dont_fragment=dont_fragment,
        first=0,
        last=0,
    )


def packets_of(spi: int, *sizes: int) -> list[bytes]:
    return [
        struct.pack("!II", spi, number) + os.urandom(size - 8) for number, size in enumerate(sizes)
    ]


def way(outer: OuterSocket, port: int | None) -> Way:
    source, destination = ip_address(A[outer.version]), ip_address(B[outer.version])
    return outer.way(source, destination, port or 0)


def received(
    outer: OuterSocket, at_least: int = 1, datagrams: list[int] | None = None
) -> list[Datagram]:
    """Copies of what came, until there are so many packets.  To ``datagrams`` is added how many
    each reading took."""
    receiver, found, count = Receiver(), list[Datagram](), 0
    while True:
        ready, _, _ = select.select([outer.socket], [], [], 5 if count < at_least else 0)
        if not ready:
            return found
        came = receiver.receive(outer.socket.fileno(), outer.version, outer.encapsulated)
        if datagrams is not None:
            datagrams.append(receiver.count)
        for each in came:
            found.append(each._replace(payload=memoryview(bytes(each.payload))))
            count += -(-len(each.payload) // each.size)


def cut(found: list[Datagram]) -> list[bytes]:
    return [
        bytes(each.payload[at : at + each.size])
        for each in found
        for at in range(0, len(each.payload), each.size)
    ]


@pytest.mark.parametrize("offloads", [True, False])
@pytest.mark.parametrize(("version", "port"), KINDS)
@pytest.mark.parametrize("sizes", [(1300,) * 40 + (90,), (200,) * RUN_PACKETS, (64,)])
def test_a_run_arrives_whole(
    version: int, port: int | None, offloads: bool, sizes: tuple[int, ...]
) -> None:
    group = OuterGroup(version, port, MARK, offloads=offloads)
    [sealing], [opening] = group.sealing, group.opening
    packets = packets_of(0x1000, *sizes)
    assert sealing.send_run(run_of(packets, 0xB9), way(sealing, port)) == Sent(len(packets), 0)
    datagrams: list[int] = []
    found = received(opening, len(packets), datagrams)
    assert cut(found) == packets
    for each in found:
        assert each.source == ip_address(A[version]).packed
        assert each.destination == ip_address(B[version]).packed
        assert each.port == (port or 0)
        assert each.traffic_class == 0xB9
    if offloads and port:
        assert sum(datagrams) == 1
    else:
        assert sum(datagrams) == len(packets)
    assert found[0].size == sizes[0]
    group.close()


@pytest.mark.parametrize("version", [4, 6])
def test_where_the_kernel_changes_ports_packets_go_one_by_one(version: int) -> None:
    """A batch may lose its checksums there."""
    group = OuterGroup(version, PORT, MARK, ports_change=True)
    assert Offload(SENDING, PORTS_CHANGE) in group.told
    assert Offload(RECEIVING) in group.told
    [sealing], [opening] = group.sealing, group.opening
    assert not sealing.segments
    packets = packets_of(0x1000, *[1300] * 10)
    assert sealing.send_run(run_of(packets), way(sealing, PORT)) == Sent(len(packets), 0)
    found = received(opening, len(packets))
    assert cut(found) == packets
    group.close()


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize(("version", "port"), KINDS)
def test_each_sender_has_its_worker(version: int, port: int | None, workers: int) -> None:
    """What the kernel's filter computes, Python computes too; GRO is on."""
    group = OuterGroup(version, port, MARK, workers=workers)
    assert all(each.on for each in group.told), group.told
    keying = socket.socket(group.opening[0].socket.family, socket.SOCK_DGRAM)
    keying.settimeout(5)
    if port:
        keying.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if version == 6:
            keying.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        keying.bind(("", port))
    sealing = group.sealing[-1]
    sources = senders(version)
    mine: list[list[bytes]] = [[] for _ in range(workers)]
    for source in sources:
        to = sealing.way(source, ip_address(B[version]), port or 0)
        # Of several SAs, and one too short for any.
        packets = [packet for spi in (256, 257, 2**32 - 1) for packet in packets_of(spi, 40, 40)]
        for packet in packets:
            assert sealing.send_run(run_of([packet]), to) == Sent(1, 0)
        mine[worker_of(source.packed, workers)] += packets
        if not port:
            assert sealing.send_run(run_of([b"abc"]), to) == Sent(1, 0)
            mine[worker_of(source.packed, workers)].append(b"abc")
        else:
            sealing.send(bytes(4) + b"ike", to.from_, to.to, 0, False)
            assert keying.recv(100) == bytes(4) + b"ike"
    if port:
        sealing.send(b"\xff", to.from_, to.to, 0, False)  # too short for the marker
        mine[0].append(b"\xff")
    assert all(mine)
    for expected, opening in zip(mine, group.opening, strict=True):
        assert cut(received(opening, len(expected))) == expected
    keying.setblocking(False)
    for silent in (*(each.socket for each in group.opening + group.sealing), keying):
        with pytest.raises(BlockingIOError):
            silent.recv(100)
    keying.close()
    group.close()


def senders(version: int) -> list[IPAddress]:
    """Addresses of this namespace."""
    if version == 4:
        return [ip_address(f"127.0.{number}.{number * 7}") for number in range(1, 12)]
    found = [ip_address(f"fd00::{number:x}:{number * 7:x}:1") for number in range(1, 12)]
    for each in found:
        ip("addr", "add", f"{each}/128", "dev", "lo", "nodad")
    deadline = time.monotonic() + 10
    while ip("-6", "route", "show", "table", "local").count("local fd00::") < 2 + len(found):
        assert time.monotonic() < deadline  # the kernel adds these routes a little later
    return found


@pytest.mark.parametrize("workers", [1, 2, 3, 8, 16])
def test_senders_are_spread(workers: int) -> None:
    """Neighbours, and addresses of a pattern, meet all workers."""
    for step in (1, 2, 4, 256, 65536):
        first = int(ip_address("10.0.0.1"))
        addresses = [(first + step * number).to_bytes(4, "big") for number in range(1024)]
        addresses6 = [bytes.fromhex("20010db8") + bytes(8) + address for address in addresses]
        for each in (addresses, addresses6):
            counts = Counter(worker_of(address, workers) for address in each)
            assert set(counts) == set(range(workers))
            assert max(counts.values()) < 1.3 * 1024 / workers + 16


@pytest.mark.parametrize("offloads", [True, False])
@pytest.mark.parametrize(("version", "port"), KINDS)
def test_narrower_path(version: int, port: int | None, offloads: bool) -> None:
    """What must not be fragmented stops, and says so; all else goes in fragments."""
    ip("link", "set", "lo", "mtu", "1400")
    group = OuterGroup(version, port, MARK, offloads=offloads)
    [sealing], [opening] = group.sealing, group.opening
    to = way(sealing, port)
    packets = packets_of(0x1000, 1450, 1450, 1450, 700)
    assert sealing.send_run(run_of(packets), to) == Sent(0, errno.EMSGSIZE)
    assert sealing.send_run(run_of(packets, dont_fragment=False), to) == Sent(4, 0)
    fits = packets_of(0x1000, 1300, 1300)
    assert sealing.send_run(run_of(fits), to) == Sent(2, 0)
    assert cut(received(opening, 6)) == packets + fits
    assert sealing.segments is (offloads and port is not None)
    group.close()


@pytest.mark.parametrize("port", [None, PORT])
def test_no_route_is_said(port: int | None) -> None:
    group = OuterGroup(4, port, MARK)
    [sealing] = group.sealing
    far = sealing.way(ip_address(A[4]), ip_address("192.0.2.1"), port or 0)
    for sizes in ((100,), (100, 100)):
        sent = sealing.send_run(run_of(packets_of(0x1000, *sizes)), far)
        assert sent.packets == 0
        assert sent.error in (errno.ENETUNREACH, errno.EINVAL)
    group.close()


@pytest.mark.parametrize("port", [None, PORT])
def test_full_queue_loses_the_rest(port: int | None) -> None:
    group = OuterGroup(4, port, MARK, offloads=False)
    [sealing] = group.sealing
    ip("link", "add", "far0", "type", "veth", "peer", "name", "far1")
    ip("link", "set", "far1", "up")
    ip("link", "set", "far0", "up")
    ip("addr", "add", "10.1.1.1/24", "dev", "far0")
    sealing.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # as little as there can be
    # Nobody answers who has that address, so what is sent waits, and is the sender's.
    to = sealing.way(ip_address("10.1.1.1"), ip_address("10.1.1.2"), port or 0)
    sent = sealing.send_run(run_of(packets_of(0x1000, *[1400] * RUN_PACKETS)), to)
    assert 0 < sent.packets < RUN_PACKETS
    assert sent.error == errno.EAGAIN
    group.close()


@pytest.mark.parametrize("number", [errno.EIO, errno.EOPNOTSUPP, errno.EINVAL])
def test_where_the_kernel_refuses_segmentation_packets_go_one_by_one(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    group = OuterGroup(4, PORT, MARK)
    [sealing], [opening] = group.sealing, group.opening

    class Refusing:
        """The socket, but for UDP_SEGMENT."""

        def __init__(self, real: socket.socket) -> None:
            self.fileno, self.setsockopt = real.fileno, real.setsockopt

        def sendmsg(self, *_: object) -> int:
            raise OSError(number, os.strerror(number))

    lost: list[Offload] = []
    sealing = OuterSocket(sealing.socket, 4, True, segments=True, lost=lost)
    monkeypatch.setattr(sealing, "socket", Refusing(sealing.socket))
    packets = packets_of(0x1000, 1300, 1300, 1300, 90)
    assert sealing.send_run(run_of(packets), way(sealing, PORT)) == Sent(4, 0)
    datagrams: list[int] = []
    found = received(opening, 4, datagrams)
    assert cut(found) == packets
    assert sum(datagrams) == 4
    assert sealing.segments is (number == errno.EINVAL)
    why = f"the kernel refused it while it ran: {os.strerror(number)}"
    assert lost == ([] if sealing.segments else [Offload(SENDING, why)])
    assert sealing.send_run(run_of(packets), way(sealing, PORT)) == Sent(4, 0)
    assert len(lost) <= 1
    monkeypatch.undo()
    group.close()


def test_packets_of_a_flow_have_checksums_all_or_none() -> None:
    """Where a receiver's kernel joins packets, one without overtakes those with one."""
    no_check = 11  # SO_NO_CHECK
    for offloads in (True, False):
        group = OuterGroup(4, PORT, MARK, offloads=offloads)
        [sealing] = group.sealing
        to = way(sealing, PORT)
        for sizes in ([500, 500], [90], [500, 500]):
            assert sealing.send_run(run_of(packets_of(0x1000, *sizes)), to).error == 0
            assert sealing.socket.getsockopt(socket.SOL_SOCKET, no_check) == (not offloads)
        sealing.send(b"care", to.from_, to.to, 0, False)
        assert sealing.socket.getsockopt(socket.SOL_SOCKET, no_check) == (not offloads)
        group.close()


@pytest.mark.parametrize("version", [4, 6])
def test_what_the_kernel_lacks_is_told(monkeypatch: pytest.MonkeyPatch, version: int) -> None:
    monkeypatch.setattr(module, "_UDP_SEGMENT", 9999)
    monkeypatch.setattr(module, "UDP_GRO", 9998)
    group = OuterGroup(version, PORT, MARK)
    told = {each.name: each.reason for each in group.told}
    assert "4.18" in told[SENDING]
    assert "5.0" in told[RECEIVING]
    assert not any(each.segments for each in group.sealing)
    group.close()
    off = OuterGroup(version, PORT, MARK, offloads=False)
    assert {each.reason for each in off.told} == {SWITCHED_OFF}
    off.close()


def test_a_worker_adopts_what_was_opened() -> None:
    group = OuterGroup(4, PORT, MARK)
    handle = group.sealing[0].handle
    adopted = OuterSocket.adopt(handle._replace(descriptor=os.dup(handle.descriptor)))
    group.sealing[0].send(b"some", way(adopted, PORT).from_, (B[4], PORT), 0, False)
    packets = packets_of(0x1000, 500, 500)
    assert adopted.send_run(run_of(packets), way(adopted, PORT)) == Sent(2, 0)
    assert cut(received(group.opening[0], 3)) == [b"some", *packets]
    # The successor of a dead worker does not know which options that one had set.
    with pytest.raises(DatapathError, match="UDP port 4500 over IPv4"):
        OuterGroup(4, PORT, MARK)
    adopted.socket.close()
    group.close()


@pytest.mark.parametrize("port", [None, PORT])
def test_more_than_one_batch(port: int | None) -> None:
    group = OuterGroup(4, port, MARK, offloads=False)
    [sealing], [opening] = group.sealing, group.opening
    packets = packets_of(0x1000, *[100] * 300)
    for at in range(0, 300, 60):
        sealing.send_run(run_of(packets[at : at + 60]), way(sealing, port))
    receiver = Receiver()

    found: list[bytes] = []

    def count() -> int:
        came = receiver.receive(opening.socket.fileno(), 4, opening.encapsulated)
        found.extend(cut(came))
        return receiver.count

    assert [count() for _ in range(4)] == [128, 128, 44, 0]
    assert found == packets
    large = packets_of(0x1000, *[60000] * 12)
    for packet in large:
        sealing.send_run(run_of([packet], dont_fragment=False), way(sealing, port))
    # Bounded by octets too; and the largest datagram comes whole.
    assert cut(received(opening, 12)) == large
    group.close()


@pytest.mark.parametrize("port", [None, PORT])
def test_datagrams_that_continue_others_are_as_one(port: int | None) -> None:
    group = OuterGroup(4, port, MARK, offloads=False)
    [sealing], [opening] = group.sealing, group.opening
    sizes = (700, 700, 700, 90, 90, 700, 800, 700, 700)
    packets = packets_of(0x1000, *sizes, *[60000] * 4)
    for packet in packets[:-1]:
        sealing.send_run(run_of([packet], dont_fragment=False), way(sealing, port))
    sealing.send_run(run_of(packets[-1:], 0xB9, dont_fragment=False), way(sealing, port))
    found = received(opening, len(packets))
    assert cut(found) == packets
    rows = [(700, 2190), (90, 90), (700, 700), (800, 1500), (700, 700)]  # the last may be shorter
    rows += [(60000, 120000), (60000, 60000), (60000, 60000)]  # that is all the room; another class
    assert [(each.size, len(each.payload)) for each in found] == rows
    group.close()


def test_as_one_come_no_more_than_is_good_to_look_at_more_than_once() -> None:
    """A row is looked at anew behind each of its breaks."""
    assert receiving._continues(63 * 40, 40, 64 * 40, 40)
    assert not receiving._continues(64 * 40, 40, 40, 40)


def test_a_socket_that_is_gone_is_an_error() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        Receiver().receive(1023, 4, True)


@pytest.mark.parametrize("port", [None, PORT])
@pytest.mark.parametrize("refusal", [errno.ENOSYS, errno.EPERM])
def test_without_batched_system_calls(
    monkeypatch: pytest.MonkeyPatch, port: int | None, refusal: int
) -> None:
    def lacking(*_: object) -> int:
        ctypes.set_errno(refusal)
        return -1

    monkeypatch.setattr(mmsghdr, "_sendmmsg", lacking)
    monkeypatch.setattr(mmsghdr, "_recvmmsg", lacking)
    group = OuterGroup(4, port, MARK, offloads=False)
    [sealing], [opening] = group.sealing, group.opening
    packets = packets_of(0x1000, *[700] * 50, 90)
    assert sealing.send_run(run_of(packets), way(sealing, port)) == Sent(51, 0)
    assert cut(received(opening, 51)) == packets
    group.close()
