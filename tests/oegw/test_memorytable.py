"""The key memory on disk."""

from __future__ import annotations

import sqlite3
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from oegw.connection import Selectors
from oegw.memory import KeyMemory
from oegw.memorytable import MemoryTable
from oegw.statefile import StateError, StateFile
from tests.support.playbook import rsa_key

SG_B = ip_address("192.1.1.5")


def pair(number: int) -> Selectors:
    return Selectors(ip_network("192.1.0.65/32"), ip_network(f"192.2.0.{number}/32"))


def reopened(path: Path, most: int = 100) -> KeyMemory:
    """What the next process finds; nothing was closed, as if this one had been killed."""
    return MemoryTable(StateFile(path)).load(most)


def test_what_was_saved_is_there_in_the_next_life(tmp_path: Path) -> None:
    path = tmp_path / "oegw.db"
    table = MemoryTable(StateFile(path))
    memory = table.load()
    memory.pair_encrypted(pair(66), SG_B)
    memory.key_shown(SG_B, rsa_key("sg-b"))
    table.save(memory.take_changes())
    again = reopened(path)
    assert again.encrypted_by(pair(66)) == "192.1.1.5"
    assert not again.changed
    assert again.key_shown(SG_B, rsa_key("mallory"))


def test_the_order_of_keying_survives(tmp_path: Path) -> None:
    path = tmp_path / "oegw.db"
    table = MemoryTable(StateFile(path))
    memory = table.load()
    for number in (1, 2, 3):
        memory.pair_encrypted(pair(number), SG_B)
        table.save(memory.take_changes())
    memory.pair_encrypted(pair(1), SG_B)
    table.save(memory.take_changes())
    again = reopened(path, most=2)
    assert [again.encrypted_by(pair(number)) is not None for number in (1, 2, 3)] == [
        True,
        False,
        True,
    ]


def test_what_was_forgotten_is_gone_from_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "oegw.db"
    table = MemoryTable(StateFile(path))
    memory = table.load()
    memory.pair_encrypted(pair(66), SG_B)
    table.save(memory.take_changes())
    memory.forget(ip_network("0.0.0.0/0"))
    table.save(memory.take_changes())
    assert reopened(path).encrypted_by(pair(66)) is None


def test_after_too_many_changes_the_whole_is_written(tmp_path: Path) -> None:
    path = tmp_path / "oegw.db"
    table = MemoryTable(StateFile(path))
    memory = table.load(most=4)
    memory.pair_encrypted(pair(200), SG_B)
    table.save(memory.take_changes())
    number = 0
    while True:
        memory.pair_encrypted(pair(number), SG_B)
        number += 1
        if memory._whole:
            break
    changes = memory.take_changes()
    assert changes.whole
    table.save(changes)
    again = reopened(path)
    assert len(again) == 4
    assert again.encrypted_by(pair(200)) is None
    assert again.encrypted_by(pair(number - 1)) == "192.1.1.5"


def test_rows_that_are_not_ours_are_passed_over(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "oegw.db")
    file.database.execute("INSERT INTO pair VALUES (x'ff', 'a'), ('b', x'00'), ('c', 'd')")
    assert len(MemoryTable(file).load()) == 1


def test_a_failed_save_changes_nothing_and_is_told(tmp_path: Path) -> None:
    path = tmp_path / "oegw.db"
    table = MemoryTable(StateFile(path))
    memory = table.load()
    memory.pair_encrypted(pair(66), SG_B)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    changes = memory.take_changes()
    with pytest.raises(StateError, match="locked"):
        table.save(changes)
    other.execute("ROLLBACK")
    table.save(changes)
    assert reopened(path).encrypted_by(pair(66)) == "192.1.1.5"
