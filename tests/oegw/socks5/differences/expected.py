"""What is known of each server: `differences.toml`, read and checked."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).with_name("differences.toml")
OTHERS = {"danted": "Dante", "microsocks": "microsocks", "ssh_d": "ssh -D"}


@dataclass(frozen=True)
class Difference:
    """``heard``: in place of what ours does; one of several where it is a race.  ``why``: the
    reasons' names."""

    heard: tuple[list[str], ...]
    why: tuple[str, ...]


@dataclass(frozen=True)
class Expected:
    ours: Mapping[str, list[str]]
    differences: Mapping[tuple[str, str], Difference]  # by case and server
    reasons: Mapping[str, str]

    def agrees(self, case: str, server: str, heard: Sequence[str]) -> bool:
        difference = self.differences.get((case, server))
        allowed = difference.heard if difference is not None else (self.ours[case],)
        return list(heard) in allowed


@cache
def expected() -> Expected:
    with SOURCE.open("rb") as file:
        values = tomllib.load(file)
    differences = {}
    for case, row in values["case"].items():
        for server in row.keys() - {"ours"}:
            entry = row[server]
            heard = (entry["heard"], *entry.get("or", ()))
            differences[case, server] = Difference(heard, tuple(entry["why"]))
    ours = {case: row["ours"] for case, row in values["case"].items()}
    return Expected(ours, differences, values["reason"])
