"""Verdicts and silences for the next life: what is remembered, how long, and of which boot."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from oegw.connection import Selectors
from oegw.lasting import Lasting
from oegw.memorytable import MemoryTable, boot_of_box
from oegw.statefile import StateFile
from policy.rule import OnFailure, Require, Rule
from tests.support.playbook import opportunistic

SG_B = ip_address("192.1.1.5")
RULE = opportunistic("all")
LONGEST = 600.0


def pair(number: int = 66) -> Selectors:
    return Selectors(ip_network("192.1.0.65/32"), ip_network(f"192.2.0.{number}/32"), 6, 0, 80)


def saved(lasting: Lasting) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """The rows on disk after the first batch."""
    tables = lasting.take_changes().tables
    verdicts, silences = (
        [(key, text) for key, text in tables[name].items() if text is not None]
        for name in ("verdict", "silence")
    )
    return verdicts, silences


def next_life(lasting: Lasting, boot: str = "boot", basis: str = "") -> Lasting:
    return Lasting(boot, basis, *saved(lasting))


def test_a_verdict_is_read_as_it_was_written() -> None:
    lasting = Lasting("boot")
    lasting.stands(pair(), RULE, True, 1100.0, "no record")
    [found] = next_life(lasting).standing(1000.0, LONGEST)
    assert (found.selectors, found.rule, found.denied) == (pair(), "all", True)
    assert (found.until, found.reason) == (1100.0, "no record")
    assert found.basis == lasting.basis(RULE)


@pytest.mark.parametrize(
    ("boot", "now"),
    [
        ("another boot", 1000.0),
        ("", 1000.0),  # this boot has no name
        ("boot", 1100.0),  # over
        ("boot", 499.9),  # further away than any lifespan: another clock
    ],
)
def test_what_is_over_or_of_another_boot_is_forgotten(boot: str, now: float) -> None:
    lasting = Lasting("boot")
    lasting.stands(pair(), RULE, False, 1100.0, "no record")
    lasting.fell_silent(SG_B, 1100.0)
    again = next_life(lasting, boot)
    assert list(again.standing(now, LONGEST)) == []
    assert again.silent(now, LONGEST) == []
    assert len(again) == 0
    gone = again.take_changes()
    assert list(gone.verdicts.values()) == [None]
    assert list(gone.silences.values()) == [None]


def test_without_a_name_of_the_boot_nothing_is_remembered() -> None:
    lasting = Lasting("")
    lasting.stands(pair(), RULE, False, 1100.0, "no record")
    lasting.fell_silent(SG_B, 1100.0)
    assert not lasting.changed


@pytest.mark.parametrize(
    "other",
    [
        replace(RULE, on_failure=OnFailure.DROP),
        replace(RULE, require=Require.SECURE),
        replace(RULE, initiate=False),
        replace(RULE, protocol=6),
    ],
)
def test_a_rule_that_says_otherwise_is_another_basis(other: Rule) -> None:
    assert Lasting("boot").basis(other) != Lasting("boot").basis(RULE)
    assert Lasting("boot", "other settings").basis(RULE) != Lasting("boot").basis(RULE)
    assert Lasting("boot").basis(replace(RULE, origin="line 7")) == Lasting("boot").basis(RULE)


def test_only_a_tunnel_makes_a_withdrawal_urgent() -> None:
    lasting = Lasting("boot")
    lasting.withdraw(pair(), "all", urgent=True)
    assert not lasting.urgent, "there was nothing to withdraw"
    for urgent in (False, True):
        lasting.stands(pair(), RULE, False, 1100.0, "no record")
        lasting.withdraw(pair(), "all", urgent=urgent)
        assert lasting.urgent is urgent
    assert list(lasting.take_changes().verdicts.values()) == [None]
    assert not lasting.urgent


def test_a_silence_goes_on_for_what_is_left_and_ends_with_a_sign_of_life() -> None:
    lasting = Lasting("boot")
    lasting.fell_silent(SG_B, 1060.0)
    again = next_life(lasting)
    assert again.silent(1020.0, 60.0) == [(SG_B, 40.0)]
    again.silence_over(SG_B)
    assert again.silent(1020.0, 60.0) == []


@pytest.mark.parametrize(
    "text",
    [
        "", "nonsense", "[]", "null", "[" * 5000, '["boot", "soon", false, "b", "r"]',
        '["boot", 1e999, false, "b", "r"]', '["boot", NaN, false, "b", "r"]',
        '["boot", 1100.0, "no", "b", "r"]', f'["boot", {"9" * 400}, true, "b", "r"]',
    ],
)  # fmt: skip
def test_rows_that_nobody_of_us_wrote_are_dropped(text: str) -> None:
    key = "192.1.0.65/32 192.2.0.66/32 6 0 80 all"
    lasting = Lasting("boot", "", [(key, text)], [("192.1.1.5", text)])
    assert list(lasting.standing(1000.0, LONGEST)) == []
    assert lasting.silent(1000.0, LONGEST) == []


@pytest.mark.parametrize("key", ["", "a b 0 0 0 all", "192.1.0.65/32 192.2.0.66/32 6 0 80"])
def test_keys_that_nobody_of_us_wrote_are_dropped(key: str) -> None:
    text = json.dumps(["boot", 1100.0, False, "basis", "no record"])
    lasting = Lasting("boot", "", [(key, text)], [(key, json.dumps(["boot", 1100.0]))])
    assert list(lasting.standing(1000.0, LONGEST)) == []
    assert lasting.silent(1000.0, LONGEST) == []


def test_the_newest_are_kept_and_read_first(tmp_path: Path) -> None:
    table = MemoryTable(StateFile(tmp_path / "oegw.db"))
    lasting = table.load_lasting("boot", "", most=2)
    for number in (1, 2, 3):
        lasting.stands(pair(number), RULE, False, 1100.0, "no record")
        table.save(lasting.take_changes())
    again = MemoryTable(StateFile(tmp_path / "oegw.db")).load_lasting("boot", "", most=2)
    assert [found.selectors for found in again.standing(1000.0, LONGEST)] == [pair(3), pair(2)]


def test_nobody_writes_for_long_and_then_all_of_it(tmp_path: Path) -> None:
    table = MemoryTable(StateFile(tmp_path / "oegw.db"))
    lasting = table.load_lasting("boot", "", most=4)
    lasting.stands(pair(200), RULE, False, 1100.0, "no record")
    table.save(lasting.take_changes())
    for number in range(9):
        lasting.stands(pair(number), RULE, False, 1100.0, "no record")
    changes = lasting.take_changes()
    assert changes.whole
    table.save(changes)
    again = MemoryTable(StateFile(tmp_path / "oegw.db")).load_lasting("boot", "", most=100)
    assert [found.selectors for found in again.standing(1000.0, LONGEST)] == [
        pair(number) for number in (8, 7, 6, 5)
    ]


def test_this_boot_has_a_name() -> None:
    assert len(boot_of_box()) == 36
