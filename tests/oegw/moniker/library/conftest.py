"""A host with its daemon, on the loopback addresses and in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from oegw import moniker
from oegw.moniker.daemon.service import Daemon
from oegw.moniker.library import client
from oegw.moniker.settings import MonikerSettings
from oegw.trace import JsonTrace

LOOPBACK = (ip_address("127.0.0.1"), ip_address("::1"))
PATIENCE = 20.0  # seconds for what takes a moment, on a machine with other work


class Host:
    """Verbs for its daemon; ``serve``, ``connect`` and ``resolve`` as this host's applications."""

    def __init__(self, folder: Path) -> None:
        self.settings = MonikerSettings(
            port=0, addresses=LOOPBACK, socket=folder / "moniker.sock", queries=10000.0
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._daemon: Daemon | None = None

    @property
    def daemon(self) -> Path:
        return self.settings.socket

    @property
    def port(self) -> int:
        return self.settings.port

    def start(self, **changes: Any) -> None:
        self.settings = replace(self.settings, **changes)
        self._daemon = Daemon(self.settings, JsonTrace(None, time.time))
        self._call(self._daemon.start())
        self.settings = replace(self.settings, port=self._daemon.port)

    def stop(self) -> None:
        if self._daemon is not None:
            self._call(self._daemon.close())
            self._daemon = None

    def close(self) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def serve(self, name: str, **options: Any) -> moniker.Service:
        return moniker.serve(name, daemon=self.daemon, **options)

    def connect(self, host: str, name: str, **options: Any) -> moniker.Session:
        return moniker.connect(host, name, question_port=self.port, daemon=self.daemon, **options)

    def resolve(self, host: str, name: str, **options: Any) -> moniker.Resolved:
        return moniker.resolve(host, name, question_port=self.port, daemon=self.daemon, **options)

    def registered(self) -> list[str]:
        """What the daemon has, as text."""
        assert self._daemon is not None
        entries = self._daemon.registry.entries()
        return sorted(f"{e.service.service}@{e.service.version}" for e in entries)

    def _call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(PATIENCE)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    client.answers.forget_all()
    host = Host(tmp_path)
    try:
        host.start()
        yield host
    finally:
        host.close()


@pytest.fixture
def soon() -> Callable[[Callable[[], Any]], None]:
    """Waits until something is so."""

    def wait(condition: Callable[[], Any]) -> None:
        until = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < until, "it did not become so"
            time.sleep(0.005)

    return wait
