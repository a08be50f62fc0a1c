"""A control server in a thread of its own, as a client sees a daemon."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from oegw.control import Answer, ControlServer


@contextmanager
def serving(path: Path, answers: Answer) -> Iterator[None]:
    """``answers`` yields the lines of the answer to a request."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def run(work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, loop).result(10)

    server = ControlServer(path, answers)
    try:
        run(server.start())
        try:
            yield
        finally:
            run(server.close())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
