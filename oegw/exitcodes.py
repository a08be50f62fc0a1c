"""How a command ends: its exit codes, and a failure that says why."""

from __future__ import annotations

FINE, FAILED, USAGE, CONFIGURATION, NO_DAEMON, NOT_PERMITTED = range(6)
INTERRUPTED = 130  # 128 + SIGINT, as shells have it
BROKEN_PIPE = 141  # 128 + SIGPIPE


class Failure(Exception):  # noqa: N818  (it names the fact)
    """A command could not do what it was asked for; ``lines`` say why."""

    def __init__(self, code: int, *lines: str) -> None:
        self.code = code
        self.lines = lines
        super().__init__(*lines)
