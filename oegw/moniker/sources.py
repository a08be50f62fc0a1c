"""How often one source may ask (MK-26): a bounded table of allowances."""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import IPv6Address

from oegw.moniker.interface import IPAddress

# Our choices.
MAX_SOURCES = 4096
BURST_SECONDS = 10  # so many seconds' allowance may be used at once
IPV6_PREFIX = 64  # who has one address of it has all

_Key = tuple[int, int, bool]


class Sources:
    """``per_second``: of one source.  Who isn't in the table has its whole allowance, so that a
    flood of forged sources, which pushes others out, takes nothing from them."""

    def __init__(self, per_second: float) -> None:
        self.per_second = per_second
        self._left: OrderedDict[_Key, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._left)

    def take(self, source: IPAddress, proven: bool, now: float) -> bool:
        """Whether ``source`` may ask once more.

        What comes without a proof has an allowance of its own: whoever forges a source can't use up
        that of its owner.
        """
        key = _key(source, proven)
        burst = max(1.0, self.per_second * BURST_SECONDS)
        left, since = self._left.pop(key, (burst, now))
        left = min(burst, left + max(0.0, now - since) * self.per_second)
        allowed = left >= 1
        self._left[key] = (left - 1 if allowed else left, now)
        if len(self._left) > MAX_SOURCES:
            self._left.popitem(last=False)
        return allowed


def _key(source: IPAddress, proven: bool) -> _Key:
    if isinstance(source, IPv6Address):
        return 6, int(source) >> (128 - IPV6_PREFIX), proven
    return 4, int(source), proven
