"""Whose records say what: cases 6, 7, 9 to 12 and 23 (see README.md)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

import ike.events as keying
from policy.flow import Flow
from policy.rule import OnFailure
from tests.support.dns_keys import txt
from tests.support.playbook import opportunistic
from tests.support.town import House, Town, town_key

ROAD, EAST = "192.1.1.92", "192.2.0.23"


def road_and_east(**ike: object) -> tuple[Town, House, House]:
    """A laptop, its own gateway, and a site."""
    town = Town()
    road = town.house("road", ROAD, ike=ike)
    east = town.house("east", "192.1.1.23", "192.2.0.0/24")
    town.publish(east, EAST)
    return town, road, east


@pytest.mark.parametrize("on_failure", list(OnFailure))
def test_oe_fail_without_private_key_01(on_failure: OnFailure) -> None:
    """Our key is not in our own DNS: that fails before anything is negotiated."""
    town = Town()
    default = opportunistic("all", on_failure=on_failure)
    west = town.house("west", "192.1.1.45", "192.1.0.0/24", default=default)
    east = town.house("east", "192.1.1.23", "192.2.0.0/24")
    other = town_key("somebody else's").public_key()
    town.zones.publish_key(west.address, other)
    town.zones.delegate(ip_address("192.1.0.65"), west.address, other)
    town.publish(east, EAST)
    expected = "clear" if on_failure is OnFailure.CLEAR else None
    assert town.ping("192.1.0.65", EAST, wait=3.0) == expected
    assert "MM1" not in west.sent  # it may have to answer to east, which begins with the answer
    state = west.gateway.find(Flow(ip_address("192.1.0.65"), ip_address(EAST), 1))
    assert state is not None
    assert "key" in state.reason.lower()


def test_oe_fail_without_resp_client_txt_01() -> None:
    """The responder's client never said that this is its gateway: phase 2 is refused."""
    town = Town()
    west = town.house("west", "192.1.1.45", "192.1.0.0/24")
    east = town.house("east", "192.1.1.23", "192.2.0.0/24")
    town.publish(west, "192.1.0.65")
    town.publish(east)
    # West believes that it did; the two see different zones, or an old answer.
    town.zones.delegate(ip_address(EAST), east.address, east.key.public_key())
    west.stub.zones = replace(town.zones, records=dict(town.zones.records))
    town.zones.withdraw(ip_address(EAST), "TXT")
    assert town.ping("192.1.0.65", EAST) == "clear"
    assert east.trace.drops["tunnel_refused"] == 1
    [failed] = west.seen(keying.NegotiationFailed)
    assert failed.reason is keying.Failure.REFUSED
    assert not east.sas
    assert not west.sas


def test_oe_road_01() -> None:
    """A laptop whose reverse zone is somebody else's begins under its name (draft section 6.3)."""
    town, road, east = road_and_east(identity="road.example")
    town.zones.publish_key("road.example", road.key.public_key())
    assert town.ping(ROAD, EAST) == "tunnel"
    [established] = east.seen(keying.KeyingChannelEstablished)
    assert established.identity == "road.example"
    # And in the clear with those who have no gateway.
    assert town.ping(ROAD, "1.2.3.4") == "clear"


def test_myid_road_01() -> None:
    """The same by itself: the name is used where the address has no key."""
    town = Town()
    road = town.house("road", ROAD, fqdn="road.example")
    east = town.house("east", "192.1.1.23", "192.2.0.0/24")
    town.publish(east, EAST)
    town.zones.publish_key("road.example", road.key.public_key())
    assert town.ping(ROAD, EAST) == "tunnel"
    [established] = east.seen(keying.KeyingChannelEstablished)
    assert established.identity == "road.example"


def test_oe_road_03() -> None:
    """A mangled record means deny, and is told to the operator."""
    town, road, east = road_and_east()
    town.publish(road, ROAD)
    sunset = "192.2.0.24"
    town.zones.publish(ip_address(sunset), "TXT", txt("X-IPsec-Server(10)=192.1.1.23 AQN*"))
    assert town.ping(ROAD, sunset) is None
    assert road.state(ROAD, sunset) == "denied"
    assert road.traced("malformed_record")
    assert not town.clear_on_the_way(ROAD, sunset)
    assert not east.received
    assert town.ping(ROAD, EAST) == "tunnel"


