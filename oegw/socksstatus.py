"""The state of the SOCKS server: asked over its Unix socket, and as text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from oegw.control import ControlError, request
from oegw.status import plain

STATUS_SECONDS = 10.0

Row = Mapping[str, Any]


def status(path: Path, timeout: float = STATUS_SECONDS) -> dict[str, Any]:
    """What the server at the Unix socket ``path`` says of itself
    (`oegw.socks5.server.service.Server.snapshot`).

    Raises ControlError; NotPermittedError for who is not root.
    """
    for answer in request(path, {"do": "status"}, timeout):
        found = answer.get("status")
        if isinstance(found, dict):
            return found
        raise ControlError(f"{path}: {plain(answer.get('text', 'no status'))}")
    raise ControlError(f"{path}: no answer")
