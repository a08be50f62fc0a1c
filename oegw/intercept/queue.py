"""The queue of trapped packets: read, kept by number, and given back to the kernel."""

from __future__ import annotations

from collections.abc import Iterable

from oegw.intercept.interface import InterceptSettings, TrapListener
from oegw.intercept.nfqueue import COPIED, HeldPacket, numbered_queue
from oegw.packet.flow import PacketError, flow_of
from oegw.trace import Trace

# Specification value: where IPv4 and IPv6 say how long a packet is (RFC 791, RFC 8200).
_LENGTH_FIELD = {4: slice(2, 4), 6: slice(4, 6)}
_IPV6_HEADER = 40


class PacketQueue:
    """The trapped packets.  What is not accepted here, the kernel drops."""

    def __init__(self, settings: InterceptSettings, listener: TrapListener, trace: Trace) -> None:
        self._settings = settings
        self._listener = listener
        self._trace = trace
        self._held: dict[int, HeldPacket] = {}
        self._number = 0
        self._queue = numbered_queue(settings.queue, settings.queue_length, self._take, self._said)

    def open(self) -> None:
        """Bind to the queue, in the network namespace of this thread.  Raises InterceptError."""
        self._queue.open()

    def fileno(self) -> int:
        """The descriptor that becomes readable when packets wait."""
        return self._queue.fileno()

    def read(self) -> None:
        """Take in what waits, at most a burst of it, and tell the listener of each packet.

        What the listener raises on one packet, for which that packet is
        dropped, comes out when the others have had their turn.
        """
        self._queue.read()

    def _said(self, words: str) -> None:
        self._trace.event("intercept", "queue_buffer_small", reason=words)

    def _take(self, packet: HeldPacket, seen: bytes) -> None:
        octets, size = _whole(seen)
        try:
            flow = flow_of(octets)
        except PacketError as error:
            packet.drop()
            self._trace.drop("intercept", error.trigger)
            return
        self._number += 1
        self._held[self._number] = packet
        try:
            self._listener(flow, self._number, size)
        except Exception:
            self.discard((self._number,))
            raise

    def release(self, numbers: Iterable[int], bits: int) -> None:
        """Let packets go on, in this order, with these of our mark bits."""
        others = 0xFFFFFFFF ^ self._settings.mark_mask
        for number in numbers:
            packet = self._held.pop(number, None)
            if packet is not None:
                packet.set_mark(packet.get_mark() & others | bits)
                packet.accept()

    def discard(self, numbers: Iterable[int]) -> None:
        """Drop packets."""
        for number in numbers:
            packet = self._held.pop(number, None)
            if packet is not None:
                packet.drop()

    def counters(self) -> dict[str, int]:
        """What waits here, and what found no room."""
        counted = {"held": len(self._held), "queue_buffer_overflows": self._queue.overflows}
        return counted | self._queue.dropped()

    def close(self) -> None:
        """Drop all packets and leave the queue."""
        self.discard(tuple(self._held))
        self._queue.close()


def _whole(seen: bytes) -> tuple[bytes, int]:
    """A packet in the length that its header gives, and that length.

    What was too long to be copied is filled up with zeros: headers are in
    front, and the kernel still has the packet itself.
    """
    if len(seen) < _IPV6_HEADER:
        return seen, len(seen)
    version = seen[0] >> 4
    size = int.from_bytes(seen[_LENGTH_FIELD[6 if version == 6 else 4]])
    if version == 6:
        size += _IPV6_HEADER
    return (seen.ljust(size, b"\0") if len(seen) >= COPIED else seen), size
