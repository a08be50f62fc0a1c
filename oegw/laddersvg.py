"""The ladder as a picture: SVG with nothing outside of itself, for light and dark, and for ears.

Colours are classes; which colour a class has, the reader's preference decides.  A cross and a dash
say what a colour says, too.
"""

from __future__ import annotations

from collections.abc import Iterable
from xml.sax.saxutils import escape

from oegw.ladder import Kind, Ladder, Party, Rung, milliseconds

_WIDTH = 1060
_TIMES = 78  # the right edge of the times
_COLUMNS = {Party.ALICE: 166, Party.SG_A: 376, Party.DNS: 596, Party.SG_B: 816, Party.BOB: 976}
_HEAD = 158  # above the first rung
_STEP = 42  # from rung to rung
_LOCAL = 40  # the same where nothing is sent
_UNNAMED = {Party.SG_A: "this gateway", Party.DNS: "resolver"}
_LETTER = 6.4  # about so wide is one of the rungs' letters

_STYLE = """
.page{fill:#ffffff}.ink{fill:#1c2330}.soft{fill:#5b6677}.party{fill:#f1f4f8;stroke:#c9d1dc}
.life{stroke:#c9d1dc;stroke-width:1.5}.rule{stroke:#e3e8ef}
.packet,.dns,.ike,.esp,.unseen,.failed{fill:none;stroke-width:2}
.packet{stroke:#64748b}.dns{stroke:#9333ea}.ike{stroke:#2563eb}.esp{stroke:#15803d;stroke-width:5}
.unseen{stroke:#94a3b8;stroke-dasharray:3 5}.failed{stroke:#dc2626;stroke-dasharray:7 4}
.head-packet{fill:#64748b}.head-dns{fill:#9333ea}.head-ike{fill:#2563eb}.head-esp{fill:#15803d}
.head-unseen{fill:#94a3b8}.cross{stroke:#dc2626;stroke-width:3;stroke-linecap:round;fill:none}
.pill{fill:#eef2ff;stroke:#c7d2fe}.pill-failed{fill:#fef2f2;stroke:#fca5a5}
.good{fill:#15803d}.weak{fill:#b45309}.bad{fill:#b91c1c}.on{fill:#ffffff}
.band-good{fill:#dcfce7;stroke:#86efac}.band-weak{fill:#fef3c7;stroke:#fcd34d}
.band-bad{fill:#fee2e2;stroke:#fca5a5}.halo{stroke:#ffffff;stroke-width:5;paint-order:stroke}
@media (prefers-color-scheme: dark){
.page{fill:#10151d}.ink{fill:#e6ebf2}.soft{fill:#9aa7b8}.party{fill:#1b2430;stroke:#36455a}
.life{stroke:#36455a}.rule{stroke:#1f2937}
.packet{stroke:#94a3b8}.dns{stroke:#c084fc}.ike{stroke:#60a5fa}.esp{stroke:#4ade80}
.unseen{stroke:#64748b}.failed{stroke:#f87171}
.head-packet{fill:#94a3b8}.head-dns{fill:#c084fc}.head-ike{fill:#60a5fa}.head-esp{fill:#4ade80}
.head-unseen{fill:#64748b}.cross{stroke:#f87171}
.pill{fill:#1e2748;stroke:#3b4a80}.pill-failed{fill:#3b1518;stroke:#7f1d1d}
.good{fill:#4ade80}.weak{fill:#fbbf24}.bad{fill:#f87171}.on{fill:#10151d}
.band-good{fill:#0f2e1c;stroke:#166534}.band-weak{fill:#33260a;stroke:#92400e}
.band-bad{fill:#35141a;stroke:#991b1b}.halo{stroke:#10151d}}
text{font-family:system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif}
.num{font-family:ui-monospace,"DejaVu Sans Mono",monospace}
"""


