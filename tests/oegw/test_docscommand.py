"""`oegw docs`: every page is listed and shown, through a pager where there is a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from oegw.arguments import DOCUMENTATION
from oegw.docscommand import listing, page_named, pages, summary
from oegw.exitcodes import FAILED, USAGE, Failure
from tests.support.misuse import environment, run

NAMES = sorted(page.stem for page in DOCUMENTATION.glob("*.md"))


def test_all_pages_are_listed_with_their_titles() -> None:
    code, out, err = run("docs")
    assert (code, err) == (0, "")
    rows = [line.split(maxsplit=1) for line in out.splitlines() if not line.startswith(" ")]
    assert [row[0] for row in rows] == NAMES
    for name, title in rows:
        assert (DOCUMENTATION / f"{name}.md").read_text().startswith(f"# {title.strip()}\n")


def test_a_page_is_shown_as_it_is() -> None:
    text = (DOCUMENTATION / "nat.md").read_text()
    for word in ("nat", "nat.md", "NAT"):
        assert run("docs", word) == (0, text, "")


def test_where_the_pages_are() -> None:
    assert run("docs", "--path") == (0, f"{DOCUMENTATION}\n", "")
    assert run("docs", "nat", "--path") == (0, f"{DOCUMENTATION / 'nat.md'}\n", "")


def test_a_page_that_there_is_not() -> None:
    with pytest.raises(Failure, match='did you mean "moniker"') as failure:
        page_named("monicker", DOCUMENTATION)
    assert failure.value.code == USAGE


def test_a_package_without_pages(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="install oegw anew") as failure:
        pages(tmp_path)
    assert failure.value.code == FAILED


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("# A: b\n\nOne `x`. Two.\n", ("A: b", "One `x`.")),
        ("# A\n\nSee [b](b.md#c): or\nc, v1.2. Two\n", ("A", "See b: or c, v1.2.")),
        ("# A\n\n| a | b |\n| --- | --- |\n", ("A", "")),
        ("# A\n\n## B\n", ("A", "")),
        ("# A\n", ("A", "")),
    ],
)  # fmt: skip
def test_what_is_said_of_a_page(text: str, found: tuple[str, str]) -> None:
    assert summary(text) == found


def test_the_list_is_as_wide_as_the_terminal(monkeypatch: Any) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    titles = {summary(page.read_text())[0] for page in pages(DOCUMENTATION).values()}
    for line in listing(DOCUMENTATION).splitlines():
        assert len(line) <= 70 or any(line.endswith(title) for title in titles)


@pytest.mark.parametrize(
    ("pager", "seen"),
    [
        ("sed 's/^# NAT$/paged/'", "paged"),
        ("", "# NAT"),
        ("no-such-pager-here", "# NAT"),
    ],
)
def test_on_a_terminal_a_pager_shows_it(pager: str, seen: str) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-P", "-m", "oegw", "docs", "nat"]
    with subprocess.Popen(command, stdout=theirs, env=environment({"PAGER": pager})) as process:
        os.close(theirs)
        octets = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # EIO: nobody has the other end any more
                break
            octets += part
            if not part:
                break
        assert process.wait(30) == 0
    os.close(ours)
    assert octets.decode().splitlines()[0] == seen
