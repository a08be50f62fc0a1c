"""What was encrypted last time, and by which key."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from oegw.connection import Selectors
from oegw.memory import Changes, KeyMemory, fingerprint, pair_text
from tests.support.playbook import rsa_key

SG_B = ip_address("192.1.1.5")


def pair(number: int = 66, **more: int) -> Selectors:
    return Selectors(ip_network("192.1.0.65/32"), ip_network(f"192.2.0.{number}/32"), **more)


def test_a_pair_is_remembered_with_its_gateway_and_by_its_selectors() -> None:
    memory = KeyMemory()
    assert memory.encrypted_by(pair()) is None
    memory.pair_encrypted(pair(), SG_B)
    memory.pair_encrypted(pair(67), "SG-B.example")
    assert memory.encrypted_by(pair()) == "192.1.1.5"
    assert memory.encrypted_by(pair(67)) == "@sg-b.example"
    # A tunnel for one port says nothing of the others.
    assert memory.encrypted_by(pair(protocol=6, remote_port=80)) is None
    assert pair_text(pair(protocol=6, remote_port=80)) == "192.1.0.65/32 192.2.0.66/32 6 0 80"


def test_another_key_than_last_time_is_noticed_once() -> None:
    memory = KeyMemory()
    assert not memory.key_shown(SG_B, rsa_key("sg-b"))
    assert not memory.key_shown(SG_B, rsa_key("sg-b"))
    assert memory.key_shown(SG_B, rsa_key("mallory"))
    assert not memory.key_shown(SG_B, rsa_key("mallory"))
    assert memory.key_shown(SG_B, rsa_key("sg-b"))
    assert not memory.key_shown("sg-b.example", rsa_key("other"))


def test_the_operator_can_say_that_it_is_well() -> None:
    memory = KeyMemory([("nonsense", "x"), ("a b", "y")])
    for number in (66, 67):
        memory.pair_encrypted(pair(number), SG_B)
    memory.take_changes()
    memory.forget(ip_network("192.2.0.66/32"))
    memory.forget(ip_network("2001:db8::/32"))
    assert memory.encrypted_by(pair(66)) is None
    assert memory.encrypted_by(pair(67)) == "192.1.1.5"
    assert memory.take_changes() == Changes({pair_text(pair(66)): None})


def test_changes_say_what_is_to_be_written() -> None:
    memory = KeyMemory()
    assert not memory.changed
    memory.pair_encrypted(pair(), SG_B)
    memory.key_shown(SG_B, rsa_key("sg-b"))
    assert memory.changed
    assert memory.take_changes() == Changes(
        {pair_text(pair()): "192.1.1.5"}, {"192.1.1.5": fingerprint(rsa_key("sg-b"))}
    )
    assert not memory.changed
    assert memory.take_changes() == Changes()


def test_the_least_recently_keyed_are_forgotten_and_that_is_written() -> None:
    memory = KeyMemory(most=3)
    for number in (1, 2, 3):
        memory.pair_encrypted(pair(number), SG_B)
    memory.pair_encrypted(pair(1), SG_B)  # keyed again
    memory.pair_encrypted(pair(4), SG_B)
    assert memory.encrypted_by(pair(2)) is None
    assert memory.encrypted_by(pair(1)) == "192.1.1.5"
    changes = memory.take_changes()
    assert changes.pairs[pair_text(pair(2))] is None
    assert [key for key, text in changes.pairs.items() if text] == [
        pair_text(pair(number)) for number in (3, 1, 4)
    ]


def test_what_peers_bring_displaces_only_its_like() -> None:
    """A stranger with many addresses wipes nothing out: a downgrade would go unnoticed."""
    memory = KeyMemory(most=3)
    memory.pair_encrypted(pair(1), SG_B)
    memory.pair_encrypted(pair(2), SG_B)
    memory.pair_encrypted(pair(1), SG_B, by_peer=True)  # and it stays ours
    memory.key_shown(SG_B, rsa_key("sg-b"))
    for number in range(10, 200):
        memory.pair_encrypted(pair(number), SG_B, by_peer=True)
        memory.key_shown(ip_address(0x08000000 + number), rsa_key("x"), by_peer=True)
        assert len(memory) <= 6
    for number in (1, 2, 199):
        assert memory.encrypted_by(pair(number)) == "192.1.1.5"
    assert memory.key_shown(SG_B, rsa_key("mallory"))
    for number in (3, 4):  # those of ours displace theirs first
        memory.pair_encrypted(pair(number), SG_B)
    assert [bool(memory.encrypted_by(pair(n))) for n in (1, 2, 3, 4, 199)] == [
        True, False, True, True, False,
    ]  # fmt: skip
    assert len(memory._pairs._guests) == 0


def test_memory_is_bounded_though_nobody_writes() -> None:
    memory = KeyMemory(most=10)
    for number in range(1000):
        memory.pair_encrypted(Selectors(ip_network(number), ip_network("192.2.0.66/32")), SG_B)
        assert len(memory) <= 10
        assert len(memory._pairs._changed) <= 22
    changes = memory.take_changes()
    if changes.whole:
        assert len(changes.pairs) == 10
    assert not memory.changed
    assert not memory.take_changes().whole


def test_more_than_fits_was_saved_by_a_greater_one() -> None:
    memory = KeyMemory([(f"a {n}", "x") for n in range(5)], most=3)
    assert len(memory) == 3
    assert memory.take_changes().pairs == {"a 0": None, "a 1": None}
