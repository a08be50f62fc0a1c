"""Datagrams from an outer socket, many with each system call: for the pure core's ``fill``."""

from __future__ import annotations

import ctypes
import errno
import mmap
import socket
from struct import Struct
from typing import NamedTuple

from oegw.datapath.userspace.core.interface import BATCH_FRAMES, BATCH_OCTETS, JOINED_PACKETS
from oegw.datapath.userspace.mmsghdr import (
    CONTROL_LENGTH,
    MESSAGE,
    MESSAGE_LENGTH,
    receive_messages,
)

# Linux; Python does not name them.
_IP_PKTINFO = 8
_UDP_GRO = 104
_CMSG = Struct("@Nii")  # length, level, type
_SIZE = Struct("@N")
_INT = Struct("=i")
_PORT = Struct("!H")

# Our choices.
_LARGEST = 65536  # octets of a datagram: a whole fragmented one, or what UDP_GRO joined
_IP_HEADER = 60  # octets that may stand before it
_ROOM = 2 * _LARGEST  # for it, and for others that continue it
_NAME = 32  # at least that of sockaddr_in6, and the control part behind it is aligned
_CONTROL = 160
_AT_ONCE = 32  # with one system call, so that the bound of octets is kept to
_KNOWN = 1024  # senders whose address was read; then all are forgotten


class Datagram(NamedTuple):
    """``payload`` is one ESP packet, or several of ``size`` octets (the last may be shorter) that
    came one after the other from one sender, with UDP_GRO or without.  A view, good until the next
    ``receive``."""

    payload: memoryview
    size: int
    source: bytes  # packed
    port: int  # 0 for plain ESP
    destination: bytes  # packed; empty if the kernel did not say
    traffic_class: int


_Sender = tuple[bytes, int, bytes, int]  # the rest of a Datagram, behind its size


class Receiver:
    """The buffers of one opening worker: one for all its sockets.

    They have room for the largest datagram and for others that continue it, and take up as much
    memory as came in them.
    ``count``: datagrams that the last ``receive`` took, of which some may continue others.
    """

    def __init__(self, frames: int = BATCH_FRAMES) -> None:
        self._frames = frames
        self._payloads = mmap.mmap(-1, frames * _ROOM)
        self._view = memoryview(self._payloads)
        self._names = bytearray(frames * (_NAME + _CONTROL))
        payloads, names = _address(self._payloads), _address(self._names)
        stride = _NAME + _CONTROL
        self._places = ctypes.create_string_buffer(
            b"".join(
                Struct("@PN").pack(payloads + index * _ROOM, _LARGEST) for index in range(frames)
            )
        )
        places = ctypes.addressof(self._places)
        self._fresh = b"".join(
            MESSAGE.pack(
                names + index * stride, _NAME, places + index * Struct("@PN").size, 1,
                names + index * stride + _NAME, _CONTROL, 0, 0,
            )
            for index in range(frames)
        )  # fmt: skip
        self._messages = bytearray(self._fresh)
        self._at = _address(self._messages)
        self.count = 0
        self._known: dict[bytes, tuple[int, _Sender]] = {}

    def receive(self, descriptor: int, version: int, encapsulated: bool) -> list[Datagram]:
        """What waits in the socket, without waiting, up to the bounds of a batch; empty if nothing
        does.  An IPv4 header (raw sockets give it) is taken off.  Raises OSError
        if nothing came but an error."""
        found: list[Datagram] = []
        self.count = octets = first = 0
        frames = self._frames
        while first < frames and octets < BATCH_OCTETS:
            wanted = min(_AT_ONCE, frames - first)
            try:
                count = receive_messages(descriptor, self._at + first * MESSAGE.size, wanted)
            except OSError as error:
                if error.errno == errno.EAGAIN or found:
                    break
                raise
            octets += self._take(first, count, version, encapsulated, found)
            first += count
            if count < wanted:
                break
        self.count = first
        self._renew(first)
        return found

    def _renew(self, used: int) -> None:
        """The kernel wrote over lengths and flags."""
        end = used * MESSAGE.size
        self._messages[:end] = self._fresh[:end]

    def _take(
        self, first: int, count: int, version: int, encapsulated: bool, found: list[Datagram]
    ) -> int:
        view, names, messages = self._view, self._names, self._messages
        octets = 0
        # The datagram that the next may continue: from where, and where it begins and ends.
        from_: _Sender | None = None
        begun = ended = each = 0
        for index in range(first, first + count):
            at = index * MESSAGE.size
            length: int = _INT.unpack_from(messages, at + MESSAGE_LENGTH)[0]
            octets += length
            start = index * _ROOM
            end = start + length
            if version == 4 and not encapsulated:
                source = bytes(view[start + 12 : start + 16])
                destination = bytes(view[start + 16 : start + 20])
                sender = source, 0, destination, view[start + 1]
                start = min(start + (view[start] & 15) * 4, end)
                size = end - start
            else:
                behind: int = _SIZE.unpack_from(messages, at + CONTROL_LENGTH)[0]
                name = index * (_NAME + _CONTROL)
                key = bytes(names[name : name + _NAME + behind])
                known = self._known.get(key)
                if known is None:
                    known = _sender(key, version, encapsulated)
                    if len(self._known) >= _KNOWN:
                        self._known.clear()
                    self._known[key] = known
                size, sender = known
                size = size or length
            if sender == from_ and _continues(ended - begun, each, end - start, size):
                view[ended : ended + end - start] = view[start:end]
                ended += end - start
                continue
            if from_ is not None:
                found.append(Datagram(view[begun:ended], each, *from_))
            from_, begun, ended, each = sender, start, end, size
        if from_ is not None:
            found.append(Datagram(view[begun:ended], each, *from_))
        return octets


def _continues(before: int, each: int, octets: int, size: int) -> bool:
    """Whether a datagram of ``octets`` octets, or packets of ``size``, goes on where one of
    ``before`` ends, in packets of ``each``: then they are as one, and many packets are opened
    together.

    UDP_SEGMENT takes no more than a datagram may have, so what was one frame there comes as two.
    """
    if not each or before % each or before >= JOINED_PACKETS * each:
        return False
    if before + octets > _ROOM - _IP_HEADER:
        return False
    return size == each or 0 < octets == size < each


def _sender(key: bytes, version: int, encapsulated: bool) -> tuple[int, _Sender]:
    """Read the socket address and the control messages behind it: UDP_GRO's size, or 0, and the
    rest."""
    port: int = _PORT.unpack_from(key, 2)[0] if encapsulated else 0
    source = key[4:8] if version == 4 else key[8:24]
    size, destination, traffic_class = 0, b"", 0
    at = _NAME
    while at + _CMSG.size <= len(key):
        length, level, kind = _CMSG.unpack_from(key, at)
        value = key[at + _CMSG.size : at + length]
        if (level, kind) == (socket.IPPROTO_UDP, _UDP_GRO):
            size = _INT.unpack_from(value)[0]
        elif (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO):
            destination = value[8:12]
        elif (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
            destination = value[:16]
        elif (level, kind) == (socket.IPPROTO_IP, socket.IP_TOS):
            traffic_class = value[0]
        elif (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_TCLASS):
            traffic_class = _INT.unpack_from(value)[0]
        at += max(socket.CMSG_SPACE(length - _CMSG.size), _CMSG.size)
    return size, (source, port, destination, traffic_class)


def _address(buffer: bytearray | mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))
