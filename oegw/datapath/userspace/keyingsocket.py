"""IKE on the UDP port of ESP: sockets of the control process beside those of the worker.

Both bind the port, and the kernel sorts (``outside.OuterGroup``): what begins with the
non-ESP marker (RFC 3948 section 2.2) comes here, all else goes to the worker.  So IKE wakes nobody
but the process that it is for, and a flood of it fills this socket's buffer and nothing else.
What the kernel sorted wrong all the same is put right by `strays.py`.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections import Counter
from collections.abc import Callable
from ipaddress import ip_address
from typing import NamedTuple

from oegw.datapath.interface import DatapathError, IPAddress, KeyingDatagram
from oegw.datapath.userspace.filters import worker_of
from oegw.datapath.userspace.outside import (
    IP_MTU_DISCOVER,
    IP_PKTINFO,
    IPV6_MTU_DISCOVER,
    NON_ESP_MARKER,
    PMTUDISC_DONT,
    UDP_GRO,
    destination_of,
    joined_size,
    source_of,
)
from oegw.datapath.userspace.strays import Stray, StrayDesk, received

# Linux, <asm/socket.h>, <linux/sock_diag.h>; Python does not name them.
_SO_MEMINFO = 55
_MEMINFO = struct.Struct("=9I")
_MEMINFO_DROPS = 8

# Our choices.
_LARGEST = 65536
_DATAGRAMS_PER_TURN = 32  # before the event loop does something else


class KeyingDescriptors(NamedTuple):
    """Those of a port's `KeyingSockets`, to be read by another process: ``sockets`` by version."""

    sockets: dict[int, int]
    beginnings: tuple[int, ...]
    end: int


