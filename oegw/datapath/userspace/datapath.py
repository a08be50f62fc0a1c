"""The `Datapath` whose packets move in a worker process; here is only the control of it."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import sys
from asyncio.subprocess import Process
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import oegw
from oegw.datapath.checks import check_sa
from oegw.datapath.interface import (
    Capability,
    DatapathError,
    DatapathEvent,
    DatapathFailed,
    IPAddress,
    KeyingDatagram,
    SaKey,
    SecurityAssociation,
    UdpEncapsulation,
    Usage,
)
from oegw.datapath.userspace import channel
from oegw.datapath.userspace.channel import ChannelError, Kind, Message
from oegw.datapath.userspace.keyingsocket import KeyingSockets
from oegw.datapath.userspace.settings import UserspaceSettings
from oegw.datapath.userspace.transform import CIPHERS
from oegw.intercept.interface import Marks

# Our choices, seconds.
_START_TIMEOUT = 30.0  # a Python start on a small router
_ANSWER_TIMEOUT = 10.0
_CLOSE_TIMEOUT = 5.0

_MESSAGES_PER_TURN = 32  # before the event loop does something else

_WORKER = "oegw.datapath.userspace.worker"


@dataclass(slots=True)
class _Question:
    answer: asyncio.Future[Any]
    parts: list[Any] = field(default_factory=list)


class UserspaceDatapath:
    """ESP in user space over one TUN device, as the `Datapath` protocol says.

    It can be started once.  If the worker dies, ``DatapathFailed`` is reported, each
    method but ``close`` raises DatapathError, and marked packets are unreachable until the next
    start of a datapath.
    """

    def __init__(self, settings: UserspaceSettings, reason: str = "asked for") -> None:
        self._settings = settings
        self._reason = reason
        self._listener: Callable[[DatapathEvent], None] | None = None
        self._process: Process | None = None
        self._control: socket.socket | None = None
        marks = Marks(settings.mark_mask)
        self._keying = KeyingSockets(marks.own, self._keying_received)
        self._questions: dict[int, _Question] = {}
        self._numbers = itertools.count(1)
        self._failure: str | None = "the datapath does not run"
        self._unsent: deque[bytes] = deque()

    async def start(self, listener: Callable[[DatapathEvent], None]) -> Capability:
        if self._process is not None:
            raise DatapathError("the datapath was started already")
        self._listener = listener
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        root = str(Path(oegw.__file__).resolve().parent.parent)
        try:
            with theirs:
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-P",  # nothing is imported from the working directory
                    "-m",
                    _WORKER,
                    str(theirs.fileno()),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    env={**os.environ, "PYTHONPATH": root},
                )
        except OSError as error:
            ours.close()
            raise DatapathError(f"the worker cannot be started: {error.strerror}") from None
        self._control = ours
        self._failure = None
        asyncio.get_running_loop().add_reader(ours, self._read, ours)
        try:
            body = channel.settings_body(self._settings)
            versions = await self._ask(Kind.START, body, _START_TIMEOUT)
            if self._settings.encapsulation_port is not None:
                self._keying.open(self._settings.encapsulation_port, tuple(versions))
        except BaseException:
            self._listener = None  # the caller hears of the failure by the exception alone
            await self._end()
            raise
        udp = self._settings.encapsulation_port is not None
        return Capability("userspace", self._reason, tuple(CIPHERS), udp_encapsulation=udp)

    async def close(self) -> None:
        self._listener = None
        try:
            if self._failure is None:
                await self._ask(Kind.CLOSE, None, _CLOSE_TIMEOUT)
        except DatapathError:
            pass  # it died, or hangs: ended below; the refusing route stays
        finally:
            await self._end()

    async def install(self, sa: SecurityAssociation) -> None:
        check_sa(sa)
        await self._ask(Kind.INSTALL, channel.sa_body(sa))

    async def remove(self, key: SaKey) -> Usage | None:
        body = await self._ask(Kind.REMOVE, channel.key_body(key))
        return channel.usage_of(body) if body is not None else None

    async def move(
        self,
        key: SaKey,
        source: IPAddress,
        destination: IPAddress,
        encapsulation: UdpEncapsulation | None,
    ) -> SaKey:
        body = channel.move_body(key, source, destination, encapsulation)
        return channel.key_of(await self._ask(Kind.MOVE, body))

    async def prefer(self, key: SaKey) -> None:
        await self._ask(Kind.PREFER, channel.key_body(key))

    def send_keying(
        self, data: bytes, source: IPAddress, destination: IPAddress, port: int
    ) -> None:
        self._keying.send(data, source, destination, port)

    async def usage(self) -> dict[SaKey, Usage]:
        body = await self._ask(Kind.USAGE, None)
        return {channel.key_of(key): channel.usage_of(usage) for key, usage in body}

    async def counters(self) -> dict[str, int]:
        return dict(self._keying.counters() + Counter(await self._ask(Kind.COUNTERS, None)))

    @property
    def worker(self) -> int | None:
        """The process id of the worker, while it lives."""
        alive = self._process is not None and self._process.returncode is None
        return self._process.pid if alive and self._process else None

    async def _ask(self, kind: Kind, body: Any, timeout: float = _ANSWER_TIMEOUT) -> Any:
        if self._failure is not None or self._control is None:
            raise DatapathError(self._failure or "the datapath does not run")
        number = next(self._numbers)
        question = _Question(asyncio.get_running_loop().create_future())
        self._questions[number] = question
        message = Message(kind, number, body).serialize()
        loop = asyncio.get_running_loop()
        clock = loop.call_later(timeout, self._too_late, number, timeout)
        try:
            if self._unsent or not self._sent(message):
                self._unsent.append(message)
                loop.add_writer(self._control, self._send_more)
            return await question.answer
        except OSError:
            raise DatapathError("the worker ended") from None
        finally:
            clock.cancel()
            self._questions.pop(number, None)

    def _too_late(self, number: int, timeout: float) -> None:
        question = self._questions.get(number)
        if question is not None and not question.answer.done():
            reason = f"the worker did not answer within {timeout:g} s"
            question.answer.set_exception(DatapathError(reason))

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
            self._unsent.clear()  # the worker is gone, as reading tells
        if not self._unsent:
            asyncio.get_running_loop().remove_writer(self._control)

    def _read(self, control: socket.socket) -> None:
        """Take what the worker said, without a task: an SA and an IKE message wait for it."""
        reason = "the worker ended"
        try:
            for _ in range(_MESSAGES_PER_TURN):
                octets = control.recv(channel.LARGEST)
                if not octets:
                    break
                self._received(Message.parse(octets))
                if self._control is None:  # closed by what followed
                    return
            else:
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        except (ChannelError, ValueError, TypeError, IndexError) as error:
            reason = f"the worker sent nonsense: {type(error).__name__}"
        self._stop_reading()
        self._fail(reason)

    def _stop_reading(self) -> None:
        if self._control is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._control)
            loop.remove_writer(self._control)

    def _keying_received(self, datagram: KeyingDatagram) -> None:
        if self._listener is not None:
            self._listener(datagram)

    def _received(self, message: Message) -> None:
        if message.kind is Kind.EVENT:
            if self._listener is not None:
                self._listener(channel.event_of(message.body))
            return
        question = self._questions.get(message.number)
        if question is None or question.answer.done():
            return  # it came too late
        if message.kind is Kind.PARTIAL:
            question.parts.extend(message.body)
        elif message.kind is Kind.REFUSAL:
            question.answer.set_exception(DatapathError(message.body))
        elif question.parts:
            question.answer.set_result(question.parts + message.body)
        else:
            question.answer.set_result(message.body)

    def _fail(self, reason: str) -> None:
        self._failure = reason
        for question in self._questions.values():
            if not question.answer.done():
                question.answer.set_exception(DatapathError(reason))
        if self._listener is not None:
            self._listener(DatapathFailed(reason))

    async def _end(self) -> None:
        """End the worker: by closing the channel, and if that does not help, by force."""
        self._failure = "the datapath does not run"
        self._stop_reading()
        self._keying.close()
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None and self._process.returncode is None:
            try:
                async with asyncio.timeout(_CLOSE_TIMEOUT):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
