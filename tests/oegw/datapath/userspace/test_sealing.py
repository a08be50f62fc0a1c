"""What a sealing worker does with the frames that its core hands back."""

from __future__ import annotations

import errno
import os
import socket
from collections import Counter
from collections.abc import Iterator

import pytest

from oegw.datapath.interface import UdpEncapsulation
from oegw.datapath.userspace.core.virtio import GSO_NONE, NEEDS_CSUM, VirtioHeader
from oegw.datapath.userspace.counters import CounterPages, page_of
from oegw.datapath.userspace.engine import DontFragment
from oegw.datapath.userspace.equipment import Equipment
from oegw.datapath.userspace.offloads import SENDING, Offload
from oegw.datapath.userspace.outside import OuterGroup
from oegw.datapath.userspace.record import private_record
from oegw.datapath.userspace.sealing import Sealing
from tests.support.datapath_packets import Inner
from tests.support.datapath_sas import make_sa
from tests.support.own_network import own_network

pytestmark = pytest.mark.netns


class Worker:
    """One with an SA, and a device to which the test writes frames."""

    def __init__(self, port: int | None = None) -> None:
        self.kernel, device = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        device.setblocking(False)
        self._device = device
        self._group = OuterGroup(4, port, mark=0)
        handle = self._group.sealing[0].handle
        self._pages = CounterPages(1)
        page = page_of(self._pages.descriptor, 0)
        equipment = Equipment(
            core="python",
            memory=-1,
            shared=False,
            counters=self._pages.descriptor,
            page=0,
            device=device.fileno(),
            virtio=True,
            uso=True,
            outer=(handle._replace(descriptor=os.dup(handle.descriptor)),),
            mtu=1500,
            mark=0,
            dont_fragment=DontFragment.COPY,
        )
        self._sealing = Sealing(equipment, page)
        udp = UdpEncapsulation(port, port) if port is not None else None
        self._sealing.install(make_sa(encapsulation=udp), private_record())

    def close(self) -> None:
        self._group.close()
        self._pages.close()
        self.kernel.close()
        self._device.close()

    @property
    def lost(self) -> list[Offload]:
        return self._sealing.lost

    def counted(self, frame: bytes) -> Counter[str]:
        """What this frame counts."""
        before = self._pages.counted()
        self.kernel.send(frame)
        self._sealing.turns[self._device.fileno()]()
        return self._pages.counted() - before


@pytest.fixture
def worker(request: pytest.FixtureRequest) -> Iterator[Worker]:
    with own_network():
        worker = Worker(getattr(request, "param", None))
        yield worker
        worker.close()


def test_a_frame_that_does_not_fit_its_header_is_counted(worker: Worker) -> None:
    in_the_addresses = VirtioHeader(NEEDS_CSUM, GSO_NONE, 0, 0, 0, 12)
    counted = worker.counted(in_the_addresses.serialize() + Inner().whole())
    assert counted == Counter(drop_out_frame=1)


def test_a_super_packet_that_is_too_big_is_answered_once(worker: Worker) -> None:
    """The answers of a second are limited, and other senders wait for theirs."""
    counted = worker.counted(Inner(bytes(40 * 1448)).frame(1448))
    assert counted["drop_out_too_big"] == 40
    assert (counted["icmp_too_big"], counted["icmp_suppressed"]) == (1, 39)
    assert worker.counted(Inner(bytes(2000), source_port=7).frame(1448))["icmp_too_big"] == 1


@pytest.mark.parametrize("worker", [4500], indirect=True)
def test_an_offload_that_the_kernel_refuses_is_told_of(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that it had: UDP_SEGMENT, on the way to some peers."""
    sent: list[int] = []

    def sendmsg(_: socket.socket, parts: tuple[bytes], *__: object) -> int:
        sent.append(len(parts[0]))
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    frame = Inner(bytes(5 * 1000)).frame(1000)
    worker.counted(frame)  # from now on the core knows the flow
    monkeypatch.setattr(socket.socket, "sendmsg", sendmsg)
    for _ in range(2):
        worker.counted(frame)
    assert len(sent) == 1, "all packets at once, and then never again"
    assert sent[0] > 5000
    assert [each.name for each in worker.lost] == [SENDING]
