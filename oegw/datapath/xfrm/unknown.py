"""Who sends ESP that the kernel has no SA for?

XFRM tells nobody: it only counts (XfrmInNoStates).  So the counter is read each second, and while
it grows, the headers of incoming ESP, and of what comes to the port of ESP in UDP, are looked at
for a second: raw sockets see it beside XFRM.  A classic BPF filter leaves them a few tens of octets
of each packet.  Their SPIs are compared with those of our SAs.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address

from oegw.bpf.classic import (
    HEADER_LENGTH,
    JUMP_IF_EQUAL,
    LOAD_HALF,
    LOAD_HALF_INDEXED,
    RETURN,
    SO_ATTACH_FILTER,
    Instruction,
    attach,
)
from oegw.datapath.interface import IPAddress, UnknownSpiReceived
from oegw.datapath.xfrm.statistics import xfrm_statistics

# Specification values.
_ESP = 50  # IANA
_LOWEST_SPI = 256  # RFC 4303 section 2.1
_UDP_HEADER = 8
_NON_ESP_MARKER = 0  # RFC 3948 section 2.2

# Our choices.
_LOOK = 1.0  # seconds between two readings of the counter, and the length of a sample
_PAUSE = 4.0  # seconds after a sample
_HEADERS = 76  # octets of a packet: the longest IPv4 header, UDP, SPI and sequence number
_PACKETS_PER_TURN = 64
_PACKETS = 20_000  # in a sample: a flood must not cost more
_PEERS = 64  # reported after a sample
_TRIGGER = "drop_in_unknown_spi"


def esp_filter() -> list[Instruction]:
    """Takes everything, cut short."""
    return [(RETURN, 0, 0, _HEADERS)]


def udp_filter(version: int, port: int) -> list[Instruction]:
    """Takes what goes to ``port``, cut short.

    A raw socket of IPv4 sees the packet from its IP header on, one of IPv6 from the UDP header.
    """
    take = [(JUMP_IF_EQUAL, 0, 1, port), (RETURN, 0, 0, _HEADERS), (RETURN, 0, 0, 0)]
    if version == 4:
        return [(HEADER_LENGTH, 0, 0, 0), (LOAD_HALF_INDEXED, 0, 0, 2), *take]
    return [(LOAD_HALF, 0, 0, 2), *take]


def spi_of(packet: bytes, version: int, udp: bool) -> int | None:
    """The SPI of what a raw socket has read; None for what is no ESP."""
    at = (packet[0] & 0xF) * 4 if version == 4 and packet else 0
    at += _UDP_HEADER if udp else 0
    if len(packet) < at + 8:  # SPI and sequence number; a keepalive has less
        return None
    (spi,) = struct.unpack_from("!I", packet, at)
    return None if spi == _NON_ESP_MARKER or spi < _LOWEST_SPI else spi


@dataclass(frozen=True, slots=True)
class _Listening:
    """A raw socket that is being sampled."""

    socket: socket.socket
    version: int
    udp: bool


class UnknownSpis:
    """Reports each peer at most once in a sample.

    ``port`` is that of ESP in UDP, or None; ``known`` says whether we have an inbound SA.
    """

    def __init__(
        self,
        port: int | None,
        known: Callable[[IPAddress, int], bool],
        listener: Callable[[UnknownSpiReceived], None],
        statistics: Callable[[], dict[str, int]] = xfrm_statistics,
    ) -> None:
        self._port = port
        self._known = known
        self._listener = listener
        self._statistics = statistics
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._count = 0
        self._listening: list[_Listening] = []
        self._left = 0
        self._reported: set[IPAddress] = set()

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._count = self._statistics().get(_TRIGGER, 0)
        self._timer = loop.call_later(_LOOK, self._look)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._stop_listening()
        self._loop = None

    def _look(self) -> None:
        assert self._loop is not None
        count = self._statistics().get(_TRIGGER, 0)
        grown, self._count = count > self._count, count
        if grown:
            self._listen(self._loop)
        self._timer = self._loop.call_later(_LOOK, self._sampled if grown else self._look)

    def _sampled(self) -> None:
        assert self._loop is not None
        self._stop_listening()
        self._timer = self._loop.call_later(_PAUSE, self._look)

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        self._left = _PACKETS
        self._reported.clear()
        for version in (4, 6):
            for udp in (False, True):
                if udp and self._port is None:
                    continue
                # Where a family, or the right to a raw socket, is missing, nothing is seen.
                with suppress(OSError):
                    listening = _Listening(self._raw(version, udp), version, udp)
                    self._listening.append(listening)
                    loop.add_reader(listening.socket, self._read, listening)

    def _raw(self, version: int, udp: bool) -> socket.socket:
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        protocol = socket.IPPROTO_UDP if udp else _ESP
        raw = socket.socket(family, socket.SOCK_RAW, protocol)
        try:
            raw.setblocking(False)
            program = udp_filter(version, self._port or 0) if udp else esp_filter()
            attach(raw, SO_ATTACH_FILTER, program)
            if version == 6:
                raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        except OSError:
            raw.close()
            raise
        return raw

    def _stop_listening(self) -> None:
        for listening in self._listening:
            if self._loop is not None:
                self._loop.remove_reader(listening.socket)
            listening.socket.close()
        self._listening.clear()

    def _read(self, listening: _Listening) -> None:
        for _ in range(_PACKETS_PER_TURN):
            try:
                packet, ancillary, _, address = listening.socket.recvmsg(_HEADERS, 128)
            except OSError:  # nothing more is there
                return
            self._left -= 1
            self._judge(packet, ancillary, address[0], listening)
            if self._left <= 0 or len(self._reported) >= _PEERS:
                self._stop_listening()
                return

    def _judge(
        self,
        packet: bytes,
        ancillary: list[tuple[int, int, bytes]],
        address: str,
        listening: _Listening,
    ) -> None:
        spi = spi_of(packet, listening.version, listening.udp)
        destination = _destination(packet, ancillary, listening.version)
        if spi is None or destination is None or self._known(destination, spi):
            return
        source = ip_address(address.partition("%")[0])
        if source not in self._reported:
            self._reported.add(source)
            self._listener(UnknownSpiReceived(source, destination, spi))


def _destination(
    packet: bytes, ancillary: list[tuple[int, int, bytes]], version: int
) -> IPAddress | None:
    if version == 4:
        return ip_address(packet[16:20])
    for level, kind, value in ancillary:
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
            return ip_address(value[:16])
    return None
