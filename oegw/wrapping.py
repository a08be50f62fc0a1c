"""Commands that run in our place, as `env` or `timeout` run one: signals, exit codes, exec."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NoReturn

# Specification: POSIX, "Exit Status for Commands".
NOT_EXECUTABLE, NOT_FOUND = 126, 127
KILLED = 128  # and the number of the signal

FORWARDED = (
    signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2,
    signal.SIGALRM, signal.SIGWINCH, signal.SIGCONT,
)  # fmt: skip


def become(
    command: Sequence[str],
    mask: set[signal.Signals] | set[int],
    prepare: Callable[[], None],
) -> NoReturn:
    """The child: ``prepare``, and the command in its place, with ``mask`` as its signals' mask.

    If it can't be executed, a line about it is on stderr, and the exit code is one of POSIX's.
    """
    code = NOT_EXECUTABLE
    try:
        prepare()
        for each in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores, and exec would keep
            signal.signal(each, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.execvp(command[0], [*command])
    except FileNotFoundError as error:
        code = NOT_FOUND
        _say(command[0], error)
    except (OSError, ValueError) as error:
        _say(command[0], error)
    finally:
        os._exit(code)


def _say(what: str, error: Exception) -> None:
    line = f"oegw: {what}: {getattr(error, 'strerror', None) or error}\n"
    with suppress(OSError):
        os.write(2, line.encode(errors="backslashreplace"))
