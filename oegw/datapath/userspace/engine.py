"""The sans-IO engine: packets and the time in, actions out.

Outbound, the TTL of the inner packet is left alone: the kernel lowered it when it routed the
packet into the tunnel device, and lowers it again on the other side (RFC 4301 section
5.1.2.1 wants one step for each forwarding gateway, and that is what comes out).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from enum import Enum
from ipaddress import ip_address
from struct import Struct
from typing import NamedTuple

from oegw.datapath.checks import LOWEST_SPI, check_sa
from oegw.datapath.interface import (
    DatapathError,
    DatapathEvent,
    Direction,
    IPAddress,
    PeerAddressChanged,
    SaExpired,
    SaKey,
    SecurityAssociation,
    UdpEncapsulation,
    UnknownSpiReceived,
    Usage,
)
from oegw.datapath.userspace.deadlines import Deadlines
from oegw.datapath.userspace.esp import InboundSa, OutboundSa, ReplayError
from oegw.datapath.userspace.sad import SaTable
from oegw.datapath.userspace.transform import ESP_HEADER, AuthenticationError, Random
from oegw.packet.ecn import decapsulated, traffic_class
from oegw.packet.icmp import may_be_answered, too_big
from oegw.packet.ip import IPV4, IPV6, NO_NEXT_HEADER, TCP, Buffer, Layout, PacketError, layout_of
from oegw.packet.transport import clamp_mss

# Specification values.
IPV6_MINIMUM_MTU = 1280  # RFC 8200 section 5
_IPV4_MINIMUM_MTU = 68  # RFC 791
_NEXT_HEADER_VERSION = {IPV4: 4, IPV6: 6}

# Our choices.
PATH_MTU_LIFETIME = 600.0  # seconds; RFC 1191 section 6.3 suggests 10 minutes
_ICMP_PER_SECOND = 100  # RFC 1812 section 4.3.2.8 asks for a limit
_UNKNOWN_SPI_PER_SECOND = 100  # events in all; a flood of forged SPIs must not become one of events

_SPI_AND_SEQUENCE = Struct("!II")


class DontFragment(Enum):
    """What the outer header's DF is (RFC 4301 section 8.1).  Concerns IPv4 in IPv4.

    With CLEAR, packets that are too big for the path are sent in fragments, even where the inner
    packet forbids it.  With SET, those that the inner header allows to be fragmented, are.
    """

    COPY = "copy"
    SET = "set"
    CLEAR = "clear"


class SendEsp(NamedTuple):
    """Send ``payload`` from ``sa.sa.source`` to ``sa.sa.destination``, encapsulated as it says."""

    sa: OutboundSa
    payload: bytes
    traffic_class: int
    dont_fragment: bool


class Deliver(NamedTuple):
    """Hand an inner packet to the network on our side."""

    packet: bytes


class SendIcmp(NamedTuple):
    """Send an ICMP message; the kernel puts the IP header before it and chooses the source."""

    version: int
    destination: bytes  # packed
    message: bytes


class RefreshPathMtu(NamedTuple):
    """Ask for the path MTU of this SA's peer anew, and tell ``set_path_mtu``."""

    sa: OutboundSa


Action = SendEsp | Deliver | SendIcmp | RefreshPathMtu

_NOTHING: list[Action] = []


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """``mtu``: the path MTU, octets, where none was measured."""

    mtu: int = 1500
    dont_fragment: DontFragment = DontFragment.COPY


