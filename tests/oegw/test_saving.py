"""When what is remembered is written down."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address, ip_network

import pytest

from oegw import saving
from oegw.connection import Selectors
from oegw.lasting import Lasting
from oegw.memory import KeyMemory
from oegw.saving import Batch, Saving
from tests.support.playbook import opportunistic

SG_B = ip_address("192.1.1.5")
PAIR = Selectors(ip_network("192.1.0.65/32"), ip_network("192.2.0.66/32"))


class Desk:
    """A disk of which each batch is kept.  ``works``: whether it can be written to."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.works = True
        self.memory, self.lasting = KeyMemory(), Lasting("boot")

    def save(self, batch: Batch) -> bool:
        self.batches.append(batch)
        return self.works

    async def run(self, course: Callable[[Saving], None], batches: int) -> None:
        with ThreadPoolExecutor(1) as disk:
            its = Saving(disk, self.save, self.memory, self.lasting)
            its.begin()
            course(its)
            async with asyncio.timeout(10):
                while len(self.batches) < batches:
                    await asyncio.sleep(0.005)
            its.last()


def stands(desk: Desk) -> None:
    desk.lasting.stands(PAIR, opportunistic("all"), False, 1100.0, "no record")


def test_a_withdrawal_for_a_tunnel_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving, "PAUSE", 3600.0)
    desk = Desk()

    def course(its: Saving) -> None:
        stands(desk)
        its.look()
        assert desk.batches == [], "nothing that would not have time"
        desk.lasting.withdraw(PAIR, "all", urgent=True)
        its.look()

    asyncio.run(desk.run(course, 1))
    assert list(desk.batches[0][1].verdicts.values()) == [None]


def test_after_a_batch_that_failed_everything_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving, "AFTER_FAILURE", 0.01)
    desk = Desk()
    desk.works = False
    desk.memory.pair_encrypted(PAIR, SG_B)

    def course(its: Saving) -> None:
        desk.lasting.urgent = True
        its.look()

    asyncio.run(desk.run(course, 2))
    memory, lasting = desk.batches[1]
    assert (memory.whole, lasting.whole) == (True, True)
    assert list(memory.pairs.values()) == ["192.1.1.5"]


def test_the_rest_is_written_at_the_end() -> None:
    desk = Desk()
    asyncio.run(desk.run(lambda its: stands(desk), 0))
    assert len(desk.batches[-1][1].verdicts) == 1
