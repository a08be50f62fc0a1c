"""The matrix: each proposal, selector, identity and middle in both roles carries pings."""

from __future__ import annotations

import pytest

from tests.interop.bed import Bed
from tests.interop.cells import Cell, Role, parameters
from tests.interop.strongswan import FRAGMENT_SIZE

pytestmark = [pytest.mark.interop, pytest.mark.netns]


@pytest.mark.parametrize(("cell", "role"), parameters("traffic"))
def test_traffic(bed: Bed, cell: Cell, role: Role) -> None:
    """A tunnel comes up, is what was asked for, and carries all pings both ways; nothing leaks."""
    bed.begin(cell, role)
    bed.bring_up()
    bed.check_negotiated()
    bed.check_capture()


@pytest.mark.parametrize(("cell", "role"), parameters("fragments"))
def test_fragments(bed: Bed, cell: Cell, role: Role) -> None:
    """The same, and strongSwan's larger messages came in pieces."""
    bed.begin(cell, role)
    bed.bring_up()
    bed.check_negotiated()
    bed.check_capture()
    pieces = [packet for packet in bed.crossed() if packet.is_ike_fragment]
    assert len(pieces) >= 4
    theirs = str(bed.site.far.outside)
    assert {str(packet.source) for packet in pieces} >= {theirs}
    assert max(len(packet.payload) for packet in pieces) <= FRAGMENT_SIZE
