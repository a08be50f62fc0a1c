"""One worker and its successors: started, asked, and started anew when it dies.

What a worker is to have stands in the control process (`installed.py`), which changes it before it
asks.  A successor is told all of it, and packets move again once that is done; what the
predecessor had not answered yet is answered by that.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import socket
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from oegw.datapath.interface import DatapathError, Direction, WorkerReport
from oegw.datapath.userspace import channel
from oegw.datapath.userspace.channel import ChannelError, Kind, Message
from oegw.datapath.userspace.child import Child
from oegw.datapath.userspace.equipment import Equipment

# Our choices, seconds.
_START_TIMEOUT = 30.0  # a Python start on a small router
_SA_TIME = 0.01  # for each SA that a successor is told of, on such a router
_ANSWER_TIMEOUT = 10.0  # then it hangs, and is killed
_PULSE = 5.0  # a worker that nobody asks anything is asked whether it hangs
_END_TIMEOUT = 5.0
_LIVED = 1.0  # who lived shorter is one of those that keep dying
_LONGEST_PAUSE = 1.0
_FIRST_PAUSE = 1 / 32  # doubled each time; the first death has none

# Our choices.
_STARTS = 8  # so many that fail running, some four seconds long, are a failure of the datapath
_TICKS = 10  # of a question's time, see `_tick`
_MESSAGES_PER_TURN = 32  # before the event loop does something else

# A bug of the core ends so; other signals are somebody's will.
CRASHES = frozenset(
    (
        signal.SIGSEGV,
        signal.SIGBUS,
        signal.SIGILL,
        signal.SIGFPE,
        signal.SIGABRT,
        signal.SIGSYS,
        signal.SIGTRAP,
    )
)

_MODULES = {
    Direction.OUTBOUND: "oegw.datapath.userspace.sealing",
    Direction.INBOUND: "oegw.datapath.userspace.opening",
}

Request = tuple[Kind, Any]


class Place(NamedTuple):
    """Which worker: of those for a direction, the one with this number."""

    direction: Direction
    number: int

    @property
    def name(self) -> str:
        """As ``status`` calls it."""
        kind = "sealing" if self.direction is Direction.OUTBOUND else "opening"
        return f"{kind} {self.number}"


class Datapath(Protocol):
    """What a worker's supervisor needs of the datapath.  Nothing of it waits."""

    def equipment(self, place: Place) -> Equipment: ...
    def all_told(self, place: Place) -> Iterable[Request]:
        """What a successor is to be told before packets move."""

    def said(self, kind: Kind, body: Any) -> None:
        """A worker said something by itself."""

    def died(self, core: str, crashed_by: signal.Signals | None) -> None:
        """It did, and a successor is being started."""

    def failed(self, reason: str) -> None:
        """No successor can be started."""


@dataclass(slots=True)
class _Question:
    answers: list[asyncio.Future[Any]]
    tick: float  # seconds
    left: int  # ticks
    clock: asyncio.TimerHandle | None = None

    def done(self) -> None:
        if self.clock is not None:
            self.clock.cancel()


