"""What happens by and by: cases 8, 15 to 19, 22 and 24 (see README.md)."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

import ike.events as keying
from oegw.commands import Verdict
from oegw.peer import ConfiguredPeer
from policy.rule import OnFailure, Rule
from tests.support.playbook import configured, opportunistic, permit
from tests.support.town import Crossing, House, Town, ports

ALICE, BOB = "192.1.0.65", "192.2.0.66"


def two(**town: object) -> tuple[Town, House, House]:
    there = Town(**town)  # type: ignore[arg-type]
    west = there.house("west", "192.1.1.4", "192.1.0.0/24")
    east = there.house("east", "192.1.1.5", "192.2.0.0/24")
    there.publish(west, ALICE)
    there.publish(east, BOB)
    return there, west, east


def tunnels(house: House) -> int:
    return int(house.endpoint.snapshot().tunnels)


def test_oe_flood_deadlock_01() -> None:
    """A spray of destinations: nothing is locked up, memory and work are bounded."""
    town, west, _ = two()
    assert town.ping(ALICE, BOB) == "tunnel"
    town.zones.dead = True
    for number in range(3000):
        source = f"192.1.0.{66 + number % 8}"
        town.send(source, str(ip_address(0xC0040000 + number)))
        if number % 50 == 0:
            town.run(0.01)
    under_way = [c for c in west.gateway.connections() if c.under_way]
    assert len(under_way) <= 8 * 32
    assert west.gateway.held[0] <= 1024
    assert len(west.held) == west.gateway.held[0]
    assert len(west.stub.asked) < 1000
    assert west.drops["source_limit"] > 2000
    assert town.ping(ALICE, BOB) == "tunnel", "an established tunnel goes on"
    town.run(10)
    assert not [c for c in west.gateway.connections() if c.under_way]
    assert not west.held
    town.zones.dead = False
    other = town.house("south", "192.1.1.6", "192.3.0.0/24")
    town.publish(other, "192.3.0.68")
    assert town.ping(ALICE, "192.3.0.68") == "tunnel"


def test_vpn_yes_oe_no_01() -> None:
    """The office trusts its branch, and takes strangers' tunnels; they never are the branch."""
    town = Town()
    branch = town.house("branch", "192.1.1.6", "192.3.0.0/24")
    office = town.house("office", "192.1.1.5", "192.2.0.0/24")
    stranger = town.house("stranger", "192.1.1.4", "192.1.0.0/24")
    office.settings["peers"] = {"branch": ConfiguredPeer(branch.address, branch.key.public_key())}
    office.rules = (configured("branch", "192.2.0.0/24", "192.3.0.0/24"),)
    branch.settings["peers"] = {"office": ConfiguredPeer(office.address, office.key.public_key())}
    branch.rules = (configured("office", "192.3.0.0/24", "192.2.0.0/24"),)
    office.boot()
    branch.boot()
    town.publish(office, BOB)
    town.publish(stranger, ALICE)
    dave = "192.3.0.68"
    assert town.ping(ALICE, BOB) == "tunnel"  # for all, by an opportunistic tunnel
    assert town.ping(dave, BOB) == "tunnel"  # by the configured one
    # The stranger's reverse zone and his own gateway claim the branch's host.
    town.zones.delegate(ip_address(dave), stranger.address, stranger.key.public_key())
    office.stub.forget()
    sas = office.sas
    stranger.inside = (*stranger.inside, branch.inside[0])
    branch.on = False
    town.houses["branch"].inside = ()
    town._owner.clear()
    town.ping(dave, BOB)
    assert stranger.seen(keying.NegotiationFailed)
    assert office.trace.drops["tunnel_refused"] >= 1
    assert office.sas == sas
    assert town.came(dave, BOB).count("tunnel") == 1
    assert "clear" not in town.came(dave, BOB)


def laptop_behind(
    west_rules: tuple[Rule, ...] = (), east_rules: tuple[Rule, ...] = ()
) -> tuple[Town, House, House, House]:
    """A laptop that is its own gateway, in the network of another one."""
    town, west, east = two()
    laptop = town.house("laptop", "192.1.0.99")
    town.put_behind(laptop, west)
    town.publish(laptop, "192.1.0.99")
    for house, peer, rules in ((west, east, west_rules), (east, west, east_rules)):
        house.rules = rules
        key = peer.key.public_key()
        house.settings["peers"] = {r.name: ConfiguredPeer(peer.address, key) for r in rules}
        house.boot()
    return town, laptop, west, east


