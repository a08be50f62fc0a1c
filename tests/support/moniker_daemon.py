"""A whole daemon on loopback addresses; applications and askers that know only the protocols."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from oegw.moniker.daemon.service import Daemon
from oegw.moniker.settings import MonikerSettings
from oegw.trace import JsonTrace

PATIENCE = 10.0  # seconds; what takes longer has failed, on a busy machine too
NONCE = "0123456789abcdef"


class RunningDaemon:
    """``trace``: its counters; ``lines``: what it traced."""

    def __init__(self, settings: MonikerSettings) -> None:
        self.settings = settings
        self.trace = JsonTrace(None, time.time)
        self.lines: list[dict[str, Any]] = []
        self.trace.listeners.append(lambda line: self.lines.append(dict(line)))
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        try:
            self.daemon = self.run(self._made())
        except BaseException:
            self._stop()
            raise

    async def _made(self) -> Daemon:
        daemon = Daemon(self.settings, self.trace)
        await daemon.start()
        return daemon

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """The result of something that has to be done in the daemon's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(PATIENCE)

    def close(self) -> None:
        self.run(self.daemon.close())
        self._stop()

    def _stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(PATIENCE)
        self.loop.close()

    # -------------------------------------------------------------------- asked

    @property
    def port(self) -> int:
        return self.daemon.port

    def stream(self, host: str = "127.0.0.1", source: str | None = None) -> socket.socket:
        """A connection to its port."""
        bound = None if source is None else (source, 0)
        return socket.create_connection((host, self.port), PATIENCE, bound)

    def says(self, line: str | bytes, host: str = "127.0.0.1", source: str | None = None) -> str:
        """All that it says to a line over TCP, until it ends the connection."""
        with self.stream(host, source) as connection:
            connection.sendall(line.encode() + b"\r\n" if isinstance(line, str) else line)
            return all_of(connection).decode()

    def answer(self, service: str, **more: str) -> str:
        """The answer to a question over TCP, without its protocol and nonce."""
        return self.says(question(service, **more)).removesuffix("\r\n").split(" ", 1)[1].replace(
            f" {NONCE}", "", 1
        )  # fmt: skip

    def application(self) -> Application:
        return Application(self.settings.socket)

    def counted(self, trigger: str) -> int:
        """How often something was dropped under a name."""
        return self.trace.counters[f"moniker.drop.{trigger}"]


@contextmanager
def running(directory: Path, **settings: Any) -> Iterator[RunningDaemon]:
    """A daemon with its socket in ``directory``, at a free port of the loopback addresses."""
    usual: dict[str, Any] = {"port": 0, "socket": directory / "moniker.sock", "queries": 1e6}
    daemon = RunningDaemon(MonikerSettings(**(usual | settings)))
    try:
        yield daemon
    finally:
        daemon.close()


class Application:
    """A process that registers, with one connection to the daemon's socket."""

    def __init__(self, path: Path) -> None:
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.settimeout(PATIENCE)
        self.connection.connect(str(path))
        self.bound: list[socket.socket] = []
        self._rest = b""
        self._tag = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self.connection.close()
        for each in self.bound:
            each.close()

    def ask(self, do: str, *sockets: socket.socket, **fields: Any) -> dict[str, Any]:
        """The answer to a request."""
        self._tag += 1
        line = json.dumps({"do": do, "tag": self._tag, **fields}).encode() + b"\n"
        socket.send_fds(self.connection, [line], [each.fileno() for each in sockets])
        answer = self.read()
        assert answer.pop("tag") == self._tag
        return answer

    def register(
        self, service: str, version: str = "1", *, bound: socket.socket | None = None, **fields: Any
    ) -> dict[str, Any]:
        """The answer; without a socket, one of both families is bound for it and kept."""
        if bound is None:
            bound = bound_socket()
            self.bound.append(bound)
        return self.ask("register", bound, service=service, version=version, **fields)

    def read(self) -> dict[str, Any]:
        while b"\n" not in self._rest:
            octets = self.connection.recv(65536)
            if not octets:
                raise EOFError("the daemon ended the connection")
            self._rest += octets
        line, _, self._rest = self._rest.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found


def bound_socket(
    host: str = "::", kind: int = socket.SOCK_STREAM, *, listening: bool = False
) -> socket.socket:
    """A socket with a free port; ``::`` is of both families."""
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind)
    if host == "::":
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    made.bind((host, 0))
    if listening:
        made.listen(16)
    return made


def port_of(bound: socket.socket) -> int:
    port: int = bound.getsockname()[1]
    return port


def question(
    service: str, *, transport: str = "*", namespace: str = "-", versions: str = "*",
    nonce: str = NONCE,
) -> str:  # fmt: skip
    return f"MON/1 Q {nonce} {transport} {namespace} {service} {versions}"


def all_of(connection: socket.socket) -> bytes:
    """What comes until the end, or a reset."""
    found = b""
    with suppress(ConnectionResetError):
        while octets := connection.recv(65536):
            found += octets
    return found


def until(condition: Callable[[], bool], patience: float = PATIENCE) -> None:
    """Wait for a condition that another thread or process brings about."""
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.002)
