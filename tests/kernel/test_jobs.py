"""Which jobs the test kernel has, and which of them share a guest."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tests.kernel import jobs
from tests.kernel.building import ROOT

SCENARIOS = sorted(p.parent.name for p in (ROOT / "netns-lab/scenarios").glob("*/expect.toml"))


def test_every_scenario_is_played_with_the_kernels_datapath_unless_it_says_why_not() -> None:
    played = {job.name.removesuffix("@kernel") for job in jobs.load() if job.datapath == "kernel"}
    entries = tomllib.loads((jobs.HERE / "jobs.toml").read_text())["lab"]
    (without,) = [entry["without"] for entry in entries if "without" in entry]
    left_out = set(SCENARIOS) - played - set(without)
    assert left_out == {
        "crash-configured", "crash-drop", "datapath-numbers", "datapath-rough", "datapath-workers",
        "encapsulation-auto",
    }  # fmt: skip
    for name in left_out:
        readme = (ROOT / "netns-lab/scenarios" / name / "README.md").read_text()
        assert "It is about our own datapath" in readme


def test_scenarios_share_guests_and_none_is_lost_or_played_twice() -> None:
    single = jobs.load()
    together = jobs.grouped(single)
    assert [j for j in together if not j.scenarios] == [j for j in single if not j.scenarios]
    for kind in {(job.datapath, job.virtual) for job in single if job.scenarios}:
        before = [job.scenarios[0] for job in single if (job.datapath, job.virtual) == kind]
        guests = [job.scenarios for job in together if (job.datapath, job.virtual) == kind]
        assert [name for names in guests for name in names] == before
        assert all(len(names) <= jobs.TOGETHER for names in guests)
        assert len(guests) == -(-len(before) // jobs.TOGETHER)
    assert len({job.name for job in together}) == len(together)


def test_a_guest_plays_its_scenarios_one_after_the_other_and_leaves_a_table(
    tmp_path: Path,
) -> None:
    kernel = type("Kernel", (), {"image": Path("/kernel")})()
    (job,) = jobs.grouped([j for j in jobs.load() if j.name in ("dave@kernel", "demo@kernel")])
    line = job.command_line(kernel, tmp_path, tmp_path / "keys")
    start = line.index("netns-lab/lab")
    assert line[start:] == [
        "netns-lab/lab", "run", "--jobs", "1", "--datapath", "kernel",
        "--table", str(tmp_path / "table"), "dave", "demo",
    ]  # fmt: skip


def test_what_is_left_out_has_to_be_there(tmp_path: Path) -> None:
    path = tmp_path / "jobs.toml"
    path.write_text(
        'job = []\n[[lab]]\ndatapath = "kernel"\nscenarios = ["all"]\nwithout = ["x"]\n'
    )
    with pytest.raises(ValueError, match="no scenario to be without: x"):
        jobs.load(path)


def test_a_job_with_a_misspelt_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "jobs.toml"
    path.write_text('lab = []\n[[job]]\nname = "x"\nwhat = "y"\ncommand = []\nmemry = 5\n')
    with pytest.raises(TypeError):
        jobs.load(path)
