"""`oegw moniker serve` and `oegw moniker status`: from a configuration to the daemon, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from oegw.moniker.settings import MonikerSettings


def settings_of(path: Path) -> MonikerSettings:
    """``[moniker]`` of the file at ``path``, with what it takes from other tables; the defaults if
    the file is `DEFAULT_CONFIG` and is not there.  Raises ConfigError."""
    raise NotImplementedError


def run(path: Path) -> int:
    """Serve until SIGTERM, by the configuration at ``path``; returns the exit code.

    Raises ConfigError.
    """
    raise NotImplementedError


def status(path: Path) -> dict[str, Any]:
    """What the daemon at the Unix socket ``path`` says of itself.  Raises ControlError."""
    raise NotImplementedError


def status_text(status: dict[str, Any]) -> str:
    """The same for people."""
    raise NotImplementedError
