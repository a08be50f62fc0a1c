"""The attacks as a page of the documentation: ``python -m tests.attacks.table`` writes it."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

from tests.attacks import (
    batches,
    coordinator,
    flood,
    keying,
    monikerclients,
    monikerleases,
    monikerlocal,
    monikerquestions,
    network,
    packets,
    records,
    socksdatagrams,
    socksids,
    socksnetwork,
    sockssessions,
    sstkernel,
    sstkeys,
    sstpaths,
    sstports,
    sstquotes,
    sstsealing,
)
from tests.attacks.frame import ATTACKS, MONIKER, SOCKS, SST, Attack

__all__ = [
    "ATTACKS",
    "batches",
    "coordinator",
    "flood",
    "keying",
    "monikerclients",
    "monikerleases",
    "monikerlocal",
    "monikerquestions",
    "network",
    "packets",
    "records",
    "socksdatagrams",
    "socksids",
    "socksnetwork",
    "sockssessions",
    "sstkernel",
    "sstkeys",
    "sstpaths",
    "sstports",
    "sstquotes",
    "sstsealing",
]

PAGE = Path(__file__).parents[2] / "oegw" / "docs" / "attacks.md"

_HEAD = """\
# Attacks

What broke others, and what is known against a gateway of this kind. Each line is a test that
attacks the real code twice: as it is, where nothing must come of it, and with the defence taken
out, where the same test must fail. So every defence is known to be one, and every test to see.

`python -m pytest tests/attacks` runs them; this page is written by `python -m tests.attacks.table`,
and a test holds it to what the others say. The numbers are those of the project's list of known
attacks; "m." is what a widely used daemon was measured to do, and what ours is held to. Ours, by
`python -m tests.attacks.flood`: 60,000 garbled messages 1 from as many sources, 0.09 octets out for
each octet in, and no answer larger than its question; one message 1, 1.00 (with one transform),
0.38 (with all and vendor IDs) and 0.48 (with nothing that we know); 20,000 forged first messages,
5 of 5 peers connect.

"""
_COLUMNS = """\
| | attack | known from | defence | test | without it |
| --- | --- | --- | --- | --- | --- |
"""
_SST_HEAD = """\

## Port encryption

Against `[sst]`. The numbers are of this page only; "design" is the project's page on SST, section 8
if it says no more. What no defence is meant for stands in [sst.md](sst.md).

"""
_MONIKER_HEAD = """\

## Services by name

Against `[moniker]`: its daemon, its registrations, the leases of its firewall. "MK" are the
[requirements](moniker-requirements.md), "design" is the project's page on Moniker. A real daemon
among strangers is in `tests/acceptance/test_moniker_strangers.py`; what no defence is meant for
stands in [moniker.md](moniker.md).

"""

_SOCKS_HEAD = """\

## The SOCKS server

Against `[socks]`: its clients against each other, against the gateway and what is behind it, and
strangers. "SK" are the [requirements](socks-requirements.md), "the draft" is
draft-kitamura-socks-ipv6-01. A real server among strangers is in
`tests/acceptance/test_socks_strangers.py`; what no defence is meant for stands in
[socks.md](socks.md).

"""


def symbols(tree: ast.Module) -> set[str]:
    """Functions, classes, methods and constants of a module, "Class.method"."""
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                    found.add(f"{node.name}.{inner.name}")
                elif isinstance(inner, ast.AnnAssign) and isinstance(inner.target, ast.Name):
                    found.add(f"{node.name}.{inner.target.id}")
                elif isinstance(inner, ast.Assign):
                    for target in inner.targets:
                        if isinstance(target, ast.Name):
                            found.add(f"{node.name}.{target.id}")
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
    return found


def _order(attack: Attack) -> tuple[bool, int]:
    return isinstance(attack.row, str), attack.row if isinstance(attack.row, int) else 0


def _line(a: Attack, label: int | str) -> str:
    defence = ", ".join("`{}`: `{}`".format(*d.split()) for d in a.defence)
    place, name = a.test.split()
    return (
        f"| {label} | {a.what} | {a.source} | {defence} | `{place}`: `{name}` | {a.otherwise} |\n"
    )


def page() -> str:
    """The text of the page."""
    text = _HEAD + _COLUMNS
    for a in sorted(ATTACKS, key=_order):
        if a.row not in (SST, MONIKER, SOCKS):
            text += _line(a, a.row if isinstance(a.row, int) else "m.")
    for row, head, letter in (
        (SST, _SST_HEAD, "s"),
        (MONIKER, _MONIKER_HEAD, "n"),
        (SOCKS, _SOCKS_HEAD, "p"),
    ):
        text += head + _COLUMNS
        for number, a in enumerate((a for a in ATTACKS if a.row == row), 1):
            text += _line(a, f"{letter}{number}")
    return text


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
