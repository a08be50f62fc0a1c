"""Throws at a gateway's keying ports what strangers throw: garbage, forgeries, beginnings.

    python -m tests.interop.flood ADDRESS SECONDS SEED      (inside a namespace of the bed)

All from forged addresses of the public link's network, about 300 datagrams each second.  The
first messages of main mode among it are whole and acceptable, so that a gateway has every reason to
answer them.
"""

from __future__ import annotations

import random
import socket
import struct
import sys
import time
from ipaddress import IPv4Address

RATE = 300
SOURCES = int(IPv4Address("203.0.113.100")), int(IPv4Address("203.0.113.250"))
MARKER = b"\0\0\0\0"


def _attribute(kind: int, value: int) -> bytes:
    return struct.pack("!HH", 0x8000 | kind, value)


def main_mode_1(cookie: bytes, transforms: int = 1) -> bytes:
    """RFC 2408 section 3: a header and an SA with AES-256, SHA2-256, group 14, RSA signatures."""
    attributes = b"".join(
        _attribute(kind, value)
        for kind, value in ((1, 7), (14, 256), (2, 4), (3, 3), (4, 14), (11, 1), (12, 28800))
    )
    body = b""
    for number in range(1, transforms + 1):
        more = 3 if number < transforms else 0
        body += struct.pack("!BBHBBH", more, 0, 8 + len(attributes), number, 1, 0) + attributes
    proposal = struct.pack("!BBHBBBB", 0, 0, 8 + len(body), 1, 1, 0, transforms) + body
    sa = struct.pack("!BBHII", 0, 0, 12 + len(proposal), 1, 1) + proposal
    return struct.pack("!8s8sBBBBII", cookie, bytes(8), 1, 0x10, 2, 0, 0, 28 + len(sa)) + sa


def _anything(rng: random.Random) -> tuple[int, bytes]:
    """A destination port and what is sent there."""
    message = main_mode_1(rng.randbytes(8), rng.choice((1, 1, 1, 4)))
    changed = bytearray(message)
    for _ in range(rng.randint(1, 4)):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return rng.choice(
        (
            (500, message),
            (500, message),
            (4500, MARKER + message),
            (500, bytes(changed)),
            (4500, MARKER + bytes(changed)),
            (500, message[: rng.randrange(len(message))]),
            (500, rng.randbytes(rng.randint(0, 600))),
            (4500, rng.randbytes(rng.randint(0, 600))),  # ESP of no SA that there is
            (4500, b"\xff"),
            (4500, b""),
            # A message of an exchange that is not: no such cookies.
            (500, rng.randbytes(16) + message[16:]),
            # Aggressive mode (exchange 4), quick mode (32), informational (5).
            (500, message[:18] + bytes([rng.choice((4, 32, 5))]) + message[19:]),
            # IKEv2's IKE_SA_INIT.
            (500, message[:17] + b"\x20\x22\x08" + message[20:]),
        )
    )


def datagram(source: int, destination: int, ports: tuple[int, int], payload: bytes) -> bytes:
    """IPv4 and UDP; the kernel fills in the IP checksum, and zero is none for UDP."""
    udp = struct.pack("!HHHH", *ports, 8 + len(payload), 0) + payload
    return (
        struct.pack("!BBHHHBBHII", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, source, destination)
        + udp
    )


def main() -> None:
    destination, seconds = IPv4Address(sys.argv[1]), float(sys.argv[2])
    rng = random.Random(int(sys.argv[3]))
    started, sent = time.monotonic(), 0
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as outlet:
        while (passed := time.monotonic() - started) < seconds:
            while sent < passed * RATE:
                port, payload = _anything(rng)
                ports = rng.choice((500, 4500, rng.randint(1024, 65535))), port
                source = rng.randint(*SOURCES)
                packet = datagram(source, int(destination), ports, payload)
                outlet.sendto(packet, (str(destination), 0))
                sent += 1
            time.sleep(0.005)
    print(sent)


if __name__ == "__main__":
    main()
