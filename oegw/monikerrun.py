"""A server that knows nothing of names, under a name: `oegw moniker run`.

A port at random is held for it by sockets that don't listen (SO_REUSEADDR), so that nobody else
gets it by chance.  The server is registered when it listens there, is forgotten when it
no longer does, and ends us when it ends.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oegw.moniker.daemon.proof import proven
from oegw.moniker.library.holding import ANY, hold, opened
from oegw.moniker.library.keeper import Registration, begin
from oegw.moniker.names import MonikerError
from oegw.moniker.transports import TCP, UDP
from oegw.monikerlisten import Listener, listeners
from oegw.wrapping import FORWARDED, KILLED, NOT_EXECUTABLE, become

# Specification: prctl(2).
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36

# Our choices, in seconds.
LOOK = 0.02  # between two looks whether the server listens, in its first second
LATER_LOOK = 0.05  # for as long a port stays taken that the server gives up
DAEMON_PATIENCE = 10.0  # for a daemon that starts at the same time as we
ENDING = 5.0  # that a server has after SIGTERM, when it can't be registered

PORT = "{port}"

# What it is called that a process or its descriptor is no longer there.
_GONE = (errno.ESRCH, errno.EBADF, errno.ENOENT)


class ServerUnusable(MonikerError):  # noqa: N818  (it names the fact)
    """The server did not listen where it was told to."""


@dataclass(frozen=True, slots=True)
class Wrapped:
    """``command``: ``{port}`` in its words becomes the port.  ``request``: what the daemon is told,
    as `localwire` says of ``register``.  ``seconds``: until it listens."""

    command: Sequence[str]
    request: Mapping[str, Any]
    transport: str = "tcp"
    held: bool = True
    seconds: float = 60.0


def run(wrapped: Wrapped, daemon: Path) -> int:
    """Run the server to its end; returns its exit code.

    Raises MonikerError: no port, no daemon, the service is refused, or the server does not listen.
    It has been ended then.
    """
    sockets = _sockets(wrapped.transport)
    port = sockets[0].getsockname()[1]
    if not wrapped.held or wrapped.transport != TCP.name:
        # With UDP the holder would get the datagrams, or the server no port.
        for each in sockets:
            each.close()
        sockets = []
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # of servers that fork away
    waited = {signal.SIGCHLD, *FORWARDED}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    of_children = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        words = [word.replace(PORT, str(port)) for word in wrapped.command]
        parent, child = os.getpid(), os.fork()
        if child == 0:
            signal.signal(signal.SIGCHLD, of_children)
            become(words, before, lambda: _end_with(parent))
        return _Attendance(wrapped, daemon, child, port).until_the_end(waited)
    finally:
        for each in sockets:
            each.close()
        signal.signal(signal.SIGCHLD, of_children)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _sockets(transport: str) -> list[socket.socket]:
    """All that one port can be held by: for both families together, and for each alone."""
    wanted = TCP if transport == TCP.name else UDP
    first = hold(wanted, "46", shared=True)
    port, held = first.getsockname()[1], [first]
    for families in ("4", "6") if first.family == socket.AF_INET6 else ():
        with suppress(OSError):
            each = opened(wanted, families)
            held.append(each)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            each.bind((ANY[each.family], port))
    return held


def _end_with(parent: int) -> None:
    """The child: it ends with us even if we are killed.

    Nobody would find it by its name any more, and who starts us again would start a second one.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # killed before we said so
        os._exit(NOT_EXECUTABLE)


def _chosen(found: Sequence[Listener]) -> dict[Listener, socket.socket]:
    """Copies of the sockets that say best where the server listens: one for both families, else one
    for each, else one that has an address of its own.  Raises OSError, NoProof."""
    copies = {each: each.copied() for each in found}
    best: dict[str, Listener] = {}
    try:
        facts = {each: proven(copy) for each, copy in copies.items()}
        wide = {fact.families: each for each, fact in facts.items() if fact.address is None}
        best = {"46": wide["46"]} if "46" in wide else wide or {"": found[0]}
        return {each: copies[each] for each in best.values()}
    finally:
        for each, copy in copies.items():
            if each not in best.values():
                copy.close()


