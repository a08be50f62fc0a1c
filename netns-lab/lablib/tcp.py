"""TCP on a host: a listener, or one attempt to connect.

    python tcp.py listen ADDRESS PORT ...     until it is ended
    python tcp.py connect ADDRESS PORT SECONDS

``connect`` prints what became of it: open, refused (by the host), prohibited (ICMP 3/13, ICMPv6 1/1
or another that says unreachable), or silent.
"""

from __future__ import annotations

import errno
import selectors
import socket
import sys


def listen(address: str, ports: list[int]) -> None:
    ready = selectors.DefaultSelector()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for port in ports:
        server = socket.create_server((address, port), family=family)
        ready.register(server, selectors.EVENT_READ)
    print("listening", flush=True)
    while True:
        for key, _ in ready.select():
            server = key.fileobj
            assert isinstance(server, socket.socket)
            server.accept()[0].close()


def connect(address: str, port: int, seconds: float) -> str:
    try:
        socket.create_connection((address, port), seconds).close()
    except TimeoutError:
        return "silent"
    except OSError as error:
        if error.errno == errno.ECONNREFUSED:
            return "refused"
        if error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EACCES):
            return "prohibited"
        raise
    return "open"


if __name__ == "__main__":
    what, where, *rest = sys.argv[1:]
    if what == "listen":
        listen(where, [int(port) for port in rest])
    else:
        print(connect(where, int(rest[0]), float(rest[1])))
