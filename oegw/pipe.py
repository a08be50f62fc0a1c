"""A connection put between its far end and the program that started us: `oegw moniker connect`,
`oegw socks connect`."""

from __future__ import annotations

import errno
import os
import socket
import threading
from contextlib import suppress

from oegw.arguments import UsageError
from oegw.exitcodes import FAILED, FINE, Failure

OCTETS = 65536


def serve(connection: socket.socket, name: str, *, pass_fd: bool) -> int:
    """`pump` or, with ``pass_fd``, `pass_on`, as a command; returns its exit code.

    ``name``: what is connected to, for errors.  Raises Failure, UsageError, BrokenPipeError.
    """
    with connection:
        connection.settimeout(None)
        with suppress(OSError):  # not TCP
            # What comes through a pipe is whole already; ssh would say the same of its own socket.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        try:
            (pass_on if pass_fd else pump)(connection)
        except BrokenPipeError:
            raise
        except OSError as error:
            if error.errno == errno.ENOTSOCK:
                text = "standard output is no socket; ssh has one there with ProxyUseFdpass"
                raise UsageError(f"--pass-fd: {text}") from error
            raise Failure(FAILED, f"{name}: {error.strerror or error}") from error
    return FINE


def pump(connection: socket.socket, source: int = 0, sink: int = 1) -> None:
    """Octets both ways until the far end is done.

    The end of ``source`` is passed on and is no end: the answer may be still to come.  Nor is it
    one that the far end takes no more; its last words count.  Raises BrokenPipeError if ``sink``
    takes no more, ConnectionError if the connection breaks.
    """

    def upwards() -> None:
        with suppress(OSError):
            while octets := os.read(source, OCTETS):
                connection.sendall(octets)
            connection.shutdown(socket.SHUT_WR)

    # A daemon, because nothing can make it leave a read of a terminal.
    threading.Thread(target=upwards, daemon=True).start()
    while octets := connection.recv(OCTETS):
        written = 0
        while written < len(octets):
            written += os.write(sink, octets[written:])


def pass_on(connection: socket.socket, sink: int = 1) -> None:
    """Give the connection itself to who reads ``sink``, a Unix socket (ssh_config(5),
    ProxyUseFdpass).  Raises OSError: it is none."""
    with socket.socket(fileno=os.dup(sink)) as unix:
        socket.send_fds(unix, [b"\0"], [connection.fileno()])
