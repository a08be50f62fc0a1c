"""The pages of `oegw/docs/`: each can be found, each link leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from oegw.arguments import DOCUMENTATION

ROOT = Path(__file__).parents[2]
PAGES = sorted(ROOT.glob("oegw/docs/*.md"))
NOT_OURS = {"build", "dist"}  # what others make there may vanish while we look
READMES = [
    ROOT / "README.md",
    *(
        page
        for folder in sorted(ROOT.iterdir())
        if folder.is_dir() and folder.name not in NOT_OURS and not folder.name.startswith(".")
        for page in sorted(folder.rglob("README.md"))
    ),
]
LINK = re.compile(r"\]\((?!https?:)([^)#]+)[^)]*\)")


def test_the_documentation_is_where_the_help_says() -> None:
    assert ROOT / "oegw/docs" == DOCUMENTATION
    assert PAGES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_is_found_from_the_readme(page: Path) -> None:
    for readme in ("README.md", "oegw/README.md"):
        assert f"docs/{page.name})" in (ROOT / readme).read_text(encoding="utf-8"), readme


@pytest.mark.parametrize("page", [*PAGES, *READMES], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target
