"""One netfilter queue: packets come out of it, and the kernel waits for a verdict on each."""

from __future__ import annotations

import errno
import os
import socket
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from netfilterqueue import COPY_PACKET, NetfilterQueue

from oegw.intercept.interface import InterceptError
from oegw.powers import elsewhere

# Specification values: linux/netfilter/nfnetlink_queue.h.
_CONFIG = 3 << 8 | 2  # NFNL_SUBSYS_QUEUE, NFQNL_MSG_CONFIG
_PARAMS = 2  # NFQA_CFG_PARAMS: how many octets of a packet are copied (32 bits), and the mode
_REQUEST = 1  # NLM_F_REQUEST

# Our choices.
COPIED = 4016  # octets of a packet that we see: what NetfilterQueue's buffer has room for
_WHOLE = 0xFFFF
_MESSAGE = 1 << 17  # octets: room for a whole packet and what is said of it
_BURST = 64  # packets read before the event loop gets its turn again
_OCTETS_PER_PLACE = 8192  # of socket buffer: a copied packet with the kernel's overhead


class HeldPacket(Protocol):
    """What we use of netfilterqueue.Packet."""

    hook: int
    indev: int
    outdev: int

    def get_payload(self) -> bytes: ...
    def set_payload(self, payload: bytes) -> None: ...
    def get_mark(self) -> int: ...
    def set_mark(self, mark: int) -> None: ...
    def accept(self) -> None: ...
    def drop(self) -> None: ...


Taker = Callable[[HeldPacket, bytes], None]
"""Called with a packet and the octets of it that were copied."""


class Queue(Protocol):
    """What `KernelQueue` is; it may be in another process."""

    @property
    def overflows(self) -> int: ...
    def open(self) -> None: ...
    def fileno(self) -> int: ...
    def read(self) -> None: ...
    def dropped(self) -> dict[str, int]: ...
    def close(self) -> None: ...


def numbered_queue(
    number: int,
    length: int,
    taker: Taker,
    said: Callable[[str], None],
    *,
    whole: bool = False,
) -> Queue:
    """One NFQUEUE, as `KernelQueue`: of this process, or of the one that has the rights."""
    kernel = elsewhere.kernel()
    if kernel is not None:
        return kernel.queue(number, length, taker, said, whole)
    return KernelQueue(number, length, taker, said, whole=whole)


class KernelQueue:
    """One NFQUEUE.  The kernel keeps the packets; what is not accepted, it drops.

    ``whole``: all octets of a packet are copied, not just ``COPIED``.  ``said`` is told warnings.
    """

    def __init__(
        self,
        number: int,
        length: int,
        taker: Taker,
        said: Callable[[str], None],
        *,
        whole: bool = False,
    ) -> None:
        self._number = number
        self._length = length
        self._taker = taker
        self._said = said
        self._whole = whole
        self._arrived: list[tuple[HeldPacket, bytes]] = []
        self._queue: NetfilterQueue | None = None
        self._socket: _Socket | None = None
        self.overflows = 0  # times that the socket's buffer had no room

    def open(self) -> None:
        """Bind to the queue, in the network namespace of this thread.  Raises InterceptError."""
        try:
            queue = NetfilterQueue()
            with warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("always")
                queue.bind(
                    self._number,
                    self._arrive,
                    max_len=self._length,
                    mode=COPY_PACKET,
                    range=COPIED,
                    sock_len=self._length * _OCTETS_PER_PLACE,
                )
            reader = _Socket(queue.get_fd(), self)
            if self._whole:
                reader.copy_whole(self._number)
        except OSError as error:
            raise InterceptError(f"NFQUEUE {self._number} can't be opened: {error}") from error
        for warning in warned:
            self._said(str(warning.message))
        self._queue, self._socket = queue, reader

    def fileno(self) -> int:
        """The descriptor that becomes readable when packets wait."""
        assert self._queue is not None
        descriptor: int = self._queue.get_fd()
        return descriptor

    def read(self) -> None:
        """Take in what waits, at most a burst of it, and hand over each packet.

        What the taker raises on one packet comes out when the others have had their turn.
        """
        if self._queue is None or self._socket is None:
            return
        self._socket.begin_burst()
        self._queue.run_socket(self._socket)
        arrived, self._arrived = self._arrived, []
        failure: Exception | None = None
        for packet, seen in arrived:
            try:
                self._taker(packet, seen)
            except Exception as error:
                failure = failure or error
        if failure is not None:
            raise failure

    def _arrive(self, packet: HeldPacket) -> None:
        """Only here, under NetfilterQueue's callback, can the octets be read."""
        self._arrived.append((packet, packet.get_payload()))

    def dropped(self) -> dict[str, int]:
        """What the kernel dropped since the queue is there: no room in it, or none to read it."""
        counted = {"queue_full_dropped": 0, "queue_unread_dropped": 0}
        try:
            lines = Path("/proc/thread-self/net/netfilter/nfnetlink_queue").read_text().splitlines()
        except OSError:
            return counted
        for line in lines:
            fields = line.split()
            if int(fields[0]) == self._number:
                counted["queue_full_dropped"] = int(fields[5])
                counted["queue_unread_dropped"] = int(fields[6])
        return counted

    def close(self) -> None:
        """Leave the queue; the kernel drops what is in it."""
        if self._queue is not None:
            self._queue.unbind()
            self._queue = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class _Socket:
    """NetfilterQueue's socket, for its ``run_socket``: never blocks, and ends a burst."""

    def __init__(self, descriptor: int, queue: KernelQueue) -> None:
        self._socket = socket.socket(fileno=os.dup(descriptor))
        self._queue = queue
        self._left = 0

    def copy_whole(self, number: int) -> None:
        """NetfilterQueue itself never asks for more than its own buffer holds; ours holds all."""
        params = struct.pack("=HHIBxxx", 9, _PARAMS, socket.htonl(_WHOLE), COPY_PACKET)
        body = struct.pack("!BBH", socket.AF_UNSPEC, 0, number) + params
        header = struct.pack("=IHHII", 16 + len(body), _CONFIG, _REQUEST, 0, 0)
        self._socket.send(header + body)

    def begin_burst(self) -> None:
        self._left = _BURST

    def recv(self, size: int) -> bytes:
        while self._left:
            self._left -= 1
            try:
                return self._socket.recv(max(size, _MESSAGE), socket.MSG_DONTWAIT)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._queue.overflows += 1
        raise BlockingIOError(errno.EAGAIN, "the burst is over")

    def close(self) -> None:
        self._socket.close()
