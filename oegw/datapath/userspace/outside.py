"""The sockets towards the Internet: ESP itself (raw, protocol 50), ESP in UDP, ICMP errors.

The kernel builds all IP headers.  All sockets carry the gateway's own mark, so that what they
send is not trapped.
"""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from oegw.datapath.interface import DatapathError, IPAddress
from oegw.datapath.userspace.core.interface import Run
from oegw.datapath.userspace.offloads import Offload
from oegw.packet.ip import ESP, ICMP, ICMPV6

# Linux, <linux/in.h>, <linux/in6.h>, <asm/socket.h>, <linux/filter.h>; Python does not name them.
IP_PKTINFO = 8
IP_MTU_DISCOVER = 10
_IP_MTU = 14
IPV6_MTU_DISCOVER = 23
_IPV6_MTU = 24
PMTUDISC_DONT = 0
_PMTUDISC_DO = 2
_SO_NO_CHECK = 11
_SO_ATTACH_REUSEPORT_CBPF = 51
_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33
_SOL_RAW = 255
_ICMP_FILTER = 1
_ICMPV6_FILTER = 1

# Specification values (RFC 3948 sections 2.2 and 2.3).
NON_ESP_MARKER = bytes(4)
KEEPALIVE = b"\xff"

# Our choices.
_BUFFER = 8 * 2**20  # octets: a hundred milliseconds of a gigabit while the worker is busy
_LARGEST = 65536
_DISCARD_PORT = 9

_PKTINFO = struct.Struct("=i4s4s")
_PKTINFO6 = struct.Struct("=16si")
_INT = struct.Struct("=i")
_INSTRUCTION = struct.Struct("=HBBI")
_LOAD_WORD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_WORKER, _CONTROL = 0, 1  # in the order in which the sockets are bound

Ancillary = list[tuple[int, int, bytes]]
Received = Callable[[memoryview, bytes, int, bytes, int], None]
"""Called with payload, packed source, its port, packed destination, traffic class octet."""


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


class Sent(NamedTuple):
    """How many packets of a run the kernel took, and the ``errno`` that stopped it, else 0:
    EAGAIN (the queue is full: the rest is lost), EMSGSIZE (the path got narrower), or another."""

    packets: int
    error: int


