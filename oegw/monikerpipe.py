"""A connection between a service and the program that started us: `oegw moniker connect`."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress

OCTETS = 65536


def pump(connection: socket.socket, source: int = 0, sink: int = 1) -> None:
    """Octets both ways until the service is done.

    The end of ``source`` is passed on and is no end: the answer may be still to come.  Nor is it
    one that the service takes no more; its last words count.  Raises BrokenPipeError if ``sink``
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