def test_co_terminal_01() -> None:
    """An OE laptop behind an OE gateway: its tunnel passes, and is not put into another one."""
    town, laptop, west, east = laptop_behind()
    assert town.ping("192.1.0.99", BOB) == "tunnel"
    assert laptop.state("192.1.0.99", BOB) == "keyed"
    assert town.ping(BOB, "192.1.0.99") == "tunnel"
    assert town.ping(ALICE, BOB) == "tunnel"
    assert tunnels(laptop) == tunnels(west) == 1
    assert tunnels(east) == 2
    assert not town.clear_on_the_way("192.1.0.99", BOB)


@pytest.mark.parametrize("first", ["the configured tunnel", "the laptop"])
def test_co_terminal_02(first: str) -> None:
    """An OE laptop, and a configured tunnel of its gateway for the same traffic.

    The far gateway lets no stranger have what is configured; so the laptop's packets go in the
    clear as far as its own gateway, and on through the configured tunnel.
    """
    town, laptop, west, east = laptop_behind(
        (configured("office", "192.1.0.0/24", "192.2.0.0/24"),),
        (configured("branch", "192.2.0.0/24", "192.1.0.0/24"),),
    )
    if first == "the configured tunnel":
        assert town.ping(ALICE, BOB) == "tunnel"
    for _ in range(3):
        town.ping("192.1.0.99", BOB, wait=4.0)
    assert "tunnel" in town.came("192.1.0.99", BOB)
    assert laptop.state("192.1.0.99", BOB) == "clear"
    assert not laptop.sas
    assert town.ping(ALICE, BOB) == "tunnel"
    assert tunnels(west) == tunnels(east) == 1
    assert not town.clear_on_the_way("192.1.0.99", BOB)


def test_co_terminal_03() -> None:
    """The same with a destination that the configured tunnel is not for."""
    town, laptop, west, _ = laptop_behind(
        (configured("office", "192.1.0.0/24", "192.2.0.0/24"),),
        (configured("branch", "192.2.0.0/24", "192.1.0.0/24"),),
    )
    south = town.house("south", "192.1.1.6", "192.3.0.0/24")
    town.publish(south, "192.3.0.68")
    assert town.ping(ALICE, BOB) == "tunnel"
    assert town.ping("192.1.0.99", "192.3.0.68") == "tunnel"
    assert laptop.state("192.1.0.99", "192.3.0.68") == "keyed"
    assert tunnels(west) == 1


def test_food_groups_orderly_transition_01() -> None:
    """Groups change while traffic flows: what stays wanted stays as it is."""
    town, west, east = two()
    assert town.ping(ALICE, BOB) == "tunnel"
    begun = west.sent.total()
    west.reload((opportunistic("one", "192.2.0.0/25"), permit("clear", "192.3.0.0/24")))
    assert town.ping(ALICE, BOB) == "tunnel"
    assert west.sent.total() == begun
    assert tunnels(west) == tunnels(east) == 1
    west.reload((permit("clear", "192.2.0.0/24"),))
    town.run(5)
    assert tunnels(west) == tunnels(east) == 0
    west.reload(())
    east.gateway.forget(west.inside[0], town.now)
    east.verdicts.clear()
    assert town.ping(ALICE, BOB) == "tunnel"


def test_food_groups_bug_01() -> None:
    """Read again without a change, several times: no target is forgotten."""
    town, west, _ = two()
    rules = (opportunistic("bob", f"{BOB}/32", on_failure=OnFailure.DROP),)
    west.reload(rules)
    assert town.ping(ALICE, BOB) == "tunnel"
    for _ in range(3):
        west.reload(rules)
        assert town.ping(ALICE, BOB) == "tunnel"
    assert not town.clear_on_the_way(ALICE, BOB)


def test_newoe_05_hold_pass() -> None:
    """Held while it is negotiated, and in the clear once that came to nothing."""
    town, west, east = two()
    east.on = False
    town.send(ALICE, BOB)
    town.run(2)
    assert west.state(ALICE, BOB) == "pending"
    assert not town.clear_on_the_way(ALICE, BOB)
    town.run(30)
    assert west.state(ALICE, BOB) == "clear"
    assert len(town.clear_on_the_way(ALICE, BOB)) == 1


