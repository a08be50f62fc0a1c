"""`lab run` with several scenarios: the table, the exit code, what is left out."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from tests.support.lab_commands import LAB, lab


@pytest.fixture(scope="module")
def lablib() -> Iterator[ModuleType]:
    sys.path.insert(0, str(LAB.parent))
    try:
        import lablib
        import lablib.cli
        import lablib.outcome
        import lablib.several

        yield lablib
    finally:
        sys.path.remove(str(LAB.parent))


def _scenario(name: str, **more: object) -> SimpleNamespace:
    fields: dict[str, object] = {"alone": False, "seconds": 0.0, "summary": f"what {name} shows"}
    return SimpleNamespace(name=name, **(fields | more))


# Stands in for the lab: writes the outcome that the scenario's name asks for.
STAND_IN = """
import json, os, sys
name, options = sys.argv[2], sys.argv[3:]
path = options[options.index("--outcome") + 1]
with open("{log}", "a") as log:
    print(name, *options[:-2], file=log)
if name == "crashes":
    print("a traceback", flush=True); os.kill(os.getpid(), 9)
code = {{"good": 0, "late": 0, "bad": 1}}[name]
failed = ["the fact: seen"] if code else []
with open(path, "w") as out:
    json.dump(dict(name=name, code=code, seconds=1.5, failed=failed,
                   drawing=["the drawing"] if name == "good" else []), out)
print("all that was printed by", name); sys.exit(code)
"""


@pytest.fixture
def play(lablib: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    (tmp_path / "lab").write_text(STAND_IN.format(log=tmp_path / "order"))
    monkeypatch.setattr(lablib.several, "HOME", tmp_path)

    def played(*scenarios: SimpleNamespace, jobs: int = 2) -> int:
        return int(lablib.several.run(list(scenarios), ["--long"], jobs, tmp_path / "written"))

    return SimpleNamespace(
        run=played,
        order=lambda: (tmp_path / "order").read_text().split("\n")[:-1],
        table=lambda: (tmp_path / "written").read_text(),
    )


def test_all_as_expected(play: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    assert play.run(_scenario("late"), _scenario("good")) == 0
    lines = play.table().splitlines()
    assert lines[0].split(maxsplit=3) == ["ok", "1.5", "s", "good  what good shows"]
    assert lines[1].startswith("ok")
    assert "the drawing" in lines
    assert lines[-1].startswith("2 of 2 scenarios as expected, 2 at a time")
    printed = capsys.readouterr().out
    assert play.table() in printed
    assert "all that was printed" not in printed
    assert sorted(play.order()) == ["good --long", "late --long"]


def test_a_failure_is_told_with_all_that_was_printed(
    play: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert play.run(_scenario("bad"), _scenario("good")) == 1
    assert "FAILED" in play.table()
    assert "        - the fact: seen" in play.table().splitlines()
    assert "1 of 2 scenarios as expected" in play.table()
    assert "all that was printed by bad" in capsys.readouterr().out


def test_a_scenario_without_an_outcome_has_failed(play: SimpleNamespace) -> None:
    assert play.run(_scenario("crashes"), _scenario("good")) == 2
    assert "        - a traceback" in play.table().splitlines()


def test_the_longest_begin_first_and_those_that_are_alone_come_last(
    play: SimpleNamespace,
) -> None:
    play.run(
        _scenario("good", alone=True, seconds=99.0),
        _scenario("bad"),
        _scenario("late", seconds=5.0),
        jobs=1,
    )
    assert [line.split()[0] for line in play.order()] == ["late", "bad", "good"]


def test_there_is_at_least_one_job(lablib: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    for cpus, jobs in ((1, 1), (2, 3), (4, 6)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, n=cpus: set(range(n)))
        assert lablib.several.default_jobs() == jobs


def test_outcome_survives_the_way_from_one_process_to_another(
    lablib: ModuleType, tmp_path: Path
) -> None:
    outcome = lablib.outcome.Outcome("x", 1, 2.5, ["a"], ["b"])
    outcome.write(tmp_path / "o")
    assert lablib.outcome.Outcome(**json.loads((tmp_path / "o").read_text())) == outcome


@pytest.mark.lab
@pytest.mark.netns
def test_what_cannot_be_asked_for_is_refused_before_anything_is_built() -> None:
    assert lab("run")[0] == 2
    assert lab("run", "--all", "deny")[0] == 2
    assert lab("run", "deny", "no-such-scenario")[0] == 2
    assert lab("run", "--keep", "deny", "permit")[0] == 2
    code, output = lab("run", "--datapath", "kernel", "crash-drop")
    assert (code, "is for datapath userspace only" in output) == (2, True)


@pytest.mark.lab
@pytest.mark.netns
def test_two_by_name_are_played_and_shown_in_a_table(tmp_path: Path) -> None:
    code, output = lab("run", "--table", str(tmp_path / "t"), "q-clear", "deny")
    assert code == 0, output
    lines = (tmp_path / "t").read_text().splitlines()
    assert [line.split()[3] for line in lines[:2]] == ["deny", "q-clear"]
    assert all(line.startswith("ok") for line in lines[:2])


@pytest.mark.parametrize("kind", ["nft", "iptables"])
def test_a_scenario_for_another_kind_of_kernel_is_told_to_be_so(
    kind: str, lablib: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lablib import scenario

    monkeypatch.setattr(scenario, "_queue_kind", lambda: kind)
    reasons = {n: scenario.unfit(scenario.load(n), "") for n in ("sst-nat", "sst-nat-queue")}
    assert [bool(reason) for reason in reasons.values()] == [kind == "nft", kind == "iptables"]
    assert scenario.unfit(scenario.load("demo"), "") == ""
