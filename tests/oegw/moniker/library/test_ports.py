"""Which ports a service may get (MK-24)."""

from __future__ import annotations

import random

import pytest

from oegw.moniker.library.ports import BLOCKED, FEWEST, HIGHEST, parse_ranges, usable

USUAL = ((32768, 60999),)


@pytest.mark.parametrize(
    ("text", "ranges"),
    [
        ("32768\t60999\n", ((32768, 60999),)),
        ("\n", ()),
        ("", ()),
        ("8080\n", ((8080, 8080),)),
        ("8080,9000-9100\n", ((8080, 8080), (9000, 9100))),
        ("60000-99999", ((60000, 65535),)),
        ("9100-9000", ()),
        ("x,1-y,-3,7,70000", ((7, 7),)),
    ],
)
def test_what_the_kernel_writes(text: str, ranges: tuple[tuple[int, int], ...]) -> None:
    assert parse_ranges(text) == ranges


def test_neither_ephemeral_nor_reserved_nor_blocked() -> None:
    ports = set(usable(USUAL, ((9000, 9100),)))
    assert min(ports) >= 1024
    assert not ports & BLOCKED
    assert not any(32768 <= port <= 60999 or 9000 <= port <= 9100 for port in ports)
    assert len(ports) == 64512 - 28232 - 101 - len(BLOCKED)


def test_browsers_speak_to_all_of_them() -> None:
    assert {2049, 4045, 6000, 6566, 6667, 10080} <= BLOCKED
    assert min(BLOCKED) >= 1024


def test_a_host_all_of_whose_ports_are_ephemeral_has_some_nonetheless() -> None:
    ports = usable(((1024, 65535),), ((9000, 9100),))
    assert len(ports) > 60000
    assert 9050 not in ports
    assert len(usable(((1024 + FEWEST + 100, 65535),), ())) < FEWEST + 100


def test_privileged_ports_start_where_the_kernel_says_and_not_lower() -> None:
    assert usable(USUAL, (), lowest=4096)[0] == 4096
    assert usable(USUAL, (), lowest=0)[0] == 1024
    assert usable(USUAL, ((0, HIGHEST),)) == ()


def test_any_text() -> None:
    dice = random.Random(7)
    for _ in range(2000):
        text = "".join(dice.choice("0123456789,- \tx") for _ in range(dice.randrange(24)))
        for first, last in parse_ranges(text):
            assert 0 <= first <= last <= HIGHEST
