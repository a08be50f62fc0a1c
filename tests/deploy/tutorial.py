"""A tutorial in Markdown, run as it stands: its fenced blocks that name a place.

    ```sh a b                        a script for router a, then for router b
    ```sh alice                      for a host: alice, bob, dns, or net, which is the Internet
    ```sh a publish                  the same, and the records that it prints are put into the DNS
    ```toml a /etc/oegw/oegw.toml    the text of a file of router a
    ```output                        lines that the block before has printed, in this order;
                                     ... in a line stands for anything

Blocks that name no place are for readers only.  A script ends at its first command that fails.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tests.deploy.site import PLACES, Site

HOSTS = ("alice", "bob", "dns", "net")

FENCE = re.compile(r"^```(?P<info>[^`\n]*)\n(?P<text>.*?)^```[ \t]*$", re.M | re.S)
_RECORD = re.compile(r"\S+ IN ")


@dataclass(frozen=True, slots=True)
class Block:
    """``line``: of the tutorial, for whoever looks for a failure."""

    line: int
    kind: str
    places: tuple[str, ...]
    words: tuple[str, ...]
    text: str


class TutorialFailed(AssertionError):  # noqa: N818  (it says what happened)
    """The tutorial does not do what it says; the text names the line."""


def blocks(markdown: str) -> Iterator[Block]:
    """Those that name a place, and what they are said to print."""
    for found in FENCE.finditer(markdown):
        kind, *words = found["info"].split() or [""]
        places = tuple(word for word in words if word in PLACES or word in HOSTS)
        more = tuple(word for word in words if word not in places)
        if places or kind == "output":
            line = markdown.count("\n", 0, found.start()) + 1
            yield Block(line, kind, places, more, found["text"])


def run_tutorial(markdown: str, site: Site) -> None:
    """Run it in routers that are booted.  Raises TutorialFailed."""
    printed = ""
    for block in blocks(markdown):
        if block.kind == "output":
            check_output(block, printed)
            continue
        printed = "".join(_done(block, place, site) for place in block.places)
        if "publish" in block.words:
            site.publish([line for line in printed.splitlines() if _RECORD.match(line)])


def check_output(block: Block, printed: str) -> None:
    """Raises TutorialFailed if a line is not among what was ``printed``, behind the one before."""
    lines = iter(printed.splitlines())
    for wanted in filter(None, map(str.strip, block.text.splitlines())):
        pattern = re.compile(".*".join(re.escape(part) for part in wanted.split("...")))
        if not any(pattern.search(line) for line in lines):
            raise TutorialFailed(f"line {block.line}: {wanted!r} was not printed:\n{printed}")


def _done(block: Block, place: str, site: Site) -> str:
    """What it printed."""
    if block.kind == "sh":
        script = f"set -e\n{block.text}"
        if place in site.machines:
            done = site.machines[place].attempt(script, 600)
        else:
            done = site.within(place, "sh", "-c", script)
        if done.returncode != 0:
            raise TutorialFailed(
                f"line {block.line}, on {place}: code {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done.stdout + done.stderr
    [path] = (word for word in block.words if word.startswith("/"))
    site.machines[place].write(path, block.text)
    return ""
