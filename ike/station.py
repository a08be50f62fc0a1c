"""What all exchanges of one endpoint share."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ike.alarms import Alarms
from ike.configuration import Configuration
from ike.constants import NAT_PORT, NON_ESP_MARKER, SPI_LOWEST
from ike.events import Datagram, Encapsulation, Event, IPAddress, TransportAddress
from ike.groups import KeyPairStock
from ike.signer import Signing


@dataclass(slots=True)
class Station:
    """Settings, randomness, signer, key pairs and alarms, and the way out for events."""

    configuration: Configuration
    random_octets: Callable[[int], bytes]
    signer: Signing
    key_pairs: KeyPairStock
    alarms: Alarms = field(default_factory=Alarms)
    events: deque[Event] = field(default_factory=deque)
    datagrams: list[Datagram] = field(default_factory=list)
    spis: set[bytes] = field(default_factory=set)
    encapsulations: Mapping[IPAddress, Encapsulation] = field(default_factory=dict)
    auto: Encapsulation = Encapsulation.AUTO  # what AUTO means

    def emit(self, event: Event) -> None:
        self.events.append(event)

    def encapsulation_of(self, address: IPAddress) -> Encapsulation:
        """How ESP goes to a peer that begins from ``address``."""
        return self.in_effect(self.encapsulations.get(address))

    def in_effect(self, wanted: Encapsulation | None) -> Encapsulation:
        """What ``wanted`` comes to; None is what is configured for all."""
        chosen = wanted or self.configuration.encapsulation
        return self.auto if chosen is Encapsulation.AUTO else chosen

    def transmit(self, message: bytes, local: TransportAddress, remote: TransportAddress) -> None:
        """Send an IKE message; on port 4500 behind the non-ESP marker (RFC 3948 section 2.2)."""
        if local.port == NAT_PORT:
            message = NON_ESP_MARKER + message
        self.datagrams.append(Datagram(message, local, remote))

    def random_nonzero(self, length: int) -> bytes:
        """Random octets that are not all zero, for cookies and message IDs."""
        while not any(octets := self.random_octets(length)):
            pass
        return octets

    def fresh_spi(self) -> bytes:
        """An SPI for a new inbound SA, not in use and not reserved; return it with ``free_spi``."""
        while True:
            spi = self.random_octets(4)
            if int.from_bytes(spi, "big") >= SPI_LOWEST and spi not in self.spis:
                self.spis.add(spi)
                return spi

    def free_spi(self, spi: bytes) -> None:
        self.spis.discard(spi)