class KeyingSockets:
    """Those of both families.  ``open`` comes after the worker has bound its own.

    ``elsewhere``: another process reads and sends; this one only opens them, for `adopt` there.
    """

    def __init__(
        self,
        mark: int,
        listener: Callable[[KeyingDatagram], None],
        *,
        elsewhere: bool = False,
    ) -> None:
        self._mark = mark
        self._elsewhere = elsewhere
        self._adopted: KeyingDescriptors | None = None
        self._listener = listener
        self._sockets: dict[int, socket.socket] = {}
        self._dropped = 0  # by the kernel, of sockets that are closed
        self._counters: Counter[str] = Counter()
        self._strays: StrayDesk | None = None
        self._stray_end = -1

    def open(self, port: int, versions: tuple[int, ...], joined: bool = False) -> None:
        """``joined``: the worker's sockets get several datagrams as one (UDP_GRO).  Then these do
        too: before it joins, the kernel asks any socket of the port whether it may, chosen by
        addresses and ports, and one that may not would answer for its share of the peers.

        Raises DatapathError; then none is open.
        """
        for version in versions:
            family = socket.AF_INET if version == 4 else socket.AF_INET6
            keying = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            self._sockets[version] = keying
            try:
                self._bind(keying, version, port)
                if joined:
                    keying.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
            except OSError as error:
                self.close()
                where = f"UDP port {port} over IPv{version}"
                raise DatapathError(f"{where}: {error.strerror}") from None
            self._attend(keying)

    @classmethod
    def adopt(
        cls, given: KeyingDescriptors, listener: Callable[[KeyingDatagram], None]
    ) -> KeyingSockets:
        """What another process has opened for us; the descriptors are ours now."""
        adopting = cls(0, listener)
        for version, descriptor in given.sockets.items():
            adopting._sockets[version] = keying = socket.socket(fileno=descriptor)
            adopting._attend(keying)
        adopting.open_strays(given.beginnings, given.end)
        adopting._adopted = given
        return adopting

    @property
    def descriptors(self) -> KeyingDescriptors:
        """For who adopts them."""
        assert self._strays is not None
        sockets = {version: each.fileno() for version, each in self._sockets.items()}
        return KeyingDescriptors(sockets, self._strays.beginnings, self._stray_end)

    def _attend(self, keying: socket.socket) -> None:
        if not self._elsewhere:
            asyncio.get_running_loop().add_reader(keying, self._read, keying)

    def open_strays(self, beginnings: tuple[int, ...], end: int) -> None:
        """IKE that a worker got comes here by ``end``, and ESP that came here goes to its worker
        (`strays.py`).  Both belong to the caller, and are open for as long as this is."""
        self._strays = StrayDesk(beginnings)
        self._stray_end = end
        if not self._elsewhere:
            asyncio.get_running_loop().add_reader(end, self._take_strays)

    def _bind(self, keying: socket.socket, version: int, port: int) -> None:
        keying.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("=I", self._mark))
        keying.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if version == 4:
            keying.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
            keying.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_DONT)
        else:
            keying.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            keying.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            keying.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_DONT)
        keying.bind(("", port))

    def close(self) -> None:
        if self._strays is not None:
            asyncio.get_running_loop().remove_reader(self._stray_end)
            self._strays = None
        for keying in self._sockets.values():
            self._dropped += _drops(keying)
            asyncio.get_running_loop().remove_reader(keying)
            keying.close()
        self._sockets.clear()
        if self._adopted is not None:
            for descriptor in (*self._adopted.beginnings, self._adopted.end):
                os.close(descriptor)
            self._adopted = None

    def send(self, data: bytes, source: IPAddress, destination: IPAddress, port: int) -> None:
        """Send IKE or a keepalive, in fragments if need be.  What can't be sent is counted."""
        keying = self._sockets.get(destination.version)
        try:
            if keying is None or source.version != destination.version:
                raise OSError
            keying.sendmsg((data,), source_of(source), 0, (str(destination), port))
            self._counters["keying_out"] += 1
        except (OSError, OverflowError):  # refused by the network; a port that is none
            self._counters["drop_keying"] += 1

    def counters(self) -> Counter[str]:
        """``drop_in_keying`` is what the kernel dropped since we did not read quickly enough."""
        if self._elsewhere:  # all of it is counted there
            return Counter()
        dropped = self._dropped + sum(_drops(keying) for keying in self._sockets.values())
        return self._counters + Counter(drop_in_keying=dropped)

    def _read(self, keying: socket.socket) -> None:
        for _ in range(_DATAGRAMS_PER_TURN):
            try:
                data, ancillary, _, sender = keying.recvmsg(_LARGEST, 128)
            except BlockingIOError:
                return
            except OSError:  # an ICMP error of something that we sent
                continue
            remote = ip_address(sender[0].partition("%")[0])
            destination = destination_of(ancillary)
            size = joined_size(ancillary) or max(len(data), 1)
            for at in range(0, max(len(data), 1), size):
                part = data[at : at + size]
                self._take(Stray(part, remote.packed, sender[1], destination, 0))
                if keying.fileno() < 0:  # the listener closed us
                    return

    def _take_strays(self) -> None:
        for stray in received(self._stray_end, _DATAGRAMS_PER_TURN):
            self._take(stray)
            if self._strays is None:  # the listener closed us
                return

    def _take(self, came: Stray) -> None:
        data, source, port, destination, *_ = came
        if not destination or len(data) < len(NON_ESP_MARKER):
            self._counters["drop_in_truncated"] += 1
        elif data[:4] == NON_ESP_MARKER:
            self._counters["keying_in"] += 1
            local, remote = ip_address(destination), ip_address(source)
            self._listener(KeyingDatagram(bytes(data), local, remote, port))
        else:
            desk = self._strays
            if desk is None or not desk.send(worker_of(source, desk.workers), came):
                self._counters["drop_in_stray"] += 1


def _drops(keying: socket.socket) -> int:
    octets = keying.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
    return int(_MEMINFO.unpack(octets)[_MEMINFO_DROPS])
