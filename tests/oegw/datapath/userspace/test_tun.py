"""The tunnel device in a network namespace of the test's own: what the kernel gives to it, and
takes from it."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from oegw.bpf.kernel import BpfError
from oegw.datapath.interface import DatapathError
from oegw.datapath.userspace import tun as module
from oegw.datapath.userspace.offloads import STEERING, TCP_SEGMENTATION, UDP_SEGMENTATION
from oegw.datapath.userspace.tun import Tun, open_tun
from tests.support.own_network import ip, own_network

pytestmark = pytest.mark.netns

NAME = "oegwt0"
VIRTIO = struct.Struct("=BBHHHH")
NEEDS_CSUM, UDP_L4 = 1, 5
UDP_SEGMENT = 103
IPV6_FREEBIND = 78
INSIDE, FAR = "10.9.0.1", "10.9.1.{}"


@pytest.fixture(autouse=True)
def network() -> Iterator[None]:
    with own_network():
        yield


def opened(queues: int = 1, offloads: bool = True) -> Tun:
    tun = open_tun(NAME, 1500, queues, offloads)
    ip("addr", "add", f"{INSIDE}/32", "dev", NAME)
    ip("route", "add", "10.9.1.0/24", "dev", NAME)
    ip("-6", "route", "add", "fd09:1::/64", "dev", NAME)
    ip("route", "add", "local", "10.9.2.0/24", "dev", "lo")  # many hosts at once
    ip("-6", "route", "add", "local", "fd09:2::/64", "dev", "lo")
    return tun


def frames(descriptor: int, at_least: int = 1) -> list[bytes]:
    """All that waits, without router solicitations and their like; waits for ``at_least``."""
    found: list[bytes] = []
    while True:
        ready, _, _ = select.select([descriptor], [], [], 5 if len(found) < at_least else 0)
        if not ready:
            return found
        found.append(os.read(descriptor, 65545))


def reasons(tun: Tun) -> dict[str, str]:
    return {each.name: each.reason for each in tun.told}


def bulk(count: int, size: int) -> None:
    """As many datagrams with one system call."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind((INSIDE, 7000))
        sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, size)
        sender.sendto(bytes(count * size), (FAR.format(7), 7000))


def test_with_offloads_the_kernel_leaves_the_cutting_to_us() -> None:
    tun = opened()
    assert tun.virtio
    assert reasons(tun) == {TCP_SEGMENTATION: "", UDP_SEGMENTATION: ""}
    bulk(10, 1000)
    [frame] = frames(tun.descriptors[0])
    flags, kind, _, size, start, offset = VIRTIO.unpack_from(frame)
    assert (flags, kind, size, start, offset) == (NEEDS_CSUM, UDP_L4, 1000, 20, 6)
    assert len(frame) == VIRTIO.size + 28 + 10 * 1000
    tun.close()


def test_super_packets_of_ours_are_taken() -> None:
    tun = opened()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind((INSIDE, 7000))
        receiver.settimeout(5)
        payload = bytes(range(250)) * 4 * 10
        udp = struct.pack("!HHHH", 7000, 7000, 8 + len(payload), 0)
        source, destination = socket.inet_aton(FAR.format(7)), socket.inet_aton(INSIDE)
        header = struct.pack("!BBHHHBBH", 0x45, 0, 28 + len(payload), 1, 0, 64, 17, 0)
        header = with_checksum(header + source + destination, 10)
        pseudo = source + destination + struct.pack("!HH", 17, 8 + len(payload))
        udp = udp[:6] + struct.pack("!H", folded(pseudo))  # partial: the rest is left to the kernel
        os.write(
            tun.descriptors[0],
            VIRTIO.pack(NEEDS_CSUM, UDP_L4, 28, 1000, 20, 6) + header + udp + payload,
        )
        assert [receiver.recv(65535) for _ in range(10)] == [payload[:1000]] * 10
    tun.close()


def folded(octets: bytes) -> int:
    total = int.from_bytes(octets, "big") % 0xFFFF
    return total or 0xFFFF


