"""What the lab says about a matrix of policies must be false when a cell is not as expected."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from ipaddress import ip_address
from types import ModuleType, SimpleNamespace

import pytest

from tests.support.lab_commands import LAB


@pytest.fixture(scope="module")
def lablib() -> Iterator[ModuleType]:
    sys.path.insert(0, str(LAB.parent))
    try:
        import lablib
        import lablib.cells
        import lablib.matrix
        import lablib.pings
        import lablib.scenario

        yield lablib
    finally:
        sys.path.remove(str(LAB.parent))


PAIR = ("192.1.0.101", "192.2.0.101")


def _packet(kind: str, back: bool = False, spi: str = "") -> SimpleNamespace:
    source, destination = PAIR[::-1] if back else PAIR
    if spi:
        source, destination = "192.1.1.4", "192.1.1.5"
    return SimpleNamespace(
        kind=kind, source=ip_address(source), destination=ip_address(destination), spi=spi
    )


REQUEST, REPLY = _packet("echo request"), _packet("echo reply", back=True)
SEALED = _packet("esp", spi="0000abcd")
T = ("T", "", "keyed", "keyed")
C = ("C", "request reply", "clear", "-")
X = ("X", "request", "clear", "-")


@pytest.mark.parametrize(
    ("cell", "seconds", "states", "packets", "complaint"),
    [
        (T, 0.02, ("keyed", "keyed"), [SEALED], None),
        (T, None, ("keyed", "keyed"), [SEALED], "no answer"),
        (T, 3.5, ("keyed", "keyed"), [SEALED], "an answer after 3.5 s"),
        (T, 0.02, ("keyed", "-"), [SEALED], "states keyed and -"),
        (T, 0.02, ("keyed", "keyed"), [], "0 packets of ESP"),
        (T, 0.02, ("keyed", "keyed"), [_packet("esp", spi="0000ffff")], "0 packets of ESP"),
        (T, 0.02, ("keyed", "keyed"), [SEALED, REQUEST], "in clear: echo request"),
        (C, 0.02, ("clear", "-"), [REQUEST, REPLY], None),
        (C, 0.02, ("clear", "-"), [REQUEST], "in clear: echo request"),
        (C, 0.02, ("clear", "-"), [REQUEST, REPLY, REPLY], "in clear: echo reply, echo reply"),
        (C, 0.02, ("clear", "-"), [REQUEST, REPLY, SEALED], "1 packets of ESP"),
        (X, None, ("clear", "-"), [REQUEST], None),
        (X, 0.02, ("clear", "-"), [REQUEST], "an answer"),
        (X, None, ("clear", "-"), [REQUEST, REPLY], "in clear: echo reply"),
        (X, None, ("clear", "-"), [], "in clear: nothing"),
    ],
)
def test_each_kind_of_deviation_is_a_complaint(
    lablib: ModuleType,
    cell: tuple[str, str, str, str],
    seconds: float | None,
    states: tuple[str, str],
    packets: list[SimpleNamespace],
    complaint: str | None,
) -> None:
    outcome, clear, near, far = cell
    wanted = lablib.cells.Cell("a", "b", outcome, tuple(clear.split()), near, far)
    seen = lablib.cells.Seen(seconds, *states, frozenset({"0000abcd"}))
    found = lablib.matrix.amiss(wanted, seen, PAIR, packets)
    if complaint is None:
        assert found == []
    else:
        assert any(text.startswith(complaint) for text in found), found


def test_the_scenario_has_all_25_cells_of_the_model(lablib: ModuleType) -> None:
    """The outcomes as libreswan's newoe-18 has them."""
    plan = lablib.scenario.load("matrix").matrix
    model = {
        "private-or-clear": "TTTCX",
        "clear-or-private": "TCTCX",
        "private": "TTTXX",
        "clear": "CCXCX",
        "block": "XXXXX",
    }
    assert plan.rows == plan.columns == tuple(model)
    outcomes = "".join(cell.outcome for cell in plan.cells)
    assert outcomes == "".join(model.values())


def test_a_matrix_with_a_cell_missing_or_unknown_is_an_error(lablib: ModuleType) -> None:
    table = {
        "hosts": ["alice", "bob"], "gateways": ["sg-a", "sg-b"], "rows": ["a"],
        "columns": ["a", "b"], "cells": [["a", "a", "T", "", "keyed", "keyed"]],
    }  # fmt: skip
    with pytest.raises(lablib.errors.LabError):
        lablib.cells.plan(table)
    for wrong in (["a", "b", "Y", "", "-", "-"], ["a", "b", "T", "requst", "-", "-"]):
        with pytest.raises(lablib.errors.LabError):
            lablib.cells.plan({**table, "cells": [*table["cells"], wrong]})
    lablib.cells.plan({**table, "cells": [*table["cells"], ["a", "b", "T", "", "-", "-"]]})


def test_pings_of_the_matrix_are_what_scapy_reads(lablib: ModuleType) -> None:
    import socket

    from scapy.all import ICMP, IP

    pings = lablib.pings
    read = ICMP(pings.request(socket.AF_INET, 9, 7, b"payload!"))
    assert (read.type, read.id, read.seq, bytes(read.payload)) == (8, 9, 7, b"payload!")
    reply = IP(src=PAIR[1], dst=PAIR[0]) / ICMP(type=0, id=9, seq=7) / b"payload!"
    assert pings.answered(socket.AF_INET, 9, bytes(reply)) == 7
    assert pings.answered(socket.AF_INET, 8, bytes(reply)) is None
    assert read.chksum == ICMP(bytes(ICMP(type=8, id=9, seq=7) / b"payload!")).chksum
    assert pings.answered(socket.AF_INET, 9, bytes(IP() / ICMP(type=8, id=9))) is None
    assert pings.answered(socket.AF_INET6, 9, b"\x81\0\0\0\0\x09\0\7") == 7
    assert pings.answered(socket.AF_INET6, 9, b"\x81\0") is None
