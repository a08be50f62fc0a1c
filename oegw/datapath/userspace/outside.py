"""The sockets towards the Internet: ESP itself (raw, protocol 50), ESP in UDP, ICMP errors.

The kernel builds all IP headers.  All sockets carry the gateway's own mark, so that what they
send is not trapped.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import socket
import struct
from collections.abc import Sequence
from ipaddress import IPv4Address
from typing import NamedTuple

from oegw.bpf.classic import SO_ATTACH_FILTER, SO_ATTACH_REUSEPORT, attach
from oegw.datapath.interface import DatapathError, IPAddress
from oegw.datapath.userspace.core.interface import Run, SocketWay
from oegw.datapath.userspace.filters import by_marker, by_sender, nothing
from oegw.datapath.userspace.offloads import (
    PORTS_CHANGE,
    RECEIVING,
    SENDING,
    SWITCHED_OFF,
    Offload,
    refused_running,
)
from oegw.datapath.userspace.sending import MessageBatch
from oegw.packet.ip import ESP, ICMP, ICMPV6, Buffer

# Linux, <linux/in.h>, <linux/in6.h>, <asm/socket.h>, <linux/filter.h>; Python does not name them.
IP_PKTINFO = 8
IP_MTU_DISCOVER = 10
_IP_MTU = 14
IPV6_MTU_DISCOVER = 23
_IPV6_MTU = 24
PMTUDISC_DONT = 0
_PMTUDISC_DO = 2
_SO_NO_CHECK = 11
_IP_FREEBIND = 15
_IPV6_FREEBIND = 78
_UDP_SEGMENT = 103
UDP_GRO = 104
_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33
_SOL_RAW = 255
_ICMP_FILTER = 1
_ICMPV6_FILTER = 1

# Specification values (RFC 3948 sections 2.2 and 2.3).
NON_ESP_MARKER = bytes(4)
KEEPALIVE = b"\xff"

# Our choices.
# Octets, of which the kernel makes twice as many and counts its own expenses too.  What waits to be
# opened delays all behind it, so there is room for a few milliseconds at full speed, and no more:
# the sender of a transfer hears by a loss that it is too fast, as behind any other queue.
_RECEIVE_BUFFER = 2**20
_SEND_BUFFER = 2 * 2**20
_DISCARD_PORT = 9
_QUEUE_FULL = {errno.ENOBUFS: errno.EAGAIN}  # what raw sockets say

_PKTINFO = struct.Struct("=i4s4s")
_PKTINFO6 = struct.Struct("=16si")
_SIZE = struct.Struct("=H")
_INT = struct.Struct("=i")
_CMSG = struct.Struct("@Nii")  # length, level, type
_NAME = struct.Struct("=H2s4s8x")
_NAME6 = struct.Struct("=H2s4x16s4x")
_UNSPECIFIED = bytes(16)  # a socket address of AF_UNSPEC: no peer any more

_LIBC = ctypes.CDLL(None)

Ancillary = Sequence[tuple[int, int, bytes]]


class Handle(NamedTuple):
    """How a worker is told of a socket that it inherits: `OuterSocket.adopt` takes it."""

    descriptor: int
    version: int
    encapsulated: bool
    segments: bool  # UDP_SEGMENT may be used


class Way(NamedTuple):
    """How the packets of an SA go: made once by `OuterSocket.way`, kept as ``sa.way``."""

    outer: OuterSocket
    from_: Ancillary
    to: tuple[str, int]
    name: bytes  # ``to`` and ``from_`` as the kernel takes them
    control: bytes

    def until(self, time: float) -> SocketWay:
        """The same for a core's loop."""
        outer = self.outer
        return SocketWay(
            outer.socket.fileno(),
            outer.version,
            outer.encapsulated,
            outer.segments,
            self.name,
            self.control,
            time,
        )


class Sent(NamedTuple):
    """How many packets of a run the kernel took, and the ``errno`` that stopped it, else 0:
    EAGAIN (the queue is full: the rest is lost), EMSGSIZE (the path got narrower), or another."""

    packets: int
    error: int


_ONE_SENT = Sent(1, 0)


