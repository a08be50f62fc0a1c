"""The engine inbound: an ESP packet becomes an inner packet, or is dropped, with all the rules."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from struct import Struct

from oegw.datapath.checks import LOWEST_SPI
from oegw.datapath.interface import (
    DatapathError,
    DatapathEvent,
    IPAddress,
    PeerAddressChanged,
    SaExpired,
    SaKey,
    SecurityAssociation,
    UdpEncapsulation,
    UnknownSpiReceived,
)
from oegw.datapath.userspace.engine import (
    NOTHING,
    Action,
    Counters,
    Deliver,
    EachSecond,
    EngineSettings,
    at_least_lowest,
)
from oegw.datapath.userspace.esp import InboundSa, Peer, ReplayError
from oegw.datapath.userspace.record import Record
from oegw.datapath.userspace.sad import InboundSas
from oegw.datapath.userspace.transform import ESP_HEADER, AuthenticationError, Random
from oegw.packet.ecn import decapsulated
from oegw.packet.ip import IPV4, IPV6, NO_NEXT_HEADER, TCP, Buffer, PacketError, layout_of
from oegw.packet.transport import clamp_mss

_NEXT_HEADER_VERSION = {IPV4: 4, IPV6: 6}

# Our choice: events in all; a flood of forged SPIs must not become one of events.
_UNKNOWN_SPI_PER_SECOND = 100

_SPI_AND_SEQUENCE = Struct("!II")


class InboundEngine:
    """All inbound SAs of one worker and what they do to packets.  ``counters`` and ``events``
    belong to the shell too: it counts what it drops itself, and takes the events out.

    Whether a request makes sense, the control process has checked (``installed.py``).
    """

    def __init__(self, settings: EngineSettings, random: Random, counters: Counters) -> None:
        self._settings = settings
        self._random = random
        self._sas = InboundSas()
        self._path_mtu: dict[IPAddress, int] = {}
        self._peers: dict[IPAddress, int] = {}  # how many SAs expect packets from there
        self.counters = counters
        self.events: list[DatapathEvent] = []
        self._seconds = EachSecond()
        self._unknown: set[bytes] = set()

    # The control's side.

    def install(self, sa: SecurityAssociation, record: Record) -> InboundSa:
        """Raises DatapathError; then nothing is installed."""
        if self._sas.find(sa.key) is not None:
            raise DatapathError(f"SA {sa.spi:#010x}: one with this SPI and destination exists")
        added = InboundSa(sa, self._random, record)
        self._sas.add(added)
        self._join(added)
        return added

    def find(self, key: SaKey) -> InboundSa | None:
        return self._sas.find(key)

    def has(self, spi: int, destination: bytes) -> bool:
        """Whether there is an SA for such a packet."""
        return self._sas.of_packet(spi, destination) is not None

    def remove(self, key: SaKey) -> InboundSa | None:
        """The SA that was removed, or None."""
        sa = self._sas.remove(key)
        if sa is not None:
            self._leave(sa)
        return sa

    def move(
        self,
        key: SaKey,
        source: IPAddress,
        destination: IPAddress,
        encapsulation: UdpEncapsulation | None,
    ) -> InboundSa:
        """Other outer addresses and ports for an SA; all else goes on.

        Raises DatapathError; then the SA is as before.
        """
        sa = self._sas.find(key)
        if sa is None:
            raise DatapathError(f"SA {key.spi:#010x}: there is none to move")
        self._leave(sa)
        sa.move(replace(sa.sa, source=source, destination=destination, encapsulation=encapsulation))
        self._sas.rename(key, sa)
        self._join(sa)
        return sa

    def set_path_mtu(self, peer: IPAddress, mtu: int) -> None:
        """The path to ``peer`` takes packets of ``mtu`` octets, outer header included.

        Without an SA from ``peer`` nothing is remembered.
        """
        if peer in self._peers:
            self._path_mtu[peer] = at_least_lowest(peer, mtu)

    # The packets' side.

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
            return NOTHING
        spi, sequence = _SPI_AND_SEQUENCE.unpack_from(esp)
        sa = self._sas.of_packet(spi, destination)
        if sa is None:
            self._unknown_spi(spi, source, destination, now)
            return NOTHING
        if (source_port is None) != (sa.sa.encapsulation is None):
            # Agreed was one or the other.  Linux drops these too (XfrmInStateMismatch).
            counters["drop_in_encapsulation"] += 1
            return NOTHING
        if sa.expired:
            counters["drop_in_expired"] += 1
            return NOTHING
        try:
            next_header, payload = sa.open(esp, sequence)
        except ReplayError:
            counters["drop_in_replay"] += 1
            return NOTHING
        except AuthenticationError:
            counters["drop_in_invalid"] += 1
            return NOTHING
        if sa.would_exceed(len(payload)):
            if sa.expire():
                self.events.append(SaExpired(sa.key, hard=True))
            counters["drop_in_expired"] += 1
            return NOTHING
        sa.count(len(payload), now)
        if sa.wants_replacement and sa.soften():
            self.events.append(SaExpired(sa.key, hard=False))
        if source_port is not None and sa.newest(sequence):
            self.moved(sa, (source, source_port), now)
        return self.checked(sa, next_header, payload, outer_class)

    def moved(self, sa: InboundSa, peer: Peer, now: float) -> None:
        """The newest packet of ``sa`` came from ``peer``."""
        if sa.peer_changed(peer, now):
            self.events.append(PeerAddressChanged(sa.key, ip_address(peer[0]), peer[1]))

    def checked(
        self, sa: InboundSa, next_header: int, payload: Buffer, outer_class: int
    ) -> list[Action]:
        """What ``sa`` carried, opened and counted: delivered if it may be."""
        packet = self._decapsulated(sa, next_header, payload, outer_class)
        if packet is None:
            return NOTHING
        self.counters["esp_in_packets"] += 1
        self.counters["esp_in_octets"] += len(packet)
        return [Deliver(packet)]

    # Steps.

    def _join(self, sa: InboundSa) -> None:
        """Count ``sa`` among those of its peer."""
        self._peers[sa.sa.source] = self._peers.get(sa.sa.source, 0) + 1

    def _leave(self, sa: InboundSa) -> None:
        peer = sa.sa.source
        self._peers[peer] -= 1
        if not self._peers[peer]:
            del self._peers[peer]
            self._path_mtu.pop(peer, None)

    def _decapsulated(
        self, sa: InboundSa, next_header: int, payload: Buffer, outer_class: int
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
        octets = bytes(payload)
        try:
            layout = layout_of(octets)
        except PacketError as error:
            counters[f"drop_in_{error.trigger}"] += 1
            return None
        if layout[0] != version:
            counters["drop_in_next_header"] += 1
            return None
        if not sa.selectors.match(octets, layout):
            counters["drop_in_selectors"] += 1
            return None
        packet = decapsulated(octets[: layout[1]], outer_class)
        if packet is None:
            counters["drop_in_congestion"] += 1
            return None
        if layout[2] == TCP and not layout[6]:
            # What the peer's side may be sent has to fit into the tunnel towards the peer.
            mtu = sa.inner_mtu(self._path_mtu.get(sa.sa.source, self._settings.mtu))
            packet = clamp_mss(packet, version, layout[3], mtu)
        return packet

    def _unknown_spi(self, spi: int, source: bytes, destination: bytes, now: float) -> None:
        self.counters["drop_in_unknown_spi"] += 1
        if spi < LOWEST_SPI:
            return
        if self._seconds.is_new(now):
            self._unknown.clear()
        if source in self._unknown or len(self._unknown) >= _UNKNOWN_SPI_PER_SECOND:
            return
        self._unknown.add(source)
        self.events.append(UnknownSpiReceived(ip_address(source), ip_address(destination), spi))
