"""Finding a service by its name, and connecting to it (MK-4, MK-6, MK-12, MK-30)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from oegw.moniker.interface import IPAddress
from oegw.moniker.library.session import Session
from oegw.moniker.names import ServiceName
from oegw.moniker.settings import DEFAULT_SOCKET
from oegw.moniker.wire import DEFAULT_PORT


@dataclass(frozen=True, slots=True)
class Resolved:
    """Where a service is, for the commands that must know.  ``encrypted``: the question was.

    ``port`` None: the host speaks TCPMUX only, and the service is reached at ``question_port``.
    """

    address: IPAddress
    port: int | None
    transport: str
    version: str
    families: str
    ttl: int
    encrypted: bool
    question_port: int = DEFAULT_PORT


def connect(
    target: str,
    service: str | ServiceName | None = None,
    *,
    transport: str | None = None,
    timeout: float = 10.0,
    encrypt: str | None = None,
    sst: bool = False,
    question_port: int = DEFAULT_PORT,
    daemon: Path = DEFAULT_SOCKET,
) -> Session:
    """A session with a service: ``connect("starwars://theforce.net")`` or ``connect("theforce.net",
    "starwars@1")``.

    ``transport`` None: what the service has.  ``encrypt``: ``"never"``, ``"prefer"``,
    ``"require"``; None: as this host's policy says.  ``sst``: only with encrypted ports.
    ``question_port``: of the far daemon.  ``daemon``: the socket of this host's own, for its
    policy.  Raises the errors of `errors`, and InvalidName.
    """
    raise NotImplementedError


def resolve(
    host: str,
    service: str | ServiceName,
    *,
    transport: str | None = None,
    timeout: float = 10.0,
    encrypt: str | None = None,
    question_port: int = DEFAULT_PORT,
    daemon: Path = DEFAULT_SOCKET,
) -> Resolved:
    """Where the service is.  Raises as `connect` does."""
    raise NotImplementedError
