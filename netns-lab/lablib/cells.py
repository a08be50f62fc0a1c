"""A matrix of policies: what is expected of each cell, what was seen of it, and the drawing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lablib.errors import LabError

OUTCOMES = {"T": "tunnel", "C": "clear", "X": "nothing"}
TELL = {"request": "echo request", "reply": "echo reply"}


@dataclass(frozen=True, slots=True)
class Cell:
    """What must become of the first packet of one pair.

    ``clear``: what of it is on the public link in clear; ``near`` and ``far``: the states in which
    the connection ends on the two gateways, "-" for none.
    """

    row: str
    column: str
    outcome: str
    clear: tuple[str, ...]
    near: str
    far: str

    @property
    def answered(self) -> bool:
        return self.outcome != "X"


@dataclass(frozen=True, slots=True)
class Plan:
    """``[matrix]`` of a scenario."""

    hosts: tuple[str, str]
    gateways: tuple[str, str]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[Cell, ...]
    link: str
    apart: float
    within: float
    after: float


def plan(table: dict[str, Any]) -> Plan:
    """Raises LabError for a table that leaves out a cell or has one twice."""
    cells = []
    for entry in table["cells"]:
        row, column, outcome, clear, near, far = entry
        if outcome not in OUTCOMES or not set(clear.split()) <= TELL.keys():
            raise LabError(f"matrix: cell {entry}")
        cells.append(Cell(row, column, outcome, tuple(clear.split()), near, far))
    rows, columns = tuple(table["rows"]), tuple(table["columns"])
    if [(c.row, c.column) for c in cells] != [(r, c) for r in rows for c in columns]:
        raise LabError("matrix: there must be one cell for each row and column, row by row")
    return Plan(
        hosts=tuple(table["hosts"]),
        gateways=tuple(table["gateways"]),
        rows=rows,
        columns=columns,
        cells=tuple(cells),
        link=table.get("link", "west"),
        apart=table.get("apart", 0.05),
        within=table.get("within", 5.0),
        after=table.get("after", 0.5),
    )


@dataclass(frozen=True, slots=True)
class Seen:
    """What became of it."""

    seconds: float | None  # until the reply
    near: str
    far: str
    spis: frozenset[str]


@dataclass(slots=True)
class Played:
    """A plan, and what was seen of each of its cells so far."""

    plan: Plan
    pairs: list[tuple[str, str]]
    seen: list[Seen]


def draw(played: Played, title: str) -> list[str]:
    """The matrix as a table: the outcome of each cell, and its milliseconds."""
    wanted = played.plan
    width = max(map(len, (*wanted.rows, *wanted.columns))) + 2
    lines = [
        f"{title}: rows ping first; T answered through the tunnel, C in clear, X not at all; in ms",
        " " * width + "".join(f"{column:>{width}}" for column in wanted.columns),
    ]
    cells = iter(zip(wanted.cells, played.seen, strict=True))
    for row in wanted.rows:
        line = f"{row:{width}}"
        for _ in wanted.columns:
            cell, seen = next(cells)
            right = cell.answered == (seen.seconds is not None)
            text = "X" if seen.seconds is None else f"{cell.outcome} {seen.seconds * 1000:.0f}"
            line += f"{text if right else '! ' + text:>{width}}"
        lines.append(line)
    return lines
