"""Each scenario of netns-lab as a test of its own, by name: `tests/run -m scenario -k matrix`.

`tests/run` itself plays them all with `netns-lab/lab run --all`, several side by side.
"""

from __future__ import annotations

import pytest

from tests.support.lab_commands import lab, long_scenario_names, scenario_names


@pytest.mark.lab
@pytest.mark.netns
@pytest.mark.scenario
@pytest.mark.parametrize("name", [name for name in scenario_names() if name != "demo"])
def test_scenario(name: str) -> None:
    code, output = lab("run", name)
    if " is for kernels that queue packets by " in output:
        pytest.skip(output.strip())
    passes(code, output)


@pytest.mark.lab
@pytest.mark.netns
@pytest.mark.scenario
@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", long_scenario_names())
def test_longer_form_of_a_scenario(name: str) -> None:
    passes(*lab("run", "--long", name, patience=270.0))


def passes(code: int, output: str) -> None:
    assert code == 0, output
    assert "ok " in output
    assert not [line for line in output.splitlines() if line.startswith("FAILED")], output
