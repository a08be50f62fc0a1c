"""A daemon that is a process of its own: its signals, and its end.

Such daemons are started by hand or beside a running gateway (`childprocess.py`).
"""

from __future__ import annotations

import asyncio
import resource
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, TypeVar

from oegw.exitcodes import FAILED, NOT_PERMITTED
from oegw.trace import Trace


class Daemon(Protocol):
    """What has begun."""

    async def close(self) -> None: ...


_Daemon = TypeVar("_Daemon", bound=Daemon)


@dataclass(frozen=True, slots=True)
class Life:
    """``name``: of the command, ``moniker`` or ``socks``; so is its category in ``trace`` called.
    ``parent``: a descriptor that has an end when who started us has."""

    name: str
    trace: Trace
    parent: int | None = None

    def say(self, text: str) -> None:
        for line in text.splitlines():
            print(f"oegw {self.name}: {line}", file=sys.stderr, flush=True)


async def live(
    life: Life,
    begin: Callable[[], Awaitable[_Daemon]],
    reload: Callable[[_Daemon], Awaitable[Sequence[str]]],
    start_failures: tuple[type[Exception], ...],
    reload_failures: tuple[type[Exception], ...],
) -> int:
    """Until SIGTERM, SIGINT or the end of the parent; SIGHUP has it ``reload``, which returns notes
    for the operator.  Where that raises one of ``reload_failures`` the old settings stay.

    Returns the exit code: 0, or 1 if ``begin`` raised one of ``start_failures``.
    """
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    hang_up = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    loop.add_signal_handler(signal.SIGHUP, hang_up.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # as who started us may have it
    if life.parent is not None:
        loop.add_reader(life.parent, stopping.set)
    try:
        daemon = await begin()
    except start_failures as error:
        life.say(f"cannot start: {in_words(error)}")
        return NOT_PERMITTED if isinstance(error, PermissionError) else FAILED

    async def reload_when_told() -> None:
        while True:
            await hang_up.wait()
            hang_up.clear()
            try:
                notes = await reload(daemon)
            except reload_failures as error:
                life.trace.event(life.name, "reload_failed", detail=str(error))
                life.say(f"reload: the old settings stay: {in_words(error)}")
            else:
                for note in notes:
                    life.say(note)

    reloading = asyncio.create_task(reload_when_told())
    ended = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait((ended, reloading), return_when=asyncio.FIRST_COMPLETED)
        if reloading.done():
            reloading.result()  # our own mistake: raises
        return 0
    finally:
        ended.cancel()
        reloading.cancel()
        await asyncio.gather(ended, reloading, return_exceptions=True)
        await daemon.close()


def raise_limit(wanted: int = 0) -> None:
    """As many descriptors as the kernel lets us have: ``wanted``, if that is more than the limit
    that we were started with and we may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in (max(hard, wanted), hard):
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
            return


def in_words(error: Exception) -> str:
    """The error without the number that Python writes before that of a system call."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)
