"""Waiting for what another process brings about, with a deadline."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

PATIENCE = 15.0  # seconds


def accepts(connect: Callable[[], None], process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a connection succeeds; a program that ended meanwhile is told with its words."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            connect()
        except OSError:
            text = log.read_text(errors="replace")[-3000:]
            assert process.poll() is None, f"ended with {process.returncode}:\n{text}"
            assert time.monotonic() < deadline, f"nobody listens:\n{text}"
            time.sleep(0.02)
        else:
            return
