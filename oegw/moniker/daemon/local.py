"""The Unix socket where applications register: lines, descriptors, and who is at the other end.

What a request means is the desk's business (`localdesk`).
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from oegw.moniker.daemon.peers import peer_of, process_of
from oegw.moniker.daemon.processes import Processes
from oegw.moniker.daemon.waiting import reported, send_all, until_readable
from oegw.moniker.interface import Owner
from oegw.moniker.localwire import MAX_LINE_OCTETS
from oegw.trace import Trace
from oegw.unixsocket import listen

# Our choices.
MODE = 0o666  # anybody may register; what each may is the desk's to say
BACKLOG = 128
CONNECTIONS = 8192
CONNECTIONS_OF_A_USER = 512  # root's have no limit of their own
CONNECTIONS_FOR_ROOT = 64  # that others can't take
RESERVED_FILES = 1024  # for questions and all else, where the kernel gives us few
DESCRIPTORS_AT_ONCE = 16  # that wait for the end of their lines
TAKING_SECONDS = 10.0  # for an application to take what we send it


class Visitor:
    """One application's connection.  ``number``: ours, for the desk to know it by."""

    def __init__(self, number: int, connection: socket.socket, owner: Owner) -> None:
        self.number = number
        self.owner = owner
        self._connection = connection
        self._turn = asyncio.Lock()
        self._closing: asyncio.Task[None] | None = None

    async def send(self, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        """One line.  Raises OSError, TimeoutError."""
        octets = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        async with self._turn, asyncio.timeout(TAKING_SECONDS):
            await send_all(self._connection, octets, descriptors)

    def close(self) -> None:
        """End the connection.  Somebody may be about to write: the descriptor stays ours until
        that has failed, so that the loop is not left waiting for one that is another's by then."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        if self._turn.locked():
            self._closing = asyncio.create_task(self._close_in_turn())
        else:
            self._connection.close()

    async def _close_in_turn(self) -> None:
        async with self._turn:
            self._connection.close()


Reply = Callable[[Visitor, dict[str, Any], "deque[int]"], Awaitable[dict[str, Any]]]
"""Answers a request; a descriptor that it takes off the queue is its own from then on."""


class LocalDoor:
    """Answers at ``path``; ``left`` is told each visitor that is gone, by itself or with its
    process."""

    def __init__(
        self, path: Path, reply: Reply, left: Callable[[Visitor], None], trace: Trace
    ) -> None:
        self._path = path
        self._reply = reply
        self._left = left
        self._trace = trace
        self._listening: socket.socket | None = None
        self._inode = 0
        self._accepting: asyncio.Task[None] | None = None
        self._visits: dict[int, tuple[Visitor, asyncio.Task[None]]] = {}
        self._of_users: Counter[int] = Counter()
        self._processes = Processes(self._process_ended)
        self._last = 0
        self._most = CONNECTIONS

    def __len__(self) -> int:
        return len(self._visits)

    async def start(self) -> None:
        """Raises OSError and AddressTaken."""
        self._listening = listen(self._path, MODE, BACKLOG)
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most = max(1, min(CONNECTIONS, (files - RESERVED_FILES) // 2))  # with their pidfds
        self._inode = self._path.stat().st_ino
        self._accepting = asyncio.create_task(self._accept(self._listening))

    async def close(self) -> None:
        """Take the socket away, if it still is ours, and end all visits."""
        if self._listening is None or self._accepting is None:
            return
        with suppress(OSError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()
        tasks = [self._accepting, *(task for _, task in self._visits.values())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._listening.close()
        self._listening = None
        self._processes.close()

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listening)
            except OSError as error:
                self._trace.drop("moniker", "local_not_accepted", detail=error.strerror)
                await asyncio.sleep(0.1)  # no descriptor is left: somebody has to leave first
                continue
            self._admit(connection)
            await asyncio.sleep(0)  # those who are here have their turns, however many come

    def _admit(self, connection: socket.socket) -> None:
        """Let a visitor in, or close the connection."""
        try:
            owner = peer_of(connection)
            if self._crowded(owner):
                self._trace.drop("moniker", "local_crowd", user=owner.user)
                connection.close()
                return
            self._processes.watch(owner.pid, process_of(connection, owner))
        except OSError as error:
            self._trace.drop(
                "moniker", "local_unknown_process", detail=error.strerror or str(error)
            )
            connection.close()
            return
        self._last += 1
        visitor = Visitor(self._last, connection, owner)
        self._of_users[owner.uid] += 1
        descriptors: deque[int] = deque()
        task = asyncio.create_task(self._serve(visitor, connection, descriptors))
        self._visits[visitor.number] = visitor, task
        # Not by a `finally`: a task that is cancelled before its first step has none.
        task.add_done_callback(lambda _: self._over(visitor, descriptors))
        task.add_done_callback(reported(self._trace, "local_internal"))

    def _crowded(self, owner: Owner) -> bool:
        if owner.uid == 0:
            return len(self._visits) >= self._most
        full = len(self._visits) >= self._most - CONNECTIONS_FOR_ROOT
        return full or self._of_users[owner.uid] >= CONNECTIONS_OF_A_USER

    async def _serve(
        self, visitor: Visitor, connection: socket.socket, descriptors: deque[int]
    ) -> None:
        with suppress(OSError, TimeoutError):  # it left, or does not listen: nobody to tell
            await self._answer_lines(visitor, connection, descriptors)

    def _over(self, visitor: Visitor, descriptors: deque[int]) -> None:
        for descriptor in descriptors:
            os.close(descriptor)
        visitor.close()
        del self._visits[visitor.number]
        uid = visitor.owner.uid
        self._of_users[uid] -= 1
        if not self._of_users[uid]:
            del self._of_users[uid]
        self._processes.leave(visitor.owner.pid)
        self._left(visitor)

    async def _answer_lines(
        self, visitor: Visitor, connection: socket.socket, descriptors: deque[int]
    ) -> None:
        waiting = b""
        while True:
            line, end, waiting = waiting.partition(b"\n")
            if end:
                await visitor.send(await self._answer(visitor, line, descriptors))
                await asyncio.sleep(0)  # who sends many lines at once lets others speak in between
                continue
            waiting = line
            if len(waiting) > MAX_LINE_OCTETS:
                self._refuse(visitor, "local_line_too_long")
                return
            await until_readable(connection)
            octets, came, flags, _ = socket.recv_fds(
                connection, MAX_LINE_OCTETS, DESCRIPTORS_AT_ONCE, socket.MSG_CMSG_CLOEXEC
            )
            descriptors.extend(came)
            if not octets:
                return
            if flags & socket.MSG_CTRUNC or len(descriptors) > DESCRIPTORS_AT_ONCE:
                self._refuse(visitor, "local_descriptors")
                return
            waiting += octets

    def _refuse(self, visitor: Visitor, trigger: str) -> None:
        self._trace.drop("moniker", trigger, user=visitor.owner.user, pid=visitor.owner.pid)

    async def _answer(
        self, visitor: Visitor, line: bytes, descriptors: deque[int]
    ) -> dict[str, Any]:
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            request = None
        if not isinstance(request, dict):
            self._refuse(visitor, "local_malformed")
            return {"ok": False, "code": "malformed", "text": "the request is no JSON object"}
        reply = await self._reply(visitor, request, descriptors)
        tag = request.get("tag")
        return {"tag": tag, **reply} if isinstance(tag, int) else reply

    def _process_ended(self, pid: int) -> None:
        """Its children may hold the connection still; who registered is gone (MK-22)."""
        for visitor, task in tuple(self._visits.values()):
            if visitor.owner.pid == pid:
                task.cancel()