class OuterGroup:
    """All sockets for one family, plain or in UDP: the control process opens and keeps them.

    ``opening``: each receives what belongs to that opening worker, SPI modulo ``workers``.
    ``sealing``: each sends, and receives nothing.  With UDP the next socket that is bound to the
    port (`keyingsocket.py`) receives IKE.  Raises DatapathError, and leaves nothing open.
    """

    def __init__(
        self, version: int, port: int | None, mark: int, workers: int = 1, offloads: bool = True
    ) -> None:
        self.opening: tuple[OuterSocket, ...]
        self.sealing: tuple[OuterSocket, ...]
        self.told: tuple[Offload, ...]
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class OuterSocket:
    """One socket of one family.  ``port`` None: raw ESP, else ESP in UDP on that port.

    Raises DatapathError.
    """

    @classmethod
    def adopt(cls, handle: Handle) -> OuterSocket:
        """A socket that the control process opened."""
        raise NotImplementedError

    @property
    def handle(self) -> Handle:
        raise NotImplementedError

    def way(self, source: IPAddress, destination: IPAddress, port: int) -> Way:
        """``port`` 0 for plain ESP."""
        raise NotImplementedError

    def send_run(self, run: Run, way: Way) -> Sent:
        """All packets of a run with as few system calls as the kernel has.  Does not raise."""
        raise NotImplementedError

    def __init__(self, version: int, port: int | None, mark: int) -> None:
        self.version = version
        self.encapsulated = port is not None
        self._buffer = bytearray(_LARGEST)
        self._view = memoryview(self._buffer)
        self._class: int | None = None
        self._dont_fragment: bool | None = None
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        kind = socket.SOCK_RAW if port is None else socket.SOCK_DGRAM
        try:
            self.socket = socket.socket(family, kind, ESP if port is None else 0)
        except OSError as error:
            raise DatapathError(f"ESP over IPv{version}: {error.strerror}") from None
        try:
            self._set_up(mark, port)
        except OSError as error:
            self.socket.close()
            where = f"UDP port {port}" if port is not None else "ESP"
            raise DatapathError(f"{where} over IPv{version}: {error.strerror}") from None

    def _set_up(self, mark: int, port: int | None) -> None:
        outside = self.socket
        outside.setblocking(False)
        outside.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("=I", mark))
        for force, plain in (
            (_SO_RCVBUFFORCE, socket.SO_RCVBUF),
            (_SO_SNDBUFFORCE, socket.SO_SNDBUF),
        ):
            try:
                outside.setsockopt(socket.SOL_SOCKET, force, _BUFFER)
            except PermissionError:  # in a user namespace: as much as is allowed
                outside.setsockopt(socket.SOL_SOCKET, plain, _BUFFER)
        if self.version == 4:
            outside.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
            outside.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
            if port is not None:
                outside.setsockopt(socket.SOL_SOCKET, _SO_NO_CHECK, 1)  # RFC 3948 section 2.1
        else:
            if port is not None:
                outside.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            outside.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            outside.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
        if port is not None:
            _require_free(outside.family, port)
            sort_by_marker(outside)
            outside.bind(("", port))

    def receive(self, deliver: Received) -> None:
        """Take one datagram.  Raises BlockingIOError if there is none, OSError."""
        size, ancillary, _, address = self.socket.recvmsg_into([self._buffer], 128)
        view = self._view
        if self.version == 4 and not self.encapsulated:
            start = (self._buffer[0] & 15) * 4
            deliver(view[start:size], bytes(view[12:16]), 0, bytes(view[16:20]), self._buffer[1])
            return
        destination = b""
        traffic_class = 0
        for level, kind, value in ancillary:
            if level == socket.IPPROTO_IP:
                if kind == IP_PKTINFO:
                    destination = value[8:12]
                elif kind == socket.IP_TOS:
                    traffic_class = value[0]
            elif level == socket.IPPROTO_IPV6:
                if kind == socket.IPV6_PKTINFO:
                    destination = value[:16]
                elif kind == socket.IPV6_TCLASS:
                    traffic_class = _INT.unpack_from(value)[0]
        source = address[0].partition("%")[0]
        family = socket.AF_INET if self.version == 4 else socket.AF_INET6
        packed = socket.inet_pton(family, source)
        deliver(view[:size], packed, address[1], destination, traffic_class)

    def send(
        self,
        payload: bytes,
        from_: Ancillary,
        to: tuple[str, int],
        traffic_class: int,
        dont_fragment: bool,
    ) -> None:
        """Send one datagram; ``from_`` comes from ``source_of``.  Raises OSError."""
        # Most packets have the options of the one before: no system call for them.
        if traffic_class != self._class:
            if self.version == 4:
                self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, traffic_class)
            else:
                self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, traffic_class)
            self._class = traffic_class
        if dont_fragment != self._dont_fragment:
            discover = _PMTUDISC_DO if dont_fragment else PMTUDISC_DONT
            if self.version == 4:
                self.socket.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, discover)
            else:
                self.socket.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, discover)
            self._dont_fragment = dont_fragment
        self.socket.sendmsg((payload,), from_, 0, to)


def sort_by_marker(first: socket.socket) -> None:
    """Have the kernel sort datagrams between ``first``, not bound yet, and one bound later.

    What is too short for a marker goes to ``first``: a filter that reads behind the end says 0.
    Raises OSError.
    """
    program = b"".join(
        _INSTRUCTION.pack(*instruction)
        for instruction in (
            (_LOAD_WORD, 0, 0, 0),
            (_JUMP_IF_EQUAL, 0, 1, int.from_bytes(NON_ESP_MARKER, "big")),
            (_RETURN, 0, 0, _CONTROL),
            (_RETURN, 0, 0, _WORKER),
        )
    )
    octets = ctypes.create_string_buffer(program)
    pointer = struct.pack("@HP", len(program) // _INSTRUCTION.size, ctypes.addressof(octets))
    first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    first.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, pointer)


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


def path_mtu(source: IPAddress, destination: IPAddress, mark: int) -> int | None:
    """What the kernel knows of the path: the MTU of the interface, or less if a router said so.

    None if there is no route.
    """
    version_6 = isinstance(destination, IPv6Address)
    family = socket.AF_INET6 if version_6 else socket.AF_INET
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("=I", mark))
        probe.bind((str(source), 0))
        probe.connect((str(destination), _DISCARD_PORT))
        if version_6:
            return probe.getsockopt(socket.IPPROTO_IPV6, _IPV6_MTU)
        return probe.getsockopt(socket.IPPROTO_IP, _IP_MTU)
    return None
