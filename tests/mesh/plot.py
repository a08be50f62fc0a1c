"""Measures the mesh and writes its page: ``python -m tests.mesh.plot`` (some minutes)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tests.mesh.mesh import MEASURES, Counts, Line, run

DOCS = Path(__file__).parents[2] / "oegw" / "docs"
SIZES = (10, 20, 40, 70, 100)
CROSSING = (10, 20, 40, 70)

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 640, 420, 60, 50, 30
_COLOURS = ("#0b5394", "#b45f06", "#38761d", "#741b47", "#666666", "#bf9000", "#134f5c")
_SHOWN = ("messages", "DNS queries", "SAs", "tunnels")


def rows(measured: Sequence[Counts]) -> str:
    lines = "| gateways | " + " | ".join(MEASURES) + " | failures |\n"
    lines += "| --- |" + " --- |" * (len(MEASURES) + 1) + "\n"
    for counts in measured:
        values = " | ".join(f"{of(counts):.1f}" for of in MEASURES.values())
        lines += f"| {counts.gateways} | {values} | {counts.failures} |\n"
    return lines


def slopes(measured: Sequence[Counts]) -> str:
    peers = [c.peers for c in measured]
    lines = (
        "| count | for each peer | and once | farthest from the line |\n| --- | --- | --- | --- |\n"
    )
    for name, of in MEASURES.items():
        line = Line.through(peers, [of(c) for c in measured])
        lines += f"| {name} | {line.slope:.2f} | {line.intercept:.2f} | {line.error:.2%} |\n"
    return lines


def drawing(measured: Sequence[Counts]) -> str:
    """Counts of one gateway against the number of its peers."""
    most_x = max(c.peers for c in measured)
    most_y = max(MEASURES[name](c) for c in measured for name in _SHOWN)
    wide, high = _WIDTH - _LEFT - 150, _HEIGHT - _BOTTOM - _TOP

    def place(x: float, y: float) -> tuple[float, float]:
        return round(_LEFT + wide * x / most_x, 1), round(_TOP + high * (1 - y / most_y), 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
    ]
    for part in range(6):
        y = most_y * part / 5
        at = place(0, y)
        parts.append(
            f'<line x1="{at[0]}" y1="{at[1]}" x2="{_LEFT + wide}" y2="{at[1]}" stroke="#ddd"/>'
            f'<text x="{_LEFT - 8}" y="{at[1] + 4}" text-anchor="end">{y:.0f}</text>'
        )
    for counts in measured:
        at = place(counts.peers, 0)
        parts.append(
            f'<text x="{at[0]}" y="{at[1] + 18}" text-anchor="middle">{counts.peers}</text>'
        )
    parts.append(
        f'<text x="{_LEFT + wide / 2}" y="{_HEIGHT - 10}" text-anchor="middle">peers</text>'
        f'<text x="{_LEFT}" y="{_TOP - 12}">of one gateway</text>'
    )
    for name, colour in zip(_SHOWN, _COLOURS, strict=False):
        of = MEASURES[name]
        line = Line.through([c.peers for c in measured], [of(c) for c in measured])
        begin, end = (
            place(0, max(line.intercept, 0)),
            place(most_x, line.intercept + line.slope * most_x),
        )
        parts.append(
            f'<line x1="{begin[0]}" y1="{begin[1]}" x2="{end[0]}" y2="{end[1]}" '
            f'stroke="{colour}" stroke-width="1.5"/>'
        )
        for counts in measured:
            at = place(counts.peers, of(counts))
            parts.append(f'<circle cx="{at[0]}" cy="{at[1]}" r="3.5" fill="{colour}"/>')
        parts.append(f'<text x="{end[0] + 8}" y="{end[1] + 4}" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>\n"])


def page(measured: Sequence[Counts], crossing: Sequence[Counts]) -> str:
    most = measured[-1].gateways
    return f"""\
# A mesh of {most} gateways

Opportunistic encryption promises that cost grows with the number of peers, and not with its
square. Here each of n gateways, with one client, has a tunnel to each of the others; all run the
real coordinator, keying core, look-ups and ESP engine, in virtual time (`tests/support/town.py`).
Counted is what one gateway sends, asks the DNS and keeps, on average.

![what one gateway sends, asks and keeps, by the number of its peers](mesh.svg)

{rows(measured)}
The straight lines through these points:

{slopes(measured)}
Of each pair one side begins: four and a half messages of each side make a tunnel (main mode and
quick mode are nine), and the DNS is asked three questions: the initiator asks for the
destination's TXT record, the responder for the initiator's KEY record and its client's TXT record.
Two more each gateway asks about itself, once. Answers are remembered for as long as they hold.

## Both sides begin at the same moment

Each pair negotiates twice; one of the two tunnels is recognized as redundant and closed, and one
stays:

{rows(crossing)}
{slopes(crossing)}
Measured by `python -m tests.mesh.plot`. `python -m pytest tests/mesh` holds a smaller mesh to the
same lines at each run, `-m long` this one.
"""


def main() -> None:
    measured = [run(size) for size in SIZES]
    crossing = [run(size, crossing=True) for size in CROSSING]
    (DOCS / "mesh.svg").write_text(drawing(measured), encoding="utf-8")
    (DOCS / "mesh.md").write_text(page(measured, crossing), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
