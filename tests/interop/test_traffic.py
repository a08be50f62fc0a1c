"""The matrix: each proposal, selector, identity and middle in both roles carries pings."""

from __future__ import annotations

import hashlib

import pytest

from tests.interop.bed import Bed
from tests.interop.cells import Cell, Role, parameters
from tests.interop.strongswan import FRAGMENT_SIZE, StrongSwan

SST_VENDOR = hashlib.md5(b"SST/1").digest()

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


@pytest.mark.parametrize(("cell", "role"), parameters("port-encryption"))
def test_port_encryption(bed: Bed, cell: Cell, role: Role) -> None:
    """strongSwan does not know our vendor ID: it has the tunnel it always had, and we say so."""
    bed.begin(cell, role)
    bed.bring_up()
    bed.check_negotiated()
    bed.check_capture()
    if isinstance(bed.near, StrongSwan):  # --self-check
        return
    said = any(SST_VENDOR in packet.payload for packet in bed.crossed())
    assert said is (role is Role.OURS), "message 2 has what both know, message 1 all that we know"
    [without] = bed.near.events("sst.tunnel_without", bed.positions[0])
    assert without["wanted"] == "inner"
    assert "does not encrypt ports" in without["reason"]
