"""What an opening worker knows of SAs that are not its own."""

from __future__ import annotations

from ipaddress import ip_address

from oegw.datapath.interface import Direction, SaKey
from oegw.datapath.userspace.homes import Homes
from oegw.datapath.userspace.strays import Stray

SOURCE = ip_address("192.0.2.1").packed
HERE = ip_address("192.0.2.2")


def key(spi: int) -> SaKey:
    return SaKey(Direction.INBOUND, spi, HERE)


def packet(spi: int, number: int) -> Stray:
    return Stray(memoryview(spi.to_bytes(4, "big") + bytes([number])), SOURCE, 1, HERE.packed, 0)


def test_the_home_of_an_sa_is_what_was_said_last() -> None:
    homes = Homes(0)
    assert homes.of(256, HERE.packed) is None
    homes.set(key(256), 1)
    homes.set(key(257), 2)
    assert [homes.of(spi, HERE.packed) for spi in (256, 257, 258)] == [1, 2, None]
    assert homes.of(256, SOURCE) is None  # of another address of ours
    homes.set(key(256), 2)
    homes.set(key(257), None)
    assert [homes.of(spi, HERE.packed) for spi in (256, 257)] == [2, None]
    assert homes.installed(key(256)) == []
    assert homes.of(256, HERE.packed) is None


def test_what_comes_for_an_sa_on_its_way_waits_in_its_order() -> None:
    homes = Homes(1)
    homes.set(key(256), 0)
    assert not homes.awaits(256, HERE.packed)
    homes.set(key(256), 1)
    homes.set(key(256), 1)
    assert homes.awaits(256, HERE.packed)
    assert homes.of(256, HERE.packed) is None
    came = [packet(256, number) for number in range(3)]
    assert all(homes.hold(256, each) for each in came)
    assert homes.installed(key(256)) == came
    assert not homes.awaits(256, HERE.packed)
    assert homes.installed(key(256)) == []


def test_what_waits_is_bounded_and_forgotten_with_the_sa() -> None:
    homes = Homes(1)
    for spi in (256, 257):
        homes.set(key(spi), 1)
    held = 0
    while homes.hold(256 + held % 2, packet(256 + held % 2, 0)):
        held += 1
        assert held < 100_000
    assert held >= 100
    homes.set(key(256), None)
    assert not homes.awaits(256, HERE.packed)
    assert homes.hold(257, packet(257, 1))
    homes.set(key(257), 0)
    assert homes.installed(key(257)) == []
