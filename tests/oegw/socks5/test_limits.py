"""How many connections at a time, of whom."""

from __future__ import annotations

import random
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import pytest

from oegw.socks5.limits import NEGOTIATING_LEAST, Place, Places
from oegw.socks5.settings import Limits, User
from oegw.socks5.terms import Refused

ALICE, BOB = ip_address("192.168.1.10"), ip_address("192.168.1.11")


def a_client(number: int) -> IPv4Address | IPv6Address:
    return IPv4Address(int(IPv4Address("10.0.0.0")) + number)


def refused(reason: str) -> Any:
    return pytest.raises(Refused, match=f"^{reason}$")


def test_one_client_has_so_many_and_others_theirs() -> None:
    places = Places(Limits(client=2))
    first, _ = places.take(ALICE)
    places.take(ALICE)
    with refused("limit_client"):
        places.take(ip_address("::ffff:192.168.1.10"))
    places.take(BOB)
    places.leave(first)
    places.leave(first)
    places.take(ALICE)
    with refused("limit_client"):
        places.take(ALICE)


def test_a_user_has_so_many_from_wherever() -> None:
    users = [User("alice", "", connections=1), User("bob", "")]
    places = Places(Limits(client=2), users)
    place, _ = places.take(ALICE)
    places.identified(place, "alice")
    places.identified(place, "alice")  # with its next request
    second, _ = places.take(BOB)
    with refused("limit_user"):
        places.identified(second, "alice")
    places.leave(second)
    places.leave(place)
    third, _ = places.take(BOB)
    places.identified(third, "alice")
    for number in range(2):  # others: as many as a client
        place, _ = places.take(a_client(number))
        places.identified(place, "bob")
    place, _ = places.take(a_client(2))
    with refused("limit_user"):
        places.identified(place, "bob")


def test_where_all_places_are_taken_the_oldest_silent_one_is_closed() -> None:
    """Slow-loris: whoever opens connections and says nothing."""
    places = Places(Limits(negotiating=3))
    asking, _ = places.take(a_client(0))
    places.requested(asking)
    silent, _ = places.take(a_client(1))
    later, _ = places.take(a_client(2))
    _, evicted = places.take(ALICE)
    assert evicted is silent
    _, evicted = places.take(BOB)
    assert evicted is later
    places.leave(silent)  # its connection has been closed: counted once
    assert places.snapshot()["negotiating"] == 3


def test_who_has_said_what_it_wants_is_not_closed_for_another() -> None:
    places = Places(Limits(negotiating=2))
    asking = [places.take(a_client(number))[0] for number in range(2)]
    for place in asking:
        places.requested(place)
    with refused("limit_negotiating"):
        places.take(ALICE)
    places.answered(asking[0])
    assert places.take(ALICE)[1] is None


def test_of_those_that_negotiate_a_client_has_a_share() -> None:
    places = Places(Limits(negotiating=4 * NEGOTIATING_LEAST))
    for _ in range(NEGOTIATING_LEAST):
        assert places.take(ALICE)[1] is None
    with refused("limit_negotiating"):
        places.take(ALICE)
    assert places.take(BOB)[1] is None  # nobody else was closed


def test_the_total_is_kept() -> None:
    places = Places(Limits(total=2))
    for number in range(2):
        place, _ = places.take(a_client(number))
        places.answered(place)
    with refused("limit_total"):
        places.take(ALICE)
    places.configure(Limits(total=3), [])
    silent, _ = places.take(ALICE)
    assert places.take(BOB)[1] is silent


def test_a_client_has_so_many_associations() -> None:
    places = Places(Limits(associations=1))
    first, second = (places.take(ALICE)[0] for _ in range(2))
    places.associated(first)
    places.associated(first)  # the same one
    with refused("limit_associations"):
        places.associated(second)
    places.leave(first)
    places.associated(second)


def test_who_has_left_is_forgotten() -> None:
    """Whatever happened in whatever order: the counts are those of who is there."""
    dice = random.Random(1)
    places = Places(Limits(total=40, client=10, negotiating=20, associations=3))
    there: set[Place] = set()
    for _ in range(3000):
        try:
            match dice.randrange(5):
                case 0:
                    place, evicted = places.take(a_client(dice.randrange(8)))
                    there.add(place)
                    there -= {evicted}
                case step if there:
                    place = dice.choice(sorted(there, key=id))
                    match step:
                        case 1:
                            places.requested(place)
                        case 2:
                            places.answered(place)
                        case 3:
                            places.associated(place)
                        case _ if dice.random() < 0.5:
                            places.leave(place)
                            there.discard(place)
                        case _:
                            places.identified(place, dice.choice("ab"))
        except Refused:
            pass
        assert places.snapshot()["total"] == len(there) <= 40
    for place in there:
        places.leave(place)
    nobody = {"total": 0, "negotiating": 0, "clients": {}, "users": {}, "associations": {}}
    assert places.snapshot() == nobody
