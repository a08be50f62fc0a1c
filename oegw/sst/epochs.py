"""Epochs of static keys: each day has its key (SKIP's idea of a counter that nobody has to tell).

A flow keeps the epoch that it was born in; of its number only two bits are kept with it, so an
epoch is known by them among the four days around today.
"""

from __future__ import annotations

# Specification: design page, section 14.5.
DAY_SECONDS = 86400
MAX_DAY = 0xFFFFFFFF

# Our choice, as there are two bits in the connection mark.
EPOCHS = 4


def day_of(time: float) -> int:
    """The day of a time in seconds since 1970."""
    return min(max(int(time // DAY_SECONDS), 0), MAX_DAY)


def seconds_left(time: float) -> float:
    """Seconds until the next day begins."""
    return DAY_SECONDS - time % DAY_SECONDS


def epoch_of(day: int | None) -> int:
    """What is kept with a flow: 0 to 3; 0 where epochs are off."""
    return 0 if day is None else day % EPOCHS


def candidates(today: int | None) -> tuple[int | None, ...]:
    """Days whose key a new flow may be sealed with, the likeliest first: clocks differ, and it may
    be midnight."""
    if today is None:
        return (None,)
    return tuple(day for day in (today, today - 1, today + 1) if 0 <= day <= MAX_DAY)


def day_with(epoch: int, today: int | None) -> int | None:
    """The day of an epoch that was kept: within the two days before ``today`` and the one after."""
    if today is None:
        return None
    last = today + 1
    return max(last - (last - epoch) % EPOCHS, 0)
