"""The engine outbound: an inner packet becomes an ESP packet, or is dropped, with all the rules."""

from __future__ import annotations

from dataclasses import replace

from oegw.datapath.interface import (
    DatapathError,
    DatapathEvent,
    IPAddress,
    SaExpired,
    SaKey,
    SecurityAssociation,
    UdpEncapsulation,
)
from oegw.datapath.userspace.engine import (
    IPV6_MINIMUM_MTU,
    NOTHING,
    Action,
    Counters,
    DontFragment,
    EachSecond,
    EngineSettings,
    RefreshPathMtu,
    SendEsp,
    SendIcmp,
    at_least_lowest,
)
from oegw.datapath.userspace.esp import OutboundSa
from oegw.datapath.userspace.record import Record
from oegw.datapath.userspace.sad import OutboundSas
from oegw.datapath.userspace.transform import Random
from oegw.packet.ecn import traffic_class
from oegw.packet.icmp import may_be_answered, too_big
from oegw.packet.ip import IPV4, IPV6, TCP, Layout, PacketError, layout_of
from oegw.packet.transport import clamp_mss

# Our choices.
PATH_MTU_LIFETIME = 600.0  # seconds; RFC 1191 section 6.3 suggests 10 minutes
_ICMP_PER_SECOND = 100  # RFC 1812 section 4.3.2.8 asks for a limit


