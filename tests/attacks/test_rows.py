"""Every attack of the design page: it comes to nothing, and it does not without the defence."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.attacks import flood, keying
from tests.attacks.frame import ATTACKS, Attack

ROOT = Path(__file__).parents[2]

each = pytest.mark.parametrize("one", ATTACKS, ids=lambda a: f"{a.row}-{a.name}")


@each
def test_it_comes_to_nothing(one: Attack) -> None:
    one.perform()


@each
def test_it_does_not_without_the_defence(one: Attack, monkeypatch: pytest.MonkeyPatch) -> None:
    one.without(monkeypatch)
    with pytest.raises((AssertionError, pytest.fail.Exception)) as failed:
        one.perform()
    seen_by = [Path(str(entry.path)) for entry in failed.traceback]
    ours = [path.relative_to(ROOT).parts[0] for path in seen_by if path.is_relative_to(ROOT)]
    assert ours[-1] == "tests", f"{seen_by[-1]} raised: no attack of ours saw it"
