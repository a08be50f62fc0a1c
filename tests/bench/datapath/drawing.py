"""The figures as bars, in an SVG."""

from __future__ import annotations

import math
from html import escape

from tests.bench.datapath.figures import QUANTITIES, Run

SHOWN = ("tcp1", "tcp4", "udp", "rtt_idle", "rtt_loaded", "cpu_machine")
_COLUMNS = 2
_LABELS, _BARS, _VALUES, _GAP = 250, 260, 80, 20  # widths
_LINE, _HEAD, _FOOT = 18, 40, 30  # heights
_WIDE = 20  # the most is so many times the least: bars in proportion would be lines
_OURS, _THEIRS, _CLEAR = "#0b5394", "#b45f06", "#999999"


class _Logarithmic:
    """From a power of ten below the least to the most: a bar twice as long as another is not twice
    as much, and the lines say what is."""

    name = ", logarithmic"

    def __init__(self, least: float, most: float) -> None:
        self.first = math.floor(math.log10(least))
        # What begins right at a power of ten would have no bar at all.
        if math.log10(least) - self.first < 0.1:
            self.first -= 1
        self.last = max(math.log10(most), self.first + 1)

    def at(self, value: float) -> float:
        return (math.log10(value) - self.first) / (self.last - self.first)

    def marks(self) -> list[float]:
        return [10.0**power for power in range(self.first, math.floor(self.last) + 1)]


class _Linear:
    name = ""

    def __init__(self, least: float, most: float) -> None:
        self.most = most
        step = 10.0 ** math.floor(math.log10(most))
        self.step = step if most / step >= 3 else step / 2 if most / step >= 1.5 else step / 4

    def at(self, value: float) -> float:
        return value / self.most

    def marks(self) -> list[float]:
        return [self.step * number for number in range(int(self.most / self.step) + 1)]


def _scale(least: float, most: float) -> _Linear | _Logarithmic:
    return _Linear(least, most) if most <= least * _WIDE else _Logarithmic(least, most)


def _colour(run: Run, name: str) -> str:
    about = run.contenders[name]
    return _OURS if about.ours else _CLEAR if about.in_clear else _THEIRS


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _panel(run: Run, key: str, left: int, top: int) -> tuple[list[str], int]:
    """Its parts, and its height."""
    quantity = QUANTITIES[key]
    names = [name for name in run.contenders if min(run.of(name, key), default=0.0) > 0]
    if not names:
        return [], 0
    # The best on top.
    names.sort(key=lambda name: run.median(name, key) or 0.0, reverse=not quantity.less_is_better)
    values = [value for name in names for value in run.of(name, key)]
    scale = _scale(min(values), max(values))

    def place(value: float) -> float:
        return round(_BARS * scale.at(value), 1)

    begin, high = left + _LABELS, len(names) * _LINE
    better = "less is better" if quantity.less_is_better else "more is better"
    parts = [
        f'<text x="{begin}" y="{top + 16}" font-weight="bold">{escape(quantity.title)}, '
        f"{escape(quantity.unit)} ({better}{scale.name})</text>"
    ]
    for mark in scale.marks():
        x = begin + place(mark)
        parts.append(
            f'<line x1="{x}" y1="{top + _HEAD - 12}" x2="{x}" y2="{top + _HEAD + high}" '
            f'stroke="#ddd"/><text x="{x}" y="{top + _HEAD + high + 14}" text-anchor="middle" '
            f'fill="#666">{mark:,g}</text>'
        )
    for number, name in enumerate(names):
        y = top + _HEAD + number * _LINE
        median = run.median(name, key) or 0.0
        long, least, most = (
            place(value) for value in (median, min(run.of(name, key)), max(run.of(name, key)))
        )
        parts.append(
            f'<text x="{begin - 6}" y="{y + 11}" text-anchor="end">'
            f"{escape(run.contenders[name].title)}</text>"
            f'<rect x="{begin}" y="{y}" width="{long}" height="{_LINE - 4}" '
            f'fill="{_colour(run, name)}"/>'
            f'<line x1="{begin + least}" y1="{y + 7}" x2="{begin + most}" y2="{y + 7}" '
            f'stroke="black"/>'
            f'<text x="{begin + max(long, most) + 5}" y="{y + 11}">{_short(median)}</text>'
        )
    return parts, _HEAD + high + _FOOT


def drawing(run: Run) -> str:
    """A panel for each quantity: the median as a bar, from least to most as a line."""
    wide = _LABELS + _BARS + _VALUES + _GAP
    parts: list[str] = []
    tops = [10] * _COLUMNS
    for number, key in enumerate(SHOWN):
        column = number % _COLUMNS
        panel, high = _panel(run, key, column * wide, tops[column])
        parts += panel
        tops[column] += high
    width, height = wide * _COLUMNS, max(tops)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
            f'<rect width="{width}" height="{height}" fill="white"/>',
            *parts,
            "</svg>\n",
        ]
    )
