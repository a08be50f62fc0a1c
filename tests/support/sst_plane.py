"""The plane in namespaces of its own, with a listener that has one key for everybody.

The hosts are those of `intercept_net`: inside - gateway - outside.  Gateway and outside may each
run a plane; ``inside`` is a host without one.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address
from typing import Any, TypeVar

from oegw.packet.ip import PacketError
from oegw.sst.interface import Algorithm, Caught, Entry, PortFlow, PortKey, Reason, Way
from oegw.sst.packet import open_sealed, seal
from oegw.sst.permutation import NotEligible, Permutation
from oegw.sst.place import place_of
from oegw.sst.plane.kernel import NftPlane
from oegw.sst.plane.marks import PlaneMarks
from oegw.sst.plane.settings import PlaneSettings
from oegw.sst.quote import open_quote, seal_quote
from oegw.sst.settings import SstSettings
from oegw.sst.signal import Signal
from oegw.trace import JsonTrace
from policy.rule import Category, Rule, Sst, SstStrength
from policy.table import PolicyTable
from tests.support.intercept_net import Net, enter, wait_for, within
from tests.support.intercept_policy import policy

T = TypeVar("T")

KEY = Permutation(PortKey(Algorithm.FF1_AES_128, bytes(range(16))))
SST = SstSettings(queue=4530, flow_lifespan=60.0)
SETTINGS = PlaneSettings(("out0",), "oegw0", own_mark=0x30000, own_mask=0x30000, sst=SST)
MARKS = PlaneMarks(SST.mark_mask)
SIGNAL = Signal.of(SST)


def settings(**changed: Any) -> PlaneSettings:
    """``SETTINGS`` with other values of ``[sst]``."""
    return replace(SETTINGS, sst=replace(SST, **changed))


def sst_rule(sst: Sst = Sst.ONLY, *, required: bool = False, **more: Any) -> Rule:
    strength = SstStrength.REQUIRED if required else SstStrength.OPPORTUNISTIC
    fields: dict[str, Any] = {"category": Category.OPPORTUNISTIC, **more}
    return Rule("sst", sst=sst, sst_strength=strength, **fields)


def only(*, required: bool = False) -> PolicyTable:
    """Everything is to be sealed, without ESP, but for what the built-in rules let pass."""
    return policy(default=sst_rule(required=required))


def off() -> PolicyTable:
    return policy(default=Rule("off", Category.PERMIT))


class Keyed:
    """A listener that seals and opens with one key, and lets the kernel rewrite.

    ``refused``: nothing is sealed but declined.
    """

    def __init__(self, plane: NftPlane, signal: Signal = SIGNAL) -> None:
        self._plane = plane
        self._signal = signal
        self.caught: list[Caught] = []
        self.silent = False  # holds everything
        self.declines = False
        self.rewrites = False  # by itself, packet by packet
        self.enters_fragments = False
        self.epoch = 0
        self.lifespan = 60.0
        self.faults: list[Exception] = []

    def __call__(self, caught: Caught) -> None:
        self.caught.append(caught)
        if self.silent:
            return
        try:
            self._answer(caught)
        except (NotEligible, PacketError) as error:
            self.faults.append(error)
            if self.declines and caught.way is Way.SEAL:
                self._plane.release(caught.number)
            else:
                self._plane.drop(caught.number)

    def _answer(self, caught: Caught) -> None:
        number, packet, plane = caught.number, caught.packet, self._plane
        match caught.reason:
            case Reason.QUOTE:
                rewrite = seal_quote if caught.way is Way.SEAL else open_quote
                plane.release(number, rewrite(packet, KEY, self._signal))
                return
            case Reason.PROBE:
                plane.drop(number)
                return
            case Reason.FRAGMENT if not (self.rewrites or self.enters_fragments):
                plane.release(number)
                return
        entry = entry_for(caught, self.epoch, self.lifespan)
        if self.declines and caught.way is Way.SEAL:
            plane.decline(caught.leg, entry.flow, 60.0)
            plane.release(number)
        elif self.rewrites or not plane.enter(entry):
            rewrite = seal if caught.way is Way.SEAL else open_sealed
            plane.release(number, rewrite(packet, KEY, self._signal), self.epoch)
        else:
            plane.release(number)


def entry_for(caught: Caught, epoch: int = 0, lifespan: float = 60.0) -> Entry:
    place = place_of(caught.packet)
    assert place.source_port is not None
    assert place.destination_port is not None
    ends = place.source, place.destination, place.protocol
    ports = place.source_port, place.destination_port
    if caught.way is Way.SEAL:
        flow = PortFlow(ip_address(ends[0]), ip_address(ends[1]), ends[2], *ports)
        return Entry(caught.leg, flow, *KEY.seal_ports(*ends, *ports), epoch, lifespan)
    remote, local = KEY.open_ports(*ends, *ports)
    flow = PortFlow(ip_address(ends[1]), ip_address(ends[0]), ends[2], local, remote)
    return Entry(caught.leg, flow, ports[1], ports[0], epoch, lifespan)


class Running:
    """A plane in a thread of its own, in a namespace, with its event loop."""

    def __init__(self, namespace: str, given: PlaneSettings = SETTINGS) -> None:
        self._namespace = namespace
        self.trace = JsonTrace(None, time.time)
        self.plane = NftPlane(given, self.trace)
        self.listener = Keyed(self.plane, Signal.of(given.sst))
        self.loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._body, args=(ready,), daemon=True)
        self._thread.start()
        ready.wait()

    def _body(self, ready: threading.Event) -> None:
        enter(self._namespace)
        asyncio.set_event_loop(self.loop)
        self.loop.call_soon(ready.set)
        self.loop.run_forever()

    def start(self, table: PolicyTable) -> None:
        self.wait(self.plane.start(table, self.listener))

    def wait(self, work: Any) -> Any:
        """Run a coroutine to its end."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function in the loop's thread."""

        async def body() -> T:
            return function(*arguments)

        return self.wait(body())

    def await_caught(self, number: int = 1) -> list[Caught]:
        """Wait until so many packets were handed up since the beginning."""
        caught = self.listener.caught
        return wait_for(lambda: caught if len(caught) >= number else None)

    @property
    def counters(self) -> dict[str, int]:
        return self.call(self.plane.counters)

    def end(self) -> None:
        """Stop the plane, and the thread with it."""
        try:
            self.wait(self.plane.close())
        finally:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()
            self.loop.close()