def test_newoe_04_pass_pass() -> None:
    """Nothing passes while it is negotiated, whatever comes afterwards (RFC 4322 section 3.1.2)."""
    town, west, east = two()
    east.on = False
    for _ in range(5):
        town.send(ALICE, BOB)
        town.run(0.2)
    assert not town.clear_on_the_way(ALICE, BOB)
    assert west.gateway.held[0] == 2  # the first and the last
    town.run(30)
    assert len(town.clear_on_the_way(ALICE, BOB)) == 2


@pytest.mark.parametrize("on_failure", list(OnFailure))
def test_newoe_11_failike(on_failure: OnFailure) -> None:
    """The negotiation fails: clear or dropped, as the rule says, and nothing is left of it."""
    town, west, east = two()
    west.reload((), opportunistic("all", on_failure=on_failure))
    east.on = False
    town.send(ALICE, BOB)
    town.run(40)
    clear = on_failure is OnFailure.CLEAR
    assert west.state(ALICE, BOB) == ("clear" if clear else "denied")
    assert bool(town.clear_on_the_way(ALICE, BOB)) == clear
    assert not west.endpoint.snapshot().channels
    assert not west.held


def test_certoe_19_bareshunts_expire() -> None:
    """A verdict ends with its lifespan, and nothing is left in the kernel."""
    town, west, east = two()
    east.on = False
    town.send(ALICE, BOB)
    town.run(40)
    assert [p.verdict for p in west.verdicts.values()] == [Verdict.CLEAR]
    town.run(400)
    assert not west.verdicts
    assert west.state(ALICE, BOB) is None


def test_certoe_18_pass_then_go_slash32() -> None:
    """The peer was off, and begins later: what passes in the clear is encrypted at once."""
    town, west, east = two()
    east.on = False
    town.send(ALICE, BOB)
    town.run(40)
    assert west.state(ALICE, BOB) == "clear"
    east.on = True
    # The first answer may be quicker than the installation of the SA that it belongs into.
    assert town.ping(BOB, ALICE) is not None
    assert town.came(BOB, ALICE) == ["tunnel"]
    assert west.state(ALICE, BOB) == "keyed"
    clear = len(town.clear_on_the_way(ALICE, BOB))
    assert town.ping(ALICE, BOB) == "tunnel"
    assert len(town.clear_on_the_way(ALICE, BOB)) == clear


def test_certoe_16_rhbz1724200_halfopen_shunt() -> None:
    """Our old attempt gives up after the peer's tunnel is up: it takes nothing along."""
    town, west, east = two()

    def west_is_not_heard(crossing: Crossing) -> bool:
        return crossing.kind == "ike" and crossing.source == west.address and not east.sent

    town.held_back = west_is_not_heard
    town.send(ALICE, BOB)
    town.run(6)
    assert west.state(ALICE, BOB) == "pending"
    assert town.ping(BOB, ALICE) == "tunnel"
    assert west.state(ALICE, BOB) == "keyed"
    town.run(40)
    assert west.state(ALICE, BOB) == "keyed"
    assert town.ping(ALICE, BOB) == "tunnel"
    assert not town.clear_on_the_way(ALICE, BOB)


def test_newoe_08_restart() -> None:
    """A gateway loses everything: its peer notices, and traffic goes on encrypted."""
    town, west, east = two()
    for house in (west, east):
        house.reload((), opportunistic("all", on_failure=OnFailure.DROP))
    assert town.ping(ALICE, BOB) == "tunnel"
    lost = frozenset({west.address})
    east.boot(lost_contacts=lost)
    assert town.ping(BOB, ALICE) == "tunnel"
    assert town.ping(ALICE, BOB) == "tunnel"
    east.boot()
    answered = False
    for _ in range(30):
        answered = answered or town.ping(ALICE, BOB, wait=3.0) == "tunnel"
    assert answered, "the side that had not restarted never noticed"
    assert not town.clear_on_the_way(ALICE, BOB)


