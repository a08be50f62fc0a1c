"""One ESP SA at work (RFC 4303, tunnel mode): sequence numbers, padding, limits, counters."""

from __future__ import annotations

from struct import Struct
from typing import Any

from oegw.datapath.interface import SaKey, SecurityAssociation, Usage
from oegw.datapath.userspace.record import EXPIRED, SOFTENED, Record, private_record
from oegw.datapath.userspace.replay import ReplayWindow
from oegw.datapath.userspace.selectors import InnerSelectors
from oegw.datapath.userspace.transform import (
    ESP_HEADER,
    AuthenticationError,
    Random,
    Transform,
    transform_of,
)
from oegw.packet.ip import IPV4, IPV4_HEADER, IPV6, IPV6_HEADER, Buffer

# Specification values (RFC 4303 section 2).
TRAILER = 2  # pad length and next header
_PADDING = bytes(range(1, 256))
_UDP_HEADER = 8
LAST_SEQUENCE = 2**32 - 1
LAST_EXTENDED_SEQUENCE = 2**64 - 1

# Our choice: the replacement is asked for when 1/16 of the sequence numbers is left.
# Without extended numbers these are 2^28: over four minutes at a million packets a second.
_SEQUENCE_MARGIN = 16
_PEER_INTERVAL = 1.0  # seconds between two reports that a peer is elsewhere

_LOW = 0xFFFFFFFF
_HEADER = Struct("!II")
_HIGH = Struct("!I")

PADDINGS = tuple(_PADDING[:count] for count in range(256))
TRAILERS = {
    next_header: tuple(_PADDING[:count] + bytes((count, next_header)) for count in range(16))
    for next_header in (IPV4, IPV6)
}


Peer = tuple[bytes, int]
"""Packed address and UDP port."""


class ReplayError(Exception):
    """The sequence number was seen before, or is too old."""


def _peer_of(sa: SecurityAssociation) -> Peer:
    return sa.source.packed, sa.encapsulation.source_port if sa.encapsulation else 0


