"""The process of the daemon."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from oegw.daemonlife import Life, live, raise_limit
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
    """Serve as `daemonlife.live` says; a reload reads the settings again by ``load``, which raises
    ``refused`` for what is wrong with them.

    ``parent``: a descriptor that has an end when who started us has.  Returns the exit code.
    """

    async def begin() -> Daemon:
        daemon = Daemon(settings, trace)
        await daemon.start()
        return daemon

    async def reload(daemon: Daemon) -> Sequence[str]:
        return await daemon.reload(await asyncio.to_thread(load))

    raise_limit()  # each application has a connection
    life = Life("moniker", trace, parent)
    return asyncio.run(live(life, begin, reload, START_FAILURES, (refused, *START_FAILURES)))
