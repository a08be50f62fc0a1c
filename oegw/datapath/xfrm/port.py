"""UDP port 4500: ESP in UDP goes to the kernel, what else arrives is reported, IKE is sent.

The kernel sorts (RFC 3948 section 2): it takes ESP, drops keepalives, and leaves to the socket
what begins with the non-ESP marker, and what is too short to be either.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import Callable
from ipaddress import ip_address

from oegw.datapath.interface import DatapathError, IPAddress, KeyingDatagram

# Linux, <linux/in.h>, <linux/udp.h>; Python does not name them.
_IP_PKTINFO = 8
_UDP_ENCAP = 100
_UDP_ENCAP_ESPINUDP = 2

# Specification values (RFC 3948 section 2.2).
_NON_ESP_MARKER = bytes(4)

# Our choices.
_LARGEST = 65536
_DATAGRAMS_PER_TURN = 64

_PKTINFO = struct.Struct("=i4s4s")
_PKTINFO6 = struct.Struct("=16si")


class EncapsulationPort:
    """The sockets of both families.  ``open`` raises DatapathError, and leaves none open."""

    def __init__(self, port: int, mark: int, listener: Callable[[KeyingDatagram], None]) -> None:
        self._port = port
        self._mark = mark
        self._listener = listener
        self._sockets: dict[int, socket.socket] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self.counters: Counter[str] = Counter()

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        for version, family in ((4, socket.AF_INET), (6, socket.AF_INET6)):
            try:
                outside = socket.socket(family, socket.SOCK_DGRAM)
            except OSError:
                if version == 4:
                    raise DatapathError("UDP over IPv4: this kernel has none") from None
                continue  # a kernel without IPv6
            try:
                self._set_up(outside, version)
            except OSError as error:
                outside.close()
                self.close()
                where = f"UDP port {self._port} over IPv{version}"
                raise DatapathError(f"{where}: {error.strerror}") from None
            self._sockets[version] = outside
            loop.add_reader(outside, self._read, outside, version)
        self._loop = loop

    def close(self) -> None:
        for outside in self._sockets.values():
            if self._loop is not None:
                self._loop.remove_reader(outside)
            outside.close()
        self._sockets.clear()

    def send(self, payload: bytes, source: IPAddress, destination: IPAddress, port: int) -> None:
        """What can't be sent is counted."""
        outside = self._sockets.get(destination.version)
        try:
            if outside is None or source.version != destination.version:
                raise OSError
            if source.version == 4:
                level, kind = socket.IPPROTO_IP, _IP_PKTINFO
                info = _PKTINFO.pack(0, source.packed, bytes(4))
            else:
                level, kind = socket.IPPROTO_IPV6, socket.IPV6_PKTINFO
                info = _PKTINFO6.pack(source.packed, 0)
            outside.sendmsg((payload,), [(level, kind, info)], 0, (str(destination), port))
        except OSError:
            self.counters["drop_keying"] += 1

    def _set_up(self, outside: socket.socket, version: int) -> None:
        outside.setblocking(False)
        outside.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("=I", self._mark))
        if version == 4:
            outside.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        else:
            outside.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            outside.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        outside.setsockopt(socket.IPPROTO_UDP, _UDP_ENCAP, _UDP_ENCAP_ESPINUDP)
        outside.bind(("0.0.0.0" if version == 4 else "::", self._port))  # noqa: S104

    def _read(self, outside: socket.socket, version: int) -> None:
        for _ in range(_DATAGRAMS_PER_TURN):
            try:
                payload, ancillary, _, address = outside.recvmsg(_LARGEST, 128)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error of something that we sent
            if payload[:4] != _NON_ESP_MARKER:
                self.counters["drop_in_truncated"] += 1
                continue
            local = _destination(ancillary, version)
            if local is not None:
                remote = ip_address(address[0].partition("%")[0])
                self._listener(KeyingDatagram(payload, local, remote, address[1]))


def _destination(ancillary: list[tuple[int, int, bytes]], version: int) -> IPAddress | None:
    for level, kind, value in ancillary:
        if version == 4 and (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO):
            return ip_address(value[8:12])
        if version == 6 and (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
            return ip_address(value[:16])
    return None
