"""Which ports a service may get at random (MK-24).  Without IO: the kernel's settings are given."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

Range = tuple[int, int]  # the first port and the last

# Specification.
HIGHEST = 65535

# Our choices.
LOWEST = 1024
FEWEST = 1024  # to choose from: with fewer, whoever tries them all soon has the right one

# The ports from 1024 on that browsers refuse to speak to (WHATWG Fetch, "port blocking").
BLOCKED = frozenset(
    (1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, *range(6665, 6670), 6679,
     6697, 10080)
)  # fmt: skip


def parse_ranges(text: str) -> tuple[Range, ...]:
    """What the kernel writes: ``"32768\\t60999"`` is one range, ``"8080,9000-9100"`` are two.

    What can't be read, and ports that do not exist, are left out.
    """
    words = text.split()
    if len(words) == 2:
        words = ["-".join(words)]
    found = []
    for word in ",".join(words).split(","):
        first, _, last = word.partition("-")
        if first.isdecimal() and (last or first).isdecimal() and len(word) <= 11:
            found.append((int(first), min(int(last or first), HIGHEST)))
    return tuple((first, last) for first, last in found if first <= last)


@lru_cache(maxsize=8)
def usable(
    ephemeral: tuple[Range, ...], reserved: tuple[Range, ...], lowest: int = LOWEST
) -> tuple[int, ...]:
    """The ports to choose from, in order.

    ``ephemeral``: those that the kernel gives outgoing connections.  They are taken only where
    hardly any others are left: the kernel does not give away a port that is bound, but it may have
    given it away before.  ``reserved``: those that the operator set aside.
    """
    left = set(range(max(lowest, LOWEST), HIGHEST + 1)) - BLOCKED - _within(reserved)
    calm = left - _within(ephemeral)
    return tuple(sorted(calm if len(calm) >= FEWEST else left))


def _within(ranges: Iterable[Range]) -> set[int]:
    return {port for first, last in ranges for port in range(first, last + 1)}