class _Attendance:
    """One server from its start to its end."""

    def __init__(
        self,
        wrapped: Wrapped,
        daemon: Path,
        child: int,
        port: int,
    ) -> None:
        self._wrapped = wrapped
        self._daemon = daemon
        self._child = child
        self._port = port
        self._code: int | None = None  # of the child, when it has ended
        self._listeners: list[Listener] = []  # those that are registered
        self._registrations: list[Registration] = []
        self._copies: list[socket.socket] = []  # of the server's sockets: they prove its port

    def until_the_end(self, waited: set[signal.Signals]) -> int:
        start = time.monotonic()
        listened = False
        try:
            while True:
                age = time.monotonic() - start
                pause = LOOK if age < 1 and not listened else LATER_LOOK
                if (received := signal.sigtimedwait(waited, pause)) is not None:
                    self._signalled(received)
                if not self._reap():
                    return self._exit_code()
                self._look()
                self._heed_the_daemon()
                listened = listened or bool(self._listeners)
                if self._left_no_server(listened):
                    return self._exit_code()
                if not listened and age > self._wrapped.seconds:
                    raise ServerUnusable(
                        f"{self._wrapped.command[0]}: does not listen on the port that {PORT} "
                        f"became, {self._wrapped.seconds:g} seconds after its start"
                    )
        except BaseException:
            self._end_it()
            raise
        finally:
            self._unregister()

    def _left_no_server(self, listened: bool) -> bool:
        """Whether the command has ended, and what it left behind is no server: who forks away says
        by its exit code that all is well, and may be about to listen."""
        if self._code is None or self._listeners:
            return False
        return listened or self._code != 0

    def _exit_code(self) -> int:
        assert self._code is not None, "the child was reaped, or there are others"
        return self._code

    def _signalled(self, received: signal.struct_siginfo) -> None:
        """What the terminal sends (Ctrl-C) has gone to the child as well; only what a process sent
        to us alone is handed on."""
        if received.si_signo != signal.SIGCHLD and received.si_code <= 0:
            self._send(received.si_signo)

    def _send(self, number: int) -> None:
        """To the child, or to who serves in its place."""
        left = self._listeners[0].pid if self._listeners else None
        target = self._child if self._code is None else left
        if target is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(target, number)

    def _reap(self) -> bool:
        """Whether there is anybody left."""
        while True:
            try:
                ended, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if not ended:
                return True
            if ended == self._child:
                code = os.waitstatus_to_exitcode(status)
                self._code = KILLED - code if code < 0 else code

    # Its registration.

    def _look(self) -> None:
        if self._listeners and all(each.there() for each in self._listeners):
            return
        found = listeners(self._port, self._wrapped.transport, os.getpid())
        inodes = {each.inode for each in found}
        if self._registrations and {each.inode for each in self._listeners} <= inodes:
            # Another process of it has them now.
            registered = {each.inode for each in self._listeners}
            self._listeners = [each for each in found if each.inode in registered]
            return
        self._unregister()
        if found:
            self._register(found)

    def _register(self, found: Sequence[Listener]) -> None:
        """Where it listens with a socket for each family, as an instance for each."""
        try:
            chosen = _chosen(found)
        except OSError as error:
            if error.errno in _GONE:
                return
            text = "its socket can't be looked at (pidfd_getfd(2))"
            raise ServerUnusable(f"{self._wrapped.command[0]}: {text}: {error.strerror}") from None
        self._listeners = list(chosen)
        self._copies = list(chosen.values())
        self._registrations = [
            begin(
                copy,
                self._wrapped.request,
                daemon=self._daemon,
                patience=min(DAEMON_PATIENCE, self._wrapped.seconds),
            )
            for copy in self._copies
        ]

    def _heed_the_daemon(self) -> None:
        """Raises MonikerError if it does not take the service, or there is none."""
        for each in self._registrations:
            if each.begun.done():
                each.begun.result()

    def _unregister(self) -> None:
        self._listeners = []
        for registration in self._registrations:
            registration.close()
        for copy in self._copies:
            copy.close()
        self._registrations, self._copies = [], []

    def _end_it(self) -> None:
        deadline = time.monotonic() + ENDING
        number = signal.SIGTERM
        self._send(number)
        while self._code is None and self._reap():
            if time.monotonic() > deadline:
                self._send(signal.SIGKILL)
            signal.sigtimedwait({signal.SIGCHLD}, LATER_LOOK)
