"""The page has the table of all findings, as the code has them."""

from __future__ import annotations

from oegw.doctor.checks import SUBJECTS
from tests.support.doctor_page import COMMANDS, PAGE, table, with_table


def test_the_page_is_up_to_date() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_table(page), "python -m tests.support.doctor_page"


def test_each_command_can_be_read() -> None:
    names = {kind.name for subject in SUBJECTS for kind in subject.kinds}
    assert set(COMMANDS) <= names
    opaque = [line for line in table().splitlines() if "MEND" in line or "COMMANDS" in line]
    assert not opaque
