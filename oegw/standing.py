"""What the gateway has put into the kernel stays there: if somebody else takes it away, it is put
back as it was.

`nft flush ruleset` opens all, whoever says it: a firewall that reloads, a script, a hand.  The
kernel tells of each change (`oegw.powers.lookout`), and now and then it is looked without being
told.  Who fights with us over it does not get all of the CPU: the pauses between grow.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from oegw.datapath.interface import DatapathError
from oegw.intercept.interface import InterceptError
from oegw.powers.orders import KernelChanged
from oegw.sst.interface import SstError
from oegw.trace import Trace

# Our choices, seconds.
LOOK = 10.0  # without being told: the old iptables tells nobody
TABLES_PAUSE = 0.05  # between two looks: one change of a firewall is many
LONGEST_PAUSE = 0.5
OTHERS_PAUSE = 1.0  # what is without them is dropped, and they take longer
PATIENCE = 5  # times in a row that are no fight yet
PEACE = 10.0  # without anything gone: then nothing is in a row any more
LINES = 3  # on standard error at once, of more one in each pause
LINE_PAUSE = 60.0
WARNED = 3600.0  # so long `oegw status` warns of the last time
PART = 0.25  # of the time, that looking and putting back may take

Mend = Callable[[bool], Awaitable[Sequence[str]]]
"""Looks, thoroughly or not; puts back, and returns what that was.  Raises InterceptError, SstError,
DatapathError if it can't."""


class Last(NamedTuple):
    """The last time that something was put back; ``moment``: monotonic."""

    time: float
    moment: float
    what: tuple[str, ...]
    author: str
    meanwhile: str


@dataclass(slots=True)
class _Concern:
    """``meanwhile``: what became of packets."""

    mends: Sequence[Mend]
    pause: float
    meanwhile: str
    told: asyncio.Event = field(default_factory=asyncio.Event)
    told_at: float = 0.0
    authors: dict[bool, str] = field(default_factory=dict)  # the last who deleted, or just added
    in_a_row: int = 0

    def tell(self, news: KernelChanged) -> None:
        if news.author:
            self.authors[news.deleted] = news.author
        if not self.told.is_set():
            self.told_at = time.monotonic()
            self.told.set()

    def heard(self) -> tuple[float, str]:
        """When we were told first, and who did it; nothing of it from now on."""
        heard = self.told_at, self.authors.get(True) or self.authors.get(False, "")
        self.told.clear()
        self.told_at = 0.0
        self.authors.clear()
        return heard


class Standing:
    """``tables``, ``jumps``, ``routing``: who looks after nftables' tables, iptables' rules, and
    after what leads to the datapath.  ``fail`` is told if something can't be put back."""

    def __init__(
        self,
        tables: Sequence[Mend],
        jumps: Sequence[Mend],
        routing: Sequence[Mend],
        trace: Trace,
        fail: Callable[[str], None],
    ) -> None:
        dropped = "until then packets were dropped"
        self._tables = _Concern(
            tables, TABLES_PAUSE, "until then protected packets may have left in clear"
        )
        self._jumps = _Concern(jumps, OTHERS_PAUSE, dropped)
        self._routing = _Concern(routing, OTHERS_PAUSE, dropped)
        self._trace = trace
        self._fail = fail
        self._line_at = 0.0
        self._lines = 0
        self.times = 0
        self.last: Last | None = None

    def changed(self, news: KernelChanged) -> None:
        """Something of ours may be gone."""
        for concern in (self._tables, self._jumps) if news.rules else (self._routing,):
            concern.tell(news)

    async def watch(self) -> None:
        """Until it is cancelled, or something can't be put back."""
        await asyncio.gather(*map(self._attend, (self._tables, self._jumps, self._routing)))

    def warnings(self) -> tuple[str, ...]:
        if self.last is None or time.monotonic() - self.last.moment > WARNED:
            return ()
        return (self._in_words(self.last),)

    def row(self) -> dict[str, Any]:
        """For the status."""
        last = self.last
        return {
            "put_back": self.times,
            "last": last and last.time,
            "ago": last and round(time.monotonic() - last.moment, 3),
            "what": list(last.what) if last else [],
            "author": last.author if last else "",
        }

    async def _attend(self, concern: _Concern) -> None:
        looked, busy = time.monotonic(), 0.0
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, looked + LOOK - time.monotonic())):
                    await concern.told.wait()
            began = time.monotonic()
            if thorough := began >= looked + LOOK:
                looked = began
            told_at, author = concern.heard()
            try:
                gone = [each for mend in concern.mends for each in await mend(thorough)]
            except (InterceptError, SstError, DatapathError) as error:
                self._fail(f"what somebody took away can't be put back: {error}")
                return
            now = time.monotonic()
            if gone:
                busy = now
                concern.in_a_row += 1
                last = Last(time.time(), now, tuple(gone), author, concern.meanwhile)
                self._put_back(last, now - told_at if told_at else None)
            elif now > busy + PEACE:
                concern.in_a_row = 0
            longest = max(concern.pause, LONGEST_PAUSE)
            pause = min(concern.pause * 2 ** max(0, concern.in_a_row - PATIENCE), longest)
            await asyncio.sleep(max(pause, (now - began) * (1 / PART - 1)))

    def _put_back(self, last: Last, seconds: float | None) -> None:
        self.times += 1
        self.last, now = last, last.moment
        self._trace.event(
            "standing", "put_back", what=list(last.what), author=last.author or None,
            times=self.times, seconds=None if seconds is None else round(seconds, 4),
        )  # fmt: skip
        if now > self._line_at + WARNED:
            self._lines = 0
        if self._lines < LINES or now > self._line_at + LINE_PAUSE:
            self._lines += 1
            self._line_at = now
            print(f"oegw: warning: {self._in_words(last)}", file=sys.stderr)

    def _in_words(self, last: Last) -> str:
        what = ", ".join(last.what)
        told = f"{last.author or 'somebody'} took away {what}: it was put back"
        if self.times > 1:
            told += f", as {self.times - 1} times before"
        return f"{told}; {last.meanwhile}"
