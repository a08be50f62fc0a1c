"""Two endpoints on a network with delay, loss and reordering, and packets between them.

``Traffic.live`` moves the clock in steps of ten milliseconds.  In each, both sides do what a
gateway does: they order a successor when ``TunnelExpiring`` comes, send a packet on the tunnel
that was up or preferred last, and count what arrives for an inbound SA that is not there.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from heapq import heappop, heappush

from ike import events as e
from tests.support.ike_pair import Pair, Side

STEP = 0.01


@dataclass
class Gateway:
    """What a side's shell knows."""

    side: Side
    read: int = 0
    next_number: int = 100
    up: dict[int, e.EspSa] = field(default_factory=dict)
    receives: dict[int, int] = field(default_factory=dict)  # SPI to tunnel
    inbound: dict[int, int] = field(default_factory=dict)  # tunnel to SPI
    sends_on: int | None = None
    expiring: list[int] = field(default_factory=list)

    def attend(self) -> None:
        for event in self.side.events[self.read :]:
            match event:
                case e.InboundSaEstablished():
                    self.receives[event.sa.spi] = event.tunnel
                    self.inbound[event.tunnel] = event.sa.spi
                case e.OutboundSaEstablished():
                    self.up[event.tunnel] = event.sa
                    self.sends_on = event.tunnel
                case e.TunnelPreferred():
                    self.sends_on = event.tunnel
                case e.TunnelClosed() | e.NegotiationFailed():
                    self.up.pop(event.tunnel, None)
                    spi = self.inbound.pop(event.tunnel, None)
                    if spi is not None:
                        del self.receives[spi]
                    if self.sends_on == event.tunnel:
                        self.sends_on = next(reversed(self.up), None)
                case e.TunnelExpiring():
                    self.expiring.append(event.tunnel)
        self.read = len(self.side.events)


class Traffic:
    """``delay``: least and most seconds, so that datagrams overtake each other."""

    def __init__(
        self, pair: Pair, seed: int, delay: tuple[float, float] = (0.01, 0.01), loss: float = 0.0
    ) -> None:
        self.pair = pair
        self.randomness = random.Random(seed)
        self.delay = delay
        self.loss = loss
        self.gateways = [Gateway(side) for side in pair.sides]
        self.under_way: list[tuple[float, int, e.Datagram | tuple[Gateway, int]]] = []
        self.order = 0
        self.sent = 0
        self.lost = 0

    def _put(self, what: e.Datagram | tuple[Gateway, int]) -> None:
        self.order += 1
        arrival = self.pair.now + self.randomness.uniform(*self.delay)
        heappush(self.under_way, (arrival, self.order, what))

    def live(self, seconds: float, packets: bool = True) -> None:
        for _ in range(round(seconds / STEP)):
            self.pair.now += STEP
            self._arrive()
            for side in self.pair.sides:
                if (timer := side.endpoint.next_timer()) is not None and timer <= self.pair.now:
                    side.endpoint.handle_timer(self.pair.now)
            self.pair.pump()
            self._leave()
            for gateway in self.gateways:
                gateway.attend()
                if packets and gateway.sends_on is not None:
                    self.sent += 1
                    self._put((gateway, gateway.up[gateway.sends_on].spi))
                for tunnel in gateway.expiring:
                    self.pair.initiate(gateway.next_number, side=gateway.side, replaces=tunnel)
                    gateway.next_number += 2
                gateway.expiring.clear()
            self._leave()

    def _leave(self) -> None:
        """Keying datagrams, some of which are lost on the way."""
        for datagram in self.pair.wire:
            if self.randomness.random() >= self.loss:
                self._put(datagram)
        self.pair.wire = []

    def _arrive(self) -> None:
        while self.under_way and self.under_way[0][0] <= self.pair.now:
            what = heappop(self.under_way)[2]
            if isinstance(what, e.Datagram):
                self.pair.deliver(what)
                self._leave()
                for gateway in self.gateways:
                    gateway.attend()
            else:
                sender, spi = what
                (receiver,) = (one for one in self.gateways if one is not sender)
                self.lost += spi not in receiver.receives
