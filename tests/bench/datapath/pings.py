"""Pings a host at a steady pace, and sleeps in between.

    pings.py ADDRESS COUNT INTERVAL

One line of JSON: the milliseconds of each ping that was answered.  ping(8) waits for a moment that
is less than ten milliseconds ahead by asking again and again, on a CPU that the gateways could use.
The kernel says when an answer came, so this process's own turn is not in the figure.
Nothing of this project is imported.
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import sys
import time

PATIENCE = 1.0  # seconds for the last answers
PAYLOAD = bytes(48)  # with our number 56 octets, as ping's

_SO_TIMESTAMPNS = 35
_ECHO_REQUEST, _ECHO_REPLY = 8, 0
_HEADER = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence


def checksum(octets: bytes) -> int:
    """RFC 1071, of an even number of octets."""
    total = sum(struct.unpack(f"!{len(octets) // 2}H", octets))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def request(identifier: int, sequence: int) -> bytes:
    """RFC 792, echo."""
    body = struct.pack("!Q", sequence) + PAYLOAD
    bare = _HEADER.pack(_ECHO_REQUEST, 0, 0, identifier, sequence) + body
    return _HEADER.pack(_ECHO_REQUEST, 0, checksum(bare), identifier, sequence) + body


def arrival(ancillary: list[tuple[int, int, bytes]]) -> int:
    """Nanoseconds since 1970."""
    for level, kind, octets in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
            seconds, nanoseconds = struct.unpack("qq", octets)
            return int(seconds * 10**9 + nanoseconds)
    raise OSError("the kernel did not say when")


def pings(address: str, count: int, interval: float) -> list[float]:
    identifier = os.getpid() & 0xFFFF
    sent: dict[int, int] = {}
    times: list[float] = []
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        sock.setblocking(False)
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        began, sequence = time.monotonic(), 0
        while True:
            now = time.monotonic()
            if sequence < count and now >= began + sequence * interval:
                packet = request(identifier, sequence)
                sent[sequence] = time.clock_gettime_ns(time.CLOCK_REALTIME)
                sock.sendto(packet, (address, 0))
                sequence += 1
            done = sequence == count
            if done and not sent:
                return times
            until = began + (count * interval + PATIENCE if done else sequence * interval)
            if done and now > until:
                return times
            # Rounded up: to wait for a moment too long costs nothing, none at all a CPU.
            if poll.poll(max(0, int((until - time.monotonic()) * 1000) + 1)):
                octets, ancillary, _, _ = sock.recvmsg(200, 100)
                kind, _, _, whose, number = _HEADER.unpack_from(octets, (octets[0] & 15) * 4)
                if (kind, whose) == (_ECHO_REPLY, identifier) and number in sent:
                    times.append((arrival(ancillary) - sent.pop(number)) / 1e6)


if __name__ == "__main__":
    print(json.dumps(pings(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))))
