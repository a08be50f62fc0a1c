"""The process of the server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from oegw.control import ControlError
from oegw.daemonlife import Life, live, raise_limit
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
    """Serve as `daemonlife.live` says; a reload calls ``load`` again, which raises ``refused`` for
    what is wrong with the settings.  The first call of ``load`` is made before there is an event
    loop, and what it raises is the caller's.

    ``parent``: a descriptor that has an end when who started us has.  Returns the exit code.
    """
    given = load()

    async def begin() -> Server:
        server = Server(given.settings, given.resolver, given.dialler, ProcessRelay(), trace)
        try:
            await server.start()
        except BaseException:
            await server.close()
            raise
        return server

    async def reload(server: Server) -> Sequence[str]:
        again = await asyncio.to_thread(load)
        return await server.reload(again.settings, again.resolver, again.dialler)

    # The processes of the relay have the same limit each.
    raise_limit(OF_A_CONNECTION * given.settings.limits.total + OF_ALL)
    life = Life("socks", trace, parent)
    return asyncio.run(live(life, begin, reload, START_FAILURES, (refused, OSError)))
