"""The sealing core in pure Python: the reference, and the fallback."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from functools import cache
from struct import Struct

from oegw.datapath.userspace.core.bursts import (
    LEAST,
    Bursts,
    Expanded,
    added_of,
    address_of,
    begins_anew,
    nonces_of,
)
from oegw.datapath.userspace.core.cutting import (
    Cutting,
    Front,
    completed,
    cutting_of,
    lay,
    segments,
)
from oegw.datapath.userspace.core.flows import key_of
from oegw.datapath.userspace.core.interface import (
    BATCH_FRAMES,
    BATCH_OCTETS,
    FLOWS,
    LARGEST_FRAME,
    RUN_OCTETS,
    RUN_PACKETS,
    SMALLEST_SEGMENT,
    Frame,
    Gathers,
    Places,
    Run,
)
from oegw.datapath.userspace.core.virtio import GSO_NONE, NEEDS_CSUM, NONE, SIZE
from oegw.datapath.userspace.esp import TRAILER, TRAILERS, OutboundSa
from oegw.datapath.userspace.transform import (
    ESP_HEADER,
    AuthenticatedEncryption,
    EncryptThenMac,
    Random,
)
from oegw.packet.ecn import traffic_class
from oegw.packet.ip import IPV4, IPV4_HEADER, IPV6, IPV6_HEADER, Buffer

# Our choice: more than a batch can become.  Packets of SMALLEST_SEGMENT octets with the longest
# headers and trailers grow by less than two thirds.
_SEALED = 2 * (BATCH_OCTETS + LARGEST_FRAME)

_HEADER = Struct("!II")  # SPI, low sequence number
_HIGH = Struct("!I")
_LOW = 0xFFFFFFFF
# RFC 4106 sections 3 to 5: the IV behind that header, the nonce, and with ESN what is
# authenticated.
_GCM_HEADER = Struct("!IIQ")
_GCM_NONCE = Struct("!4sQ")
_GCM_EXTENDED = Struct("!IQ")
_GCM_RISING = (4, 1), (12, 1)  # low sequence number and IV, of which the low half
_GCM_PLAIN = ESP_HEADER + 8
_GCM_ICV = 16
_GCM_ADDED = _GCM_PLAIN + _GCM_ICV


_Kind = tuple[OutboundSa, int, bool]
"""What the packets of a run have in common: SA, traffic class, DF."""


@cache
def _end_of(next_header: int, block: int, room: int = 0) -> Callable[[int], bytes]:
    """Padding and next header for a packet of so many octets, and room behind."""
    trailers = [each + bytes(room) for each in TRAILERS[next_header]]
    return lambda inner: trailers[-(inner + TRAILER) % block]


class _Outlet:
    """An SA as the loop sees it.  Flows may still lead here after it was removed."""

    __slots__ = ("block", "expanded", "fixed", "sa")

    def __init__(self, sa: OutboundSa) -> None:
        self.sa: OutboundSa | None = sa
        self.expanded: Expanded | None = None  # the key, once a row was sealed
        self.block = sa.transform.block
        self.fixed = ESP_HEADER + sa.transform.iv + sa.transform.icv

    def sealed(self, inner: int) -> int:
        """The octets of the ESP packet of a packet of so many."""
        return self.fixed - (-(inner + TRAILER) // self.block * self.block)


class _OpenRun:
    """A run that the next packet may join."""

    __slots__ = ("closed", "count", "end", "first", "kind", "last", "octets", "size", "start")

    def __init__(self, kind: _Kind, start: int, size: int, frame: int) -> None:
        self.kind = kind
        self.start = self.end = start
        self.size = size
        self.count = self.octets = 0
        self.first = self.last = frame
        self.closed = False


class PureSealingCore:
    """See `SealingCore`.  ``offloads``: frames begin with a virtio header.  ``random``: the
    source of CBC's blocks, one for each packet, in the packets' order."""

    name = "python"

    def __init__(self, offloads: bool, random: Random, bursts: Bursts | None = None) -> None:
        self._header = SIZE if offloads else 0
        self._random = random
        self._flows: dict[bytes, _Outlet] = {}
        self._read = memoryview(bytearray(BATCH_OCTETS + LARGEST_FRAME))
        self._frames: list[memoryview] = []
        self._next = 0
        self._sealed = memoryview(bytearray(_SEALED))
        self._at = address_of(self._sealed)
        self._bursts = bursts
        self._end = 0
        self._runs: list[_OpenRun] = []

    def install(self, sa: OutboundSa) -> None:
        sa.core = _Outlet(sa)

    def remove(self, sa: OutboundSa) -> None:
        sa.core.sa = sa.core.expanded = None
        sa.core = None

    def refresh(self, sa: OutboundSa) -> None:
        """All that may have changed is looked at when it is needed."""

    def learn(self, key: bytes, sa: OutboundSa) -> None:
        if len(self._flows) >= FLOWS:
            self._flows.clear()
        self._flows[key] = sa.core

    def forget(self) -> None:
        self._flows.clear()

    def fill(self, device: int) -> int:
        frames = self._frames = []
        self._next = self._end = start = 0
        read, buffer = os.readv, self._read
        try:
            while start < BATCH_OCTETS and len(frames) < BATCH_FRAMES:
                size = read(device, (buffer[start : start + LARGEST_FRAME],))
                if not size:
                    break
                frames.append(buffer[start : start + size])
                start += size
        except OSError as error:
            # What was read before is not lost; another error comes again.
            if not frames and error.errno != errno.EAGAIN:
                raise
        return len(frames)

    def loop(self, device: int, counters: Places, gathering: Gathers) -> None:
        """The worker's own does."""

    def frame(self, index: int) -> Frame:
        frame = self._frames[index]
        return Frame(frame[: self._header], frame[self._header :])

    def seal(self, now: float) -> tuple[list[Run], int | None]:
        self._runs = []
        care = None
        while self._next < len(self._frames):
            index = self._next
            self._next += 1
            if not self._seal_frame(index, now):
                care = index
                break
        return [self._finished(run) for run in self._runs], care

    def _finished(self, run: _OpenRun) -> Run:
        sa, outer_class, dont_fragment = run.kind
        return Run(
            sa,
            self._sealed[run.start : run.end],
            run.size,
            run.count,
            run.octets,
            outer_class,
            dont_fragment,
            run.first,
            run.last,
        )

    def _seal_frame(self, index: int, now: float) -> bool:
        """Whether it was done; else it needs care, and nothing was done."""
        frame = self._frames[index]
        header, packet = frame[: self._header], frame[self._header :]
        key = key_of(packet)
        if key is None:
            return False
        outlet = self._flows.get(key)
        if outlet is None or outlet.sa is None:
            return False
        sa = outlet.sa
        whole: Buffer = packet
        cutting = None
        if header and header != NONE:
            if header[1] != GSO_NONE:
                cutting = cutting_of(header, packet)
                if cutting is None or cutting.segment < SMALLEST_SEGMENT:
                    return False
            elif header[0] & NEEDS_CSUM:
                with_checksum = completed(
                    header, packet, IPV4_HEADER if packet[0] == 0x45 else IPV6_HEADER
                )
                if with_checksum is None:
                    return False
                whole = with_checksum
        size = last = octets = len(packet)
        count = 1
        if cutting is not None:
            count, headers, segment = cutting.packets, cutting.headers, cutting.segment
            octets = size + headers * (count - 1)
            last = size - segment * (count - 1)
            size = max(headers + segment, last) if count > 1 else last
        if size > sa.mtu:
            return False
        first = sa.take(count, octets, now)
        if first is None:
            return False
        version = packet[0] >> 4
        inner_forbids = version == 6 or bool(packet[6] & 0x40)
        kind = sa, traffic_class(packet), sa.dont_fragment[inner_forbids]
        place = self._end
        if count > 1:
            place = self._add(kind, place, outlet.sealed(size), count - 1, size, index)
        self._add(kind, place, outlet.sealed(last), 1, last, index)
        next_header = IPV4 if version == 4 else IPV6
        if (
            cutting is not None
            and count >= LEAST
            and self._bursts is not None
            and isinstance(sa.transform, AuthenticatedEncryption)
            and not begins_anew(first, count)
        ):
            end_of = _end_of(next_header, outlet.block, _GCM_ICV)
            self._seal_row(self._bursts, outlet, sa, sa.transform, first, cutting, packet, end_of)
            return True
        end_of = _end_of(next_header, outlet.block)
        if cutting is not None:
            plains = segments(cutting, packet, end_of)
        else:
            plains = [bytes(whole) + end_of(size)]
        if isinstance(sa.transform, AuthenticatedEncryption):
            self._seal_gcm(sa, sa.transform, first, plains)
        elif isinstance(sa.transform, EncryptThenMac):
            self._seal_cbc(sa, sa.transform, first, plains)
        return True

    def _seal_row(
        self,
        bursts: Bursts,
        outlet: _Outlet,
        sa: OutboundSa,
        transform: AuthenticatedEncryption,
        first: int,
        cutting: Cutting,
        packet: memoryview,
        end_of: Callable[[int], bytes],
    ) -> None:
        """Many packets of one frame, all but the last as long as each other: where they go, in
        their place."""
        place, spi, count = self._end, sa.sa.spi, cutting.packets
        front = Front(_GCM_HEADER.pack(spi, first & _LOW, first), _GCM_RISING)
        self._end, size = lay(cutting, packet, end_of, front, self._sealed, place)
        alike = (self._end - place) // size
        if outlet.expanded is None:
            outlet.expanded = bursts.expanded(transform.key)
        bursts.encrypt(
            outlet.expanded,
            self._at + place + _GCM_PLAIN,
            size,
            alike,
            size - _GCM_ADDED,
            nonces_of(transform.salt, first, alike),
            *added_of(spi, first, alike, sa.extended),
        )
        if alike < count:
            place += alike * size
            last = bytes(self._sealed[place + _GCM_PLAIN : self._end - _GCM_ICV])
            self._end = place
            self._seal_gcm(sa, transform, first + alike, [last])

    def _seal_gcm(
        self,
        sa: OutboundSa,
        transform: AuthenticatedEncryption,
        sequence: int,
        plains: list[bytes],
    ) -> None:
        out, place = self._sealed, self._end
        spi, salt = sa.sa.spi, transform.salt
        encrypt = transform.aead.encrypt_into
        header, nonce = _GCM_HEADER.pack_into, _GCM_NONCE.pack
        associated = (_GCM_EXTENDED if sa.extended else _HEADER).pack
        for number, plain in enumerate(plains, sequence):
            stop = place + _GCM_ADDED + len(plain)
            header(out, place, spi, number & _LOW, number)
            into = out[place + _GCM_PLAIN : stop]
            encrypt(nonce(salt, number), plain, associated(spi, number), into)
            place = stop
        self._end = place

    def _seal_cbc(
        self,
        sa: OutboundSa,
        transform: EncryptThenMac,
        sequence: int,
        plains: list[bytes],
    ) -> None:
        out, place = self._sealed, self._end
        spi, extended = sa.sa.spi, sa.extended
        for plain in plains:
            sealed = transform.seal_with(
                self._random(transform.iv),
                _HEADER.pack(spi, sequence & _LOW),
                _HIGH.pack(sequence >> 32) if extended else b"",
                plain,
            )
            out[place : place + len(sealed)] = sealed
            place += len(sealed)
            sequence += 1
        self._end = place

    def _add(self, kind: _Kind, place: int, size: int, count: int, inner: int, frame: int) -> int:
        """Put ``count`` packets of ``size`` octets, of which ``inner`` are of the inner packet and
        which will stand at ``place``, into runs.  Where they will end."""
        runs = self._runs
        run = runs[-1] if runs else None
        while count:
            if (
                run is None
                or run.closed
                or size > run.size
                or run.kind != kind
                or run.count == RUN_PACKETS
                or run.end - run.start + size > RUN_OCTETS
            ):
                run = _OpenRun(kind, place, size, frame)
                runs.append(run)
            taken = 1
            if size < run.size:
                run.closed = True
            else:
                room = (RUN_OCTETS - (run.end - run.start)) // size
                taken = min(count, RUN_PACKETS - run.count, room)
            run.count += taken
            run.octets += taken * inner
            place += taken * size
            run.end = place
            run.last = frame
            count -= taken
        return place
