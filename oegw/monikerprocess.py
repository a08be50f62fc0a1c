"""`oegw moniker serve`: from a configuration to the daemon.

`oegw run` starts this module as a process of its own (`monikerchild.py`).
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from oegw import config
from oegw.daemonconfiguration import child_main, load, trace_of
from oegw.moniker.daemon.serving import serve
from oegw.moniker.settings import MonikerSettings
from oegw.settings import Settings
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


def run(path: Path, parent: int | None = None) -> int:
    """Serve until SIGTERM, by the configuration at ``path``; returns the exit code.

    ``parent``: a pipe whose other end is the parent's; the daemon ends with it.

    Raises ConfigError, and OSError for a trace that can't be written.
    """
    settings = load(path)
    moniker, trace = settings_of(settings), trace_of(settings)
    return serve(moniker, trace, lambda: settings_of(load(path)), config.ConfigError, parent)


if __name__ == "__main__":
    sys.exit(child_main("moniker", run, sys.argv[1:]))
