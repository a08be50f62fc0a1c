"""The process of the server: signals, and its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from oegw.socks5.interface import Dialler, Resolver
from oegw.socks5.settings import SocksSettings
from oegw.trace import Trace


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
    raise NotImplementedError
