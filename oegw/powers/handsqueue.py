"""A queue of the kernel's in the hands: packets go to the mind, verdicts come back."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from contextlib import suppress

from oegw.intercept.interface import InterceptError
from oegw.intercept.nfqueue import HeldPacket, KernelQueue
from oegw.powers.packets import Packet, Verdict

_BUFFER = 1 << 20  # octets, our choice: some hundred packets on their way to the mind


class HandsQueue:
    """While the mind is behind, packets wait in the kernel, which drops what is too much."""

    def __init__(self, number: int, length: int, whole: bool) -> None:
        self.said: list[str] = []
        self._queue = KernelQueue(number, length, self._take, self.said.append, whole=whole)
        self._held: dict[int, HeldPacket] = {}
        self._number = 0
        self._unsent: deque[bytes] = deque()
        self._ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.setblocking(False)
        self._ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)

    def open(self) -> None:
        """Raises InterceptError, and then nothing is left."""
        try:
            self._queue.open()
        except InterceptError:
            self._ours.close()
            self.theirs.close()
            raise
        asyncio.get_running_loop().add_reader(self._queue.fileno(), self._queue.read)

    def decide(self, verdict: Verdict) -> None:
        """Of what the mind says of a packet that is gone, nothing comes."""
        packet = self._held.pop(verdict.number, None)
        if packet is None:
            return
        if not verdict.accept:
            packet.drop()
            return
        if verdict.mark is not None:
            packet.set_mark(verdict.mark)
        if verdict.payload is not None:
            packet.set_payload(verdict.payload)
        packet.accept()

    @property
    def overflows(self) -> int:
        return self._queue.overflows

    def dropped(self) -> dict[str, int]:
        return self._queue.dropped()

    def close(self) -> None:
        """What is in it, the kernel drops."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._queue.fileno())
        loop.remove_writer(self._ours)
        for packet in self._held.values():
            packet.drop()
        self._held.clear()
        self._queue.close()
        self._ours.close()

    def _take(self, packet: HeldPacket, octets: bytes) -> None:
        self._number += 1
        self._held[self._number] = packet
        self._unsent.append(
            Packet(
                self._number, packet.get_mark(), packet.indev, packet.outdev, packet.hook, octets
            ).serialize()
        )
        if len(self._unsent) == 1:
            self._send()

    def _send(self) -> None:
        """As much as there is room for; while there is none, nothing is read."""
        loop = asyncio.get_running_loop()
        try:
            while self._unsent:
                self._ours.send(self._unsent[0])
                self._unsent.popleft()
        except BlockingIOError:
            loop.remove_reader(self._queue.fileno())
            loop.add_writer(self._ours, self._send_more)
        except OSError:  # the mind is gone, or has closed: verdicts will not come
            self._unsent.clear()

    def _send_more(self) -> None:
        with suppress(OSError):
            asyncio.get_running_loop().remove_writer(self._ours)
        self._send()
        if not self._unsent:
            asyncio.get_running_loop().add_reader(self._queue.fileno(), self._queue.read)
