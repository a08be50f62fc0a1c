"""Clients that leave at every point of a conversation, in every way: nothing of them stays."""

from __future__ import annotations

import random
import socket
import struct
from contextlib import suppress
from pathlib import Path

import pytest

from oegw.socks5.wire import Datagram, Greeting, Request
from tests.support.socks_server import LOOPBACK, Destination, Names, Running, running

NAMES = {"bob.example": ("::1", "127.0.0.1")}
COMMANDS = (1, 2, 3, 8, 9, 10, 11, 4, 0x55)


def talks(port: int) -> list[bytes]:
    """What clients say, each whole; they are cut anywhere."""
    greeting = Greeting((0,)).octets()
    return [
        greeting + Request(command, address, port, flag).octets() + b"early"
        for command in COMMANDS
        for address in (*LOOPBACK, "bob.example", "nobody.example")
        for flag in (0, 0x14)
    ]


def leave(sock: socket.socket, how: int) -> None:
    if how == 0:  # without a word to the kernel's peer but a reset
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    elif how == 1:
        with suppress(OSError):  # the other has left before
            sock.shutdown(socket.SHUT_WR)
    sock.close()


def visits(server: Running, destination: Destination, chance: random.Random, count: int) -> None:
    every = talks(destination.port)
    destination.sock.settimeout(0)
    for _ in range(count):
        octets = chance.choice(every)
        with server.client(chance.randrange(2)) as client:
            client.send(octets[: chance.randrange(len(octets) + 1)])
            if chance.random() < 0.5:
                client.sock.settimeout(0.002)
                with suppress(OSError):
                    client.sock.recv(chance.randrange(1, 40))
            leave(client.sock, chance.randrange(3))
        with suppress(BlockingIOError):
            leave(destination.sock.accept()[0], chance.randrange(3))


def settled(server: Running, destination: Destination) -> bool:
    with suppress(BlockingIOError):
        destination.sock.accept()[0].close()
    return bool(server.snapshot()["connections"]["total"] == 0)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize(
    "count", [300, pytest.param(3000, marks=pytest.mark.fuzz)], ids=["some", "many"]
)
def test_nothing_stays_of_who_leaves(tmp_path: Path, count: int) -> None:
    chance = random.Random(8)
    with running(tmp_path, names=Names(NAMES)) as server, Destination() as destination:
        visits(server, destination, chance, 20)
        server.until(lambda: settled(server, destination), "the end of the first")
        before = descriptors()
        visits(server, destination, chance, count)
        server.until(lambda: settled(server, destination), "the end of all")
        assert descriptors() <= before
        snapshot = server.snapshot()
        assert set(snapshot["under_way"].values()) == {0}
        assert snapshot["ids"]["used"] == 0
        assert "internal_error" not in snapshot["counters"]
        assert server.server._talking == {}
        assert not server.server._common.associations


def test_nothing_stays_of_associations(tmp_path: Path) -> None:
    """Their sockets are made when they are needed, and closed with the connection."""
    with running(tmp_path, names=Names(NAMES)) as server, Destination() as destination:
        before = descriptors()
        for _ in range(20):
            with server.client() as client:
                client.greet()
                relay = client.ask(3, "0.0.0.0", 0)
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                    for address in (*LOOPBACK, "bob.example", "nobody.example"):
                        octets = Datagram(address, destination.port, b"x").octets()
                        sock.sendto(octets, (str(relay.address), relay.port))
        server.until(lambda: server.snapshot()["connections"]["total"] == 0, "their end")
        assert descriptors() <= before
        assert "internal_error" not in server.snapshot()["counters"]