@contextmanager
def running(
    namespace: str, table: PolicyTable, given: PlaneSettings = SETTINGS
) -> Iterator[Running]:
    """A plane that runs with this policy."""
    plane = Running(namespace, given)
    try:
        plane.start(table)
        yield plane
    finally:
        plane.end()


@contextmanager
def both(net: Net, table: PolicyTable | None = None) -> Iterator[tuple[Running, Running]]:
    """The gateway, which seals what leaves by the policy, and the peer outside, which answers."""
    with running(net.gateway, table or only()) as near, running(net.outside, off()) as far:
        yield near, far


class Link:
    """Whole IP packets put on a link from one end, for the host at the other."""

    def __init__(self, net: Net, source: str, interface: str, destination: str) -> None:
        shown = net.run(destination, "ip", "-o", "link", "show", interface)
        mac = bytes.fromhex(shown.split("link/ether ")[1].split()[0].replace(":", ""))
        self._socket = within(source, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM))
        self._ends = {
            version: (interface, protocol, 0, 0, mac)
            for version, protocol in ((4, 0x0800), (6, 0x86DD))
        }

    def put(self, *packets: bytes) -> None:
        for packet in packets:
            self._socket.sendto(packet, self._ends[packet[0] >> 4])

    def close(self) -> None:
        self._socket.close()


def watch_invalid(net: Net, namespace: str) -> None:
    """Count what connection tracking calls invalid, wherever it looks."""
    for line in (
        "add table inet watch",
        "add counter inet watch invalid",
        *(
            f"add chain inet watch {point} {{ type filter hook {point} priority -100; }}"
            for point in ("prerouting", "output")
        ),
        "add rule inet watch prerouting ct state invalid counter name invalid",
        "add rule inet watch output ct state invalid counter name invalid",
    ):
        net.run(namespace, "nft", line)


def invalid(net: Net, namespace: str) -> int:
    listing = net.run(namespace, "nft", "list", "counter", "inet", "watch", "invalid")
    return int(listing.split("packets ")[1].split()[0])


def alike(one: bytes, other: bytes) -> bool:
    """The same octets, but that a ones' complement sum has two zeros (sst.md section 14.1).

    In UDP 0x0000 says that there is none.
    """
    return _one_zero(one) == _one_zero(other)


def _one_zero(packet: bytes) -> bytes:
    changed = bytearray(packet)
    place = place_of(packet)
    sums = [10] if packet[0] >> 4 == 4 else []
    if place.protocol == 6 and place.source_port is not None:
        sums.append(place.offset + 16)
    for at in sums:
        if changed[at : at + 2] == b"\xff\xff":
            changed[at : at + 2] = b"\0\0"
    return bytes(changed)


def deafen(net: Net, namespace: str) -> None:
    """A host answers no TCP and no UDP, though it gets them."""
    net.run(namespace, "nft", "add table inet deaf")
    chain = "{ type filter hook prerouting priority -500; }"
    net.run(namespace, "nft", f"add chain inet deaf ear {chain}")
    net.run(namespace, "nft", "add rule inet deaf ear meta l4proto { 6, 17 } drop")
