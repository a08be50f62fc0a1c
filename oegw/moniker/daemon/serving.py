"""The process of the daemon: signals, and its end."""

from __future__ import annotations

from collections.abc import Callable

from oegw.moniker.settings import MonikerSettings
from oegw.trace import Trace


def serve(settings: MonikerSettings, trace: Trace, load: Callable[[], MonikerSettings]) -> int:
    """Serve until SIGTERM or SIGINT; SIGHUP reads the settings again by ``load``.

    Returns the exit code: 0, or 1 if it could not start.
    """
    raise NotImplementedError