class Engine:
    """All SAs and what they do to packets.  ``counters`` and ``events`` belong to the shell too:
    it counts what it drops itself, and takes the events out."""

    def __init__(self, settings: EngineSettings, random: Random) -> None:
        self._settings = settings
        self._random = random
        self._sas = SaTable()
        self._path_mtu: dict[IPAddress, int] = {}
        self._peers: dict[IPAddress, set[OutboundSa]] = {}
        self._deadlines: Deadlines[InboundSa | OutboundSa] = Deadlines()
        self.counters: Counter[str] = Counter()
        self.events: list[DatapathEvent] = []
        self._second = 0
        self._icmp_sent = 0
        self._unknown: set[bytes] = set()

    # The control's side.

    def install(self, sa: SecurityAssociation, now: float) -> None:
        """Raises DatapathError; then nothing is installed."""
        check_sa(sa)
        if self._sas.find(sa.key) is not None:
            raise DatapathError(f"SA {sa.spi:#010x}: one with this SPI and destination exists")
        added: InboundSa | OutboundSa
        if sa.direction is Direction.INBOUND:
            added = InboundSa(sa, self._random)
        else:
            added = OutboundSa(sa, self._random)
            self._join(added)
        self._sas.add(added)
        if sa.hard_seconds is not None:
            added.hard_at = now + sa.hard_seconds
        lifetimes = [
            seconds for seconds in (sa.soft_seconds, sa.hard_seconds) if seconds is not None
        ]
        if lifetimes:
            self._deadlines.set(added, now + min(lifetimes))

    def remove(self, key: SaKey) -> Usage | None:
        """The last counters, or None if there was no such SA."""
        sa = self._sas.remove(key)
        if sa is None:
            return None
        self._deadlines.discard(sa)
        if isinstance(sa, OutboundSa):
            self._leave(sa)
        return sa.usage

    def move(
        self,
        key: SaKey,
        source: IPAddress,
        destination: IPAddress,
        encapsulation: UdpEncapsulation | None,
    ) -> SaKey:
        """Other outer addresses and ports for an SA; all else goes on.  Its new key.

        Raises DatapathError; then the SA is as before.
        """
        sa = self._sas.find(key)
        if sa is None:
            raise DatapathError(f"SA {key.spi:#010x}: there is none to move")
        moved = replace(sa.sa, source=source, destination=destination, encapsulation=encapsulation)
        check_sa(moved)
        if moved.key != key and self._sas.find(moved.key) is not None:
            raise DatapathError(f"SA {key.spi:#010x}: one with this SPI and destination exists")
        if isinstance(sa, OutboundSa):
            self._leave(sa)
        sa.move(moved)
        self._sas.rename(key, sa)
        if isinstance(sa, OutboundSa):
            self._join(sa)
        return sa.key

    def prefer(self, key: SaKey) -> None:
        """Of the outbound SAs with the same selectors, this one sends from now on.

        Raises DatapathError; then nothing has changed.
        """
        sa = self._sas.find(key)
        if not isinstance(sa, OutboundSa):
            raise DatapathError(f"SA {key.spi:#010x}: there is none to send by")
        if sa.expired:
            raise DatapathError(f"SA {key.spi:#010x}: it has expired")
        self._sas.prefer(sa)

    def next_deadline(self) -> float | None:
        """When ``expire_due`` has something to do."""
        return self._deadlines.next()

    def expire_due(self, now: float) -> None:
        """Report the SAs whose time is over, or nearly; then the former carry nothing more."""
        for sa in self._deadlines.due(now):
            if sa.hard_at is not None and now >= sa.hard_at:
                self._expire(sa)
                continue
            if not sa.softened:
                self._soften(sa)
            if sa.hard_at is not None:
                self._deadlines.set(sa, sa.hard_at)

    def usage(self) -> dict[SaKey, Usage]:
        return {sa.key: sa.usage for sa in self._sas}

    def set_path_mtu(self, peer: IPAddress, mtu: int, now: float) -> None:
        """The path to ``peer`` takes packets of ``mtu`` octets, outer header included.

        Without an outbound SA to ``peer`` nothing is remembered.
        """
        if peer not in self._peers:
            return
        lowest = _IPV4_MINIMUM_MTU if peer.version == 4 else IPV6_MINIMUM_MTU
        mtu = max(mtu, lowest)
        self._path_mtu[peer] = mtu
        for sa in self._peers[peer]:
            sa.mtu = sa.inner_mtu(mtu)
            sa.mtu_until = now + PATH_MTU_LIFETIME

    # The packets' side.

    def outbound(self, packet: bytes, now: float) -> list[Action]:
        """A packet from our side: sealed by the SA whose selectors it matches, else dropped."""
        counters = self.counters
        try:
            layout = layout_of(packet)
        except PacketError as error:
            counters[f"drop_out_{error.trigger}"] += 1
            return _NOTHING
        sa = self._sas.outbound(packet, layout)
        if sa is None:
            counters["drop_out_no_tunnel"] += 1
            return _NOTHING
        version, length, protocol, offset = layout[:4]
        if len(packet) != length:
            packet = packet[:length]
        mtu = sa.mtu
        inner_forbids = version == 6 or bool(packet[6] & 0x40)
        dont_fragment = self._outer_dont_fragment(inner_forbids, version, sa)
        if length > mtu:
            if version == 6 and mtu < IPV6_MINIMUM_MTU:
                mtu = IPV6_MINIMUM_MTU  # what the sender cannot go below is sent in fragments
            if inner_forbids and dont_fragment and length > mtu:
                return self._too_big(packet, version, mtu, layout, now)
            dont_fragment = False
        if protocol == TCP and not layout[6]:
            packet = clamp_mss(packet, version, offset, mtu)
        sealed = sa.seal(packet, IPV4 if version == 4 else IPV6, now)
        if sealed is None:
            self._expire(sa)
            counters["drop_out_expired"] += 1
            return _NOTHING
        if not sa.softened and sa.wants_replacement:
            self._soften(sa)
        counters["esp_out_packets"] += 1
        counters["esp_out_octets"] += length
        send = SendEsp(sa, sealed, traffic_class(packet), dont_fragment)
        if now >= sa.mtu_until:
            sa.mtu_until = now + PATH_MTU_LIFETIME
            return [RefreshPathMtu(sa), send]
        return [send]

    def inbound(
        self,
        esp: Buffer,
        source: bytes,
        destination: bytes,
        outer_class: int,
        source_port: int | None,
        now: float,
    ) -> list[Action]:
        """An ESP packet from outside; ``source`` and ``destination`` are its packed outer
        addresses, ``outer_class`` its traffic class octet; without UDP, ``source_port`` is None.

        Neither ``source`` nor ``source_port`` has a part in finding the SA: a NAT chooses them.
        """
        counters = self.counters
        if len(esp) < ESP_HEADER:
            counters["drop_in_truncated"] += 1
            return _NOTHING
        spi, sequence = _SPI_AND_SEQUENCE.unpack_from(esp)
        sa = self._sas.inbound(spi, destination)
        if sa is None:
            self._unknown_spi(spi, source, destination, now)
            return _NOTHING
        if (source_port is None) != (sa.sa.encapsulation is None):
            # Agreed was one or the other.  Linux drops these too (XfrmInStateMismatch).
            counters["drop_in_encapsulation"] += 1
            return _NOTHING
        if sa.expired:
            counters["drop_in_expired"] += 1
            return _NOTHING
        try:
            next_header, payload = sa.open(esp, sequence)
        except ReplayError:
            counters["drop_in_replay"] += 1
            return _NOTHING
        except AuthenticationError:
            counters["drop_in_invalid"] += 1
            return _NOTHING
        if sa.would_exceed(len(payload)):
            self._expire(sa)
            counters["drop_in_expired"] += 1
            return _NOTHING
        sa.count(len(payload), now)
        if not sa.softened and sa.wants_replacement:
            self._soften(sa)
        if source_port is not None and sa.newest(sequence):
            peer = source, source_port
            if sa.peer_changed(peer, now):
                self.events.append(PeerAddressChanged(sa.key, ip_address(source), source_port))
        packet = self._decapsulated(sa, next_header, payload, outer_class)
        if packet is None:
            return _NOTHING
        counters["esp_in_packets"] += 1
        counters["esp_in_octets"] += len(packet)
        return [Deliver(packet)]

    # Steps.

    def _join(self, sa: OutboundSa) -> None:
        """Count ``sa`` among those that share the path to its destination."""
        destination = sa.key.destination
        sa.mtu = sa.inner_mtu(self._path_mtu.get(destination, self._settings.mtu))
        sa.mtu_until = 0.0
        self._peers.setdefault(destination, set()).add(sa)

    def _leave(self, sa: OutboundSa) -> None:
        destination = sa.key.destination
        peers = self._peers[destination]
        peers.discard(sa)
        if not peers:
            del self._peers[destination]
            self._path_mtu.pop(destination, None)

    def _decapsulated(
        self, sa: InboundSa, next_header: int, payload: bytes, outer_class: int
    ) -> bytes | None:
        """The inner packet as it is to be delivered; None, counted, if it may not be."""
        counters = self.counters
        if next_header == NO_NEXT_HEADER:
            counters["drop_in_dummy"] += 1  # RFC 4303 section 2.6
            return None
        version = _NEXT_HEADER_VERSION.get(next_header)
        if version is None:
            counters["drop_in_next_header"] += 1
            return None
        try:
            layout = layout_of(payload)
        except PacketError as error:
            counters[f"drop_in_{error.trigger}"] += 1
            return None
        if layout[0] != version:
            counters["drop_in_next_header"] += 1
            return None
        if not sa.selectors.match(payload, layout):
            counters["drop_in_selectors"] += 1
            return None
        packet = decapsulated(payload[: layout[1]], outer_class)
        if packet is None:
            counters["drop_in_congestion"] += 1
            return None
        if layout[2] == TCP and not layout[6]:
            # What the peer's side may be sent has to fit into the tunnel towards the peer.
            mtu = sa.inner_mtu(self._path_mtu.get(sa.sa.source, self._settings.mtu))
            packet = clamp_mss(packet, version, layout[3], mtu)
        return packet

    def _outer_dont_fragment(self, inner_forbids: bool, version: int, sa: OutboundSa) -> bool:
        setting = self._settings.dont_fragment
        if setting is DontFragment.COPY or version == 6 or sa.sa.destination.version == 6:
            return inner_forbids
        return setting is DontFragment.SET

    def _too_big(
        self, packet: bytes, version: int, mtu: int, layout: Layout, now: float
    ) -> list[Action]:
        self.counters["drop_out_too_big"] += 1
        self._tick(now)
        if self._icmp_sent >= _ICMP_PER_SECOND or not may_be_answered(packet, layout):
            self.counters["icmp_suppressed"] += 1
            return _NOTHING
        self._icmp_sent += 1
        self.counters["icmp_too_big"] += 1
        source = packet[12:16] if version == 4 else packet[8:24]
        return [SendIcmp(version, source, too_big(packet, version, mtu))]

    def _unknown_spi(self, spi: int, source: bytes, destination: bytes, now: float) -> None:
        self.counters["drop_in_unknown_spi"] += 1
        if spi < LOWEST_SPI:
            return
        self._tick(now)
        if source in self._unknown or len(self._unknown) >= _UNKNOWN_SPI_PER_SECOND:
            return
        self._unknown.add(source)
        self.events.append(UnknownSpiReceived(ip_address(source), ip_address(destination), spi))

    def _tick(self, now: float) -> None:
        """Start the counts of a second anew."""
        if int(now) != self._second:
            self._second = int(now)
            self._icmp_sent = 0
            self._unknown.clear()

    def _soften(self, sa: InboundSa | OutboundSa) -> None:
        sa.soften()
        self.events.append(SaExpired(sa.key, hard=False))

    def _expire(self, sa: InboundSa | OutboundSa) -> None:
        if sa.expire():
            self.events.append(SaExpired(sa.key, hard=True))
