"""The reader's tables say what is true: files, symbols, tests and scenarios exist."""

from __future__ import annotations

import re

import pytest

from tests.acceptance import requirements
from tests.acceptance.requirements import TABLES, Requirement, Table


def _words(text: str) -> list[str]:
    return re.findall(r"\S+", text)


# The draft's sections with text or heading, without those that only contain others; 2.2's
# subjects are its terms.
DRAFT = _words(
    "1 1.1 1.2 2.1 2.2 3.1 3.2 4.1 4.2 4.3 4.4 4.5 4.6 4.7 4.8 4.9 4.10 4.11 4.12.1 4.12.2 4.12.3 "
    "4.12.4 4.13 4.14 5.1 5.2 5.3 5.4 5.5 5.6 5.7 5.7.1 5.7.2 6.1 6.2 6.2.1 6.3 6.4 7 7.1 7.2 7.3 "
    "8 9 10.1 11.1 11.2 11.3"
)
# Those sections of RFC 4322 that have words in capital letters.
RFC_4322 = _words(
    "3.1.1 3.1.2 3.1.4 3.2 3.2.4 3.2.4.1 3.2.5 3.2.8 3.3.2 3.4 3.4.1 4.5 4.6.1 4.6.2 5.1 5.2 5.2.1 "
    "5.4 6.1 9.1 9.2 11.2 12.1 12.2"
)


SST = [f"SST-{number}" for number in range(1, 39)]
SEED = _words("2 3 3.A 3.B 4 4.A 4.B 4.C 4.D 5")
MK = [f"MK-{number}" for number in range(1, 34)]
PAPER = _words("3.1 3.2 4 4.1 4.2 4.3 5.1 5.2 5.3 6")
SK = [f"SK-{number}" for number in range(1, 45)]
KITAMURA = [  # its sections have no numbers
    "Introduction",
    "Extension 1",
    "Extension 2",
    "Extension 3",
    "Formats",
    "Security Considerations",
]

ALL = tuple(one for table in TABLES for one in requirements.requirements(table))
each = pytest.mark.parametrize("table", TABLES, ids=[table.page.stem for table in TABLES])


@pytest.mark.parametrize("one", ALL, ids=str)
def test_what_the_table_names_exists(one: Requirement) -> None:
    assert one.where
    assert one.shown
    assert [m for place in (*one.where, *one.shown) if (m := requirements.missing(place))] == []
    for place in one.shown:
        path, name = place.split()
        assert path == "scenario" or path.startswith("tests/"), place
        assert path == "scenario" or name == "*" or "test_" in name or "attacks" in path, place


@pytest.mark.parametrize(
    ("document", "sections"),
    [
        ("draft", DRAFT),
        ("rfc4322", RFC_4322),
        ("sst", SST),
        ("seed", SEED),
        ("mk", MK),
        ("paper", PAPER),
        ("sk", SK),
        ("kitamura", KITAMURA),
    ],
)
def test_no_section_is_left_out(document: str, sections: list[str]) -> None:
    covered = {r.section for r in ALL if r.document == document}
    assert set(sections) - covered == set()


def test_no_sentence_is_there_twice() -> None:
    said = [str(one) for one in ALL]
    assert sorted(said) == sorted(set(said))


@each
def test_every_document_has_its_place_on_the_page(table: Table) -> None:
    assert {one.document for one in requirements.requirements(table)} == {
        document for document, _ in table.titles
    }


@each
def test_the_page_is_what_the_table_says(table: Table) -> None:
    """``python -m tests.acceptance.requirements`` writes it."""
    assert table.page.read_text(encoding="utf-8") == requirements.page(table)


def test_what_is_missing_is_found() -> None:
    assert requirements.missing("oegw/hold.py Hold.keep") is None
    assert requirements.missing("oegw/hold.py Hold.lose") is not None
    assert requirements.missing("oegw/nowhere.py *") is not None
    assert requirements.missing("scenario nowhere") is not None
