"""The page, at every width."""

from __future__ import annotations

import pytest

from oegw.top.drawing import Manner, Style, bare, page, painted, rows_that_fit
from oegw.top.model import View, view_of
from tests.support.overviews import connection, overview

LONG = {"source": "2001:db8:1111:2222:3333:4444:5555:6666/128",
        "destination": "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff/128"}  # fmt: skip


def view(*rows: dict[str, object], **fields: object) -> View:
    return view_of(overview(1.0), overview(2.0, *rows, **fields))


MANY = view(*(connection(n) for n in range(1, 40)), connection(41, "clear"), connection(42, **LONG))


@pytest.mark.parametrize("height", [1, 2, 5, 24, 100])
def test_no_line_is_wider_and_no_page_higher_than_the_terminal(height: int) -> None:
    for width in range(1, 200):
        lines = page(MANY, Manner(notice="x" * 300), width, height, [1.0, 5.0, 2.0])
        assert len(lines) == height
        assert max(len(bare(line)) for line in lines) <= max(width, 20)


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 132])
def test_state_and_destination_stay_whatever_has_no_room(width: int) -> None:
    short = view(connection(7))
    text = [bare(line) for line in page(short, Manner(), width, 24)]
    head = next(line for line in text if "DESTINATION" in line)
    row = text[text.index(head) + 1]
    assert head.startswith("STATE")
    assert "keyed" in row
    assert row.find("192.2.0.8") >= 0 or width < 30


def test_what_there_is_room_for_is_shown_by_its_worth() -> None:
    def columns(width: int) -> list[str]:
        text = (bare(line) for line in page(view(connection(7)), Manner(), width, 24))
        return next(line for line in text if "STATE" in line).split()

    assert {"RULE", "LEFT", "GATEWAY", "SOURCE", "AGE", "IN"} <= set(columns(132))
    assert "RULE" not in columns(90)
    assert {"SOURCE", "AGE"} <= set(columns(72))


def test_the_order_is_marked_and_states_have_colours() -> None:
    rows = (connection(1), connection(2, "denied"), connection(3, "clear"))
    lines = page(view(*rows), Manner(order="age", reverse=True, graphs=False), 120, 24)
    assert any("AGE^" in bare(line) for line in lines)
    styles = {text.strip(): style for line in lines for text, style in line}
    assert styles["keyed"] is Style.GOOD or styles["1"] is Style.GOOD
    assert styles["denied"] is Style.BAD
    assert styles["clear"] is Style.WEAK


def test_without_colours_nothing_has_one() -> None:
    lines = page(MANY, Manner(), 120, 24)
    coloured = "".join(painted(line, colour=True) for line in lines)
    plain = "".join(painted(line, colour=False) for line in lines)
    assert "\x1b[32m" in coloured
    assert "\x1b[3" not in plain


def test_rows_that_fit_are_those_that_are_shown() -> None:
    for height in (10, 24, 50):
        fits = rows_that_fit(MANY, Manner(), 100, height)
        shown = [bare(line) for line in page(MANY, Manner(), 100, height)]
        assert sum(line.startswith(("keyed", "clear")) for line in shown) == min(fits, 41), height


def test_a_page_without_an_end_has_all_rows_and_no_keys() -> None:
    text = "\n".join(bare(line) for line in page(MANY, Manner(keys=False), 132, None))
    assert text.count("192.1.1.5") == 40
    assert "quit" not in text


def test_scrolling_the_filter_and_nothing_to_see() -> None:
    scrolled = [bare(line) for line in page(MANY, Manner(scroll=38), 100, 24)]
    assert not any("192.2.0.3 " in line for line in scrolled)
    typing = bare(page(MANY, Manner(entering=True, match="bob"), 100, 24)[-1])
    assert typing.startswith("filter: bob_")
    empty = [bare(line) for line in page(view(), Manner(match="bob"), 100, 24)]
    assert "no connection matches" in empty
    waiting = [bare(line) for line in page(None, Manner(notice="no oegw is running"), 100, 24)]
    assert waiting[0] == "no oegw is running"