class OutboundEngine:
    """All outbound SAs and what they do to packets.  ``counters`` and ``events`` belong to the
    shell too: it counts what it drops itself, and takes the events out.

    Whether a request makes sense, the control process has checked (``installed.py``).
    """

    def __init__(self, settings: EngineSettings, random: Random, counters: Counters) -> None:
        self._settings = settings
        self._random = random
        self._sas = OutboundSas()
        self._path_mtu: dict[IPAddress, int] = {}
        self._peers: dict[IPAddress, set[OutboundSa]] = {}
        self.counters = counters
        self.events: list[DatapathEvent] = []
        self._seconds = EachSecond()
        self._icmp_sent = 0

    # The control's side.

    def install(self, sa: SecurityAssociation, record: Record) -> OutboundSa:
        """Raises DatapathError; then nothing is installed."""
        if self._sas.find(sa.key) is not None:
            raise DatapathError(f"SA {sa.spi:#010x}: one with this SPI and destination exists")
        added = OutboundSa(sa, self._random, record)
        added.dont_fragment = (
            self._outer_dont_fragment(False, added),
            self._outer_dont_fragment(True, added),
        )
        self._join(added)
        self._sas.add(added)
        return added

    def remove(self, key: SaKey) -> OutboundSa | None:
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
    ) -> OutboundSa:
        """Other outer addresses and ports for an SA; all else goes on.

        Raises DatapathError; then the SA is as before.
        """
        sa = self._sas.find(key)
        if sa is None:
            raise DatapathError(f"SA {key.spi:#010x}: there is none to move")
        moved = replace(sa.sa, source=source, destination=destination, encapsulation=encapsulation)
        self._leave(sa)
        sa.move(moved)
        sa.dont_fragment = (
            self._outer_dont_fragment(False, sa),
            self._outer_dont_fragment(True, sa),
        )
        self._sas.rename(key, sa)
        self._join(sa)
        return sa

    def prefer(self, key: SaKey) -> None:
        """Of the SAs with the same selectors, this one sends from now on.

        Raises DatapathError; then nothing has changed.
        """
        sa = self._sas.find(key)
        if sa is None:
            raise DatapathError(f"SA {key.spi:#010x}: there is none to send by")
        self._sas.prefer(sa)

    def sends_to(self, peer: IPAddress) -> bool:
        """Whether there is an SA to ``peer``."""
        return peer in self._peers

    def one_for_each_peer(self) -> list[OutboundSa]:
        """One SA to each."""
        return [next(iter(sas)) for sas in self._peers.values()]

    def set_path_mtu(self, peer: IPAddress, mtu: int, now: float) -> set[OutboundSa]:
        """The path to ``peer`` takes packets of ``mtu`` octets, outer header included; the SAs
        whose MTU changed by that.

        Without an SA to ``peer`` nothing is remembered.
        """
        if peer not in self._peers:
            return set()
        mtu = at_least_lowest(peer, mtu)
        self._path_mtu[peer] = mtu
        changed = set()
        for sa in self._peers[peer]:
            before, sa.mtu = sa.mtu, sa.inner_mtu(mtu)
            sa.mtu_until = now + PATH_MTU_LIFETIME
            if sa.mtu != before:
                changed.add(sa)
        return changed

    # The packets' side.

    def outbound(self, packet: bytes, now: float, answers: bool = True) -> list[Action]:
        """A packet from our side: sealed by the SA whose selectors it matches, else dropped.

        ``answers``: its sender may be told that it is too big.
        """
        counters = self.counters
        try:
            layout = layout_of(packet)
        except PacketError as error:
            counters[f"drop_out_{error.trigger}"] += 1
            return NOTHING
        sa = self._sas.of_packet(packet, layout)
        if sa is None:
            counters["drop_out_no_tunnel"] += 1
            return NOTHING
        version, length, protocol, offset = layout[:4]
        if len(packet) != length:
            packet = packet[:length]
        mtu = sa.mtu
        inner_forbids = version == 6 or bool(packet[6] & 0x40)
        dont_fragment = sa.dont_fragment[inner_forbids]
        if length > mtu:
            if version == 6 and mtu < IPV6_MINIMUM_MTU:
                mtu = IPV6_MINIMUM_MTU  # what the sender cannot go below is sent in fragments
            if inner_forbids and dont_fragment and length > mtu:
                return self._too_big(packet, version, mtu, layout, now, answers)
            dont_fragment = False
        if protocol == TCP and not layout[6]:
            packet = clamp_mss(packet, version, offset, mtu)
        sealed = sa.seal(packet, IPV4 if version == 4 else IPV6, now)
        if sealed is None:
            if sa.expire():
                self.events.append(SaExpired(sa.key, hard=True))
            counters["drop_out_expired"] += 1
            return NOTHING
        counters["esp_out_packets"] += 1
        counters["esp_out_octets"] += length
        send = SendEsp(sa, sealed, traffic_class(packet), dont_fragment)
        if self.carried(sa, now):
            return [RefreshPathMtu(sa), send]
        return [send]

    def carried(self, sa: OutboundSa, now: float) -> bool:
        """Packets went by ``sa``, by whichever way; whether its path is to be measured anew."""
        if sa.wants_replacement and sa.soften():
            self.events.append(SaExpired(sa.key, hard=False))
        if now < sa.mtu_until:
            return False
        sa.mtu_until = now + PATH_MTU_LIFETIME
        return True

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

    def _outer_dont_fragment(self, inner_forbids: bool, sa: OutboundSa) -> bool:
        setting = self._settings.dont_fragment
        version = sa.selectors.version
        if setting is DontFragment.COPY or version == 6 or sa.sa.destination.version == 6:
            return inner_forbids
        return setting is DontFragment.SET

    def _too_big(
        self, packet: bytes, version: int, mtu: int, layout: Layout, now: float, answers: bool
    ) -> list[Action]:
        self.counters["drop_out_too_big"] += 1
        if self._seconds.is_new(now):
            self._icmp_sent = 0
        if (
            not answers
            or self._icmp_sent >= _ICMP_PER_SECOND
            or not may_be_answered(packet, layout)
        ):
            self.counters["icmp_suppressed"] += 1
            return NOTHING
        self._icmp_sent += 1
        self.counters["icmp_too_big"] += 1
        source = packet[12:16] if version == 4 else packet[8:24]
        return [SendIcmp(version, source, too_big(packet, version, mtu))]
