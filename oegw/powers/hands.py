"""The process with the rights: it does what the mind asks, and reads nothing that strangers wrote.

It runs the datapath, speaks to the kernel about packets, and starts the signer.  What comes from
outside, it passes on as octets.  When the mind ends, so does this, at once: what the mind has not
asked to be undone, stays.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import threading
from collections import deque
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oegw.datapath.choice import DatapathChoice
from oegw.datapath.interface import Datapath, DatapathError, DatapathEvent, KeyingDatagram
from oegw.datapath.userspace.child import Child
from oegw.datapath.userspace.datapath import UserspaceDatapath
from oegw.guardfile import save
from oegw.intercept.conntrack import forget_other_sources
from oegw.intercept.imprint import KernelImprints
from oegw.intercept.interface import OWN_TABLE
from oegw.intercept.jump import iptables
from oegw.powers import codec
from oegw.powers.desk import TROUBLES, Desk, attend, refusal
from oegw.powers.dropping import User
from oegw.powers.files import FileNotGivenError, Files, give
from oegw.powers.frames import PATIENCE, FrameError, Frames, Kind, frame
from oegw.powers.frames import read as read_stream
from oegw.powers.handsqueue import HandsQueue
from oegw.powers.lookout import Lookout
from oegw.powers.orders import (
    ANSWERS,
    Ask,
    Call,
    CloseDatapath,
    CloseQueue,
    CountDatapath,
    Counted,
    CountQueue,
    Done,
    ForgetSources,
    GiveFiles,
    GuardSaved,
    Heed,
    Imprint,
    InstallSa,
    Iptables,
    KeyingTaken,
    ListProcesses,
    ListWorkers,
    MakeDatapath,
    MendDatapath,
    Mended,
    Moved,
    MoveSa,
    News,
    Number,
    OpenDoor,
    OpenQueue,
    OpenSigner,
    PartFailed,
    PreferSa,
    Processes,
    QueueCounted,
    QueueOpened,
    ReadUsage,
    Refused,
    Removed,
    RemoveSa,
    Role,
    SaveGuard,
    SendKeying,
    SignerOpened,
    StartDatapath,
    TakeImprint,
    TakeKeying,
    Trouble,
    UsageRead,
    Workers,
)
from oegw.powers.packets import PacketFormError, Verdict
from oegw.powers.permits import NftPermit, NotPermittedError, Table, check_iptables
from oegw.powers.processes import rows
from oegw.powers.tohands import Ends, answer_frame, news_frame
from oegw.settings import DatapathSettings
from oegw.sst.plane.settings import OWN_TABLE as SST_TABLE

# Our choices.
_UNSENT = 1 << 22  # octets for a mind that is behind; then IKE on port 4500 is lost
_SIGNER_START = 30.0  # seconds

_MINDS = frozenset(
    [("inet", name + probe) for name in (OWN_TABLE, SST_TABLE) for probe in ("", "_probe")]
    + [("netdev", SST_TABLE)]
)
_MONIKERS = frozenset((("inet", "oegw_moniker"),))
_NONE: frozenset[Table] = frozenset()
_COMMENTS = frozenset((f"oegw-{OWN_TABLE}", f"oegw-{SST_TABLE}"))
_DOORS = {
    Role.MONIKER: NftPermit(_MONIKERS, _MONIKERS),
    Role.SOCKS: NftPermit(_NONE, frozenset((("inet", OWN_TABLE),))),
}


@dataclass(frozen=True, slots=True)
class HandsSettings:
    """What the mind can't change any more.  ``queues``: those of NFQUEUE that are ours; ``key``:
    the file that the signer reads; ``guard``: that of the next boot; ``user``: whom the processes
    without rights become."""

    datapath: DatapathSettings
    mark_mask: int
    ports_change: bool
    queues: frozenset[int]
    key: Path
    guard: Path
    user: User | None
    files: Files


class Hands:
    """``mind``: its process."""

    def __init__(self, settings: HandsSettings, ends: Ends, mind: int) -> None:
        self._settings = settings
        self._ends = ends
        self._mind = mind
        self._handle = os.pidfd_open(mind)
        self._frames = Frames()
        self._come: deque[tuple[Kind, bytes]] = deque()
        self._resting = False  # until what was asked for has begun
        self._unsent: deque[bytes] = deque()
        self._waiting = 0  # octets of it
        self._lost = 0  # keying datagrams
        self._tasks: set[asyncio.Task[None]] = set()
        self._over = asyncio.Event()
        self._queues: dict[int, HandsQueue] = {}
        self._datapath: Datapath | None = None
        self._imprints: KernelImprints | None = None
        self._signers: list[Child] = []
        self._next_signer: asyncio.Task[tuple[Child, bytes]] | None = None
        self._choice = DatapathChoice(
            settings.datapath,
            settings.mark_mask,
            settings.ports_change,
            settings.user,
            keying_elsewhere=True,
        )
        self._desk = Desk(NftPermit(_MINDS), tracking=True, more=self._call)

    async def run(self) -> None:
        """Until the mind has ended."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._unexpected)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._forward, number)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
        loop.add_reader(self._handle, self._over.set)
        self._ends.calls.settimeout(PATIENCE)
        self._ends.news.setblocking(False)
        loop.add_reader(self._ends.calls, self._read)
        _in_thread(self._ends.slow, Desk(NftPermit(_NONE), tracking=True))
        self._next_signer = loop.create_task(self._start_signer())
        self._lookout = Lookout(self._say)
        await self._over.wait()

    def _forward(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, number)

    def _unexpected(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A callback raised: our own mistake, after which nothing may pass half done."""
        loop.default_exception_handler(context)
        error = context.get("exception")
        self._say(PartFailed(f"internal error: {error or context.get('message')!r}"))

    # What the mind asks.

    def _read(self) -> None:
        octets = read_stream(self._ends.calls)
        if octets is None:
            return
        if not octets:  # it has ended, or is about to
            asyncio.get_running_loop().remove_reader(self._ends.calls)
            return
        try:
            self._come.extend(self._frames.take(octets))
        except FrameError as error:
            self._refuse_all(error)
            return
        if len(self._come) and not self._resting:
            self._go_on()

    def _go_on(self) -> None:
        """Do what has come, in its order.  What is asked for begins before what follows is done:
        the datapath and nftables work side by side."""
        self._resting = False
        try:
            while self._come:
                kind, body = self._come.popleft()
                self._take(kind, body)
                if kind is Kind.ASK and self._come:
                    self._resting = True
                    asyncio.get_running_loop().call_soon(self._go_on)
                    return
        except (FrameError, codec.CodecError, PacketFormError) as error:
            self._refuse_all(error)

    def _refuse_all(self, error: Exception) -> None:
        """A mind that says what ours does not say is none of ours any more."""
        print(f"oegw: the mind is none of ours any more: {error}", file=sys.stderr)
        asyncio.get_running_loop().remove_reader(self._ends.calls)
        self._come.clear()
        self._forward(signal.SIGKILL)

    def _take(self, kind: Kind, body: bytes) -> None:
        match kind:
            case Kind.VERDICT:
                verdict = Verdict.parse(body)
                if verdict.queue in self._queues:
                    self._queues[verdict.queue].decide(verdict)
            case Kind.TELL:
                told: SendKeying = codec.decode(body, SendKeying)
                if self._datapath is not None:
                    self._datapath.send_keying(told.data, told.source, told.destination, told.port)
            case Kind.CALL:
                try:
                    self._ends.calls.sendall(frame(*self._desk.reply(body)))
                except TimeoutError:  # half of it is gone: what follows would be misread
                    raise FrameError("it does not take what it asked for") from None
                except OSError:
                    pass  # the mind has ended meanwhile
            case Kind.ASK:
                number, order = int.from_bytes(body[:4], "big"), codec.decode(body[4:], Ask)
                self._spawn(self._answer(number, order))
            case _:
                raise FrameError("a message that only we send")

    def _call(self, order: Call) -> Any:
        match order:
            case OpenQueue(number=number, length=length, whole=whole):
                return self._open_queue(number, length, whole)
            case CountQueue(number=number) if number in self._queues:
                queue = self._queues[number]
                return QueueCounted(queue.overflows, queue.dropped())
            case CloseQueue(number=number) if number in self._queues:
                self._queues.pop(number).close()
                return Done()
            case TakeImprint(family=family, table=table):
                if self._imprints is None:
                    self._imprints = KernelImprints()
                return Imprint(self._imprints.taken(family, table))
            case ListWorkers():
                return Workers(self._datapath.workers() if self._datapath is not None else ())
        raise NotPermittedError(f"no {type(order).__name__} now")

    def _open_queue(self, number: int, length: int, whole: bool) -> QueueOpened:
        if number not in self._settings.queues or number in self._queues:
            raise NotPermittedError(f"NFQUEUE {number} is none of ours, or open")
        queue = HandsQueue(number, length, whole)
        queue.open()
        self._queues[number] = queue
        with queue.theirs:
            self._give(0, queue.theirs.fileno())
        return QueueOpened(tuple(queue.said))

    async def _answer(self, number: int, order: Ask) -> None:
        declared = ANSWERS[type(order)]
        try:
            answer = await self._done(number, order)
        except DatapathError as error:
            answer, declared = Refused(Trouble.DATAPATH, str(error)), Refused
        except SignerRefused as error:
            answer, declared = Refused(Trouble.KEY_FILE, str(error)), Refused
        except TROUBLES as error:
            answer, declared = refusal(error), Refused
        self._post(answer_frame(number, answer, declared))

    async def _done(self, number: int, order: Ask) -> Any:
        match order:
            case Iptables():
                check_iptables(order, _COMMENTS, self._settings.queues)
                return await iptables(order)
            case ForgetSources(source=source, destination=destination, outside=outside):
                ends = source, destination, outside
                return Number(await asyncio.to_thread(forget_other_sources, *ends))
            case OpenSigner():
                return await self._open_signer(number)
            case OpenDoor(role=role):
                ours, theirs = socket.socketpair()
                with theirs:
                    self._give(number, theirs.fileno())
                _in_thread(ours, Desk(_DOORS[role]))
                return Done()
            case GiveFiles():
                if self._settings.user is not None:
                    with suppress(FileNotGivenError):  # who needs it says so
                        await asyncio.to_thread(give, self._settings.files, self._settings.user)
                return Done()
            case SaveGuard(text=text):
                NftPermit(_MINDS).check(text)
                return GuardSaved(await asyncio.to_thread(save, self._settings.guard, text))
            case Heed():
                return Done()
            case ListProcesses(others=others):
                return Processes(tuple(rows(self._processes() | others)))
            case MakeDatapath():
                self._datapath = await self._choice.make()
                return Done()
        return await self._of_datapath(number, order)

    async def _of_datapath(self, number: int, order: Ask) -> Any:
        if self._datapath is None:
            raise DatapathError("there is no datapath yet")
        datapath = self._datapath
        match order:
            case StartDatapath():
                return await datapath.start(self._event)
            case TakeKeying():
                return self._hand_keying_over(number, datapath)
            case CloseDatapath():
                await datapath.close()
                return Done()
            case InstallSa(sa=sa):
                await datapath.install(sa)
                return Done()
            case RemoveSa(key=key):
                return Removed(await datapath.remove(key))
            case MoveSa(key=key, source=source, destination=to, encapsulation=encapsulation):
                return Moved(await datapath.move(key, source, to, encapsulation))
            case PreferSa(key=key):
                await datapath.prefer(key)
                return Done()
            case MendDatapath():
                return Mended(await datapath.mend())
            case ReadUsage():
                return UsageRead(await datapath.usage())
            case CountDatapath():
                counters = await datapath.counters()
                if self._lost:
                    before = counters.get("drop_in_keying", 0)
                    counters = {**counters, "drop_in_keying": before + self._lost}
                return Counted(counters)
        raise NotPermittedError(f"no {type(order).__name__} now")

    def _hand_keying_over(self, number: int, datapath: Datapath) -> KeyingTaken:
        given = datapath.keying if isinstance(datapath, UserspaceDatapath) else None
        if given is None:
            return KeyingTaken((), 0)
        self._give(number, *given.sockets.values(), *given.beginnings, given.end)
        return KeyingTaken(tuple(given.sockets), len(given.beginnings))

    # The signer.

    async def _open_signer(self, number: int) -> SignerOpened:
        starting, self._next_signer = self._next_signer, None
        signer, public = await (starting or self._start_signer())
        with signer.control:
            self._give(number, signer.control.fileno())
        self._signers.append(signer)
        signer.ended.add_done_callback(lambda ended: self._signer_ended(signer, ended.result()))
        return SignerOpened(public)

    async def _start_signer(self) -> tuple[Child, bytes]:
        """Raises SignerRefused."""
        loop = asyncio.get_running_loop()
        try:
            signer = Child("oegw.powers.signer", (), self._settings.user)
        except DatapathError as error:
            raise SignerRefused(str(error)) from None
        told = b""
        with suppress(OSError, TimeoutError):
            await loop.sock_sendall(signer.control, os.fsencode(self._settings.key))
            told = await asyncio.wait_for(loop.sock_recv(signer.control, 1 << 16), _SIGNER_START)
        try:
            answer = json.loads(told)
            return signer, bytes.fromhex(answer["public"])
        except KeyError:
            reason = str(answer["error"])
        except (ValueError, TypeError):
            reason = "the process that has the private key did not start"
        signer.control.close()
        signer.kill()
        raise SignerRefused(reason)

    def _signer_ended(self, signer: Child, code: int) -> None:
        self._signers.remove(signer)
        if code:  # by itself it ends when the mind has closed its channel
            how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
            self._say(PartFailed(f"the process that has the private key ended {how}"))

    # What is said.

    def _event(self, event: DatapathEvent) -> None:
        if isinstance(event, KeyingDatagram) and self._waiting > _UNSENT:
            self._lost += 1
            return
        self._say(event)  # type: ignore[arg-type]  # all of them are in News

    def _say(self, news: News) -> None:
        self._post(news_frame(news))

    def _post(self, octets: bytes) -> None:
        self._unsent.append(octets)
        self._waiting += len(octets)
        if len(self._unsent) == 1:
            self._send()

    def _send(self) -> None:
        loop = asyncio.get_running_loop()
        stream = self._ends.news
        try:
            while self._unsent:
                sent = stream.send(self._unsent[0])
                self._waiting -= sent
                if sent < len(self._unsent[0]):
                    self._unsent[0] = self._unsent[0][sent:]
                else:
                    self._unsent.popleft()
        except BlockingIOError:
            loop.add_writer(stream, self._send)
            return
        except OSError:  # the mind has ended
            self._unsent.clear()
        loop.remove_writer(stream)

    def _give(self, number: int, *descriptors: int) -> None:
        socket.send_fds(self._ends.gifts, [number.to_bytes(4, "big")], descriptors)

    # Processes.

    def _processes(self) -> dict[str, int]:
        found = {"hands": os.getpid(), "mind": self._mind}
        for signer in self._signers[:1]:  # a later one may not be used yet
            found["signer"] = signer.pid
        workers = self._datapath.workers() if self._datapath is not None else ()
        return found | {each.name: each.pid for each in workers if each.pid is not None}

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._say(PartFailed(f"internal error: {error!r}"))


FORWARDED = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


class SignerRefused(Exception):  # noqa: N818  (it names the fact)
    """The key can't be used; the message says why, as `keys.read_private`."""


def _in_thread(stream: socket.socket, desk: Desk) -> None:
    threading.Thread(target=attend, args=(stream, desk), daemon=True).start()
