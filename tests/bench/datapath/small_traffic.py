"""Sends or counts small UDP datagrams, many with each system call.

    small_traffic.py send     lines on standard input: ADDRESS PORT SPREAD RATE SECONDS
    small_traffic.py count    lines on standard input: PORT, then an empty line

Each line is answered with one of JSON.  ``send`` says how many it sent in how many seconds; of
SPREAD addresses from ADDRESS on, each gets a datagram in turn.  ``count`` answers PORT once it
listens there, and the empty line with how many came.  iperf3 makes a system call or two for each
datagram: it would be measured in place of the tunnel.  Nothing of this project is imported.
"""

from __future__ import annotations

import ctypes
import json
import socket
import struct
import sys
import time
from ipaddress import ip_address

PAYLOAD = 64  # octets
BATCH = 64  # datagrams with one system call
PAUSE = 0.00025  # seconds; what became due meanwhile goes at once
LONGEST_DEBT = 0.002  # seconds; who was not let run for longer does not make up for it by a burst
RECEIVE_BUFFER = 64 << 20
COUNT_BATCH = 1024
LINGER = 0.15  # seconds without a datagram: no more come

_MSG_DONTWAIT = 0x40
_SO_RCVBUFFORCE = 33
_libc = ctypes.CDLL(None, use_errno=True)


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    """``struct msghdr``."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.POINTER(_Iovec)),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    """``struct mmsghdr``."""

    _fields_ = (("header", _Header), ("octets", ctypes.c_uint32))


class Batch:
    """An array for sendmmsg or recvmmsg, all of whose datagrams share one buffer."""

    def __init__(self, size: int, octets: int, addresses: list[bytes]) -> None:
        self._buffer = ctypes.create_string_buffer(octets)
        self._vector = _Iovec(ctypes.addressof(self._buffer), octets)
        self._names = [ctypes.create_string_buffer(each, len(each)) for each in addresses]
        self.messages = (_Message * size)()
        for number, message in enumerate(self.messages):
            header = message.header
            header.vectors = ctypes.pointer(self._vector)
            header.vector_count = 1
            if self._names:
                name = self._names[number % len(self._names)]
                header.name = ctypes.addressof(name)
                header.name_length = len(name)

    def at(self, index: int) -> ctypes.c_void_p:
        return ctypes.c_void_p(ctypes.addressof(self.messages) + index * ctypes.sizeof(_Message))


def socket_address(address: int, port: int) -> bytes:
    """``struct sockaddr_in``."""
    return struct.pack("=H", socket.AF_INET) + struct.pack("!HI8x", port, address)


def send(address: str, port: int, spread: int, rate: float, seconds: float) -> dict[str, float]:
    first = int(ip_address(address))
    names = [socket_address(first + number, port) for number in range(spread)]
    ring = max(BATCH, spread)
    batch = Batch(ring, PAYLOAD, names)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        number = sock.fileno()
        sent = at = 0
        began = time.monotonic()
        due_since = began
        while (now := time.monotonic()) < began + seconds:
            if now - due_since > LONGEST_DEBT:
                due_since = now - LONGEST_DEBT
            due = int((now - due_since) * rate)
            if due < 1:
                time.sleep(PAUSE)
                continue
            count = min(due, BATCH, ring - at)
            done = _libc.sendmmsg(number, batch.at(at), count, 0)
            if done < 0:
                raise OSError(ctypes.get_errno(), "sendmmsg")
            sent += done
            at = (at + done) % ring
            due_since += done / rate
            if count == due:
                time.sleep(PAUSE)
        return {"sent": sent, "seconds": time.monotonic() - began}


class Counter:
    """A socket that counts.  Its queue holds what comes while this process may not run."""

    def __init__(self, port: int) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER)
        self._socket.bind(("0.0.0.0", port))
        self._batch = Batch(COUNT_BATCH, PAYLOAD, [])

    def take(self) -> int:
        """How many had come since the last time."""
        total = 0
        while True:
            done = _libc.recvmmsg(
                self._socket.fileno(), self._batch.at(0), COUNT_BATCH, _MSG_DONTWAIT, None
            )
            if done <= 0:
                return total
            total += done

    def rest(self) -> int:
        """The last ones, however long they are under way."""
        total = 0
        quiet_since = time.monotonic()
        while time.monotonic() < quiet_since + LINGER:
            taken = self.take()
            if taken:
                total += taken
                quiet_since = time.monotonic()
            time.sleep(0.01)
        self._socket.close()
        return total


def _say(said: dict[str, float]) -> None:
    print(json.dumps(said), flush=True)


def main(role: str) -> None:
    for line in sys.stdin:
        words = line.split()
        if role == "send":
            address, port, spread, rate, seconds = words
            _say(send(address, int(port), int(spread), float(rate), float(seconds)))
            continue
        counter = Counter(int(words[0]))
        _say({"listening": int(words[0])})
        # Nothing is taken while packets flow: the queue is large enough for seconds of them, and
        # the gateways have the CPUs for themselves.
        sys.stdin.readline()
        _say({"counted": counter.rest()})


if __name__ == "__main__":
    main(sys.argv[1])
