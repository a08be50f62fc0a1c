"""The TCP connection to a SOCKS server, by calls that wait, and what it shares with asyncio's."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from oegw.socks5.client.dialogue import Dialogue, Ended, Event
from oegw.socks5.client.errors import (
    DestinationUnusable,
    OutOfTurn,
    ProxyError,
    ProxyUnreachable,
    TooSlow,
    refusal,
)
from oegw.socks5.client.proxy import Proxy
from oegw.socks5.client.reaching import reached
from oegw.socks5.wire import ControlRequest, Reply, Request


class OpenLine:
    """``connection``: to the server.  ``timeout``: seconds for each call; None: for ever.

    An error ends it, but for a refusal on the control channel (SK-43).
    """

    def __init__(self, proxy: Proxy, timeout: float | None, dialogue: Dialogue) -> None:
        self.proxy = proxy
        self.timeout = timeout
        self._dialogue = dialogue
        self._socket: socket.socket | None = None

    @property
    def connection(self) -> socket.socket:
        """Raises OutOfTurn where there is none any more."""
        if self._socket is None:
            raise OutOfTurn("this conversation is over")
        return self._socket

    def notice(self) -> Reply | None:
        """What can be read is read: a reply that was awaited, the end, or what nobody asked for.

        Raises what the latter two mean; the line has to be closed then.
        """
        wanted = max(1, self._dialogue.wanted())
        try:
            with timely(self.proxy):
                octets = self.connection.recv(wanted, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        if octets:
            self._dialogue.receive(octets)
        else:
            self._dialogue.end_of_input()
        event = self._dialogue.next_event()
        return None if event is None else reply_in(event)

    def detach(self) -> socket.socket:
        """The connection, which is the caller's now."""
        sock, self._socket = self.connection, None
        return sock

    def close(self) -> None:
        sock, self._socket = self._socket, None
        if sock is not None:
            sock.close()


class Line(OpenLine):
    """By calls that wait."""

    def __init__(self, proxy: Proxy, timeout: float | None) -> None:
        super().__init__(proxy, timeout, dialogue_with(proxy))
        with timely(proxy):
            self._socket = reached(proxy.host, proxy.port, timeout)

    def ask(self, request: Request, early: bytes = b"") -> Reply:
        """Raises the errors of `errors`."""
        self._dialogue.ask(request, early)
        return self.await_reply(self.timeout)

    def ask_control(self, request: ControlRequest) -> Reply:
        """Raises RequestRefused, after which the line goes on, and the other errors of `errors`."""
        self._dialogue.ask_control(request)
        return accepted(self.await_reply(self.timeout))

    def await_reply(self, timeout: float | None) -> Reply:
        """The next reply, which may be the second one of a BIND."""
        sock, dialogue = self.connection, self._dialogue
        until = None if timeout is None else time.monotonic() + timeout
        try:
            with timely(self.proxy):
                while (event := dialogue.next_event()) is None:
                    sock.settimeout(left(until))
                    if octets := dialogue.octets_to_send():
                        sock.sendall(octets)
                    elif octets := sock.recv(dialogue.wanted()):
                        dialogue.receive(octets)
                    else:
                        dialogue.end_of_input()
            return reply_in(event)
        except BaseException:
            self.close()
            raise

    def detach(self) -> socket.socket:
        """The connection, whose calls wait for ever from now on."""
        sock = super().detach()
        sock.settimeout(None)
        return sock


def dialogue_with(proxy: Proxy) -> Dialogue:
    try:
        return Dialogue(proxy.credentials(), optimistic=proxy.optimistic)
    except ValueError as error:
        raise DestinationUnusable(str(error)) from None


def reply_in(event: Event) -> Reply:
    """Raises the error of an end."""
    if isinstance(event, Ended):
        raise event.error
    return event.reply


def accepted(reply: Reply) -> Reply:
    """Raises RequestRefused."""
    if reply.code != 0:
        raise refusal(reply.code)
    return reply


def left(until: float | None) -> float | None:
    """Seconds.  Raises TimeoutError."""
    if until is None:
        return None
    seconds = until - time.monotonic()
    if seconds <= 0:
        raise TimeoutError("timed out")
    return seconds


@contextmanager
def timely(proxy: Proxy) -> Iterator[None]:
    """What sockets raise, as errors of this room.  Raises ProxyUnreachable, TooSlow; and
    BlockingIOError, which is none."""
    try:
        yield
    except (BlockingIOError, ProxyError):
        raise
    except TimeoutError as error:
        raise TooSlow(f"the SOCKS server at {proxy}: no answer in time") from error
    except (OSError, UnicodeError) as error:
        raise ProxyUnreachable(f"the SOCKS server at {proxy}: {_words(error)}") from error


def _words(error: OSError | UnicodeError) -> str:
    """The kernel's words, not asyncio's, which have no reason in them."""
    if isinstance(error, UnicodeError):
        return "is no name of a host"
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or str(error)
