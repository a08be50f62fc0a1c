"""The process of the server: signals, and its end."""

from __future__ import annotations

import asyncio
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from oegw.control import ControlError
from oegw.socks5.interface import Dialler, Resolver
from oegw.socks5.relay import ProcessRelay
from oegw.socks5.server.service import Server
from oegw.socks5.settings import SocksSettings
from oegw.trace import Trace

# Our choices, of descriptors.  A connection has two sockets, an association three, usually; beside
# them there are pipes of the relay, listeners, and what resolver and dialler have.
OF_A_CONNECTION = 2
OF_ALL = 4096

START_FAILURES: tuple[type[Exception], ...] = (OSError, ControlError)


@dataclass(frozen=True, slots=True)
class Given:
    """What the server is handed: by whom names are resolved, and who has a say in what leaves."""

    settings: SocksSettings
    resolver: Resolver
    dialler: Dialler


def serve(
    load: Callable[[], Given],
    trace: Trace,
    refused: type[Exception],
    parent: int | None = None,
) -> int:
    """Serve until SIGTERM or SIGINT; SIGHUP calls ``load`` again, which raises ``refused`` for what
    is wrong with the settings: then the old ones stay.  The first call of ``load`` is made before
    there is an event loop, and what it raises is the caller's.

    ``parent``: a descriptor that has an end when who started us has.  Returns the exit code: 0, or
    1 if it could not start.
    """
    given = load()
    _raise_limit(OF_A_CONNECTION * given.settings.limits.total + OF_ALL)
    return asyncio.run(_serve(given, load, trace, refused, parent))


async def _serve(
    given: Given,
    load: Callable[[], Given],
    trace: Trace,
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
    server = Server(given.settings, given.resolver, given.dialler, ProcessRelay(), trace)
    try:
        await server.start()
    except START_FAILURES as error:
        await server.close()
        _say(f"cannot start: {_in_words(error)}")
        return 1

    async def reload_when_told() -> None:
        while True:
            await hang_up.wait()
            hang_up.clear()
            try:
                again = await asyncio.to_thread(load)
            except (refused, OSError) as error:
                trace.event("socks", "reload_failed", detail=str(error))
                _say(f"reload: the old settings stay: {_in_words(error)}")
                continue
            for note in await server.reload(again.settings, again.resolver, again.dialler):
                _say(note)

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
        await server.close()


def _raise_limit(wanted: int) -> None:
    """As many descriptors as the kernel lets us have; more than the limit that we were started
    with, if we may.  The processes of the relay have the same limit each."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in (max(hard, wanted), hard):
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
            return


def _say(text: str) -> None:
    for line in text.splitlines():
        print(f"oegw socks: {line}", file=sys.stderr, flush=True)


def _in_words(error: Exception) -> str:
    """The error without the number that Python writes before that of a system call."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)
