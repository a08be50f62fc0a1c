"""`oegw docs`: the pages that are shipped, listed or shown."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from shutil import get_terminal_size
from textwrap import fill

from oegw.arguments import DOCUMENTATION, Arguments, Command
from oegw.configfile import shown, suggestion
from oegw.exitcodes import FAILED, FINE, USAGE, Failure

NARROWEST = 60  # a narrower terminal breaks the lines itself
WIDEST = 100  # columns of the list: longer lines are hard to read
_LINK = re.compile(r"\[([^\]]+)\]\([^)]*\)")
_SENTENCE = re.compile(r".*?[.?](?=\s|$)")


def _docs(arguments: Arguments) -> int:
    if arguments.page is None:
        print(DOCUMENTATION if arguments.path else listing(DOCUMENTATION))
        return FINE
    page = page_named(arguments.page, DOCUMENTATION)
    if arguments.path:
        print(page)
    else:
        _show(page.read_text(encoding="utf-8"))
    return FINE


def pages(folder: Path) -> dict[str, Path]:
    """The pages by name.  Raises Failure if there are none: the package is not whole."""
    found = {page.stem: page for page in folder.glob("*.md")}
    if not found:
        raise Failure(FAILED, f"{folder}: there are no pages: install oegw anew")
    return dict(sorted(found.items()))


def page_named(word: str, folder: Path) -> Path:
    """A page by its name, with or without ``.md``.  Raises Failure."""
    there = pages(folder)
    name = word.casefold().removesuffix(".md")
    if name not in there:
        near = suggestion(name, there) or "; oegw docs lists them"
        raise Failure(USAGE, f"there is no page {shown(word)}{near}")
    return there[name]


def listing(folder: Path) -> str:
    """Each page's name and title, and the first sentence of it."""
    there = pages(folder)
    room = max(map(len, there)) + 2
    columns = max(NARROWEST, min(get_terminal_size().columns, WIDEST))
    lines = []
    for name, page in there.items():
        title, sentence = summary(page.read_text(encoding="utf-8"))
        lines.append(f"{name:<{room}}{title}")
        if sentence:
            indent = " " * room
            lines.append(fill(sentence, columns, initial_indent=indent, subsequent_indent=indent))
    return "\n".join(lines)


def summary(text: str) -> tuple[str, str]:
    """The title of a page, and the first sentence below it, "" if something else stands there."""
    title, _, rest = text.partition("\n")
    first = " ".join(_LINK.sub(r"\1", rest.strip().partition("\n\n")[0]).split())
    found = _SENTENCE.match(first) if first[:1].isalpha() or first[:1] == "`" else None
    return title.lstrip("# "), found[0].replace("**", "") if found else ""


def _show(text: str) -> None:
    pager = _pager()
    if not pager:
        print(text, end="")
        return
    # An interrupt is for the pager, which stops a search by it and goes on.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        # -F: a page with room on the screen is printed; -X: it stays there.
        subprocess.run(
            pager, input=text, encoding="utf-8", env={"LESS": "FRX", **os.environ}, check=False
        )
    except OSError:  # there is no such program
        print(text, end="")
    finally:
        signal.signal(signal.SIGINT, before)


def _pager() -> list[str]:
    """The command, empty where there is no terminal or none is wanted."""
    if sys.stdout is None or not sys.stdout.isatty():
        return []
    try:
        return shlex.split(os.environ.get("PAGER", "less"))
    except ValueError:  # a quote that does not end
        return ["less"]


COMMANDS: dict[str, Command] = {"docs": _docs}