def test_oe_road_04() -> None:
    """KEY and no TXT: who speaks for itself needs no leave (RFC 4322 section 7)."""
    town, road, east = road_and_east()
    town.zones.publish_key(ip_address(ROAD), road.key.public_key())
    assert town.ping(ROAD, EAST) == "tunnel"
    assert not east.trace.drops["tunnel_refused"]
    # To be found it would need a record: what is sent to it comes in the clear, and is answered
    # through a tunnel that it begins itself.
    other = town.house("other", "192.1.1.40", "192.3.0.0/24")
    town.publish(other, "192.3.0.68")
    assert town.ping("192.3.0.68", ROAD) == "tunnel"
    assert town.came("192.3.0.68", ROAD) == ["clear"]


@pytest.mark.parametrize("dot", ["", "."])
def test_myid_road_05(dot: str) -> None:
    """A trailing dot in a domain name, in the configuration or in the record, makes no other."""
    town, road, east = road_and_east(identity=f"Road.Example{dot}")
    name = "road.example" if dot else "road.example."
    record = town.zones
    record.publish_key("road.example", road.key.public_key())
    record.publish(ip_address(ROAD), "TXT", txt(f"X-IPsec-Server(10)=@{name}"))
    assert town.ping(ROAD, EAST) == "tunnel"
    [established] = east.seen(keying.KeyingChannelEstablished)
    assert established.identity == "road.example"


def five_keys(right: int | None) -> tuple[Town, House, House]:
    """West publishes five keys, of which at most one is its own."""
    town = Town()
    # It would see by itself that its key is not there, and not begin: see case 6.
    west = town.house("west", "192.1.1.45", "192.1.0.0/24", check_own=right is not None)
    east = town.house("east", "192.1.1.23", "192.2.0.0/24")
    keys = [town_key(f"old {n}").public_key() for n in range(5)]
    if right is not None:
        keys[right] = west.key.public_key()
    for key in keys:
        town.zones.publish_key(west.address, key)
        town.zones.delegate(ip_address("192.1.0.65"), west.address, key)
    town.publish(east, EAST)
    return town, west, east


@pytest.mark.parametrize("begins", ["west", "east"])
def test_dnsoe_05(begins: str) -> None:
    """ikev2-55-ipseckey-02: five keys are published, the middle one is right."""
    town, _, _ = five_keys(right=2)
    pair = ("192.1.0.65", EAST) if begins == "west" else (EAST, "192.1.0.65")
    assert town.ping(*pair) == "tunnel"


@pytest.mark.parametrize("begins", ["west", "east"])
def test_dnsoe_06(begins: str) -> None:
    """ikev2-55-ipseckey-09: none of them is right, and nothing is left at either side."""
    town, west, east = five_keys(right=None)
    pair = ("192.1.0.65", EAST) if begins == "west" else (EAST, "192.1.0.65")
    assert town.ping(*pair, wait=60.0) != "tunnel"
    town.run(60)
    for house in (west, east):
        assert not house.sas
        assert not house.endpoint.snapshot().channels, house.name
        assert not house.endpoint.snapshot().tunnels
    begun = west if begins == "west" else east
    assert [f.reason for f in begun.seen(keying.NegotiationFailed)] == [
        keying.Failure.BAD_SIGNATURE
    ]


def test_roll_over_with_two_published_keys() -> None:
    """RFC 4322 section 5.4: the new key is published before it is used, the old one after."""
    town = Town()
    west = town.house("west", "192.1.1.45", "192.1.0.0/24")
    east = town.house("east", "192.1.1.23", "192.2.0.0/24")
    new = town_key("west's next")
    town.publish(west, "192.1.0.65")
    town.zones.publish_key(west.address, new.public_key())
    town.zones.delegate(ip_address("192.1.0.65"), west.address, new.public_key())
    town.publish(east, EAST)
    assert town.ping(EAST, "192.1.0.65") == "tunnel"
    west.ike_settings["private_key"] = new
    west.boot(lost_contacts=frozenset({east.address}))  # as its state on disk says
    # What east sends before the new SA is installed goes into the old tunnel, which is deaf.
    assert "tunnel" in (town.ping("192.1.0.65", EAST), town.ping("192.1.0.65", EAST))
    assert town.ping(EAST, "192.1.0.65") == "tunnel"
