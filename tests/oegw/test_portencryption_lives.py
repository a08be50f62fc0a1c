"""Two whole gateways with ``sst = "inner"``: whatever is lost, doubled or crosses, the key by which
one seals is one that the other opens with (SST-34, SST-35).
"""

from __future__ import annotations

import pytest

import ike.events as keying
from oegw.datapath.interface import Direction, SaKey
from policy.rule import Sst, SstStrength
from tests.support.playbook import opportunistic
from tests.support.town import House, Town

ALICE, BOB = "192.1.0.65", "192.2.0.66"
INNER = {"default": opportunistic("default", sst=Sst.INNER), "encrypts_ports": True}
STRICT = opportunistic("default", sst=Sst.INNER, sst_strength=SstStrength.REQUIRED)


def two(west: dict, east: dict, **town: float) -> tuple[Town, House, House]:
    there = Town(**town)  # type: ignore[arg-type]
    a = there.house("west", "192.1.1.4", "192.1.0.0/24", **west)
    b = there.house("east", "192.1.1.5", "192.2.0.0/24", **east)
    there.publish(a, ALICE)
    there.publish(b, BOB)
    return there, a, b


def lives(**ike: float) -> dict:
    return {**INNER, "ike": {"sst": True, **ike}}


def key_in_use(house: House) -> tuple[int, bytes] | None:
    """The SPI by which a house sends, and the key by which it seals."""
    for connection in house.gateway.connections():
        live = connection.live_tunnel
        if live is not None and live.outbound is not None and connection.seals is not None:
            assert connection.seals == live.number
            assert connection.seals in house.seals
            return live.outbound.spi, house.port_keys[connection.seals][2]
    return None


def look(sender: House, receiver: House) -> bytes | None:
    """What is sealed can be opened, as long as it can be decrypted."""
    found = key_in_use(sender)
    if found is None:
        return None
    spi, key = found
    if SaKey(Direction.INBOUND, spi, receiver.address) in receiver.engine.usage():
        assert key in {known for _, _, known in receiver.port_keys.values()}
    return key


def channels(house: House) -> int:
    return sum(isinstance(event, keying.KeyingChannelEstablished) for event in house.events)


def test_sst_34_a_tunnel_between_two_that_do_it_is_sealed_both_ways() -> None:
    town, west, east = two(lives(), lives())
    assert town.ping(ALICE, BOB) == "tunnel"
    town.run(1.0)
    assert key_in_use(west) is not None
    assert look(west, east) == look(east, west)
    [(local, remote, _)] = west.port_keys.values()
    assert (str(local), str(remote)) == (f"{ALICE}/32", f"{BOB}/32")
    [(local, remote, _)] = east.port_keys.values()
    assert (str(local), str(remote)) == (f"{BOB}/32", f"{ALICE}/32")


def test_sst_35_the_key_changes_with_the_channel_and_not_with_esp() -> None:
    life = lives(tunnel_lifetime=40, channel_lifetime=300)
    town, west, east = two(life, life)
    by_channels: dict[int, set[bytes]] = {}
    tunnels = set()
    assert town.ping(ALICE, BOB) == "tunnel"  # or both begin at once, with two channels
    for _ in range(500):
        town.send(ALICE, BOB)
        town.send(BOB, ALICE)
        town.run(1.0)
        for sender, receiver in ((west, east), (east, west)):
            key = look(sender, receiver)
            if key is not None:
                by_channels.setdefault(channels(west), set()).add(key)
        tunnels |= set(west.port_keys)
    assert len(tunnels) > 8, "ESP has had successors"
    assert 1 < len(by_channels) <= 3
    assert len(by_channels[1]) == 1, "one channel, one key, whatever became of ESP"
    assert len(set.union(*by_channels.values())) == channels(west)


@pytest.mark.parametrize("seed", range(8))
def test_sst_35_loss_doubles_and_crossing_leave_no_packet_that_can_not_be_opened(
    seed: int,
) -> None:
    life = lives(tunnel_lifetime=30, channel_lifetime=100)
    town, west, east = two(life, life, seed=seed, loss=0.15, doubled=0.1)
    seen = set()
    for number in range(1200):
        if number % 2:
            town.send(ALICE, BOB)
            town.send(BOB, ALICE)  # both begin, now and then at once
        town.run(0.25)
        seen |= {look(west, east), look(east, west)}
    assert len(seen - {None}) > 1, "several channels"
    assert max(len(west.port_keys), len(east.port_keys)) < 12, "the dead ones are forgotten"


def test_sst_38_with_a_house_that_knows_nothing_there_is_a_plain_tunnel() -> None:
    town, west, east = two(lives(), {})
    assert town.ping(ALICE, BOB) == "tunnel"
    assert not west.port_keys
    assert not east.port_keys
    assert not west.seals


@pytest.mark.parametrize("strict", ["west", "east"])
def test_sst_29_with_a_house_that_knows_nothing_nothing_passes_where_it_is_required(
    strict: str,
) -> None:
    required = {**lives(), "default": STRICT}
    plans = (required, {}) if strict == "west" else ({}, required)
    town, west, east = two(*plans)
    assert town.ping(ALICE, BOB, wait=3.0) is None
    town.run(5.0)
    host = ALICE if strict == "west" else BOB
    assert "tunnel" not in town.came(ALICE, BOB)
    assert not [c for c in town.clear_on_the_way(ALICE, BOB) if str(c.source) == host]
    assert not west.port_keys
    assert not east.port_keys


def test_sst_34_only_one_side_wants_it_and_both_have_it() -> None:
    """Accepting is harmless, and lets the other's rule work."""
    idle = {"encrypts_ports": True, "ike": {"sst": True}}
    town, west, east = two(lives(), idle)
    assert town.ping(ALICE, BOB) == "tunnel"
    town.run(1.0)
    assert look(west, east) == look(east, west) is not None


def test_a_house_that_restarts_has_a_new_channel_and_both_a_new_key() -> None:
    town, west, east = two(lives(), lives())
    assert town.ping(ALICE, BOB) == "tunnel"
    before = look(west, east)
    east.boot()
    town.ping(BOB, ALICE)  # tells west that east has lost all
    assert town.ping(ALICE, BOB) == "tunnel"
    town.run(1.0)
    after = look(west, east)
    assert after == look(east, west)
    assert after not in (None, before)
