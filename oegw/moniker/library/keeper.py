"""The thread that keeps this process's services registered (MK-22, MK-31).

One thread and one connection for each daemon, which is to say one.  When the daemon goes, it is
tried again within half a second, and all is registered anew.  A child that was forked has neither:
its copy of the connection is closed at once, and what it closes later stays registered by the
parent (the paper's listing 2).
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from socket import socket
from typing import Any

from oegw.moniker.library.errors import DaemonAbsent, RegistrationRefused
from oegw.moniker.library.kept import (
    Changed,
    ChangeRefused,
    DaemonConfused,
    Dropped,
    Event,
    HandedOver,
    Kept,
    Refused,
    Registered,
    Request,
    SendNow,
)
from oegw.moniker.library.localline import LineLost, LocalLine, Wake
from oegw.moniker.names import SYSTEM
from oegw.moniker.settings import DEFAULT_SOCKET
from oegw.moniker.wire import SYSTEM_FIELD

# Our choices, in seconds.
FIRST_WAIT = 0.05
LONGEST_WAIT = 0.5  # between tries to reach the daemon
REFUSED_WAIT = 5.0  # until what a daemon refuses that had it before is offered again
ANSWER_WAIT = 5.0  # for a daemon that is there
CLOSING_WAIT = 1.0  # for it to say that it forgot

Take = Callable[[socket, tuple[str, int]], None]


class Registration:
    """A service as the daemon knows it, for as long as this is not closed and its process lives.

    ``namespace``: the one that the daemon put it in.  ``begun``: ends when it is registered.
    ``refusal``: why a daemon that had it does not take it again, after a restart.
    """

    def __init__(self, keeper: _Keeper, sock: socket, take: Take | None, deadline: float) -> None:
        self.namespace = ""
        self.refusal: str | None = None
        self.begun = _promised()
        self.socket = sock
        self.take = take
        self.deadline = deadline
        self.key = 0
        self._keeper = keeper
        self._pid = os.getpid()

    def __repr__(self) -> str:
        return f"<Registration, {'registered' if self.registered else 'not registered'}>"

    @property
    def registered(self) -> bool:
        """Whether the daemon knows it at this moment; in a child that was forked: no."""
        return self._mine() and self._keeper.registered(self)

    def wait(self, patience: float) -> None:
        """Until it is registered.  Raises RegistrationRefused, DaemonAbsent; then it is closed."""
        try:
            _outcome(self.begun, patience + ANSWER_WAIT)
        except BaseException:
            self.close()
            raise

    def update(self, **changes: Any) -> None:
        """``weight``, ``exported``, ``text``.

        Without a daemon it is kept for when there is one.  Raises RegistrationRefused.
        """
        if self._mine():
            _outcome(self._keeper.change(self, changes), ANSWER_WAIT)

    def abandon(self) -> None:
        """It is unregistered by and by: for who is no longer there to wait for it."""
        if self._mine():
            self._keeper.abandon(self.key)

    def end(self) -> Future[None]:
        """It is unregistered, as soon as what is returned is done; in a child, nothing is."""
        if self._mine():
            return self._keeper.drop(self)
        return done()

    def close(self) -> None:
        """The same, and waits for it."""
        with suppress(DaemonAbsent, RegistrationRefused):
            _outcome(self.end(), CLOSING_WAIT)

    def _mine(self) -> bool:
        return self._pid == os.getpid()


def register(
    sock: socket,
    request: Mapping[str, Any],
    *,
    daemon: Path = DEFAULT_SOCKET,
    patience: float = 1.0,
    take: Take | None = None,
) -> Registration:
    """Register what ``sock`` is bound to: ``request`` has service, version and what else
    `localwire` says of ``register``.  Without a daemon it is tried for ``patience`` seconds.
    ``take`` gets the connections that the daemon hands over, in the keeper's thread.

    Raises RegistrationRefused, DaemonAbsent.
    """
    registration = begin(sock, request, daemon=daemon, patience=patience, take=take)
    registration.wait(patience)
    return registration


def begin(
    sock: socket,
    request: Mapping[str, Any],
    *,
    daemon: Path = DEFAULT_SOCKET,
    patience: float = 1.0,
    take: Take | None = None,
) -> Registration:
    """The same without waiting: ``begun`` of what is returned gets the outcome."""
    with _lock:
        keeper = _keepers.get(daemon)
        if keeper is None:
            keeper = _keepers[daemon] = _Keeper(daemon)
        registration = Registration(keeper, sock, take, time.monotonic() + patience)
        keeper.keep(registration, request)
    return registration


def done() -> Future[None]:
    """Where nothing is to be waited for."""
    nothing: Future[None] = Future()
    nothing.set_result(None)
    return nothing


def _promised() -> Future[None]:
    """It can't be cancelled: who waits no longer leaves it to the keeper's thread."""
    future: Future[None] = Future()
    future.set_running_or_notify_cancel()
    return future


def _outcome(future: Future[None], seconds: float) -> None:
    try:
        future.result(seconds)
    except TimeoutError:
        raise DaemonAbsent("the daemon of this host does not answer") from None


class _Keeper:
    """`run` is the thread; all else is called with `_lock` held, or takes it."""

    def __init__(self, daemon: Path) -> None:
        self._daemon = daemon
        self._kept = Kept()
        self._registrations: dict[int, Registration] = {}
        self._asked: dict[int, list[Future[None]]] = {}  # changes and ends, by key, in order
        self._offer_again: dict[int, float] = {}
        self._abandoned: deque[int] = deque()
        self._wake = Wake()
        self._line: LocalLine | None = None
        self._connecting: LocalLine | None = None
        threading.Thread(target=self.run, name="oegw-moniker", daemon=True).start()

    # --------------------------------------------------------------- what is asked for

    def keep(self, registration: Registration, request: Mapping[str, Any]) -> None:
        registration.key, requests = self._kept.keep(request)
        self._registrations[registration.key] = registration
        self._send(requests)
        self._wake.set()

    def registered(self, registration: Registration) -> bool:
        with _lock:
            return self._kept.registered(registration.key)

    def change(self, registration: Registration, changes: Mapping[str, Any]) -> Future[None]:
        with _lock:
            return self._ask(registration.key, self._kept.change(registration.key, changes))

    def drop(self, registration: Registration) -> Future[None]:
        with _lock:
            self._registrations.pop(registration.key, None)
            self._offer_again.pop(registration.key, None)
            return self._ask(registration.key, self._kept.drop(registration.key))

    def abandon(self, key: int) -> None:
        """Called by the garbage collector, so in any thread and in the middle of anything: only
        noted here."""
        self._abandoned.append(key)
        self._wake.set()

    def forget(self) -> None:
        """In a child: the thread is not here, and what it had is the parent's."""
        for each in (self._line, self._connecting):
            if each is not None:
                each.close()
        self._wake.close()

    def _ask(self, key: int, requests: list[Request]) -> Future[None]:
        if not requests or self._line is None:
            return done()
        future = _promised()
        self._asked.setdefault(key, []).append(future)
        self._send(requests)
        return future

    def _send(self, requests: list[Request]) -> None:
        if self._line is not None:
            for each in requests:
                about = self._registrations.get(each.socket_of or 0)
                self._line.put(each.line, about.socket if about is not None else None)
            if requests:
                self._wake.set()

    # ----------------------------------------------------------------------- the thread

    def run(self) -> None:
        try:
            self._keep_on()
        finally:
            with _lock:
                if _keepers.get(self._daemon) is self:
                    del _keepers[self._daemon]
                self._wake.close()
                for each in self._registrations.values():  # none but for a fault of ours
                    if not each.begun.done():
                        each.begun.set_exception(DaemonAbsent("the registrations are not kept"))

    def _keep_on(self) -> None:
        """Until nothing is kept any more."""
        wait = FIRST_WAIT
        while True:
            line = self._reached()
            if line is not None and self._converse(line):
                wait = FIRST_WAIT
            with _lock:
                self._clear()
                self._give_up()
                if not self._kept:
                    del _keepers[self._daemon]  # whoever comes now begins a new one
                    return
            self._wake.wait(wait)
            wait = min(2 * wait, LONGEST_WAIT)

    def _reached(self) -> LocalLine | None:
        with _lock:  # so that a child that is forked meanwhile knows what to close
            line = self._connecting = LocalLine()
        try:
            line.connect(self._daemon)
        except OSError:
            with _lock:
                self._connecting = None
                line.close()
            return None
        with _lock:
            self._line, self._connecting = line, None
            self._send(self._kept.connected())
            return line

    def _converse(self, line: LocalLine) -> bool:
        """Until the daemon goes, or there is nothing more to keep.  True: it said something."""
        heard = False
        try:
            while True:
                with _lock:
                    self._clear()
                    self._offer()
                    line.flush()
                    if self._kept.idle and not line.unsent:
                        return heard
                    pause = self._pause()
                line.wait(self._wake, pause)
                with _lock:
                    for octets in line.received():
                        heard = True
                        for event in self._kept.received(octets):
                            self._happened(event, line)
        except (LineLost, DaemonConfused):
            return heard
        finally:
            with _lock:
                self._lose(line)

    def _lose(self, line: LocalLine) -> None:
        """What was asked for is done as well: the next daemon is told what is so then."""
        line.close()
        self._line = None
        self._kept.lost()
        self._offer_again.clear()
        for futures in self._asked.values():
            for each in futures:
                each.set_result(None)
        self._asked.clear()

    def _give_up(self) -> None:
        """Who waits for a daemon that isn't there has waited long enough."""
        now = time.monotonic()
        for key, each in list(self._registrations.items()):
            if not each.begun.done() and now >= each.deadline:
                del self._registrations[key]
                self._kept.drop(key)
                text = f"{self._daemon}: no daemon of Moniker answers there"
                each.begun.set_exception(DaemonAbsent(text))

    def _clear(self) -> None:
        """What was abandoned is dropped."""
        while self._abandoned:
            key = self._abandoned.popleft()
            self._registrations.pop(key, None)
            self._offer_again.pop(key, None)
            self._send(self._kept.drop(key))

    def _offer(self) -> None:
        now = time.monotonic()
        for key in [key for key, when in self._offer_again.items() if when <= now]:
            del self._offer_again[key]
            self._send(self._kept.again(key))

    def _pause(self) -> float | None:
        """Seconds until something is to be offered again."""
        soonest = min(self._offer_again.values(), default=None)
        return None if soonest is None else max(soonest - time.monotonic(), 0.0)

    def _happened(self, event: Event, line: LocalLine) -> None:
        match event:
            case Registered(key, namespace):
                each = self._registrations[key]
                each.namespace = SYSTEM if namespace == SYSTEM_FIELD else namespace
                each.refusal = None
                if not each.begun.done():
                    each.begun.set_result(None)
            case Refused(key, code, text, first=True):
                each = self._registrations.pop(key)
                each.begun.set_exception(RegistrationRefused(code, text))
            case Refused(key, _, text):
                self._registrations[key].refusal = text
                self._offer_again[key] = time.monotonic() + REFUSED_WAIT
            case Changed(key) | Dropped(key):
                self._answered(key).set_result(None)
            case ChangeRefused(key, code, text):
                self._answered(key).set_exception(RegistrationRefused(code, text))
            case HandedOver(key, peer):
                self._hand_over(self._registrations.get(key or 0), line.next_socket(), peer)
            case SendNow(request):
                self._send([request])

    def _answered(self, key: int) -> Future[None]:
        """Who waits for this answer; a new one if nobody does."""
        futures = self._asked.get(key)
        if not futures:
            return Future()
        first = futures.pop(0)
        if not futures:
            del self._asked[key]
        return first

    def _hand_over(
        self, registration: Registration | None, sock: socket | None, peer: tuple[str, int]
    ) -> None:
        if sock is None:
            return
        if registration is None or registration.take is None:
            sock.close()
        else:
            registration.take(sock, peer)


_lock = threading.RLock()
_keepers: dict[Path, _Keeper] = {}


def _forked() -> None:
    try:
        for each in _keepers.values():
            each.forget()
        _keepers.clear()
    finally:
        _lock.release()


os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_forked)
