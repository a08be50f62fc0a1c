"""The same for the loops of the compiled core, from a device by real sockets to another device:

    python -m tests.support.compiled_hostile_loops SHARED_OBJECT SEED INPUTS LIBRARY

What the sealing loop sends arrives at a road, which spoils some of it and sends it on to the
opening loop: alone, or several packets as one datagram.  Between two turns SAs come and go, as a
worker's control has it.  Somebody else's descriptor is always ready, so each turn ends.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
import sys
import time
from collections.abc import Iterator
from typing import Any

from oegw.datapath.interface import SecurityAssociation, UdpEncapsulation
from oegw.datapath.userspace.core.flows import key_of
from oegw.datapath.userspace.core.interface import SocketWay, Unchecked
from oegw.datapath.userspace.gathering import Gathering
from oegw.datapath.userspace.outside import Handle, OuterSocket
from tests.support.compiled_hostile import Hostile, main
from tests.support.datapath_cores import IP_PKTINFO, UDP_GRO, UDP_SEGMENT
from tests.support.datapath_sas import make_sa

TURNS = 10_000  # more than one batch can take
IN_A_ROW = 40  # readings that fail: more than are borne silently
LARGEST = 65_000  # octets of one datagram
LOOPBACKS = {4: "127.0.0.1", 6: "::1"}
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


class Counters:
    """Each in memory of its own, which the sanitizer watches."""

    def place(self, name: str) -> memoryview:
        return memoryview(bytearray(8))


def gathering() -> Gathering:
    """Of a worker that has not begun, and so stays where it is."""
    return Gathering(memoryview(bytearray(8)).cast("Q"))


class HostileLoops(Hostile):
    def __init__(self, seed: int) -> None:
        self.roads = {version: _udp(version) for version in LOOPBACKS}
        self.beyond = {version: _receiving(version) for version in LOOPBACKS}
        super().__init__(seed)
        self.senders = [
            OuterSocket(_udp(version), version, True, segments)
            for version in LOOPBACKS
            for segments in (True, False)
        ]
        self.delivered = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for end in self.delivered:
            end.setblocking(False)
        self.no_socket, always = os.eventfd(1), os.eventfd(1)
        raw = Handle(self.outer[1].fileno(), 4, False, False)
        beyond = [Handle(end.fileno(), each, True, False) for each, end in self.beyond.items()]
        outer = [raw, *beyond, Handle(self.no_socket, 4, True, False)]
        device, other_device = self.device[1].fileno(), self.delivered[1].fileno()
        self.sealing_loop = self.sealing.loop(device, Counters(), gathering())
        loop = self.opening.loop(other_device, outer, Counters(), gathering())
        assert loop is not None
        self.opening_loop = loop
        self.before = _polled(device, always)
        self.behind = _polled(always, raw.descriptor, *(each.descriptor for each in beyond))
        self.in_vain = _polled(self.no_socket, always)

    def specification(self, algorithm: str, **fields: Any) -> SecurityAssociation:
        version = self.random.choice((0, *LOOPBACKS))
        if not version:
            return super().specification(algorithm, **fields)
        here, udp = LOOPBACKS[version], UdpEncapsulation(4500, 4500)
        return make_sa(algorithm, source=here, destination=here, encapsulation=udp, **fields)

    def renew(self) -> None:
        super().renew()
        for sa in self.inbound:
            if self.random.random() < 0.5:  # of the others the first packet says where they are
                port = self.roads[sa.sa.destination.version].getsockname()[1]
                sa.peer = sa.sa.destination.packed, port
                self.opening.refresh(sa)

    def learn_inbound(self, key: bytes) -> None:
        for sa in self.inbound:
            if self.random.random() < 0.5:
                self.opening.learn(key, sa)

    def batch(self) -> list[bytes]:
        self.write_frames()
        if self.random.random() < 0.1:
            self.device[0].send(b"")
        for _ in range(TURNS):
            said = self.sealing_loop.turn(self.before.fileno())
            if said is None:
                return [packet for road in self.roads.values() for packet in _waiting(road)]
            if isinstance(said, int):
                self.sealing.frame(said)
            elif self.random.random() < 0.9:
                self.sealing_loop.way(said.sa, self._way())
            self._control()
        raise AssertionError("the sealing loop does not come to an end")

    def arrive(self, packets: list[bytes]) -> None:
        if self.random.random() < 0.5:
            self._send_as_one(packets)
        else:
            for packet in map(self.harmed, packets):
                if self.random.random() < 0.3:
                    self.send_raw(packet)
                else:
                    road, beyond = self._ends()
                    road.sendto(packet[:LARGEST], beyond.getsockname())
        if self.random.random() < 0.02:
            self._read_in_vain()
        for _ in range(TURNS):
            said = self.opening_loop.turn(self.behind.fileno())
            if said is False:
                break
            if said is True:
                if self.random.random() < 0.8:
                    self.opening.moved()
                self.opening.softened()
            else:
                self._care(said[0])
            self._control()
        else:
            raise AssertionError("the opening loop does not come to an end")
        if self.random.random() < 0.5:  # or else the device is full
            list(_waiting(self.delivered[0]))

    def _care(self, care: Any) -> None:
        if isinstance(care, Unchecked) and self.random.random() < 0.5:
            key = key_of(care.payload)
            if key is not None:
                self.opening.learn(key, care.sa)
        if isinstance(care, Unchecked) or self.random.random() < 0.1:
            self.opening.append(care.payload)

    def _read_in_vain(self) -> None:
        for _ in range(IN_A_ROW):
            try:
                self.opening_loop.turn(self.in_vain.fileno())
            except OSError as error:
                if error.errno != errno.ENOTSOCK:
                    raise

    def _ends(self) -> tuple[socket.socket, socket.socket]:
        version = self.random.choice(list(LOOPBACKS))
        return self.roads[version], self.beyond[version]

    def _send_as_one(self, packets: list[bytes]) -> None:
        size = min(len(self.random.choice(packets)), 1400)
        octets = self.harmed(b"".join(packets)[: min(LARGEST, 60 * size)])
        item = (socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("=H", size))
        road, beyond = self._ends()
        road.sendmsg((octets,), (item,), 0, beyond.getsockname())

    def _way(self) -> SocketWay:
        """To the road; or it is over already, or leads nowhere."""
        sender = self.random.choice(self.senders)
        chance = self.random.random()
        here = LOOPBACKS[sender.version]
        port = self.roads[sender.version].getsockname()[1] if chance < 0.9 else 0
        source = make_sa(source=here, destination=here).source
        way = sender.way(source, source, port)
        told = way.until(time.monotonic() + (1000.0 if chance > 0.1 else -1.0))
        return told._replace(descriptor=self.no_socket) if chance > 0.95 else told

    def _control(self) -> None:
        """What a worker may be told between two turns."""
        chance = self.random.random()
        if chance < 0.005:
            self.renew()
        elif chance < 0.05:
            self.sealing.refresh(self.random.choice(self.outbound))
            self.opening.refresh(self.random.choice(self.inbound))
        elif chance < 0.07:
            self.sealing.forget()
            self.learn()
        elif chance < 0.08 and len(self.outbound) > 2:
            which = self.random.randrange(len(self.outbound))
            self.sealing.remove(self.outbound.pop(which))
            self.opening.remove(self.inbound.pop(which))


def _udp(version: int) -> socket.socket:
    udp = socket.socket(FAMILIES[version], socket.SOCK_DGRAM)
    udp.setblocking(False)
    udp.bind((LOOPBACKS[version], 0))
    return udp


def _receiving(version: int) -> socket.socket:
    udp = _udp(version)
    udp.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
    if version == 4:
        udp.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        udp.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
    else:
        udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
    return udp


def _polled(*descriptors: int) -> select.epoll:
    poll = select.epoll()
    for descriptor in descriptors:
        poll.register(descriptor, select.EPOLLIN)
    return poll


def _waiting(end: socket.socket) -> Iterator[bytes]:
    with contextlib.suppress(BlockingIOError):
        while True:
            yield end.recv(LARGEST)


if __name__ == "__main__":
    main(HostileLoops, sys.argv[1:])
