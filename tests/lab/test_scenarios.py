"""Each scenario of netns-lab, run by name, as a reader would run it."""

from __future__ import annotations

import pytest

from tests.support.lab_commands import lab, long_scenario_names, scenario_names


@pytest.mark.lab
@pytest.mark.netns
@pytest.mark.parametrize("name", [name for name in scenario_names() if name != "demo"])
def test_scenario(name: str) -> None:
    passes(*lab("run", name))


@pytest.mark.lab
@pytest.mark.netns
@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", long_scenario_names())
def test_longer_form_of_a_scenario(name: str) -> None:
    passes(*lab("run", "--long", name, patience=270.0))


def passes(code: int, output: str) -> None:
    assert code == 0, output
    assert "ok " in output
    assert "FAILED" not in output