class _Sa:
    """What both directions share: counters, limits, sizes."""

    __slots__ = (
        "_fixed",
        "core",
        "extended",
        "hard_at",
        "hard_bytes",
        "key",
        "record",
        "sa",
        "selectors",
        "soft_bytes",
        "transform",
    )

    def __init__(self, sa: SecurityAssociation, random: Random, record: Record) -> None:
        self.sa = sa
        self.record = record  # outlives this process
        self.core: Any = None  # the hot loop's own; not looked at here
        self.key: SaKey = sa.key
        self.selectors = InnerSelectors(sa.source_selector, sa.destination_selector)
        self.transform: Transform = transform_of(sa, random)
        self.extended = sa.extended_sequence_numbers
        self.soft_bytes = sa.soft_bytes
        self.hard_bytes = sa.hard_bytes
        self.hard_at: float | None = None  # a time, as the engine counts from the installation
        self._fixed = self._overhead()

    @property
    def usage(self) -> Usage:
        _, packets, octets, used = self.record.used
        return Usage(packets, octets, used / 1e9 if used else None)

    @property
    def bytes(self) -> int:
        """Octets of plaintext, as the limits count them."""
        return self.record.used[2]

    @property
    def softened(self) -> bool:
        return self.record.flag(SOFTENED)

    @property
    def expired(self) -> bool:
        """Whether a hard limit was passed, whoever saw it: it carries nothing more."""
        return self.record.flag(EXPIRED)

    def soften(self) -> bool:
        """The replacement is asked for.  Whether it was not before."""
        return self.record.set_flag(SOFTENED)

    def expire(self) -> bool:
        """Nothing is carried from now on.  Whether something was before."""
        return self.record.set_flag(EXPIRED)

    def move(self, sa: SecurityAssociation) -> None:
        """Go on as ``sa``, which differs in outer addresses and encapsulation only."""
        self.sa = sa
        self.key = sa.key
        self._fixed = self._overhead()

    def inner_mtu(self, path_mtu: int) -> int:
        """The largest inner packet whose outer packet has at most ``path_mtu`` octets."""
        block = self.transform.block
        return max((path_mtu - self._fixed) // block * block - TRAILER, 0)

    def would_exceed(self, size: int) -> bool:
        """Whether ``size`` more octets of plaintext pass the hard limit."""
        return self.hard_bytes is not None and self.bytes + size > self.hard_bytes

    def _overhead(self) -> int:
        """Octets before and behind the encrypted part."""
        outer = IPV4_HEADER if self.sa.destination.version == 4 else IPV6_HEADER
        udp = _UDP_HEADER if self.sa.encapsulation else 0
        return outer + udp + ESP_HEADER + self.transform.iv + self.transform.icv


class OutboundSa(_Sa):
    """Seals packets.  ``mtu`` is the largest inner packet at present, valid until ``mtu_until``.

    ``dont_fragment[inner]`` is the outer header's DF for that of the inner header.
    """

    __slots__ = ("_soft", "dont_fragment", "last", "mtu", "mtu_until", "way")

    def __init__(
        self, sa: SecurityAssociation, random: Random, record: Record | None = None
    ) -> None:
        """``record``: None for tests, then it is a private one."""
        super().__init__(sa, random, record or private_record())
        self.last = LAST_EXTENDED_SEQUENCE if self.extended else LAST_SEQUENCE
        self._soft = self.last - self.last // _SEQUENCE_MARGIN
        self.mtu = 0
        self.mtu_until = 0.0
        self.dont_fragment = (False, True)
        self.way: Any = None  # how the shell sends; not looked at here

    def move(self, sa: SecurityAssociation) -> None:
        super().move(sa)
        self.way = None

    @property
    def sequence(self) -> int:
        """The last number taken."""
        return self.record.sequence

    @sequence.setter
    def sequence(self, value: int) -> None:
        self.record.sequence = value

    @property
    def exhausted(self) -> bool:
        """Whether no sequence number is left (RFC 4303 section 3.3.3: never cycle)."""
        return self.record.sequence >= self.last

    @property
    def wants_replacement(self) -> bool:
        """Whether a soft limit is reached."""
        sequence, _, octets, _ = self.record.used
        return sequence >= self._soft or (self.soft_bytes is not None and octets >= self.soft_bytes)

    def take(self, count: int, octets: int, now: float) -> int | None:
        """The first of ``count`` sequence numbers that are the caller's alone from now on, for
        packets of ``octets`` octets of plaintext in all.

        None if the SA is expired, there are not so many numbers, or these octets pass the hard
        limit; then nothing was taken.
        """
        record = self.record
        if record.flag(EXPIRED) or (self.hard_bytes is not None and self.would_exceed(octets)):
            return None
        return record.take(count, octets, now, self.last)

    def seal(self, packet: bytes, next_header: int, now: float = 0.0) -> bytes | None:
        """The ESP packet that carries ``packet``, which is counted; None if `take` gives none."""
        sequence = self.take(1, len(packet), now)
        if sequence is None:
            return None
        count = -(len(packet) + TRAILER) % self.transform.block
        return self.transform.seal(
            _HEADER.pack(self.sa.spi, sequence & _LOW),
            _HIGH.pack(sequence >> 32) if self.extended else b"",
            packet + TRAILERS[next_header][count],
        )


class InboundSa(_Sa):
    """Opens packets.  ``peer`` is the address and UDP port that they are expected from."""

    __slots__ = ("_reported", "_reported_at", "peer", "window")

    def __init__(
        self, sa: SecurityAssociation, random: Random, record: Record | None = None
    ) -> None:
        """``record``: None for tests, then it is a private one."""
        super().__init__(sa, random, record or private_record(sa.replay_window))
        self.window = ReplayWindow(self.record, sa.replay_window, self.extended)
        self.peer = _peer_of(sa)
        self._reported: Peer | None = None
        self._reported_at = -_PEER_INTERVAL

    def move(self, sa: SecurityAssociation) -> None:
        super().move(sa)
        self.peer = _peer_of(sa)
        self._reported = None

    def newest(self, low: int) -> bool:
        """Whether the packet opened last, which showed the 32 bits ``low``, is the newest of
        all: one that was delayed says where the peer was, not where it is."""
        return self.window.top & _LOW == low  # within the window the low bits tell all

    def peer_changed(self, peer: Peer, now: float) -> bool:
        """Whether to report that the newest packet came from ``peer``: each change once, and
        at most one in a second."""
        if peer == self.peer:
            self._reported = None
            return False
        if peer == self._reported or now < self._reported_at + _PEER_INTERVAL:
            return False
        self._reported = peer
        self._reported_at = now
        return True

    @property
    def wants_replacement(self) -> bool:
        return self.soft_bytes is not None and self.bytes >= self.soft_bytes

    def count(self, octets: int, now: float) -> None:
        """One packet was received."""
        self.record.count(1, octets, now)

    def open(self, packet: Buffer, low: int) -> tuple[int, bytes]:
        """Next header and payload of an ESP packet with the sequence number ``low``.

        The payload may end with traffic flow confidentiality padding (RFC 4303 section 2.7).
        The window moves once the packet is authentic.  Raises ReplayError, AuthenticationError.
        """
        window = self.window
        sequence = window.candidate(low)
        if not window.fresh(sequence):
            raise ReplayError
        high = _HIGH.pack(sequence >> 32) if self.extended else b""
        plain = self.transform.open(packet, high)
        window.accept(sequence)
        count = plain[-2]
        end = len(plain) - TRAILER - count
        # A default scheme of padding must be checked (RFC 4303 section 2.4), and says no more
        # than a wrong ICV does.
        if end < 0 or (count and plain[end:-2] != PADDINGS[count]):
            raise AuthenticationError
        return plain[-1], plain[:end]
