"""A program that knows nothing of SOCKS, with IPv4 only: what a library put under it makes of that.

plain.py stream HOST PORT      a TCP connection, a line and its echo
plain.py datagrams HOST PORT   a UDP datagram and its answer
plain.py listen HOST PORT      a TCP connection, and beside it a port where its peer may come
"""

from __future__ import annotations

import ctypes
import socket
import sys

TRIES, SECONDS = 3, 5.0


def stream(place: tuple[str, int]) -> None:
    with socket.create_connection(place, SECONDS) as connection:
        print(connection.recv(100).decode().strip())
        connection.sendall(b"over")
        print(connection.recv(100).decode(), flush=True)


def datagrams(place: tuple[str, int]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(SECONDS)
        for text in b"first", b"second":
            sock.sendto(text, place)
            octets, sender = sock.recvfrom(100)
            print(octets.decode(), sender[1], flush=True)


def listen(place: tuple[str, int]) -> None:
    """As a client of FTP does."""
    control = socket.create_connection(place, SECONDS)
    listener = socket.socket(socket.AF_INET)
    listener.bind((control.getsockname()[0], 0))
    listener.listen(1)
    print(*listener.getsockname(), flush=True)
    connection = accepted(listener)
    print(*connection.getpeername())
    connection.sendall(b"over")
    print(connection.recv(100).decode(), flush=True)


def accepted(listener: socket.socket) -> socket.socket:
    """By accept(): Python calls accept4(), which Dante's library does not stand in for."""
    library = ctypes.CDLL(None, use_errno=True)
    name, size = ctypes.create_string_buffer(128), ctypes.c_uint32(128)
    descriptor = library.accept(listener.fileno(), name, ctypes.byref(size))
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "accept")
    return socket.socket(fileno=descriptor)


if __name__ == "__main__":
    work = {each.__name__: each for each in (stream, datagrams, listen)}[sys.argv[1]]
    work((sys.argv[2], int(sys.argv[3])))
