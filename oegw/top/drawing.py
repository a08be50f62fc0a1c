"""The page: lines of words in styles, for any width and height.  Pure; `terminal.py` shows it.

Nothing here knows a colour: a style says what a word is, and `SGR` what a terminal does with that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from oegw.status import octets, span
from oegw.top.model import STATES, Line, Rate, View

NARROWEST = 20  # columns; a page for less is cut off
_BARS = "▁▂▃▄▅▆▇█"


class Style(Enum):
    PLAIN = "plain"
    TITLE = "title"
    STRONG = "strong"
    FAINT = "faint"
    HEAD = "head"  # of the table
    GOOD = "good"
    WEAK = "weak"  # clear: passes, and is not protected
    BAD = "bad"
    BUSY = "busy"


SGR = {
    Style.PLAIN: "",
    Style.TITLE: "1",
    Style.STRONG: "1",
    Style.FAINT: "2",
    Style.HEAD: "7",
    Style.GOOD: "32",
    Style.WEAK: "33",
    Style.BAD: "1;31",
    Style.BUSY: "36",
}
COLOURLESS = {Style.HEAD: "7", Style.TITLE: "1", Style.STRONG: "1", Style.BAD: "1"}

_STATE_STYLE = {
    "keyed": Style.GOOD,
    "clear": Style.WEAK,
    "denied": Style.BAD,
    "pending": Style.BUSY,
    "potential": Style.BUSY,
    "expiring": Style.FAINT,
}

Span = tuple[str, Style]
Spans = list[Span]


@dataclass(frozen=True, slots=True)
class Manner:
    """How the operator wants to see it.  ``scroll``: rows left out at the top; ``entering``: the
    filter is being typed; ``notice``: what went wrong; ``graphs``: the terminal knows bars."""

    order: str = "rate"
    reverse: bool = False
    match: str = ""
    scroll: int = 0
    entering: bool = False
    interval: float = 1.0
    notice: str = ""
    keys: bool = True
    graphs: bool = True


@dataclass(frozen=True, slots=True)
class Column:
    """``order``: by which this column is sorted.  ``rank``: those of the highest rank go first
    where there is no room."""

    name: str
    rank: int
    cell: Callable[[Line], str]
    right: bool = False
    most: int = 39
    order: str = ""


def bits(rate: float | None) -> str:
    """Bits a second in at most five characters; nothing for nothing."""
    return "-" if rate is None else "." if rate < 1 else octets(rate)


COLUMNS = (
    Column("STATE", 0, lambda line: line.state, order="state"),
    Column("SOURCE", 1, lambda line: line.source, order="source"),
    Column("DESTINATION", 0, lambda line: line.destination, order="destination"),
    Column("FOR", 5, lambda line: line.traffic, most=10),
    Column("GATEWAY", 4, lambda line: line.gateway),
    Column("RULE", 8, lambda line: line.rule, most=16),
    Column("AGE", 3, lambda line: line.age, right=True, order="age"),
    Column("LEFT", 7, lambda line: line.left, right=True),
    Column("IN bit/s", 2, lambda line: bits(line.rate_in), right=True, order="rate"),
    Column("OUT bit/s", 2, lambda line: bits(line.rate_out), right=True, order="rate"),
    Column("IN", 6, lambda line: octets(line.octets_in), right=True, order="octets"),
    Column("OUT", 6, lambda line: octets(line.octets_out), right=True, order="octets"),
)


def page(
    view: View | None, manner: Manner, width: int, height: int | None, past: Sequence[float] = ()
) -> list[Spans]:
    """Lines of at most ``width`` columns; as many as ``height``, or as there are if it is None.

    ``past``: bits a second of the last looks, for the graph.
    """
    width = max(width, NARROWEST)
    lines = [] if view is None else _headline(view, manner, width, past)
    if manner.notice:
        lines.append([(manner.notice, Style.BAD)])
    if view is not None:
        lines.append([])
        foot = 1 if manner.keys else 0
        room = None if height is None else max(0, height - len(lines) - 1 - foot)
        lines += _table(view, manner, width, room)
    if height is not None and manner.keys:
        lines = lines[: height - 1]
        lines += [[] for _ in range(height - 1 - len(lines))]
        lines.append(_foot(manner, width))
    return [_cut(line, width) for line in (lines if height is None else lines[:height])]


def rows_that_fit(view: View | None, manner: Manner, width: int, height: int) -> int:
    """How many connections the page has room for."""
    above = 0 if view is None else len(_headline(view, manner, width, ()))
    return max(1, height - above - bool(manner.notice) - 3)


def _headline(view: View, manner: Manner, width: int, past: Sequence[float]) -> list[Spans]:
    up = "" if view.uptime is None else f"  up {span(view.uptime)}"
    lines: list[Spans] = [
        [
            (f"oegw {view.version}", Style.TITLE),
            (f"  {view.identity}  ", Style.PLAIN),
            (view.datapath, Style.FAINT),
            (up, Style.FAINT),
        ]
    ]
    ways: list[Spans] = [
        [("encrypted in ", Style.FAINT), *_rate(view.ways["in"], Style.GOOD)],
        [("encrypted out ", Style.FAINT), *_rate(view.ways["out"], Style.GOOD)],
        [("clear out ", Style.FAINT), *_rate(view.ways["clear"], Style.WEAK)],
        [("dropped ", Style.FAINT), *_dropped(view)],
    ]
    lines += _flowing(ways, width)
    known = [(state, view.states.get(state, 0)) for state in STATES]
    known += [(s, n) for s, n in view.states.items() if s not in STATES]
    counts: list[Spans] = [
        [(f"{number}", _STATE_STYLE.get(state, Style.PLAIN)), (f" {state}", Style.FAINT)]
        for state, number in known
        if number or state == "keyed"
    ]
    for number, name in (
        (view.tunnels, "tunnels"), (view.channels, "channels"), (view.held, "held"),
        (view.lookups, "look-ups"),
    ):  # fmt: skip
        if number or name == "tunnels":
            noun = name.removesuffix("s") if number == 1 else name
            counts.append([(f"{number}", Style.STRONG), (f" {noun}", Style.FAINT)])
    lines += _flowing(counts, width)
    if manner.graphs and len(past) > 1 and width >= 60:
        lines.append([("encrypted  ", Style.FAINT), (_graph(past[-(width - 30) :]), Style.GOOD),
                      (f" {_unit(past[-1], 'bit/s')}", Style.FAINT)])  # fmt: skip
    lines += [[("! ", Style.BAD), (text, Style.WEAK)] for text in view.warnings[:3]]
    return lines


def _rate(rate: Rate, style: Style) -> Spans:
    if rate.bits is None or rate.packets is None:
        return [("-", Style.PLAIN)]
    moved = style if rate.packets > 0 else Style.PLAIN
    return [(_unit(rate.bits, "bit/s"), moved), (f" {_unit(rate.packets, 'p/s')}", Style.FAINT)]


def _unit(number: float, unit: str) -> str:
    """As ``12.1 Mbit/s``."""
    text = octets(number)
    prefix = text[-1] if text[-1].isalpha() else ""
    return f"{text.removesuffix(prefix)} {prefix}{unit}"


def _dropped(view: View) -> Spans:
    if view.dropped is None:
        return [("-", Style.PLAIN)]
    if view.dropped <= 0:
        return [("0 p/s", Style.PLAIN)]
    number = f"{view.dropped:.1f} p/s" if view.dropped < 10 else _unit(view.dropped, "p/s")
    return [(number, Style.BAD), (f" {view.causes[0]}", Style.FAINT)]


def _flowing(groups: Sequence[Spans], width: int) -> list[Spans]:
    """Groups side by side, as many on a line as fit."""
    lines: list[Spans] = []
    used = 0
    for group in groups:
        long = sum(len(text) for text, _ in group)
        if lines and used + 3 + long <= width:
            lines[-1] += [("   ", Style.PLAIN), *group]
            used += 3 + long
        else:
            lines.append(list(group))
            used = long
    return lines


def _graph(past: Sequence[float]) -> str:
    top = max(past) or 1.0
    return "".join(_BARS[min(7, int(value / top * 7.99))] for value in past)


def _table(view: View, manner: Manner, width: int, room: int | None) -> list[Spans]:
    if not view.lines:
        nothing = "no connection matches" if manner.match else "no connections yet"
        return [[(nothing, Style.FAINT)]]
    lines = view.lines[manner.scroll :]
    if room is not None:
        lines = lines[:room]
    columns = list(COLUMNS)
    widths = [_width(column, lines) for column in columns]
    while sum(widths) + len(widths) - 1 > width and len(columns) > 2:
        worst = max(range(len(columns)), key=lambda i: (columns[i].rank, i))
        if columns[worst].rank == 0:
            break
        del columns[worst], widths[worst]
    # Long addresses share what is left.
    while (over := sum(widths) + len(widths) - 1 - width) > 0 and max(widths) > 4:
        widest = widths.index(max(widths))
        widths[widest] = max(4, widths[widest] - over)
    gap = "  " if sum(widths) + 2 * (len(widths) - 1) <= width else " "
    head = gap.join(
        _fitted(column.name + _mark(column, manner), width_, column.right)
        for column, width_ in zip(columns, widths, strict=True)
    )
    table: list[Spans] = [[(head.ljust(width), Style.HEAD)]]
    for line in lines:
        spans: Spans = []
        for column, width_ in zip(columns, widths, strict=True):
            text = _fitted(column.cell(line), width_, column.right)
            spans += [(text, _cell_style(column, line)), (gap, Style.PLAIN)]
        table.append(spans[:-1])
    return table


def _mark(column: Column, manner: Manner) -> str:
    """Behind the name of the column by which the rows are sorted."""
    if not column.order or column.order != manner.order:
        return ""
    return ("▴" if manner.reverse else "▾") if manner.graphs else ("^" if manner.reverse else "v")


def _width(column: Column, lines: Sequence[Line]) -> int:
    named = len(column.name) + bool(column.order)
    return max([named, *(min(len(column.cell(line)), column.most) for line in lines)])


def _cell_style(column: Column, line: Line) -> Style:
    if column.name == "STATE":
        return Style.BAD if line.warning else _STATE_STYLE.get(line.state, Style.PLAIN)
    if column.name.endswith("bit/s"):
        rate = line.rate_in if column.name.startswith("IN") else line.rate_out
        return Style.STRONG if rate and rate >= 1 else Style.FAINT
    if column.name in ("SOURCE", "DESTINATION"):
        return Style.PLAIN
    return Style.FAINT


def _fitted(text: str, width: int, right: bool) -> str:
    if len(text) > width:
        text = text[: width - 1] + "~" if width > 1 else text[:width]
    return text.rjust(width) if right else text.ljust(width)


def _foot(manner: Manner, width: int) -> Spans:
    if manner.entering:
        return [("filter: ", Style.STRONG), (manner.match + "_", Style.PLAIN),
                ("  Enter keeps it, Esc drops it", Style.FAINT)]  # fmt: skip
    spans: Spans = []
    for key, name in (
        ("r", "ate"), ("s", "tate"), ("a", "ge"), ("o", "ctets"), ("i", "nvert"), ("/", " filter"),
        ("+-", f" {manner.interval:g}s"), ("q", "uit"),
    ):  # fmt: skip
        spans += [(key, Style.STRONG), (name + "  ", Style.FAINT)]
    if manner.match:
        spans.append((f"only {manner.match!r}", Style.WEAK))
    return spans


def _cut(line: Spans, width: int) -> Spans:
    left, cut = width, []
    for text, style in line:
        if left <= 0:
            break
        cut.append((text[:left], style))
        left -= len(text)
    return cut


def painted(line: Spans, *, colour: bool) -> str:
    """A line with the terminal's codes."""
    codes = SGR if colour else COLOURLESS
    parts = []
    for text, style in line:
        code = codes.get(style, "")
        parts.append(f"\x1b[{code}m{text}\x1b[0m" if code else text)
    return "".join(parts)


def bare(line: Spans) -> str:
    """A line without any."""
    return "".join(text for text, _ in line).rstrip()
