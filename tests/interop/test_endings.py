"""Ends of tunnels: a peer that dies, a peer that says goodbye, a peer that comes back."""

from __future__ import annotations

import pytest

from tests.interop.bed import Bed
from tests.interop.cells import Cell, Role, parameters
from tests.interop.processes import wait_until

pytestmark = [pytest.mark.interop, pytest.mark.netns]

DEAD_PEER_SECONDS = 2
NOTICE_SECONDS = 20.0
AT_ONCE = 3.0


def renewed(bed: Bed, initiator: Role = Role.OURS) -> None:
    """Alice's next packets make a new tunnel; ``initiator`` of its channel."""
    bed.role = Role.OURS
    bed.bring_up()
    bed.check_negotiated(initiator)


@pytest.mark.parametrize(("cell", "role"), parameters("dead-peer"))
def test_dead_peer(bed: Bed, cell: Cell, role: Role) -> None:
    """One side dies under traffic; the other forgets it, and takes it back when it returns."""
    bed.begin(cell, role, dead_peer_seconds=DEAD_PEER_SECONDS)
    bed.bring_up()
    bed.check_negotiated()
    dead, alive = (bed.near, bed.far) if cell.by == "ours" else (bed.far, bed.near)
    stream = bed.stream("far" if cell.by == "ours" else "near")
    try:
        stream.await_more(3)
        dead.lose_power()
        wait_until("that the other side notices", lambda: not alive.agreed(), NOTICE_SECONDS)
        wait_until("that it forgets the channel", lambda: not alive.channels(), NOTICE_SECONDS)
    finally:
        stream.end()
    bed.check_capture()
    dead.start()
    renewed(bed)
    bed.check_capture(at_least=24)


@pytest.mark.parametrize(("cell", "role"), parameters("delete"))
def test_delete(bed: Bed, cell: Cell, role: Role) -> None:
    """One side closes the tunnel; the other closes it at once, and a new one can be made."""
    bed.begin(cell, role)
    bed.bring_up()
    bed.check_negotiated()
    first, second = (bed.near, bed.far) if cell.by == "ours" else (bed.far, bed.near)
    if cell.what == "stop":
        first.stop()
    else:
        first.terminate(cell.what)
    wait_until("that the other side closes it", lambda: not second.agreed(), AT_ONCE)
    if cell.what == "tunnel":
        assert len(second.channels()) == 1, "the keying channel was not to be closed"
    else:
        wait_until("that it closes the channel", lambda: not second.channels(), AT_ONCE)
        bed.near.start()
    bed.check_capture()
    # A tunnel that ours makes anew in a channel that stays: the channel's initiator stays, too.
    renewed(bed, role if cell.what == "tunnel" else Role.OURS)
    bed.check_capture(at_least=18)


@pytest.mark.parametrize(("cell", "role"), parameters("restart"))
def test_restart(bed: Bed, cell: Cell, role: Role) -> None:
    """Ours crashes and returns at once: strongSwan has one tunnel afterwards, not two."""
    bed.begin(cell, role)
    bed.bring_up()
    bed.check_negotiated()
    (old,) = bed.far.channels()
    said = bed.far.position()
    bed.near.kill()
    bed.near.start()
    renewed(bed)
    assert bed.far.channels() not in ([], [old])
    assert len(bed.far.channels()) == 1, "Initial-Contact replaces the channel of the former life"
    assert "N(INITIAL_CONTACT)" in bed.far.story(said)
    bed.check_capture(at_least=18)
