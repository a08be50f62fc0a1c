"""The hold: packets that wait for a verdict (draft section 4.1, RFC 4322 sections 3.1.1 and 3.1.2).

Only numbers and sizes are kept here; interception keeps the packets.  Two
modes: ``first`` keeps one packet per connection and drops the new one, as the
draft says; ``first+last`` keeps the first (a SYN, most often) and the newest.  Hosts that share a
connection, because they share an address, have places of their own in it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from policy.flow import IPAddress


@dataclass(frozen=True, slots=True)
class HoldSettings:
    """``mode`` is ``"first"`` or ``"first+last"``; the limits are over all connections."""

    mode: str = "first+last"
    packets: int = 1024
    octets: int = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Discard:
    """A packet that lost its place, and the trigger to count it under."""

    packet: int
    trigger: str


@dataclass(slots=True)
class _Place:
    first: tuple[int, int]
    last: tuple[int, int] | None = field(default=None)


class Hold:
    """At most two packets for each client of a connection, bounded in number and octets."""

    def __init__(self, settings: HoldSettings) -> None:
        self._settings = settings
        self._places: dict[int, dict[IPAddress | None, _Place]] = {}
        self.packets = 0
        self.octets = 0

    def keep(
        self, connection: int, packet: int, size: int, client: IPAddress | None = None
    ) -> Discard | None:
        """Take a packet in; returns the one that has to go for it, the new one included."""
        place = self._places.get(connection, {}).get(client)
        if place is not None and self._settings.mode == "first":
            return Discard(packet, "hold_first_only")
        evicted = place.last if place is not None else None
        packets = self.packets + (0 if evicted else 1)
        octets = self.octets + size - (evicted[1] if evicted else 0)
        if packets > self._settings.packets or octets > self._settings.octets:
            return Discard(packet, "hold_full")
        self.packets, self.octets = packets, octets
        if place is None:
            self._places.setdefault(connection, {})[client] = _Place((packet, size))
        else:
            place.last = (packet, size)
        return Discard(evicted[0], "hold_newer_came") if evicted else None

    def take(self, connection: int) -> tuple[int, ...]:
        """The connection's packets in the order they came, which leave the hold."""
        places = self._places.pop(connection, {}).values()
        kept = [p for place in places for p in (place.first, place.last) if p is not None]
        if len(places) > 1:
            kept.sort()  # packets are numbered as they come
        self.packets -= len(kept)
        self.octets -= sum(size for _, size in kept)
        return tuple(packet for packet, _ in kept)

    def take_all(self) -> tuple[int, ...]:
        """Every packet held."""
        return tuple(packet for c in list(self._places) for packet in self.take(c))
