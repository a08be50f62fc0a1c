"""Ours beside Dante, microsocks and ssh -D: the same octets, and each difference explained.

`differences.toml` says what ours does in each case, and what another does instead, and why.  A
difference that is not in it is a failure, and so is one that is no more.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.oegw.socks5.differences.cases import CASES
from tests.oegw.socks5.differences.expected import OTHERS, expected
from tests.oegw.socks5.differences.ground import Ground, grounds
from tests.oegw.socks5.differences.table import PAGE, page


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Ground]]:
    with grounds(["ours", *OTHERS], tmp_path_factory.mktemp("differences")) as made:
        yield made


def heard_of(server: Ground, name: str, case: str) -> list[str]:
    heard = server.heard[case]
    return heard if expected().agrees(case, name, heard) else server.again(case)


@pytest.mark.netns
@pytest.mark.parametrize("case", CASES)
def test_ours(servers: dict[str, Ground], case: str) -> None:
    """What it is told is in `cases`, under this name."""
    assert heard_of(servers["ours"], "ours", case) == expected().ours[case]


@pytest.mark.netns
@pytest.mark.parametrize("name", OTHERS)
def test_each_difference_is_explained(servers: dict[str, Ground], name: str) -> None:
    unexplained = [
        f"{case}: {OTHERS[name]} {heard}, ours {expected().ours[case]}"
        for case in CASES
        if not expected().agrees(case, name, heard := heard_of(servers[name], name, case))
    ]
    assert not unexplained, "\n".join(["", *unexplained])


def test_the_file_is_about_these_cases() -> None:
    assert list(expected().ours) == list(CASES)
    assert all(work.__doc__ for work in CASES.values())


def test_the_file_tells_differences_only_and_each_has_a_reason() -> None:
    known = expected()
    for (case, server), difference in known.differences.items():
        assert server in OTHERS
        assert known.ours[case] not in difference.heard, f"{case}: {server} does the same"
        assert difference.why, f"{case}: why is {server} different?"
    used = {reason for each in known.differences.values() for reason in each.why}
    assert used == set(known.reasons)


def test_the_page_is_up_to_date() -> None:
    """``python -m tests.oegw.socks5.differences.table`` writes it."""
    assert PAGE.read_text(encoding="utf-8") == page()
