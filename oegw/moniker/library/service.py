"""A named service of this process (MK-3, MK-4, MK-7)."""

from __future__ import annotations

import errno
import os
import select
import socket
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from oegw.moniker.library import datagrams
from oegw.moniker.library.datagrams import Sender
from oegw.moniker.library.errors import NotOfThisKind
from oegw.moniker.library.holding import hold
from oegw.moniker.library.keeper import Registration, begin, done
from oegw.moniker.library.session import Session, host_of
from oegw.moniker.names import ServiceName, Version, Versions, canonical
from oegw.moniker.settings import DEFAULT_SOCKET
from oegw.moniker.transports import Kind, Transport, named
from oegw.sst.asking.option import enable

# Our choices.
BACKLOG = 128
MAX_HANDED_OVER = 128  # connections that the daemon handed over and nobody accepted yet

# Of a connection that was gone before it was accepted (accept(2)).
_GONE = (errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.ENETDOWN, errno.EHOSTUNREACH)


class Service:
    """A held port, its registration, and what comes in.

    A context manager; iterated, it gives a `Session` for each client.  A child that is forked has
    its own copy, and what it closes stays registered by its parent.
    """

    def __init__(
        self, sock: socket.socket, transport: Transport, name: ServiceName, inbox: Inbox | None
    ) -> None:
        self.transport = transport.name
        self.kind = transport.kind
        self._name = name
        self._socket = sock
        self._inbox = inbox
        self._registration: Registration | None = None
        self._last: Sender | None = None
        self._pid = os.getpid()
        self._closed = False

    def __repr__(self) -> str:
        return f"<Service {self.name}>"

    @property
    def name(self) -> ServiceName:
        """Name and version, in the namespace that the daemon put it in."""
        if self._registration is None:
            return self._name
        return ServiceName(self._name.service, self._registration.namespace, self._name.versions)

    @property
    def registered(self) -> bool:
        """Whether the daemon of this host knows it at this moment."""
        return self._registration is not None and self._registration.registered

    def update(
        self,
        *,
        weight: int | None = None,
        exported: bool | None = None,
        text: Sequence[str] | None = None,
    ) -> None:
        """What is registered changes (MK-8).  Raises RegistrationRefused."""
        given: dict[str, Any] = {"weight": weight, "exported": exported}
        changes = {key: value for key, value in given.items() if value is not None}
        if text is not None:
            changes["text"] = strings(text)
        if changes and self._registration is not None:
            self._registration.update(**changes)

    def begin(self, request: dict[str, Any], daemon: Path, patience: float) -> Registration:
        """It is registered as soon as ``begun`` of what is returned is done."""
        take = self._inbox.take if self._inbox is not None else None
        self._registration = begin(
            self._socket, request, daemon=daemon, patience=patience, take=take
        )
        # Who loses the service gives it back, as with a socket; its process's end does so anyway.
        weakref.finalize(self, self._registration.abandon).atexit = False
        return self._registration

    # ---------------------------------------------------------------------- sessions

    def listen(self, backlog: int = BACKLOG) -> None:
        self._must_be(Kind.STREAM)
        self._socket.listen(backlog)

    def accept(self) -> Session:
        """The next client.  Raises NotOfThisKind for a service of datagrams, and OSError (EBADF)
        once it is closed, by another thread perhaps."""
        self._must_be(Kind.STREAM)
        while True:
            self._must_be_open()
            if self._inbox is not None:
                self._inbox.wait(self._socket)
            if (session := self.accepted()) is not None:
                return session
            if self._inbox is None and self._socket.gettimeout() == 0:
                raise BlockingIOError(errno.EAGAIN, "nobody is there")

    def accepted(self) -> Session | None:
        """A client that is here, as far as the socket waits for one; None: another process was
        quicker, or the client is gone again."""
        self._must_be(Kind.STREAM)
        self._must_be_open()
        if self._inbox is not None and (taken := self._inbox.pop()) is not None:
            return Session(taken[0], self.name, taken[1])
        try:
            sock, address = self._socket.accept()
        except BlockingIOError:
            return None
        except OSError as error:
            self._must_be_open()
            if error.errno not in _GONE:
                raise
            return None
        sock.setblocking(True)
        return Session(sock, self.name, host_of(address))

    def __iter__(self) -> Iterator[Session]:
        """Each client, until the service is closed."""
        while not self._closed:
            try:
                session = self.accept()
            except OSError:
                if self._closed:
                    return
                raise
            yield session

    # --------------------------------------------------------------------- datagrams

    def receive(self, size: int = 65535) -> tuple[bytes, Sender]:
        """The next datagram, and who is to be answered.  Raises OSError as `accept` does."""
        self._must_be(Kind.DATAGRAM)
        self._must_be_open()
        try:
            octets, self._last = datagrams.receive(self._socket, size)
        except OSError:
            self._must_be_open()
            raise
        return octets, self._last

    def answer(self, octets: bytes, sender: Sender | None = None) -> int:
        """To ``sender``, or to whom the last datagram came from."""
        self._must_be(Kind.DATAGRAM)
        to = sender or self._last
        if to is None:
            raise NotOfThisKind(f"{self.name}: nobody has sent a datagram yet")
        return datagrams.answer(self._socket, octets, to)

    # ------------------------------------------------------------------------- both

    def settimeout(self, seconds: float | None) -> None:
        """For `accept` and `receive`, which then raise TimeoutError; None: they wait."""
        self._socket.settimeout(seconds)
        if self._inbox is not None:
            self._inbox.timeout = seconds
            self._socket.setblocking(False)

    def fileno(self) -> int:
        return self._socket.fileno()

    def reveal_port(self) -> int:
        """The port, for those who must know: to write it into another program's configuration."""
        return int(self._socket.getsockname()[1])

    def sources(self) -> list[socket.socket | Inbox]:
        """What can be read from when a client is there."""
        inbox = [self._inbox] if self._inbox is not None and self._inbox.fileno() >= 0 else []
        return [self._socket, *inbox]

    def close(self) -> None:
        """The name is given back, and then the port; in a child that was forked, neither.  Who
        waits for clients in another thread waits no longer."""
        if self._registration is not None:
            self._registration.close()
        self.release()

    def end(self) -> Future[None]:
        """The name is given back, as soon as what is returned is done; `release` follows."""
        if self._registration is not None:
            return self._registration.end()
        return done()

    def release(self) -> None:
        """This process's copy of the port is given back, and what nobody accepted yet."""
        self._closed = True
        if self._pid == os.getpid():
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)  # wakes who waits; closing does not
        self._socket.close()
        if self._inbox is not None:
            self._inbox.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _must_be_open(self) -> None:
        if self._closed:
            raise OSError(errno.EBADF, f"{self.name}: the service is closed")

    def _must_be(self, kind: Kind) -> None:
        if self.kind is not kind:
            raise NotOfThisKind(f"{self.name}: {self.transport} is no {kind.value} transport")


