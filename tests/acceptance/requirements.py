"""The reader's tables of requirements: ``python -m tests.acceptance.requirements`` writes them."""

from __future__ import annotations

import ast
import sys
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
DOCS = ROOT / "oegw" / "docs"

_HEAD = """\
# Requirements

What the draft (draft-richardson-ipsec-opportunistic-02) and RFC 4322 require, where it is done, and
which test or scenario of the lab shows it. Sentences are quoted by a few words. The table is
written by `python -m tests.acceptance.requirements`; a test sees to it that each file, symbol, test
and scenario in it exists, and that no section is left out. Only the sentence about the meaning of
the keywords is not in it.

"""
_SST_HEAD = """\
# Requirements of port encryption

What the draft on port encryption (draft-unice-dispatch-enc-ports-00, "SST") requires and implies,
where it is done, and which test or scenario of the lab shows it. SST-1 to SST-38 are this project's
reading of it; sentences of the draft are quoted by a few words. Written and checked as
[the other requirements](requirements.md) are, by `python -m tests.acceptance.requirements`. Attacks
on it are in [attacks.md](attacks.md), what it hides and what it does not in [sst.md](sst.md).

"""
_MONIKER_HEAD = """\
# Requirements of services by name

What the paper "Decoupling Port and Protocol on the Internet" (King, Lam, Schulman, 2007) requires
and implies of Moniker, where it is done, and which test or scenario of the lab shows it. MK-1 to
MK-33 are this project's reading of it; sentences of the paper are quoted by a few words. Written
and checked as [the other requirements](requirements.md) are, by
`python -m tests.acceptance.requirements`. Attacks on it are in [attacks.md](attacks.md), what it
protects from and what not in [moniker.md](moniker.md).

"""

_SOCKS_HEAD = """\
# Requirements of the SOCKS server

What the draft on SOCKS for IPv6 and IPv4 (draft-kitamura-socks-ipv6-01) requires and implies, with
RFC 1928, RFC 1929 and draft-ietf-aft-socks-pro-v5 beneath it, where it is done, and which test or
scenario of the lab shows it. SK-1 to SK-44 are this project's reading of it; sentences of the draft
are quoted by a few words. Written and checked as [the other requirements](requirements.md) are, by
`python -m tests.acceptance.requirements`. Attacks on it are in [attacks.md](attacks.md), what is
settled where the draft says two things in [socks.md](socks.md), other servers' answers to the same
in [socks-differences.md](socks-differences.md).

"""


@dataclass(frozen=True)
class Table:
    """``titles``: of the documents that it is about, by their names in the source."""

    source: Path
    page: Path
    head: str
    titles: tuple[tuple[str, str], ...]


TABLES = (
    Table(
        HERE / "requirements.toml",
        DOCS / "requirements.md",
        _HEAD,
        (("draft", "The draft, sections 1 to 11"), ("rfc4322", "RFC 4322")),
    ),
    Table(
        HERE / "sst.toml",
        DOCS / "sst-requirements.md",
        _SST_HEAD,
        (("sst", "SST-1 to SST-38"), ("seed", "The draft's own sentences, sections 2 to 5")),
    ),
    Table(
        HERE / "moniker.toml",
        DOCS / "moniker-requirements.md",
        _MONIKER_HEAD,
        (("mk", "MK-1 to MK-33"), ("paper", "The paper's own sentences, sections 3 to 6")),
    ),
    Table(
        HERE / "socks.toml",
        DOCS / "socks-requirements.md",
        _SOCKS_HEAD,
        (("sk", "SK-1 to SK-44"), ("kitamura", "The draft's own sentences")),
    ),
)


@dataclass(frozen=True)
class Requirement:
    """``where``: "file symbol"; ``shown``: "file name" of a test, or "scenario NAME".

    A symbol or name of ``*`` is the whole file.
    """

    document: str
    section: str
    words: str
    where: tuple[str, ...]
    shown: tuple[str, ...]
    note: str = ""

    def __str__(self) -> str:
        return f"{self.document} {self.section}: {self.words}"


@cache
def requirements(table: Table) -> tuple[Requirement, ...]:
    read: dict[str, list[dict[str, Any]]] = tomllib.loads(table.source.read_text(encoding="utf-8"))
    return tuple(
        Requirement(
            document, row["section"], row["words"], tuple(row["where"]), tuple(row["shown"]),
            row.get("note", ""),
        )
        for document, rows in read.items()
        for row in rows
    )  # fmt: skip


@cache
def symbols(path: str) -> frozenset[str]:
    """Functions, classes, methods, fields and constants of a module, as "Class.method"."""
    found: set[str] = {"*", "__doc__"}

    def take(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found.add(prefix + node.name)
            elif isinstance(node, ast.ClassDef):
                found.add(prefix + node.name)
                take(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, ast.Assign):
                for target in node.targets:
                    found.update(
                        prefix + name.id for name in ast.walk(target) if isinstance(name, ast.Name)
                    )
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found.add(prefix + node.target.id)

    take(ast.parse((ROOT / path).read_text(encoding="utf-8")).body, "")
    return frozenset(found)


def missing(place: str) -> str | None:
    """What of "file symbol", or "scenario NAME", does not exist; None if all is well."""
    path, name = place.split()
    if path == "scenario":
        there = (ROOT / "netns-lab" / "scenarios" / name / "expect.toml").exists()
        return None if there else f"no scenario {name}"
    if not (ROOT / path).exists():
        return f"no file {path}"
    return None if name in symbols(path) else f"{path} has no {name}"


def _cell(place: str) -> str:
    path, name = place.split()
    if path == "scenario":
        return f"scenario `{name}`"
    return f"`{path}`" if name in ("*", "__doc__") else f"`{path}`: `{name}`"


def page(table: Table) -> str:
    """The text of the page."""
    text = table.head
    for document, title in table.titles:
        text += f"## {title}\n\n| section | words | where | shown by |\n| --- | --- | --- | --- |\n"
        for r in requirements(table):
            if r.document == document:
                where = "<br>".join(map(_cell, r.where))
                shown = "<br>".join(map(_cell, r.shown))
                words = f"“{r.words}”" + (f" — {r.note}" if r.note else "")
                text += f"| {r.section} | {words} | {where} | {shown} |\n"
        text += "\n"
    return text.removesuffix("\n")


def main() -> None:
    for table in TABLES:
        table.page.write_text(page(table), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