def picture(ladder: Ladder) -> str:
    """The whole file."""
    body: list[str] = []
    y = float(_HEAD)
    for rung in ladder.rungs:
        body += _rung(rung, y)
        y += _LOCAL if rung.begin is rung.end else _STEP
    bottom = y + 4
    end = _end(ladder, bottom)
    height = round(bottom + (118 if ladder.tunnel else 92))
    title = escape(ladder.summary)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
            f'width="{_WIDTH}" height="{height}" role="img" aria-labelledby="title steps">',
            f'<title id="title">{title}</title>',
            f'<desc id="steps">{escape(_spoken(ladder))}</desc>',
            f"<style>{_STYLE}</style>",
            f'<rect class="page" width="{_WIDTH}" height="{height}" rx="12"/>',
            _text(30, 42, _heading(ladder), _tone(ladder), size=21, weight=600),
            _text(30, 64, ladder.summary, "soft", size=13.5),
            _text(_TIMES, 108, "ms", "soft", size=12, anchor="end"),
            *_parties(ladder, bottom),
            *body,
            *end,
            *_legend(height),
            "</svg>",
            "",
        ]
    )


def _tone(ladder: Ladder) -> str:
    return "good" if ladder.keyed else "weak" if ladder.clear else "bad"


def _heading(ladder: Ladder) -> str:
    return "Encrypted" if ladder.keyed else "In clear" if ladder.clear else "Dropped"


def _spoken(ladder: Ladder) -> str:
    """The steps as sentences."""
    words = []
    for rung in ladder.rungs:
        way = (
            rung.begin.value
            if rung.begin is rung.end
            else f"{rung.begin.value} to {rung.end.value}"
        )
        when = "" if rung.seconds is None else f" at {milliseconds(rung.seconds)} ms"
        label = f"({rung.label}) " if rung.label else ""
        words.append(f"{label}{way}{when}: {rung.text}{'' if rung.answered else ', no answer'}.")
    return " ".join([*words, f"{ladder.summary}."])


def _parties(ladder: Ladder, bottom: float) -> Iterable[str]:
    for party, x in _COLUMNS.items():
        outer = party in (Party.ALICE, Party.BOB) and ladder.keyed
        y = bottom + 28 if outer else bottom
        yield f'<line class="life" x1="{x}" y1="122" x2="{x}" y2="{y:g}"/>'
        yield f'<rect class="party" x="{x - 66}" y="80" width="132" height="44" rx="8"/>'
        yield _text(x, 99, party.value, "ink", size=14.5, weight=600, anchor="middle")
        address = ladder.addresses.get(party, _UNNAMED.get(party, "not known"))
        size = 11.5 if len(address) <= 18 else 8.5 if len(address) <= 26 else 6.5
        yield _text(x, 115, address, "soft num", size=size, anchor="middle")


def _rung(rung: Rung, y: float) -> Iterable[str]:
    if rung.seconds is not None:
        yield _text(_TIMES, y + 4, milliseconds(rung.seconds), "ink num", size=12.5, anchor="end")
    if rung.begin is rung.end:
        yield from _local(rung, y)
        return
    start, stop = _COLUMNS[rung.begin], _COLUMNS[rung.end]
    way = 1 if stop > start else -1
    kind = rung.kind.value if rung.answered else "failed"
    tip = stop - way * (3 if rung.answered else 40)
    shaft = tip - way * (9 if rung.answered else 0)
    yield f'<line class="{kind}" x1="{start + way * 3}" y1="{y:g}" x2="{shaft}" y2="{y:g}"/>'
    if rung.answered:
        yield (f'<path class="head-{kind}" d="M{tip} {y:g} l{-way * 11} -6 v12 z"/>')
    else:
        yield _cross(tip + way * 8, y)
    middle = (start + stop) / 2
    label = f"({rung.label}) " if rung.label else ""
    room = int(abs(stop - start) / _LETTER) - 2
    if abs(stop - start) < 230:  # a short arrow: its words may reach over the neighbour's line
        room = 36
    words = _shortened(label + rung.text, room)
    yield _text(middle, y - 9, words, "soft halo" if rung.kind is Kind.UNSEEN else "ink halo",
                size=11.5, anchor="middle")  # fmt: skip


