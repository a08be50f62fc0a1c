"""`oegw top`: looks at the gateway again and again, and shows the page.

A thread asks, so that keys are answered while the gateway takes its time; and it asks the less
often the longer an answer takes, so that looking costs the gateway a tenth of its time at most.
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

from oegw.control import ControlError, NotPermittedError, request
from oegw.exitcodes import FAILED, FINE, USAGE, Failure
from oegw.overview import MOST_ROWS
from oegw.seeingarguments import FASTEST
from oegw.top.drawing import Manner, bare, page, painted, rows_that_fit
from oegw.top.model import Row, View, history, restarted, view_of
from oegw.top.terminal import Terminal

# Our choices.
ANSWER_SECONDS = 10.0
SHARE = 10  # an answer that took a second is not asked for again within ten
SETTLING = 10.0  # seconds for which a restart is told
LOOKS_KEPT = 500  # for the graph
ONCE_WIDTH = 132  # columns where there is no terminal

_ORDER_KEYS = {"r": "rate", "s": "state", "a": "age", "o": "octets", "d": "destination"}


def look(socket: Path, rows: int, order: str, match: str, *, reverse: bool = False) -> Row:
    """One answer of the gateway.  Raises ControlError and Failure."""
    message = {
        "command": "overview", "rows": rows, "order": order, "match": match, "reverse": reverse,
    }  # fmt: skip
    answer: Row = {}
    for line in request(socket, message, ANSWER_SECONDS):
        answer |= line
    if "error" in answer:
        reason = str(answer["error"])
        if "no such command" in reason:
            reason = "the gateway that is running is of an older version; restart it"
        raise Failure(FAILED, reason)
    return answer


def top(
    socket: Path,
    interval: float,
    order: str,
    match: str,
    *,
    once: bool,
    colour: bool = True,
    term: str = "xterm",
) -> int:
    """Run until the operator has seen enough.  ``term``: what kind of terminal this is, if any."""
    if once:
        return _once(socket, interval, order, match)
    if not (_is_terminal(sys.stdin) and _is_terminal(sys.stdout)):
        raise Failure(USAGE, "top: this is no terminal; --once prints one page")
    if term in ("", "dumb"):
        raise Failure(USAGE, "top: by TERM nothing can be drawn here; --once prints one page")
    first = look(socket, 1, order, match)  # whoever can't be asked is told before the screen goes
    return _Watcher(socket, Manner(order=order, match=match, interval=interval), colour).run(first)


def _is_terminal(stream: TextIO | None) -> bool:
    """Who started us may have closed it."""
    return stream is not None and stream.isatty()


def _once(socket: Path, interval: float, order: str, match: str) -> int:
    before = look(socket, MOST_ROWS, order, match)
    time.sleep(interval)
    view = view_of(before, look(socket, MOST_ROWS, order, match))
    width = shutil.get_terminal_size((ONCE_WIDTH, 24)).columns if _is_terminal(sys.stdout) else None
    manner = Manner(order=order, match=match, keys=False, graphs=False)
    for line in page(view, manner, width or ONCE_WIDTH, None):
        print(bare(line))
    return FINE


@dataclass(slots=True)
class _Answers:
    """What the asking thread has brought, for the drawing one.  ``took``: seconds."""

    answer: Row | None = None
    problem: str = ""
    took: float = 0.0
    number: int = 0
    asked: tuple[Any, ...] = ()
    lock: threading.Lock = field(default_factory=threading.Lock)


class _Asker(threading.Thread):
    """Asks when it is told to; ``wake`` is called when there is an answer."""

    def __init__(self, socket: Path, wake: Callable[[], None]) -> None:
        super().__init__(name="asker", daemon=True)
        self._socket = socket
        self._wake = wake
        self._order = threading.Event()
        self._question: tuple[int, str, str, bool] = (1, "rate", "", False)
        self.busy = False
        self.answers = _Answers()

    def ask(self, question: tuple[int, str, str, bool]) -> None:
        self._question = question
        self.busy = True
        self._order.set()

    def run(self) -> None:
        while True:
            self._order.wait()
            self._order.clear()
            rows, order, match, reverse = self._question
            began = time.monotonic()
            answer, problem = None, ""
            try:
                answer = look(self._socket, rows, order, match, reverse=reverse)
            except NotPermittedError as error:
                problem = str(error)
            except ControlError as error:
                problem = f"trying again: {error}"
            except Failure as failure:
                problem = " ".join(failure.lines)
            with self.answers.lock:
                self.answers.answer = answer
                self.answers.problem = problem
                self.answers.took = time.monotonic() - began
                self.answers.number += 1
            self.busy = False
            self._wake()


class _Watcher:
    """The loop of the live page."""

    def __init__(self, socket: Path, manner: Manner, colour: bool) -> None:
        self._manner = manner
        self._colour = colour
        self._terminal = Terminal()
        self._asker = _Asker(socket, self._terminal.wake)
        self._before: Row | None = None
        self._latest: Row | None = None
        self._view: View | None = None
        self._past: list[float] = []
        self._seen = 0
        self._settled = 0.0
        self._due = 0.0
        self._size = (0, 0)
        encoding = (sys.stdout.encoding or "").lower()
        self._manner = replace(manner, graphs=encoding.startswith("utf"))

    def run(self, first: Row) -> int:
        self._asker.start()
        self._take(first)
        self._due = time.monotonic() + self._manner.interval
        try:
            with self._terminal.taken():
                while not self._terminal.ended:
                    self._draw()
                    pressed = self._terminal.wait(self._pause())
                    for key in pressed:
                        if not self._pressed(key):
                            return FINE
                    self._collect()
                    if self._terminal.size() != self._size:
                        self._due = 0.0
                    if time.monotonic() >= self._due and not self._asker.busy:
                        self._ask()
        except (KeyboardInterrupt, EOFError):
            return FINE
        return FINE

    def _pause(self) -> float:
        if self._asker.busy:
            return 1.0
        return min(1.0, max(0.0, self._due - time.monotonic()))

    def _ask(self) -> None:
        width, height = self._size = self._terminal.size()
        manner = self._manner
        rows = manner.scroll + rows_that_fit(self._view, manner, width, height)
        self._asker.ask((min(rows, MOST_ROWS), manner.order, manner.match, manner.reverse))
        self._due = time.monotonic() + manner.interval

    def _collect(self) -> None:
        answers = self._asker.answers
        with answers.lock:
            if answers.number == self._seen:
                return
            self._seen = answers.number
            answer, problem, took = answers.answer, answers.problem, answers.took
        self._due = max(self._due, time.monotonic() + took * (SHARE - 1))
        now = time.monotonic()
        if answer is None:
            self._manner = replace(self._manner, notice=problem)
            self._settled = 0.0
            return
        if restarted(self._latest, answer):
            self._past.clear()
            self._settled = now + SETTLING
            notice = f"the gateway was restarted: process {answer.get('pid')}"
            self._manner = replace(self._manner, notice=notice)
        elif self._manner.notice and now >= self._settled:
            self._manner = replace(self._manner, notice="")
        self._take(answer)

    def _take(self, answer: Row) -> None:
        self._before, self._latest = self._latest, answer
        self._view = view_of(self._before, answer)
        self._past = history(self._past, self._view, LOOKS_KEPT)

    def _draw(self) -> None:
        width, height = self._terminal.size()
        lines = page(self._view, self._manner, width, height, self._past)
        self._terminal.show([painted(line, colour=self._colour) for line in lines])

    def _pressed(self, key: str) -> bool:
        """Whether to go on."""
        manner = self._manner
        if manner.entering:
            self._typed(key)
        elif key == "q":
            return False
        elif key in _ORDER_KEYS:
            self._change(order=_ORDER_KEYS[key], scroll=0)
        elif key == "i":
            self._change(reverse=not manner.reverse, scroll=0)
        elif key == "/":
            self._change(entering=True)
        elif key == "escape":
            self._change(match="", scroll=0)
        elif key in ("+", "-"):
            factor = 0.5 if key == "+" else 2.0
            self._change(interval=min(3600.0, max(FASTEST, manner.interval * factor)))
        else:
            self._scroll(key)
        return True

    def _typed(self, key: str) -> None:
        match = self._manner.match
        if key == "enter":
            self._change(entering=False)
        elif key == "escape":
            self._change(entering=False, match="", scroll=0)
        elif key == "erase":
            self._change(match=match[:-1], scroll=0)
        elif key == "clear":
            self._change(match="", scroll=0)
        elif len(key) == 1 and len(match) < 60:
            self._change(match=match + key, scroll=0)

    def _scroll(self, key: str) -> None:
        width, height = self._terminal.size()
        fits = rows_that_fit(self._view, self._manner, width, height)
        steps = {"up": -1, "down": 1, "page up": -fits, "page down": fits, "home": -MOST_ROWS}
        if key in steps and self._view is not None:
            last = max(0, min(self._view.matching, MOST_ROWS) - fits)
            self._change(scroll=min(last, max(0, self._manner.scroll + steps[key])))

    def _change(self, **wishes: Any) -> None:
        self._manner = replace(self._manner, **wishes)
        self._due = 0.0
