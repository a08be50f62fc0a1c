"""The compiled core's loops, and what a worker is told between two of their turns."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterator

import pytest

from oegw.datapath.userspace.core.choice import COMPILED, choose
from oegw.datapath.userspace.core.interface import Run
from oegw.packet.ip import UDP
from tests.support.compiled_hostile_loops import Counters, gathering
from tests.support.core_traffic import ip_packet, udp
from tests.support.datapath_cores import Sealing, outbound, sealing

NO_OFFLOAD = bytes(10)  # a virtio header


@pytest.fixture
def side() -> Iterator[Sealing]:
    with sealing(choose(COMPILED)) as side:
        yield side


@pytest.fixture
def turn(side: Sealing) -> Iterator[Callable[[], Run | int | None]]:
    """Of its loop.  Somebody else's descriptor is always ready, so each ends."""
    device, ready = side.device.fileno(), os.eventfd(1)
    loop = side.core.loop(device, Counters(), gathering())
    assert loop is not None
    with select.epoll() as poll:
        for descriptor in (device, ready):
            poll.register(descriptor, select.EPOLLIN)
        yield lambda: loop.turn(poll.fileno())
    os.close(ready)


@pytest.mark.parametrize("replaced", [False, True])
def test_what_was_sealed_for_an_sa_that_went_is_not_sent(
    side: Sealing, turn: Callable[[], Run | int | None], replaced: bool
) -> None:
    """Neither for it, whom nobody knows any more, nor for another one that has its number."""
    packets = [ip_packet(4, UDP, udp(4, b"x", port)) for port in (1, 2)]
    stays, goes, comes = (outbound(spi=spi) for spi in (0x1000, 0x2000, 0x3000))
    side.install(stays, packets[0])
    side.install(goes, packets[1])
    for packet in (*packets, packets[0]):
        side.kernel.send(NO_OFFLOAD + packet)
    first = turn()
    assert isinstance(first, Run)
    assert first.sa is stays  # nobody told the loop by which way it goes
    side.core.remove(goes)
    if replaced:
        side.core.install(comes)
    third = turn()
    assert isinstance(third, Run)
    assert third.sa is stays
    assert turn() is None
