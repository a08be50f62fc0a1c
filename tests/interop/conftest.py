"""Options, the test bed as a fixture, a line with the time for each cell, logs of a failure."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.interop.bed import Bed
from tests.interop.cells import PLACES, Cell, Role
from tests.interop.site import Middle
from tests.interop.terms import KeyPair

HERE = Path(__file__).parent
BED = pytest.StashKey[Bed]()
FAILED = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("interop")
    group.addoption(
        "--interop-where",
        action="append",
        choices=sorted(PLACES),
        help="whose ESP: host (user space on both sides), kernel, mixed (ours user space)",
    )
    group.addoption(
        "--interop-datapath",
        action="store_true",
        help="only the cells in which the datapath has a part: those that are also mixed",
    )
    group.addoption(
        "--interop-stand-in",
        action="store_true",
        help="check the test bed itself: strongSwan stands in for our gateway",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "where" in metafunc.fixturenames:
        places = metafunc.config.getoption("--interop-where", default=None) or ["host"]
        metafunc.parametrize("where", places, scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the cells of other places.

    And what strangers get out of ours is not asked of a strongSwan that stands in for it.
    """
    stand_in = config.getoption("--interop-stand-in", default=False)
    datapath = config.getoption("--interop-datapath", default=False)

    def elsewhere(item: pytest.Item) -> bool:
        # This hook sees the items of all folders.
        if item.path.parent != HERE or not isinstance(item, pytest.Function):
            return False
        if "where" not in item.fixturenames:
            return False
        cell, where = item.callspec.params["cell"], item.callspec.params["where"]
        assert isinstance(cell, Cell)
        if datapath and "mixed" not in cell.places:
            return True
        return where not in cell.places or (stand_in and item.path.name == "test_scan.py")

    left_out = [item for item in items if elsewhere(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_report_teststatus(
    report: pytest.CollectReport | pytest.TestReport, config: pytest.Config
) -> tuple[str, str, str] | None:
    """With -v each cell's line ends with its seconds."""
    if not isinstance(report, pytest.TestReport) or "tests/interop/" not in report.nodeid:
        return None
    if report.when == "call" and report.outcome in ("passed", "failed"):
        mark = "." if report.passed else "F"
        return report.outcome, mark, f"{report.outcome.upper()} {report.duration:6.2f} s"
    return None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure's report has the ends of both gateways' logs."""
    report = yield
    bed = item.stash.get(BED, None)
    if report.failed and bed is not None:
        item.session.stash[FAILED] = True
        report.sections += bed.stories()
        report.sections.append(("files", f"kept in {bed.directory}"))
    return report


@pytest.fixture(scope="session")
def keys() -> tuple[KeyPair, KeyPair]:
    return KeyPair.make(), KeyPair.make()


class _Beds:
    """The beds of a session.  One with a NAT serves one cell: a NAT remembers."""

    def __init__(self, keys: tuple[KeyPair, KeyPair], stand_in: bool) -> None:
        self._keys, self._stand_in = keys, stand_in
        self._standing: dict[str, Bed] = {}

    def get(self, where: str, middle: Middle) -> Bed:
        if middle is not Middle.BRIDGE:
            return Bed.put_up(where, middle, self._keys, self._stand_in)
        if where not in self._standing:
            self._standing[where] = Bed.put_up(where, middle, self._keys, self._stand_in)
        return self._standing[where]

    def close(self, keep: bool) -> None:
        for bed in self._standing.values():
            bed.take_down(keep)


@pytest.fixture(scope="session")
def beds(request: pytest.FixtureRequest, keys: tuple[KeyPair, KeyPair]) -> Iterator[_Beds]:
    beds = _Beds(keys, request.config.getoption("--interop-stand-in"))
    yield beds
    beds.close(keep=request.session.stash.get(FAILED, False))


@pytest.fixture
def bed(
    request: pytest.FixtureRequest, beds: _Beds, where: str, cell: Cell, role: Role
) -> Iterator[Bed]:
    """A bed with nothing in it of the cell before; the test calls ``begin``."""
    del role  # it belongs to the cell
    bed = beds.get(where, cell.middle)
    request.node.stash[BED] = bed
    yield bed
    try:
        bed.finish()
    finally:
        if cell.middle is not Middle.BRIDGE:
            bed.take_down(keep=request.session.stash.get(FAILED, False))
