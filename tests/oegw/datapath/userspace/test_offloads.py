"""What is told of offloads."""

from __future__ import annotations

from oegw.datapath.userspace.offloads import RECEIVING, SENDING, Offload, merged


def test_one_place_without_it_is_told_for_all() -> None:
    lacking, worse = Offload(SENDING, "lacking"), Offload(SENDING, "worse")
    assert merged(Offload(SENDING), Offload(RECEIVING), lacking, Offload(SENDING), worse) == (
        lacking,
        Offload(RECEIVING),
    )
    assert Offload(RECEIVING).on
    assert not lacking.on
    assert merged() == ()
