"""The matrix of policies: each of ours against each of theirs, one host pair a cell.

Each host of a crowd has a policy of its own on its gateway, by its address: the first crowd's are
the rows, the second's the columns.  Each pair begins with one packet, a ping of the first crowd's.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from lablib import crossing, pings
from lablib.cells import TELL, Cell, Plan, Played, Seen
from lablib.errors import LabError
from lablib.lab import Lab
from lablib.pcap import Packet
from lablib.stage import Missed, Stage, check_keys
from lablib.traces import plain
from lablib.waiting import patient, wait_until

PAYLOAD = "oegw clear text!" * 3  # the pattern of the pings, so that the same search finds it
QUICK = 3.0  # seconds; to wait for a gateway that is silent takes 15
UNDECIDED = {"potential", "pending"}


def _pairs(lab: Lab, wanted: Plan) -> list[tuple[str, str]]:
    """The address pair of each cell."""
    ours, theirs = (lab.crowd(host) for host in wanted.hosts)
    if (len(ours), len(theirs)) != (len(wanted.rows), len(wanted.columns)):
        raise LabError("matrix: a crowd must have as many addresses as there are policies")
    return [(str(one), str(other)) for one in ours for other in theirs]


def _state(rows: list[dict[str, Any]], source: str, destination: str) -> tuple[str, set[str]]:
    """The state of a connection in a status, and the SPIs of its tunnel."""
    for row in rows:
        if (plain(row["source"]), plain(row["destination"])) == (source, destination):
            spis = {str(row[key]) for key in ("spi_in", "spi_out") if row.get(key)}
            return str(row["state"]).lower(), spis
    return "-", set()


def play(stage: Stage, step: dict[str, Any]) -> str:
    """Send the first packet of each cell of ``[matrix]``, and wait for what becomes of it."""
    check_keys(step, set())
    lab, wanted = stage.lab, stage.lab.scenario.matrix
    if wanted is None:
        raise LabError("the scenario has no [matrix]")
    pairs = _pairs(lab, wanted)
    order = {
        "requests": pairs,
        "family": lab.scenario.family,
        "apart": patient(wanted.apart),
        "answers": sum(cell.answered for cell in wanted.cells),
        "within": patient(wanted.within),
        "after": patient(wanted.after),
        "payload": PAYLOAD,
    }
    command = [sys.executable, str(Path(pings.__file__)), json.dumps(order)]
    longest = wanted.apart * len(pairs) + wanted.within + wanted.after
    result = lab.run.call(wanted.hosts[0], command, longest + 10)
    if result.returncode:
        raise LabError(f"matrix: {result.stderr}")
    times = json.loads(result.stdout)
    near, far = _decided(lab, wanted)
    played = Played(wanted, pairs, [])
    for seconds, (one, other) in zip(times, pairs, strict=True):
        here, ours = _state(near, one, other)
        there, theirs = _state(far, other, one)
        played.seen.append(Seen(seconds, here, there, frozenset(ours | theirs)))
    lab.matrix = played
    return f"{sum(t is not None for t in times)} of {len(pairs)} first packets were answered"


def _decided(lab: Lab, wanted: Plan) -> list[list[dict[str, Any]]]:
    """The connections of both gateways, as soon as each has a verdict."""
    found: list[list[dict[str, Any]]] = []

    def settled() -> bool:
        found[:] = crossing.statuses(lab, list(wanted.gateways))
        return not any(str(row["state"]).lower() in UNDECIDED for rows in found for row in rows)

    wait_until("a verdict for each pair", settled, wanted.within)
    return found


def amiss(cell: Cell, seen: Seen, pair: tuple[str, str], found: list[Packet]) -> list[str]:
    """What is not as the cell says."""
    result = []
    if cell.answered != (seen.seconds is not None):
        result.append("no answer" if cell.answered else "an answer")
    elif seen.seconds is not None and seen.seconds > patient(QUICK):
        result.append(f"an answer after {seen.seconds:.1f} s")
    states = (seen.near, seen.far)
    if states != (cell.near, cell.far):
        result.append(f"states {states[0]} and {states[1]}, not {cell.near} and {cell.far}")
    clear = sorted(p.kind for p in found if {str(p.source), str(p.destination)} == set(pair))
    if clear != sorted(TELL[word] for word in cell.clear):
        result.append(f"in clear: {', '.join(clear) or 'nothing'}")
    sealed = [p for p in found if p.spi in seen.spis]
    if (cell.outcome == "T") != bool(sealed):
        result.append(f"{len(sealed)} packets of ESP")
    return result


def outcomes(lab: Lab, fact: dict[str, Any]) -> str:
    """Each cell: answered or not, what was on the public link, the states of both gateways."""
    check_keys(fact, set())
    played = lab.matrix
    if played is None:
        raise LabError("no step matrix was taken")
    found = lab.captured[played.plan.link]
    wrong = []
    for cell, seen, pair in zip(played.plan.cells, played.seen, played.pairs, strict=True):
        deviations = amiss(cell, seen, pair, found)
        if deviations:
            wrong.append(f"{cell.row} x {cell.column}: {', '.join(deviations)}")
    if wrong:
        raise Missed("; ".join(wrong))
    return f"{len(played.seen)} cells"
