"""The opening core in pure Python: the reference, and the fallback."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from struct import Struct

from cryptography.exceptions import InvalidTag

from oegw.datapath.userspace.core.flows import key_of
from oegw.datapath.userspace.core.interface import FLOWS, Moved, Unchecked, Unopened
from oegw.datapath.userspace.core.joining import Joiner
from oegw.datapath.userspace.esp import PADDING, TRAILER, InboundSa
from oegw.datapath.userspace.receiving import Datagram, Receiver
from oegw.datapath.userspace.transform import (
    ESP_HEADER,
    AuthenticatedEncryption,
    AuthenticationError,
    Random,
)
from oegw.packet.ecn import DECAPSULATION, traffic_class
from oegw.packet.ip import IPV4, IPV6, Buffer

_SPI_AND_SEQUENCE = Struct("!II")
_GCM_EXTENDED = Struct("!IQ")  # RFC 4106 section 5
_HIGH = Struct("!I")
_LOW = 0xFFFFFFFF
_GCM_PLAIN = ESP_HEADER + 8
_GCM_ICV = 16
_GCM_LEAST = _GCM_PLAIN + 4 + _GCM_ICV
_VERSION = {IPV4: 4, IPV6: 6}


class _Inlet:
    """An SA as the loop sees it.

    Packets with the numbers from ``first`` up to ``next``, which came one after the other, were
    opened already; window and counters learn of them together (``_settle``), before any
    is delivered.
    """

    __slots__ = ("encapsulated", "first", "flows", "key", "next", "octets", "packets", "sa")

    def __init__(self, sa: InboundSa) -> None:
        self.sa = sa
        self.key = sa.key.spi, sa.key.destination.packed
        self.encapsulated = sa.sa.encapsulation is not None
        self.flows: set[bytes] = set()
        self.first = self.next = 0
        self.packets = self.octets = 0

    def allows(self, octets: int) -> bool:
        """Whether the hard limit allows so many octets."""
        limit = self.sa.hard_bytes
        return limit is None or self.sa.bytes + self.octets + octets <= limit

    def accept(self, sequence: int) -> None:
        """``sequence`` is authentic: the next, or another one, for which all before are settled."""
        if sequence == self.next:
            self.next += 1
        elif sequence > self.next:
            self.first = sequence
            self.next = sequence + 1
        else:
            self.sa.window.accept(sequence)


class PureOpeningCore:
    """See `OpeningCore`.  ``offloads``: frames begin with a virtio header; ``joins_udp``: the
    device takes super-packets of UDP.  ``random`` is not needed here."""

    name = "python"

    def __init__(self, offloads: bool, joins_udp: bool, random: Random) -> None:
        self._receiver = Receiver()
        self._joiner = Joiner(offloads, joins_udp)
        self._inlets: dict[tuple[int, bytes], _Inlet] = {}
        self._learned = 0
        self._encapsulated = False
        self._now = 0.0
        self._work: Iterator[Unopened | Unchecked] = iter(())
        self._counters: Counter[str] = Counter()
        self._moved: dict[InboundSa, tuple[bytes, int]] = {}
        self._softened: dict[InboundSa, None] = {}

    def install(self, sa: InboundSa) -> None:
        inlet = _Inlet(sa)
        sa.core = inlet
        self._inlets[inlet.key] = inlet

    def remove(self, sa: InboundSa) -> None:
        inlet: _Inlet = sa.core
        if self._inlets.get(inlet.key) is inlet:
            del self._inlets[inlet.key]
        self._learned -= len(inlet.flows)
        self._moved.pop(sa, None)
        self._softened.pop(sa, None)
        sa.core = None

    def refresh(self, sa: InboundSa) -> None:
        """``sa.peer`` is looked at when it is needed."""
        sa.core.encapsulated = sa.sa.encapsulation is not None

    def learn(self, key: bytes, sa: InboundSa) -> None:
        inlet = sa.core
        if key in inlet.flows:
            return
        if self._learned >= FLOWS:
            for other in self._inlets.values():
                other.flows.clear()
            self._learned = 0
        inlet.flows.add(key)
        self._learned += 1

    def fill(self, outer: int, version: int, encapsulated: bool) -> int:
        self._joiner.clear()
        self._encapsulated = encapsulated
        self._work = iter(())
        datagrams = self._receiver.receive(outer, version, encapsulated)
        self._work = self._open(datagrams)
        return len(datagrams)

    def open(self, now: float) -> Unopened | Unchecked | None:
        self._now = now
        return next(self._work, None)

    def append(self, packet: Buffer) -> None:
        self._joiner.append(packet)

    def deliver(self, device: int) -> int:
        refused = 0
        write = os.writev
        for parts, packets in self._joiner.frames():
            try:
                write(device, parts)
            except OSError:
                refused += packets
        self._joiner.clear()
        return refused

    def counted(self) -> dict[str, int]:
        counted, self._counters = self._counters, Counter()
        return counted

    def moved(self) -> list[Moved]:
        moved, self._moved = self._moved, {}
        return [Moved(sa, peer) for sa, peer in moved.items()]

    def softened(self) -> list[InboundSa]:
        softened, self._softened = self._softened, {}
        return list(softened)

    def _open(self, datagrams: list[Datagram]) -> Iterator[Unopened | Unchecked]:
        """All packets of the datagrams, in their order."""
        joiner, counters, read = self._joiner, self._counters, _SPI_AND_SEQUENCE.unpack_from
        alike: tuple[_Inlet, int, int] | None = None  # how the packet came that was joined last
        for payload, size, source, port, destination, outer_class in datagrams:
            end = len(payload)
            inlet: _Inlet | None = None
            for place in range(0, end or 1, size or 1):
                stop = min(place + size, end)
                spi, low = read(payload, place) if stop - place >= ESP_HEADER else (0, 0)
                if inlet is None or spi != inlet.key[0]:
                    if inlet is not None:
                        self._settle(inlet, source, port)
                    inlet = self._entered(spi, destination)
                if inlet is None or not inlet.allows(stop - place):
                    if inlet is not None:
                        self._settle(inlet, source, port)
                        inlet = None
                    yield Unopened(payload[place:stop], source, port, destination, outer_class)
                    continue
                sa = inlet.sa
                sequence = inlet.next
                if low != (sequence & _LOW if sa.extended else sequence):
                    self._settle(inlet, source, port)
                    sequence = sa.window.candidate(low)
                    if not sa.window.fresh(sequence):
                        counters["drop_in_replay"] += 1
                        continue
                try:
                    plain = _plain(sa, payload[place:stop], sequence)
                except AuthenticationError:
                    counters["drop_in_invalid"] += 1
                    continue
                inlet.accept(sequence)
                count = plain[-2]
                size_inside = len(plain) - TRAILER - count
                # As in `InboundSa.open`.
                if size_inside < 0 or (count and plain[size_inside:-2] != PADDING[:count]):
                    counters["drop_in_invalid"] += 1
                    continue
                next_header, inner = plain[-1], plain[:size_inside]
                inlet.packets += 1
                inlet.octets += size_inside
                came = inlet, next_header, outer_class
                if came == alike and joiner.extend(inner):
                    pass  # it is as ordinary as the one before
                elif _is_ordinary(inlet, next_header, inner, outer_class):
                    joiner.add(inner)
                    alike = came
                else:
                    self._settle(inlet, source, port)
                    inlet = None
                    yield Unchecked(sa, next_header, inner, outer_class)
                    continue
                counters["esp_in_packets"] += 1
                counters["esp_in_octets"] += size_inside
            if inlet is not None:
                self._settle(inlet, source, port)

    def _entered(self, spi: int, destination: bytes) -> _Inlet | None:
        """The SA of a packet; None if the core may not open it."""
        inlet = self._inlets.get((spi, destination))
        if inlet is None or inlet.encapsulated != self._encapsulated or inlet.sa.expired:
            return None
        inlet.first = inlet.next = inlet.sa.window.top + 1
        return inlet

    def _settle(self, inlet: _Inlet, source: bytes, port: int) -> None:
        """What was opened since the last time, all from one peer, reaches window and counters."""
        sa = inlet.sa
        count = inlet.next - inlet.first
        if count:
            sa.window.accept_run(inlet.first, count)
            inlet.first = inlet.next
            if inlet.encapsulated:
                peer = source, port
                if peer != sa.peer:
                    self._moved[sa] = peer
                elif self._moved:
                    self._moved.pop(sa, None)
        if inlet.packets:
            sa.record.count(inlet.packets, inlet.octets, self._now)
            inlet.packets = inlet.octets = 0
            if sa.wants_replacement and not sa.softened:
                self._softened[sa] = None


def _plain(sa: InboundSa, packet: memoryview, sequence: int) -> memoryview:
    """The plaintext with its padding; it may be where the packet was.  Raises
    AuthenticationError."""
    transform = sa.transform
    if not isinstance(transform, AuthenticatedEncryption):
        high = _HIGH.pack(sequence >> 32) if sa.extended else b""
        return memoryview(transform.open(packet, high))
    if len(packet) < _GCM_LEAST:
        raise AuthenticationError
    plain = packet[_GCM_PLAIN:-_GCM_ICV]
    associated = _GCM_EXTENDED.pack(sa.sa.spi, sequence) if sa.extended else packet[:ESP_HEADER]
    try:
        transform.aead.decrypt_into(
            transform.salt + packet[ESP_HEADER:_GCM_PLAIN], packet[_GCM_PLAIN:], associated, plain
        )
    except InvalidTag:
        raise AuthenticationError from None
    return plain


def _is_ordinary(inlet: _Inlet, next_header: int, inner: Buffer, outer_class: int) -> bool:
    """Whether the packet ``inner`` may go on as it is."""
    key = key_of(inner)
    if key is None or key not in inlet.flows or key[0] != _VERSION.get(next_header):
        return False
    ecn = traffic_class(inner) & 3
    return DECAPSULATION[ecn][outer_class & 3] == ecn
