"""Deadlines: the earliest first, one for an item, and nothing kept for long."""

from __future__ import annotations

import random

from oegw.datapath.userspace.deadlines import Deadlines


def test_the_earliest_first_and_each_once() -> None:
    deadlines: Deadlines[str] = Deadlines()
    assert deadlines.next() is None
    deadlines.set("b", 2.0)
    deadlines.set("a", 1.0)
    deadlines.set("same", 2.0)
    assert deadlines.next() == 1.0
    assert deadlines.due(0.9) == []
    assert deadlines.due(2.0) == ["a", "b", "same"]
    assert deadlines.next() is None
    assert deadlines.due(9.0) == []


def test_the_last_deadline_of_an_item_counts() -> None:
    deadlines: Deadlines[str] = Deadlines()
    deadlines.set("a", 1.0)
    deadlines.set("a", 3.0)
    deadlines.set("b", 2.0)
    deadlines.discard("b")
    deadlines.discard("never there")
    assert deadlines.next() == 3.0
    assert deadlines.due(5.0) == ["a"]


def test_removed_items_are_not_kept() -> None:
    deadlines: Deadlines[int] = Deadlines()
    for item in range(10_000):
        deadlines.set(item, 3600.0 + item)
        deadlines.discard(item)
    assert len(deadlines) <= 64


def test_any_order_against_a_plain_table() -> None:
    source = random.Random(1)
    deadlines: Deadlines[int] = Deadlines()
    table: dict[int, float] = {}
    now = 0.0
    for _ in range(20_000):
        item, choice = source.randrange(200), source.random()
        if choice < 0.6:
            table[item] = now + source.randrange(50)
            deadlines.set(item, table[item])
        elif choice < 0.8:
            table.pop(item, None)
            deadlines.discard(item)
        else:
            now += source.randrange(10)
            due = deadlines.due(now)
            assert sorted(due) == sorted(item for item, at in table.items() if at <= now)
            times = [table.pop(item) for item in due]
            assert times == sorted(times)
        assert deadlines.next() == min(table.values(), default=None)
