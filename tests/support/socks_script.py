"""A SOCKS server that says what a test wrote down, and wants to hear what it wrote down."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from oegw.socks5.client.proxy import Proxy

SECONDS = 10.0


@dataclass(frozen=True)
class Heard:
    """Octets that the client has to send, in hexadecimal digits; ``??``: any octet."""

    digits: str

    def fits(self, octets: bytes) -> bool:
        pairs = self._pairs()
        return len(octets) == len(pairs) and all(
            pair in ("??", f"{octet:02x}") for pair, octet in zip(pairs, octets, strict=True)
        )

    def __len__(self) -> int:
        return len(self._pairs())

    def _pairs(self) -> list[str]:
        digits = "".join(self.digits.split())
        return [digits[each : each + 2] for each in range(0, len(digits), 2)]


@dataclass(frozen=True)
class Said:
    """``one_by_one``: each octet in a segment of its own."""

    digits: str
    one_by_one: bool = False


Step = Heard | Said


class Script:
    """Plays ``steps`` for one client, and closes the connection."""

    def __init__(self, *steps: Step, stays: bool = False) -> None:
        self.problem: str | None = None
        self.played = threading.Event()  # all steps
        self.over = threading.Event()
        self._stays = stays
        self._steps = steps
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.settimeout(SECONDS)
        self.port: int = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._play, daemon=True)
        self._thread.start()

    def proxy(self, **more: object) -> Proxy:
        return Proxy("127.0.0.1", self.port, **more)  # type: ignore[arg-type]

    def _play(self) -> None:
        with self._listening:
            connection, _ = self._listening.accept()
        with connection:
            connection.settimeout(SECONDS)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
            try:
                for step in self._steps:
                    self._do(step, connection)
            except OSError as error:
                self.problem = f"{step}: {error}"
            self.played.set()
            if self._stays:
                self.over.wait(SECONDS)

    def _do(self, step: Step, connection: socket.socket) -> None:
        match step:
            case Said(digits, True):
                for each in bytes.fromhex(digits):
                    connection.sendall(bytes([each]))
            case Said(digits):
                connection.sendall(bytes.fromhex(digits))
            case Heard(digits):
                heard = b""
                while len(heard) < len(step):
                    more = connection.recv(len(step) - len(heard))
                    if not more:
                        break
                    heard += more
                if not step.fits(heard):
                    self.problem = f"heard {heard.hex(' ')}, not {digits}"

    def end(self) -> None:
        self.over.set()
        self._thread.join(SECONDS)
        assert not self._thread.is_alive(), "the client never came, or never went on"
        assert self.problem is None, self.problem


@contextmanager
def scripted(*steps: Step, stays: bool = False) -> Iterator[Script]:
    """``stays``: the connection is kept until the test is over."""
    script = Script(*steps, stays=stays)
    yield script
    script.end()
