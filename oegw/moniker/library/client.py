"""Finding a service by its name, and connecting to it (MK-4, MK-6, MK-12, MK-30)."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING

from oegw.moniker.interface import IPAddress
from oegw.moniker.library import waiting
from oegw.moniker.library.cache import Cache
from oegw.moniker.library.finding import Finding, Found, Wish
from oegw.moniker.library.policy import policy_of_this_host
from oegw.moniker.library.session import Session
from oegw.moniker.names import InvalidName, ServiceName
from oegw.moniker.settings import DEFAULT_SOCKET, ClientSettings
from oegw.moniker.transports import Kind
from oegw.moniker.uri import MonikerUri
from oegw.moniker.wire import DEFAULT_PORT

if TYPE_CHECKING:
    from oegw.moniker.library.hostkey import HostKeys

TIMEOUT = 10.0  # seconds, our choice

answers = Cache()  # of this process


@dataclass(frozen=True, slots=True)
class Resolved:
    """Where a service is, for the commands that must know.  ``encrypted``: the question was.

    ``port`` None: the host speaks TCPMUX only, and the service is reached at ``question_port``;
    then nothing else is known of it.
    """

    address: IPAddress
    port: int | None
    transport: str
    version: str
    families: str
    ttl: int
    encrypted: bool
    question_port: int = DEFAULT_PORT
    sst: bool = False


def connect(
    target: str,
    service: str | ServiceName | None = None,
    *,
    transport: str | None = None,
    kind: Kind = Kind.STREAM,
    timeout: float = TIMEOUT,
    encrypt: str | None = None,
    sst: bool = False,
    question_port: int = DEFAULT_PORT,
    daemon: Path = DEFAULT_SOCKET,
) -> Session:
    """A session with a service: ``connect("starwars://theforce.net")`` or ``connect("theforce.net",
    "starwars@1")``.

    ``transport``: a name; None: what the service has, of ``kind``.  ``timeout``: seconds for all of
    it.  ``encrypt``: whether the question is, ``"never"``, ``"prefer"``, ``"require"``; None: as
    this host's policy says.  ``sst``: only with encrypted ports.  ``question_port``: of the far
    daemon.  ``daemon``: the socket of this host's own, which knows the policy.

    Raises InvalidName, UnknownTransport, and the errors of `errors`.
    """
    wish, path = wish_of(
        target, service, transport, question_port, timeout, kind=kind, encrypt=encrypt, sst=sst
    )
    until = time.monotonic() + timeout
    policy = policy_of_this_host(daemon, seconds=timeout)
    sock, found = waiting.run(finding(wish, policy, until).connection(), _key_of)
    return session_of(wish, sock, found, path)


def resolve(
    host: str,
    service: str | ServiceName,
    *,
    transport: str | None = None,
    timeout: float = TIMEOUT,
    encrypt: str | None = None,
    question_port: int = DEFAULT_PORT,
    daemon: Path = DEFAULT_SOCKET,
) -> Resolved:
    """Where the service is: always by a question.  Raises as `connect` does."""
    wish, _ = wish_of(host, service, transport, question_port, timeout, kind=None, encrypt=encrypt)
    until = time.monotonic() + timeout
    policy = policy_of_this_host(daemon, seconds=timeout)
    found = waiting.run(finding(wish, policy, until).location(), _key_of)
    return resolved_of(found, question_port)


def _key_of(host: str, address: IPAddress, seconds: float) -> bytes | None:
    return host_keys().find(host, address, seconds)


# ------------------------------------------------------------------ shared with asyncio


def wish_of(
    target: str,
    service: str | ServiceName | None,
    transport: str | None,
    question_port: int,
    seconds: float,
    *,
    kind: Kind | None = Kind.STREAM,
    encrypt: str | None = None,
    sst: bool = False,
) -> tuple[Wish, str]:
    """What is wanted, and what the URI has after its host.  Raises InvalidName, ValueError."""
    if encrypt not in (None, "never", "prefer", "require"):
        raise ValueError(f'encrypt {encrypt!r}: is not "never", "prefer" or "require"')
    path = ""
    if service is None:
        uri = MonikerUri.parse(target)
        host, name, path = uri.host, uri.name, uri.rest
        question_port = uri.port or question_port
    else:
        host = target
        name = service if isinstance(service, ServiceName) else ServiceName.parse(service)
    if not host:
        raise InvalidName("a host without a name")
    wanted = kind if transport is None else None
    return Wish(host, name, transport, question_port, seconds, wanted, encrypt, sst), path


@cache
def host_keys() -> HostKeys:
    """Those of this process; what finds them takes a while to import."""
    from oegw.moniker.library.hostkey import HostKeys

    return HostKeys()


def finding(wish: Wish, policy: ClientSettings, until: float) -> Finding:
    return Finding(
        wish, policy, answers, random=secrets.token_bytes, clock=time.monotonic, until=until
    )


def session_of(wish: Wish, sock: socket, found: Found, path: str) -> Session:
    return Session(
        sock, wish.name, str(found.place.address), found.kind(), encrypted=found.encrypted,
        path=path,
    )  # fmt: skip


def resolved_of(found: Found, question_port: int) -> Resolved:
    answer, address = found.answer, found.place.address
    if answer is None:
        family = str(address.version)
        return Resolved(address, None, "tcp", "", family, 0, False, question_port)
    return Resolved(
        address, answer.port, answer.transport, str(answer.version), answer.families, answer.ttl,
        found.encrypted, question_port, answer.sst,
    )  # fmt: skip
