"""Two ports to two others, under a key and the packet's addresses: a tweakable permutation.

Mode 0, the only one: the ciphertext of a flow does not change from packet to packet, and an answer
carries the same two sealed ports, swapped.
"""

from __future__ import annotations

from collections.abc import Callable

from oegw.packet.ip import TCP, UDP
from oegw.sst.ff1 import Ff1Block, Ff1Key
from oegw.sst.interface import PortKey

# Specification values: the tweak.
_MODE = b"\x00"  # flow-stable
PROTOCOLS = frozenset({TCP, UDP})
"""Those whose ports are sealed."""

# Our choice: pairs of addresses, and protocols, of which the prepared tweak is kept.  A host that
# talks to more pays three more calls of AES for a flow.
TWEAKS_LIMIT = 4096


class NotEligible(Exception):  # noqa: N818  (it names the fact)
    """A packet whose ports can't be sealed or opened; ``trigger`` is the name of its counter."""

    def __init__(self, trigger: str) -> None:
        super().__init__(trigger)
        self.trigger = trigger


class Permutation:
    """What a key does to the ports of all flows between its two ends.

    Addresses are packed, 4 or 16 octets; where an IPv6 packet has a Routing header, the destination
    is the final one.
    """

    def __init__(self, key: PortKey) -> None:
        """Raises ValueError if the key has not the length that its algorithm has."""
        if len(key.octets) != key.algorithm.key_length:
            raise ValueError(f"{key.algorithm.name} has a key of {key.algorithm.key_length} octets")
        self.algorithm = key.algorithm
        self._key = Ff1Key(key.octets)
        # No two algorithms share key and tweak, even if they should share a key.
        self._name = b"SST%d" % key.algorithm + _MODE
        self._blocks: dict[bytes, Ff1Block] = {}

    def __repr__(self) -> str:
        return f"Permutation({self.algorithm.name})"

    def seal_ports(
        self,
        source: bytes,
        destination: bytes,
        protocol: int,
        source_port: int,
        destination_port: int,
    ) -> tuple[int, int]:
        """Source and destination port on the wire; neither is 0.  Raises NotEligible."""
        block, swapped = self._block(source, destination, protocol, source_port, destination_port)
        return _walked(block.encrypt, source_port, destination_port, swapped)

    def open_ports(
        self,
        source: bytes,
        destination: bytes,
        protocol: int,
        source_port: int,
        destination_port: int,
    ) -> tuple[int, int]:
        """The real source and destination port of those on the wire.  Raises NotEligible."""
        block, swapped = self._block(source, destination, protocol, source_port, destination_port)
        return _walked(block.decrypt, source_port, destination_port, swapped)

    def _block(
        self, source: bytes, destination: bytes, protocol: int, one_port: int, other_port: int
    ) -> tuple[Ff1Block, bool]:
        """The permutation for two addresses, and whether the source is the higher one."""
        if protocol not in PROTOCOLS:
            raise NotEligible("sst_protocol")
        if not one_port or not other_port:
            raise NotEligible("sst_port_zero")
        if one_port >> 16 or other_port >> 16:
            raise ValueError("a port has 16 bits")
        swapped = source > destination
        pair = destination + source if swapped else source + destination
        tweak = self._name + bytes((4 if len(source) == 4 else 6, protocol)) + pair
        block = self._blocks.get(tweak)
        if block is not None:
            return block, swapped
        check_addresses(source, destination)
        if len(self._blocks) >= TWEAKS_LIMIT:
            del self._blocks[next(iter(self._blocks))]
        block = self._blocks[tweak] = Ff1Block(self._key, tweak)
        return block, swapped


def _walked(
    step: Callable[[int], int], source_port: int, destination_port: int, swapped: bool
) -> tuple[int, int]:
    """Source and destination port behind a permutation, neither of them 0.

    Cycle-walking: the permutation of all 2**32 becomes one of the pairs without a zero.
    ``swapped``: the source has the higher address, and stands second.
    """
    if swapped:
        source_port, destination_port = destination_port, source_port
    ports = step(source_port << 16 | destination_port)
    while not ports >> 16 or not ports & 0xFFFF:
        ports = step(ports)
    return (ports & 0xFFFF, ports >> 16) if swapped else (ports >> 16, ports & 0xFFFF)


def check_addresses(source: bytes, destination: bytes) -> None:
    """Raise NotEligible unless both are single hosts, and two of them (sst.md sections 3 and 14.7).

    The broadcast address of a network can't be told from a host's; the policy names no peer there.
    """
    if len(source) != len(destination) or len(source) not in (4, 16):
        raise ValueError("two addresses of one family were expected")
    if source == destination:
        raise NotEligible("sst_equal_addresses")
    for address in (source, destination):
        if not any(address):
            raise NotEligible("sst_unspecified_address")
        if len(address) == 4 and address == b"\xff\xff\xff\xff":
            raise NotEligible("sst_broadcast")
        if address[0] == 0xFF if len(address) == 16 else address[0] >> 4 == 14:
            raise NotEligible("sst_multicast")
