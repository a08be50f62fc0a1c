"""Streams whose every octet is checked: runs in namespaces, by path, without the project.

    python datapath_streams.py serve PORT             answers one TCP connection after another
    python datapath_streams.py talk ADDRESS PORT OCTETS
    python datapath_streams.py hear PORT SEED
    python datapath_streams.py say ADDRESS PORT SEED COUNT RATE

``talk`` and ``serve`` send each other OCTETS at the same time (0: until ``end`` is read on
standard input), each with the SHA-256 of it behind it, and ``serve`` with an octet more, whether
what it heard was whole; ``talk`` prints what came of both directions.  ``progress`` on its input is
answered with the octets received.

``say`` sends numbered UDP datagrams of many sizes, RATE a second; ``hear`` knows from number and
seed what each must be, and says at ``end`` how many came, how many were other than sent, and how
many came twice.
"""

from __future__ import annotations

import hashlib
import json
import selectors
import socket
import sys
import threading
import time
from random import Random

BLOCK = 1 << 16
DIGEST = 32
_TRAILER = DIGEST + 1
_BASE = Random(9).randbytes(BLOCK - 8)  # it does not repeat within a block
SIZES = (0, 1, 16, 64, 256, 511, 512, 700, 1000, 1200, 1300, 1372)


class Talker:
    """One end of a connection.  At the end of a stream stand the hash of what was before, and
    whether the other stream was whole, as far as this end knew by then."""

    def __init__(self, connection: socket.socket, octets: int, answers: bool) -> None:
        self._connection = connection
        self._answers = answers  # it hears all, before it says its last
        self._octets = octets
        self.enough = threading.Event()
        self.sent = 0
        self.received = 0
        self.heard_whole = self.said_whole = False
        self.error = ""
        self._threads = [
            threading.Thread(target=self._guarded, args=(work,), daemon=True)
            for work in (self._send, self._receive)
        ]
        for thread in self._threads:
            thread.start()

    def wait(self) -> None:
        for thread in self._threads:
            thread.join()
        self._connection.close()

    def _guarded(self, work: object) -> None:
        try:
            work()  # type: ignore[operator]
        except OSError as error:
            self.error = str(error)
            self.enough.set()

    def _send(self) -> None:
        hashed, number = hashlib.sha256(), 0
        while not self.enough.is_set() and (not self._octets or self.sent < self._octets):
            block = number.to_bytes(8, "big") + _BASE
            if self._octets:
                block = block[: self._octets - self.sent]
            self._connection.sendall(block)
            hashed.update(block)
            self.sent, number = self.sent + len(block), number + 1
        if self._answers:
            self._threads[1].join()
        self._connection.sendall(hashed.digest() + bytes((self.heard_whole,)))
        self._connection.shutdown(socket.SHUT_WR)

    def _receive(self) -> None:
        hashed, tail, room = hashlib.sha256(), b"", bytearray(BLOCK * 4)
        view = memoryview(room)
        while count := self._connection.recv_into(view):
            self.received += count
            tail += view[:count]
            hashed.update(tail[:-_TRAILER])
            tail = tail[-_TRAILER:]
        self.received -= _TRAILER
        self.heard_whole = hashed.digest() == tail[:DIGEST]
        self.said_whole = tail[DIGEST:] == b"\1"
        if not self._octets:
            self.enough.set()  # the other has enough, and so have we


def serve(port: int) -> None:
    with socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        print("ready", flush=True)
        while True:
            connection, _ = server.accept()
            threading.Thread(target=_answer, args=(connection,), daemon=True).start()


def _answer(connection: socket.socket) -> None:
    octets = int.from_bytes(connection.recv(8, socket.MSG_WAITALL), "big")
    talker = Talker(connection, octets, answers=True)
    talker.wait()


def talk(address: str, port: int, octets: int) -> None:
    began = time.monotonic()
    connection = socket.create_connection((address, port), 30)
    connection.settimeout(60)
    connection.sendall(octets.to_bytes(8, "big"))
    talker = Talker(connection, octets, answers=False)

    def listen() -> None:
        for line in sys.stdin:
            if line == "progress\n":
                print(json.dumps({"progress": talker.received}), flush=True)
            if line == "end\n":
                talker.enough.set()

    threading.Thread(target=listen, daemon=True).start()
    talker.wait()
    said = {
        "whole": talker.heard_whole and talker.said_whole,
        "sent": talker.sent,
        "received": talker.received,
        "error": talker.error,
        "seconds": time.monotonic() - began,
    }
    print(json.dumps(said), flush=True)


def datagram(seed: int, number: int) -> bytes:
    head = number.to_bytes(4, "big")
    filling = hashlib.sha256(seed.to_bytes(4, "big") + head).digest()
    size = SIZES[filling[0] % len(SIZES)]
    return head + (filling * (size // DIGEST + 1))[:size]


def say(address: str, port: int, seed: int, count: int, rate: float) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as out:
        out.connect((address, port))
        start = time.monotonic()
        for number in range(count):
            wait = start + number / rate - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            try:
                out.send(datagram(seed, number))
            except OSError:  # an ICMP error, or a full queue: lost, as the network loses
                continue
    print(json.dumps({"said": count}), flush=True)


def hear(port: int, seed: int) -> None:
    heard: set[int] = set()
    wrong = again = 0
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as at:
        at.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        at.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        at.bind(("::", port))
        print("ready", flush=True)
        selector = selectors.DefaultSelector()
        selector.register(at, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is sys.stdin:
                    if sys.stdin.readline() == "progress\n":
                        print(json.dumps({"progress": len(heard)}), flush=True)
                        continue
                    said = {"heard": len(heard), "wrong": wrong, "again": again}
                    print(json.dumps(said), flush=True)
                    return
                octets = at.recv(65535)
                number = int.from_bytes(octets[:4], "big")
                wrong += octets != datagram(seed, number)
                again += number in heard
                heard.add(number)


def main() -> None:
    what, *words = sys.argv[1:]
    if what == "serve":
        serve(int(words[0]))
    elif what == "talk":
        talk(words[0], int(words[1]), int(words[2]))
    elif what == "hear":
        hear(int(words[0]), int(words[1]))
    else:
        say(words[0], int(words[1]), int(words[2]), int(words[3]), float(words[4]))


if __name__ == "__main__":
    main()
