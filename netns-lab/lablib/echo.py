"""Echoes what it hears at one port, by TCP and UDP and both families, and says whom it hears.

    python echo.py PORT                            until it is ended
    python echo.py half PORT                       the same; it says no more after the first answer
    python echo.py call ADDRESS PORT SECONDS WORDS connects, says WORDS, prints what comes back

Each answer is one line: "you are ADDRESS PORT: " and what was heard.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable, Coroutine
from ipaddress import ip_address
from typing import Any

Answering = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


def you_are(place: tuple[str, int]) -> bytes:
    """An IPv4 address as such, though a socket of both families shows it as a mapped one."""
    address = ip_address(place[0].partition("%")[0])
    if address.version == 6 and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return f"you are {address} {place[1]}: ".encode()


async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Half-closes the connection, and goes on to read what comes."""
    own = you_are(writer.get_extra_info("peername"))
    writer.write(own + await reader.readline())
    writer.write_eof()
    while line := await reader.readline():
        print("heard", line.decode().strip(), flush=True)
    writer.close()


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    own = you_are(writer.get_extra_info("peername"))
    print("tcp", own.decode(), flush=True)
    try:
        while line := await reader.readline():
            writer.write(own + line)
            await writer.drain()
    except OSError:
        return
    finally:
        writer.close()


def answer_datagram(sock: socket.socket) -> None:
    octets, place = sock.recvfrom(65535)
    print("udp", you_are(place).decode(), flush=True)
    sock.sendto(you_are(place) + octets, place)


def bound(kind: int, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6, kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind(("::", port))
    return sock


async def serve(port: int, each: Answering = answer) -> None:
    server = await asyncio.start_server(each, sock=bound(socket.SOCK_STREAM, port))
    port = server.sockets[0].getsockname()[1]  # 0: the kernel's choice, for UDP as well
    datagrams = bound(socket.SOCK_DGRAM, port)
    asyncio.get_running_loop().add_reader(datagrams, answer_datagram, datagrams)
    print(f"listening at {port}", flush=True)
    await server.serve_forever()


def call(address: str, port: int, seconds: float, line: str) -> None:
    with socket.create_connection((address, port), seconds) as connection:
        connection.sendall(f"{line}\n".encode())
        print(connection.makefile().readline().strip(), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "call":
        call(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), sys.argv[5])
    elif sys.argv[1] == "half":
        asyncio.run(serve(int(sys.argv[2]), answer_once))
    else:
        asyncio.run(serve(int(sys.argv[1])))
