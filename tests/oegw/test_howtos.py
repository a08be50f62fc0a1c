"""What the tutorial and the how-tos tell to type and to write can be typed and written.

`tests/deploy/` runs the tutorial; here is what can be known without routers.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from oegw import config
from oegw.cli import parser
from tests.support.configurations import PEER_KEY
from tests.support.pages import HOWTOS, TUTORIAL, blocks, commands, files

X25519 = "q1V9sL0Xn3gTqD8yR5bJ2mKfH7wZcE6uAoPiNtYlMkQ="
pages = pytest.mark.parametrize("page", HOWTOS, ids=lambda page: page.stem)


@pages
def test_commands_are_known(page: Path) -> None:
    found = list(commands(page))
    assert found
    for words in found:
        parser().parse_args(words)


@pages
def test_files_are_right(page: Path) -> None:
    """Each by itself, with the keys that are left out put in."""
    for text in files(page):
        whole = text if re.search("^version", text, re.M) else f"version = 1\n{text}"
        for shown, real in (('"0sAwEAAb..."', f'"{PEER_KEY}"'), ('"..."', f'"{X25519}"')):
            whole = whole.replace(shown, real)
        config.parse(whole, Path("/etc/oegw/oegw.d/page.toml"))


def test_most_pages_have_files() -> None:
    assert sum(any(True for _ in files(page)) for page in HOWTOS) >= 5


def test_the_tutorial_is_typed_at_places_that_there_are() -> None:
    found = blocks(TUTORIAL)
    assert {place for block in found for place in block.places} == {"a", "b", "dns", "alice"}
    assert "oegw init" in "".join(block.text for block in found if block.places == ("b",))


@pages
def test_readers_see_where_a_block_is_typed(page: Path) -> None:
    """For the words behind the fence are shown to nobody."""
    for block in blocks(page):
        first, *_ = block.text.splitlines()
        assert first == f"# on {' and '.join(block.places)}", f"{page.name}:{block.line}"
        done = subprocess.run(["sh", "-n"], input=block.text, text=True, capture_output=True)
        assert done.returncode == 0, done.stderr
    for block in blocks(page, "toml"):
        first, *_ = block.text.splitlines()
        [path] = block.words
        assert first == f"# {path} on {' and '.join(block.places)}", f"{page.name}:{block.line}"


def test_both_routers_do_the_same() -> None:
    """Neither is told of the other: the words differ in the host behind them only."""
    a, b = (
        [block.text for block in blocks(TUTORIAL) if block.places == (place,)] for place in "ab"
    )  # fmt: skip
    assert b
    assert [
        script.replace("192.1.0.65", "192.2.0.66").replace("# on a", "# on b")
        for script in a[: len(b)]
    ] == b
