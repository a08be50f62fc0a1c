"""Asks a SOCKS server, in the words of RFC 1928 and of draft-kitamura-socks-ipv6-01.

    python asksocks.py '{"proxy": ..., "command": "connect", "target": ..., "port": ..., ...}'

It shares no code with the library.  ``command``: connect, bind, udp, associate or talk, which is a
connect whose lines come from the standard input, and what is heard goes to the standard output.
``target``: an address, a name, or "id:" and the digits of an ADDRESS ID; ``with_id``: it is
associated first, and its ID used from then on; ``combined``: in the same request.  ``flag``,
``preference``: those of the draft.  ``user`` and ``password``; ``words``: what is said to the
destination; ``patience``: seconds for each answer.

Prints one JSON object: ``code`` (REP, or ``silent``, ``refused``, ``closed``, ``error``), ``ms``
until then, ``kind``, ``bound`` (or ``id``) and ``port`` of the last reply (4, 6, name, id);
``heard``; ``header``, octets of the header of what was heard by UDP.  For bind, "listening ADDRESS
PORT" comes before that.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import threading
import time
from ipaddress import ip_address
from typing import Any

COMMANDS = {"connect": 1, "talk": 1, "bind": 2, "udp": 3, "associate": 8}
COMBINED = 8
PASSWORD_METHOD = 2
V4, NAME, V6, ID = 1, 3, 4, 8


class Answered(Exception):  # noqa: N818  (it names the fact)
    """It is over: ``code`` says how."""

    def __init__(self, code: int | str) -> None:
        super().__init__(str(code))
        self.code = code


def address(text: str | bytes) -> bytes:
    """ATYP and address; octets are an ADDRESS ID."""
    if isinstance(text, bytes):
        return bytes([ID]) + text
    try:
        packed = ip_address(text).packed
    except ValueError:
        octets = text.encode()
        return bytes([NAME, len(octets)]) + octets
    return bytes([V4 if len(packed) == 4 else V6]) + packed


def exactly(connection: socket.socket, count: int) -> bytes:
    octets = b""
    while len(octets) < count:
        more = connection.recv(count - len(octets))
        if not more:
            raise Answered("closed")
        octets += more
    return octets


def read_address(take: Any) -> tuple[str, Any]:
    """Its kind, and an address, a name or the octets of an ID; ``take`` gives so many octets."""
    (kind,) = take(1)
    if kind in (V4, V6):
        return ("4" if kind == V4 else "6"), str(ip_address(take(4 if kind == V4 else 16)))
    if kind == NAME:
        return "name", take(take(1)[0]).decode()
    if kind == ID:
        return "id", take(4)
    raise Answered("error")


class Asking:
    """One connection to the server."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.order = order
        self.seen: dict[str, Any] = {}
        place = (order["proxy"], order.get("at", 1080))
        self.connection = socket.create_connection(place, order.get("patience", 5.0))
        self.greet()

    def greet(self) -> None:
        user = self.order.get("user", "").encode()
        method = PASSWORD_METHOD if user else 0
        self.connection.sendall(bytes([5, 1, method]))
        if exactly(self.connection, 2) != bytes([5, method]):
            raise Answered("no method")
        if not user:
            return
        word = self.order["password"].encode()
        self.connection.sendall(bytes([1, len(user)]) + user + bytes([len(word)]) + word)
        if exactly(self.connection, 2) != bytes([1, 0]):
            raise Answered("wrong password")

    def ask(self, command: int, to: str | bytes, port: int) -> Any:
        """One request and its reply; returns what the reply names."""
        head = bytes([5, command, self.order.get("flag", 0)])
        self.connection.sendall(head + address(to) + struct.pack("!H", port))
        return self.reply()

    def reply(self) -> Any:
        _, code, _ = exactly(self.connection, 3)
        kind, bound = read_address(lambda count: exactly(self.connection, count))
        (port,) = struct.unpack("!H", exactly(self.connection, 2))
        self.seen |= {"kind": kind, "port": port, "bound": "" if kind == "id" else bound}
        if kind == "id":
            self.seen["id"] = bound.hex()
        if code:
            raise Answered(code)
        return bound

    def say(self) -> None:
        if self.order.get("words"):
            self.connection.sendall(f"{self.order['words']}\n".encode())
            self.seen["heard"] = self.connection.makefile().readline().strip()

    def connect(self, to: str | bytes) -> None:
        self.ask(COMMANDS["connect"] | self.combined, to, self.order["port"])
        self.say()

    @property
    def combined(self) -> int:
        return COMBINED if self.order.get("combined") else 0

    def bind(self, to: str | bytes) -> None:
        bound = self.ask(COMMANDS["bind"] | self.combined, to, self.order["port"])
        where = bound if isinstance(bound, str) else "unknown"
        print("listening", where, self.seen["port"], flush=True)
        self.reply()
        self.seen["heard"] = self.connection.makefile().readline().strip()
        self.connection.sendall(f"{self.order['words']}: {self.seen['heard']}\n".encode())

    def udp(self, to: str | bytes) -> None:
        own = self.connection.getsockname()
        with socket.socket(self.connection.family, socket.SOCK_DGRAM) as sock:
            sock.settimeout(self.order.get("patience", 5.0))
            sock.bind((own[0], 0))
            declared, port = (to if self.combined else own[0]), sock.getsockname()[1]
            bound = self.ask(COMMANDS["udp"] | self.combined, declared, port)
            to = bound if isinstance(bound, bytes) else to
            relay = (self.connection.getpeername()[0], self.seen["port"])
            head = bytes(3) + address(to) + struct.pack("!H", self.order["port"])
            sock.sendto(head + self.order["words"].encode(), relay)
            octets = sock.recv(65535)
            rest = memoryview(octets)[3:]

            def take(count: int) -> bytes:
                nonlocal rest
                taken, rest = bytes(rest[:count]), rest[count:]
                return taken

            kind, _ = read_address(take)
            take(2)
            heard = bytes(rest)
            self.seen |= {
                "heard": heard.decode(), "header": len(octets) - len(heard), "answered_as": kind
            }  # fmt: skip

    def associate(self, to: str | bytes) -> None:
        self.ask(COMMANDS["associate"], to, self.order.get("preference", 0))

    def talk(self, to: str | bytes) -> None:
        self.ask(COMMANDS["connect"], to, self.order["port"])
        print(json.dumps({"code": 0, **self.seen}), flush=True)

        def listen() -> None:
            try:
                for line in self.connection.makefile():
                    print(line.strip(), flush=True)
                print("ended", flush=True)
            except OSError as error:
                print("broken:", error.strerror, flush=True)

        self.connection.settimeout(None)
        threading.Thread(target=listen, daemon=True).start()
        for line in sys.stdin:
            try:
                self.connection.sendall(line.encode())
            except OSError as error:
                print("broken:", error.strerror, flush=True)

    def do(self) -> None:
        to: str | bytes = self.order["target"]
        if self.order["target"].startswith("id:"):
            to = bytes.fromhex(self.order["target"][3:])
        if self.order.get("with_id"):
            to = self.ask(COMMANDS["associate"], to, 0)
        getattr(self, self.order["command"])(to)


def main(order: dict[str, Any]) -> dict[str, Any]:
    began = time.monotonic()
    seen: dict[str, Any] = {}
    code: int | str = 0
    try:
        asking = Asking(order)
        seen = asking.seen
        asking.do()
    except Answered as answered:
        code = answered.code
    except TimeoutError:
        code = "silent"
    except ConnectionRefusedError:
        code = "refused"
    except ConnectionResetError:
        code = "closed"
    except (OSError, ValueError) as error:
        code, seen = "error", {**seen, "error": str(error)}
    return {"code": code, "ms": round(1000 * (time.monotonic() - began)), **seen}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))), flush=True)
