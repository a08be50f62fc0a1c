"""Port encryption from end to end, without kernel and network: see tests/support/sst_town.py."""

from __future__ import annotations

import pytest

from tests.support.sst_town import (
    HOST_A,
    HOST_A6,
    HOST_B,
    HOST_B6,
    Town,
)
from tests.support.sst_wire import ACK, SYN, TCP, UDP, build, look

PAIRS = {4: (HOST_A, HOST_B), 6: (HOST_A6, HOST_B6)}


def out(port: int = 40000, version: int = 4, protocol: int = TCP, payload: bytes = b"") -> bytes:
    """A packet from the host behind A to the ssh of the one behind B."""
    return build(*PAIRS[version], protocol, port, 22, payload, flags=SYN)


def back(port: int = 40000, version: int = 4, protocol: int = TCP, payload: bytes = b"") -> bytes:
    here, there = PAIRS[version]
    return build(there, here, protocol, 22, port, payload, flags=SYN | ACK)


def ports(packet: bytes) -> tuple[int, int] | None:
    return look(packet).ports


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_the_first_packet_leaves_sealed_and_arrives_as_it_was(version: int, protocol: int) -> None:
    """SST-13, SST-31: no clear port from the first packet on."""
    town = Town()
    packet = out(version=version, protocol=protocol)
    town.a.send(packet)
    town.run(1.0)
    assert town.b.delivered == [packet]
    (sealed,) = [look(each) for each in town.sealed_wire]
    assert sealed.flagged
    assert sealed.right
    assert sealed.ports is not None
    assert not {40000, 22} & set(sealed.ports)
