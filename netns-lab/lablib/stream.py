"""A steady stream of numbered UDP datagrams, each of which is to come back.

Runs on two hosts, started by the lab: ``python3 stream.py echo ADDRESS PORT`` returns what
it gets; ``python3 stream.py send ADDRESS PORT RATE SECONDS PAYLOAD`` sends RATE datagrams a
second by the clock, however long an answer takes, waits a second for the last
ones and prints one JSON object: ``sent``, ``answered`` and ``rate`` (measured).
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time

LAST_WAIT = 1.0  # seconds for the last answers


def _socket(address: str) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)


def echo(address: str, port: int) -> None:
    with _socket(address) as sock:
        sock.bind((address, port))
        print("bound", flush=True)
        while True:
            octets, sender = sock.recvfrom(65535)
            sock.sendto(octets, sender[:2])


def send(address: str, port: int, rate: float, seconds: float, payload: bytes) -> None:
    total, sent = round(rate * seconds), 0
    answered: set[int] = set()
    with _socket(address) as sock:
        sock.connect((address, port))
        start = last = time.monotonic()
        while sent < total or (len(answered) < total and time.monotonic() < last + LAST_WAIT):
            due = start + sent / rate if sent < total else last + LAST_WAIT
            wait = max(0.0, due - time.monotonic())
            if select.select([sock], [], [], wait)[0]:
                answered.add(int.from_bytes(sock.recv(65535)[:4], "big"))
            elif sent < total:
                sock.send(sent.to_bytes(4, "big") + payload)
                sent, last = sent + 1, time.monotonic()
    rate = (sent - 1) / (last - start) if sent > 1 else 0.0
    print(json.dumps({"sent": sent, "answered": len(answered), "rate": rate}), flush=True)


def main() -> None:
    what, address, port, *rest = sys.argv[1:]
    if what == "echo":
        echo(address, int(port))
    else:
        rate, seconds, payload = rest
        send(address, int(port), float(rate), float(seconds), payload.encode())


if __name__ == "__main__":
    main()
