"""Which ports are guarded and when leases end, in the right order."""

from __future__ import annotations

import asyncio

from oegw.moniker.daemon.ports import Ports
from oegw.moniker.interface import Lease, Opening, Place


class SlowFirewall:
    """An opener that takes two turns of the loop for each thing, and writes down what it did."""

    def __init__(self) -> None:
        self.done: list[str] = []

    async def guard(self, place: Place) -> None:
        await self._take_time()
        self.done.append(f"guard {place.transport} {place.port}")

    async def open(self, lease: Lease) -> Opening:
        await self._take_time()
        self.done.append(f"open {lease.transport} {lease.port}")
        return Opening(lease.port, lease.seconds)

    async def end(self, place: Place) -> None:
        await self._take_time()
        self.done.append(f"end {place.transport} {place.port}")

    async def _take_time(self) -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)


def test_a_port_is_guarded_before_it_is_told_and_its_leases_end_with_the_last_service() -> None:
    async def scenario() -> None:
        firewall = SlowFirewall()
        ports = Ports(firewall)
        await ports.taken(Place("tcp", 4000))
        assert firewall.done == ["guard tcp 4000"]
        await ports.taken(Place("tcp", 4000))  # another service with the same socket
        ports.left(Place("tcp", 4000))
        await ports.close()
        assert firewall.done == ["guard tcp 4000"]
        ports.left(Place("tcp", 4000))
        await ports.close()
        assert firewall.done == ["guard tcp 4000", "end tcp 4000"]

    asyncio.run(scenario())


def test_of_one_port_things_happen_in_their_order() -> None:
    async def scenario() -> None:
        firewall = SlowFirewall()
        ports = Ports(firewall)
        await ports.taken(Place("tcp", 4000))
        ports.left(Place("tcp", 4000))
        again = asyncio.create_task(ports.taken(Place("tcp", 4000)))  # at once by the next
        other = asyncio.create_task(ports.taken(Place("udp", 4000)))
        await asyncio.gather(again, other)
        mine = [each for each in firewall.done if "tcp" in each]
        assert mine == ["guard tcp 4000", "end tcp 4000", "guard tcp 4000"]
        await ports.close()

    asyncio.run(scenario())


def test_two_at_once_wait_for_the_one_guard() -> None:
    async def scenario() -> None:
        firewall = SlowFirewall()
        ports = Ports(firewall)
        await asyncio.gather(ports.taken(Place("tcp", 4000)), ports.taken(Place("tcp", 4000)))
        assert firewall.done == ["guard tcp 4000"]

    asyncio.run(scenario())


def test_what_was_opened_too_late_is_ended_unless_the_port_has_a_service_again() -> None:
    async def scenario() -> None:
        firewall = SlowFirewall()
        ports = Ports(firewall)
        await ports.taken(Place("tcp", 4000))
        ports.opened_late(Place("tcp", 4000))
        await ports.close()
        assert firewall.done == ["guard tcp 4000"]
        ports.opened_late(Place("tcp", 4001))
        await ports.close()
        assert firewall.done == ["guard tcp 4000", "end tcp 4001"]

    asyncio.run(scenario())
