"""`oegw metrics`: serves until SIGTERM, or prints once."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from oegw.control import ControlError, NotPermittedError, request
from oegw.exitcodes import FAILED, FINE, NO_DAEMON, NOT_PERMITTED, Failure
from policy.flow import IPAddress

ANSWER_SECONDS = 8.0  # Prometheus gives up after 10


class _Gateway:
    """Asked over its control socket; what goes wrong is said once, and when it is over.

    ``code``: of the last answer, as a command ends.
    """

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._told = ""
        self.code = FINE

    def __call__(self) -> dict[str, Any] | None:
        answer: dict[str, Any] = {}
        problem, self.code = "", FINE
        try:
            message = {"command": "overview", "neighbours": True}
            for line in request(self._socket, message, ANSWER_SECONDS):
                answer |= line
            problem = str(answer.get("error", ""))
            self.code = FAILED if problem else FINE
        except ControlError as error:
            problem = str(error)
            forbidden = isinstance(error, NotPermittedError)
            self.code = NOT_PERMITTED if forbidden else NO_DAEMON
        if problem != self._told:
            said = problem or f"{self._socket}: the gateway answers again"
            print(f"oegw: metrics: {said}", file=sys.stderr, flush=True)
            self._told = problem
        return None if problem else answer


def print_once(socket: Path) -> int:
    """The text of one scrape; that nobody answers is a number in it, and the exit code."""
    gateway = _Gateway(socket)
    print(_collector().text(gateway), end="")
    return gateway.code


def serve(socket: Path, address: IPAddress, port: int) -> int:
    """Until SIGTERM or SIGINT.  Raises Failure if the port can't be had."""
    collector = _collector()
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    where = f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
    try:
        end: Callable[[], None] = collector.listen(_Gateway(socket), address, port)
    except OSError as error:
        raise Failure(FAILED, f"metrics: {where}: {error.strerror or error}") from error
    print(f"oegw: metrics: http://{where}/metrics", file=sys.stderr, flush=True)
    while not stopping.wait(3600):
        pass
    end()
    return FINE


def _collector() -> ModuleType:
    """Raises Failure where the optional package is missing."""
    try:
        from oegw.metrics import collector
    except ImportError as error:
        reason = f"metrics: {error.name} is missing; pip install 'oegw[metrics]' brings it"
        raise Failure(FAILED, reason) from error
    return collector
