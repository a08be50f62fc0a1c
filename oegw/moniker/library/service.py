"""A named service of this process (MK-3, MK-4, MK-7)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from oegw.moniker.library.session import Session
from oegw.moniker.settings import DEFAULT_SOCKET


class Service:
    """Held port, registration, and what comes in.  A context manager; iterate it for sessions."""

    name: str
    namespace: str
    version: str

    def listen(self, backlog: int = 128) -> None:
        raise NotImplementedError

    def accept(self) -> Session:
        raise NotImplementedError

    def __iter__(self) -> Iterator[Session]:
        raise NotImplementedError

    def reveal_port(self) -> int:
        """The port, for those who must know: to write it into another program's configuration."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


def serve(
    name: str,
    *,
    version: str = "1",
    transport: str = "tcp",
    families: str = "46",
    namespace: str | None = None,
    weight: int = 100,
    tcpmux: bool = False,
    sst: bool = False,
    exported: bool = False,
    text: tuple[str, ...] = (),
    backlog: int = 128,
    daemon: Path = DEFAULT_SOCKET,
    patience: float = 1.0,
) -> Service:
    """A service that is bound, listening and registered.

    Raises InvalidName, RegistrationRefused, DaemonAbsent, NoPortLeft, TransportUnavailable.
    """
    raise NotImplementedError