def _local(rung: Rung, y: float) -> Iterable[str]:
    x = _COLUMNS[rung.begin]
    failed = rung.kind is Kind.FAILED
    label = f"({rung.label}) " if rung.label else ""
    words = _shortened(label + rung.text, 84 if failed else 40)
    width = len(words) * _LETTER + 26
    left = x - min(width / 2, x - _TIMES - 16)
    shape = "pill-failed" if failed else "pill"
    yield (
        f'<rect class="{shape}" x="{left:.1f}" y="{y - 11:g}" width="{width:.1f}" height="22" '
        f'rx="11"/>'
    )
    yield _text(left + width / 2, y + 4, words, "bad" if failed else "ink", size=11.5,
                anchor="middle")  # fmt: skip


def _end(ladder: Ladder, y: float) -> Iterable[str]:
    """What becomes of the packets from now on."""
    alice, bob = _COLUMNS[Party.ALICE], _COLUMNS[Party.BOB]
    tone = _tone(ladder)
    height = 56 if ladder.tunnel else 34
    left, right = alice, bob
    if ladder.keyed:
        left, right = _COLUMNS[Party.SG_A], _COLUMNS[Party.SG_B]
        for begin, end in ((alice, left), (right, bob)):
            middle = y + height / 2
            yield f'<line class="packet" x1="{begin}" y1="{middle:g}" x2="{end}" y2="{middle:g}"/>'
    yield (
        f'<rect class="band-{tone}" x="{left - 8}" y="{y:g}" width="{right - left + 16}" '
        f'height="{height}" rx="8"/>'
    )
    reason = f": {ladder.reason}" if ladder.reason and not ladder.keyed else ""
    word = "encrypted" if ladder.keyed else "goes on in clear" if ladder.clear else "dropped"
    mark = "" if ladder.keyed else "! " if ladder.clear else "✕ "
    lines = list(ladder.tunnel) if ladder.keyed and ladder.tunnel else [f"{mark}{word}{reason}"]
    room = int((right - left) / _LETTER)
    middle = (left + right) / 2
    for number, line in enumerate(lines):
        size = 12.5 if len(line) <= room else max(7.5, 12.5 * room / len(line))
        yield _text(middle, y + 22 + 20 * number, _shortened(line, room * 2), tone, size=size,
                    weight=600 if number == 0 else 400, anchor="middle")  # fmt: skip


def _legend(height: int) -> Iterable[str]:
    x = 150.0
    y = height - 22
    for kind, words in (
        (Kind.PACKET, "clear"), (Kind.DNS, "DNS"), (Kind.IKE, "IKE"), (Kind.ESP, "ESP"),
        (Kind.UNSEEN, "seen by SG-B only"),
    ):  # fmt: skip
        yield f'<line class="{kind.value}" x1="{x:g}" y1="{y - 4}" x2="{x + 28:g}" y2="{y - 4}"/>'
        yield _text(x + 36, y, words, "soft", size=12)
        x += 36 + len(words) * 7 + 34


def _cross(x: float, y: float) -> str:
    return f'<path class="cross" d="M{x - 6:g} {y - 6:g} l12 12 m0 -12 l-12 12"/>'


def _text(
    x: float, y: float, words: str, classes: str, *, size: float, anchor: str = "start",
    weight: int = 400,
) -> str:  # fmt: skip
    return (
        f'<text class="{classes}" x="{x:g}" y="{y:g}" font-size="{size:g}" '
        f'text-anchor="{anchor}" font-weight="{weight}">{escape(words)}</text>'
    )


def _shortened(words: str, most: int) -> str:
    return words if len(words) <= most else words[: max(1, most - 1)] + "…"
