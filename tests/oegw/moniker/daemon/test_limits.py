"""Connections of a source and in all (MK-26)."""

from __future__ import annotations

from ipaddress import ip_address

from oegw.moniker.daemon.limits import Crowd

ALICE, MALLORY = ip_address("192.2.0.1"), ip_address("192.2.0.66")


def test_a_source_has_a_bound_of_its_own() -> None:
    crowd = Crowd(in_all=100, of_a_source=2)
    numbers = [crowd.enter(MALLORY, lambda: None) for _ in range(3)]
    assert numbers[2] is None
    assert crowd.enter(ALICE, lambda: None) is not None
    assert numbers[0] is not None
    crowd.left(numbers[0])
    assert crowd.enter(MALLORY, lambda: None) is not None


def test_addresses_of_one_ipv6_network_are_one_source() -> None:
    crowd = Crowd(in_all=100, of_a_source=1)
    assert crowd.enter(ip_address("2001:db8::1"), lambda: None) is not None
    assert crowd.enter(ip_address("2001:db8::2"), lambda: None) is None
    assert crowd.enter(ip_address("2001:db8:0:1::1"), lambda: None) is not None


def test_a_full_house_makes_room_at_the_cost_of_who_has_most() -> None:
    gone: list[str] = []
    crowd = Crowd(in_all=3, of_a_source=3)
    crowd.enter(ALICE, lambda: gone.append("alice"))
    crowd.enter(MALLORY, lambda: gone.append("first"))
    crowd.enter(MALLORY, lambda: gone.append("second"))
    assert crowd.enter(ip_address("192.2.0.7"), lambda: None) is not None
    assert gone == ["first"]
    assert len(crowd) == 3


def test_who_left_twice_left_once() -> None:
    crowd = Crowd(in_all=2, of_a_source=1)
    number = crowd.enter(ALICE, lambda: None)
    assert number is not None
    crowd.left(number)
    crowd.left(number)
    assert len(crowd) == 0
    assert crowd.enter(ALICE, lambda: None) is not None
    assert crowd.enter(ALICE, lambda: None) is None
