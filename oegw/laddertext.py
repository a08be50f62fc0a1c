"""The ladder in the terminal: a column for each party, an arrow for each step, and its time."""

from __future__ import annotations

from oegw.ladder import Kind, Ladder, Party, Rung, milliseconds

_COLUMNS = {Party.ALICE: 3, Party.SG_A: 17, Party.DNS: 29, Party.SG_B: 41, Party.BOB: 55}
_WIDTH = 60
_DASH = {
    Kind.PACKET: "-",
    Kind.DNS: "-",
    Kind.IKE: "#",
    Kind.ESP: "=",
    Kind.UNSEEN: ".",
}


def drawn(ladder: Ladder) -> list[str]:
    """The lines of it."""
    names = [" "] * _WIDTH
    for party, column in _COLUMNS.items():
        _put(names, column - len(party.value) // 2, party.value)
    lines = ["".join(names) + f"{'ms':>8}"]
    lines += [_line(rung) for rung in ladder.rungs]
    lines += [_end(ladder), ""]
    known = (
        f"{party.value} {ladder.addresses[party]}" for party in Party if party in ladder.addresses
    )
    lines += [", ".join(known), "- clear  # IKE  = ESP  . seen by SG-B only"]
    return [line.rstrip() for line in [*lines, *ladder.tunnel]]


def _line(rung: Rung) -> str:
    moment = " " * 8 if rung.seconds is None else f"{milliseconds(rung.seconds):>8}"
    return f"{_arrow(rung)}{moment}  {rung.text}" + ("" if rung.answered else " (no answer)")


def _arrow(rung: Rung) -> str:
    cells = [" "] * _WIDTH
    for column in _COLUMNS.values():
        cells[column] = "|"
    label = f"({rung.label})" if rung.label else ""
    first, last = sorted((_COLUMNS[rung.begin], _COLUMNS[rung.end]))
    if first == last:
        mark = label or ("X" if rung.kind is Kind.FAILED else "o")
        _put(cells, first - len(mark) // 2, mark)
        return "".join(cells)
    _put(cells, first + 1, _DASH[rung.kind] * (last - first - 1))
    if not rung.answered:
        cells[last - 1] = "x"
    elif _COLUMNS[rung.begin] < _COLUMNS[rung.end]:
        cells[last - 1] = ">"
    else:
        cells[first + 1] = "<"
    _put(cells, (first + last + 1 - len(label)) // 2, label)
    return "".join(cells)


def _end(ladder: Ladder) -> str:
    cells = [" "] * _WIDTH
    if ladder.keyed:
        spans = ((Party.ALICE, Party.SG_A, "-"), (Party.SG_A, Party.SG_B, "="),
                 (Party.SG_B, Party.BOB, "-"))  # fmt: skip
    elif ladder.clear:
        spans = ((Party.ALICE, Party.BOB, "-"),)  # type: ignore[assignment]
    else:
        spans = ((Party.ALICE, Party.SG_A, "-"),)  # type: ignore[assignment]
    for begin, end, dash in spans:
        _put(cells, _COLUMNS[begin], dash * (_COLUMNS[end] - _COLUMNS[begin]))
    at = _COLUMNS[Party.SG_A if not (ladder.keyed or ladder.clear) else Party.BOB]
    cells[at] = ">" if ladder.keyed or ladder.clear else "X"
    word = "encrypted" if ladder.keyed else "in clear" if ladder.clear else "dropped"
    if ladder.keyed or ladder.clear:
        _put(cells, _COLUMNS[Party.DNS] - len(word) // 2, f" {word} ")
    reason = f": {ladder.reason}" if ladder.reason and not ladder.keyed else ""
    word = "from now on" if ladder.keyed else word
    return f"{''.join(cells)}{'':8}  {word}{reason}"


def _put(cells: list[str], at: int, text: str) -> None:
    at = max(0, at)
    cells[at : at + len(text)] = text
