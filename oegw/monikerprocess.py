"""`oegw moniker serve`: from a configuration to the daemon.

`oegw run` starts this module as a process of its own (`monikerchild.py`).
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

from oegw import config
from oegw.exitcodes import FAILED
from oegw.moniker.daemon.serving import serve
from oegw.moniker.settings import MonikerSettings
from oegw.settings import DEFAULT_CONFIG, Settings
from oegw.trace import JsonTrace
from policy.flow import IPAddress


def settings_of(settings: Settings) -> MonikerSettings:
    """``[moniker]``, with what it takes from this box.  Raises ConfigError."""
    firewall = settings.moniker.firewall
    if firewall.deny and not firewall.outside:
        outside = _outside(settings.gateway.addresses)
        return replace(settings.moniker, firewall=replace(firewall, outside=outside))
    return settings.moniker


def _outside(addresses: tuple[IPAddress, ...]) -> tuple[str, ...]:
    """The interfaces of default routes.  Raises ConfigError."""
    from oegw.environment import UnsuitableBox, survey  # takes a while, and room, to import

    try:
        return survey((), addresses).outside
    except UnsuitableBox as error:
        raise config.ConfigError([f"moniker.firewall.outside: {error}"]) from error


def _load(path: Path) -> Settings:
    """The usual settings where there is no file in the usual place.  Raises ConfigError."""
    if path == DEFAULT_CONFIG and not path.exists():
        return Settings()
    return config.load(path)


def run(path: Path, parent: int | None = None) -> int:
    """Serve until SIGTERM, by the configuration at ``path``; returns the exit code.

    ``parent``: a pipe whose other end is the parent's; the daemon ends with it.

    Raises ConfigError, and OSError for a trace that can't be written.
    """
    settings = _load(path)
    moniker = settings_of(settings)
    stream = None
    if settings.gateway.trace is not None:
        try:
            # The gateway appends its lines to the same file; each line is one write.
            stream = settings.gateway.trace.open("a", encoding="utf-8")
        except OSError as error:
            reason = f"gateway.trace: {settings.gateway.trace}: {error.strerror}"
            raise OSError(error.errno, reason) from error
    trace = JsonTrace(stream, time.time)
    return serve(moniker, trace, lambda: settings_of(_load(path)), config.ConfigError, parent)


def main(arguments: list[str]) -> int:
    """``arguments``: the configuration, and the number of the parent's pipe."""
    try:
        return run(Path(arguments[0]), int(arguments[1]))
    except (config.ConfigError, OSError) as error:
        print(f"oegw moniker: {error}", file=sys.stderr)
        return FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
