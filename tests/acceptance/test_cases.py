"""The table of cases in README.md: each case is in it, and what it names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.acceptance.requirements import missing

ROOT = Path(__file__).parents[2]
TABLE = [
    [cell.strip() for cell in line.strip("|\n ").split(" | ")]
    for line in Path(__file__).with_name("README.md").read_text(encoding="utf-8").splitlines()
    if re.match(r"\| \d+ ", line)
]


def test_every_case_is_there() -> None:
    assert {int(row[0]) for row in TABLE} == set(range(1, 26))


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row[0]} {row[1]}")
def test_what_shows_a_case_exists(row: list[str]) -> None:
    tests = re.findall(r"`([\w/.]+\.py)::([\w*]+)`", row[2])
    scenarios = re.findall(r"scenario `([\w-]+)`", row[2])
    assert tests or scenarios
    for path, name in tests:
        place = path if "/" in path else f"tests/acceptance/{path}"
        assert missing(f"{place} {name}") is None
    for scenario in scenarios:
        assert missing(f"scenario {scenario}") is None


def test_a_scenario_says_which_cases_it_shows() -> None:
    shown: dict[str, list[str]] = {}
    for row in TABLE:
        for scenario in re.findall(r"scenario `([\w-]+)`", row[2]):
            shown.setdefault(scenario, []).append(row[0])
    for readme in ROOT.glob("netns-lab/scenarios/*/README.md"):
        said = re.search(r"^Acceptance: cases? ([\d, ]+) of", readme.read_text("utf-8"), re.M)
        assert (said[1].split(", ") if said else []) == shown.get(readme.parent.name, []), readme


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row[0]} {row[1]}")
def test_tests_of_the_town_have_the_name_of_their_case(row: list[str]) -> None:
    """Each name of the anchor is part of a test's name, or a scenario or an attack shows it."""
    if int(row[0]) in (20, 21, 23, 24, 25) or "scenario `napt`" in row[2]:
        return
    names = re.findall(r"test_\w+", row[2])
    for anchor in row[1].split(", "):
        if anchor.startswith("-"):
            continue
        assert any(anchor.replace("-", "_") in name for name in names), anchor