class OuterGroup:
    """All sockets for one family, plain or in UDP: the control process opens and keeps them.

    ``port`` None: raw ESP, else ESP in UDP on that port.
    ``opening``: each receives what the senders of that worker send (`filters.worker_of`).
    ``sealing``: each sends, and receives nothing.  With UDP the next socket that is bound to the
    port (`keyingsocket.py`) receives IKE.  Raises DatapathError, and leaves nothing open.
    """

    def __init__(
        self,
        version: int,
        port: int | None,
        mark: int,
        workers: int = 1,
        offloads: bool = True,
        ports_change: bool = False,
    ) -> None:
        """``ports_change``: see `UserspaceSettings`.  Where the device computes no checksums, Linux
        6.11 and newer lets a batch pass netfilter with half of one that looks like a whole one.  A
        new port is put into it there, and again where the batch is cut.
        """
        self._opened: list[OuterSocket] = []
        self.told: tuple[Offload, ...] = ()
        try:
            if port is not None:
                _require_free(_family(version), port)
            for index in range(workers):
                self._opened.append(_receiving(version, port, mark, index, workers))
            for _ in range(workers):
                self._opened.append(_sending(version, port, mark))
            if port is not None:
                self.told = self._offloaded(offloads, ports_change)
        except OSError as error:
            self.close()
            where = f"UDP port {port}" if port is not None else "ESP"
            raise DatapathError(f"{where} over IPv{version}: {error.strerror}") from None
        self.opening = tuple(self._opened[:workers])
        self.sealing = tuple(self._opened[workers:])

    def close(self) -> None:
        for each in self._opened:
            each.socket.close()

    def _offloaded(self, wanted: bool, ports_change: bool) -> tuple[Offload, ...]:
        """Turn on what the kernel has for UDP; what is told."""
        if not wanted:
            return Offload(SENDING, SWITCHED_OFF), Offload(RECEIVING, SWITCHED_OFF)
        try:
            for each in self._opened:
                each.socket.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, 0)
                each.segments = not ports_change
            sending = Offload(SENDING, PORTS_CHANGE if ports_change else "")
        except OSError as error:
            sending = Offload(SENDING, f"{error.strerror} (needs Linux 4.18)")
        try:
            for each in self._opened:
                each.socket.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
            receiving = Offload(RECEIVING)
        except OSError as error:
            receiving = Offload(RECEIVING, f"{error.strerror} (needs Linux 5.0)")
        return sending, receiving