class Inbox:
    """Connections that the daemon handed over (RFC 1078), until they are accepted."""

    def __init__(self) -> None:
        self.timeout: float | None = None
        self._waiting: deque[tuple[socket.socket, str]] = deque()
        self._pid = os.getpid()
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC | os.EFD_SEMAPHORE)
        _inboxes.add(self)

    def take(self, sock: socket.socket, peer: tuple[str, int]) -> None:
        """Called by the keeper's thread, not after `close`; one too many is closed."""
        if len(self._waiting) >= MAX_HANDED_OVER:
            sock.close()
            return
        sock.setblocking(True)
        self._waiting.append((sock, host_of(peer)))
        os.eventfd_write(self._event, 1)

    def fileno(self) -> int:
        """To be read from while there is something, in the process that registered."""
        return self._event if self._pid == os.getpid() else -1

    def wait(self, listening: socket.socket) -> None:
        """Until something was handed over, or there is a connection to accept.

        Raises TimeoutError.
        """
        poll = select.poll()
        poll.register(listening, select.POLLIN)
        if self.fileno() >= 0:
            poll.register(self, select.POLLIN)
        if not poll.poll(None if self.timeout is None else self.timeout * 1000):
            raise TimeoutError("timed out")

    def pop(self) -> tuple[socket.socket, str] | None:
        if self.fileno() >= 0:
            with suppress(BlockingIOError):
                os.eventfd_read(self._event)
                return self._waiting.popleft()
        return None

    def close(self) -> None:
        if self._event >= 0:
            os.close(self._event)
            self._event = -1
        while self._waiting:
            self._waiting.popleft()[0].close()


_inboxes: weakref.WeakSet[Inbox] = weakref.WeakSet()


def _forked() -> None:
    """A child's copies would keep connections open that its parent accepts and closes."""
    for each in _inboxes:
        each.close()


os.register_at_fork(after_in_child=_forked)


def serve(
    name: str,
    *,
    version: str = "1",
    transport: str = "tcp",
    families: str = "46",
    namespace: str | None = None,
    weight: int = 100,
    tcpmux: bool = False,
    sst: bool = False,
    exported: bool = False,
    text: Sequence[str] = (),
    listening: bool = True,
    backlog: int = BACKLOG,
    daemon: Path = DEFAULT_SOCKET,
    patience: float = 1.0,
) -> Service:
    """A service that is bound, listening and registered.

    ``namespace`` None: the user's own, or the system's for its accounts.  ``tcpmux``: clients of
    RFC 1078 may come in too.  ``sst``: ports are encrypted on the way.  ``text``: what DNS-SD tells
    of it where it is ``exported``.  ``patience``: seconds to wait for a daemon that is not there.

    Raises InvalidName, UnknownTransport, RegistrationRefused, DaemonAbsent, NoPortLeft,
    TransportUnavailable; SstUnavailable where ports can't be encrypted.
    """
    service, request = held(
        name, version, transport, families,
        {"namespace": namespace, "weight": weight, "tcpmux": tcpmux, "sst": sst,
         "exported": exported, "text": strings(text)},
    )  # fmt: skip
    try:
        if listening and service.kind is Kind.STREAM:
            service.listen(backlog)
        service.begin(request, daemon, patience).wait(patience)
    except BaseException:
        service.close()
        raise
    return service


def strings(text: Sequence[str]) -> list[str]:
    """Raises TypeError for one string, which is a sequence of its letters."""
    if isinstance(text, str):
        raise TypeError(f"text {text[:40]!r}: a list of strings is wanted, as in ['key=value']")
    return list(text)


def held(
    name: str, version: str, transport: str, families: str, options: dict[str, Any]
) -> tuple[Service, dict[str, Any]]:
    """A service that has its port and is not registered, and the request that would do it."""
    version = str(version)  # who writes 2 means "2"
    service_name = ServiceName(canonical(name), versions=_exactly(Version.parse(version)))
    kind = named(transport)
    request = {key: value for key, value in options.items() if value is not None}
    request |= {"service": service_name.service, "version": version}
    inbox = Inbox() if options.get("tcpmux") else None
    try:
        sock = hold(kind, families)
    except BaseException:
        if inbox is not None:
            inbox.close()
        raise
    try:
        if options.get("sst"):
            enable(sock)
        if kind.kind is Kind.DATAGRAM:
            datagrams.prepare(sock)
        if inbox is not None:
            sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return Service(sock, kind, service_name, inbox), request


def _exactly(version: Version) -> Versions:
    return Versions((("=", version),))
