"""Datagrams from an outer socket, many with each system call: for the pure core's ``fill``."""

from __future__ import annotations

import ctypes
import errno
import mmap
import socket
from struct import Struct
from typing import NamedTuple

from oegw.datapath.userspace.core.interface import BATCH_FRAMES, BATCH_OCTETS
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
_NAME = 32  # at least that of sockaddr_in6, and the control part behind it is aligned
_CONTROL = 160
_AT_ONCE = 32  # with one system call, so that the bound of octets is kept to
_KNOWN = 1024  # senders whose address was read; then all are forgotten


class Datagram(NamedTuple):
    """``payload`` is one ESP packet, or with UDP_GRO several of ``size`` octets (the last may be
    shorter) of one sender.  A view, good until the next ``receive``."""

    payload: memoryview
    size: int
    source: bytes  # packed
    port: int  # 0 for plain ESP
    destination: bytes  # packed; empty if the kernel did not say
    traffic_class: int


_Sender = tuple[int, bytes, int, bytes, int]  # size, and the rest of a Datagram


class Receiver:
    """The buffers of one opening worker: one for all its sockets.

    They are as large as the largest datagram, and take up as much memory as came in them.
    """

    def __init__(self, frames: int = BATCH_FRAMES) -> None:
        self._frames = frames
        self._payloads = mmap.mmap(-1, frames * _LARGEST)
        self._view = memoryview(self._payloads)
        self._names = bytearray(frames * (_NAME + _CONTROL))
        payloads, names = _address(self._payloads), _address(self._names)
        stride = _NAME + _CONTROL
        self._places = ctypes.create_string_buffer(
            b"".join(
                Struct("@PN").pack(payloads + index * _LARGEST, _LARGEST) for index in range(frames)
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
        self._known: dict[bytes, _Sender] = {}

    def receive(self, descriptor: int, version: int, encapsulated: bool) -> list[Datagram]:
        """What waits in the socket, without waiting, up to the bounds of a batch; empty if nothing
        does.  An IPv4 header (raw sockets give it) is taken off.  Raises OSError
        if nothing came but an error."""
        found: list[Datagram] = []
        octets = 0
        first = 0
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
        for index in range(first, first + count):
            at = index * MESSAGE.size
            length: int = _INT.unpack_from(messages, at + MESSAGE_LENGTH)[0]
            octets += length
            begin = index * _LARGEST
            if version == 4 and not encapsulated:
                end = begin + length
                start = begin + (view[begin] & 15) * 4
                source = bytes(view[begin + 12 : begin + 16])
                destination = bytes(view[begin + 16 : begin + 20])
                found.append(
                    Datagram(view[start:end], end - start, source, 0, destination, view[begin + 1])
                )
                continue
            behind: int = _SIZE.unpack_from(messages, at + CONTROL_LENGTH)[0]
            name = index * (_NAME + _CONTROL)
            key = bytes(names[name : name + _NAME + behind])
            sender = self._known.get(key)
            if sender is None:
                sender = _sender(key, version, encapsulated)
                if len(self._known) >= _KNOWN:
                    self._known.clear()
                self._known[key] = sender
            size, source, port, destination, traffic_class = sender
            found.append(
                Datagram(
                    view[begin : begin + length],
                    size or length,
                    source,
                    port,
                    destination,
                    traffic_class,
                )
            )
        return octets


def _sender(key: bytes, version: int, encapsulated: bool) -> _Sender:
    """Read the socket address and the control messages behind it."""
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
    return size, source, port, destination, traffic_class


def _address(buffer: bytearray | mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))