class OuterSocket:
    """One socket of one family, as a worker uses it.  ``segments``: UDP_SEGMENT may be used; it
    becomes false if the kernel refuses it on the way."""

    def __init__(
        self,
        outside: socket.socket,
        version: int,
        encapsulated: bool,
        segments: bool = False,
        lost: list[Offload] | None = None,
    ) -> None:
        """``lost`` is where it says so then."""
        self.socket = outside
        self.version = version
        self.encapsulated = encapsulated
        self.segments = segments
        self._lost = lost
        self._checksum = version == 4 and encapsulated  # whether it can be left out
        self._summed: bool | None = None
        self._class: int | None = None
        self._dont_fragment: bool | None = None
        name, control = (16, _PKTINFO.size) if version == 4 else (28, _PKTINFO6.size)
        self._batch = MessageBatch(name, socket.CMSG_SPACE(control))

    @classmethod
    def adopt(cls, handle: Handle, lost: list[Offload] | None = None) -> OuterSocket:
        """A socket that the control process opened."""
        descriptor, version, encapsulated, segments = handle
        return cls(socket.socket(fileno=descriptor), version, encapsulated, segments, lost)

    @property
    def handle(self) -> Handle:
        return Handle(self.socket.fileno(), self.version, self.encapsulated, self.segments)

    def way(self, source: IPAddress, destination: IPAddress, port: int) -> Way:
        """``port`` 0 for plain ESP."""
        from_ = source_of(source)
        [(level, kind, value)] = from_
        control = _CMSG.pack(socket.CMSG_LEN(len(value)), level, kind) + value
        octets = port.to_bytes(2, "big")
        if destination.version == 4:
            name = _NAME.pack(socket.AF_INET, octets, destination.packed)
        else:
            name = _NAME6.pack(socket.AF_INET6, octets, destination.packed)
        control += bytes(socket.CMSG_SPACE(len(value)) - len(control))
        return Way(self, from_, (str(destination), port), name, control)

    def forget_options(self) -> None:
        """Somebody else sent through this socket."""
        self._summed = self._class = self._dont_fragment = None

    def send(
        self,
        payload: Buffer,
        from_: Ancillary,
        to: tuple[str, int],
        traffic_class: int,
        dont_fragment: bool,
    ) -> None:
        """Send one datagram; ``from_`` comes from ``source_of``.  Raises OSError."""
        self._prepare(traffic_class, dont_fragment)
        self.socket.sendmsg((payload,), from_, 0, to)

    def send_run(self, run: Run, way: Way) -> Sent:
        """All packets of a run with as few system calls as the kernel has.  Does not raise."""
        packets, size = run.packets, run.size
        single = len(packets) <= size
        try:
            self._prepare(run.traffic_class, run.dont_fragment)
            if single:
                self.socket.sendmsg((packets,), way.from_, 0, way.to)
                return _ONE_SENT
            if self.segments and self._send_segmented(packets, size, way):
                return Sent(run.count, 0)
        except OSError as error:
            return Sent(0, _QUEUE_FULL.get(error.errno or errno.EIO, error.errno or errno.EIO))
        sent, number = self._batch.send(self.socket.fileno(), packets, size, way.name, way.control)
        return Sent(sent, _QUEUE_FULL.get(number, number))

    def _send_segmented(self, packets: Buffer, size: int, way: Way) -> bool:
        """Leave the cutting to the kernel; whether it did it.  Raises OSError."""
        item = (socket.IPPROTO_UDP, _UDP_SEGMENT, _SIZE.pack(size))
        try:
            self.socket.sendmsg((packets,), (*way.from_, item), 0, way.to)
        except OSError as error:
            if error.errno in (errno.EMSGSIZE, errno.EINVAL):
                return False  # for this path: maybe it got narrower, which each packet will tell
            if error.errno in (errno.EIO, errno.EOPNOTSUPP):
                self.segments = False  # as where a transform of the kernel's own comes behind
                if self._lost is not None:
                    self._lost.append(Offload(SENDING, refused_running(error)))
                return False
            raise
        return True

    def _prepare(self, traffic_class: int, dont_fragment: bool) -> None:
        """Most packets have the options of the one before: no system call for them.

        ESP in UDP over IPv4 goes without a checksum (RFC 3948 section 2.1), but the kernel
        segments nothing that has none.  Then all have one: where a receiver's kernel joins packets,
        one without overtakes those before it, which wait for the end of its batch.
        """
        options = self.socket.setsockopt
        if traffic_class != self._class:
            if self.version == 4:
                options(socket.IPPROTO_IP, socket.IP_TOS, traffic_class)
            else:
                options(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, traffic_class)
            self._class = traffic_class
        if dont_fragment != self._dont_fragment:
            discover = _PMTUDISC_DO if dont_fragment else PMTUDISC_DONT
            if self.version == 4:
                options(socket.IPPROTO_IP, IP_MTU_DISCOVER, discover)
            else:
                options(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, discover)
            self._dont_fragment = dont_fragment
        if self._checksum and self.segments != self._summed:
            self._summed = self.segments
            options(socket.SOL_SOCKET, _SO_NO_CHECK, not self._summed)


def _family(version: int) -> int:
    return socket.AF_INET if version == 4 else socket.AF_INET6


def _opened(version: int, port: int | None, mark: int) -> socket.socket:
    """Raises OSError, as all that follow."""
    kind = socket.SOCK_RAW if port is None else socket.SOCK_DGRAM
    outside = socket.socket(_family(version), kind, ESP if port is None else 0)
    try:
        outside.setblocking(False)
        outside.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("=I", mark))
        if port is not None:
            outside.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if version == 6:
                outside.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    except OSError:
        outside.close()
        raise
    return outside


