"""A connection between a service and the program that started us: `oegw moniker connect`."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress

OCTETS = 65536


def pump(connection: socket.socket, source: int = 0, sink: int = 1) -> None:
    """Octets both ways until the service is done.

    The end of ``source`` is passed on and is no end: the answer may be still to come.  Raises
    BrokenPipeError if ``sink`` takes no more, OSError if the connection breaks.
    """
    broken: list[OSError] = []

    def upwards() -> None:
        try:
            while octets := os.read(source, OCTETS):
                connection.sendall(octets)
            connection.shutdown(socket.SHUT_WR)
        except OSError as error:
            broken.append(error)
            with suppress(OSError):  # so that the other direction ends, too
                connection.shutdown(socket.SHUT_RD)

    # A daemon, because nothing can make it leave a read of a terminal.
    threading.Thread(target=upwards, daemon=True).start()
    while octets := connection.recv(OCTETS):
        written = 0
        while written < len(octets):
            written += os.write(sink, octets[written:])
    if broken:
        raise broken[0]


def pass_on(connection: socket.socket, sink: int = 1) -> None:
    """Give the connection itself to who reads ``sink``, a Unix socket (ssh_config(5),
    ProxyUseFdpass).  Raises OSError: it is none."""
    with socket.socket(fileno=os.dup(sink)) as unix:
        socket.send_fds(unix, [b"\0"], [connection.fileno()])
