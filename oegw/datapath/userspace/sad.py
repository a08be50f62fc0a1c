"""The SA tables: inbound by SPI and destination, outbound by selectors."""

from __future__ import annotations

from oegw.datapath.interface import SaKey
from oegw.datapath.userspace.esp import InboundSa, OutboundSa
from oegw.datapath.userspace.selectors import address_pair
from oegw.packet.ip import Layout

_Shape = tuple[int, int, int]
"""``(version, source prefix, destination prefix)``: all selectors of a shape share one mask."""


def _specificity(entry: tuple[int, OutboundSa]) -> tuple[bool, int, int]:
    serial, sa = entry
    selectors = sa.selectors
    ports = bool(selectors.source_port) + bool(selectors.destination_port)
    return bool(selectors.protocol), ports, serial


class _Outbound:
    """Outbound SAs by their selectors."""

    def __init__(self) -> None:
        self._host_pairs: dict[bytes, list[tuple[int, OutboundSa]]] = {}
        self._prefixes: dict[_Shape, dict[int, list[tuple[int, OutboundSa]]]] = {}
        self._shapes: list[tuple[_Shape, int]] = []  # with their masks, longest first

    def add(self, serial: int, sa: OutboundSa) -> None:
        entries = self._entries(sa)
        entries.append((serial, sa))
        entries.sort(key=_specificity, reverse=True)

    def remove(self, sa: OutboundSa) -> None:
        entries = self._entries(sa)
        entries[:] = [entry for entry in entries if entry[1] is not sa]
        if not entries:
            self._forget(sa)

    def find(self, packet: bytes, layout: Layout) -> OutboundSa | None:
        """The SA that carries ``packet``."""
        if not self._host_pairs and not self._shapes:
            return None
        version = layout[0]
        pair = address_pair(packet, version)
        for _, sa in self._host_pairs.get(pair, ()):
            if sa.selectors.match_upper_layer(layout):
                return sa
        if self._shapes:
            addresses = int.from_bytes(pair, "big")
            for shape, mask in self._shapes:
                if shape[0] != version:
                    continue
                for _, sa in self._prefixes[shape].get(addresses & mask, ()):
                    if sa.selectors.match_upper_layer(layout):
                        return sa
        return None

    def _entries(self, sa: OutboundSa) -> list[tuple[int, OutboundSa]]:
        """The list in which ``sa`` stands, made if need be."""
        selectors = sa.selectors
        shape = (selectors.version, *selectors.prefixes)
        if self._is_host_pair(sa):
            return self._host_pairs.setdefault(self._packed_pair(sa), [])
        if shape not in self._prefixes:
            self._prefixes[shape] = {}
            self._shapes.append((shape, selectors.mask))
            self._shapes.sort(key=lambda item: (item[0][2], item[0][1]), reverse=True)
        return self._prefixes[shape].setdefault(selectors.pair, [])

    def _forget(self, sa: OutboundSa) -> None:
        """Remove the empty list in which ``sa`` stood."""
        selectors = sa.selectors
        if self._is_host_pair(sa):
            del self._host_pairs[self._packed_pair(sa)]
            return
        shape = (selectors.version, *selectors.prefixes)
        del self._prefixes[shape][selectors.pair]
        if not self._prefixes[shape]:
            del self._prefixes[shape]
            self._shapes.remove((shape, selectors.mask))

    @staticmethod
    def _is_host_pair(sa: OutboundSa) -> bool:
        bits = 32 if sa.selectors.version == 4 else 128
        return sa.selectors.prefixes == (bits, bits)

    @staticmethod
    def _packed_pair(sa: OutboundSa) -> bytes:
        return sa.selectors.pair.to_bytes(8 if sa.selectors.version == 4 else 32, "big")


class InboundSas:
    """Inbound SAs: by SPI and our address, wherever the packet came from."""

    def __init__(self) -> None:
        self._sas: dict[tuple[int, bytes], InboundSa] = {}

    def add(self, sa: InboundSa) -> None:
        """Add an SA whose key is not in the table."""
        self._sas[sa.key.spi, sa.key.destination.packed] = sa

    def remove(self, key: SaKey) -> InboundSa | None:
        """The SA that was removed, or None."""
        return self._sas.pop((key.spi, key.destination.packed), None)

    def rename(self, key: SaKey, sa: InboundSa) -> None:
        """``sa`` stood under ``key``, and has another by now, which is not in the table."""
        del self._sas[key.spi, key.destination.packed]
        self.add(sa)

    def find(self, key: SaKey) -> InboundSa | None:
        return self._sas.get((key.spi, key.destination.packed))

    def of_packet(self, spi: int, destination: bytes) -> InboundSa | None:
        """The SA of an ESP packet that came to the address ``destination`` (packed)."""
        return self._sas.get((spi, destination))


class OutboundSas:
    """Outbound SAs.  Of several that fit a packet, those of configured tunnels come first.
    Of several such, the one with the longest prefixes sends (destination first), then the one
    that names a protocol and ports, then the newest, or the one preferred since: a replacement
    takes over while the old SA is still installed."""

    def __init__(self) -> None:
        self._sas: dict[SaKey, OutboundSa] = {}
        self._configured = _Outbound()
        self._opportunistic = _Outbound()
        self._serial = 0

    def add(self, sa: OutboundSa) -> None:
        """Add an SA whose key is not in the table."""
        self._sas[sa.key] = sa
        self._serial += 1
        self._kin(sa).add(self._serial, sa)

    def remove(self, key: SaKey) -> OutboundSa | None:
        """The SA that was removed, or None."""
        sa = self._sas.pop(key, None)
        if sa is not None:
            self._kin(sa).remove(sa)
        return sa

    def prefer(self, sa: OutboundSa) -> None:
        """Of those with the selectors of ``sa``, it sends from now on, as if it were the newest."""
        kin = self._kin(sa)
        kin.remove(sa)
        self._serial += 1
        kin.add(self._serial, sa)

    def rename(self, key: SaKey, sa: OutboundSa) -> None:
        """``sa`` stood under ``key``, and has another by now, which is not in the table.

        Its place among those of the same selectors stays."""
        del self._sas[key]
        self._sas[sa.key] = sa

    def find(self, key: SaKey) -> OutboundSa | None:
        return self._sas.get(key)

    def of_packet(self, packet: bytes, layout: Layout) -> OutboundSa | None:
        """The SA that carries ``packet``."""
        return self._configured.find(packet, layout) or self._opportunistic.find(packet, layout)

    def _kin(self, sa: OutboundSa) -> _Outbound:
        return self._configured if sa.sa.configured else self._opportunistic
