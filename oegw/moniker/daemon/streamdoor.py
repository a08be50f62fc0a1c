"""Questions over TCP: one line, one answer, and the end; or a connection handed on.

Everything here has a bound: connections of a source and in all, the seconds for a line, its octets,
and what the answer may take.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from ipaddress import ip_address
from typing import Any

from oegw.moniker.daemon.arrival import Tunnel, ask_for_arrival, interface_of
from oegw.moniker.daemon.limits import Crowd
from oegw.moniker.daemon.questiondesk import QuestionDesk
from oegw.moniker.daemon.waiting import line_of, reported, send_all
from oegw.moniker.interface import IPAddress
from oegw.moniker.steps import HandOver, Reply, Silence, Source
from oegw.moniker.wire import MAX_LINE_OCTETS, NO_NONCE, Code, Refusal, text
from oegw.trace import Trace

# Our choices.
LINE_SECONDS = 5.0  # for the whole line
ANSWER_SECONDS = 5.0  # for the asker to take what we say
BACKLOG = 1024
LEFT_OVER = 4096  # octets behind the question that are read away

_TOO_MANY = text(Refusal(NO_NONCE, Code.BUSY, "too many connections")).encode() + b"\r\n"

HandConnection = Callable[[HandOver, socket.socket, "tuple[str, int]"], Awaitable[bool]]
"""Gives a connection to the server that registered; False if that is not possible."""

TakeHost = Callable[[str, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""Serves a connection by which a host behind us asks for leases, whose first line is given; it
closes it."""


class StreamDoor:
    """Listens at addresses and a port; ``is_hello`` says whether a first line is a host's."""

    def __init__(
        self,
        desk: QuestionDesk,
        trace: Trace,
        hand: HandConnection,
        *,
        is_hello: Callable[[str], bool],
        take_host: TakeHost | None,
        tunnel: Tunnel,
    ) -> None:
        self._desk = desk
        self._trace = trace
        self._hand = hand
        self._is_hello = is_hello
        self._take_host = take_host
        self._tunnel = tunnel
        self._report = reported(trace, "internal")
        self._crowd = Crowd()
        self._hosts: set[asyncio.Task[None]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listening: list[socket.socket] = []

    def __len__(self) -> int:
        """How many connections there are."""
        return len(self._crowd)

    def open(self, listening: Sequence[socket.socket]) -> None:
        """Answer at sockets that are bound; they are ours from now on."""
        for each in listening:
            ask_for_arrival(each)
            each.listen(BACKLOG)
            self._listening.append(each)
            self._spawn(self._accept(each))

    async def close(self) -> None:
        tasks = (*self._tasks, *self._hosts)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for each in self._listening:
            each.close()
        self._listening.clear()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(self._report)
        return task

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, peer = await loop.sock_accept(listening)
            except OSError as error:
                self._trace.drop("moniker", "not_accepted", detail=error.strerror)
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    await asyncio.sleep(0.1)  # somebody has to leave first
                continue
            self._admit(connection, peer)
            # Accepting does not wait while there are more: who gives way has to get to leave.
            await asyncio.sleep(0)

    def _admit(self, connection: socket.socket, peer: tuple[str, int]) -> None:
        try:
            here = connection.getsockname()
        except OSError:
            connection.close()
            return
        source = _address(peer[0])
        task: asyncio.Task[None] | None = None

        def leave() -> None:
            self._trace.drop("moniker", "crowd", source=source)
            if task is not None:
                task.cancel()

        number = self._crowd.enter(source, leave)
        if number is None:
            self._trace.drop("moniker", "source_crowd", source=source)
            with suppress(OSError):  # there is room for it, or nobody reads it
                connection.send(_TOO_MANY)
            _end(connection)
            connection.close()
            return
        asker = Source(
            source, _address(here[0]), protected=self._tunnel.is_from(interface_of(connection))
        )
        task = self._spawn(self._serve(connection, peer, asker))

        def over(_: object) -> None:
            self._crowd.left(number)
            connection.close()  # a second time does no harm

        task.add_done_callback(over)

    async def _serve(self, connection: socket.socket, peer: tuple[str, int], asker: Source) -> None:
        try:
            async with asyncio.timeout(LINE_SECONDS):
                line = await line_of(connection, MAX_LINE_OCTETS)
        except TimeoutError:
            self._trace.drop("moniker", "slow", source=asker.address)
            return
        except OSError:
            return
        if line is None:
            return
        if self._take_host is not None and self._is_hello(line.decode("ascii", "replace")):
            self._host(line.decode("ascii", "replace"), connection)
            return
        step = self._desk.asked(line, asker, busy=False)
        if isinstance(step, HandOver):
            await self._hand_over(step, connection, peer)
            return
        reply = step if isinstance(step, Reply | Silence) else await self._desk.reply(step)
        if isinstance(reply, Silence):
            return
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(ANSWER_SECONDS):
                await send_all(connection, reply.octets)
            _end(connection)

    async def _hand_over(
        self, step: HandOver, connection: socket.socket, peer: tuple[str, int]
    ) -> None:
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(ANSWER_SECONDS):
                handed = await self._hand(step, connection, peer)
                if not handed:
                    await send_all(connection, step.failed)
                    _end(connection)
            if handed:
                self._desk.handed_over(step)

    def _host(self, line: str, connection: socket.socket) -> None:
        """A connection of another kind: it stays, so it is not one of the crowd."""
        task = asyncio.create_task(self._serve_host(line, connection.dup()))
        self._hosts.add(task)
        task.add_done_callback(self._hosts.discard)
        task.add_done_callback(self._report)

    async def _serve_host(self, line: str, connection: socket.socket) -> None:
        assert self._take_host is not None
        try:
            reader, writer = await asyncio.open_connection(sock=connection)
        except OSError:
            connection.close()
            return
        await self._take_host(line, reader, writer)


def _end(connection: socket.socket) -> None:
    """Say that this was all.  What is left unread would turn the end into a reset, by which the
    answer could be lost."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
        connection.recv(LEFT_OVER)


def _address(text: str) -> IPAddress:
    return ip_address(text.partition("%")[0])