def with_checksum(header: bytes, at: int) -> bytes:
    return header[:at] + struct.pack("!H", 0xFFFF - folded(header)) + header[at + 2 :]


def test_without_offloads_packets_are_bare_and_single() -> None:
    tun = opened(offloads=False)
    assert not tun.virtio
    assert not tun.uso
    assert reasons(tun) == dict.fromkeys((TCP_SEGMENTATION, UDP_SEGMENTATION), "switched off")
    bulk(3, 1000)
    got = frames(tun.descriptors[0], 3)
    assert [len(each) for each in got] == [1028] * 3
    assert {each[0] for each in got} == {0x45}
    tun.close()


@pytest.mark.parametrize("all_of_them", [False, True])
def test_what_the_device_refuses_is_left_out_and_told(
    monkeypatch: pytest.MonkeyPatch, all_of_them: bool
) -> None:
    real = module.set_offload

    def refusing(descriptor: int, features: int) -> None:
        if all_of_them or features & 0x60:
            raise OSError(errno.EINVAL, "Invalid argument")
        real(descriptor, features)

    monkeypatch.setattr(module, "set_offload", refusing)
    tun = opened()
    assert tun.virtio
    assert not tun.uso
    why = reasons(tun)
    assert "refuses" in why[UDP_SEGMENTATION]
    assert ("refuses" in why[TCP_SEGMENTATION]) is all_of_them
    bulk(3, 1000)
    got = frames(tun.descriptors[0], 3)
    assert [VIRTIO.unpack_from(each)[1] for each in got] == [0, 0, 0]  # no super-packets
    tun.close()


def test_a_kernel_without_virtio_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_features", lambda _: 0)
    tun = opened()
    assert not tun.virtio
    assert set(reasons(tun).values()) == {"the kernel's TUN devices have no virtio headers"}
    tun.close()


def queue_of(tun: Tun, version: int, source: int, destination: int, port: int) -> int:
    """Which queue a datagram between these two comes out of."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    pattern = "10.9.{}.{}" if version == 4 else "fd09:{}::{:x}"
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        if version == 6:
            sender.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
        sender.bind((pattern.format(2, source), port))
        sender.sendto(b"which", (pattern.format(1, destination), 9))
    ready, _, _ = select.select(tun.descriptors, [], [], 5)
    assert len(ready) == 1
    os.read(ready[0], 65545)
    return tun.descriptors.index(ready[0])


@pytest.mark.parametrize("version", [4, 6])
def test_all_between_two_hosts_stays_in_one_queue(version: int) -> None:
    tun = opened(queues=4)
    assert reasons(tun)[STEERING] == ""
    seen = set()
    for pair in range(1, 40):
        source, destination = pair % 7 + 1, pair
        queues = {queue_of(tun, version, source, destination, port) for port in (5000, 5001, 5002)}
        assert len(queues) == 1
        seen |= queues
    assert seen == {0, 1, 2, 3}
    tun.close()


def test_where_no_program_is_allowed_the_kernel_steers(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: object) -> None:
        raise BpfError("loading the BPF program oegw_queue: Operation not permitted")

    monkeypatch.setattr(module, "loaded", refused)
    tun = opened(queues=2)
    assert "not permitted" in reasons(tun)[STEERING]
    queue_of(tun, 4, 1, 1, 5000)
    tun.close()


def test_nothing_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = descriptors()
    first = opened(queues=2)
    with pytest.raises(DatapathError, match=r"is a device of another kind|in use"):
        open_tun(NAME, 1500)
    first.close()
    assert NAME not in ip("link")
    with pytest.raises(DatapathError, match="1 to 15 octets"):
        open_tun("a-name-too-long-for-linux", 1500)

    def no(*_: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(module, "configure_device", no)
    with pytest.raises(DatapathError, match="Cannot allocate memory"):
        open_tun(NAME, 1500, 2, True)
    assert NAME not in ip("link")
    assert descriptors() == before