def _receiving(version: int, port: int | None, mark: int, index: int, workers: int) -> OuterSocket:
    """That of the opening worker ``index``."""
    outside = _opened(version, port, mark)
    try:
        _set_buffer(outside, _SO_RCVBUFFORCE, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        if version == 6:
            outside.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            outside.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
        elif port is not None:  # a raw socket of IPv4 gives the header
            outside.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
            outside.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        if port is not None:
            if index == 0:  # behind the workers that open come those that seal, then the keying
                attach(outside, SO_ATTACH_REUSEPORT, by_marker(version, workers, 2 * workers))
            outside.bind(("", port))
        elif workers > 1:
            attach(outside, SO_ATTACH_FILTER, by_sender(version, index, workers))
    except OSError:
        outside.close()
        raise
    return OuterSocket(outside, version, port is not None)


def _sending(version: int, port: int | None, mark: int) -> OuterSocket:
    """That of a sealing worker."""
    outside = _opened(version, port, mark)
    try:
        _set_buffer(outside, _SO_SNDBUFFORCE, socket.SO_SNDBUF, _SEND_BUFFER)
        attach(outside, SO_ATTACH_FILTER, nothing())
        # A raw socket that is bound to this host's own address is not even asked about the
        # packets of others.  What it sends has a source of its own all the same (`source_of`).
        loopback = "127.0.0.1" if version == 4 else "::1"
        if port is None:  # whether there is such an address or not: the loopback may be down
            level, option = (
                (socket.IPPROTO_IP, _IP_FREEBIND)
                if version == 4
                else (socket.IPPROTO_IPV6, _IPV6_FREEBIND)
            )
            outside.setsockopt(level, option, 1)
        outside.bind(("", port) if port is not None else (loopback, 0))
    except OSError:
        outside.close()
        raise
    return OuterSocket(outside, version, port is not None)


def _set_buffer(outside: socket.socket, force: int, plain: int, octets: int) -> None:
    try:
        outside.setsockopt(socket.SOL_SOCKET, force, octets)
    except PermissionError:  # in a user namespace: as much as is allowed
        outside.setsockopt(socket.SOL_SOCKET, plain, octets)


def _require_free(family: int, port: int) -> None:
    """Raises OSError if another process has the port: shared ports would let us bind beside it."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        probe.bind(("", port))


def source_of(address: IPAddress) -> Ancillary:
    """The ancillary item that makes ``address`` the source."""
    if isinstance(address, IPv4Address):
        info = _PKTINFO.pack(0, address.packed, bytes(4))
        return [(socket.IPPROTO_IP, IP_PKTINFO, info)]
    return [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, _PKTINFO6.pack(address.packed, 0))]


def destination_of(ancillary: Ancillary) -> bytes:
    """Where a datagram was sent to, packed; empty if the kernel did not say."""
    for level, kind, value in ancillary:
        if (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO):
            return value[8:12]
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
            return value[:16]
    return b""


def joined_size(ancillary: Ancillary) -> int:
    """The octets of each datagram but the last, where the kernel joined several; else 0."""
    for level, kind, value in ancillary:
        if (level, kind) == (socket.IPPROTO_UDP, UDP_GRO):
            return _INT.unpack_from(value)[0]  # type: ignore[no-any-return]
    return 0


class IcmpSocket:
    """Sends ICMP errors of one family; the kernel chooses their source.  Raises DatapathError."""

    def __init__(self, version: int, mark: int) -> None:
        self._family = socket.AF_INET if version == 4 else socket.AF_INET6
        protocol = ICMP if version == 4 else ICMPV6
        try:
            self.socket = socket.socket(self._family, socket.SOCK_RAW, protocol)
        except OSError as error:
            raise DatapathError(f"ICMP over IPv{version}: {error.strerror}") from None
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("=I", mark))
        # It only sends: every type is filtered, so that nothing is queued for it.
        if version == 4:
            self.socket.setsockopt(_SOL_RAW, _ICMP_FILTER, b"\xff" * 4)
        else:
            self.socket.setsockopt(socket.IPPROTO_ICMPV6, _ICMPV6_FILTER, b"\xff" * 32)

    def send(self, destination: bytes, message: bytes) -> None:
        """Raises OSError."""
        self.socket.sendto(message, (socket.inet_ntop(self._family, destination), 0))


class PathProbe:
    """What the kernel knows of paths: the MTU of the interface, or less if a router said so.

    One socket for all questions: to mark another takes rights that its process gives up.  Raises
    DatapathError.
    """

    def __init__(self, version: int, mark: int) -> None:
        self._version = version
        try:
            self._socket = socket.socket(_family(version), socket.SOCK_DGRAM)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("=I", mark))
        except OSError as error:
            raise DatapathError(f"path MTU over IPv{version}: {error.strerror}") from None

    def mtu(self, source: IPAddress, destination: IPAddress) -> int | None:
        """None if there is no route."""
        # Without a peer, and so without a port, it can be bound again.
        _LIBC.connect(self._socket.fileno(), _UNSPECIFIED, len(_UNSPECIFIED))
        with contextlib.suppress(OSError):
            self._socket.bind((str(source), 0))
            self._socket.connect((str(destination), _DISCARD_PORT))
            if self._version == 6:
                return self._socket.getsockopt(socket.IPPROTO_IPV6, _IPV6_MTU)
            return self._socket.getsockopt(socket.IPPROTO_IP, _IP_MTU)
        return None
