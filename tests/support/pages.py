"""The pages of `oegw/docs/` taken apart: commands with the place where they are typed, files."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path

from oegw.arguments import DOCUMENTATION
from tests.deploy import tutorial

TUTORIAL = DOCUMENTATION / "tutorial.md"
HOWTOS = (
    *sorted(DOCUMENTATION.glob("howto-*.md")), DOCUMENTATION / "operating.md", TUTORIAL,
)  # fmt: skip
_INDENTED = re.compile(r"(?:^(?: {4,}.*)?\n)+", re.M)
_TABLE = re.compile(r"\[\[?[a-z_.]+\]\]?|version = 1")
_HERE_DOCUMENT = re.compile(r"^cat >\S+\.toml <<END\n(.*?)^END$", re.M | re.S)
_LOOKED_UP = re.compile(r'"(?P<prefix>\w*)\$\(.*\)"')  # a key, when the page is followed
_PLAIN = re.compile(r"[^'\"$|&;<>*?(){}]*")


def blocks(page: Path, kind: str = "sh") -> tuple[tutorial.Block, ...]:
    """The fenced blocks of a page that say where they belong, in order."""
    found = tutorial.blocks(page.read_text(encoding="utf-8"))
    return tuple(block for block in found if block.kind == kind)


def indented(page: Path) -> Iterator[str]:
    """The indented blocks of a page, those in lists too."""
    text = tutorial.FENCE.sub("", page.read_text(encoding="utf-8"))
    for found in _INDENTED.findall(text):
        yield from _apart(found)


def _apart(block: str) -> Iterator[str]:
    """A block without its indentation: parts of other indentation are others."""
    lines: list[str] = []
    for line in [*block.splitlines(), "x"]:
        depth = len(line) - len(line.lstrip())
        if line and lines and depth < len(lines[0]) - len(lines[0].lstrip()):
            yield textwrap.dedent("\n".join(lines)).strip() + "\n"
            lines = []
        if line.strip() or lines:
            lines.append(line)


def files(page: Path) -> Iterator[str]:
    """The parts of configurations that a page shows."""
    yield from (block.text for block in blocks(page, "toml"))
    for block in blocks(page):
        for text in _HERE_DOCUMENT.findall(block.text):
            yield _LOOKED_UP.sub(r'"\g<prefix>..."', text).replace('"0s..."', '"0sAwEAAb..."')
    yield from (each for each in indented(page) if _TABLE.match(each))


def commands(page: Path) -> Iterator[list[str]]:
    """Each plain ``oegw ...`` line of a page, as words behind ``oegw``."""
    scripts = [block.text for block in blocks(page)]
    for script in (*scripts, *(each for each in indented(page) if not _TABLE.match(each))):
        for line in script.splitlines():
            words = line.partition(" #")[0].strip()
            if words.startswith("oegw ") and _PLAIN.fullmatch(words):
                yield shlex.split(words)[1:]
