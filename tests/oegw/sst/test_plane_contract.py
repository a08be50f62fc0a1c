"""What every plane does, the kernel's and its twin in memory: the same tests for both."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import Any, Protocol

import pytest

from oegw.sst.interface import (
    PROBE_MAGIC,
    Algorithm,
    Caught,
    Entry,
    Leg,
    Plane,
    PortFlow,
    PortKey,
    Reason,
    Way,
)
from oegw.sst.memory import MemoryPlane
from oegw.sst.packet import seal
from oegw.sst.permutation import Permutation
from oegw.sst.signal import Signal
from policy.table import PolicyTable
from tests.support.intercept_net import INSIDE, INSIDE6, PEER, PEER6, Net, wait_for
from tests.support.sst_plane import (
    KEY,
    SST,
    Link,
    Running,
    deafen,
    entry_for,
    off,
    only,
)
from tests.support.sst_wire import UDP, Seen, build, look

PAIRS = {4: (INSIDE, PEER), 6: (INSIDE6, PEER6)}
GATEWAYS = {4: "10.2.0.1", 6: "fd00:2::1"}
OTHER = Permutation(PortKey(Algorithm.FF1_AES_128, bytes(16)))


class Rig(Protocol):
    """A plane whose listener only writes down what it hears."""

    @property
    def plane(self) -> Plane: ...
    def leave(self, packet: bytes) -> None: ...
    def arrive(self, packet: bytes) -> None: ...
    def caught(self, number: int) -> list[Caught]: ...
    def left(self, version: int, number: int) -> list[Seen]: ...
    def came(self, version: int, number: int) -> list[Seen]: ...
    def tell(self, what: Callable[..., Any], *given: Any) -> Any: ...
    def settled(self) -> None: ...


class InMemory:
    def __init__(self, table: PolicyTable) -> None:
        self.plane = self._plane = MemoryPlane(SST, time.monotonic)
        self._caught: list[Caught] = []
        try:
            self.plane.start(table, self._caught.append).send(None)
        except StopIteration:
            return

    def leave(self, packet: bytes) -> None:
        self._plane.leave(packet)

    def arrive(self, packet: bytes) -> None:
        self._plane.arrive(packet)

    def caught(self, number: int) -> list[Caught]:
        assert len(self._caught) == number
        return self._caught

    def left(self, version: int, number: int) -> list[Seen]:
        return self._passed(Way.SEAL, number)

    def came(self, version: int, number: int) -> list[Seen]:
        return self._passed(Way.OPEN, number)

    def tell(self, what: Callable[..., Any], *given: Any) -> Any:
        return what(*given)

    def settled(self) -> None:
        """Nothing is ever under way."""

    def _passed(self, way: Way, number: int) -> list[Seen]:
        found = [look(each.packet) for each in self._plane.passed if each.way is way]
        assert len(found) == number
        return found

    def end(self) -> None:
        """There is nothing to end."""


class InKernel:
    def __init__(self, table: PolicyTable) -> None:
        self._net = Net().__enter__()
        try:
            for name in (self._net.outside, self._net.inside):
                deafen(self._net, name)
            self._in = Link(self._net, self._net.inside, "in0", self._net.gateway)
            self._out = Link(self._net, self._net.outside, "out0", self._net.gateway)
            self._outside = self._net.capture(self._net.outside, "out0")
            self._inside = self._net.capture(self._net.inside, "in0")
            self._running = Running(self._net.gateway)
            self._running.listener.silent = True
            self._running.start(table)
        except BaseException:
            self._net.__exit__()
            raise
        self.plane = self._running.plane

    def leave(self, packet: bytes) -> None:
        self._in.put(packet)

    def arrive(self, packet: bytes) -> None:
        self._out.put(packet)

    def caught(self, number: int) -> list[Caught]:
        found = self._running.await_caught(number)
        self.settled()
        assert len(found) == number
        return found

    def left(self, version: int, number: int) -> list[Seen]:
        return self._there(self._outside, PAIRS[version][1], number)

    def came(self, version: int, number: int) -> list[Seen]:
        return self._there(self._inside, PAIRS[version][0], number)

    def tell(self, what: Callable[..., Any], *given: Any) -> Any:
        return self._running.call(what, *given)

    def settled(self) -> None:
        """What is on its way has had time to arrive."""
        time.sleep(0.05)

    def _there(self, capture: Any, address: str, number: int) -> list[Seen]:
        wait_for(lambda: len(_of_udp(capture.to(address))) >= number)
        self.settled()
        found = _of_udp(capture.to(address))
        assert len(found) == number
        return found

    def end(self) -> None:
        try:
            self._running.end()
            for each in (self._in, self._out, self._outside, self._inside):
                each.close()
        finally:
            self._net.__exit__()


def _of_udp(packets: list[bytes]) -> list[Seen]:
    return [seen for seen in map(look, packets) if seen.protocol == UDP]


KINDS = ("memory", pytest.param("kernel", marks=pytest.mark.netns))


@pytest.fixture(params=KINDS)
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    made = (InMemory if request.param == "memory" else InKernel)(only())
    yield made
    made.end()


@pytest.fixture(params=KINDS)
def unwilling(request: pytest.FixtureRequest) -> Iterator[Rig]:
    """Its policy wants nothing sealed."""
    made = (InMemory if request.param == "memory" else InKernel)(off())
    yield made
    made.end()


def out(version: int, port: int = 4000, payload: bytes = b"words") -> bytes:
    return build(*PAIRS[version], UDP, port, 53, payload)


def answer(packet: bytes, payload: bytes = b"answer") -> bytes:
    """From the other end, with the ports that the packet has, flagged."""
    seen = look(packet)
    assert seen.ports is not None
    return build(
        seen.destination, seen.source, UDP, *seen.ports[::-1], payload, flagged=seen.flagged
    )


def as_sealed(packet: bytes, key: Permutation = KEY) -> bytes:
    return seal(packet, key, Signal.of(SST))


@pytest.mark.parametrize("version", [4, 6])
def test_a_wanted_flow_is_caught_once_and_then_sealed_as_the_core_does_it(
    rig: Rig, version: int
) -> None:
    rig.leave(out(version))
    (caught,) = rig.caught(1)
    assert (caught.way, caught.leg, caught.reason) == (Way.SEAL, Leg.OUTSIDE, Reason.UNKNOWN_FLOW)
    assert look(caught.packet).ports == (4000, 53)
    assert not caught.sticky
    assert rig.tell(rig.plane.enter, entry_for(caught))
    rig.tell(rig.plane.release, caught.number)
    rig.leave(out(version, payload=b"more"))
    first, second = rig.left(version, 2)
    wanted = look(as_sealed(out(version)))
    assert first.ports == second.ports == wanted.ports
    assert (first.flagged, first.right, second.flagged, second.right) == (True,) * 4
    assert (first.dont_fragment, second.payload) == (True, b"more")
    rig.caught(1)


@pytest.mark.parametrize("version", [4, 6])
def test_answers_of_an_entered_flow_are_opened(rig: Rig, version: int) -> None:
    rig.leave(out(version))
    (caught,) = rig.caught(1)
    rig.tell(rig.plane.enter, entry_for(caught))
    rig.tell(rig.plane.release, caught.number)
    rig.left(version, 1)
    rig.arrive(answer(as_sealed(out(version))))
    (seen,) = rig.came(version, 1)
    assert (seen.ports, seen.flagged, seen.right) == ((53, 4000), False, True)
    rig.caught(1)


@pytest.mark.parametrize("version", [4, 6])
def test_a_flagged_packet_of_an_unknown_flow_is_caught_and_opened_when_entered(
    unwilling: Rig, version: int
) -> None:
    rig = unwilling
    here, there = PAIRS[version]
    packet = as_sealed(build(there, here, UDP, 4000, 53, b"words"))
    rig.arrive(packet)
    (caught,) = rig.caught(1)
    assert (caught.way, caught.leg, caught.reason) == (Way.OPEN, Leg.OUTSIDE, Reason.UNKNOWN_FLOW)
    assert look(caught.packet).ports == look(packet).ports
    rig.tell(rig.plane.enter, entry_for(caught))
    rig.tell(rig.plane.release, caught.number)
    (seen,) = rig.came(version, 1)
    assert (seen.ports, seen.flagged, seen.right) == ((4000, 53), False, True)
    rig.leave(build(here, there, UDP, 53, 4000, b"answer"))  # sticky: no policy wants it
    (back,) = rig.left(version, 1)
    assert back.flagged
    assert back.ports == (look(packet).ports or (0, 0))[::-1]


def test_a_declined_flow_goes_on_in_clear_until_it_is_forgotten(rig: Rig) -> None:
    rig.leave(out(4))
    (caught,) = rig.caught(1)
    rig.tell(rig.plane.decline, caught.leg, entry_for(caught).flow, 60.0)
    rig.tell(rig.plane.release, caught.number)
    rig.leave(out(4))
    assert [(seen.ports, seen.flagged) for seen in rig.left(4, 2)] == [((4000, 53), False)] * 2
    rig.caught(1)
    rig.tell(rig.plane.forget, Leg.OUTSIDE, ip_address("10.99.0.1"))
    rig.leave(out(4))
    rig.left(4, 3)
    rig.tell(rig.plane.forget, Leg.OUTSIDE, ip_address(PEER))
    rig.leave(out(4))
    rig.caught(2)
    rig.left(4, 3)


def test_a_forgotten_flow_comes_up_again_and_is_sticky_with_its_epoch(rig: Rig) -> None:
    rig.leave(out(4))
    (caught,) = rig.caught(1)
    rig.tell(rig.plane.enter, entry_for(caught, epoch=2))
    rig.tell(rig.plane.release, caught.number)
    rig.left(4, 1)
    rig.tell(rig.plane.forget, Leg.OUTSIDE)
    rig.leave(out(4))
    _, again = rig.caught(2)
    assert (again.way, again.sticky, again.epoch) == (Way.SEAL, True, 2)


def test_a_dropped_packet_is_gone_and_its_flow_still_unknown(rig: Rig) -> None:
    rig.leave(out(4))
    (caught,) = rig.caught(1)
    rig.tell(rig.plane.drop, caught.number)
    rig.leave(out(4))
    rig.caught(2)
    rig.left(4, 0)


@pytest.mark.parametrize("version", [4, 6])
def test_what_is_released_with_a_payload_is_final_and_its_flow_sticky(
    rig: Rig, version: int
) -> None:
    rig.leave(out(version))
    (caught,) = rig.caught(1)
    rig.tell(rig.plane.release, caught.number, as_sealed(caught.packet), 3)
    (seen,) = rig.left(version, 1)
    assert (seen.ports, seen.flagged, seen.right) == (
        look(as_sealed(out(version))).ports, True, True,
    )  # fmt: skip
    rig.leave(out(version))
    _, again = rig.caught(2)
    assert (again.sticky, again.epoch) == (True, 3)


def test_another_key_takes_the_place_of_the_one_before(rig: Rig) -> None:
    rig.leave(out(4))
    (caught,) = rig.caught(1)
    rig.tell(rig.plane.enter, entry_for(caught))
    rig.tell(rig.plane.release, caught.number)
    rig.left(4, 1)
    flow = entry_for(caught).flow
    rig.tell(rig.plane.enter, _entry(flow, OTHER))
    rig.leave(out(4))
    assert rig.left(4, 2)[1].ports == look(as_sealed(out(4), OTHER)).ports
    rig.arrive(answer(as_sealed(out(4))))  # sealed with the old key, on its way for long
    assert rig.caught(2)[1].way is Way.OPEN


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("flagged", [True, False])
def test_a_probe_comes_up_whether_its_flag_is_still_there_or_not(
    unwilling: Rig, version: int, flagged: bool
) -> None:
    here, there = GATEWAYS[version], PAIRS[version][1]
    unwilling.arrive(build(there, here, UDP, 7, 9, PROBE_MAGIC + bytes(80), flagged=flagged))
    (caught,) = unwilling.caught(1)
    assert (caught.reason, caught.flagged) == (Reason.PROBE, flagged)
    unwilling.tell(unwilling.plane.drop, caught.number)


@pytest.mark.parametrize("version", [4, 6])
def test_what_nobody_wants_sealed_leaves_in_clear_and_without_a_native_flag(
    unwilling: Rig, version: int
) -> None:
    """SST-17."""
    unwilling.leave(out(version))
    unwilling.leave(build(*PAIRS[version], UDP, 4001, 53, flagged=True))
    assert [(seen.ports, seen.flagged, seen.right) for seen in unwilling.left(version, 2)] == [
        ((4000, 53), False, True),
        ((4001, 53), False, True),
    ]


def _entry(flow: PortFlow, key: Permutation) -> Entry:
    ports = key.seal_ports(
        flow.local.packed, flow.remote.packed, flow.protocol, flow.local_port, flow.remote_port
    )
    return Entry(Leg.OUTSIDE, flow, *ports, epoch=1, lifespan=60.0)
