"""Packets a second: UDP datagrams of 64 octets, at most one of a hundred of which may be lost."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.datapath.contender import Standing
from tests.bench.datapath.row import BOB
from tests.interop.processes import InteropError, inside

PROGRAM = Path(__file__).with_name("small_traffic.py")
LOSS = 0.01
SECONDS = 0.5  # of a trial
FIRST_GUESS = 40_000.0
_STEP = 1.6  # to the next rate
_KNOWN_STEP = 1.15  # from what other rounds found
_CLOSE = 1.05  # ratio of the two at which the search ends
_TRIALS = 12
_HELD = 0.93  # a sender that stays below this much of its rate can't send more


@dataclass(frozen=True, slots=True)
class Trial:
    """What was sent and what came, a second; ``asked`` is the rate that the sender was told."""

    asked: float
    sent: float
    came: float

    @property
    def good(self) -> bool:
        return self.came >= self.sent * (1 - LOSS)

    @property
    def held(self) -> bool:
        return self.sent >= self.asked * _HELD


def highest(attempt: Callable[[float], Trial], known: float | None = None) -> float:
    """The most packets a second that came in a good trial; 0 if there was none.

    From what is ``known``, or a guess, the rate goes up, further each time, or down, until one was
    good and a higher one was not; then to the middle of both.  A bad trial is repeated once, for
    the machine does other things as well.  Where the sender itself can't send more, however much
    it is asked to, on CPUs that it shares with the gateways, the search is over.
    """
    best = good = 0.0
    bad = math.inf
    rate, step, rises = known or FIRST_GUESS, _KNOWN_STEP if known else _STEP, 0
    for _ in range(_TRIALS):
        trial = attempt(rate)
        if not trial.good:
            trial = attempt(rate)
        if trial.good:
            stuck = not trial.held and trial.came <= best * _CLOSE
            best, good = max(best, trial.came), max(good, rate)
            if stuck:
                break
        else:
            bad = min(bad, rate)
        if good and bad <= good * _CLOSE:
            break
        if bad == math.inf:
            rises += 1
            rate = good * step**rises
        elif not good:  # what came in spite of it may be near, or far less than could have come
            rate = min(bad / step, max(trial.came, bad / _STEP**4))
        else:
            rate = math.sqrt(good * bad)
    return best


class _Asked:
    """A `small_traffic.py` in a host's namespace: one line there, one back."""

    def __init__(self, namespace: str, role: str) -> None:
        self.process = subprocess.Popen(
            inside(namespace, [sys.executable, "-I", str(PROGRAM), role]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, *words: object) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise InteropError("small_traffic.py ended")
        return json.loads(answer)

    def end(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)
        self.process.stdout.close()


@contextmanager
def traffic(
    standing: Standing, address: str = BOB, spread: int = 1
) -> Iterator[Callable[[float], Trial]]:
    """What makes trials from Alice to Bob."""
    ports = itertools.cycle(range(20_000, 30_000))
    counter = _Asked(standing.row.host("b"), "count")
    try:
        sender = _Asked(standing.row.host("a"), "send")
        try:

            def attempt(rate: float) -> Trial:
                port = next(ports)  # what is still under way from the last trial is not counted
                counter.ask(port)
                sent = sender.ask(address, port, spread, rate, SECONDS)
                came = counter.ask()["counted"]
                return Trial(rate, sent["sent"] / sent["seconds"], came / sent["seconds"])

            yield attempt
        finally:
            sender.end()
    finally:
        counter.end()


def packets(standing: Standing, known: float | None = None) -> float:
    with traffic(standing) as attempt:
        return highest(attempt, known)
