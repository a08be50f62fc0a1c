"""The hands as the mind has them: what it asks, what it is told, and what is handed over."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from oegw.datapath.interface import DatapathError, DatapathEvent, DatapathFailed
from oegw.intercept.interface import InterceptError
from oegw.keyfile import KeyFileError
from oegw.powers import codec
from oegw.powers.frames import FrameError, Frames, Kind, Waiting, frame, read
from oegw.powers.orders import (
    ANSWERS,
    Ask,
    Call,
    KernelChanged,
    News,
    PartFailed,
    Refused,
    SendKeying,
    Trouble,
)
from oegw.sst.interface import SstError

_NUMBER = 4  # octets
_GIFT = 16  # octets that come with descriptors, at most
_DESCRIPTORS = 64

GONE = "the process with the rights has ended"

_ERRORS: dict[Trouble, Callable[[str], Exception]] = {
    Trouble.DATAPATH: DatapathError,
    Trouble.INTERCEPT: InterceptError,
    Trouble.SST: SstError,
    Trouble.KEY_FILE: KeyFileError,
}


class HandsGone(Exception):  # noqa: N818  (it names the fact)
    """They have ended, or do not answer."""


@dataclass(frozen=True, slots=True)
class Ends:
    """Sockets between the two, those of one side.

    ``calls``, ``slow``: what the mind waits for, in its event loop and in other threads; ``news``:
    what the hands say by themselves, and answers that took their time; ``gifts``: descriptors.
    """

    calls: socket.socket
    slow: socket.socket
    news: socket.socket
    gifts: socket.socket

    @classmethod
    def pair(cls) -> tuple[Ends, Ends]:
        """Those of both sides.  Raises OSError."""
        made = [socket.socketpair() for _ in range(3)]
        made.append(socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        return cls(*(ours for ours, _ in made)), cls(*(theirs for _, theirs in made))

    def close(self) -> None:
        for each in (self.calls, self.slow, self.news, self.gifts):
            each.close()


class ToHands:
    """``calls`` and ``tell`` are for the thread of the event loop; other threads may ``call``."""

    def __init__(self, ends: Ends) -> None:
        self._ends = ends
        self._loop_thread = threading.get_ident()
        self._calls, self._slow = Waiting(ends.calls), Waiting(ends.slow)
        self._slow_turn = threading.Lock()
        self._frames = Frames()
        self._numbers = itertools.count(1)
        self._asked: dict[int, tuple[type, asyncio.Future[Any]]] = {}
        self._gifts: dict[int, list[int]] = {}
        self._gone = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self.listener: Callable[[DatapathEvent], None] | None = None
        self.failed: Callable[[str], None] | None = None
        self.changed: Callable[[KernelChanged], None] | None = None
        ends.news.setblocking(False)

    def begin(self) -> None:
        """In the event loop: listen to what they say."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._ends.news, self._news)

    def end(self) -> None:
        if not self._gone:
            asyncio.get_running_loop().remove_reader(self._ends.news)
        self._gone = True
        self._ends.close()

    def call(self, order: Call) -> Any:
        """What is done before this returns, and what it says.  Raises HandsGone, and the error that
        it was refused with."""
        body = codec.encode(order, Call)
        if threading.get_ident() == self._loop_thread:
            return self._answered(self._calls, order, body)
        with self._slow_turn:
            return self._answered(self._slow, order, body)

    async def ask(self, order: Ask) -> Any:
        """The same, whenever it is done."""
        answer, _ = await self._ask(order)
        return answer

    async def ask_for_gift(self, order: Ask) -> tuple[Any, int]:
        """The same, and the descriptor that came with it."""
        answer, number = await self._ask(order)
        [descriptor] = self._gift(number)
        return answer, descriptor

    async def ask_for_gifts(
        self, order: Ask, any_come: Callable[[Any], bool]
    ) -> tuple[Any, list[int]]:
        """The same, and the descriptors, if by the answer any come."""
        answer, number = await self._ask(order)
        return answer, self._gift(number) if any_come(answer) else []

    def call_for_gift(self, order: Call) -> tuple[Any, int]:
        answer = self.call(order)
        [descriptor] = self._gift(0)
        return answer, descriptor

    def tell(self, order: SendKeying) -> None:
        """Without an answer; nobody hears of what is lost."""
        self._post(Kind.TELL, codec.encode(order, SendKeying))

    def give_verdict(self, octets: bytes) -> None:
        self._post(Kind.VERDICT, octets)

    async def _ask(self, order: Ask) -> tuple[Any, int]:
        number = next(self._numbers)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asked[number] = ANSWERS[type(order)], answer
        try:
            if self._gone:
                raise HandsGone(GONE)
            body = number.to_bytes(_NUMBER, "big") + codec.encode(order, Ask)
            try:
                self._calls.send(Kind.ASK, body)
            except FrameError:
                raise HandsGone(GONE) from None
            return await answer, number
        finally:
            del self._asked[number]

    def _post(self, kind: Kind, body: bytes) -> None:
        try:
            self._calls.send(kind, body)
        except FrameError:
            self._lost()

    def _answered(self, line: Waiting, order: Call, body: bytes) -> Any:
        try:
            line.send(Kind.CALL, body)
            kind, octets = line.receive()
        except FrameError as error:
            reason = f"{GONE}: {error}"
            if self._loop is not None:
                with suppress(RuntimeError):  # it is closed
                    self._loop.call_soon_threadsafe(self._lost, reason)
            raise HandsGone(reason) from None
        if kind is Kind.REFUSAL:
            raise error_of(codec.decode(octets, Refused))
        return codec.decode(octets, ANSWERS[type(order)])

    def _gift(self, number: int) -> list[int]:
        """It was sent before the answer that says so."""
        while number not in self._gifts:
            try:
                octets, found, _, _ = socket.recv_fds(self._ends.gifts, _GIFT, _DESCRIPTORS)
            except OSError as error:
                raise HandsGone(f"{GONE}: {error.strerror}") from None
            if not found:
                raise HandsGone(GONE)
            self._gifts[int.from_bytes(octets, "big")] = found
        descriptors = self._gifts.pop(number)
        for each in descriptors:
            os.set_inheritable(each, False)
        return descriptors

    # What they say.

    def _news(self) -> None:
        octets = read(self._ends.news)
        if octets is None:
            return
        if not octets:
            self._lost()
            return
        try:
            for kind, body in self._frames.take(octets):
                self._take(kind, body)
        except (FrameError, codec.CodecError) as error:
            self._lost(f"the process with the rights sent nonsense: {error}")

    def _take(self, kind: Kind, body: bytes) -> None:
        if kind is Kind.NEWS:
            self._told(codec.decode(body, News))
            return
        number, octets = int.from_bytes(body[:_NUMBER], "big"), body[_NUMBER:]
        kind_of_answer, answer = self._asked.get(number, (None, None))
        if answer is None or answer.done():  # who asked was cancelled
            return
        if kind is Kind.REFUSAL:
            answer.set_exception(error_of(codec.decode(octets, Refused)))
        else:
            answer.set_result(codec.decode(octets, kind_of_answer))

    def _told(self, news: News) -> None:
        if isinstance(news, PartFailed):
            if self.failed is not None:
                self.failed(news.reason)
        elif isinstance(news, KernelChanged):
            if self.changed is not None:
                self.changed(news)
        elif self.listener is not None:
            self.listener(news)

    def _lost(self, reason: str = GONE) -> None:
        if self._gone:
            return
        self._gone = True
        asyncio.get_running_loop().remove_reader(self._ends.news)
        for _, answer in list(self._asked.values()):
            if not answer.done():
                answer.set_exception(HandsGone(reason))
        if self.failed is not None:
            self.failed(reason)
        elif self.listener is not None:
            self.listener(DatapathFailed(reason))


def error_of(refused: Refused) -> Exception:
    if refused.trouble is Trouble.SYSTEM:
        return OSError(refused.number, refused.text)
    return _ERRORS[refused.trouble](refused.text)


def news_frame(news: News) -> bytes:
    """What `ToHands` takes; the hands send it."""
    return frame(Kind.NEWS, codec.encode(news, News))


def answer_frame(number: int, answer: Any, declared: Any) -> bytes:
    """The answer to what was asked under ``number``."""
    kind = Kind.REFUSAL if declared is Refused else Kind.ANSWER
    return frame(kind, number.to_bytes(_NUMBER, "big") + codec.encode(answer, declared))
