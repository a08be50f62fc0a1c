"""The two cores between a device and an outer socket that a test plays: frames and ESP packets in,
runs and frames out."""

from __future__ import annotations

import os
import random
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import pytest

from oegw.datapath.interface import SecurityAssociation, UdpEncapsulation
from oegw.datapath.userspace.core import bursts, compiled, flows, multibuffer
from oegw.datapath.userspace.core.choice import CoreChoice, choose, what_is_missing
from oegw.datapath.userspace.core.interface import Run, Unchecked, Unopened
from oegw.datapath.userspace.core.multibuffer import NoLibraryError
from oegw.datapath.userspace.esp import InboundSa, OutboundSa
from tests.support.datapath_sas import arriving, make_sa

IP_PKTINFO, UDP_SEGMENT, UDP_GRO = 8, 103, 104
LOOPBACK = "127.0.0.1"
NOW = 1000.0


def cores() -> list[str]:
    """The names of those that are there."""
    return ["python"] if what_is_missing() is not None else ["python", "compiled"]


@contextmanager
def without_library() -> Iterator[None]:
    """Cores that are chosen and made meanwhile do AES-GCM by OpenSSL, whatever else there is."""

    def none() -> NoReturn:
        raise NoLibraryError("not here")

    compiled._aes_gcm.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(multibuffer, "functions", none)
        patch.setattr(bursts, "bursts", none)
        yield
    compiled._aes_gcm.cache_clear()


def outbound(algorithm: str = "gcm-128", mtu: int = 1400, **fields: Any) -> OutboundSa:
    sa = OutboundSa(make_sa(algorithm, **fields), random.Random(1).randbytes)
    sa.mtu = mtu
    return sa


class Sealing:
    """A sealing core behind a device to which a test writes frames."""

    def __init__(self, choice: CoreChoice, offloads: bool = True, seed: int = 1) -> None:
        self.core = choice.sealing(offloads, random.Random(seed).randbytes)
        self.kernel, self.device = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.kernel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**22)
        self.device.setblocking(False)

    def close(self) -> None:
        self.kernel.close()
        self.device.close()

    def install(self, sa: OutboundSa, *packets: bytes) -> None:
        """Install an SA that carries the flows of these packets."""
        self.core.install(sa)
        for packet in packets:
            key = flows.key_of(packet)
            assert key is not None
            self.core.learn(key, sa)

    def fill(self, *frames: bytes) -> int:
        for frame in frames:
            self.kernel.send(frame)
        return self.core.fill(self.device.fileno())

    def seal(self, *frames: bytes, now: float = NOW) -> tuple[list[Run], list[int]]:
        """Runs, and the frames that need care."""
        self.fill(*frames)
        runs: list[Run] = []
        care: list[int] = []
        while True:
            more, index = self.core.seal(now)
            runs += more
            if index is None:
                return runs, care
            care.append(index)


def packets_of(run: Run) -> list[bytes]:
    """The ESP packets of a run, as a receiver gets them."""
    octets = bytes(run.packets)
    return [octets[place : place + run.size] for place in range(0, len(octets), run.size)]


class Opening:
    """An opening core between a UDP socket on the loopback interface and a device."""

    def __init__(
        self,
        choice: CoreChoice,
        offloads: bool = True,
        joins_udp: bool = True,
        encapsulated: bool = True,
    ) -> None:
        self.core = choice.opening(offloads, joins_udp, random.Random(1).randbytes)
        self.encapsulated = encapsulated
        self.kernel, self.device = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.device.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**22)
        self.kernel.setblocking(False)
        self.device.setblocking(False)
        self.outer = self._udp()
        self.outer.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        self.outer.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        self.outer.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
        self.outer.setblocking(False)
        self.peer = self._udp()

    @staticmethod
    def _udp() -> socket.socket:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**22)
        udp.bind((LOOPBACK, 0))
        return udp

    def close(self) -> None:
        for each in (self.kernel, self.device, self.outer, self.peer):
            each.close()

    def sa(self, sealing: SecurityAssociation) -> InboundSa:
        """The receiver's half of an SA, installed; its peer is ours."""
        inbound = InboundSa(arriving(sealing), random.Random(1).randbytes)
        inbound.peer = socket.inet_aton(LOOPBACK), self.peer.getsockname()[1]
        self.core.install(inbound)
        return inbound

    def learn(self, sa: InboundSa, *packets: bytes) -> None:
        for packet in packets:
            key = flows.key_of(packet)
            assert key is not None
            self.core.learn(key, sa)

    def send(self, octets: bytes, size: int = 0, outer_class: int = 0) -> None:
        """One datagram, or with ``size`` packets of so many octets that arrive as one."""
        self.peer.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, outer_class)
        ancillary = []
        if size and len(octets) > size:
            ancillary = [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("=H", size))]
        self.peer.sendmsg((octets,), ancillary, 0, self.outer.getsockname())

    def fill(self) -> int:
        return self.core.fill(self.outer.fileno(), 4, self.encapsulated)

    def care(self, now: float = NOW) -> list[Unopened | Unchecked]:
        found = []
        while (care := self.core.open(now)) is not None:
            found.append(care)
        return found

    def frames(self) -> list[bytes]:
        """Deliver, and what the device got."""
        assert self.core.deliver(self.device.fileno()) == 0
        return list(self._read())

    def _read(self) -> Iterator[bytes]:
        while True:
            try:
                yield os.read(self.kernel.fileno(), 2**17)
            except BlockingIOError:
                return


def to_loopback(algorithm: str = "gcm-128", **fields: Any) -> SecurityAssociation:
    """An SA in UDP whose packets arrive at the loopback interface."""
    return make_sa(
        algorithm, destination=LOOPBACK, encapsulation=UdpEncapsulation(4500, 4500), **fields
    )


@contextmanager
def sealing(choice: CoreChoice, **how: Any) -> Iterator[Sealing]:
    side = Sealing(choice, **how)
    try:
        yield side
    finally:
        side.close()


@contextmanager
def opening(choice: CoreChoice, **how: Any) -> Iterator[Opening]:
    side = Opening(choice, **how)
    try:
        yield side
    finally:
        side.close()


def chosen(name: str) -> CoreChoice:
    return choose(name)
