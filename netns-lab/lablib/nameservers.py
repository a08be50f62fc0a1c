"""What can be wrong between a gateway and the DNS, and what the gateway says about it."""

from __future__ import annotations

import fnmatch
from typing import Any

from lablib import relaying
from lablib.errors import LabError
from lablib.lab import Lab
from lablib.stage import Missed, Stage, check_keys
from lablib.waiting import wait_until


def change_relay(stage: Stage, step: dict[str, Any]) -> str:
    """From now on the relay does what ``mode`` says."""
    check_keys(step, {"mode"})
    relaying.set_mode(stage.lab.run, step["mode"])
    return str(step["mode"])


def _row(lab: Lab, entry: dict[str, Any]) -> dict[str, Any]:
    rows = lab.gateways[entry["gateway"]].status()["resolvers"]
    for row in rows:
        if row["address"] == entry["address"]:
            return dict(row)
    raise LabError(f"{entry['gateway']} has no resolver {entry['address']}: {rows}")


def await_resolver(stage: Stage, step: dict[str, Any]) -> str:
    """Wait until ``gateway`` says that the resolver at ``address`` is ``standing``."""
    check_keys(step, {"gateway", "address", "standing", "within"})

    def reached() -> bool:
        return bool(_row(stage.lab, step)["standing"] == step["standing"])

    try:
        wait_until(step["standing"], reached, step.get("within", 10))
    except LabError as error:
        raise Missed(f"{error}: {_row(stage.lab, step)}") from error
    return str(step["standing"])


def resolver(lab: Lab, fact: dict[str, Any]) -> str:
    """What the status of ``gateway`` says about the resolver at ``address``."""
    check_keys(fact, {"gateway", "address", "where"})
    row, wanted = _row(lab, fact), fact["where"]
    if not all(fnmatch.fnmatchcase(str(row.get(k)), str(v)) for k, v in wanted.items()):
        raise Missed(f"{row}")
    return ", ".join(f"{key} {row.get(key)}" for key in wanted)


def said(lab: Lab, fact: dict[str, Any]) -> str:
    """A line like ``line`` is in what ``gateway`` printed."""
    check_keys(fact, {"gateway", "line"})
    text = (lab.run.directory / f"oegw-{fact['gateway']}.log").read_text(errors="replace")
    for line in text.splitlines():
        if fnmatch.fnmatchcase(line, fact["line"]):
            return line
    raise Missed(f"it said: {text[-500:] or 'nothing'}")
