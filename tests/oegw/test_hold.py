"""The hold: what is kept, what has to go, and its bounds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from oegw.hold import Discard, Hold, HoldSettings


def test_first_mode_keeps_one_packet_and_drops_the_new_one() -> None:
    """Draft section 4.1."""
    hold = Hold(HoldSettings(mode="first"))
    assert hold.keep(1, 10, 100) is None
    assert hold.keep(1, 11, 100) == Discard(11, "hold_first_only")
    assert hold.keep(2, 12, 100) is None  # another connection has its own place
    assert hold.take(1) == (10,)
    assert hold.take(1) == ()


def test_first_and_last_mode_keeps_the_first_and_the_newest_in_order() -> None:
    """RFC 4322 sections 3.1.1 and 3.1.2."""
    hold = Hold(HoldSettings())
    assert hold.keep(1, 10, 100) is None
    assert hold.keep(1, 11, 100) is None
    assert hold.keep(1, 12, 100) == Discard(11, "hold_newer_came")
    assert hold.take(1) == (10, 12)
    assert (hold.packets, hold.octets) == (0, 0)


def test_number_of_packets_is_bounded() -> None:
    hold = Hold(HoldSettings(packets=2))
    assert hold.keep(1, 10, 1) is None
    assert hold.keep(2, 11, 1) is None
    assert hold.keep(3, 12, 1) == Discard(12, "hold_full")
    assert hold.keep(1, 13, 1) == Discard(13, "hold_full")
    hold.take(2)
    assert hold.keep(3, 14, 1) is None


def test_octets_are_bounded_and_a_newer_packet_may_use_the_place_of_the_older() -> None:
    hold = Hold(HoldSettings(octets=300))
    assert hold.keep(1, 10, 100) is None
    assert hold.keep(1, 11, 200) is None
    assert hold.keep(1, 12, 200) == Discard(11, "hold_newer_came")
    assert hold.keep(1, 13, 201) == Discard(13, "hold_full")
    assert hold.take(1) == (10, 12)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 50), st.booleans()), max_size=60),
    st.sampled_from(["first", "first+last"]),
)
def test_every_packet_leaves_exactly_once(steps: list[tuple[int, int, bool]], mode: str) -> None:
    hold = Hold(HoldSettings(mode=mode, packets=5, octets=120))
    gone: list[int] = []
    for number, (connection, size, take) in enumerate(steps):
        discard = hold.keep(connection, number, size)
        if discard is not None:
            gone.append(discard.packet)
        if take:
            gone.extend(hold.take(connection))
        assert hold.packets <= 5
        assert hold.octets <= 120
    gone.extend(hold.take_all())
    assert sorted(gone) == list(range(len(steps)))
    assert (hold.packets, hold.octets) == (0, 0)
