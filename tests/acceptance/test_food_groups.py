"""Which traffic is encrypted, clear or dropped: cases 1 to 5 and 20 (see README.md)."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

import ike.events as keying
from policy.rule import OnFailure
from tests.support.playbook import deny, opportunistic, permit
from tests.support.town import House, Town

WEST_1, WEST_3 = "192.1.0.1", "192.1.0.3"
EAST = "192.2.0.23"
PRIVATE = opportunistic("private", on_failure=OnFailure.DROP)


def two(**east: object) -> tuple[Town, House, House]:
    """West with .1, which has no record, and .3, which has; east as the case says."""
    town = Town()
    west = town.house("west", "192.1.1.45", "192.1.0.0/24")
    there = town.house("east", "192.1.1.23", "192.2.0.0/24", **east)  # type: ignore[arg-type]
    town.publish(west, WEST_3)
    town.publish(there, EAST)
    return town, west, there


def test_food_groups_oe_or_clear_01() -> None:
    town, _, east = two()
    assert town.ping(EAST, WEST_1) == "clear"
    assert east.state(EAST, WEST_1) == "clear"
    assert town.ping(EAST, WEST_3) == "tunnel"
    assert not town.clear_on_the_way(EAST, WEST_3)


def test_food_groups_oe_or_die_01() -> None:
    town, _, east = two(default=PRIVATE)
    assert town.ping(EAST, WEST_1) is None
    assert east.state(EAST, WEST_1) == "denied"
    assert town.ping(EAST, WEST_3) == "tunnel"
    assert not town.clear_on_the_way(EAST, WEST_1, WEST_3)


def test_food_groups_clear_or_oe_02() -> None:
    """East begins nothing; west begins with the packet that comes back."""
    town, west, east = two(default=opportunistic("passive", initiate=False))
    assert town.ping(EAST, WEST_3) == "tunnel"
    assert town.came(EAST, WEST_3) == ["clear"]
    assert [e.initiator for e in west.seen(keying.KeyingChannelEstablished)] == [True]
    clear = len(town.clear_on_the_way(EAST, WEST_3))
    assert clear == 1
    for _ in range(3):
        assert town.ping(EAST, WEST_3) == "tunnel"
        assert town.ping(WEST_3, EAST) == "tunnel"
    assert len(town.clear_on_the_way(EAST, WEST_3)) == clear
    assert not east.seen(keying.NegotiationFailed)


def test_food_groups_clear_02() -> None:
    """East's policy is clear: west's try is refused, and the answer goes as the question came."""
    town, west, east = two(default=permit("clear", None))
    assert town.ping(EAST, WEST_3) == "clear"
    assert east.trace.drops["tunnel_refused"] >= 1
    assert west.state(WEST_3, EAST) == "clear"
    assert town.ping(EAST, WEST_3) == "clear"
    assert not west.engine.usage()
    assert not east.engine.usage()


@pytest.mark.parametrize("which", ["01: never at one side", "02: never at both"])
def test_food_groups_never_01(which: str) -> None:
    never = (deny("never", "192.1.0.0/24"),)
    town, west, east = two(rules=never)
    if which.startswith("02"):
        west.reload((deny("never", "192.2.0.0/24"),))
    assert town.ping("192.1.1.23", "192.1.1.45") is not None
    assert town.ping(EAST, WEST_3) is None
    assert town.ping(WEST_3, EAST) is None
    assert town.came(EAST, WEST_3) == []
    if which.startswith("02"):
        assert town.came(WEST_3, EAST) == []
    assert not town.clear_on_the_way(EAST, WEST_3) or not which.startswith("02")
    assert town.ping("192.1.1.23", "192.1.1.45") is not None
    assert not east.seen(keying.OutboundSaEstablished) or not which.startswith("02")


def test_food_groups_never_02() -> None:
    """Not even an answer to what came from there in the clear."""
    town, west, _ = two(rules=(deny("never", "192.1.0.0/24"),))
    west.reload((permit("clear", "192.2.0.0/24"),))
    assert town.ping(WEST_3, EAST) is None
    assert town.came(EAST, WEST_3) == []


@pytest.mark.parametrize(
    ("outer", "inner", "expected"),
    [
        ("private-or-clear", "clear", ("tunnel", "clear")),  # newoe-12
        ("private-or-clear", "block", ("tunnel", None)),  # newoe-13
        ("block", "clear", (None, "clear")),  # newoe-14
        ("clear", "block", ("clear", None)),  # newoe-17
    ],
)
def test_newoe_12_13_14_17(outer: str, inner: str, expected: tuple[str | None, str | None]) -> None:
    """A rule for one host within a rule for its network."""
    rules = {"private-or-clear": opportunistic, "clear": permit, "block": deny}
    town, west, east = two()
    town.zones.delegate(ip_address(WEST_1), west.address, west.key.public_key())
    east.reload(
        (
            rules[outer]("network", "192.1.0.0/24"),
            rules[inner]("host", f"{WEST_1}/32", override=True),
        ),
        permit("rest", None),
    )
    assert (town.ping(EAST, WEST_3), town.ping(EAST, WEST_1)) == expected
