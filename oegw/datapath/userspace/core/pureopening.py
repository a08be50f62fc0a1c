"""The opening core in pure Python: the reference, and the fallback."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from struct import Struct

from oegw.datapath.userspace.core.bursts import Bursts
from oegw.datapath.userspace.core.decrypting import (
    GCM_ICV,
    GCM_PLAIN,
    Decrypt,
    DecryptRow,
    cbc,
    gcm,
    gcm_bursts,
    gcm_row,
    row_ends,
)
from oegw.datapath.userspace.core.flows import key_of
from oegw.datapath.userspace.core.interface import (
    FLOWS,
    Gathers,
    Moved,
    Outer,
    Places,
    Unchecked,
    Unopened,
)
from oegw.datapath.userspace.core.joining import Joiner
from oegw.datapath.userspace.esp import PADDINGS, TRAILER, InboundSa
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
_LOW = 0xFFFFFFFF
_VERSION = {IPV4: 4, IPV6: 6}


class _Inlet:
    """An SA as the loop sees it.

    Packets with the numbers from ``first`` up to ``next``, which came one after the other, were
    opened already; window and counters learn of them together (``_settle``), before any
    is delivered.
    """

    __slots__ = (
        "decrypt",
        "decrypt_row",
        "encapsulated",
        "first",
        "flows",
        "key",
        "limited",
        "next",
        "octets",
        "packets",
        "sa",
    )

    def __init__(self, sa: InboundSa, bursts: Bursts | None) -> None:
        self.sa = sa
        transform = sa.transform
        self.decrypt: Decrypt
        self.decrypt_row: DecryptRow | None = None
        if isinstance(transform, AuthenticatedEncryption):
            self.decrypt = gcm(sa, transform)
            self.decrypt_row = (
                gcm_row(sa, transform) if bursts is None else gcm_bursts(sa, transform, bursts)
            )
        else:
            self.decrypt = cbc(sa, transform)
        self.limited = sa.hard_bytes is not None
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
        """``sequence`` is authentic, and not the next; all before are settled."""
        if sequence > self.next:
            self.first = sequence
            self.next = sequence + 1
        else:
            self.sa.window.accept(sequence)


class PureOpeningCore:
    """See `OpeningCore`.  ``offloads``: frames begin with a virtio header; ``joins_udp``: the
    device takes super-packets of UDP.  ``random`` is not needed here."""

    name = "python"

    def __init__(
        self, offloads: bool, joins_udp: bool, random: Random, bursts: Bursts | None = None
    ) -> None:
        self._bursts = bursts
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
        inlet = _Inlet(sa, self._bursts)
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
        self._work = self._open(self._receiver.receive(outer, version, encapsulated))
        return self._receiver.count

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

    def loop(
        self, device: int, outer: Sequence[Outer], counters: Places, gathering: Gathers
    ) -> None:
        """The worker's own does."""

    def counted(self) -> dict[str, int]:
        counted = dict(self._counters)
        self._counters.clear()
        return counted

    def moved(self) -> list[Moved]:
        moved, self._moved = self._moved, {}
        return [Moved(sa, peer) for sa, peer in moved.items()]

    def softened(self) -> list[InboundSa]:
        softened, self._softened = self._softened, {}
        return list(softened)

    def _open(self, datagrams: list[Datagram]) -> Iterator[Unopened | Unchecked]:
        """All packets of the datagrams, in their order."""
        counters, read = self._counters, _SPI_AND_SEQUENCE.unpack_from
        joiner, extend = self._joiner, self._joiner.extend
        # How the packet came that is the last one in the joiner.
        joined: _Inlet | None = None
        joined_header = joined_class = -1
        inlet: _Inlet | None = None
        known = -1  # the SPI of ``inlet``
        known_way: tuple[bytes, int, bytes] | None = None
        source, port = b"", 0
        for payload, size, its_source, its_port, destination, outer_class in datagrams:
            end = len(payload)
            way = its_source, its_port, destination
            if way != known_way:
                if inlet is not None:
                    self._settle(inlet, source, port)
                inlet, known, known_way = None, -1, way
                source, port = its_source, its_port
            row_ends_at = row_ends(payload, size)
            row_end = next(row_ends_at)
            intact = True  # until a packet is not authentic: then those behind are opened singly
            stop = 0
            while stop < end or not stop:
                place, stop = stop, min(stop + size, end) or 1
                if place == row_end:
                    row_end = next(row_ends_at, end)
                spi, low = read(payload, place) if stop - place >= ESP_HEADER else (0, 0)
                if spi != known:
                    if inlet is not None:
                        self._settle(inlet, source, port)
                    known = spi
                    inlet = self._entered(spi, destination)
                    if inlet is not None:
                        sa = inlet.sa
                        decrypt, limited, extended = inlet.decrypt, inlet.limited, sa.extended
                if inlet is None or (limited and not inlet.allows(stop - place)):
                    if inlet is not None:
                        self._settle(inlet, source, port)
                    inlet, known = None, -1
                    yield Unopened(payload[place:stop], source, port, destination, outer_class)
                    continue
                sequence = inlet.next
                opened = 0
                if low != (sequence & _LOW if extended else sequence):
                    self._settle(inlet, source, port)
                    sequence = sa.window.candidate(low)
                    if not sa.window.fresh(sequence):
                        counters["drop_in_replay"] += 1
                        continue
                elif (
                    intact
                    and inlet.decrypt_row is not None
                    and (count := (row_end - place) // size) > 1
                    and (not limited or inlet.allows(count * size))
                ):
                    opened = inlet.decrypt_row(payload, place, size, count, sequence)
                    intact = opened == count
                if opened:
                    start, finish = place + GCM_PLAIN, stop - GCM_ICV
                    stop = place + opened * size
                    inlet.next += opened
                else:
                    try:
                        start, finish = decrypt(payload, place, stop, sequence)
                    except AuthenticationError:
                        counters["drop_in_invalid"] += 1
                        continue
                    opened = 1
                    if sequence == inlet.next:
                        inlet.next = sequence + 1
                    else:
                        inlet.accept(sequence)
                while opened:
                    padding = payload[finish - 2]
                    next_header = payload[finish - 1]
                    last = finish - TRAILER - padding
                    taken = 1
                    behind = bytes(payload[last:finish])
                    as_before = (
                        inlet is joined
                        and next_header == joined_header
                        and outer_class == joined_class
                    )
                    # As in `InboundSa.open`.
                    if last < start or (padding and behind[:padding] != PADDINGS[padding]):
                        counters["drop_in_invalid"] += 1
                    elif as_before and (
                        many := extend(payload, start, last - start, size, opened, behind)
                    ):
                        taken = many  # as ordinary as the one before
                        inlet.packets += taken
                        inlet.octets += taken * (last - start)
                    elif _is_ordinary(
                        inlet, next_header, inner := payload[start:last], outer_class
                    ):
                        (joiner.begin if as_before else joiner.add)(inner)
                        joined, joined_header, joined_class = inlet, next_header, outer_class
                        inlet.packets += 1
                        inlet.octets += last - start
                    else:
                        self._settle(inlet, source, port)
                        self._count(sa, 1, last - start)
                        known = -1
                        yield Unchecked(sa, next_header, inner, outer_class)
                    opened -= taken
                    start += taken * size
                    finish += taken * size
                if known < 0:
                    self._settle(inlet, source, port)
                    inlet = None
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
            self._counters["esp_in_packets"] += inlet.packets
            self._counters["esp_in_octets"] += inlet.octets
            self._count(sa, inlet.packets, inlet.octets)
            inlet.packets = inlet.octets = 0

    def _count(self, sa: InboundSa, packets: int, octets: int) -> None:
        sa.record.count(packets, octets, self._now)
        if sa.wants_replacement and not sa.softened:
            self._softened[sa] = None


def _is_ordinary(inlet: _Inlet, next_header: int, inner: Buffer, outer_class: int) -> bool:
    """Whether the packet ``inner`` may go on as it is."""
    key = key_of(inner)
    if key is None or key not in inlet.flows or key[0] != _VERSION.get(next_header):
        return False
    ecn = traffic_class(inner) & 3
    return DECAPSULATION[ecn][outer_class & 3] == ecn
