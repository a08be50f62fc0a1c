"""The queue of trapped packets: read, kept by number, and given back to the kernel."""

from __future__ import annotations

import errno
import os
import socket
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from netfilterqueue import COPY_PACKET, NetfilterQueue

from oegw.intercept.interface import InterceptError, InterceptSettings, TrapListener
from oegw.packet.flow import PacketError, flow_of
from oegw.trace import Trace

# Specification value: where IPv4 and IPv6 say how long a packet is (RFC 791, RFC 8200).
_LENGTH_FIELD = {4: slice(2, 4), 6: slice(4, 6)}
_IPV6_HEADER = 40

# Our choices.
_COPIED = 4016  # octets of a packet that we see: what NetfilterQueue's buffer has room for
_BURST = 64  # packets read before the event loop gets its turn again
_OCTETS_PER_PLACE = 8192  # of socket buffer: a copied packet with the kernel's overhead


class _Packet(Protocol):
    """What we use of netfilterqueue.Packet."""

    def get_payload(self) -> bytes: ...
    def get_mark(self) -> int: ...
    def set_mark(self, mark: int) -> None: ...
    def accept(self) -> None: ...
    def drop(self) -> None: ...


class PacketQueue:
    """One NFQUEUE.  The kernel keeps the packets; what is not accepted here, it drops."""

    def __init__(self, settings: InterceptSettings, listener: TrapListener, trace: Trace) -> None:
        self._settings = settings
        self._listener = listener
        self._trace = trace
        self._held: dict[int, _Packet] = {}
        self._arrived: list[tuple[_Packet, bytes]] = []
        self._number = 0
        self._queue: NetfilterQueue | None = None
        self._socket: _Socket | None = None
        self.overflows = 0  # times that the socket's buffer had no room

    def open(self) -> None:
        """Bind to the queue, in the network namespace of this thread.  Raises InterceptError."""
        number = self._settings.queue
        try:
            queue = NetfilterQueue()
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                queue.bind(
                    number,
                    self._arrive,
                    max_len=self._settings.queue_length,
                    mode=COPY_PACKET,
                    range=_COPIED,
                    sock_len=self._settings.queue_length * _OCTETS_PER_PLACE,
                )
        except OSError as error:
            raise InterceptError(f"NFQUEUE {number} can't be opened: {error}") from error
        for warning in said:
            self._trace.event("intercept", "queue_buffer_small", reason=str(warning.message))
        self._queue = queue
        self._socket = _Socket(queue.get_fd(), self)

    def fileno(self) -> int:
        """The descriptor that becomes readable when packets wait."""
        assert self._queue is not None
        descriptor: int = self._queue.get_fd()
        return descriptor

    def read(self) -> None:
        """Take in what waits, at most a burst of it, and tell the listener of each packet.

        What the listener raises on one packet, for which that packet is
        dropped, comes out when the others have had their turn.
        """
        if self._queue is None or self._socket is None:
            return
        self._socket.begin_burst()
        self._queue.run_socket(self._socket)
        arrived, self._arrived = self._arrived, []
        failure: Exception | None = None
        for packet, seen in arrived:
            try:
                self._take(packet, seen)
            except Exception as error:
                self.discard((self._number,))
                failure = failure or error
        if failure is not None:
            raise failure

    def _arrive(self, packet: _Packet) -> None:
        """Only here, under NetfilterQueue's callback, can the octets be read."""
        self._arrived.append((packet, packet.get_payload()))

    def _take(self, packet: _Packet, seen: bytes) -> None:
        octets, size = _whole(seen)
        try:
            flow = flow_of(octets)
        except PacketError as error:
            packet.drop()
            self._trace.drop("intercept", error.trigger)
            return
        self._number += 1
        self._held[self._number] = packet
        self._listener(flow, self._number, size)

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
        counted = {"held": len(self._held), "queue_buffer_overflows": self.overflows}
        counted |= {"queue_full_dropped": 0, "queue_unread_dropped": 0}
        try:
            lines = Path("/proc/thread-self/net/netfilter/nfnetlink_queue").read_text().splitlines()
        except OSError:
            return counted
        for line in lines:
            fields = line.split()
            if int(fields[0]) == self._settings.queue:
                counted["queue_full_dropped"] = int(fields[5])
                counted["queue_unread_dropped"] = int(fields[6])
        return counted

    def close(self) -> None:
        """Drop all packets and leave the queue."""
        self.discard(tuple(self._held))
        if self._queue is not None:
            self._queue.unbind()
            self._queue = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class _Socket:
    """NetfilterQueue's socket, for its ``run_socket``: never blocks, and ends a burst."""

    def __init__(self, descriptor: int, queue: PacketQueue) -> None:
        self._socket = socket.socket(fileno=os.dup(descriptor))
        self._queue = queue
        self._left = 0

    def begin_burst(self) -> None:
        self._left = _BURST

    def recv(self, size: int) -> bytes:
        while self._left:
            self._left -= 1
            try:
                return self._socket.recv(size, socket.MSG_DONTWAIT)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._queue.overflows += 1
        raise BlockingIOError(errno.EAGAIN, "the burst is over")

    def close(self) -> None:
        self._socket.close()


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
    return (seen.ljust(size, b"\0") if len(seen) >= _COPIED else seen), size