class Supervisor:
    """Of the worker at ``place``."""

    def __init__(self, place: Place, datapath: Datapath) -> None:
        self.place = place
        self._datapath = datapath
        self._child: Child | None = None
        self._control: socket.socket | None = None
        self._gone = asyncio.Event()  # the channel ended
        self._task: asyncio.Task[None] | None = None
        self._numbers = itertools.count(1)
        self._questions: dict[int, _Question] = {}
        self._waiting: list[asyncio.Future[Any]] = []  # answered once a successor knows all
        self._unsent: deque[bytes] = deque()
        self._told = False
        self._failure: str | None = None
        self._patient_until = 0.0  # it has much to read before it can answer
        self._starting: asyncio.Future[Any] | None = None  # the answer to START, then to BEGIN
        self._restarts = 0
        self._core = self._core_reason = ""
        self._libraries: tuple[tuple[str, str, str], ...] = ()
        self._without: dict[str, str] = {}  # of this worker: a successor tries all again

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child and not self._child.ended.done() else None

    @property
    def report(self) -> WorkerReport:
        pid = self.pid if self._told else None
        core, reason = self._core, self._core_reason
        without = tuple(self._without.items())
        return WorkerReport(
            self.place.name, pid, self._restarts, core, reason, without, self._libraries
        )

    async def start(self) -> None:
        """Raises DatapathError, and then nothing is left."""
        try:
            await self._begin()
        except BaseException:
            await self._end_process()
            raise
        self._task = asyncio.get_running_loop().create_task(self._live())

    async def end(self) -> None:
        """By closing the channel, and if that does not help, by force."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._end_process()

    def restart(self) -> None:
        """End this worker, for a successor with other equipment."""
        self._kill()

    def give_up(self, reason: str) -> None:
        """All that was asked, or will be, has this answer."""
        self._failure = reason
        self._unfold()
        for answer in self._waiting:
            if not answer.done():
                answer.set_exception(DatapathError(reason))
        self._waiting.clear()

    def ask(self, kind: Kind, body: Any) -> asyncio.Future[Any]:
        """What the worker, or a successor, answers; DatapathError if it refuses."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self._failure is not None:
            answer.set_exception(DatapathError(self._failure))
        elif self._told:
            self._send(kind, body, [answer], _ANSWER_TIMEOUT)
        else:
            self._waiting.append(answer)
        return answer

    def tell(self, kind: Kind, body: Any) -> None:
        """Without an answer; a successor knows it anyway."""
        if self._told:
            self._post(Message(kind, 0, body))

    # Its life.

    async def _live(self) -> None:
        try:
            await self._go_on()
        except Exception as error:  # else nobody would hear of it, and packets wait for ever
            what = type(error).__name__
            self._datapath.failed(f"the {self.place.name} worker's supervision ended: {what}")
            raise

    async def _go_on(self) -> None:
        failed = died = 0
        while True:
            began = asyncio.get_running_loop().time()
            await self._watch()
            code = await self._bury()
            crash = next((each for each in CRASHES if code == -each), None)
            self._restarts += 1
            self._datapath.died(self._core, crash)
            died = died + 1 if asyncio.get_running_loop().time() - began < _LIVED else 0
            if died > 1:
                await asyncio.sleep(_pause(died))
            while True:
                try:
                    await self._begin()
                except DatapathError as error:
                    await self._bury()
                    failed += 1
                    if failed >= _STARTS:
                        self._datapath.failed(
                            f"the {self.place.name} worker cannot be started: {error}"
                        )
                        return
                    await asyncio.sleep(_pause(failed))
                else:
                    failed = 0
                    break

    async def _watch(self) -> None:
        """Wait for its end.  One that hangs loses packets, and does not end by itself."""
        while not self._gone.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(_PULSE):
                    await self._gone.wait()
            if self._told and not self._questions:
                self._send(Kind.PULSE, None, [], _ANSWER_TIMEOUT)

    async def _begin(self) -> None:
        """Start a process, and tell it all that it is to have.  Raises DatapathError."""
        loop = asyncio.get_running_loop()
        equipment = self._datapath.equipment(self.place)
        self._spawn(equipment)
        self._starting = loop.create_future()
        self._send(Kind.START, equipment.body(), [self._starting], _START_TIMEOUT)
        answer = await self._starting
        if not isinstance(answer, list) or len(answer) != 3:
            raise DatapathError("it answered nonsense")
        self._core, self._core_reason, libraries = answer
        self._libraries = tuple((work, by, why) for work, by, why in libraries)
        # From here to the end there is no other task's turn: what is asked later comes behind it.
        requests = list(self._datapath.all_told(self.place))
        for kind, body in requests:
            self._post(Message(kind, 0, body))
        self._starting = loop.create_future()
        waiting, self._waiting = self._waiting, []
        seconds = _START_TIMEOUT + _SA_TIME * len(requests)
        self._patient_until = loop.time() + seconds
        self._send(Kind.BEGIN, None, [self._starting, *waiting], seconds)
        self._told = True
        if self._control is None:
            self._lost()  # while it was told
        await self._starting
        self._patient_until = 0.0

    def _spawn(self, equipment: Equipment) -> None:
        module = _MODULES[self.place.direction]
        self._child = child = Child(module, equipment.descriptors, equipment.user)
        self._control = child.control
        self._gone.clear()
        self._without.clear()
        asyncio.get_running_loop().add_reader(child.control, self._read, child.control)

    async def _bury(self) -> int:
        """The worker is to be dead before a successor begins; how it ended."""
        # The channel ends a little before the process does: how it ends by itself tells more.
        return await self._ended_within(_FIRST_PAUSE)

    async def _end_process(self) -> None:
        await self._ended_within(_END_TIMEOUT)

    async def _ended_within(self, seconds: float) -> int:
        """Close the channel, which ends it; if that does not help, by force."""
        self._close_channel()
        self._unfold()
        if self._child is None:
            return 0
        await asyncio.wait((self._child.ended,), timeout=seconds)
        self._kill()
        return await self._child.ended

    def _kill(self) -> None:
        if self._child is not None:
            self._child.kill()

    # The channel.

    def _send(
        self, kind: Kind, body: Any, answers: list[asyncio.Future[Any]], seconds: float
    ) -> None:
        number = next(self._numbers)
        loop = asyncio.get_running_loop()
        seconds = max(seconds, self._patient_until - loop.time())
        question = _Question(answers, seconds / _TICKS, _TICKS)
        self._questions[number] = question
        self._tick(question)
        self._post(Message(kind, number, body))

    def _tick(self, question: _Question) -> None:
        """Its time is counted in ticks of this process, of which a halt of the whole machine takes
        one at most: who was stopped together with us does not hang."""
        if question.left:
            question.left -= 1
            loop = asyncio.get_running_loop()
            question.clock = loop.call_later(question.tick, self._tick, question)
        else:
            self._kill()

    def _post(self, message: Message) -> None:
        if self._control is None:
            return
        octets = message.serialize()
        try:
            if self._unsent:
                self._unsent.append(octets)
            elif not self._sent(octets):
                self._unsent.append(octets)
                asyncio.get_running_loop().add_writer(self._control, self._send_more)
        except OSError:
            self._lost()

    def _sent(self, message: bytes) -> bool:
        """Whether the channel took it.  Raises OSError."""
        assert self._control is not None
        try:
            self._control.send(message)
        except BlockingIOError:
            return False
        return True

    def _send_more(self) -> None:
        """The channel takes messages again: those that waited, in their order."""
        assert self._control is not None
        try:
            while self._unsent and self._sent(self._unsent[0]):
                self._unsent.popleft()
        except OSError:
            self._lost()
            return
        if not self._unsent:
            asyncio.get_running_loop().remove_writer(self._control)

    def _read(self, control: socket.socket) -> None:
        """Take what the worker said, without a task: an SA and an IKE message wait for it."""
        try:
            for _ in range(_MESSAGES_PER_TURN):
                octets = control.recv(channel.LARGEST)
                if not octets:
                    break
                self._received(Message.parse(octets))
                if self._control is not control:  # closed by what followed
                    return
            else:
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        except (ChannelError, ValueError, TypeError, IndexError) as error:
            self._datapath.failed(f"a worker sent nonsense: {type(error).__name__}")
        self._lost()

    def _received(self, message: Message) -> None:
        if message.kind in (Kind.EVENT, Kind.PATH_MTU):
            self._datapath.said(message.kind, message.body)
            return
        if message.kind is Kind.WITHOUT:
            lost = channel.offload_of(message.body)
            self._without[lost.name] = lost.reason
            return
        if message.number == 0:
            self._refused(str(message.body))
            return
        question = self._questions.pop(message.number, None)
        if question is None:
            return
        question.done()
        for answer in question.answers:
            if answer.done():
                continue
            if message.kind is Kind.REFUSAL:
                answer.set_exception(DatapathError(message.body))
            else:
                answer.set_result(message.body)

    def _refused(self, reason: str) -> None:
        """It cannot go on at all, or not begin."""
        if self._starting is not None and not self._starting.done():
            self._starting.set_exception(DatapathError(reason))
        else:
            self._datapath.failed(f"the {self.place.name} worker: {reason}")

    def _lost(self) -> None:
        """The channel ended: the worker is dead, or dies."""
        self._close_channel()
        self._gone.set()
        if self._starting is not None and not self._starting.done():
            self._starting.set_exception(DatapathError("it ended"))

    def _close_channel(self) -> None:
        if self._control is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._control)
            loop.remove_writer(self._control)
            self._control.close()
            self._control = None
        self._unsent.clear()
        self._told = False

    def _unfold(self) -> None:
        """What was asked and not answered waits for the successor."""
        for question in self._questions.values():
            question.done()
            self._waiting += [answer for answer in question.answers if not answer.done()]
        self._questions.clear()


def _pause(times: int) -> float:
    """Seconds, after so many times in a row; packets wait meanwhile, in the device's queue."""
    return min(_FIRST_PAUSE * float(1 << min(times, 10)), _LONGEST_PAUSE)
