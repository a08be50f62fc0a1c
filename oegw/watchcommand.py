"""`oegw watch`: the trace of a running gateway on standard output, a line as it happens."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from oegw.control import NoDaemonError, request
from oegw.exitcodes import FAILED, FINE, Failure
from oegw.watching import HEARTBEAT

PATIENCE = 3 * HEARTBEAT  # seconds without a sign of life


def watch(socket: Path, categories: list[str], address: str | None) -> int:
    """Print until the reader has enough, or the gateway ends.  Raises Failure, ControlError."""
    if sys.stdout is None:
        raise Failure(FAILED, "watch: standard output is closed")
    message = {"command": "watch", "categories": categories, "address": address}
    heard = False
    try:
        for answer in request(socket, message, PATIENCE):
            heard = True
            if "error" in answer:
                raise Failure(FAILED, str(answer["error"]))
            if (line := _line(answer)) is not None:
                print(json.dumps(line), flush=True)
    except NoDaemonError as error:
        if not heard:
            raise
        raise NoDaemonError(f"{error}; the gateway has ended, or nobody read for long") from error
    return FINE


def _line(answer: dict[str, Any]) -> dict[str, Any] | None:
    """What is printed for a line of the answer."""
    if "lost" in answer:
        return {
            "time": answer.get("time"), "category": "watch", "event": "lost",
            "lines": answer["lost"],
        }  # fmt: skip
    line = answer.get("line")
    return line if isinstance(line, dict) else None
