"""Each scenario of netns-lab, run by name, as a reader would run it."""

from __future__ import annotations

import pytest

from tests.support.lab_commands import lab, scenario_names


@pytest.mark.lab
@pytest.mark.netns
@pytest.mark.parametrize("name", [name for name in scenario_names() if name != "demo"])
def test_scenario(name: str) -> None:
    code, output = lab("run", name)
    assert code == 0, output
    assert "ok " in output
    assert "FAILED" not in output
