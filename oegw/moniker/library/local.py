"""One request to the daemon of this host, and its answer (`localwire`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from oegw.moniker.settings import DEFAULT_SOCKET


def ask_daemon(
    request: dict[str, Any], *, daemon: Path = DEFAULT_SOCKET, timeout: float = 2.0
) -> dict[str, Any]:
    """The answer's object, if it is ``ok``.  For ``list``, ``resolve``, ``policy``, ``status``.

    Raises DaemonAbsent, RegistrationRefused.
    """
    raise NotImplementedError