def test_newoe_09_mutual() -> None:
    """Both begin at the same moment: one tunnel stays, and nothing is lost."""
    town, west, east = two()
    town.send(ALICE, BOB)
    town.send(BOB, ALICE)
    town.run(5)
    assert town.came(ALICE, BOB) == town.came(BOB, ALICE) == ["tunnel"]
    assert tunnels(west) == tunnels(east) == 1
    assert west.sas == east.sas == 2
    assert town.ping(ALICE, BOB) == "tunnel"


def test_newoe_10_expire_inactive() -> None:
    """RFC 4322 section 3.4.1: unused after a minute, torn down; used, it stays."""
    town, west, east = two()
    assert town.ping(ALICE, BOB) == "tunnel"
    for _ in range(10):
        town.run(10)
        assert town.ping(ALICE, BOB) == "tunnel"
    keyed = len(west.traced("keyed"))
    assert keyed == 1
    town.run(2600)
    assert west.sas == east.sas == 0
    assert west.state(ALICE, BOB) is None
    assert not west.verdicts
    assert town.ping(ALICE, BOB) == "tunnel"
    assert not town.clear_on_the_way(ALICE, BOB)
    # Never used after the first packet: a minute.
    town.run(150)
    assert west.sas == east.sas == 0


def test_newoe_03_oeself() -> None:
    """Traffic to one's own address, and within one's own network, is nobody's business."""
    town, west, _ = two()
    assert town.ping("192.1.1.4", "192.1.1.4") == "local"
    assert town.ping(ALICE, "192.1.1.4") == "local"
    assert town.ping(ALICE, "192.1.0.66") == "local"
    assert "TXT" not in {question.rdtype for question in west.stub.asked}
    assert not list(west.gateway.connections())


def test_newoe_28_dual_source() -> None:
    """Two hosts of ours with one of theirs: a tunnel each, over one keying channel."""
    town, west, east = two()
    town.zones.delegate(ip_address("192.1.0.66"), west.address, west.key.public_key())
    assert town.ping(ALICE, BOB) == "tunnel"
    assert town.ping("192.1.0.66", BOB) == "tunnel"
    assert tunnels(west) == tunnels(east) == 2
    assert len(west.endpoint.snapshot().channels) == 1


def test_newoe_31_interface_lost() -> None:
    """The way between is gone for two minutes, and then there again."""
    town, west, east = two()
    for house in (west, east):
        house.reload((), opportunistic("all", on_failure=OnFailure.DROP))
    assert town.ping(ALICE, BOB) == "tunnel"
    town.held_back = lambda crossing: True
    for _ in range(12):
        assert town.ping(ALICE, BOB, wait=10.0) is None
    town.held_back = lambda crossing: False
    answered = any(town.ping(ALICE, BOB, wait=10.0) == "tunnel" for _ in range(12))
    assert answered
    assert not town.clear_on_the_way(ALICE, BOB)


def test_ikev1_impair_01() -> None:
    """Every packet comes twice: exactly one pair of SAs."""
    town, west, east = two(doubled=1.0)
    assert town.ping(ALICE, BOB) == "tunnel"
    town.run(20)
    assert west.sas == east.sas == 2
    assert tunnels(west) == tunnels(east) == 1
    assert len(west.seen(keying.KeyingChannelEstablished)) == 1


def test_ikev1_impair_02() -> None:
    """Every message is held back, so that it comes after its retransmission."""
    town, west, east = two(delay=1.2)
    assert town.ping(ALICE, BOB, wait=30.0) == "tunnel"
    town.run(30)
    assert west.sas == east.sas == 2
    assert tunnels(west) == tunnels(east) == 1


@pytest.mark.parametrize("seed", range(4))
def test_a_bad_network(seed: int) -> None:
    """Loss and doubling together: one tunnel in the end."""
    town, west, east = two(loss=0.2, doubled=0.2, seed=seed)
    answered = any(town.ping(ALICE, BOB, wait=15.0) for _ in range(8))
    assert answered
    town.loss = town.doubled = 0.0
    town.run(30)
    assert tunnels(west) == tunnels(east)
    assert west.sas == east.sas


def test_packets_of_all_protocols_wait_and_go_on() -> None:
    """TCP's first packet is not lost: held, and delivered through the tunnel."""
    town, _, _ = two()
    town.send(ALICE, BOB, 17, ports(4000, 53, b"question"))
    town.run(1)
    assert town.came(ALICE, BOB) == ["tunnel"]
