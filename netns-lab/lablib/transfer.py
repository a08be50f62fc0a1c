"""A transfer by TCP that goes on until it is told to end: runs on two hosts, started by the lab.

    python3 transfer.py serve PORT                        sends numbered lines to whoever asks
    python3 transfer.py get ADDRESS PORT RATE FILE        RATE octets a second

The receiver checks every octet, and writes to FILE how many there were.  At SIGTERM it says that it
has enough, reads what is still under way up to the end, and prints how many octets came whole.
"""

from __future__ import annotations

import signal
import socket
import sys
import threading
import time
from pathlib import Path

LINE = b"oegw lab transfer, line %012d, %020d\n"
TURN = 0.05  # seconds between two portions


def lines(first: int, count: int) -> bytes:
    return b"".join(LINE % (n, n * 2654435761) for n in range(first, first + count))


def serve(port: int) -> None:
    with socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        print("listening", flush=True)
        while True:
            caller, _ = server.accept()
            threading.Thread(target=_send, args=(caller,), daemon=True).start()


def _send(caller: socket.socket) -> None:
    rate, number = int(caller.recv(100)), 0
    portion = max(1, int(rate * TURN / len(LINE % (0, 0))))
    enough = threading.Event()

    def listen() -> None:
        caller.recv(1)  # the end
        enough.set()

    threading.Thread(target=listen, daemon=True).start()
    while not enough.is_set():
        caller.sendall(lines(number, portion))
        number += portion
        time.sleep(TURN)
    caller.close()


def get(address: str, port: int, rate: int, file: Path) -> int:
    with socket.create_connection((address, port), 10) as server:
        server.settimeout(60)
        server.sendall(b"%d\n" % rate)
        signal.signal(signal.SIGTERM, lambda *_: server.shutdown(socket.SHUT_WR))
        length, rest, number, octets, told = len(LINE % (0, 0)), b"", 0, 0, 0.0
        while more := server.recv(1 << 16):
            octets += len(more)
            rest += more
            whole = len(rest) // length
            if rest[: whole * length] != lines(number, whole):
                raise SystemExit(f"other octets than were sent, near {octets}")
            number, rest = number + whole, rest[whole * length :]
            if time.monotonic() - told > TURN:
                file.with_suffix(".new").write_text(str(octets))
                file.with_suffix(".new").replace(file)
                told = time.monotonic()
    if rest:
        raise SystemExit(f"it broke off within a line, after {octets} octets")
    return octets


if __name__ == "__main__":
    what, *words = sys.argv[1:]
    if what == "serve":
        serve(int(words[0]))
    else:
        print(f"whole: {get(words[0], int(words[1]), int(words[2]), Path(words[3]))} octets")
