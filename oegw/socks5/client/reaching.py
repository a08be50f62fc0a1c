"""A connection to the server's host, whichever of its addresses answers first (RFC 8305)."""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections.abc import Iterable
from typing import Any

from oegw.socks5.client.asking import plain_address
from oegw.socks5.codes import ReplyCode
from oegw.socks5.eyeballs import Race, ordered
from oegw.socks5.wire import IPAddress

# What getaddrinfo tells of an address: family, and where to connect to.
Place = tuple[int, Any]


class Reaching:
    """The race to one of the places that getaddrinfo ``found``, in its order of families."""

    def __init__(self, found: Iterable[Any]) -> None:
        self.places: dict[IPAddress, Place] = {}
        for family, _, _, _, address in found:
            if family in (socket.AF_INET, socket.AF_INET6):
                self.places.setdefault(plain_address(address[0]), (family, address))
        first = next(iter(self.places), None)
        prefer = "6" if first is None else str(first.version)
        self.race = Race(ordered(self.places, prefer))
        self.problem: OSError = OSError("it has no address")

    def failed(self, address: IPAddress, error: OSError) -> None:
        self.problem = error
        self.race.failed(address, ReplyCode.FAILURE)


def reached(host: str, port: int, timeout: float | None) -> socket.socket:
    """A connected socket.  Raises OSError, UnicodeError."""
    until = None if timeout is None else time.monotonic() + timeout
    reaching = Reaching(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    running: dict[int, tuple[IPAddress, socket.socket]] = {}
    watch = select.poll()
    try:
        while not reaching.race.lost():
            while (address := reaching.race.begin(time.monotonic())) is not None:
                try:
                    sock = _begun(reaching.places[address])
                except OSError as error:
                    reaching.failed(address, error)
                else:
                    running[sock.fileno()] = address, sock
                    watch.register(sock, select.POLLOUT)
            if not running:
                continue
            for number, _ in watch.poll(_milliseconds(reaching.race.wake_at(), until)):
                watch.unregister(number)
                address, sock = running.pop(number)
                if not (code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)):
                    return sock
                sock.close()
                reaching.failed(address, OSError(code, os.strerror(code)))
        raise reaching.problem
    finally:
        for _, sock in running.values():
            sock.close()


def _begun(place: Place) -> socket.socket:
    """Raises OSError."""
    family, address = place
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        code = sock.connect_ex(address)
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, os.strerror(code))
    except BaseException:
        sock.close()
        raise
    return sock


def _milliseconds(wake_at: float | None, until: float | None) -> float | None:
    """Until the earlier of them.  Raises TimeoutError."""
    now = time.monotonic()
    if until is not None and now >= until:
        raise TimeoutError("timed out")
    ends = [each for each in (wake_at, until) if each is not None]
    return max(0.0, min(ends) - now) * 1000 if ends else None
