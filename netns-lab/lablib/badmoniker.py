"""What strangers send to a Moniker daemon; runs on a host, started by the lab.

    python badmoniker.py spoofed ADDRESS COUNT CLAIMED NAME   questions by UDP, in another's name
    python badmoniker.py garbage ADDRESS COUNT                lines, datagrams of random octets
    python badmoniker.py oversized ADDRESS COUNT              lines without an end
    python badmoniker.py slow ADDRESS COUNT                   connections, held until the end

Prints what it did; ``slow`` then goes on, an octet of each connection every half second.
"""

from __future__ import annotations

import random
import secrets
import socket
import struct
import sys
import time
from collections import Counter
from contextlib import suppress

PORT = 1
PADDED = 64  # octets of a spoofed question: the least that a question can be padded to, about
PATIENCE = 3.0


def spoofed(address: str, count: int, claimed: str, name: str) -> str:
    """Questions, every other one with a cookie that nobody gave."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        for number in range(count):
            cookie = f" {secrets.token_hex(8)}" if number % 2 else ""
            line = f"MON/1 Q {secrets.token_hex(8)} * - {name} *{cookie}".ljust(PADDED).encode()
            udp = struct.pack("!HHHH", 40000 + number, PORT, 8 + len(line), 0) + line
            head = struct.pack("!BBHHHBBH", 69, 0, 20 + len(udp), 0, 0, 64, socket.IPPROTO_UDP, 0)
            packet = head + socket.inet_aton(claimed) + socket.inet_aton(address) + udp
            raw.sendto(packet, (address, 0))
    return f"{count} questions from {claimed}"


def _fate(connection: socket.socket) -> str:
    """What becomes of a connection that the other end should end."""
    connection.settimeout(PATIENCE)
    try:
        while connection.recv(4096):
            pass
    except TimeoutError:
        return "still open"
    except OSError:
        return "reset"
    return "closed"


def garbage(address: str, count: int) -> str:
    seed = random.Random(count)
    fates: Counter[str] = Counter()
    for _ in range(count):
        octets = seed.randbytes(seed.randrange(200))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking, suppress(OSError):
            asking.sendto(seed.choice((b"", b"MON/1 ", b"MON/1 E ")) + octets, (address, PORT))
        with suppress(OSError), socket.create_connection((address, PORT), PATIENCE) as connection:
            connection.sendall(octets.replace(b"\n", b"") + b"\r\n")
            fates[_fate(connection)] += 1
    return str(dict(fates))


def oversized(address: str, count: int) -> str:
    fates: Counter[str] = Counter()
    for _ in range(count):
        with suppress(OSError), socket.create_connection((address, PORT), PATIENCE) as connection:
            with suppress(OSError):
                connection.sendall(b"MON/1 Q " + b"x" * 1_000_000)
            fates[_fate(connection)] += 1
    return str(dict(fates))


def slow(address: str, count: int) -> str:
    held = []
    for _ in range(count):
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        connection.setblocking(False)
        with suppress(BlockingIOError):
            connection.connect((address, PORT))
        held.append(connection)
    print(f"{count} connections begun", flush=True)
    while True:
        time.sleep(0.5)
        for connection in held:
            with suppress(OSError):
                connection.send(b"M")


if __name__ == "__main__":
    what, place, number, *more = sys.argv[1:]
    if what == "spoofed":
        print(spoofed(place, int(number), *more))
    else:
        print({"garbage": garbage, "oversized": oversized, "slow": slow}[what](place, int(number)))
