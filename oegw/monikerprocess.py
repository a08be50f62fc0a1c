"""`oegw moniker serve` and `oegw moniker status`: from a configuration to the daemon, and back."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from oegw import config
from oegw.control import NotPermittedError, request
from oegw.moniker.daemon.serving import serve
from oegw.moniker.settings import MonikerSettings
from oegw.settings import DEFAULT_CONFIG, Settings
from oegw.trace import JsonTrace

STATUS_SECONDS = 10.0


def settings_of(settings: Settings) -> MonikerSettings:
    """``[moniker]``, with what it takes from other tables."""
    firewall = settings.moniker.firewall
    if not firewall.outside:
        firewall = replace(firewall, outside=settings.interfaces.outside)
    return replace(settings.moniker, firewall=firewall)


def _load(path: Path) -> Settings:
    """The usual settings where there is no file in the usual place.  Raises ConfigError."""
    if path == DEFAULT_CONFIG and not path.exists():
        return Settings()
    return config.load(path)


def run(path: Path) -> int:
    """Serve until SIGTERM, by the configuration at ``path``; returns the exit code.

    Raises ConfigError, and OSError for a trace that can't be written.
    """
    settings = _load(path)
    stream = None
    if settings.gateway.trace is not None:
        try:
            # Beside the gateway, which appends its lines to the same file.
            stream = settings.gateway.trace.open("a", encoding="utf-8")
        except OSError as error:
            reason = f"gateway.trace: {settings.gateway.trace}: {error.strerror}"
            raise OSError(error.errno, reason) from error
    return serve(
        settings_of(settings),
        JsonTrace(stream, time.time),
        lambda: settings_of(_load(path)),
        config.ConfigError,
    )


def status(path: Path) -> dict[str, Any]:
    """What the daemon at the Unix socket ``path`` says of itself.

    Raises ControlError; NotPermittedError for who is not root.
    """
    for answer in request(path, {"do": "status", "tag": 1}, STATUS_SECONDS):
        if answer.get("ok"):
            found: dict[str, Any] = answer["status"]
            return found
        raise NotPermittedError(f"{path}: {answer.get('text', 'no status')}")
    raise AssertionError("an answer without a line")  # `request` raises


def status_text(status: Mapping[str, Any]) -> str:
    """The same for people."""
    raise NotImplementedError
