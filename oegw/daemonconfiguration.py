"""What daemons that are processes of their own take from the gateway's configuration."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from oegw import config
from oegw.applyrecord import in_use
from oegw.exitcodes import FAILED
from oegw.powers.door import keep_little
from oegw.powers.dropping import PowerError
from oegw.settings import DEFAULT_CONFIG, Settings
from oegw.trace import JsonTrace
from oegw.tracefile import trace_file


def load(path: Path) -> Settings:
    """The usual settings where there is no file in the usual place; else those that the gateway
    goes by.  Raises ConfigError."""
    if path == DEFAULT_CONFIG and not path.exists():
        return Settings()
    return in_use(path).settings


def trace_of(settings: Settings) -> JsonTrace:
    """Beside the gateway's lines, in the same file.  Raises OSError."""
    return JsonTrace(trace_file(settings.gateway.trace, time.time), time.time)


def child_main(name: str, run: Callable[..., int], arguments: list[str]) -> int:
    """``arguments``, as `childprocess` writes them: the configuration, the numbers of the parent's
    pipe and of the door to the hands, and what only this program is told.  Returns the exit code.
    """
    try:
        if (door := int(arguments[2])) >= 0:
            keep_little(door)
        return run(Path(arguments[0]), int(arguments[1]), *arguments[3:])
    except (config.ConfigError, PowerError, OSError) as error:
        print(f"oegw {name}: {error}", file=sys.stderr)
        return FAILED
