"""The process of the daemon: signals, and its end."""

from __future__ import annotations

import asyncio
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import suppress

from oegw.keyfile import KeyFileError
from oegw.moniker.daemon.service import Daemon
from oegw.moniker.names import MonikerError
from oegw.moniker.settings import MonikerSettings
from oegw.trace import Trace
from oegw.unixsocket import AddressTaken

START_FAILURES: tuple[type[Exception], ...] = (OSError, AddressTaken, KeyFileError, MonikerError)


def serve(
    settings: MonikerSettings,
    trace: Trace,
    load: Callable[[], MonikerSettings],
    refused: type[Exception],
    parent: int | None = None,
) -> int:
    """Serve until SIGTERM or SIGINT; SIGHUP reads the settings again by ``load``, which raises
    ``refused`` for what is wrong with them: then the old ones stay.

    ``parent``: a descriptor that has an end when who started us has.  Returns the exit code: 0, or
    1 if it could not start.
    """
    _raise_limit()
    return asyncio.run(_serve(settings, trace, load, refused, parent))


async def _serve(
    settings: MonikerSettings,
    trace: Trace,
    load: Callable[[], MonikerSettings],
    refused: type[Exception],
    parent: int | None,
) -> int:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    hang_up = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    loop.add_signal_handler(signal.SIGHUP, hang_up.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # as who started us may have it
    if parent is not None:
        loop.add_reader(parent, stopping.set)
    try:
        daemon = Daemon(settings, trace)
        await daemon.start()
    except START_FAILURES as error:
        _say(f"cannot start: {_in_words(error)}")
        return 1

    failures = (refused, *START_FAILURES)

    async def reload_when_told() -> None:
        while True:
            await hang_up.wait()
            hang_up.clear()
            try:
                notes = await daemon.reload(await asyncio.to_thread(load))
            except failures as error:
                trace.event("moniker", "reload_failed", detail=str(error))
                _say(f"reload: the old settings stay: {_in_words(error)}")
            else:
                for note in notes:
                    _say(note)

    reloading = asyncio.create_task(reload_when_told())
    try:
        ended = asyncio.create_task(stopping.wait())
        await asyncio.wait((ended, reloading), return_when=asyncio.FIRST_COMPLETED)
        if reloading.done():
            reloading.result()  # our own mistake: raises
        return 0
    finally:
        reloading.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(reloading, return_exceptions=True)
        await daemon.close()


def _raise_limit() -> None:
    """As many connections as the kernel lets us have: each application has one."""
    with suppress(OSError, ValueError):
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _say(text: str) -> None:
    for line in text.splitlines():
        print(f"oegw moniker: {line}", file=sys.stderr, flush=True)


def _in_words(error: Exception) -> str:
    """The error without the number that Python writes before that of a system call."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)
