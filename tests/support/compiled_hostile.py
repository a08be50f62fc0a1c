"""Hostile input for a compiled core with sanitizers, in a process of its own:

    python -m tests.support.compiled_hostile SHARED_OBJECT SEED INPUTS LIBRARY

LIBRARY does AES-GCM; "openssl": none but that.

The core's memory comes from malloc here, which the sanitizer watches, and so do the records.
``test_compiled_hostile.py`` builds the shared object and preloads what it needs.
"""

from __future__ import annotations

import os
import random
import socket
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from oegw.datapath.interface import SecurityAssociation
from oegw.datapath.userspace.core import compiled
from oegw.datapath.userspace.core.flows import key_of
from oegw.datapath.userspace.core.interface import Unchecked
from oegw.datapath.userspace.esp import InboundSa, OutboundSa
from oegw.datapath.userspace.record import RING_SIZE, Record, record_size, ring_size
from tests.support.core_traffic import Traffic, ip_packet, spoilt
from tests.support.datapath_cores import NOW, packets_of, without_library
from tests.support.datapath_sas import ALGORITHMS, GATEWAY_B4, arriving, make_sa

BATCH = 8
WINDOWS = (1, 32, 64, 1000, 4096)


def watched_record(window: int = 0) -> Record:
    memory: Any = bytearray(record_size(window))
    if window:
        memory[RING_SIZE : RING_SIZE + 4] = ring_size(window).to_bytes(4, sys.byteorder)
    return Record(memory, 0, 0)


class Hostile:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.traffic = Traffic(seed)
        self.sealing = compiled.CompiledSealingCore(True, self.random.randbytes)
        self.opening = compiled.CompiledOpeningCore(True, True, self.random.randbytes)
        self.device = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.outer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for pair in (self.device, self.outer):
            for end in pair:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**22)
                end.setblocking(False)
        self.null = os.open("/dev/null", os.O_WRONLY)
        self.outbound: list[OutboundSa] = []
        self.inbound: list[InboundSa] = []
        self.renew()

    def renew(self) -> None:
        """Other SAs, and other flows for them."""
        for core, sas in ((self.sealing, self.outbound), (self.opening, self.inbound)):
            for sa in sas:
                core.remove(sa)  # type: ignore[arg-type]
            sas.clear()
        for number, algorithm in enumerate(ALGORITHMS):
            window = self.random.choice(WINDOWS)
            said = self.specification(
                algorithm,
                spi=0x1000 + number,
                replay_window=window,
                extended_sequence_numbers=self.random.random() < 0.5,
                hard_bytes=self.random.choice((None, 300_000)),
                soft_bytes=self.random.choice((None, 1000)),
            )
            outbound = OutboundSa(said, self.random.randbytes, watched_record())
            outbound.mtu = 1440
            outbound.sequence = self.random.choice((0, 2**32 - 500))
            inbound = InboundSa(arriving(said), self.random.randbytes, watched_record(window))
            self.sealing.install(outbound)
            self.opening.install(inbound)
            self.outbound.append(outbound)
            self.inbound.append(inbound)
        self.learn()

    def specification(self, algorithm: str, **fields: Any) -> SecurityAssociation:
        return make_sa(algorithm, **fields)

    def learn(self) -> None:
        for packet in Traffic.samples():
            key = key_of(packet)
            assert key is not None
            self.sealing.learn(key, self.random.choice(self.outbound))
            self.learn_inbound(key)

    def learn_inbound(self, key: bytes) -> None:
        for inbound in self.inbound:
            self.opening.learn(key, inbound)

    def write_frames(self) -> int:
        """To the device; how many."""
        sent = 0
        for _ in range(BATCH):
            frame = self.traffic.frame()
            try:
                self.device[0].send(spoilt(frame, self.random))
                sent += 1
            except BlockingIOError:
                break
        return sent

    def batch(self) -> list[bytes]:
        """Frames are sealed, and what came of them is to be spoilt and opened."""
        sent = self.write_frames()
        assert self.sealing.fill(self.device[1].fileno()) <= sent
        care: int | None = 0
        packets: list[bytes] = []
        while care is not None:
            runs, care = self.sealing.seal(NOW)
            if care is not None:
                self.sealing.frame(care)
            for run in runs:
                packets += packets_of(run)[:4]
        return packets

    def harmed(self, packet: bytes) -> bytes:
        return spoilt(packet, self.random) if self.random.random() < 0.3 else packet

    def send_raw(self, packet: bytes) -> None:
        """As a raw socket of IPv4 shows it."""
        datagram = ip_packet(4, 50, packet)
        datagram = datagram[:16] + socket.inet_aton(GATEWAY_B4) + datagram[20:]
        if self.random.random() < 0.02:
            datagram = spoilt(datagram, self.random)
        self.outer[0].send(datagram)

    def arrive(self, packets: list[bytes]) -> None:
        for packet in packets:
            self.send_raw(self.harmed(packet))
        self.opening.fill(self.outer[1].fileno(), 4, False)
        while (care := self.opening.open(NOW)) is not None:
            if isinstance(care, Unchecked) or self.random.random() < 0.1:
                self.opening.append(care.payload)
        self.opening.deliver(self.null)
        self.opening.moved()
        self.opening.softened()
        self.opening.counted()


def main(make: Callable[[int], Hostile], arguments: list[str]) -> None:
    shared_object, seed, inputs, library_name = arguments
    with without_library() if library_name == "openssl" else nullcontext():
        run(make, shared_object, int(seed), int(inputs))
        assert library_name in compiled.aes_gcm()[1].lower()


def run(make: Callable[[int], Hostile], shared_object: str, seed: int, inputs: int) -> None:
    loaded = compiled.load(Path(shared_object))
    compiled.library = lambda: loaded  # type: ignore[assignment]
    compiled.mmap = SimpleNamespace(mmap=lambda _, octets: bytearray(octets))  # type: ignore[assignment]
    hostile = make(seed)
    tried = 0
    while tried < inputs:
        packets = hostile.batch()
        tried += BATCH + len(packets)
        hostile.random.shuffle(packets)
        for start in range(0, len(packets), BATCH):
            hostile.arrive(packets[start : start + BATCH])
        if hostile.random.random() < 0.02:
            hostile.renew()
    print(f"{tried} inputs")


if __name__ == "__main__":
    main(Hostile, sys.argv[1:])
