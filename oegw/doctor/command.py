"""`oegw doctor`: what is found, as text or for programs."""

from __future__ import annotations

import json
from textwrap import fill

from oegw import __version__
from oegw.arguments import Arguments, UsageError
from oegw.doctor.checks import NAMES, SUBJECTS, Examination, examine
from oegw.doctor.finding import NOTE, PROBLEM, WARNING
from oegw.doctor.gathering import facts_of
from oegw.exitcodes import FAILED, FINE
from oegw.status import plain


def run(arguments: Arguments) -> int:
    """FAILED if there is a problem, else FINE.  Raises UsageError for a name that is none."""
    only = frozenset(arguments.only)
    if strange := sorted(only - NAMES):
        subjects = ", ".join(subject.name for subject in SUBJECTS)
        raise UsageError(f"--only: {strange[0]!r} is neither a finding nor one of {subjects}")
    found = examine(facts_of(arguments.config), only)
    if arguments.json:
        print(json.dumps(as_json(found), indent=2))
    else:
        print(as_text(found), end="")
    return FAILED if found.count(PROBLEM) else FINE


def as_json(found: Examination) -> dict[str, object]:
    return {
        "version": __version__,
        "problems": found.count(PROBLEM),
        "warnings": found.count(WARNING),
        "notes": found.count(NOTE),
        "findings": [
            {
                "name": finding.name,
                "subject": subject,
                "severity": finding.severity.value,
                "what": finding.what,
                "why": finding.why,
                "mend": finding.mend,
            }
            for subject, finding in found.findings
        ],
        "examined": list(found.examined),
        "unexamined": [{"subject": name, "reason": why} for name, why in found.unexamined],
    }


def as_text(found: Examination) -> str:
    """The worst first; commands on lines of their own, so that they can be copied."""
    lines = []
    for severity in (PROBLEM, WARNING, NOTE):
        for _, finding in found.findings:
            if finding.severity is severity:
                lines.append(f"{severity.value:<9}{finding.name}: {plain(finding.what)}")
                lines.append(
                    fill(finding.why, 96, initial_indent=" " * 9, subsequent_indent=" " * 9)
                )
                if finding.mend:
                    lines.append(f"         $ {plain(finding.mend)}")
                lines.append("")
    for name, why in found.unexamined:
        lines.append(f"not examined: {name}: {plain(why)}")
    problems, warnings, notes = (found.count(each) for each in (PROBLEM, WARNING, NOTE))
    lines.append(
        f"{len(found.examined)} subjects examined: "
        f"{_many(problems, 'problem')}, {_many(warnings, 'warning')}, {_many(notes, 'note')}"
    )
    return "\n".join(lines) + "\n"


def _many(number: int, word: str) -> str:
    return f"{number or 'no'} {word}{'' if number == 1 else 's'}"
