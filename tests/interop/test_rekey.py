"""Successors of tunnels and of keying channels, under traffic; not one ping may be lost."""

from __future__ import annotations

from functools import partial

import pytest

from tests.interop.bed import Bed
from tests.interop.cells import Cell, Role, parameters
from tests.interop.processes import wait_until
from tests.interop.terms import Agreed

pytestmark = [pytest.mark.interop, pytest.mark.netns]

LIFETIME = 10  # seconds, the shortest that a gateway accepts
PATIENCE = 30.0
AT_ONCE = 3.0
# Pings before the first successor, 2.5 seconds: what both sides begin within 2 seconds counts as
# begun at once (`ike/v1/succession.py`), and then the nonces decide which of the two tunnels stays.
PINGS_BEFORE = 25


def succeeded(bed: Bed, cell: Cell, before: Agreed) -> bool:
    """Whether there is one tunnel, and it or its channel is another than before."""
    after = bed.far.agreed()
    if len(after) != 1:
        return False  # both the old and the new one
    if cell.what == "tunnel":
        return after[0].spis != before.spis
    return after[0].channel != before.channel


@pytest.mark.parametrize(("cell", "role"), parameters("rekey"))
def test_rekey(bed: Bed, cell: Cell, role: Role) -> None:
    """Two successors, one after the other; in between and after them everything arrives."""
    if cell.by == "ours":
        ours = {"tunnel_lifetime" if cell.what == "tunnel" else "channel_lifetime": LIFETIME}
        bed.begin(cell, role, **ours)
    else:
        bed.begin(cell, role)
    bed.bring_up()
    bed.check_negotiated()
    streams = [bed.stream("near"), bed.stream("far")]
    lost = []
    try:
        for stream in streams:
            stream.await_more(PINGS_BEFORE)
        for _ in range(2):
            _, before = bed.agreed()
            if cell.by == "strongswan":
                bed.far.rekey(cell.what)

            wait_until(
                "a successor alone on strongSwan's side",
                partial(succeeded, bed, cell, before),
                PATIENCE,
            )
            for stream in streams:
                stream.await_more(10)
            if cell.what == "channel":
                # The end of the old channel is not the end of the tunnel that it made.
                bed.far.retire()
                wait_until("one channel on our side", lambda: len(bed.near.channels()) == 1)
                for stream in streams:
                    stream.await_more(10)
    finally:
        lost = [stream.end() for stream in streams]
    assert lost == [[], []]
    bed.agreed()
    bed.check_capture(at_least=100)
    # Both sides know which tunnel it is that a new channel speaks of.
    bed.far.terminate("tunnel")
    wait_until("that ours closes the tunnel", lambda: not bed.near.agreed(), AT_ONCE)
