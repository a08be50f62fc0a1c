"""The two ends of a proxied connection, as programs that cost little beside the server.

    socks_load.py destination BULK-PORT ANSWER-PORT
    socks_load.py bulk PROXY PORT DESTINATION PORT CONNECTIONS SECONDS
    socks_load.py rate PROXY PORT DESTINATION PORT CONNECTIONS SECONDS
    socks_load.py idle PROXY PORT DESTINATION PORT CONNECTIONS

``destination`` sends without end to who connects to its first port, and answers an octet with one,
and closes, on its second.  The others speak SOCKS 5 with a server, step by step (not every server
takes what comes early), and write one line of JSON for their measurement.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from collections.abc import Callable
from ipaddress import ip_address

CHUNK = 256 * 1024
WARM = 0.5  # seconds before octets are counted
GREETING = b"\5\1\0"


def family_of(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def destination(bulk: int, answer: int) -> None:
    octets = memoryview(bytes(CHUNK))
    poll = select.epoll()
    listening = {}
    for port in (bulk, answer):
        sock = socket.create_server(
            ("::", port), family=socket.AF_INET6, backlog=4096, dualstack_ipv6=True
        )
        sock.setblocking(False)
        listening[sock.fileno()] = sock
        poll.register(sock, select.EPOLLIN)
    connected: dict[int, tuple[socket.socket, bool]] = {}
    print("ready", flush=True)
    while True:
        for number, what in poll.poll():
            if number in listening:
                sender = listening[number].getsockname()[1] == bulk
                while True:
                    try:
                        sock, _ = listening[number].accept()
                    except BlockingIOError:
                        break
                    sock.setblocking(False)
                    connected[sock.fileno()] = (sock, sender)
                    poll.register(sock, select.EPOLLOUT if sender else select.EPOLLIN)
                continue
            sock, sender = connected[number]
            try:
                if what & (select.EPOLLHUP | select.EPOLLERR):
                    raise ConnectionResetError
                if sender:
                    sock.send(octets)
                    continue
                got = sock.recv(100)
                if got:
                    sock.send(got)
                raise ConnectionResetError  # it is answered: that was all
            except BlockingIOError:
                pass
            except OSError:
                del connected[number]
                sock.close()


class Conversation:
    """One connection through the proxy: the next octets to be sent, each when the former are
    answered."""

    def __init__(self, proxy: tuple[str, int], to: tuple[str, int], last: bytes) -> None:
        address = ip_address(to[0])
        request = b"\5\1\0" + (b"\1" if address.version == 4 else b"\4") + address.packed
        request += to[1].to_bytes(2)
        self.sock = socket.socket(family_of(proxy[0]))
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.connect_ex(proxy)
        self._steps = [(GREETING, 0), (request, 2), (last, 4)]
        self._step = 0
        self._got = b""
        self.established = False

    def ready(self) -> bool:
        """Something came, or it is connected.  True: all has been said."""
        awaited = self._steps[self._step][1]
        if awaited:
            self._got += self.sock.recv(100)
            if not self._got or self._got[0] != 5 or self._got[1] != 0:
                raise ConnectionRefusedError(f"refused: {self._got!r}")
            if awaited == 4:  # a reply: its address says how long it is
                awaited = 22 if self._got[3:4] == b"\4" else 10
            if len(self._got) < awaited:
                return False
            self._got = b""
        octets = self._steps[self._step][0]
        if octets:
            self.sock.send(octets)
        self._step += 1
        self.established = self._step == len(self._steps)
        return self.established


def establish(
    proxy: tuple[str, int], to: tuple[str, int], count: int, last: bytes = b""
) -> list[socket.socket]:
    poll = select.epoll()
    waiting: dict[int, Conversation] = {}
    made: list[socket.socket] = []
    begun = 0
    deadline = time.monotonic() + 120
    while len(made) < count:
        while begun < count and len(waiting) < 64:
            each = Conversation(proxy, to, last)
            waiting[each.sock.fileno()] = each
            poll.register(each.sock, select.EPOLLOUT)
            begun += 1
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(made)} of {count} connections")
        for number, _ in poll.poll(1.0):
            each = waiting[number]
            if each.ready():
                del waiting[number]
                poll.unregister(number)
                made.append(each.sock)
            else:
                poll.modify(number, select.EPOLLIN)
    return made


def bulk(proxy: tuple[str, int], to: tuple[str, int], count: int, seconds: float) -> None:
    poll = select.epoll()
    socks = {sock.fileno(): sock for sock in establish(proxy, to, count)}
    for number in socks:
        poll.register(number, select.EPOLLIN)
    buffer = bytearray(CHUNK)
    octets = 0
    each: dict[int, int] = dict.fromkeys(socks, 0)
    start = time.monotonic() + WARM
    end = start + seconds
    counting = False
    print("counting", flush=True)
    while (now := time.monotonic()) < end:
        if not counting and now >= start:
            counting, octets, start = True, 0, now
            each = dict.fromkeys(socks, 0)
        for number, _ in poll.poll(0.1):
            count = socks[number].recv_into(buffer)
            if not count:
                raise ConnectionResetError("the server closed a connection")
            octets += count
            each[number] += count
    took = time.monotonic() - start
    least, most = min(each.values()), max(each.values())
    print(json.dumps({"gbits": octets * 8 / took / 1e9, "least": least / max(most, 1)}))


def rate(proxy: tuple[str, int], to: tuple[str, int], count: int, seconds: float) -> None:
    """``count`` connections at a time: established, an octet there, one back, closed."""
    poll = select.epoll()
    waiting: dict[int, Conversation] = {}
    done = 0
    start = time.monotonic()
    print("counting", flush=True)
    while (now := time.monotonic()) < start + seconds:
        while len(waiting) < count:
            new = Conversation(proxy, to, b"x")
            waiting[new.sock.fileno()] = new
            poll.register(new.sock, select.EPOLLOUT)
        for number, _ in poll.poll(1.0):
            each = waiting[number]
            if each.established:
                if each.sock.recv(10) != b"x":
                    raise ConnectionResetError("no answer")
                done += 1
                del waiting[number]
                each.sock.close()
                continue
            before_input = each._step == 0
            each.ready()
            if before_input:
                poll.modify(number, select.EPOLLIN)
    print(json.dumps({"rate": done / (now - start), "done": done}))


def idle(proxy: tuple[str, int], to: tuple[str, int], count: int) -> None:
    held = establish(proxy, to, count)
    print(json.dumps({"held": len(held)}), flush=True)
    sys.stdin.read()


def main(role: str, *words: str) -> None:
    if role == "destination":
        destination(int(words[0]), int(words[1]))
        return
    proxy, to, count = (words[0], int(words[1])), (words[2], int(words[3])), int(words[4])
    if role == "idle":
        idle(proxy, to, count)
    else:
        work: Callable[[tuple[str, int], tuple[str, int], int, float], None]
        work = {"bulk": bulk, "rate": rate}[role]
        work(proxy, to, count, float(words[5]))


if __name__ == "__main__":
    main(*sys.argv[1:])
