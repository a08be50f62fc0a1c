"""A worker dies at any line while it changes an SA's record: its successor accepts no replay, and
takes no number a second time."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from random import Random
from types import FrameType
from typing import Any

import pytest

from oegw.datapath.userspace import record, replay
from oegw.datapath.userspace.record import private_record
from oegw.datapath.userspace.replay import ReplayWindow

PLACES = {record.__file__, replay.__file__}


class DeathError(Exception):
    """Here the process ended."""


def dies(work: Callable[[], object], line: int) -> bool:
    """Do ``work`` up to its ``line``-th line in those modules; False if it was done before."""
    left = line

    def trace(frame: FrameType, what: str, _: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in PLACES:
            return None
        if what == "line":
            left -= 1
            if left < 0:
                raise DeathError
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    except DeathError:
        return True
    finally:
        sys.settrace(before)
    return False


@pytest.mark.parametrize("size", [32, 64, 100, 1024])
def test_no_death_makes_a_window_accept_a_replay(size: int) -> None:
    random = Random(size)
    for _ in range(60):
        kept = private_record(size)
        window, accepted = ReplayWindow(kept, size, True), set[int]()
        top = random.choice((0, 2**32 - 40, 2**40))
        kept.sequence = top
        for _ in range(12):
            step = random.choice((1, 1, 2, 5, size // 2, size - 1, size, size + 1, 3 * size))
            count = random.choice((1, 1, 2, 9, 64)) if step > 0 else 1
            first = window.top + step - random.choice((0, 0, size // 2, size))
            if first <= window.top:
                count = 1
            if not window.fresh(first):
                continue
            dead = dies(partial(window.accept_run, first, count), random.randrange(40))
            if dead:  # nothing was delivered; whoever comes has the record alone
                window = ReplayWindow(kept, size, True)
            else:
                accepted.update(range(first, first + count))
            again = [number for number in accepted if window.fresh(number)]
            assert not again, f"died: {dead}; {again} would be delivered again"
            assert all(window.top >= number for number in accepted)


def test_no_death_makes_a_number_be_taken_twice() -> None:
    for line in range(30):
        kept = private_record()
        taken: list[int] = []
        for count in (1, 40, 64, 3):
            before = kept.sequence
            if not dies(partial(kept.take, count, 9, 1.0, 2**32), line):
                taken.extend(range(before + 1, before + 1 + count))
            following = kept.take(1, 9, 1.0, 2**32)
            assert following is not None
            taken.append(following)
        assert len(taken) == len(set(taken)), f"a death at line {line}"
        assert taken == sorted(taken)


def test_the_test_of_windows_sees_a_wrong_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the bits cleared before the top moves, a death in between would let replays in."""

    def wrong(self: ReplayWindow, first: int, count: int) -> None:
        kept, bits = self._record, self._bits
        if first > self.top:
            replay._change(kept.memory, kept.at + record.RING, bits, self.top + 1, count, False)
            kept.sequence = first + count - 1
        replay._change(kept.memory, kept.at + record.RING, bits, first, count, True)

    monkeypatch.setattr(ReplayWindow, "accept_run", wrong)
    monkeypatch.setattr(sys.modules[__name__], "PLACES", PLACES | {__file__})
    with pytest.raises(AssertionError, match="would be delivered again"):
        test_no_death_makes_a_window_accept_a_replay(64)
