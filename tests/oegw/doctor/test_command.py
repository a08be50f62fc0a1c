"""`oegw doctor` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from oegw.cli import main
from oegw.doctor.checks import Examination
from oegw.doctor.command import as_json, as_text
from oegw.doctor.finding import NOTE, PROBLEM, Finding
from oegw.exitcodes import FAILED, FINE, USAGE

FOUND = Examination(
    ("clock", "ports"),
    (
        ("clock", Finding("clock-free", NOTE, "it runs\x1b free", "it drifts", "")),
        ("ports", Finding("port-taken", PROBLEM, "by x", "nobody hears us", "kill 9")),
    ),
    (("mtu", "only root can"),),
)


def test_text_has_the_worst_first() -> None:
    assert as_text(FOUND).splitlines() == [
        "problem  port-taken: by x",
        "         nobody hears us",
        "         $ kill 9",
        "",
        "note     clock-free: it runs? free",
        "         it drifts",
        "",
        "not examined: mtu: only root can",
        "2 subjects examined: 1 problem, no warnings, 1 note",
    ]


def test_json() -> None:
    told = json.loads(json.dumps(as_json(FOUND)))
    assert (told["problems"], told["warnings"], told["notes"]) == (1, 0, 1)
    assert told["findings"][1] == {
        "name": "port-taken", "subject": "ports", "severity": "problem", "what": "by x",
        "why": "nobody hears us", "mend": "kill 9",
    }  # fmt: skip
    assert told["unexamined"] == [{"subject": "mtu", "reason": "only root can"}]


def test_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--only", "limits", "clock"]) == FINE
    assert "2 subjects examined: no problems" in capsys.readouterr().out
    wrong = tmp_path / "oegw.toml"
    wrong.write_text("version = 1\nverson = 2\n")
    arguments = ["doctor", "--config", str(wrong), "--only", "configuration-faulty", "--json"]
    assert main(arguments) == FAILED
    [finding] = json.loads(capsys.readouterr().out)["findings"]
    assert finding["name"] == "configuration-faulty"
    assert "verson" in finding["what"]


def test_a_name_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--only", "everything"]) == USAGE
    assert "'everything' is neither a finding nor one of" in capsys.readouterr().err
