"""tests/run runs each test once: every file belongs to exactly one part."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.kernel.jobs import load
from tests.support.side_by_side import MEASURED, TESTS, Part, measured, parts


def _files(part: Part) -> list[Path]:
    """The test files that pytest finds with a part's arguments."""
    root = TESTS.parent
    ignored = [root / a.removeprefix("--ignore=") for a in part.arguments if "=" in a]
    found: list[Path] = []
    for argument in part.arguments:
        path = root / argument
        if argument.startswith("tests/"):
            found += [path] if path.is_file() else path.rglob("test_*.py")
    return [f for f in found if not any(f.is_relative_to(other) for other in ignored)]


def test_every_file_of_tests_is_in_one_part() -> None:
    counted = Counter(f for part in parts() if "fuzz" not in part.name for f in _files(part))
    assert set(counted) == set(TESTS.rglob("test_*.py"))
    assert set(counted.values()) == {1}


def test_coverage_is_measured_where_it_is_judged_or_if_one_asks_everywhere() -> None:
    usual = {part.name: measured(part, everything=False) for part in parts()}
    assert {name for name, arguments in usual.items() if arguments} == set(MEASURED)
    assert "--source=ike" in usual["ike"]
    whole = {part.name for part in parts() if measured(part, everything=True)}
    assert whole == {part.name for part in parts() if "fuzz" not in part.name}


def test_only_the_lab_and_the_parsers_inputs_are_left_to_others() -> None:
    chosen = {part.name: part.arguments[:2] for part in parts()}
    assert chosen.pop("fuzz") == chosen.pop("fuzz of ports") == ("-m", "fuzz")
    assert set(chosen.values()) == {("-m", "not lab and not fuzz")}


def test_all_that_needs_the_test_kernel_is_in_the_folders_that_its_job_names() -> None:
    (job,) = [job for job in load() if job.name == "kernel"]
    folders = [TESTS.parent / word for word in job.command if word.startswith("tests/")]
    marker = "pytest.mark." + "kernel"
    marked = [path for path in TESTS.rglob("test_*.py") if marker in path.read_text()]
    assert marked
    assert [path for path in marked if not any(path.is_relative_to(each) for each in folders)] == []
