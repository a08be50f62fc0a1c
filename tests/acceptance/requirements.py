"""The reader's table of requirements: ``python -m tests.acceptance.requirements`` writes it."""

from __future__ import annotations

import ast
import sys
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "oegw" / "docs" / "requirements.md"
SOURCE = Path(__file__).with_name("requirements.toml")

_HEAD = """\
# Requirements

What the draft (draft-richardson-ipsec-opportunistic-02) and RFC 4322 require, where it is done, and
which test or scenario of the lab shows it. Sentences are quoted by a few words. The table is
written by `python -m tests.acceptance.requirements`; a test sees to it that each file, symbol, test
and scenario in it exists, and that no section is left out. Only the sentence about the meaning of
the keywords is not in it.

"""
_TITLES = {
    "draft": "The draft, sections 1 to 11",
    "rfc4322": "RFC 4322",
}


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
def requirements() -> tuple[Requirement, ...]:
    read: dict[str, list[dict[str, Any]]] = tomllib.loads(SOURCE.read_text(encoding="utf-8"))
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


def page() -> str:
    """The text of the page."""
    text = _HEAD
    for document, title in _TITLES.items():
        text += f"## {title}\n\n| section | words | where | shown by |\n| --- | --- | --- | --- |\n"
        for r in requirements():
            if r.document == document:
                where = "<br>".join(map(_cell, r.where))
                shown = "<br>".join(map(_cell, r.shown))
                words = f"“{r.words}”" + (f" — {r.note}" if r.note else "")
                text += f"| {r.section} | {words} | {where} | {shown} |\n"
        text += "\n"
    return text.removesuffix("\n")


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
