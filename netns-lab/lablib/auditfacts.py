"""What stands in the audit log of a gateway."""

from __future__ import annotations

import fnmatch
import json
import stat
from typing import Any

from lablib.lab import Lab
from lablib.stage import Missed, check_keys
from lablib.traces import meant, plain
from lablib.waiting import wait_until


def audit(lab: Lab, fact: dict[str, Any]) -> str:
    """``file`` in the run's directory has ``lines``, each once and nothing else; a gateway's own
    events go by their name, decisions as ``EVENT DECISION SOURCE DESTINATION RULE CATEGORY
    key=value ...`` with ``*`` and ``?`` as usual.  What is renewed does not count."""
    check_keys(fact, {"gateway", "file", "lines"})
    path = lab.run.directory / fact["file"]
    wanted = list(fact["lines"])
    wait_until("its lines", lambda: len(_told(path.read_text())) >= len(wanted))
    told = _told(path.read_text())
    for line in told:
        found = next((each for each in wanted if _matches(lab, line, each)), None)
        if found is None:
            raise Missed(f"one too many, or another: {json.dumps(line)}")
        wanted.remove(found)
    if wanted:
        raise Missed(f"not there: {wanted[0]}")
    return f"{len(told)} lines, each decision once"


def mode(lab: Lab, fact: dict[str, Any]) -> str:
    """``file`` in the run's directory has this ``mode``, in octal."""
    check_keys(fact, {"gateway", "file", "mode"})
    found = f"{stat.S_IMODE((lab.run.directory / fact['file']).stat().st_mode):04o}"
    if found != fact["mode"]:
        raise Missed(found)
    return found


def _told(text: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in text.splitlines()]
    return [line for line in lines if line["event"] != "renewed"]


def _matches(lab: Lab, line: dict[str, Any], pattern: str) -> bool:
    event, *words = pattern.split()
    if line["event"] != event:
        return False
    names = ("decision", "source", "destination", "rule", "category")
    pairs = list(zip(names, words, strict=False))
    pairs += [(key, value) for key, _, value in (word.partition("=") for word in words[5:])]
    return all(fnmatch.fnmatchcase(plain(line.get(k)), meant(lab, v)) for k, v in pairs)
