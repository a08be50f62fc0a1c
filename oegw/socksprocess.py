"""`oegw socks serve`: from a configuration to the SOCKS server.

`oegw run` starts this module as a process of its own (`sockschild.py`).
"""

from __future__ import annotations

import sys
from pathlib import Path

from oegw import config
from oegw.exitcodes import FAILED


def run(path: Path, parent: int | None = None) -> int:
    """Serve until SIGTERM, by the configuration at ``path``; returns the exit code.

    ``parent``: a pipe whose other end is the parent's; the server ends with it.

    Raises ConfigError, and OSError for a trace that can't be written.
    """
    raise NotImplementedError


def main(arguments: list[str]) -> int:
    """``arguments``: the configuration, and the number of the parent's pipe."""
    try:
        return run(Path(arguments[0]), int(arguments[1]))
    except (config.ConfigError, OSError) as error:
        print(f"oegw socks: {error}", file=sys.stderr)
        return FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
