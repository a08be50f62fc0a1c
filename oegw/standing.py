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
RULES_PAUSE = 0.05  # between two looks: one change of a firewall is many
ROUTING_PAUSE = 1.0  # without it nothing leaves in clear, and all a router's links are told of
LONGEST_PAUSE = 0.5  # to put rules back again
PEACE = 10.0  # without anything gone: then the pauses are short again
LINES = 3  # on standard error at once, of more one in each pause
LINE_PAUSE = 60.0
WARNED = 3600.0  # so long `oegw status` warns of the last time
PART = 0.25  # of the time, that looking and putting back may take

Mend = Callable[[bool], Awaitable[Sequence[str]]]
"""Looks, thoroughly or not; puts back, and returns what that was."""


class Last(NamedTuple):
    """The last time that something was put back; ``moment``: monotonic."""

    time: float
    moment: float
    what: tuple[str, ...]
    author: str


@dataclass(slots=True)
class _Concern:
    mends: Sequence[Mend]
    pause: float
    told: asyncio.Event = field(default_factory=asyncio.Event)
    told_at: float = 0.0
    author: str = ""
    in_a_row: int = 0

    def tell(self, author: str) -> None:
        self.author = author or self.author
        if not self.told.is_set():
            self.told_at = time.monotonic()
            self.told.set()

    def heard(self) -> tuple[float, str]:
        """When we were told first, and who did it; nothing of it from now on."""
        heard = self.told_at, self.author
        self.told.clear()
        self.told_at, self.author = 0.0, ""
        return heard


class Standing:
    """``rules``, ``routing``: who looks after what.  ``fail`` is told if it can't be put back."""

    def __init__(
        self,
        rules: Sequence[Mend],
        routing: Sequence[Mend],
        trace: Trace,
        fail: Callable[[str], None],
    ) -> None:
        self._rules = _Concern(rules, RULES_PAUSE)
        self._routing = _Concern(routing, ROUTING_PAUSE)
        self._trace = trace
        self._fail = fail
        self._line_at = 0.0
        self._lines = 0
        self.times = 0
        self.last: Last | None = None

    def changed(self, news: KernelChanged) -> None:
        """Something of ours may be gone."""
        (self._rules if news.rules else self._routing).tell(news.author)

    async def watch(self) -> None:
        """Until it is cancelled, or something can't be put back."""
        await asyncio.gather(self._attend(self._rules), self._attend(self._routing))

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
                self._put_back(gone, author, now - told_at if told_at else None)
            elif now > busy + PEACE:
                concern.in_a_row = 0
            longest = max(concern.pause, LONGEST_PAUSE)
            pause = min(concern.pause * 2**concern.in_a_row, longest)
            await asyncio.sleep(max(pause, (now - began) * (1 / PART - 1)))

    def _put_back(self, gone: Sequence[str], author: str, seconds: float | None) -> None:
        self.times += 1
        now = time.monotonic()
        self.last = Last(time.time(), now, tuple(gone), author)
        self._trace.event(
            "standing", "put_back", what=list(gone), author=author or None, times=self.times,
            seconds=None if seconds is None else round(seconds, 4),
        )  # fmt: skip
        if now > self._line_at + WARNED:
            self._lines = 0
        if self._lines < LINES or now > self._line_at + LINE_PAUSE:
            self._lines += 1
            self._line_at = now
            print(f"oegw: warning: {self._in_words(self.last)}", file=sys.stderr)

    def _in_words(self, last: Last) -> str:
        what = ", ".join(last.what)
        told = f"{last.author or 'somebody'} took away {what}: it was put back"
        if self.times > 1:
            told += f", as {self.times - 1} times before"
        return f"{told}; until then protected packets may have left in clear"
