"""The reference of the configuration has the keys, defaults and values that the code has."""

from __future__ import annotations

import pytest

from tests.support.configuration_page import HEADER, keys, with_tables
from tests.support.reference import DOCUMENT

PAGE = DOCUMENT.read_text(encoding="utf-8")
TRIES = "| `tries` | `3` | 1 to 20 |"


def test_the_page_is_as_the_code_says() -> None:
    """If not: python -m tests.support.configuration_page"""
    assert with_tables(PAGE) == PAGE
    assert PAGE.count(HEADER) == len([those for those in keys().values() if those])


def test_what_is_wrong_is_put_right() -> None:
    assert TRIES in PAGE
    for wrong in (
        "| `tries` | `4` | 1 to 20 |",
        "| `tries` | `3` | 1 to 21 |",
        "| `tries` | `3` |",
    ):
        assert with_tables(PAGE.replace(TRIES, wrong)) == PAGE


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        (TRIES, "| `attempts` | `3` | 1 to 20 |"),
        (TRIES, f"| `more` | none | text | x |\n{TRIES}"),
        ("## `[dns]`", "## `[names]`"),
        ("### `[socks.udp]`", "### UDP"),
    ],
)
def test_what_only_one_of_them_has_is_noticed(was: str, becomes: str) -> None:
    assert was in PAGE
    with pytest.raises(AssertionError):
        with_tables(PAGE.replace(was, becomes))


def test_keys_are_found_where_they_are_read() -> None:
    found = keys()
    assert found["dns"]["timeout"].value == "seconds, 0.01 to 60"
    assert found["rule"]["category"].value.count('"') == 2 * 4
    assert found["socks.user"].keys() == {"name", "password", "encrypted", "connections"}
    assert "rule" not in found["moniker"]
