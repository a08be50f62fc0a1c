"""The manual's page on speed: its text is written by hand, its figures by the bench."""

from __future__ import annotations

from pathlib import Path

from tests.bench.datapath.drawing import drawing
from tests.bench.datapath.figures import Run
from tests.bench.datapath.table import markdown

PAGE = "oegw/docs/datapath-speed.md"
PICTURE = """![throughput, packets, round trips and CPU time of each](datapath-speed.svg)

Blue is ours, brown others, grey no tunnel at all.
"""
VALUES = "All values of each round are in [datapath-speed.json](datapath-speed.json)."
BEGIN, END = "<!-- figures: written by tests.bench.datapath -->", "<!-- end of figures -->"


def replaced(page: str, figures: str) -> str:
    """The page with other figures between the two marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE} has no place for figures: {BEGIN}")
    return f"{before}{BEGIN}\n\n{figures}\n{END}{after}"


def write(root: Path, run: Run) -> None:
    path = root / PAGE
    figures = f"{PICTURE}\n{markdown(run)}\n{VALUES}"
    path.write_text(replaced(path.read_text(encoding="utf-8"), figures), encoding="utf-8")
    path.with_suffix(".svg").write_text(drawing(run), encoding="utf-8")
    path.with_suffix(".json").write_text(run.serialize(), encoding="utf-8")
