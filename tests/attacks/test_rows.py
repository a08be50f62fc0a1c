"""Every attack of the design page: it comes to nothing, and it does not without the defence."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.attacks import table
from tests.attacks.frame import MONIKER, SOCKS, SST, Attack

ROOT = Path(__file__).parents[2]
ROWS = [*range(1, 26), "measured", SST, MONIKER, SOCKS]

each = pytest.mark.parametrize(
    "one",
    [
        pytest.param(
            a, id=f"{a.row}-{a.name}", marks=[getattr(pytest.mark, mark) for mark in a.marks]
        )
        for a in table.ATTACKS
    ],
)


@each
def test_it_comes_to_nothing(one: Attack) -> None:
    one.perform()


@each
def test_it_does_not_without_the_defence(one: Attack, monkeypatch: pytest.MonkeyPatch) -> None:
    one.without(monkeypatch)
    with pytest.raises((AssertionError, pytest.fail.Exception)) as failed:
        one.perform()
    seen_by = [Path(str(entry.path)) for entry in failed.traceback]
    inside = [path.relative_to(ROOT).parts[0] for path in seen_by if path.is_relative_to(ROOT)]
    ours = [part for part in inside if part != ".venv"]  # which may be in the tree, or elsewhere
    assert ours[-1] == "tests", f"{seen_by[-1]} raised: no attack of ours saw it"


def test_every_row_has_an_attack() -> None:
    assert [row for row in ROWS if not any(a.row == row for a in table.ATTACKS)] == []


@pytest.mark.parametrize("defence", sorted({d for a in table.ATTACKS for d in a.defence}))
def test_the_defence_is_where_the_table_says(defence: str) -> None:
    path, symbol = defence.split()
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    assert symbol in table.symbols(tree), f"{path} has no {symbol}"


def test_the_table_is_what_the_tests_say() -> None:
    """``python -m tests.attacks.table`` writes it."""
    assert table.PAGE.read_text(encoding="utf-8") == table.page()
