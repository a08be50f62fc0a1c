"""What SOCKS servers are thrown: requests of every kind, and what becomes of them on a bad day."""

from __future__ import annotations

import random

from tests.support.intercept_net import PEER, PEER6
from tests.support.socks_strangers import CHOSEN, ECHO, GREETING, place

REQUEST = b"\x05\x01\x00" + place(PEER, ECHO)
WHOLE = [
    GREETING,
    b"\x05\x03\x00\x01\x02",
    GREETING + REQUEST,
    GREETING + b"\x05\x01\x00" + place("bob.example", 80),
    GREETING + b"\x05\x01\x10" + place(PEER6, ECHO) + b"hello",
    GREETING + b"\x05\x02\x00" + place(PEER, 0),
    GREETING + b"\x05\x03\x00" + place("0.0.0.0", 0) + b"\0\1\0" + place(PEER, ECHO),
    GREETING + b"\x05\x08\x00" + place(PEER, 0) + b"\x05\x08\x00" + place(PEER6, 4),
    GREETING + b"\x05\x09\x00" + place(PEER6, ECHO) + b"hello",
    GREETING + b"\x05\x01\x00" + place(b"\0abc", ECHO),
    b"\x04\x01\x00\x50\x0a\x09\x00\x02me\0",
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"",
]


def mutated(rng: random.Random, octets: bytes) -> bytes:
    changed = bytearray(octets)
    for _ in range(rng.randint(0, 4)):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(4):
            case 0:
                changed[at:at] = rng.randbytes(rng.randint(1, 8))
            case 1:
                del changed[at : at + rng.randint(1, 8)]
            case 2:
                changed[at : at + 1] = bytes([rng.choice((0, 1, 3, 4, 5, 8, 0x7F, 0xFF))])
            case _:
                changed[at:at] = changed[: rng.randint(1, 40)] * rng.randint(1, 9)
    return bytes(changed) if rng.random() < 0.9 else rng.randbytes(rng.randint(0, 2000))


def well_formed(heard: bytes, said: bytes) -> bool:
    """A method, or that there is none; replies; after one of success what the echo says, and after
    a failure nothing."""
    if heard[:2] != CHOSEN:
        return heard in (b"", b"\x05\xff")
    rest = heard[2:]
    while rest:
        if rest[0] != 5 or len(rest) < 10 or rest[1] > 9 or rest[2]:
            return False
        size = {1: 4, 4: 16, 8: 4}.get(rest[3])
        if size is None:
            return False  # a name that nobody asked for: asyncssh #396
        code, rest = rest[1], rest[4 + size + 2 :]
        if code:
            return not rest
        if rest in said:
            return True
    return True
